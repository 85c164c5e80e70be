"""State of a layer between events."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import F32, I64, NEVER, Scalar


@cpu_kernel
def rest(potential: F32, last_update: I64, last_spike: I64, first: Scalar, last: Scalar) -> None:
    """Return samples first:last to rest: potential 0 at time 0, no spike yet.

    Parameters
    ----------
    potential : float32 (n_samples, n)
    last_update : int64 (n_samples, places)
        One column for a dense layer.
    last_spike : int64 (n_samples, n), or no columns without refractory period
    """
    for s in range(first, last):
        for i in range(potential.shape[1]):
            potential[s, i] = np.float32(0.0)
        for i in range(last_update.shape[1]):
            last_update[s, i] = 0
        for i in range(last_spike.shape[1]):
            last_spike[s, i] = NEVER
