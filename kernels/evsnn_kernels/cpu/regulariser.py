"""Regularisers of the weights and thresholds of a layer (docs/model.md, S10). Ranges are neurons."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import cpu_kernel, larger
from evsnn_kernels.layout import F32, F64, Scalar
from evsnn_kernels.spec.learning import norm_factor, norm_penalty


@cpu_kernel
def squared_norms(weight: F32, out_norms: F64, first: Scalar, last: Scalar) -> None:
    """Sum of the squared weights of each neuron, in the order of its inputs."""
    for i in range(first, last):
        out_norms[i] = 0.0
    for k in range(weight.shape[0]):
        for i in range(first, last):
            w = np.float64(weight[k, i])
            out_norms[i] += w * w


@cpu_kernel
def add_norm_penalty(
    weight: F32,
    norms: F64,
    strength: Scalar,
    steepness: Scalar,
    out_gradient: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Add the gradient of strength/2 exp(steepness (|w_i|^2 - 1)) of neurons first:last."""
    factor = np.empty(last - first, np.float32)
    for i in range(first, last):
        factor[i - first] = np.float32(norm_penalty(norms[i], strength, steepness))
    for k in range(weight.shape[0]):
        for i in range(first, last):
            out_gradient[k, i] += factor[i - first] * weight[k, i]


@cpu_kernel
def limit_norms(norms: F64, largest: Scalar, weight: F32, first: Scalar, last: Scalar) -> None:
    """Scale the weights of neurons first:last whose norm exceeds ``largest`` back to it."""
    factor = np.empty(last - first, np.float32)
    for i in range(first, last):
        factor[i - first] = np.float32(norm_factor(norms[i], largest))
    for k in range(weight.shape[0]):
        for i in range(first, last):
            weight[k, i] *= factor[i - first]


@cpu_kernel
def balance_thresholds(activity: F32, rate: Scalar, threshold: F32, first: Scalar, last: Scalar) -> None:
    """Raise the thresholds of neurons that fired, lower all: mean over the batch.

    Parameters
    ----------
    activity : float32 (n_samples, n)
    rate : float32
        rho; a neuron that fired gains rho n, then all lose rho times the number that fired.
    threshold : float32 (n,)
        Updated.
    """
    n_samples, n = activity.shape
    fired_total = 0
    for s in range(n_samples):
        for i in range(n):
            if activity[s, i] > np.float32(0.0):
                fired_total += 1
    for i in range(first, last):
        fired = 0
        for s in range(n_samples):
            if activity[s, i] > np.float32(0.0):
                fired += 1
        change = np.float32(np.int64(n) * fired - fired_total) / np.float32(n_samples)
        threshold[i] = threshold[i] + rate * change


@cpu_kernel
def raise_thresholds(floor: F32, threshold: F32, first: Scalar, last: Scalar) -> None:
    """Raise the thresholds of neurons first:last that are below ``floor``, float32 (n,), to it.

    NaN stays: it must not pass for a threshold.
    """
    for i in range(first, last):
        threshold[i] = larger(threshold[i], floor[i])
