"""Images to events (docs/model.md, S12)."""

from __future__ import annotations

import numpy as np
from numba import cuda, int32

from evsnn_kernels.cuda.block import MAX_THREADS, narrowed, sort_step, summed
from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import (
    ENCODE_LATENCY,
    ENCODE_STRATIFIED,
    I64,
    PURPOSE_ENCODE,
    U8,
    U32,
    Scalar,
)
from evsnn_kernels.spec.encoder import latency_time, on_grid, stratified_count, stratified_time
from evsnn_kernels.spec.random import philox, scaled, unit_interval


@cuda_kernel(threads=256)
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
    """Draw the events of images ``images[image[s]]`` for s in first:last; a block a sample.

    See :func:`evsnn_kernels.cpu.encode.encode`. A random number can be drawn again at no other cost, so
    nothing is kept: the block draws all events once to count them, then once more to store them, each
    thread those of its pixels, and sorts them in the slot. Where they do not fit into the slot, more draws
    find the key of the first event that is not stored.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    _, height, width = images.shape
    partial = cuda.shared.array(MAX_THREADS, int32)
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        row = image[s]
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        total = np.int64(-1)
        low = np.uint64(0)
        high = np.uint64(duration) << np.uint64(32)
        bound = high
        place = np.int64(0)
        kept = np.int64(0)
        storing = False
        drawing = True
        while drawing:
            mine = np.int64(0)
            for unit in range(thread, height * width, threads):
                intensity = images[row, unit // width, unit % width]
                if intensity == 0:
                    continue
                word, w1, w2, w3 = philox(unit, sample[s], epoch, PURPOSE_ENCODE, key_low, key_high)
                if kind == ENCODE_STRATIFIED:
                    n = stratified_count(intensity, rate, unit_interval(word))
                elif kind == ENCODE_LATENCY:
                    n = np.int64(1)
                else:
                    n = np.int64(0)
                    while n < poisson_table.shape[1] and word >= np.uint64(poisson_table[intensity, n]):
                        n += 1
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
                    if (np.uint64(time) << np.uint64(32)) | np.uint64(unit) < bound:
                        if storing:
                            out_times[slot + place + mine] = np.uint32(time)
                            out_units[slot + place + mine] = np.uint32(unit)
                        mine += 1
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
                low, high, bound = narrowed(low, high, bound, kept, capacity)
                storing = bound == counted
        if total > capacity:
            for e in range(kept + thread, capacity, threads):
                out_times[slot + e] = np.uint32(low >> np.uint64(32))
                out_units[slot + e] = np.uint32(low & np.uint64(0xFFFFFFFF))
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
