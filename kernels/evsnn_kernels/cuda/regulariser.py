"""Regularisers of the weights and thresholds of a layer (docs/model.md, S10). Ranges are neurons.

Neighbouring threads have neighbouring neurons, so that they read neighbouring weights. The rows of the
weights are shared by several blocks where their order does not matter.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import cuda, float32, float64, int32

from evsnn_kernels.cuda.block import MAX_THREADS, summed
from evsnn_kernels.jit import cuda_kernel, larger
from evsnn_kernels.layout import F32, F64, Scalar
from evsnn_kernels.spec.learning import norm_factor, norm_penalty

#: Rows and neurons of the part of a weight matrix that a block holds at once.
TILE_ROWS: Final = 64
TILE_NEURONS: Final = 32

#: Rows that a block changes, at least.
_ROWS: Final = 16


@cuda_kernel(threads=512, indices=TILE_NEURONS)
def squared_norms(weight: F32, out_norms: F64, first: Scalar, last: Scalar) -> None:
    """Sum of the squared weights of each neuron, in the order of its inputs.

    All threads fetch a tile of the weights, then one thread a neuron adds up its column.
    """
    tile = cuda.shared.array((TILE_ROWS, TILE_NEURONS), float32)
    total = cuda.shared.array(TILE_NEURONS, float64)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n_in = weight.shape[0]
    for begin in range(first + cuda.blockIdx.x * TILE_NEURONS, last, cuda.gridDim.x * TILE_NEURONS):
        columns = min(TILE_NEURONS, last - begin)
        for c in range(thread, columns, threads):
            total[c] = 0.0
        for first_row in range(0, n_in, TILE_ROWS):
            rows = np.uint32(min(TILE_ROWS, n_in - first_row))
            t = np.uint32(thread)
            while t < rows * np.uint32(TILE_NEURONS):
                r = np.uint32(t // TILE_NEURONS)
                column = np.uint32(t % TILE_NEURONS)
                if column < columns:
                    tile[r, column] = weight[first_row + r, begin + column]
                t = np.uint32(t + np.uint32(threads))
            cuda.syncthreads()
            for c in range(thread, columns, threads):
                so_far = total[c]
                r = np.uint32(0)
                while r < rows:
                    w = np.float64(tile[r, np.uint32(c)])
                    so_far += w * w
                    r = np.uint32(r + 1)
                total[c] = so_far
            cuda.syncthreads()
        for c in range(thread, columns, threads):
            out_norms[begin + c] = total[c]


def _shares(rows: int) -> int:
    return -(-rows // _ROWS)


def _blocks_of_penalty(weight: F32, *_: Any) -> int:  # noqa: ANN401 - the kernel's other arguments
    return _shares(weight.shape[0])


def _blocks_of_limit(norms: F64, largest: Scalar, weight: F32, *_: Any) -> int:  # noqa: ANN401 - as above
    return _shares(weight.shape[0])


@cuda_kernel(threads=128, indices=128, blocks=_blocks_of_penalty)
def add_norm_penalty(
    weight: F32,
    norms: F64,
    strength: Scalar,
    steepness: Scalar,
    out_gradient: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Add the gradient of strength/2 exp(steepness (|w_i|^2 - 1)) of neurons first:last."""
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        factor = np.float32(norm_penalty(norms[i], strength, steepness))
        for k in range(cuda.blockIdx.y, weight.shape[0], cuda.gridDim.y):
            out_gradient[k, i] += factor * weight[k, i]


@cuda_kernel(threads=128, indices=128, blocks=_blocks_of_limit)
def limit_norms(norms: F64, largest: Scalar, weight: F32, first: Scalar, last: Scalar) -> None:
    """Scale the weights of neurons first:last whose norm exceeds ``largest`` back to it."""
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        factor = np.float32(norm_factor(norms[i], largest))
        for k in range(cuda.blockIdx.y, weight.shape[0], cuda.gridDim.y):
            weight[k, i] *= factor


@cuda_kernel(threads=256, indices=256)
def balance_thresholds(activity: F32, rate: Scalar, threshold: F32, first: Scalar, last: Scalar) -> None:
    """Raise the thresholds of neurons that fired, lower all: mean over the batch.

    See :func:`evsnn_kernels.cpu.regulariser.balance_thresholds`. Every block that has neurons counts the
    whole batch.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n_samples, n = activity.shape
    partial = cuda.shared.array(MAX_THREADS, int32)
    for begin in range(first + cuda.blockIdx.x * threads, last, cuda.gridsize(1)):
        mine = np.int32(0)
        for s in range(n_samples):
            for i in range(thread, n, threads):
                if activity[s, i] > np.float32(0.0):
                    mine += np.int32(1)
        partial[thread] = mine
        cuda.syncthreads()
        i = begin + thread
        if i < last:
            fired_total = summed(partial, threads)
            fired = 0
            for s in range(n_samples):
                if activity[s, i] > np.float32(0.0):
                    fired += 1
            change = np.float32(np.int64(n) * fired - fired_total) / np.float32(n_samples)
            threshold[i] = threshold[i] + rate * change
        cuda.syncthreads()


@cuda_kernel(threads=128, indices=128)
def raise_thresholds(floor: F32, threshold: F32, first: Scalar, last: Scalar) -> None:
    """Raise the thresholds of neurons first:last that are below ``floor`` to it; see the CPU twin."""
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        threshold[i] = larger(threshold[i], floor[i])
