"""Sums of gradients over a batch, each in the order of the samples (docs/model.md, S8).

Work is split by rows (weights) or columns (thresholds), never by samples, so the sums have the same bits
for any number of threads.
"""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import F32, Scalar


@cpu_kernel
def gradient_scales(
    activity: F32,
    n_out: Scalar,
    normalise: Scalar,
    out_weight_scale: F32,
    out_threshold_scale: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Factor of each sample's gradients: 1 / batch size, times sqrt(N/m) and sqrt(N/(m M)) if normalised.

    Parameters
    ----------
    activity : float32 (n_samples, n_in)
        Input activity of the layer; M = n_in, m of them are active.
    n_out : int64
        Neurons of the layer, N.
    normalise : int64
        1 or 0.
    out_weight_scale, out_threshold_scale : float32 (n_samples,)
    """
    n_samples, n_in = activity.shape
    share = np.float32(1.0) / np.float32(n_samples)
    for s in range(first, last):
        out_weight_scale[s] = share
        out_threshold_scale[s] = share
        if normalise != 0:
            active = np.int32(0)
            for k in range(n_in):
                active = np.int32(active + (np.int32(1) if activity[s, k] > np.float32(0.0) else np.int32(0)))
            ratio = np.float32(n_out) / np.float32(active if active > 0 else 1)
            out_weight_scale[s] = share * np.float32(math.sqrt(ratio))
            out_threshold_scale[s] = share * np.float32(math.sqrt(ratio / np.float32(n_in)))


@cpu_kernel
def weight_gradient(
    activity: F32, delta: F32, scale: F32, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """out_gradient[k, i] = sum_s scale[s] activity[s, k] delta[s, i] for input rows k in first:last.

    Parameters
    ----------
    activity : float32 (n_samples, n_in)
    delta : float32 (n_samples, n_out)
    scale : float32 (n_samples,)
    out_gradient : float32 (n_in, n_out)
        Overwritten in rows first:last.
    """
    n_samples, n_out = delta.shape
    for k in range(first, last):
        for i in range(n_out):
            out_gradient[k, i] = np.float32(0.0)
        for s in range(n_samples):
            x = activity[s, k]
            if x != np.float32(0.0):
                factor = x * scale[s]
                for i in range(n_out):
                    out_gradient[k, i] += factor * delta[s, i]


@cpu_kernel
def threshold_gradient(
    threshold_delta: F32, scale: F32, out_gradient: F32, first: Scalar, last: Scalar
) -> None:
    """out_gradient[i] = sum_s scale[s] threshold_delta[s, i] for neurons i in first:last."""
    for i in range(first, last):
        out_gradient[i] = np.float32(0.0)
    for s in range(threshold_delta.shape[0]):
        factor = scale[s]
        for i in range(first, last):
            out_gradient[i] += factor * threshold_delta[s, i]
