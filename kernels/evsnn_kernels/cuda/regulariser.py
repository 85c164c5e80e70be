"""Regularisers of the weights and thresholds of a layer (docs/model.md, S10). Ranges are neurons.

A thread a neuron: neighbouring threads read neighbouring weights, and of the blocks that are started for
the neurons only the first few have any.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, int32

from evsnn_kernels.cuda.block import MAX_THREADS, summed
from evsnn_kernels.jit import cuda_kernel, larger
from evsnn_kernels.layout import F32, F64, Scalar
from evsnn_kernels.spec.learning import norm_factor, norm_penalty


@cuda_kernel(threads=128)
def squared_norms(weight: F32, out_norms: F64, first: Scalar, last: Scalar) -> None:
    """Sum of the squared weights of each neuron, in the order of its inputs."""
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        total = 0.0
        for k in range(weight.shape[0]):
            w = np.float64(weight[k, i])
            total += w * w
        out_norms[i] = total


@cuda_kernel(threads=128)
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
        for k in range(weight.shape[0]):
            out_gradient[k, i] += factor * weight[k, i]


@cuda_kernel(threads=128)
def limit_norms(norms: F64, largest: Scalar, weight: F32, first: Scalar, last: Scalar) -> None:
    """Scale the weights of neurons first:last whose norm exceeds ``largest`` back to it."""
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        factor = np.float32(norm_factor(norms[i], largest))
        for k in range(weight.shape[0]):
            weight[k, i] *= factor


@cuda_kernel(threads=256)
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


@cuda_kernel(threads=128)
def raise_thresholds(floor: F32, threshold: F32, first: Scalar, last: Scalar) -> None:
    """Raise the thresholds of neurons first:last that are below ``floor`` to it; see the CPU twin."""
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        threshold[i] = larger(threshold[i], floor[i])
