"""Activity of every unit over one presentation (docs/model.md, S7): one block a sample."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import cuda

from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import ACTIVITY_COUNTS, F32, I64, U32, Scalar
from evsnn_kernels.spec.neuron import decay_factor

#: Events that a block stages in shared memory at once.
_CHUNK: Final = 512


@cuda_kernel(threads=128)
def activity(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    decay_high: F32,
    decay_low: F32,
    kind: Scalar,
    end_time: Scalar,
    out_activity: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Sum spike counts, or traces, of samples first:last; see the CPU twin.

    A thread owns a range of units and looks through all events for theirs: so a unit's events are summed in
    their order, without atomics.
    """
    staged_units = cuda.shared.array(_CHUNK, np.uint32)
    staged_values = cuda.shared.array(_CHUNK, np.float32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        n = out_activity.shape[1]
        share = (n + threads - 1) // threads
        low = min(thread * share, n)
        high = min(low + share, n)
        for i in range(low, high):
            out_activity[s, i] = np.float32(0.0)
        chunk = start[s]
        stop = chunk + count[s]
        while chunk < stop:
            loaded = min(stop - chunk, np.int64(_CHUNK))
            cuda.syncthreads()
            for e in range(thread, loaded, threads):
                staged_units[e] = units[chunk + e]
                value = np.float32(1.0)
                if kind != ACTIVITY_COUNTS:
                    left = max(end_time - np.int64(times[chunk + e]), np.int64(0))
                    value = decay_factor(left, decay_high, decay_low)
                staged_values[e] = value
            cuda.syncthreads()
            for e in range(loaded):
                unit = np.int64(staged_units[e])
                if unit >= low and unit < high:
                    out_activity[s, unit] += staged_values[e]
            chunk += loaded
