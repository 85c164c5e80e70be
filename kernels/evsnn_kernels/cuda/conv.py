"""Convolutional layer, event by event (docs/model.md, S1 to S8, S18); layout as in the CPU twin."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import cuda, float32, uint32

from evsnn_kernels.cuda.block import bits_below
from evsnn_kernels.jit import cuda_kernel, cuda_part
from evsnn_kernels.layout import F32, I32, I64, U8, U32, Scalar
from evsnn_kernels.spec.convolution import first_place, last_place, offset, origin, target
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

#: Events that a block stages in shared memory at once.
_CHUNK: Final = 128

#: What is staged of an event: bits.
_OPENS: Final = 1  # its time group
_CLOSES: Final = 2
_LONE: Final = 4  # an event that is a time group by itself and meets every place once

#: Words of 32 bits that mark the spikes of a time group, some for each place; two sets of them take turns.
_WORDS: Final = 1024
_SETS: Final = 2 * _WORDS
_BITS: Final = 32 * _WORDS

#: Most threads of a block.
_MOST_THREADS: Final = 1024

#: Errors that are listed at once on their way back, and the places they belong to, at most.
_LISTED: Final = 2048
_PLACES: Final = 64

#: Samples, inputs (with the words of 32 bits that mark them) and products of a weight gradient that a block
#: holds at once.
_SAMPLES: Final = 256
_SAMPLES_AND_END: Final = _SAMPLES + 1
_INPUTS: Final = 256
_INPUT_WORDS: Final = 8
_PRODUCTS: Final = 4096


@cuda_part
def _window(kernel: Scalar, stride: Scalar, out_height: Scalar, out_width: Scalar) -> Scalar:
    """Places that an event reaches, at most."""
    across = (kernel + stride - 1) // stride
    return min(across, out_height) * min(across, out_width)


def _threads(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    """Two membranes a thread, where an event reaches all the places it can; in whole warps."""
    padded: int = args[4].shape[1]
    window: int = _window(*(int(args[i]) for i in (12, 13, 15, 16)))
    share = window * padded // 2
    return min(512, max(64, -(-share // 32) * 32))


def _shared_bytes(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    """Two windows of decay factors, places and weight rows, and three sets of a bit for every place."""
    kernel, stride, _, out_height, out_width = (int(a) for a in args[12:17])
    window: int = _window(kernel, stride, out_height, out_width)
    return 4 * (6 * window + 3 * ((out_height * out_width + 31) // 32))


@cuda_part
def _mark(fired: U32, n_fired: I32, turn: Scalar, word: Scalar, m: Scalar) -> None:
    """Mark a spike of map m in the word of its place."""
    cuda.atomic.or_(fired, turn * np.uint32(_WORDS) + word, np.uint32(1 << (m & np.uint32(31))))
    cuda.atomic.add(n_fired, turn, np.int32(1))


@cuda_part
def _spikes_before(fired: U32, bits: Scalar, area: Scalar, map_words: Scalar, p: Scalar, m: Scalar) -> Scalar:
    """Spikes of a time group that come before map m at place p of its box: in order of maps, then places."""
    found = np.int64(0)
    below = np.uint32((np.uint32(1) << (m & np.uint32(31))) - 1)
    whole = np.uint32(m >> np.uint32(5))
    other = np.uint32(0)
    while other < area:
        at = np.uint32(bits + other * map_words)
        w = np.uint32(0)
        while w < whole:
            found += np.int64(cuda.popc(fired[at + w]))
            w = np.uint32(w + 1)
        word = fired[at + whole]
        found += np.int64(cuda.popc(np.uint32(word & below)))
        if other < p:
            found += np.int64((word >> (m & np.uint32(31))) & np.uint32(1))
        other = np.uint32(other + 1)
    return found


@cuda_part
def _fire_in_a_large_box(
    fired: U32,
    n_fired: I32,
    turn: Scalar,
    touched: U32,
    touched_at: Scalar,
    y_low: Scalar,
    x_low: Scalar,
    box_width: Scalar,
    area: Scalar,
    s: Scalar,
    stamp: Scalar,
    floor: Scalar,
    kappa: Scalar,
    refractory: Scalar,
    out_width: Scalar,
    places: Scalar,
    maps: Scalar,
    padded: Scalar,
    potential: F32,
    last_spike: I64,
    out_times: U32,
    out_units: U32,
    slot: Scalar,
    capacity: Scalar,
    produced: Scalar,
) -> Scalar:
    """Spikes of a time group whose places need more words than there are; returns how many.

    Bits stand for the neurons in the order of their units, piece by piece; then a thread takes a place.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    bits = np.int64(turn) * _WORDS
    total = np.int64(0)
    for low in range(0, maps * area, _BITS):
        high = min(low + _BITS, maps * area)
        for k in range(low + thread, high, threads):
            p = k % area
            place = (y_low + p // box_width) * out_width + x_low + p % box_width
            if (touched[touched_at + (place >> 5)] >> np.uint32(place & 31)) & 1:
                if reaches(potential[s, place * padded + k // area]):
                    b = k - low
                    cuda.atomic.or_(fired, bits + (b >> 5), np.uint32(1 << (b & 31)))
                    cuda.atomic.add(n_fired, turn, np.int32(1))
        cuda.syncthreads()
        words = (high - low + 31) >> 5
        for w in range(thread, words, threads):
            word = fired[bits + w]
            if word != 0:
                at = produced + total
                for lower in range(w):
                    at += np.int64(cuda.popc(fired[bits + lower]))
                for b in range(32):
                    if (word >> np.uint32(b)) & 1:
                        k = low + 32 * w + b
                        p = k % area
                        if at < capacity:
                            place = (y_low + p // box_width) * out_width + x_low + p % box_width
                            out_times[slot + at] = stamp
                            out_units[slot + at] = np.uint32(k // area * places + place)
                        at += 1
        total += np.int64(n_fired[turn])
        cuda.syncthreads()
        for w in range(thread, words, threads):
            fired[bits + w] = np.uint32(0)
        if thread == 0:
            n_fired[turn] = np.int32(0)
        cuda.syncthreads()
    for p in range(thread, area, threads):
        place = (y_low + p // box_width) * out_width + x_low + p % box_width
        if (touched[touched_at + (place >> 5)] >> np.uint32(place & 31)) & 1:
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
                            last_spike[s, base + m] = np.int64(stamp)
                    if kappa < 0.0:
                        v = clamped(received(v, change), floor)
                    potential[s, base + m] = v
    cuda.syncthreads()
    return total


@cuda_kernel(threads=_threads, shared_bytes=_shared_bytes)
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

    One block a sample, one event after the other. Threads lie in groups of a thread a map; a group takes one
    place after the other. For every place that an event reaches, a thread finds the decay factor and the
    weight row while the event before is still taken, so that one barrier an event is enough. The places that
    a time group has reached lie in a box. Neurons that fire set a bit each in the words of their place; the
    bits before it, map by map and place by place, give a spike its position.
    """
    kinds = cuda.shared.array(_CHUNK, np.uint32)
    stamps = cuda.shared.array(_CHUNK, np.uint32)
    # Of an event: where it comes from, and the places it reaches.
    from_y = cuda.shared.array(_CHUNK, np.uint32)
    from_x = cuda.shared.array(_CHUNK, np.uint32)
    from_channel = cuda.shared.array(_CHUNK, np.uint32)
    first_y = cuda.shared.array(_CHUNK, np.uint32)
    first_x = cuda.shared.array(_CHUNK, np.uint32)
    n_rows = cuda.shared.array(_CHUNK, np.uint32)
    n_columns = cuda.shared.array(_CHUNK, np.uint32)
    fired = cuda.shared.array(_SETS, np.uint32)
    n_fired = cuda.shared.array(2, np.int32)
    # One piece of memory under two types; the parts do not overlap.
    factors = cuda.shared.array(0, float32)
    window = cuda.shared.array(0, uint32)
    thread = np.uint32(cuda.threadIdx.x)
    threads = np.uint32(cuda.blockDim.x)
    s = first + cuda.blockIdx.x
    if s < last:
        padded = np.uint32(weight.shape[1])
        places = out_height * out_width
        channels = weight.shape[0] // (kernel * kernel)
        map_words = np.uint32((maps + 31) >> 5)
        window_size = np.uint32(_window(kernel, stride, out_height, out_width))
        bases_at = np.uint32(2 * window_size)
        rows_at = np.uint32(4 * window_size)
        touched_at = np.uint32(6 * window_size)
        place_words = np.uint32((places + 31) >> 5)
        step = np.uint32(min(threads, padded))
        group = np.uint32(thread // step)
        groups = np.uint32(threads // step)
        lane = np.uint32(thread - group * step)
        # Threads beyond the last whole group take no place.
        first_of_group = group if group < groups else np.uint32(0xFFFFFFFF)
        # A neuron that is none has no refractory period, and is left alone while others have one.
        n_receiving = np.uint32(maps) if refractory > 0 else padded
        w = thread
        while w < 3 * place_words:
            window[touched_at + w] = np.uint32(0)
            w = np.uint32(w + threads)
        w = thread
        while w < np.uint32(_SETS):
            fired[w] = np.uint32(0)
            w = np.uint32(w + threads)
        if thread == 0:
            n_fired[0] = np.int32(0)
            n_fired[1] = np.int32(0)
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = np.int64(0)
        operations = np.int64(0)
        turn = np.uint32(0)
        # Sets of bits for the places of a time group: of the event that is prepared, of that which is taken.
        prepared_set = np.uint32(0)
        taken_set = np.uint32(0)
        y_low = np.uint32(out_height)
        y_end = np.uint32(0)
        x_low = np.uint32(out_width)
        x_end = np.uint32(0)
        chunk = start[s]
        stop = chunk + count[s]
        while chunk < stop:
            # Nobody reads the last chunk any more: that was before a barrier.
            loaded = np.uint32(min(stop - chunk, np.int64(_CHUNK)))
            e = thread
            while e < loaded:
                at_event = chunk + np.int64(e)
                stamp = times[at_event]
                unit = np.int64(units[at_event])
                x = unit % width
                y = unit // width % height
                low_y = first_place(y, kernel, padding, stride)
                low_x = first_place(x, kernel, padding, stride)
                high_rows = max(last_place(y, padding, stride, out_height) + 1 - low_y, np.int64(0))
                high_columns = max(last_place(x, padding, stride, out_width) + 1 - low_x, np.int64(0))
                reached_by = high_rows * high_columns
                kind = np.uint32(0)
                if at_event == start[s] or times[at_event - 1] != stamp:
                    kind = np.uint32(kind | np.uint32(_OPENS))
                if at_event + 1 == stop or times[at_event + 1] != stamp:
                    kind = np.uint32(kind | np.uint32(_CLOSES))
                    if kind & np.uint32(_OPENS) and refractory == 0:
                        if reached_by * np.int64(map_words) <= _WORDS:
                            kind = np.uint32(kind | np.uint32(_LONE))
                kinds[e] = kind
                stamps[e] = stamp
                from_y[e] = np.uint32(y)
                from_x[e] = np.uint32(x)
                from_channel[e] = np.uint32(unit // (width * height))
                first_y[e] = np.uint32(low_y)
                first_x[e] = np.uint32(low_x)
                # An event that reaches no place has no rows of them, either.
                n_rows[e] = np.uint32(high_rows if reached_by > 0 else 0)
                n_columns[e] = np.uint32(high_columns)
                e = np.uint32(e + threads)
            cuda.syncthreads()
            prepared = np.uint32(0)
            while prepared <= loaded:
                kind = np.uint32(0)
                reached = np.uint32(0)
                stamp = np.uint32(0)
                if prepared > 0:
                    # Take the event before the one that is prepared.
                    e = np.uint32(prepared - 1)
                    kind = kinds[e]
                    stamp = stamps[e]
                    reached = np.uint32(n_rows[e] * n_columns[e])
                    operations += np.int64(reached) * maps
                    if kind & np.uint32(_OPENS):
                        taken_set = np.uint32((taken_set + 1) % 3)
                        y_low = np.uint32(out_height)
                        y_end = np.uint32(0)
                        x_low = np.uint32(out_width)
                        x_end = np.uint32(0)
                    if reached > 0:
                        y_low = min(y_low, first_y[e])
                        y_end = max(y_end, np.uint32(first_y[e] + n_rows[e]))
                        x_low = min(x_low, first_x[e])
                        x_end = max(x_end, np.uint32(first_x[e] + n_columns[e]))
                    half = np.uint32(e & np.uint32(1)) * window_size
                    j = first_of_group
                    while j < reached:
                        factor = factors[half + j]
                        base = window[bases_at + half + j]
                        row = window[rows_at + half + j]
                        m = lane
                        while m < n_receiving:
                            at = np.uint32(base + m)
                            received_weight = weight[row, m]
                            if refractory > 0:
                                since = np.int64(stamp) - last_spike[s, at]
                                if since < refractory:
                                    received_weight = refractory_weight(since, refractory) * received_weight
                            v = received(decayed(potential[s, at], factor), received_weight)
                            if kind & np.uint32(_LONE):
                                v = clamped(v, floor)
                                if reaches(v):
                                    v = reset(v)
                                    _mark(fired, n_fired, turn, j * map_words + (m >> np.uint32(5)), m)
                            potential[s, at] = v
                            m = np.uint32(m + step)
                        j = np.uint32(j + groups)
                if prepared < loaded:
                    kind_ahead = kinds[prepared]
                    if kind_ahead & np.uint32(_OPENS):
                        prepared_set = np.uint32((prepared_set + 1) % 3)
                    set_at = np.uint32(touched_at + prepared_set * place_words)
                    half = np.uint32(prepared & np.uint32(1)) * window_size
                    columns = n_columns[prepared]
                    time = np.int64(stamps[prepared])
                    # The last threads first: they have the fewest places of the event that is taken.
                    j = np.uint32(threads - 1 - thread)
                    while j < n_rows[prepared] * columns:
                        oy = np.int64(first_y[prepared] + j // columns)
                        ox = np.int64(first_x[prepared] + j % columns)
                        place = oy * out_width + ox
                        # D(0) is 1: a place that the group has reached before does not decay again.
                        factors[half + j] = decay_factor(time - last_update[s, place], decay_high, decay_low)
                        last_update[s, place] = time
                        entry = offset(np.int64(from_y[prepared]), oy, padding, stride) * kernel
                        entry += offset(np.int64(from_x[prepared]), ox, padding, stride)
                        row_of = entry * channels + np.int64(from_channel[prepared])
                        window[bases_at + half + j] = np.uint32(place * np.int64(padded))
                        window[rows_at + half + j] = np.uint32(row_of)
                        if not kind_ahead & np.uint32(_LONE):
                            word_of = np.int64(set_at) + (place >> 5)
                            cuda.atomic.or_(window, word_of, np.uint32(1 << (place & 31)))
                        j = np.uint32(j + threads)
                cuda.syncthreads()
                if kind & np.uint32(_CLOSES):
                    set_at = np.uint32(touched_at + taken_set * place_words)
                    box_width = np.uint32(0)
                    area = np.uint32(0)
                    if y_low < y_end:
                        box_width = np.uint32(x_end - x_low)
                        area = np.uint32((y_end - y_low) * box_width)
                    bits = np.uint32(turn * np.uint32(_WORDS))
                    fits = np.int64(area) * np.int64(map_words) <= _WORDS
                    if not kind & np.uint32(_LONE):
                        p = first_of_group
                        while p < area:
                            oy32 = np.uint32(p // box_width)
                            place32 = np.uint32((y_low + oy32) * np.uint32(out_width))
                            place32 = np.uint32(place32 + x_low + p - oy32 * box_width)
                            reached_word = window[set_at + (place32 >> np.uint32(5))]
                            if (reached_word >> (place32 & np.uint32(31))) & np.uint32(1):
                                m = lane
                                while m < padded:
                                    at = np.uint32(place32 * padded + m)
                                    v = clamped(potential[s, at], floor)
                                    if fits and reaches(v):
                                        v = reset(v)
                                        _mark(fired, n_fired, turn, p * map_words + (m >> np.uint32(5)), m)
                                        if refractory > 0:
                                            last_spike[s, at] = np.int64(stamp)
                                    potential[s, at] = v
                                    m = np.uint32(m + step)
                            p = np.uint32(p + groups)
                        cuda.syncthreads()
                    if not fits:
                        produced += _fire_in_a_large_box(
                            fired,
                            n_fired,
                            turn,
                            window,
                            np.int64(set_at),
                            np.int64(y_low),
                            np.int64(x_low),
                            np.int64(box_width),
                            np.int64(area),
                            s,
                            stamp,
                            floor,
                            kappa,
                            refractory,
                            out_width,
                            places,
                            maps,
                            np.int64(padded),
                            potential,
                            last_spike,
                            out_times,
                            out_units,
                            slot,
                            capacity,
                            produced,
                        )
                    elif n_fired[turn] > 0:
                        found = np.int64(n_fired[turn])
                        q = thread
                        while q < area * map_words:
                            word = fired[bits + q]
                            if word != 0:
                                p = np.uint32(q // map_words)
                                oy32 = np.uint32(p // box_width)
                                place32 = np.uint32((y_low + oy32) * np.uint32(out_width))
                                place32 = np.uint32(place32 + x_low + p - oy32 * box_width)
                                m = np.uint32((q - p * map_words) << np.uint32(5))
                                while word != 0:
                                    if word & np.uint32(1):
                                        place_in_queue = produced + _spikes_before(
                                            fired, bits, area, map_words, p, m
                                        )
                                        if place_in_queue < capacity:
                                            out_times[slot + place_in_queue] = stamp
                                            out_units[slot + place_in_queue] = np.uint32(
                                                m * np.uint32(places) + place32
                                            )
                                    word = np.uint32(word >> np.uint32(1))
                                    m = np.uint32(m + 1)
                            q = np.uint32(q + threads)
                        produced += found
                        if kappa < 0.0:
                            p = first_of_group
                            while p < area:
                                here = np.int64(0)
                                w = np.uint32(0)
                                while w < map_words:
                                    here += np.int64(cuda.popc(fired[bits + p * map_words + w]))
                                    w = np.uint32(w + 1)
                                if here > 0:
                                    others = inhibition(here, kappa)
                                    others_of_fired = inhibition(here - 1, kappa)
                                    oy32 = np.uint32(p // box_width)
                                    place32 = np.uint32((y_low + oy32) * np.uint32(out_width))
                                    place32 = np.uint32(place32 + x_low + p - oy32 * box_width)
                                    m = lane
                                    while m < padded:
                                        at = np.uint32(place32 * padded + m)
                                        word = fired[bits + p * map_words + (m >> np.uint32(5))]
                                        change = others
                                        if (word >> (m & np.uint32(31))) & np.uint32(1):
                                            change = others_of_fired
                                        potential[s, at] = clamped(received(potential[s, at], change), floor)
                                        m = np.uint32(m + step)
                                p = np.uint32(p + groups)
                        cuda.syncthreads()
                        q = thread
                        while q < area * map_words:
                            fired[bits + q] = np.uint32(0)
                            q = np.uint32(q + threads)
                        if thread == 0:
                            n_fired[turn] = np.int32(0)
                    if not kind & np.uint32(_LONE):
                        # Every thread has read them: there was a barrier.
                        w = thread
                        while w < place_words:
                            window[set_at + w] = np.uint32(0)
                            w = np.uint32(w + threads)
                    turn = np.uint32(1 - turn)
                prepared = np.uint32(prepared + 1)
            chunk += np.int64(loaded)
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


def _threads_of_propagate(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    """A thread a row of the weights, in whole warps."""
    rows: int = args[1].shape[1]
    return min(512, -(-rows // 32) * 32)


def _shared_bytes_of_propagate(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    maps: int = args[1].shape[0]
    return 8 * max(_LISTED, maps)


@cuda_kernel(threads=_threads_of_propagate, shared_bytes=_shared_bytes_of_propagate)
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

    See the CPU twin. For some places at once a thread each lists the errors that are not 0; then, place by
    place, a thread for every row of the weights passes these back and adds the sum to the row's input. An
    input meets a place in one row only, and a barrier keeps the places in order.
    """
    n_active = cuda.shared.array(1, np.int32)
    n_listed = cuda.shared.array(_PLACES, np.uint32)
    # One piece of memory under two types; the parts do not overlap.
    listed = cuda.shared.array(0, uint32)
    errors = cuda.shared.array(0, float32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        maps, rows = weight.shape
        channels = np.uint32(rows // (kernel * kernel))
        n_in = activity.shape[1]
        places = active_places.shape[1]
        padded = delta.shape[1] // places
        at_once = max(min(_PLACES, _LISTED // maps), 1)
        errors_at = at_once * maps
        if thread == 0:
            n_active[0] = np.int32(0)
        cuda.syncthreads()
        mine = np.int32(0)
        for k in range(thread, n_in, threads):
            out_error[s, k] = np.float32(0.0)
            if activity[s, k] > np.float32(0.0):
                mine = np.int32(mine + 1)
        cuda.atomic.add(n_active, 0, mine)
        for low in range(0, places, at_once):
            n_places = min(at_once, places - low)
            for p in range(thread, n_places, threads):
                found = np.uint32(0)
                if active_places[s, low + p] != 0:
                    begin = np.uint32(p * maps)
                    m = np.uint32(0)
                    while m < np.uint32(maps):
                        d = delta[s, np.uint32((low + p) * padded) + m]
                        if d != np.float32(0.0):
                            listed[begin + found] = m
                            errors[np.uint32(errors_at) + begin + found] = d
                            found = np.uint32(found + 1)
                        m = np.uint32(m + 1)
                n_listed[p] = found
            cuda.syncthreads()
            for p in range(n_places):
                found = n_listed[p]
                if found > 0:
                    oy = (low + p) // out_width
                    ox = (low + p) % out_width
                    r = np.uint32(thread)
                    while r < np.uint32(rows):
                        part = np.float32(0.0)
                        begin = np.uint32(p * maps)
                        j = np.uint32(0)
                        while j < found:
                            part += weight[listed[begin + j], r] * errors[np.uint32(errors_at) + begin + j]
                            j = np.uint32(j + 1)
                        entry = np.uint32(r // channels)
                        y = origin(oy, np.int64(entry // np.uint32(kernel)), padding, stride)
                        x = origin(ox, np.int64(entry % np.uint32(kernel)), padding, stride)
                        if y >= 0 and y < height and x >= 0 and x < width:
                            out_error[s, (np.int64(r % channels) * height + y) * width + x] += part
                        r = np.uint32(r + np.uint32(threads))
                    cuda.syncthreads()
            cuda.syncthreads()
        active = n_active[0]
        scale = np.float32(1.0)
        if normalise != 0 and active > 0:
            scale = np.float32(math.sqrt(np.float32(n_in) / np.float32(active)))
        for k in range(thread, n_in, threads):
            if activity[s, k] > np.float32(0.0):
                out_error[s, k] *= scale
            else:
                out_error[s, k] = np.float32(0.0)


@cuda_part
def _first_of(channel: Scalar, inputs: I32, s: Scalar, n: Scalar) -> Scalar:
    """Position of the first input of a channel, or of one above it, in the ``n`` inputs of a sample."""
    low = np.int64(0)
    high = np.int64(n)
    while low < high:
        middle = (low + high) >> 1
        if inputs[s, middle, 0] < channel:
            low = middle + 1
        else:
            high = middle
    return low


def _blocks_of_gradient(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    """A block for each channel of a kernel entry."""
    kernel = int(args[8])
    rows: int = args[13].shape[0]
    return rows // (kernel * kernel)


@cuda_kernel(threads=256, blocks=_blocks_of_gradient)
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

    See the CPU twin. A block takes a kernel entry and channel. The active inputs of the channel in all
    samples make one long sequence; its threads look at many of them at once and list, in their order, those
    that reach a place with errors. Then all threads fetch the products of some of the list for all maps, and
    a thread a map adds them up in order.
    """
    offsets = cuda.shared.array(_SAMPLES_AND_END, np.uint32)
    sizes = cuda.shared.array(_SAMPLES, np.uint32)
    lows = cuda.shared.array(_SAMPLES, np.uint32)
    # Of an input: its sample, where the errors of the place it reaches begin, and their factor.
    found_samples = cuda.shared.array(_INPUTS, np.uint32)
    found_errors = cuda.shared.array(_INPUTS, np.uint32)
    found_factors = cuda.shared.array(_INPUTS, np.float32)
    marks = cuda.shared.array(_INPUT_WORDS, np.uint32)
    samples = cuda.shared.array(_INPUTS, np.uint32)
    errors = cuda.shared.array(_INPUTS, np.uint32)
    factors = cuda.shared.array(_INPUTS, np.float32)
    products = cuda.shared.array(_PRODUCTS, np.float32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    entry = first + cuda.blockIdx.x
    if entry < last:
        n_samples = activity.shape[0]
        rows, maps = out_gradient.shape
        channels = rows // (kernel * kernel)
        places = active_places.shape[1]
        padded = delta.shape[1] // places
        at_once = min(maps, threads, _PRODUCTS)
        for channel in range(cuda.blockIdx.y, channels, cuda.gridDim.y):
            for m_low in range(0, maps, at_once):
                # Threads lie in groups of a thread a map.
                columns = np.uint32(min(at_once, maps - m_low))
                group = np.uint32(np.uint32(thread) // columns)
                groups = np.uint32(np.uint32(threads) // columns)
                column = np.uint32(np.uint32(thread) - group * columns)
                most = np.uint32(np.uint32(_PRODUCTS) // columns)
                total = np.float32(0.0)
                for begin in range(0, n_samples, _SAMPLES):
                    n_here: int = min(_SAMPLES, n_samples - begin)
                    for t in range(thread, n_here, threads):
                        n = n_inputs[begin + t]
                        low = _first_of(channel, inputs, begin + t, n)
                        lows[t] = np.uint32(low)
                        sizes[t] = np.uint32(_first_of(channel + 1, inputs, begin + t, n) - low)
                    cuda.syncthreads()
                    for t in range(thread, n_here + 1, threads):
                        offset_of = np.uint32(0)
                        u = np.uint32(0)
                        while u < np.uint32(t):
                            offset_of = np.uint32(offset_of + sizes[u])
                            u = np.uint32(u + 1)
                        offsets[t] = offset_of
                    cuda.syncthreads()
                    n_sequence = np.int64(offsets[n_here])
                    for done in range(0, n_sequence, _INPUTS):
                        for w in range(thread, _INPUT_WORDS, threads):
                            marks[w] = np.uint32(0)
                        cuda.syncthreads()
                        n_looked = min(_INPUTS, int(n_sequence) - done)
                        for c in range(thread, n_looked, threads):
                            # Its sample: the last one that begins at it or before.
                            low = np.int64(0)
                            high = np.int64(n_here)
                            while high - low > 1:
                                middle = (low + high) >> 1
                                if np.int64(offsets[middle]) <= done + c:
                                    low = middle
                                else:
                                    high = middle
                            s = begin + low
                            j = np.int64(lows[low]) + done + c - np.int64(offsets[low])
                            y = np.int64(inputs[s, j, 1])
                            x = np.int64(inputs[s, j, 2])
                            oy = target(y, entry // kernel, padding, stride, out_height)
                            ox = target(x, entry % kernel, padding, stride, out_width)
                            if oy >= 0 and ox >= 0:
                                place = oy * out_width + ox
                                if active_places[s, place] != 0:
                                    found_samples[c] = np.uint32(s)
                                    found_errors[c] = np.uint32(place * padded)
                                    k = (channel * height + y) * width + x
                                    found_factors[c] = activity[s, k] * scale[s]
                                    cuda.atomic.or_(marks, c >> 5, np.uint32(1 << (c & 31)))
                        cuda.syncthreads()
                        for c in range(thread, n_looked, threads):
                            if (marks[c >> 5] >> np.uint32(c & 31)) & 1:
                                at = bits_below(marks, c)
                                samples[at] = found_samples[c]
                                errors[at] = found_errors[c]
                                factors[at] = found_factors[c]
                        n_found = np.uint32(bits_below(marks, _INPUTS))
                        cuda.syncthreads()
                        listed = np.uint32(0)
                        while listed < n_found:
                            n_tile = np.uint32(min(most, np.uint32(n_found - listed)))
                            if group < groups:
                                m = np.uint32(np.uint32(m_low) + column)
                                i = np.uint32(listed + group)
                                end = np.uint32(listed + n_tile)
                                at = np.uint32(group * columns + column)
                                # Four loads at once: none would pass a store to shared memory.
                                while i + 3 * groups < end:
                                    i_2 = np.uint32(i + groups)
                                    i_3 = np.uint32(i_2 + groups)
                                    i_4 = np.uint32(i_3 + groups)
                                    d = delta[samples[i], errors[i] + m] * factors[i]
                                    d_2 = delta[samples[i_2], errors[i_2] + m] * factors[i_2]
                                    d_3 = delta[samples[i_3], errors[i_3] + m] * factors[i_3]
                                    d_4 = delta[samples[i_4], errors[i_4] + m] * factors[i_4]
                                    products[at] = d
                                    products[at + groups * columns] = d_2
                                    products[at + 2 * groups * columns] = d_3
                                    products[at + 3 * groups * columns] = d_4
                                    at = np.uint32(at + 4 * groups * columns)
                                    i = np.uint32(i_4 + groups)
                                while i < end:
                                    products[at] = delta[samples[i], errors[i] + m] * factors[i]
                                    at = np.uint32(at + groups * columns)
                                    i = np.uint32(i + groups)
                            cuda.syncthreads()
                            if group == 0:
                                i = np.uint32(0)
                                while i < n_tile:
                                    total += products[i * columns + column]
                                    i = np.uint32(i + 1)
                            cuda.syncthreads()
                            listed = np.uint32(listed + n_tile)
                if group == 0:
                    out_gradient[entry * channels + channel, m_low + column] = total


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
                k = np.uint32(m * places)
                while k < np.uint32((m + 1) * places):
                    part += threshold_delta[s, k]
                    k = np.uint32(k + 1)
            cuda.syncthreads()
            parts[thread] = part
            cuda.syncthreads()
            if thread == 0:
                for t in range(min(threads, n_samples - chunk)):
                    total += scale[chunk + t] * parts[t]
        if thread == 0:
            out_gradient[m] = total
