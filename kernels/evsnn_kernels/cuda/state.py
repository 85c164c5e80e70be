"""State of a layer between events: one block a sample."""

from __future__ import annotations

import numpy as np
from numba import cuda

from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import F32, I64, NEVER, Scalar


@cuda_kernel(threads=256)
def rest(potential: F32, last_update: I64, last_spike: I64, first: Scalar, last: Scalar) -> None:
    """Return samples first:last to rest: potential 0 at time 0, no spike yet; see the CPU twin."""
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        for i in range(thread, potential.shape[1], threads):
            potential[s, i] = np.float32(0.0)
        for i in range(thread, last_update.shape[1], threads):
            last_update[s, i] = 0
        for i in range(thread, last_spike.shape[1], threads):
            last_spike[s, i] = NEVER
