"""Activity of every unit over one presentation (docs/model.md, S7): one block a sample."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import cuda, float32, int32

from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import ACTIVITY_COUNTS, F32, I64, U32, Scalar
from evsnn_kernels.spec.neuron import decay_factor

#: Events that a block stages in shared memory at once.
_CHUNK: Final = 512

#: Units that a block sums up at once, in shared memory.
_TILE: Final = 8192

#: 1 added to it is lost to rounding: a float32 that counts gets here and no further.
_HIGHEST_COUNT: Final = 1 << 24


def _shared_bytes(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    n: int = args[9].shape[1]
    return 4 * min(n, _TILE)


@cuda_kernel(threads=256, shared_bytes=_shared_bytes)
def activity(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    decay_high: F32,
    decay_low: F32,
    kind: Scalar,
    end_time: Scalar,
    scale: Scalar,
    out_activity: F32,
    out_active: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Sum spike counts, or traces, of samples first:last; see the CPU twin.

    Counts are the same in any order: the threads share the events. The traces of a unit are summed in the
    order of its events, so a thread owns a range of units, and looks through all events for theirs.
    """
    staged_units = cuda.shared.array(_CHUNK, np.uint32)
    staged_values = cuda.shared.array(_CHUNK, np.float32)
    n_active = cuda.shared.array(1, np.int32)
    # One piece of memory under two types, of which a launch uses one.
    counts = cuda.shared.array(0, int32)
    sums = cuda.shared.array(0, float32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        n = out_activity.shape[1]
        stop = start[s] + count[s]
        if thread == 0:
            n_active[0] = np.int32(0)
        mine = np.int32(0)
        for tile in range(0, n, _TILE):
            size = min(_TILE, n - tile)
            if kind == ACTIVITY_COUNTS:
                for i in range(thread, size, threads):
                    counts[i] = np.int32(0)
                cuda.syncthreads()
                for e in range(start[s] + thread, stop, threads):
                    at = np.int64(units[e]) - tile
                    # Without the limit a sample of more than 2^31 events could make a count negative.
                    if at >= 0 and at < size and counts[at] < np.int32(_HIGHEST_COUNT):
                        cuda.atomic.add(counts, at, np.int32(1))
                cuda.syncthreads()
            else:
                share = (size + threads - 1) // threads
                low = min(thread * share, size)
                high = min(low + share, size)
                for i in range(low, high):
                    sums[i] = np.float32(0.0)
                chunk = start[s]
                while chunk < stop:
                    loaded = min(stop - chunk, np.int64(_CHUNK))
                    for e in range(thread, loaded, threads):
                        staged_units[e] = units[chunk + e]
                        left = max(end_time - np.int64(times[chunk + e]), np.int64(0))
                        staged_values[e] = decay_factor(left, decay_high, decay_low)
                    cuda.syncthreads()
                    event = np.uint32(0)
                    while event < np.uint32(loaded):
                        unit = staged_units[event]
                        if unit >= np.uint32(tile + low) and unit < np.uint32(tile + high):
                            sums[unit - np.uint32(tile)] += staged_values[event]
                        event = np.uint32(event + 1)
                    cuda.syncthreads()
                    chunk += loaded
                # Without events, no barrier has been reached.
                cuda.syncthreads()
            for i in range(thread, size, threads):
                if kind == ACTIVITY_COUNTS:
                    value = np.float32(min(counts[i], np.int32(_HIGHEST_COUNT)))
                else:
                    value = sums[i]
                value *= scale
                out_activity[s, tile + i] = value
                if value != np.float32(0.0):
                    mine = np.int32(mine + 1)
            cuda.syncthreads()
        cuda.atomic.add(n_active, 0, mine)
        cuda.syncthreads()
        if thread == 0:
            out_active[s] = n_active[0]
