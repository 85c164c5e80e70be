"""Random distortion of recordings, drawn anew for every sample and epoch (docs/model.md, S21)."""

from __future__ import annotations

from typing import Final

import numpy as np

from evsnn_kernels.cpu.augment import GRID
from evsnn_kernels.jit import cpu_kernel, cpu_part
from evsnn_kernels.layout import I64, PURPOSE_RECORDING, U32, U64, Scalar
from evsnn_kernels.spec.augment_events import at_pixel, jittered, mapped, stretched, turn, window_start
from evsnn_kernels.spec.image import grid_value, signed_unit
from evsnn_kernels.spec.random import philox, unit_interval

#: Simultaneous events up to which insertion sort is fastest.
FEW: Final = 48
#: Bits of a key that one pass of the radix sort looks at.
DIGIT_BITS: Final = 10


@cpu_part
def _order(keys: U64, total: Scalar, by_time: Scalar, units: Scalar, span: Scalar, scratch: U64) -> None:
    """Sort keys (time << 32 | unit), units below ``units``, times up to ``span``; linear in their number.

    With ``by_time`` false the times are sorted already, and only simultaneous events may be out of order.
    """
    is_sorted = not by_time
    low = 0
    while is_sorted and low < total:
        time = keys[low] >> np.uint64(32)
        high = low + 1
        while high < total and keys[high] >> np.uint64(32) == time:
            high += 1
        if high - low > FEW:
            is_sorted = False
        else:
            for e in range(low + 1, high):
                key = keys[e]
                at = e
                while at > low and keys[at - 1] > key:
                    keys[at] = keys[at - 1]
                    at -= 1
                keys[at] = key
        low = high
    if is_sorted:
        return
    slots = np.empty((1 << DIGIT_BITS) + 1, np.int64)
    mask = np.uint64((1 << DIGIT_BITS) - 1)
    for half in range(2):
        largest = units - 1 if half == 0 else span
        bit = 32 * half
        while largest > 0:
            slots[:] = 0
            for e in range(total):
                slots[np.int64((keys[e] >> np.uint64(bit)) & mask) + 1] += 1
            for value in range(1 << DIGIT_BITS):
                slots[value + 1] += slots[value]
            for e in range(total):
                digit = np.int64((keys[e] >> np.uint64(bit)) & mask)
                scratch[slots[digit]] = keys[e]
                slots[digit] += 1
            for e in range(total):
                keys[e] = scratch[e]
            bit += DIGIT_BITS
            largest >>= DIGIT_BITS


