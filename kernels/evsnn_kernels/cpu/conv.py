"""Convolutional layer, event by event (docs/model.md, S1 to S8, S18).

Membranes lie place by place, ``potential[s, place * maps + map]``; events and activities are channel first,
``map * places + place``. Weights are ``weight[(ky * kernel + kx) * channels + channel, map]``.
"""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.jit import cpu_kernel, cpu_part
from evsnn_kernels.layout import F32, I64, U32, Scalar
from evsnn_kernels.spec.convolution import origin, target
from evsnn_kernels.spec.neuron import (
    clamped,
    decay_factor,
    decayed,
    fires,
    inhibition,
    received,
    refractory_weight,
    reset,
)


@cpu_part
def _fire_place(
    potential: F32,
    s: Scalar,
    base: Scalar,
    maps: Scalar,
    place: Scalar,
    places: Scalar,
    kappa: Scalar,
    floor: Scalar,
    fired: U32,
    total: Scalar,
) -> Scalar:
    """Fire, reset and inhibit the maps of one place; append the units that fired, return their new total."""
    before = total
    for m in range(maps):
        if fires(potential[s, base + m]) != 0:
            potential[s, base + m] = reset(potential[s, base + m])
            fired[total] = m * places + place
            total += 1
    if kappa < 0.0:
        spikes = total - before
        nth = before
        for m in range(maps):
            others = spikes
            if nth < total and fired[nth] == m * places + place:
                others -= 1
                nth += 1
            if others > 0:
                v = received(potential[s, base + m], inhibition(others, kappa))
                potential[s, base + m] = clamped(v, floor)
    return total


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
    weight : float32 (kernel * kernel * channels, maps)
        Weights divided by the threshold of the receiving map.
    decay_high, decay_low, floor, kappa, refractory
        As in the dense layer; the WTA group is all maps at one place.
    height, width, kernel, stride, padding, out_height, out_width : int64
        Geometry.
    potential : float32 (n_samples, places * maps)
        State, place by place.
    last_update : int64 (n_samples, places)
        State: every place keeps its own time.
    last_spike : int64 (n_samples, places * maps), or no columns without refractory period
    out_times, out_units, out_slot, out_count
        Output queue.
    out_operations : int64 (n_samples,)
        Synaptic operations: targets that exist, times maps.
    """
    maps = weight.shape[1]
    places = out_height * out_width
    channels = weight.shape[0] // (kernel * kernel)
    fired = np.empty(places * maps, np.uint32)
    touched = np.empty(places, np.int64)
    mark = np.empty(places, np.int64)
    for s in range(first, last):
        mark[:] = -1
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
            n_touched = 0
            for e in range(begin, end):
                unit = np.int64(units[e])
                x = unit % width
                y = unit // width % height
                channel = unit // (width * height)
                for ky in range(kernel):
                    oy = target(y, ky, padding, stride, out_height)
                    if oy < 0:
                        continue
                    for kx in range(kernel):
                        ox = target(x, kx, padding, stride, out_width)
                        if ox < 0:
                            continue
                        place = oy * out_width + ox
                        base = place * maps
                        row = (ky * kernel + kx) * channels + channel
                        operations += maps
                        factor = np.float32(1.0)
                        if mark[place] != begin:
                            mark[place] = begin
                            touched[n_touched] = place
                            n_touched += 1
                            factor = decay_factor(time - last_update[s, place], decay_high, decay_low)
                            last_update[s, place] = time
                        if refractory == 0:
                            for m in range(maps):
                                v = decayed(potential[s, base + m], factor)
                                potential[s, base + m] = received(v, weight[row, m])
                        else:
                            for m in range(maps):
                                v = decayed(potential[s, base + m], factor)
                                since = time - last_spike[s, base + m]
                                w = weight[row, m]
                                if since < refractory:
                                    w = refractory_weight(since, refractory) * w
                                potential[s, base + m] = received(v, w)
            total = 0
            for j in range(n_touched):
                place = touched[j]
                base = place * maps
                any_fired = np.int32(0)
                for m in range(maps):
                    v = clamped(potential[s, base + m], floor)
                    potential[s, base + m] = v
                    any_fired = np.int32(any_fired + fires(v))
                if any_fired > 0:
                    total = _fire_place(potential, s, base, maps, place, places, kappa, floor, fired, total)
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
                if refractory > 0:
                    place = np.int64(fired[j]) % places
                    last_spike[s, place * maps + np.int64(fired[j]) // places] = time
            begin = end
        out_count[s] = produced
        out_operations[s] = operations


@cpu_kernel
def active_places(
    delta: F32, maps: Scalar, out_delta: F32, out_places: I64, out_n_places: I64, first: Scalar, last: Scalar
) -> None:
    """Reorder errors place by place and list the places that have any.

    Parameters
    ----------
    delta : float32 (n_samples, maps * places)
        Channel first.
    maps : int64
    out_delta : float32 (n_samples, places * maps)
    out_places : int64 (n_samples, places)
        Active places in ascending order; only the first ``out_n_places[s]`` are written.
    out_n_places : int64 (n_samples,)
    """
    places = delta.shape[1] // maps
    for s in range(first, last):
        found = 0
        for place in range(places):
            active = np.int32(0)
            for m in range(maps):
                d = delta[s, m * places + place]
                out_delta[s, place * maps + m] = d
                active = np.int32(active + (np.int32(1) if d != np.float32(0.0) else np.int32(0)))
            if active > 0:
                out_places[s, found] = place
                found += 1
        out_n_places[s] = found


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
    places: I64,
    n_places: I64,
    out_error: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Error of the active inputs: the sum over the places they reach and their maps (S8, S18).

    Parameters
    ----------
    activity : float32 (n_samples, channels * height * width)
    weight : float32 (maps, kernel * kernel * channels)
        Transposed, so that an active neuron reads one contiguous row.
    normalise : int64
        1: multiply by sqrt(M / m), M inputs of which m are active.
    height, width, kernel, stride, padding, out_width : int64
        Geometry.
    delta : float32 (n_samples, places * maps)
        Place by place, with the active ones in ``places`` and ``n_places``.
    out_error : float32, as activity
    """
    maps, rows = weight.shape
    channels = rows // (kernel * kernel)
    n_in = activity.shape[1]
    patch = np.empty(rows, np.float32)
    for s in range(first, last):
        for k in range(n_in):
            out_error[s, k] = np.float32(0.0)
        for j in range(n_places[s]):
            place = places[s, j]
            patch[:] = np.float32(0.0)
            for m in range(maps):
                d = delta[s, place * maps + m]
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
    delta: F32,
    places: I64,
    n_places: I64,
    scale: F32,
    height: Scalar,
    width: Scalar,
    kernel: Scalar,
    stride: Scalar,
    padding: Scalar,
    out_width: Scalar,
    out_gradient: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Sum over samples and active places of scale * activity * delta, for weight rows first:last (S8, S18).

    Arrays as in :func:`propagate`; ``scale`` is float32 (n_samples,), ``out_gradient`` float32
    (kernel * kernel * channels, maps).
    """
    rows, maps = out_gradient.shape
    channels = rows // (kernel * kernel)
    for r in range(first, last):
        channel = r % channels
        kx = r // channels % kernel
        ky = r // channels // kernel
        for m in range(maps):
            out_gradient[r, m] = np.float32(0.0)
        for s in range(activity.shape[0]):
            for j in range(n_places[s]):
                place = places[s, j]
                y = origin(place // out_width, ky, padding, stride)
                x = origin(place % out_width, kx, padding, stride)
                if y < 0 or y >= height or x < 0 or x >= width:
                    continue
                a = activity[s, (channel * height + y) * width + x]
                if a != np.float32(0.0):
                    factor = a * scale[s]
                    for m in range(maps):
                        out_gradient[r, m] += factor * delta[s, place * maps + m]


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
