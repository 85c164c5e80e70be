"""Number and times of the events of one pixel (docs/model.md, S12)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import Scalar


@physics
def stratified_count(intensity: Scalar, rate: Scalar, uniform: Scalar) -> Scalar:
    """S12. rate * I / 255 events, the fraction rounded up with its own probability."""
    return np.int64(np.float64(rate) * np.float64(intensity) / 255.0 + np.float64(uniform))


@physics
def stratified_time(slot: Scalar, slots: Scalar, offset: Scalar, duration: Scalar) -> Scalar:
    """S12. Time of the event in one of ``slots`` equal slots; ``offset`` is random in [0, duration)."""
    return (slot * duration + offset) // slots


@physics
def latency_time(intensity: Scalar, duration: Scalar) -> Scalar:
    """S12. The brighter, the earlier: 255 at time 0, 1 near the end."""
    return (255 - np.int64(intensity)) * (duration - 1) // 255


@physics
def on_grid(time: Scalar, resolution: Scalar) -> Scalar:
    """S12. Time rounded down to a multiple of the resolution."""
    return time // resolution * resolution
