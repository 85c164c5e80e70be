"""One pixel of an event camera that watches a moving image (docs/model.md, S20)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import F32, Scalar
from evsnn_kernels.spec.image import interpolated
from evsnn_kernels.spec.random import unit_interval


@physics
def triangular(first: Scalar, second: Scalar) -> Scalar:
    """S20. A random number of mean 0 and standard deviation 1 from two random words, within +-sqrt(6)."""
    return np.float32(2.44948974) * (unit_interval(first) + unit_interval(second) - np.float32(1.0))


@physics
def mixed(both: Scalar, own: Scalar) -> Scalar:
    """S20. Deviation of one polarity, 0.81 of its variance shared by the two of a pixel."""
    return np.float32(0.9) * both + np.float32(0.43588989) * own


@physics
def deviating(threshold: Scalar, deviation: Scalar, normal: Scalar) -> Scalar:
    """S20. A threshold that deviates from its nominal value by a share of it."""
    return threshold * (np.float32(1.0) + deviation * normal)


@physics
def log_luminance(table: F32, grey: Scalar) -> Scalar:
    """S20. Logarithm of the luminance of a grey level, linear between whole grey levels."""
    low = min(max(int(grey), 0), table.shape[0] - 2)
    return interpolated(table[low], table[low + 1], grey - np.float32(low))


@physics
def low_pass(before: Scalar, target: Scalar, share: Scalar) -> Scalar:
    """S20. The photoreceptor after one step towards its input."""
    return before + share * (target - before)


@physics
def first_reference(level: Scalar, on: Scalar, off: Scalar, uniform: Scalar) -> Scalar:
    """S20. Reference of a pixel at the start: evenly between the levels that would fire it."""
    return level + off - uniform * (on + off)


@physics
def level_at(low: Scalar, high: Scalar, elapsed: Scalar, step: Scalar) -> Scalar:
    """S20. Level some microseconds into a step in which it goes straight from low to high."""
    return interpolated(low, high, np.float32(elapsed) / np.float32(step))


@physics
def crossing(low: Scalar, high: Scalar, level: Scalar, step: Scalar) -> Scalar:
    """S20. Whole microseconds into the step until the level is reached."""
    return np.int64((level - low) / (high - low) * np.float32(step))