@cpu_kernel
def augment_events(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    sample: I64,
    channels: Scalar,
    height: Scalar,
    width: Scalar,
    duration: Scalar,
    shift_y: Scalar,
    shift_x: Scalar,
    half_tangent: Scalar,
    shear: Scalar,
    scale_y: Scalar,
    scale_x: Scalar,
    elastic: Scalar,
    time_scale: Scalar,
    jitter: Scalar,
    flip: Scalar,
    drop: Scalar,
    window: Scalar,
    key_low: Scalar,
    key_high: Scalar,
    epoch: Scalar,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Distort samples first:last of a queue; what leaves the sensor or the presentation is dropped.

    Parameters
    ----------
    times, units, start, count
        Queue of the recordings as they are.
    sample : int64 (n_samples,)
        Counter of each sample's random numbers.
    channels, height, width : int64
        Shape of the sensor.
    duration : int64
        Latest time of an event, microseconds.
    shift_y, shift_x : float32
        Largest shift in pixels.
    half_tangent : float32
        Tangent of half the largest angle of rotation.
    shear : float32
        Largest off-diagonal entry of the linear map before the rotation.
    scale_y, scale_x : float32
        Largest relative change of size.
    elastic : float32
        Largest displacement of a node of the elastic grid, in pixels.
    time_scale : float64
        Largest relative change of speed.
    jitter : int64
        Largest change of an event's time, microseconds, below 2^31.
    flip : float32
        Probability that a sample's two channels are exchanged; above 0 only for two channels.
    drop : float32
        Largest share of a sample's events that is dropped.
    window : int64
        Length of the part of a sample that is kept, microseconds, below ``duration``; 0 for all of it.
    key_low, key_high, epoch : uint64
        Seed and epoch of the random numbers.
    out_times, out_units, out_slot, out_count
        Output queue; every slot holds as many events as there are in the sample.
    """
    one = np.float32(1.0)
    centre_y = np.float32(height - 1) * np.float32(0.5)
    centre_x = np.float32(width - 1) * np.float32(0.5)
    pixels = height * width
    grid_y = np.zeros((GRID, GRID), np.float32)
    grid_x = np.zeros((GRID, GRID), np.float32)
    step_y = np.float32(GRID - 1) / np.float32(max(height - 1, 1))
    step_x = np.float32(GRID - 1) / np.float32(max(width - 1, 1))
    largest = np.int64(0)
    for s in range(first, last):
        largest = max(largest, count[s])
    keys = np.empty(largest, np.uint64)
    scratch = np.empty(largest, np.uint64)
    for s in range(first, last):
        row = sample[s]
        of_sample = PURPOSE_RECORDING + (1 << 8)
        a, b, c, d = philox(0, row, epoch, of_sample, key_low, key_high)
        e, f, g, h = philox(1, row, epoch, of_sample, key_low, key_high)
        i, j, k, _ = philox(2, row, epoch, of_sample, key_low, key_high)
        origin_y = centre_y + shift_y * signed_unit(unit_interval(a))
        origin_x = centre_x + shift_x * signed_unit(unit_interval(b))
        size_y = one + scale_y * signed_unit(unit_interval(c))
        size_x = one + scale_x * signed_unit(unit_interval(d))
        cosine, sine = turn(half_tangent * signed_unit(unit_interval(e)))
        shear_y = shear * signed_unit(unit_interval(f))
        shear_x = shear * signed_unit(unit_interval(g))
        yy = cosine * size_y + sine * shear_x
        yx = cosine * shear_y + sine * size_x
        xx = cosine * size_x - sine * shear_y
        xy = cosine * shear_x - sine * size_y
        flipped = unit_interval(h) < flip
        share = drop * unit_interval(i)
        speed = np.float64(1.0) + time_scale * np.float64(signed_unit(unit_interval(j)))
        opens = window_start(k, window, duration)
        if elastic > np.float32(0.0):
            for node_y in range(GRID):
                for node_x in range(GRID):
                    node = 3 + node_y * GRID + node_x
                    a, b, _, _ = philox(node, row, epoch, of_sample, key_low, key_high)
                    grid_y[node_y, node_x] = elastic * signed_unit(unit_interval(a))
                    grid_x[node_y, node_x] = elastic * signed_unit(unit_interval(b))

        kept = 0
        for number in range(count[s]):
            since = np.int64(times[start[s] + number]) - opens
            if since < 0 or (window > 0 and since >= window):
                continue
            w0, w1, w2, w3 = philox(number, row, epoch, PURPOSE_RECORDING, key_low, key_high)
            if unit_interval(w0) < share:
                continue
            time = jittered(stretched(since, speed), w1, jitter)
            if time < 0 or time > duration:
                continue
            unit = np.int64(units[start[s] + number])
            channel = unit // pixels
            pixel = unit - channel * pixels
            line = pixel // width
            column = pixel - line * width
            along = np.float32(line) - centre_y
            across = np.float32(column) - centre_x
            to_y = mapped(along, across, yy, yx, origin_y)
            to_x = mapped(across, along, xx, xy, origin_x)
            if elastic > np.float32(0.0):
                grid_line = np.float32(line) * step_y
                grid_column = np.float32(column) * step_x
                to_y += grid_value(grid_y, grid_line, grid_column)
                to_x += grid_value(grid_x, grid_line, grid_column)
            y = at_pixel(to_y, unit_interval(w2))
            x = at_pixel(to_x, unit_interval(w3))
            if y < 0 or x < 0 or y >= height or x >= width:
                continue
            if flipped:
                channel = 1 - channel
            unit = (channel * height + y) * width + x
            keys[kept] = (np.uint64(time) << np.uint64(32)) | np.uint64(unit)
            kept += 1
        _order(keys, kept, jitter > 0, channels * pixels, duration, scratch)
        slot = out_slot[s]
        for number in range(kept):
            out_times[slot + number] = np.uint32(keys[number] >> np.uint64(32))
            out_units[slot + number] = np.uint32(keys[number] & np.uint64(0xFFFFFFFF))
        out_count[s] = kept
