"""Sums of gradients over a batch, each in the order of the samples (docs/model.md, S8).

One thread adds up one gradient, so the sums have the bits of the CPU's.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import cuda, float32, int32, uint32

from evsnn_kernels.cuda.block import MAX_THREADS, bits_below, summed
from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import F32, Scalar

#: Samples that a block lists at once, and the words of 32 bits that mark them.
_SAMPLES: Final = 256
_SAMPLE_WORDS: Final = 8


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


@cuda_kernel(threads=256)
def weight_gradient(
    activity: F32, delta: F32, scale: F32, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """Gradient of the weights of input rows first:last; a block a row.

    See :func:`evsnn_kernels.cpu.gradient.weight_gradient`. First the block lists the samples in which the
    input is active, in their order: then no thread meets a branch, and many errors are on their way at once.
    """
    samples = cuda.shared.array(_SAMPLES, uint32)
    factors = cuda.shared.array(_SAMPLES, float32)
    active = cuda.shared.array(_SAMPLE_WORDS, uint32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    n_samples, n_out = delta.shape
    for k in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        for begin in range(0, n_samples, _SAMPLES):
            size = min(_SAMPLES, n_samples - begin)
            for w in range(thread, _SAMPLE_WORDS, threads):
                active[w] = np.uint32(0)
            cuda.syncthreads()
            for t in range(thread, size, threads):
                if activity[begin + t, k] != np.float32(0.0):
                    cuda.atomic.or_(active, t >> 5, np.uint32(1 << (t & 31)))
            cuda.syncthreads()
            for t in range(thread, size, threads):
                x = activity[begin + t, k]
                if x != np.float32(0.0):
                    at = bits_below(active, t)
                    samples[at] = np.uint32(begin + t)
                    factors[at] = x * scale[begin + t]
            n_active = np.uint32(bits_below(active, _SAMPLES))
            cuda.syncthreads()
            i = np.uint32(thread)
            while i < np.uint32(n_out):
                total = np.float32(0.0)
                if begin > 0:
                    total = out_gradient[k, i]
                j = np.uint32(0)
                while j < n_active:
                    total += factors[j] * delta[samples[j], i]
                    j = np.uint32(j + 1)
                out_gradient[k, i] = total
                i = np.uint32(i + np.uint32(threads))


@cuda_kernel(threads=64, indices=64)
def threshold_gradient(
    threshold_delta: F32, scale: F32, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """Gradient of the thresholds of neurons first:last; a thread a neuron.

    See :func:`evsnn_kernels.cpu.gradient.threshold_gradient`.
    """
    for i in range(first + cuda.grid(1), last, cuda.gridsize(1)):
        total = np.float32(0.0)
        s = np.uint32(0)
        while s < np.uint32(threshold_delta.shape[0]):
            total += scale[s] * threshold_delta[s, i]
            s = np.uint32(s + 1)
        out_gradient[i] = total
