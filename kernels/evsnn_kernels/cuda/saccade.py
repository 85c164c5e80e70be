"""Images to the events of a camera that moves in saccades (docs/model.md, S20)."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import cuda, float32, int32

from evsnn_kernels.cuda.block import MAX_THREADS, narrowed, sort_step, summed
from evsnn_kernels.cuda.launch import SharedMemoryError
from evsnn_kernels.jit import cuda_kernel, cuda_part, larger, smaller
from evsnn_kernels.layout import (
    F32,
    I64,
    PURPOSE_PIXEL,
    PURPOSE_SACCADE,
    PURPOSE_SACCADE_NOISE,
    PURPOSE_SACCADE_THRESHOLD,
    U8,
    U32,
    Scalar,
)
from evsnn_kernels.spec.encoder import on_grid
from evsnn_kernels.spec.image import interpolated, signed_unit
from evsnn_kernels.spec.random import philox, scaled, unit_interval
from evsnn_kernels.spec.saccade import (
    crossing,
    deviating,
    first_reference,
    level_at,
    log_luminance,
    low_pass,
    mixed,
    triangular,
)

#: Pixels of a padded image that fit into shared memory; a larger image is watched in strips.
_MOST_SHARED: Final = 11264


@cuda_part
def _blurred(image: U8, taps: F32, y: Scalar, x: Scalar) -> Scalar:
    """Blurred grey level at (y, x), which may lie beside the image: along its rows first."""
    height, width = image.shape
    radius = taps.shape[0] // 2
    grey = np.float32(0.0)
    for i in range(taps.shape[0]):
        from_y = y + i - radius
        if 0 <= from_y < height:
            of_row = np.float32(0.0)
            for j in range(taps.shape[0]):
                from_x = x + j - radius
                if 0 <= from_x < width:
                    of_row += taps[j] * np.float32(image[from_y, from_x])
            grey += taps[i] * of_row
    return grey


@cuda_part
def _noise_after(
    before: Scalar,
    number: Scalar,
    n_noise: Scalar,
    pixel: Scalar,
    sample: Scalar,
    duration: Scalar,
    on_share: Scalar,
    key_low: Scalar,
    key_high: Scalar,
    epoch: Scalar,
) -> tuple[Scalar, Scalar]:
    """Key (time << 1 | polarity) and number of the noise event after event ``number`` of key ``before``."""
    best = np.uint64(0xFFFFFFFFFFFFFFFF)
    found = np.int64(-1)
    for e in range(n_noise):
        a, b, _, _ = philox(pixel, sample, epoch, PURPOSE_SACCADE_NOISE + (e << 8), key_low, key_high)
        polarity = np.uint64(1) if b < on_share else np.uint64(0)
        key = (np.uint64(scaled(a, duration)) << np.uint64(1)) | polarity
        if (key > before or (key == before and e > number)) and key < best:
            best = key
            found = np.int64(e)
    return best, found


def _shared_bytes(images: U8, *arguments: Scalar) -> int:
    """Room for the blurred image; ``arguments`` are those of the kernel after ``images``.

    Raises
    ------
    SharedMemoryError
        If not even the rows that pass over one row of the sensor fit.
    """
    _, height, width = images.shape
    reach = int(arguments[7])
    wide = int(width + 2 * reach)
    if wide * (2 * reach + 1) > _MOST_SHARED:
        raise SharedMemoryError(
            f"an image of {height}x{width} is too wide for the saccade kernel of CUDA; encode it on the CPU"
        )
    return 4 * min(int(height + 2 * reach) * wide, _MOST_SHARED)


@cuda_kernel(threads=256, shared_bytes=_shared_bytes)
def saccade(
    images: U8,
    image: I64,
    sample: I64,
    path: F32,
    step: Scalar,
    lag: Scalar,
    wander: Scalar,
    margin: Scalar,
    reach: Scalar,
    taps: F32,
    log_table: F32,
    share: Scalar,
    threshold_on: Scalar,
    threshold_off: Scalar,
    mismatch: Scalar,
    jitter: Scalar,
    camera: Scalar,
    refractory: Scalar,
    noise_table: U32,
    on_share: Scalar,
    resolution: Scalar,
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
    """Record images ``images[image[s]]`` with a simulated event camera; a block a sample.

    See :func:`evsnn_kernels.cpu.saccade.saccade`. The blurred image lies in shared memory, one strip
    after the other if it is too large; each thread watches with every ``threads``-th pixel. As in
    ``encode``, the block records everything once to count the events and once more to store them, and a
    pixel draws its noise events anew when it looks for the next one.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    partial = cuda.shared.array(MAX_THREADS, int32)
    grey = cuda.shared.array(0, float32)
    _, height, width = images.shape
    rows_out = height + 2 * margin
    columns_out = width + 2 * margin
    pixels = rows_out * columns_out
    steps = path.shape[0] - 1
    duration = steps * step
    wide = width + 2 * reach
    radius = taps.shape[0] // 2
    # The window of blurred pixels that pass over a pixel of the sensor.
    top_y = path[0, 0]
    end_y = path[0, 0]
    top_x = path[0, 1]
    end_x = path[0, 1]
    for k in range(1, steps + 1):
        top_y = larger(top_y, path[k, 0])
        end_y = smaller(end_y, path[k, 0])
        top_x = larger(top_x, path[k, 1])
        end_x = smaller(end_x, path[k, 1])
    below = np.int64(math.floor(-(top_y + wander)))
    above = np.int64(math.floor(-(end_y - wander))) + 1
    left = np.int64(math.floor(-(top_x + wander)))
    right = np.int64(math.floor(-(end_x - wander))) + 1
    # Rows of the sensor in a strip, and rows of the padded image that pass over them.
    rows_in = height + 2 * reach
    strip_rows = rows_out
    is_whole = rows_in * wide <= _MOST_SHARED
    if not is_whole:
        strip_rows = max(_MOST_SHARED // wide - (above - below), 1)
        rows_in = strip_rows + above - below
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        a, b, c, _ = philox(pixels, sample[s], epoch, PURPOSE_SACCADE, key_low, key_high)
        away_y = wander * signed_unit(unit_interval(a))
        away_x = wander * signed_unit(unit_interval(b))
        start = scaled(c, lag + 1)
        # A numbered camera is a stream of its own: it is the same whatever the seed of the recordings.
        if camera == np.uint64(0):
            camera_sample, camera_epoch = np.uint64(sample[s]), np.uint64(epoch)
            camera_low, camera_high = np.uint64(key_low), np.uint64(key_high)
        else:
            camera_sample, camera_epoch = np.uint64(0), np.uint64(0)
            camera_low, camera_high = np.uint64(camera), np.uint64(0)
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        total = np.int64(-1)
        first_key = np.uint64(0)
        high_key = np.uint64(duration) << np.uint64(32)
        bound = high_key
        place = np.int64(0)
        kept = np.int64(0)
        storing = False
        drawing = True
        while drawing:
            mine = np.int64(0)
            for strip in range(0, rows_out, strip_rows):
                end = min(strip + strip_rows, rows_out) * columns_out
                top = np.int64(0)
                if not is_whole:
                    top = strip - margin + reach + below
                if total < 0 or not is_whole:
                    cuda.syncthreads()
                    for at in range(thread, min(rows_in, height + 2 * reach - top) * wide, threads):
                        y = top + at // wide - reach
                        x = at % wide - reach
                        level = np.float32(0.0)
                        if -radius <= y < height + radius and -radius <= x < width + radius:
                            level = _blurred(images[image[s]], taps, y, x)
                        grey[at] = level
                    cuda.syncthreads()
                for pixel in range(strip * columns_out + thread, end, threads):
                    # Where the undisplaced pixel lies in the strip of the padded image.
                    base_y = pixel // columns_out - margin + reach - top
                    base_x = pixel % columns_out - margin + reach
                    w0, w1, _, _ = philox(pixel, sample[s], epoch, PURPOSE_SACCADE, key_low, key_high)
                    n_noise = np.int64(0)
                    while n_noise < noise_table.shape[0] and w1 >= np.uint64(noise_table[n_noise]):
                        n_noise += 1
                    lit = False
                    for j in range(base_y + below, base_y + above + 1):
                        for i in range(base_x + left, base_x + right + 1):
                            if grey[j * wide + i] != np.float32(0.0):
                                lit = True
                    if not lit and n_noise == 0:
                        # Its luminance never changes.
                        continue
                    a, b, c, d = philox(
                        pixel, camera_sample, camera_epoch, PURPOSE_PIXEL, camera_low, camera_high
                    )
                    both = triangular(a, b)
                    between = triangular(c, d)
                    pixel_on = deviating(threshold_on, mismatch, mixed(both, between))
                    pixel_off = deviating(threshold_off, mismatch, mixed(both, -between))
                    fired = np.int64(0)
                    a, b, c, d = philox(pixel, sample[s], epoch, PURPOSE_SACCADE_THRESHOLD, key_low, key_high)
                    on = deviating(pixel_on, jitter, triangular(a, b))
                    off = deviating(pixel_off, jitter, triangular(c, d))
                    noise = np.uint64(0)
                    number = np.int64(-1)
                    noise_left = n_noise
                    draw_noise = True
                    held = False
                    release = np.int64(0)
                    high = np.float32(0.0)
                    reference = np.float32(0.0)
                    for k in range(steps + 1):
                        from_y = np.float32(base_y) - (path[k, 0] + away_y)
                        from_x = np.float32(base_x) - (path[k, 1] + away_x)
                        j = int(from_y)
                        i = int(from_x)
                        share_y = from_y - np.float32(j)
                        share_x = from_x - np.float32(i)
                        at = j * wide + i
                        seen = interpolated(
                            interpolated(grey[at], grey[at + 1], share_x),
                            interpolated(grey[at + wide], grey[at + wide + 1], share_x),
                            share_y,
                        )
                        target = log_luminance(log_table, seen)
                        if k == 0:
                            high = target
                            reference = first_reference(target, on, off, unit_interval(w0))
                            continue
                        low = high
                        high = low_pass(low, target, share)
                        begin = (k - 1) * step
                        now = begin
                        while True:
                            until = begin + step
                            is_noise = False
                            if noise_left > 0:
                                if draw_noise:
                                    noise, number = _noise_after(
                                        noise,
                                        number,
                                        n_noise,
                                        pixel,
                                        sample[s],
                                        duration,
                                        on_share,
                                        key_low,
                                        key_high,
                                        epoch,
                                    )
                                    draw_noise = False
                                stamp = np.int64(noise >> np.uint64(1))
                                if stamp < until:
                                    until = stamp
                                    is_noise = True
                            if held:
                                if release < until or (release == until and is_noise):
                                    held = False
                                    now = release
                                    reference = level_at(low, high, release - begin, step)
                                    continue
                                if not is_noise:
                                    break
                                noise_left -= 1
                                draw_noise = True
                                continue
                            level = level_at(low, high, until - begin, step) if is_noise else high
                            polarity = np.uint64(0)
                            if high > low and level >= reference + on:
                                reference += on
                                time = begin + crossing(low, high, reference, step)
                                polarity = np.uint64(1)
                            elif high < low and level <= reference - off:
                                reference -= off
                                time = begin + crossing(low, high, reference, step)
                            elif is_noise:
                                time = until
                                polarity = noise & np.uint64(1)
                                reference = level
                                noise_left -= 1
                                draw_noise = True
                            else:
                                break
                            # Rounding must not carry an event past the ends of its stretch.
                            now = max(now, min(time, begin + step - 1))
                            if now >= start:
                                unit = polarity * np.uint64(pixels) + np.uint64(pixel)
                                stamp = on_grid(now - start, resolution)
                                if (np.uint64(stamp) << np.uint64(32)) | unit < bound:
                                    if storing:
                                        out_times[slot + place + mine] = np.uint32(stamp)
                                        out_units[slot + place + mine] = np.uint32(unit)
                                    mine += 1
                            fired += 1
                            a, b, c, d = philox(
                                pixel,
                                sample[s],
                                epoch,
                                PURPOSE_SACCADE_THRESHOLD + (fired << 8),
                                key_low,
                                key_high,
                            )
                            on = deviating(pixel_on, jitter, triangular(a, b))
                            off = deviating(pixel_off, jitter, triangular(c, d))
                            if refractory > 0:
                                held = True
                                release = now + refractory
            if storing:
                drawing = False
            else:
                partial[thread] = mine
                cuda.syncthreads()
                kept = summed(partial, threads)
                place = summed(partial, thread)
                cuda.syncthreads()
                if total < 0:
                    total = kept
                counted = bound
                first_key, high_key, bound = narrowed(first_key, high_key, bound, kept, capacity)
                storing = bound == counted
        if total > capacity:
            for e in range(kept + thread, capacity, threads):
                out_times[slot + e] = np.uint32(first_key >> np.uint64(32))
                out_units[slot + e] = np.uint32(first_key & np.uint64(0xFFFFFFFF))
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
            out_count[s] = total
