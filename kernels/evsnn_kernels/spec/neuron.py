"""Membrane of one neuron, in units of its threshold (docs/model.md, S2 to S5)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import larger, physics
from evsnn_kernels.layout import F32, Scalar

#: Of every neuron, in the unit of its membrane potential.
THRESHOLD = np.float32(1.0)


@physics
def decay_factor(dt: Scalar, decay_high: F32, decay_low: F32) -> Scalar:
    """S2. Fraction of the membrane potential that is left after ``dt`` microseconds, from the two tables."""
    return decay_high[min(dt >> 10, decay_high.shape[0] - 1)] * decay_low[dt & 1023]


@physics
def decayed(potential: Scalar, factor: Scalar) -> Scalar:
    """S2. Membrane potential after a decay."""
    return potential * factor


@physics
def received(potential: Scalar, weight: Scalar) -> Scalar:
    """S3. Membrane potential after one input event."""
    return potential + weight


@physics
def refractory_weight(since_spike: Scalar, refractory: Scalar) -> Scalar:
    """S3. Dynamic weight w_dyn = (dt / T_ref)^2, both in microseconds, for dt < T_ref."""
    ratio = np.float32(since_spike) / np.float32(refractory)
    return ratio * ratio


@physics
def clamped(potential: Scalar, floor: Scalar) -> Scalar:
    """S4. Membrane potential held at or above the lower clamp."""
    return larger(potential, floor)


@physics
def reaches(potential: Scalar) -> Scalar:
    """S5. Whether the membrane potential has reached the threshold, which is 1."""
    return potential >= THRESHOLD


@physics
def reset(potential: Scalar) -> Scalar:
    """S5. Soft reset: the threshold is subtracted, the surplus stays."""
    return potential - THRESHOLD


@physics
def inhibition(others: Scalar, kappa: Scalar) -> Scalar:
    """S6. Change of the potential when ``others`` neurons of the WTA group fired."""
    return np.float32(others) * kappa
