"""Convolutional layer, event by event (docs/model.md, S1 to S8, S18).

The maps of a place lie together, ``padded(maps)`` values from ``place * padded(maps)`` on, in membranes,
weights divided by the threshold, and errors place by place; events and activities are channel first,
``map * places + place``. Row ``(ky * kernel + kx) * channels + channel`` of the weights belongs to one kernel
entry and channel.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from evsnn_kernels.cpu.vector import load, lowest_bit, may_reach, store
from evsnn_kernels.jit import cpu_kernel, cpu_part
from evsnn_kernels.layout import F32, I32, I64, LANES, U8, U32, Scalar
from evsnn_kernels.spec.convolution import offset, origin, reached, target
from evsnn_kernels.spec.neuron import (
    THRESHOLD,
    clamped,
    decay_factor,
    decayed,
    inhibition,
    reaches,
    received,
    refractory_weight,
    reset,
)

#: The lower clamp while a time group has not ended (S4).
NO_CLAMP: Final = np.float32(-np.inf)


@cpu_part
def _receive_and_clamp(
    potential: F32, at: Scalar, weight: F32, row: Scalar, factor: Scalar, floor: Scalar
) -> Scalar:
    """Take the last event of a time group, ``LANES`` maps of a place; return whether any may fire."""
    v = clamped(received(decayed(load(potential, at), factor), load(weight, row)), floor)
    store(potential, at, v)
    return may_reach(v, THRESHOLD)


@cpu_part
def _receive_refractory(
    potential: F32,
    last_spike: I64,
    at: Scalar,
    weight: Scalar,
    factor: Scalar,
    floor: Scalar,
    time: Scalar,
    refractory: Scalar,
) -> Scalar:
    """Take an event, one map that may still be refractory, clamp; return whether it reaches its threshold."""
    since = time - last_spike[at]
    if since < refractory:
        weight = refractory_weight(since, refractory) * weight
    v = clamped(received(decayed(potential[at], factor), weight), floor)
    potential[at] = v
    return reaches(v)


@cpu_part
def _fire(potential: F32, base: Scalar, width: Scalar, fired: U32, total: Scalar) -> Scalar:
    """Reset the maps of one place that reach their threshold, append them, return the new total."""
    for block in range(0, width, LANES):
        mask = reaches(load(potential, base + block))
        while mask != np.uint64(0):
            m = block + lowest_bit(mask)
            mask = mask & (mask - np.uint64(1))
            potential[base + m] = reset(potential[base + m])
            fired[total] = m
            total += 1
    return total


@cpu_part
def _inhibit(
    potential: F32,
    base: Scalar,
    width: Scalar,
    fired: U32,
    before: Scalar,
    total: Scalar,
    kappa: Scalar,
    floor: Scalar,
    kept: F32,
) -> None:
    """Inhibit the maps of one place by the others that fired there: those that fired, by one less."""
    for j in range(before, total):
        kept[j] = potential[base + fired[j]]
    change = inhibition(total - before, kappa)
    for m in range(0, width, LANES):
        store(potential, base + m, clamped(received(load(potential, base + m), change), floor))
    change = inhibition(total - before - 1, kappa)
    for j in range(before, total):
        potential[base + fired[j]] = clamped(received(kept[j], change), floor)


@cpu_kernel
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
    """Turn the input queue of samples first:last into their output queue.

    Parameters
    ----------
    times, units, start, count
        Input queue; units are ``(channel * height + y) * width + x``.
    weight : float32 (kernel * kernel * channels, padded(maps))
        Weights divided by the threshold of the receiving map, 0 beyond the maps.
    decay_high, decay_low, floor, kappa, refractory
        As in the dense layer; the WTA group is all maps at one place.
    height, width, kernel, stride, padding, out_height, out_width, maps : int64
        Geometry.
    potential : float32 (n_samples, places * padded(maps))
        State, place by place.
    last_update : int64 (n_samples, places)
        State: every place keeps its own time.
    last_spike : int64, as potential, or no columns without refractory period
    out_times, out_units, out_slot, out_count
        Output queue.
    out_operations : int64 (n_samples,)
        Synaptic operations: targets that exist, times maps.
    """
    padded = weight.shape[1]
    places = out_height * out_width
    channels = weight.shape[0] // (kernel * kernel)
    rows = weight.reshape(-1)
    fired = np.empty(places * maps, np.uint32)
    kept = np.empty(places * maps, np.float32)
    firing = np.empty(places, np.int64)
    pending = np.zeros(places, np.int32)  # events of a time group that a place has yet to take
    for s in range(first, last):
        v = potential[s]
        updated = last_update[s]
        spiked = last_spike[s]
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = 0
        operations = 0
        begin = start[s]
        stop = begin + count[s]
        while begin < stop:
            stamp = times[begin]
            end = begin + 1
            while end < stop and times[end] == stamp:
                end += 1
            time = np.int64(stamp)
            n_firing = 0
            if end == begin + 1 and refractory == 0:
                # A lone event meets every place once.
                channel, y, x, y_first, y_last, x_first, x_last = reached(
                    np.int64(units[begin]), height, width, kernel, stride, padding, out_height, out_width
                )
                operations += max(y_last - y_first + 1, 0) * max(x_last - x_first + 1, 0)
                for oy in range(y_first, y_last + 1):
                    kernel_row = offset(y, oy, padding, stride) * kernel
                    for ox in range(x_first, x_last + 1):
                        place = oy * out_width + ox
                        base = place * padded
                        row = ((kernel_row + offset(x, ox, padding, stride)) * channels + channel) * padded
                        factor = decay_factor(time - updated[place], decay_high, decay_low)
                        updated[place] = time
                        reaching = False
                        for m in range(0, padded, LANES):
                            reaching |= _receive_and_clamp(v, base + m, rows, row + m, factor, floor)
                        if reaching:
                            firing[n_firing] = place
                            n_firing += 1
            else:
                for e in range(begin, end):
                    _, _, _, y_first, y_last, x_first, x_last = reached(
                        np.int64(units[e]), height, width, kernel, stride, padding, out_height, out_width
                    )
                    for oy in range(y_first, y_last + 1):
                        for ox in range(x_first, x_last + 1):
                            pending[oy * out_width + ox] += np.int32(1)
                for e in range(begin, end):
                    channel, y, x, y_first, y_last, x_first, x_last = reached(
                        np.int64(units[e]), height, width, kernel, stride, padding, out_height, out_width
                    )
                    operations += max(y_last - y_first + 1, 0) * max(x_last - x_first + 1, 0)
                    for oy in range(y_first, y_last + 1):
                        kernel_row = offset(y, oy, padding, stride) * kernel
                        for ox in range(x_first, x_last + 1):
                            place = oy * out_width + ox
                            base = place * padded
                            entry = kernel_row + offset(x, ox, padding, stride)
                            row = (entry * channels + channel) * padded
                            # Further events of a time find no time passed, which is a factor of 1.
                            factor = decay_factor(time - updated[place], decay_high, decay_low)
                            updated[place] = time
                            pending[place] -= np.int32(1)
                            closing = pending[place] == 0
                            reaching = False
                            if refractory > 0:
                                for m in range(maps):
                                    reaching |= _receive_refractory(
                                        v,
                                        spiked,
                                        base + m,
                                        rows[row + m],
                                        factor,
                                        floor if closing else NO_CLAMP,
                                        time,
                                        refractory,
                                    )
                            elif closing:
                                for m in range(0, padded, LANES):
                                    reaching |= _receive_and_clamp(v, base + m, rows, row + m, factor, floor)
                            else:
                                for m in range(0, padded, LANES):
                                    membrane = decayed(load(v, base + m), factor)
                                    store(v, base + m, received(membrane, load(rows, row + m)))
                            if closing and reaching:
                                firing[n_firing] = place
                                n_firing += 1
            total = 0
            for j in range(n_firing):
                place = firing[j]
                before = total
                total = _fire(v, place * padded, padded, fired, total)
                if kappa < 0.0:
                    _inhibit(v, place * padded, padded, fired, before, total, kappa, floor, kept)
                for i in range(before, total):
                    winner = np.int64(fired[i])
                    if refractory > 0:
                        spiked[place * padded + winner] = time
                    fired[i] = np.uint32(winner * places + place)
            for j in range(1, total):
                unit32 = fired[j]
                at = j
                while at > 0 and fired[at - 1] > unit32:
                    fired[at] = fired[at - 1]
                    at -= 1
                fired[at] = unit32
            for j in range(total):
                if produced < capacity:
                    out_times[slot + produced] = stamp
                    out_units[slot + produced] = fired[j]
                produced += 1
            begin = end
        out_count[s] = produced
        out_operations[s] = operations * maps


@cpu_kernel
def by_place(delta: F32, maps: Scalar, out_delta: F32, out_active: U8, first: Scalar, last: Scalar) -> None:
    """Reorder errors place by place and mark the places that have any.

    Parameters
    ----------
    delta : float32 (n_samples, maps * places)
        Channel first.
    maps : int64
    out_delta : float32 (n_samples, places * padded(maps))
        Those beyond the maps become 0.
    out_active : uint8 (n_samples, places)
        1 where an error of the place is not 0.
    """
    places = delta.shape[1] // maps
    padded = out_delta.shape[1] // places
    for s in range(first, last):
        for place in range(places):
            active = np.uint8(0)
            for m in range(padded):
                d = np.float32(0.0)
                if m < maps:
                    d = delta[s, m * places + place]
                out_delta[s, place * padded + m] = d
                if d != np.float32(0.0):
                    active = np.uint8(1)
            out_active[s, place] = active


@cpu_kernel
def active_inputs(
    activity: F32, height: Scalar, width: Scalar, out_inputs: I32, out_count: I64, first: Scalar, last: Scalar
) -> None:
    """List the active inputs of each sample in ascending order.

    Parameters
    ----------
    activity : float32 (n_samples, channels * height * width)
    height, width : int64
    out_inputs : int32 (n_samples, n_in, 3)
        Channel, y, x; only the first ``out_count[s]`` are written.
    out_count : int64 (n_samples,)
    """
    channels = activity.shape[1] // (height * width)
    for s in range(first, last):
        found = 0
        k = 0
        for channel in range(channels):
            for y in range(height):
                for x in range(width):
                    if activity[s, k] != np.float32(0.0):
                        out_inputs[s, found, 0] = channel
                        out_inputs[s, found, 1] = y
                        out_inputs[s, found, 2] = x
                        found += 1
                    k += 1
        out_count[s] = found


@cpu_kernel
def transpose(weight: F32, out_transposed: F32, first: Scalar, last: Scalar) -> None:
    """Weights of maps first:last as rows, for :func:`propagate`.

    Parameters
    ----------
    weight : float32 (kernel * kernel * channels, maps)
    out_transposed : float32 (maps, kernel * kernel * channels)
    """
    for m in range(first, last):
        for row in range(weight.shape[0]):
            out_transposed[m, row] = weight[row, m]


@cpu_kernel
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

    Parameters
    ----------
    activity : float32 (n_samples, channels * height * width)
    weight : float32 (maps, kernel * kernel * channels)
        Of :func:`transpose`, so that an active neuron reads one contiguous row.
    normalise : int64
        1: multiply by sqrt(M / m), M inputs of which m are active.
    height, width, kernel, stride, padding, out_width : int64
        Geometry.
    delta : float32 (n_samples, places * padded(maps))
    active_places : uint8 (n_samples, places)
        Errors, both of :func:`by_place`.
    out_error : float32, as activity
    """
    maps, rows = weight.shape
    channels = rows // (kernel * kernel)
    n_in = activity.shape[1]
    places = active_places.shape[1]
    padded = delta.shape[1] // places
    patch = np.empty(rows, np.float32)
    for s in range(first, last):
        for k in range(n_in):
            out_error[s, k] = np.float32(0.0)
        for place in range(places):
            if active_places[s, place] == 0:
                continue
            patch[:] = np.float32(0.0)
            for m in range(maps):
                d = delta[s, place * padded + m]
                if d != np.float32(0.0):
                    for r in range(rows):
                        patch[r] += weight[m, r] * d
            for ky in range(kernel):
                y = origin(place // out_width, ky, padding, stride)
                if y < 0 or y >= height:
                    continue
                for kx in range(kernel):
                    x = origin(place % out_width, kx, padding, stride)
                    if x < 0 or x >= width:
                        continue
                    for channel in range(channels):
                        k = (channel * height + y) * width + x
                        out_error[s, k] += patch[(ky * kernel + kx) * channels + channel]
        active = np.int32(0)
        for k in range(n_in):
            active = np.int32(active + (np.int32(1) if activity[s, k] > np.float32(0.0) else np.int32(0)))
        scale = np.float32(1.0)
        if normalise != 0 and active > 0:
            scale = np.float32(math.sqrt(np.float32(n_in) / np.float32(active)))
        for k in range(n_in):
            if activity[s, k] > np.float32(0.0):
                out_error[s, k] *= scale
            else:
                out_error[s, k] = np.float32(0.0)


@cpu_kernel
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

    Parameters
    ----------
    activity : float32 (n_samples, channels * height * width)
    inputs : int32 (n_samples, n_in, 3)
    n_inputs : int64 (n_samples,)
        Active inputs, both of :func:`active_inputs`.
    delta, active_places
        Errors, as in :func:`propagate`.
    scale : float32 (n_samples,)
    height, width, kernel, stride, padding, out_height, out_width : int64
        Geometry.
    out_gradient : float32 (kernel * kernel * channels, maps)
    """
    rows, maps = out_gradient.shape
    channels = rows // (kernel * kernel)
    places = active_places.shape[1]
    padded = delta.shape[1] // places
    errors = delta.reshape(-1)
    total = np.empty(channels * padded, np.float32)
    for entry in range(first, last):
        total[:] = np.float32(0.0)
        for s in range(activity.shape[0]):
            for j in range(n_inputs[s]):
                y = inputs[s, j, 1]
                oy = target(y, entry // kernel, padding, stride, out_height)
                if oy < 0:
                    continue
                x = inputs[s, j, 2]
                ox = target(x, entry % kernel, padding, stride, out_width)
                if ox < 0:
                    continue
                place = oy * out_width + ox
                if active_places[s, place] == 0:
                    continue
                channel = inputs[s, j, 0]
                factor = activity[s, (channel * height + y) * width + x] * scale[s]
                at = channel * padded
                base = (s * places + place) * padded
                for m in range(0, padded, LANES):
                    store(total, at + m, load(total, at + m) + load(errors, base + m) * factor)
        for channel in range(channels):
            for m in range(maps):
                out_gradient[entry * channels + channel, m] = total[channel * padded + m]


@cpu_kernel
def threshold_gradient(
    threshold_delta: F32, scale: F32, places: Scalar, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """Gradient of the thresholds of maps first:last, each shared by all places."""
    for m in range(first, last):
        total = np.float32(0.0)
        for s in range(threshold_delta.shape[0]):
            part = np.float32(0.0)
            for place in range(places):
                part += threshold_delta[s, m * places + place]
            total += scale[s] * part
        out_gradient[m] = total
