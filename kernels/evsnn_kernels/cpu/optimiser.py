"""Parameter updates (docs/model.md, S11). Ranges are rows of a matrix; thresholds come as one row."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import F32, I32, Scalar
from evsnn_kernels.spec.optimiser import adam_change, momentum_velocity, running_mean, stepped


@cpu_kernel
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
    """Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019).

    Parameters
    ----------
    gradient : float32 (n_rows, n)
    rate, keep : float32
        Learning rate, and 1 - rate * weight decay.
    keep_mean, keep_square : float32
        beta_1, beta_2.
    mean_scale, square_scale : float32
        1 / (1 - beta^step) of both moments.
    epsilon : float32
    mean, square : float32 (n_rows, n)
        Moments, updated.
    value : float32 (n_rows, n)
        Parameters, updated.
    """
    n = value.shape[1]
    for k in range(first, last):
        for i in range(n):
            g = gradient[k, i]
            m = running_mean(mean[k, i], g, keep_mean)
            v = running_mean(square[k, i], g * g, keep_square)
            mean[k, i] = m
            square[k, i] = v
            change = adam_change(m, v, mean_scale, square_scale, epsilon)
            value[k, i] = stepped(value[k, i], change, rate, keep)


@cpu_kernel
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
    """Stochastic gradient descent with momentum and decoupled weight decay; arrays as in ``adam_step``."""
    n = value.shape[1]
    for k in range(first, last):
        for i in range(n):
            v = momentum_velocity(velocity[k, i], gradient[k, i], momentum)
            velocity[k, i] = v
            value[k, i] = stepped(value[k, i], v, rate, keep)


@cpu_kernel
def divide_by_threshold(
    weight: F32, threshold: F32, gain: Scalar, out_weight: F32, first: Scalar, last: Scalar
) -> None:
    """Weights in units of the receiving neuron's threshold, times the weight of an input event (S1, S19)."""
    for k in range(first, last):
        for i in range(weight.shape[1]):
            out_weight[k, i] = weight[k, i] / threshold[i] * gain


@cpu_kernel
def count_not_finite(value: F32, out_count: I32, first: Scalar, last: Scalar) -> None:
    """Count the values of every row that are infinite or NaN.

    Parameters
    ----------
    value : float32 (n_rows, n)
    out_count : int32 (n_rows,)
    """
    largest = np.float32(3.4028235e38)
    for k in range(first, last):
        count = np.int32(0)
        for i in range(value.shape[1]):
            # A comparison that NaN fails, too; counted in 32 bits, so that it becomes vectors.
            count = np.int32(count + (np.int32(0) if abs(value[k, i]) <= largest else np.int32(1)))
        out_count[k] = count
