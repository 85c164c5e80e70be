"""One step of one parameter (docs/model.md, S11)."""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import Scalar


@physics
def flushed(value: Scalar) -> Scalar:
    """S11. Values that would soon be denormal become zero: denormal arithmetic is many times slower.

    NaN stays: it must not pass for a zero.
    """
    return np.float32(0.0) if abs(value) <= np.float32(1e-30) else value


@physics
def running_mean(mean: Scalar, value: Scalar, keep: Scalar) -> Scalar:
    """S11. Exponential moving average, flushed."""
    return flushed(keep * mean + (np.float32(1.0) - keep) * value)


@physics
def adam_change(
    mean: Scalar, square: Scalar, mean_scale: Scalar, square_scale: Scalar, epsilon: Scalar
) -> Scalar:
    """S11. Adam's step in units of the learning rate, moments corrected for their start at zero."""
    return mean * mean_scale / (np.float32(math.sqrt(square * square_scale)) + epsilon)


@physics
def momentum_velocity(velocity: Scalar, gradient: Scalar, momentum: Scalar) -> Scalar:
    """S11. Velocity of stochastic gradient descent with momentum, flushed."""
    return flushed(momentum * velocity + gradient)


@physics
def stepped(value: Scalar, change: Scalar, rate: Scalar, keep: Scalar) -> Scalar:
    """S11. Parameter after a step; ``keep`` = 1 - rate * decay is the decoupled weight decay."""
    return value * keep - rate * change
