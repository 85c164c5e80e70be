"""Activities, errors, gradients and regularisers of one neuron (docs/model.md, S7 to S10)."""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.jit import physics, smaller
from evsnn_kernels.layout import Scalar


@physics
def lateral_inverse(value: Scalar, total: Scalar, coupling: Scalar, active: Scalar) -> Scalar:
    """S7. One entry of (I - sigma K)^-1 applied to a vector, coupling = sigma * kappa.

    ``total`` is the sum of the vector over the ``active`` neurons of the WTA group.
    """
    one = np.float32(1.0)
    shared = coupling / (one - coupling * np.float32(active - 1))
    return (value + shared * total) / (one + coupling)


@physics
def effective_activity(own: Scalar, total: Scalar, coupling: Scalar) -> Scalar:
    """S7. V_th times the derivative of s / V_th by V_th: -a_i + sigma kappa sum_{j != i} a_j."""
    return coupling * (total - own) - own


@physics
def output_logit(count: Scalar, potential: Scalar) -> Scalar:
    """S9. Output spike count plus half the residual membrane potential, in float64."""
    return np.float64(count) + 0.5 * np.float64(potential)


@physics
def portable_exp(x: Scalar) -> Scalar:
    """S9. exp(x) in float64 for x <= 700, the same bits on every machine.

    x = k ln 2 + r, |r| <= ln 2 / 2; Taylor series of degree 13 (error below 1e-17), scaled exactly.
    """
    if x < -700.0:
        return 0.0
    k = math.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
    total = 1.0
    for n in range(13, 0, -1):
        total = 1.0 + r * total / n
    return math.ldexp(total, int(k))


@physics
def norm_factor(squared_norm: Scalar, largest: Scalar) -> Scalar:
    """S10. Factor that scales weights whose norm exceeds ``largest`` back to it; 1 for all others."""
    norm = math.sqrt(squared_norm)
    return largest / norm if norm > largest else 1.0


@physics
def norm_penalty(squared_norm: Scalar, strength: Scalar, steepness: Scalar) -> Scalar:
    """S10. Factor of w in the gradient of strength/2 exp(steepness (|w|^2 - 1)); the exponent ends at 20."""
    exponent = steepness * (squared_norm - 1.0)
    return strength * steepness * portable_exp(smaller(exponent, 20.0))
