"""Random distortion of recordings, drawn anew for every sample and epoch (docs/model.md, S21)."""

from __future__ import annotations

import numpy as np
from numba import cuda, float32, int32

from evsnn_kernels.cpu.augment import GRID
from evsnn_kernels.cuda.block import MAX_THREADS, sort_step, summed
from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import I64, PURPOSE_RECORDING, U32, Scalar
from evsnn_kernels.spec.augment_events import at_pixel, jittered, mapped, stretched, turn, window_start
from evsnn_kernels.spec.image import grid_value, signed_unit
from evsnn_kernels.spec.random import philox, unit_interval


@cuda_kernel(threads=256)
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
    """Distort samples first:last of a queue; a block a sample.

    See :func:`evsnn_kernels.cpu.augment_events.augment_events`. Each thread distorts every ``threads``-th
    event twice: to count those it keeps, and to store them after those of the threads before it.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    partial = cuda.shared.array(MAX_THREADS, int32)
    grid_y = cuda.shared.array((GRID, GRID), float32)
    grid_x = cuda.shared.array((GRID, GRID), float32)
    one = np.float32(1.0)
    centre_y = np.float32(height - 1) * np.float32(0.5)
    centre_x = np.float32(width - 1) * np.float32(0.5)
    pixels = height * width
    step_y = np.float32(GRID - 1) / np.float32(max(height - 1, 1))
    step_x = np.float32(GRID - 1) / np.float32(max(width - 1, 1))
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
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
            for node in range(thread, GRID * GRID, threads):
                a, b, _, _ = philox(3 + node, row, epoch, of_sample, key_low, key_high)
                grid_y[node // GRID, node % GRID] = elastic * signed_unit(unit_interval(a))
                grid_x[node // GRID, node % GRID] = elastic * signed_unit(unit_interval(b))
        cuda.syncthreads()

        slot = out_slot[s]
        kept = np.int64(0)
        place = np.int64(0)
        for storing in range(2):
            mine = np.int64(0)
            for number in range(thread, count[s], threads):
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
                if storing == 1:
                    out_times[slot + place + mine] = np.uint32(time)
                    out_units[slot + place + mine] = np.uint32(unit)
                mine += 1
            if storing == 0:
                partial[thread] = mine
                cuda.syncthreads()
                kept = summed(partial, threads)
                place = summed(partial, thread)
            cuda.syncthreads()
        size = np.int64(2)
        gap = np.int64(1)
        while size < 2 * kept:
            sort_step(out_times, out_units, slot, kept, size, gap, thread, threads)
            cuda.syncthreads()
            gap >>= 1
            if gap == 0:
                gap = size
                size <<= 1
        if thread == 0:
            out_count[s] = kept
