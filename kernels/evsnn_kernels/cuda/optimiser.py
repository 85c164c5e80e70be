"""Parameter updates (docs/model.md, S11). Ranges are rows of a matrix; thresholds come as one row.

A block a row, a thread a parameter.
"""

from __future__ import annotations

import numpy as np
from numba import cuda, int32

from evsnn_kernels.cuda.block import MAX_THREADS, summed
from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import F32, I32, Scalar
from evsnn_kernels.spec.optimiser import adam_change, momentum_velocity, running_mean, stepped


@cuda_kernel(threads=128)
def adam_step(
    gradient: F32,
    rate: Scalar,
    keep: Scalar,
    keep_mean: Scalar,
    keep_square: Scalar,
    mean_scale: Scalar,
    square_scale: Scalar,
    epsilon: Scalar,
    mean: F32,
    square: F32,
    value: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Adam with decoupled weight decay; see :func:`evsnn_kernels.cpu.optimiser.adam_step`."""
    for k in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        for i in range(cuda.threadIdx.x, value.shape[1], cuda.blockDim.x):
            g = gradient[k, i]
            m = running_mean(mean[k, i], g, keep_mean)
            v = running_mean(square[k, i], g * g, keep_square)
            mean[k, i] = m
            square[k, i] = v
            change = adam_change(m, v, mean_scale, square_scale, epsilon)
            value[k, i] = stepped(value[k, i], change, rate, keep)


@cuda_kernel(threads=128)
def sgd_step(
    gradient: F32,
    rate: Scalar,
    keep: Scalar,
    momentum: Scalar,
    velocity: F32,
    value: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Gradient descent with momentum; see :func:`evsnn_kernels.cpu.optimiser.sgd_step`."""
    for k in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        for i in range(cuda.threadIdx.x, value.shape[1], cuda.blockDim.x):
            v = momentum_velocity(velocity[k, i], gradient[k, i], momentum)
            velocity[k, i] = v
            value[k, i] = stepped(value[k, i], v, rate, keep)


@cuda_kernel(threads=128)
def divide_by_threshold(
    weight: F32, threshold: F32, gain: Scalar, out_weight: F32, first: Scalar, last: Scalar
) -> None:
    """Weights in units of the receiving neuron's threshold, times the weight of an input event (S1, S19)."""
    for k in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        for i in range(cuda.threadIdx.x, weight.shape[1], cuda.blockDim.x):
            out_weight[k, i] = weight[k, i] / threshold[i] * gain


@cuda_kernel(threads=128)
def count_not_finite(value: F32, out_count: I32, first: Scalar, last: Scalar) -> None:
    """Count the values of every row that are infinite or NaN; a block a row."""
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    partial = cuda.shared.array(MAX_THREADS, int32)
    for k in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
        mine = np.int32(0)
        for i in range(thread, value.shape[1], threads):
            if not abs(value[k, i]) <= np.float32(3.4028235e38):
                mine += np.int32(1)
        partial[thread] = mine
        cuda.syncthreads()
        if thread == 0:
            out_count[k] = summed(partial, threads)
        cuda.syncthreads()
