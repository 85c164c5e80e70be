"""Events, pixels and noise of a recording (docs/model.md, S17)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import Scalar


@physics
def event_time(third: Scalar, fourth: Scalar, fifth: Scalar) -> Scalar:
    """S17. Microseconds: the last 23 of an event's 40 bits."""
    return (np.int64(third & 127) << 16) | (np.int64(fourth) << 8) | np.int64(fifth)


@physics
def event_polarity(third: Scalar) -> Scalar:
    """S17. 1 where the pixel became brighter, 0 where it became darker: the bit before the time."""
    return np.int64(third >> 7)


@physics
def pixel_ready(time: Scalar, last: Scalar, period: Scalar) -> Scalar:
    """S17. Whether the refractory filter lets an event pass that follows the last one of its pixel."""
    return time - last >= period


@physics
def noise_time(segment: Scalar, word: Scalar) -> Scalar:
    """S17. Time of a noise event: uniform among the 2^16 microseconds of its segment."""
    return (np.int64(segment) << 16) | np.int64(word >> np.uint64(16))
