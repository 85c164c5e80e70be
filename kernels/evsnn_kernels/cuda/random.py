"""Arrays of random numbers (docs/model.md, S14)."""

from __future__ import annotations

import numpy as np
from numba import cuda

from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import F32, U64, Scalar
from evsnn_kernels.spec.image import signed_unit
from evsnn_kernels.spec.random import philox, unit_interval


@cuda_kernel(threads=128, indices=128)
def random_keys(
    purpose: Scalar,
    epoch: Scalar,
    key_low: Scalar,
    key_high: Scalar,
    out_keys: U64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Fill entries first:last with 64-bit random numbers; a thread an entry."""
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        a, b, _, _ = philox(i, 0, epoch, purpose, key_low, key_high)
        out_keys[i] = (a << np.uint64(32)) | b


@cuda_kernel(threads=128)
def uniform_weights(
    bound: Scalar,
    layer: Scalar,
    purpose: Scalar,
    key_low: Scalar,
    key_high: Scalar,
    out_weight: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Fill rows first:last with weights uniform in [-bound, bound); a block a row."""
    for k in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        for i in range(cuda.threadIdx.x, out_weight.shape[1], cuda.blockDim.x):
            a, _, _, _ = philox(i, k, layer, purpose, key_low, key_high)
            out_weight[k, i] = bound * signed_unit(unit_interval(a))
