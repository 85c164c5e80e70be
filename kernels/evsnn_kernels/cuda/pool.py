"""Average pooling as a relay of events: no neurons, no threshold (docs/model.md, S19): one block a sample."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import cuda

from evsnn_kernels.cuda.block import bits_below, sort_step
from evsnn_kernels.jit import cuda_kernel, cuda_part
from evsnn_kernels.layout import F32, I64, U32, Scalar

#: Events that a block looks at together, and the words of 32 bits that mark those with a target.
_CHUNK: Final = 256
_CHUNK_WORDS: Final = 8

#: Relayed events whose time groups a block puts in order together.
_WINDOW: Final = 2048


@cuda_part
def _relayed(unit: Scalar, height: Scalar, width: Scalar, size: Scalar) -> Scalar:
    """Unit to which an event is relayed; -1 where no window takes it."""
    x = unit % width // size
    y = unit // width % height // size
    if x >= width // size or y >= height // size:
        return np.int64(-1)
    return (unit // (width * height) * (height // size) + y) * (width // size) + x


@cuda_kernel(threads=256)
def forward(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    height: Scalar,
    width: Scalar,
    size: Scalar,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    out_operations: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Send each event of samples first:last from (c, y, x) to (c, y // size, x // size).

    See the CPU twin. First the block stores the relayed events as they arrive: the bits of those before it
    give an event its position. Then it puts the units of every time group in order, some groups at once: the
    number of smaller units is the place of a unit.
    """
    marks = cuda.shared.array(_CHUNK_WORDS, np.uint32)
    sorted_times = cuda.shared.array(_WINDOW, np.uint32)
    sorted_units = cuda.shared.array(_WINDOW, np.uint32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = np.int64(0)
        for chunk in range(0, count[s], _CHUNK):
            begin = start[s] + chunk
            loaded = min(_CHUNK, count[s] - chunk)
            for w in range(thread, _CHUNK_WORDS, threads):
                marks[w] = np.uint32(0)
            cuda.syncthreads()
            for e in range(thread, loaded, threads):
                if _relayed(np.int64(units[begin + e]), height, width, size) >= 0:
                    cuda.atomic.or_(marks, e >> 5, np.uint32(1 << (e & 31)))
            cuda.syncthreads()
            for e in range(thread, loaded, threads):
                unit = _relayed(np.int64(units[begin + e]), height, width, size)
                at = produced + bits_below(marks, e)
                if unit >= 0 and at < capacity:
                    out_times[slot + at] = times[begin + e]
                    out_units[slot + at] = np.uint32(unit)
            produced += bits_below(marks, _CHUNK)
            cuda.syncthreads()
        stored = min(produced, capacity)
        low = np.int64(0)
        while low < stored:
            n = np.uint32(min(np.int64(_WINDOW), stored - low))
            i = np.uint32(thread)
            while i < n:
                sorted_times[i] = out_times[slot + low + np.int64(i)]
                sorted_units[i] = out_units[slot + low + np.int64(i)]
                i = np.uint32(i + np.uint32(threads))
            cuda.syncthreads()
            whole = n
            beyond = low + np.int64(n)
            if beyond < stored:
                # The last time group may go on after the window.
                while whole > 0 and sorted_times[whole - np.uint32(1)] == out_times[slot + beyond]:
                    whole = np.uint32(whole - 1)
            if whole > 0:
                i = np.uint32(thread)
                while i < whole:
                    stamp = sorted_times[i]
                    unit32 = sorted_units[i]
                    at32 = i
                    other = i
                    while other > 0 and sorted_times[other - np.uint32(1)] == stamp:
                        other = np.uint32(other - 1)
                        if sorted_units[other] > unit32:
                            at32 = np.uint32(at32 - 1)
                    other = np.uint32(i + 1)
                    while other < whole and sorted_times[other] == stamp:
                        if sorted_units[other] < unit32:
                            at32 = np.uint32(at32 + 1)
                        other = np.uint32(other + 1)
                    out_units[slot + low + np.int64(at32)] = unit32
                    i = np.uint32(i + np.uint32(threads))
                low += np.int64(whole)
            else:
                while beyond < stored and out_times[slot + beyond] == sorted_times[0]:
                    beyond += 1
                run = np.int64(2)
                gap = np.int64(1)
                while run < 2 * (beyond - low):
                    sort_step(out_times, out_units, slot + low, beyond - low, run, gap, thread, threads)
                    cuda.syncthreads()
                    gap >>= 1
                    if gap == 0:
                        gap = run
                        run <<= 1
                low = beyond
            cuda.syncthreads()
        if thread == 0:
            out_count[s] = produced
            out_operations[s] = 0


@cuda_kernel(threads=256)
def propagate(
    activity: F32,
    height: Scalar,
    width: Scalar,
    size: Scalar,
    gain: Scalar,
    error: F32,
    out_error: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Error of the active inputs of a pooling layer; see the CPU twin. A thread gathers one input."""
    s = first + cuda.blockIdx.x
    if s < last:
        for k in range(cuda.threadIdx.x, activity.shape[1], cuda.blockDim.x):
            value = np.float32(0.0)
            if activity[s, k] > np.float32(0.0):
                unit = _relayed(np.int64(k), height, width, size)
                if unit >= 0:
                    value = gain * error[s, unit]
            out_error[s, k] = value
