"""Sums of gradients over a batch, each in the order of the samples (docs/model.md, S8).

One thread adds up one gradient, so the sums have the bits of the CPU's.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, int32

from evsnn_kernels.cuda.block import MAX_THREADS, summed
from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import F32, Scalar


@cuda_kernel(threads=128)
def gradient_scales(
    activity: F32,
    n_out: Scalar,
    normalise: Scalar,
    out_weight_scale: F32,
    out_threshold_scale: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Factor of each sample's gradients; a block a sample.

    See :func:`evsnn_kernels.cpu.gradient.gradient_scales`.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n_samples, n_in = activity.shape
    partial = cuda.shared.array(MAX_THREADS, int32)
    share = np.float32(1.0) / np.float32(n_samples)
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        mine = np.int32(0)
        if normalise != 0:
            for k in range(thread, n_in, threads):
                if activity[s, k] > np.float32(0.0):
                    mine += np.int32(1)
        partial[thread] = mine
        cuda.syncthreads()
        if thread == 0:
            out_weight_scale[s] = share
            out_threshold_scale[s] = share
            if normalise != 0:
                active = summed(partial, threads)
                ratio = np.float32(n_out) / np.float32(active if active > 0 else 1)
                out_weight_scale[s] = share * np.float32(math.sqrt(ratio))
                out_threshold_scale[s] = share * np.float32(math.sqrt(ratio / np.float32(n_in)))
        cuda.syncthreads()


@cuda_kernel(threads=128)
def weight_gradient(
    activity: F32, delta: F32, scale: F32, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """Gradient of the weights of input rows first:last; a block a row.

    See :func:`evsnn_kernels.cpu.gradient.weight_gradient`.
    """
    n_samples, n_out = delta.shape
    for k in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        for i in range(cuda.threadIdx.x, n_out, cuda.blockDim.x):
            total = np.float32(0.0)
            for s in range(n_samples):
                x = activity[s, k]
                if x != np.float32(0.0):
                    factor = x * scale[s]
                    total += factor * delta[s, i]
            out_gradient[k, i] = total


@cuda_kernel(threads=128)
def threshold_gradient(
    threshold_delta: F32, scale: F32, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """Gradient of the thresholds of neurons first:last; a thread a neuron.

    See :func:`evsnn_kernels.cpu.gradient.threshold_gradient`.
    """
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        total = np.float32(0.0)
        for s in range(threshold_delta.shape[0]):
            total += scale[s] * threshold_delta[s, i]
        out_gradient[i] = total
