"""Images to events (docs/model.md, S12)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import cpu_kernel, cpu_part
from evsnn_kernels.layout import (
    ENCODE_LATENCY,
    ENCODE_STRATIFIED,
    I64,
    PURPOSE_ENCODE,
    U8,
    U32,
    U64,
    Scalar,
)
from evsnn_kernels.spec.encoder import latency_time, on_grid, stratified_count, stratified_time
from evsnn_kernels.spec.random import philox, scaled, unit_interval

#: Time slots that events are dropped into before the final insertion sort.
BUCKETS = 512


@cpu_part
def sort_keys(keys: U64, total: Scalar, scratch: U64, ends: I64, duration: Scalar) -> None:
    """Sort keys (time << 32 | unit), times below ``duration``, in place; linear for evenly spread times."""
    ends[:] = 0
    for e in range(total):
        ends[np.int64(keys[e] >> np.uint64(32)) * BUCKETS // duration] += 1
    running = 0
    for b in range(BUCKETS):
        size = ends[b]
        ends[b] = running
        running += size
    for e in range(total):
        b = np.int64(keys[e] >> np.uint64(32)) * BUCKETS // duration
        scratch[ends[b]] = keys[e]
        ends[b] += 1
    for e in range(total):
        key = scratch[e]
        at = e
        while at > 0 and keys[at - 1] > key:
            keys[at] = keys[at - 1]
            at -= 1
        keys[at] = key


@cpu_kernel
def encode(
    images: U8,
    image: I64,
    sample: I64,
    kind: Scalar,
    rate: Scalar,
    duration: Scalar,
    resolution: Scalar,
    poisson_table: U32,
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
    """Draw the events of images ``images[image[s]]`` for s in first:last.

    Parameters
    ----------
    images : uint8 (n, H, W)
    image : int64 (n_samples,)
        Row of each sample in ``images``.
    sample : int64 (n_samples,)
        Counter of each sample's random numbers.
    kind : int64
        ``ENCODE_STRATIFIED``, ``ENCODE_POISSON`` or ``ENCODE_LATENCY``.
    rate : float64
        Events of a pixel of intensity 255.
    duration, resolution : int64
        Length of the presentation and grid of the event times, microseconds.
    poisson_table : uint32 (256, n)
        Cumulative probabilities of 0, 1, ... events for every intensity, times 2^32.
    key_low, key_high, epoch : uint64
        Seed and epoch of the random numbers.
    out_times, out_units, out_slot, out_count
        Output queue.
    """
    _, height, width = images.shape
    keys = np.empty(1024, np.uint64)
    scratch = np.empty(1024, np.uint64)
    ends = np.empty(BUCKETS, np.int64)
    for s in range(first, last):
        picture = images[image[s]]
        total = 0
        for y in range(height):
            for x in range(width):
                intensity = picture[y, x]
                if intensity == 0:
                    continue
                unit = y * width + x
                word, w1, w2, w3 = philox(unit, sample[s], epoch, PURPOSE_ENCODE, key_low, key_high)
                if kind == ENCODE_STRATIFIED:
                    n = stratified_count(intensity, rate, unit_interval(word))
                elif kind == ENCODE_LATENCY:
                    n = np.int64(1)
                else:
                    n = np.int64(0)
                    while n < poisson_table.shape[1] and word >= np.uint64(poisson_table[intensity, n]):
                        n += 1
                if total + n > keys.shape[0]:
                    grown = np.empty(2 * (total + n), np.uint64)
                    grown[:total] = keys[:total]
                    keys = grown
                    scratch = np.empty(2 * (total + n), np.uint64)
                w0 = word
                for j in range(n):
                    # The first block's first word decided how many events there are.
                    lane = (j + 1) & 3
                    if lane == 0:
                        block = (j + 1) >> 2
                        w0, w1, w2, w3 = philox(
                            unit, sample[s], epoch, PURPOSE_ENCODE + (block << 8), key_low, key_high
                        )
                    word = w0 if lane == 0 else (w1 if lane == 1 else (w2 if lane == 2 else w3))
                    if kind == ENCODE_LATENCY:
                        time = latency_time(intensity, duration)
                    elif kind == ENCODE_STRATIFIED:
                        time = stratified_time(np.int64(j), n, scaled(word, duration), duration)
                    else:
                        time = scaled(word, duration)
                    time = on_grid(time, resolution)
                    keys[total] = (np.uint64(time) << np.uint64(32)) | np.uint64(unit)
                    total += 1
        sort_keys(keys, total, scratch, ends, duration)
        slot = out_slot[s]
        stored = min(total, out_slot[s + 1] - slot)
        for e in range(stored):
            out_times[slot + e] = np.uint32(keys[e] >> np.uint64(32))
            out_units[slot + e] = np.uint32(keys[e] & np.uint64(0xFFFFFFFF))
        out_count[s] = total
