"""Queues of events between layers: a thread a sample."""

from __future__ import annotations

from numba import cuda

from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import I64, Scalar


@cuda_kernel(threads=128)
def admit(slot: I64, count: I64, out_admitted: I64, overflow: I64, first: Scalar, last: Scalar) -> None:
    """Number of events of samples first:last that found room in their slots; see the CPU twin."""
    for s in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        room = slot[s + 1] - slot[s]
        out_admitted[s] = min(count[s], room)
        if count[s] > room:
            overflow[0] = 1  # whichever thread writes it
