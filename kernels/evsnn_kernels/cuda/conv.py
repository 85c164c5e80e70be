"""Convolutional layer, event by event (docs/model.md, S1 to S8, S18); layout as in the CPU twin."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import cuda, float32, int32, uint32

from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import F32, I32, I64, U8, U32, Scalar
from evsnn_kernels.spec.convolution import first_place, last_place, offset, target
from evsnn_kernels.spec.neuron import (
    clamped,
    decay_factor,
    decayed,
    inhibition,
    reaches,
    received,
    refractory_weight,
    reset,
)

#: Events that a block stages in shared memory at once, and one time more: that of the next event.
_CHUNK: Final = 128
_CHUNK_AND_NEXT: Final = _CHUNK + 1

#: Neurons whose spikes are put in order at once: a bit each, in words of 32.
_WORDS: Final = 128
_BITS: Final = 32 * _WORDS

#: Most threads of a block.
_MOST_THREADS: Final = 1024


def _shared_bytes(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    """Two windows of decay factors, places and weight rows, and a bit for every place."""
    kernel, stride, _, out_height, out_width = (int(a) for a in args[12:17])
    across = -(-kernel // stride)
    return 4 * (6 * across * across + (out_height * out_width + 31) // 32)


@cuda_kernel(threads=128, shared_bytes=_shared_bytes)
def forward(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    weight: F32,
    decay_high: F32,
    decay_low: F32,
    floor: Scalar,
    kappa: Scalar,
    refractory: Scalar,
    height: Scalar,
    width: Scalar,
    kernel: Scalar,
    stride: Scalar,
    padding: Scalar,
    out_height: Scalar,
    out_width: Scalar,
    maps: Scalar,
    potential: F32,
    last_update: I64,
    last_spike: I64,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    out_operations: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Turn the input queue of samples first:last into their output queue; see the CPU twin.

    One block a sample, one event after the other. First a thread for every place that the event reaches finds
    its decay factor and weight row, then a thread for every membrane there takes the event. At the end of a
    time group the places reached lie in a box; its neurons, map by map and place by place, are in the
    order of their units, so a bit for each neuron that fires gives the order of the spikes.
    """
    staged_times = cuda.shared.array(_CHUNK_AND_NEXT, np.uint32)
    staged_units = cuda.shared.array(_CHUNK, np.uint32)
    firing = cuda.shared.array(2, np.int32)
    fired = cuda.shared.array(_WORDS, np.uint32)
    n_fired = cuda.shared.array(1, np.int32)
    # One piece of memory under three types; the parts do not overlap.
    factors = cuda.shared.array(0, float32)
    offsets = cuda.shared.array(0, int32)
    touched = cuda.shared.array(0, uint32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        padded = weight.shape[1]
        places = out_height * out_width
        channels = weight.shape[0] // (kernel * kernel)
        window = ((kernel + stride - 1) // stride) * ((kernel + stride - 1) // stride)
        bases_at = 2 * window
        rows_at = 4 * window
        touched_at = 6 * window
        place_words = (places + 31) >> 5
        for w in range(thread, place_words, threads):
            touched[touched_at + w] = np.uint32(0)
        for w in range(thread, _WORDS, threads):
            fired[w] = np.uint32(0)
        if thread == 0:
            firing[0] = np.int32(0)
            firing[1] = np.int32(0)
            n_fired[0] = np.int32(0)
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = np.int64(0)
        operations = np.int64(0)
        half = np.int64(0)
        turn = np.int64(0)
        opening = True
        y_low = out_height
        y_high = np.int64(-1)
        x_low = out_width
        x_high = np.int64(-1)
        chunk = start[s]
        stop = chunk + count[s]
        while chunk < stop:
            loaded = min(stop - chunk, np.int64(_CHUNK))
            more = chunk + loaded < stop
            cuda.syncthreads()
            for e in range(thread, loaded, threads):
                staged_times[e] = times[chunk + e]
                staged_units[e] = units[chunk + e]
            if thread == 0 and more:
                staged_times[loaded] = times[chunk + loaded]
            cuda.syncthreads()
            for e in range(loaded):
                stamp = staged_times[e]
                time = np.int64(stamp)
                closing = (e + 1 == loaded and not more) or staged_times[e + 1] != stamp
                # A lone event meets every place once: then one pass does all.
                lone = opening and closing and refractory == 0
                unit = np.int64(staged_units[e])
                x = unit % width
                y = unit // width % height
                channel = unit // (width * height)
                y_first = first_place(y, kernel, padding, stride)
                y_last = last_place(y, padding, stride, out_height)
                x_first = first_place(x, kernel, padding, stride)
                x_last = last_place(x, padding, stride, out_width)
                columns = x_last + 1 - x_first
                reached = max(y_last + 1 - y_first, np.int64(0)) * max(columns, np.int64(0))
                operations += reached * maps
                if opening:
                    y_low = out_height
                    y_high = np.int64(-1)
                    x_low = out_width
                    x_high = np.int64(-1)
                if reached > 0:
                    y_low = min(y_low, y_first)
                    y_high = max(y_high, y_last)
                    x_low = min(x_low, x_first)
                    x_high = max(x_high, x_last)
                # Two windows take turns: one is still read while the next is written.
                half = window - half
                for j in range(thread, reached, threads):
                    oy = y_first + j // columns
                    ox = x_first + j % columns
                    place = oy * out_width + ox
                    entry = offset(y, oy, padding, stride) * kernel + offset(x, ox, padding, stride)
                    # D(0) is 1: a place that the group has reached before does not decay again.
                    factors[half + j] = decay_factor(time - last_update[s, place], decay_high, decay_low)
                    last_update[s, place] = time
                    offsets[bases_at + half + j] = place * padded
                    offsets[rows_at + half + j] = entry * channels + channel
                    if not lone:
                        cuda.atomic.or_(touched, touched_at + (place >> 5), np.uint32(1 << (place & 31)))
                cuda.syncthreads()
                if refractory == 0:
                    for item in range(thread, reached * padded, threads):
                        j = half + item // padded
                        m = item % padded
                        at = offsets[bases_at + j] + m
                        v = received(decayed(potential[s, at], factors[j]), weight[offsets[rows_at + j], m])
                        if lone:
                            v = clamped(v, floor)
                            if reaches(v):
                                firing[turn] = np.int32(1)
                        potential[s, at] = v
                else:
                    for item in range(thread, reached * maps, threads):
                        j = half + item // maps
                        m = item % maps
                        at = offsets[bases_at + j] + m
                        w = weight[offsets[rows_at + j], m]
                        since = time - last_spike[s, at]
                        if since < refractory:
                            w = refractory_weight(since, refractory) * w
                        potential[s, at] = received(decayed(potential[s, at], factors[j]), w)
                opening = closing
                if closing:
                    box_width = x_high + 1 - x_low
                    area = max(y_high + 1 - y_low, np.int64(0)) * max(box_width, np.int64(0))
                    cuda.syncthreads()
                    if not lone:
                        for item in range(thread, area * padded, threads):
                            p = item // padded
                            place = (y_low + p // box_width) * out_width + x_low + p % box_width
                            if (touched[touched_at + (place >> 5)] >> (place & 31)) & 1:
                                at = place * padded + item % padded
                                v = clamped(potential[s, at], floor)
                                potential[s, at] = v
                                if reaches(v):
                                    firing[turn] = np.int32(1)
                        cuda.syncthreads()
                    any_fires = firing[turn] != 0
                    turn = 1 - turn
                    if thread == 0:
                        firing[turn] = np.int32(0)
                    if any_fires:
                        for low in range(0, maps * area, _BITS):
                            high = min(low + _BITS, maps * area)
                            for k in range(low + thread, high, threads):
                                p = k % area
                                place = (y_low + p // box_width) * out_width + x_low + p % box_width
                                if lone or (touched[touched_at + (place >> 5)] >> (place & 31)) & 1:
                                    if reaches(potential[s, place * padded + k // area]):
                                        b = k - low
                                        cuda.atomic.or_(fired, b >> 5, np.uint32(1 << (b & 31)))
                                        cuda.atomic.add(n_fired, 0, np.int32(1))
                            cuda.syncthreads()
                            found = n_fired[0]
                            words = (high - low + 31) >> 5
                            for w in range(thread, words, threads):
                                word = fired[w]
                                if word != 0:
                                    at = produced
                                    for lower in range(w):
                                        at += cuda.popc(fired[lower])
                                    for b in range(32):
                                        if (word >> b) & 1:
                                            k = low + 32 * w + b
                                            p = k % area
                                            place = (y_low + p // box_width) * out_width
                                            place += x_low + p % box_width
                                            if at < capacity:
                                                out_times[slot + at] = stamp
                                                out_units[slot + at] = k // area * places + place
                                            at += 1
                            produced += found
                            cuda.syncthreads()
                            for w in range(thread, words, threads):
                                fired[w] = np.uint32(0)
                            if thread == 0:
                                n_fired[0] = np.int32(0)
                            cuda.syncthreads()
                        for p in range(thread, area, threads):
                            place = (y_low + p // box_width) * out_width + x_low + p % box_width
                            if lone or (touched[touched_at + (place >> 5)] >> (place & 31)) & 1:
                                base = place * padded
                                here = np.int64(0)
                                for m in range(padded):
                                    if reaches(potential[s, base + m]):
                                        here += 1
                                if here > 0:
                                    others = inhibition(here, kappa)
                                    others_of_fired = inhibition(here - 1, kappa)
                                    for m in range(padded):
                                        v = potential[s, base + m]
                                        change = others
                                        if reaches(v):
                                            v = reset(v)
                                            change = others_of_fired
                                            if refractory > 0:
                                                last_spike[s, base + m] = time
                                        if kappa < 0.0:
                                            v = clamped(received(v, change), floor)
                                        potential[s, base + m] = v
                    if not lone:
                        cuda.syncthreads()
                        for w in range(thread, place_words, threads):
                            touched[touched_at + w] = np.uint32(0)
                        cuda.syncthreads()
            chunk += loaded
        if thread == 0:
            out_count[s] = produced
            out_operations[s] = operations


@cuda_kernel(threads=256)
def by_place(delta: F32, maps: Scalar, out_delta: F32, out_active: U8, first: Scalar, last: Scalar) -> None:
    """Reorder errors place by place and mark the places that have any; see the CPU twin."""
    s = first + cuda.blockIdx.x
    if s < last:
        places = delta.shape[1] // maps
        padded = out_delta.shape[1] // places
        for place in range(cuda.threadIdx.x, places, cuda.blockDim.x):
            active = np.uint8(0)
            for m in range(padded):
                d = np.float32(0.0)
                if m < maps:
                    d = delta[s, m * places + place]
                out_delta[s, place * padded + m] = d
                if d != np.float32(0.0):
                    active = np.uint8(1)
            out_active[s, place] = active


@cuda_kernel(threads=256)
def active_inputs(
    activity: F32, height: Scalar, width: Scalar, out_inputs: I32, out_count: I64, first: Scalar, last: Scalar
) -> None:
    """List the active inputs of each sample in ascending order; see the CPU twin.

    A thread looks through a contiguous range; how many the ranges before it hold is where its own begin.
    """
    n_active = cuda.shared.array(_MOST_THREADS, np.int32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        n_in = activity.shape[1]
        share = (n_in + threads - 1) // threads
        low = min(thread * share, n_in)
        high = min(low + share, n_in)
        mine = np.int32(0)
        for k in range(low, high):
            if activity[s, k] != np.float32(0.0):
                mine = np.int32(mine + 1)
        n_active[thread] = mine
        cuda.syncthreads()
        found = np.int64(0)
        for t in range(thread):
            found += n_active[t]
        for k in range(low, high):
            if activity[s, k] != np.float32(0.0):
                out_inputs[s, found, 0] = k // (height * width)
                out_inputs[s, found, 1] = k // width % height
                out_inputs[s, found, 2] = k % width
                found += 1
        if thread == threads - 1:
            out_count[s] = found


@cuda_kernel(threads=128)
def transpose(weight: F32, out_transposed: F32, first: Scalar, last: Scalar) -> None:
    """Weights of maps first:last as rows; see the CPU twin. A block a map."""
    m = first + cuda.blockIdx.x
    if m < last:
        for row in range(cuda.threadIdx.x, weight.shape[0], cuda.blockDim.x):
            out_transposed[m, row] = weight[row, m]


@cuda_kernel(threads=128)
def propagate(
    activity: F32,
    weight: F32,
    normalise: Scalar,
    height: Scalar,
    width: Scalar,
    kernel: Scalar,
    stride: Scalar,
    padding: Scalar,
    out_width: Scalar,
    delta: F32,
    active_places: U8,
    out_error: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Error of the active inputs: the sum over the places they reach and their maps (S8, S18).

    See the CPU twin. A thread gathers one input at a time, from places in ascending order.
    """
    n_active = cuda.shared.array(1, np.int32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        maps, rows = weight.shape
        channels = rows // (kernel * kernel)
        n_in = activity.shape[1]
        places = active_places.shape[1]
        padded = delta.shape[1] // places
        out_height = places // out_width
        if thread == 0:
            n_active[0] = np.int32(0)
        cuda.syncthreads()
        mine = np.int32(0)
        for k in range(thread, n_in, threads):
            if activity[s, k] > np.float32(0.0):
                mine = np.int32(mine + 1)
        cuda.atomic.add(n_active, 0, mine)
        cuda.syncthreads()
        active = n_active[0]
        scale = np.float32(1.0)
        if normalise != 0 and active > 0:
            scale = np.float32(math.sqrt(np.float32(n_in) / np.float32(active)))
        for k in range(thread, n_in, threads):
            error = np.float32(0.0)
            if activity[s, k] > np.float32(0.0):
                x = k % width
                y = k // width % height
                channel = k // (width * height)
                y_first = first_place(y, kernel, padding, stride)
                y_last = last_place(y, padding, stride, out_height)
                x_first = first_place(x, kernel, padding, stride)
                x_last = last_place(x, padding, stride, out_width)
                for oy in range(y_first, y_last + 1):
                    for ox in range(x_first, x_last + 1):
                        place = oy * out_width + ox
                        if active_places[s, place] != 0:
                            entry = offset(y, oy, padding, stride) * kernel + offset(x, ox, padding, stride)
                            row = entry * channels + channel
                            part = np.float32(0.0)
                            for m in range(maps):
                                d = delta[s, place * padded + m]
                                if d != np.float32(0.0):
                                    part += weight[m, row] * d
                            error += part
                error *= scale
            out_error[s, k] = error


@cuda_kernel(threads=128)
def weight_gradient(
    activity: F32,
    inputs: I32,
    n_inputs: I64,
    delta: F32,
    active_places: U8,
    scale: F32,
    height: Scalar,
    width: Scalar,
    kernel: Scalar,
    stride: Scalar,
    padding: Scalar,
    out_height: Scalar,
    out_width: Scalar,
    out_gradient: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Sum over samples and active inputs of scale * activity * delta, kernel entries first:last (S8, S18).

    See the CPU twin. One block a kernel entry, one thread a channel and map: it sums over samples and
    inputs in their order, so no sum can be split. Inputs are sorted by channel, which a search uses.
    """
    entry = first + cuda.blockIdx.x
    if entry < last:
        rows, maps = out_gradient.shape
        channels = rows // (kernel * kernel)
        places = active_places.shape[1]
        padded = delta.shape[1] // places
        for item in range(cuda.threadIdx.x, channels * maps, cuda.blockDim.x):
            channel = item // maps
            m = item % maps
            total = np.float32(0.0)
            for s in range(activity.shape[0]):
                n = n_inputs[s]
                j = np.int64(0)
                end = n
                while j < end:
                    middle = (j + end) >> 1
                    if inputs[s, middle, 0] < channel:
                        j = middle + 1
                    else:
                        end = middle
                while j < n and inputs[s, j, 0] == channel:
                    y = np.int64(inputs[s, j, 1])
                    x = np.int64(inputs[s, j, 2])
                    j += 1
                    oy = target(y, entry // kernel, padding, stride, out_height)
                    ox = target(x, entry % kernel, padding, stride, out_width)
                    if oy >= 0 and ox >= 0:
                        place = oy * out_width + ox
                        if active_places[s, place] != 0:
                            factor = activity[s, (channel * height + y) * width + x] * scale[s]
                            total += delta[s, place * padded + m] * factor
            out_gradient[entry * channels + channel, m] = total


@cuda_kernel(threads=128)
def threshold_gradient(
    threshold_delta: F32, scale: F32, places: Scalar, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """Gradient of the thresholds of maps first:last, each shared by all places.

    One block a map, one thread a sample; the sums of the samples are added up in their order.
    """
    parts = cuda.shared.array(_MOST_THREADS, np.float32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    m = first + cuda.blockIdx.x
    if m < last:
        n_samples = threshold_delta.shape[0]
        total = np.float32(0.0)
        for chunk in range(0, n_samples, threads):
            s = chunk + thread
            part = np.float32(0.0)
            if s < n_samples:
                for place in range(places):
                    part += threshold_delta[s, m * places + place]
            cuda.syncthreads()
            parts[thread] = part
            cuda.syncthreads()
            if thread == 0:
                for t in range(min(threads, n_samples - chunk)):
                    total += scale[chunk + t] * parts[t]
        if thread == 0:
            out_gradient[m] = total
