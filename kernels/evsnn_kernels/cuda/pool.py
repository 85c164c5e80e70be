"""Average pooling as a relay of events: no neurons, no threshold (docs/model.md, S19): one block a sample."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import cuda

from evsnn_kernels.jit import cuda_kernel, cuda_part
from evsnn_kernels.layout import F32, I64, U32, Scalar

#: Most threads of a block.
_MOST_THREADS: Final = 1024


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

    See the CPU twin. A thread relays a contiguous range of events; how many the ranges before it relay gives
    the position of its first one. The order within a time group comes from ranks, not from sorting.
    """
    n_relayed = cuda.shared.array(_MOST_THREADS, np.int64)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        begin = start[s]
        stop = begin + count[s]
        share = (count[s] + threads - 1) // threads
        low = min(begin + thread * share, stop)
        high = min(low + share, stop)
        relays = np.int64(0)
        for e in range(low, high):
            if _relayed(np.int64(units[e]), height, width, size) >= 0:
                relays += 1
        n_relayed[thread] = relays
        cuda.syncthreads()
        arrival = np.int64(0)
        for t in range(thread):
            arrival += n_relayed[t]
        if thread == threads - 1:
            out_count[s] = arrival + relays
            out_operations[s] = 0
        for e in range(low, high):
            unit = _relayed(np.int64(units[e]), height, width, size)
            if unit >= 0:
                if arrival < capacity:
                    # Where it would stand among the stored events of its time group, sorted by unit.
                    at = arrival
                    d = e - 1
                    while d >= begin and times[d] == times[e]:
                        if _relayed(np.int64(units[d]), height, width, size) > unit:
                            at -= 1
                        d -= 1
                    later = arrival + 1
                    d = e + 1
                    while d < stop and times[d] == times[e] and later < capacity:
                        other = _relayed(np.int64(units[d]), height, width, size)
                        if other >= 0:
                            later += 1
                            if other < unit:
                                at += 1
                        d += 1
                    out_times[slot + at] = times[e]
                    out_units[slot + at] = unit
                arrival += 1


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
