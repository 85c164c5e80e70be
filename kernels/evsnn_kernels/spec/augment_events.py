"""Random distortion of a recording, event by event (docs/model.md, S21)."""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import Scalar
from evsnn_kernels.spec.random import scaled


@physics
def turn(half_tangent: Scalar) -> tuple[Scalar, Scalar]:
    """S21. Cosine and sine of an angle from the tangent of its half, in correctly rounded arithmetic."""
    square = half_tangent * half_tangent
    below = np.float32(1.0) + square
    return (np.float32(1.0) - square) / below, (half_tangent + half_tangent) / below


@physics
def mapped(along: Scalar, across: Scalar, own: Scalar, other: Scalar, origin: Scalar) -> Scalar:
    """S21. One coordinate under the linear map: a row of its matrix times (along, across), plus origin."""
    return own * along + other * across + origin


@physics
def at_pixel(coordinate: Scalar, uniform: Scalar) -> Scalar:
    """S21. One of the two nearest pixels, the nearer with the higher probability; whole numbers stay."""
    low = math.floor(coordinate)
    share = coordinate - np.float32(low)
    return np.int64(low) + (1 if uniform < share else 0)


@physics
def window_start(word: Scalar, window: Scalar, duration: Scalar) -> Scalar:
    """S21. When a window of a presentation opens, any whole microsecond being as likely; 0 without one."""
    return scaled(word, duration - window + 1) if window > 0 else 0


@physics
def stretched(time: Scalar, factor: Scalar) -> Scalar:
    """S21. Time on a stretched axis, rounded down: what was sorted stays sorted."""
    return np.int64(np.float64(time) * factor)


@physics
def jittered(time: Scalar, word: Scalar, jitter: Scalar) -> Scalar:
    """S21. Time moved by -jitter to +jitter whole microseconds, all equally likely."""
    return time + scaled(word, 2 * jitter + 1) - jitter
