"""Images to the events of a camera that moves in saccades (docs/model.md, S20)."""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.cpu.encode import BUCKETS, sort_keys
from evsnn_kernels.jit import cpu_kernel, cpu_part
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


@cpu_part
def _blur(image: U8, taps: F32, reach: Scalar, rows: F32, grey: F32) -> None:
    """Blur an image into the middle of ``grey``, which has ``reach`` more pixels on each side."""
    height, width = image.shape
    radius = taps.shape[0] // 2
    for y in range(height):
        for x in range(-radius, width + radius):
            total = np.float32(0.0)
            for i in range(taps.shape[0]):
                from_x = x + i - radius
                if 0 <= from_x < width:
                    total += taps[i] * np.float32(image[y, from_x])
            rows[y, x + radius] = total
    for y in range(-radius, height + radius):
        for x in range(width + 2 * radius):
            total = np.float32(0.0)
            for i in range(taps.shape[0]):
                from_y = y + i - radius
                if 0 <= from_y < height:
                    total += taps[i] * rows[from_y, x]
            grey[y + reach, x + reach - radius] = total


@cpu_kernel
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
    """Record images ``images[image[s]]`` with a simulated event camera for s in first:last.

    Parameters
    ----------
    images : uint8 (n, H, W)
    image : int64 (n_samples,)
        Row of each sample in ``images``.
    sample : int64 (n_samples,)
        Counter of each sample's random numbers.
    path : float32 (n_steps + 1, 2)
        Displacement of the image on the sensor, (y, x) in pixels, at the ends of all steps.
    step : int64
        Length of a step in microseconds.
    lag : int64
        Longest part of the path before the recording begins, in microseconds.
    wander : float32
        Largest displacement of a whole recording, each axis, in pixels.
    margin : int64
        Pixels of the sensor on each side of the undisplaced image.
    reach : int64
        Pixels around the image that the path and the blur bring into play.
    taps : float32 (2 r + 1,)
        Blur of the optics along one axis; r is at most ``reach``.
    log_table : float32 (256,)
        Logarithm of the luminance of every grey level.
    share : float32
        What the photoreceptor covers in a step of the way to its input.
    threshold_on, threshold_off : float32
        Nominal contrast thresholds in units of ``log_table``.
    mismatch, jitter : float32
        Standard deviation of thresholds between pixels, and from event to event, as a share.
    camera : uint64
        Number of the camera, which decides how its pixels differ; 0 for a new camera in every recording.
    refractory : int64
        Microseconds after an event for which a pixel is held.
    noise_table : uint32 (n,)
        Cumulative probabilities of 0, 1, ... noise events of a pixel, times 2^32.
    on_share : uint64
        Share of the noise events that are ON, times 2^32.
    resolution : int64
        Grid of the event times in microseconds.
    key_low, key_high, epoch : uint64
        Seed and epoch of the random numbers.
    out_times, out_units, out_slot, out_count
        Output queue.
    """
    _, height, width = images.shape
    rows_out = height + 2 * margin
    columns_out = width + 2 * margin
    pixels = rows_out * columns_out
    steps = path.shape[0] - 1
    duration = steps * step
    # The window of blurred pixels that pass over a pixel of the sensor.
    below = math.floor(-(path[:, 0].max() + wander))
    above = math.floor(-(path[:, 0].min() - wander)) + 1
    left = math.floor(-(path[:, 1].max() + wander))
    right = math.floor(-(path[:, 1].min() - wander)) + 1
    rows = np.empty((height, width + 2 * (taps.shape[0] // 2)), np.float32)
    grey = np.zeros((height + 2 * reach, width + 2 * reach), np.float32)
    keys = np.empty(8192, np.uint64)
    scratch = np.empty(8192, np.uint64)
    ends = np.empty(BUCKETS, np.int64)
    noise = np.empty(noise_table.shape[0] + 1, np.uint64)
    for s in range(first, last):
        _blur(images[image[s]], taps, reach, rows, grey)
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
        total = 0
        for y in range(rows_out):
            for x in range(columns_out):
                pixel = y * columns_out + x
                # Where the undisplaced pixel lies in the padded image.
                base_y = y - margin + reach
                base_x = x - margin + reach
                w0, w1, _, _ = philox(pixel, sample[s], epoch, PURPOSE_SACCADE, key_low, key_high)
                n_noise = np.int64(0)
                while n_noise < noise_table.shape[0] and w1 >= np.uint64(noise_table[n_noise]):
                    n_noise += 1
                lit = False
                for j in range(base_y + below, base_y + above + 1):
                    for i in range(base_x + left, base_x + right + 1):
                        if grey[j, i] != np.float32(0.0):
                            lit = True
                if not lit and n_noise == 0:
                    # Its luminance never changes.
                    continue
                for e in range(n_noise):
                    a, b, _, _ = philox(
                        pixel, sample[s], epoch, PURPOSE_SACCADE_NOISE + (e << 8), key_low, key_high
                    )
                    polarity = np.uint64(1) if b < on_share else np.uint64(0)
                    key = (np.uint64(scaled(a, duration)) << np.uint64(1)) | polarity
                    at = e
                    while at > 0 and noise[at - 1] > key:
                        noise[at] = noise[at - 1]
                        at -= 1
                    noise[at] = key
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
                next_noise = np.int64(0)
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
                    seen = interpolated(
                        interpolated(grey[j, i], grey[j, i + 1], share_x),
                        interpolated(grey[j + 1, i], grey[j + 1, i + 1], share_x),
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
                        if next_noise < n_noise:
                            stamp = np.int64(noise[next_noise] >> np.uint64(1))
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
                            next_noise += 1
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
                            polarity = noise[next_noise] & np.uint64(1)
                            reference = level
                            next_noise += 1
                        else:
                            break
                        # Rounding must not carry an event past the ends of its stretch.
                        now = max(now, min(time, begin + step - 1))
                        if now >= start:
                            if total == keys.shape[0]:
                                grown = np.empty(2 * total, np.uint64)
                                grown[:total] = keys
                                keys = grown
                                scratch = np.empty(2 * total, np.uint64)
                            unit = polarity * np.uint64(pixels) + np.uint64(pixel)
                            stamp = on_grid(now - start, resolution)
                            keys[total] = (np.uint64(stamp) << np.uint64(32)) | unit
                            total += 1
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
        sort_keys(keys, total, scratch, ends, duration)
        slot = out_slot[s]
        stored = min(total, out_slot[s + 1] - slot)
        for e in range(stored):
            out_times[slot + e] = np.uint32(keys[e] >> np.uint64(32))
            out_units[slot + e] = np.uint32(keys[e] & np.uint64(0xFFFFFFFF))
        out_count[s] = total
