"""Sums of gradients over a batch, each in the order of the samples (docs/model.md, S8).

Work is split by rows (weights) or columns (thresholds), never by samples, so the sums have the same bits
for any number of threads.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from evsnn_kernels.cpu.vector import load_32, store_32
from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import F32, Scalar

#: Neurons whose sums stay in registers over a batch.
_TILE: Final = 32
#: Rows that are summed up while a tile of the errors of a batch is in the first-level cache.
_BLOCK: Final = 16


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
    errors = delta.reshape(-1)
    sums = out_gradient.reshape(-1)
    tiled = n_out // _TILE * _TILE
    # Of each row of a block: the samples it is active in, and what their errors are multiplied by.
    samples = np.empty((_BLOCK, n_samples), np.uint32)
    factors = np.empty((_BLOCK, n_samples), np.float32)
    active = np.empty(_BLOCK, np.int64)
    for begin in range(first, last, _BLOCK):
        rows = min(_BLOCK, last - begin)
        for row in range(rows):
            k = begin + row
            found = np.uint64(0)
            for s in range(n_samples):
                x = activity[s, k]
                samples[row, found] = s
                factors[row, found] = x * scale[s]
                found += np.uint64(x != np.float32(0.0))  # no branch: none could be foreseen
            active[row] = np.int64(found)
            for i in range(n_out):
                out_gradient[k, i] = np.float32(0.0)
        for base in range(0, tiled, _TILE):
            for row in range(rows):
                at = (begin + row) * n_out + base
                total = load_32(sums, at)
                for j in range(active[row]):
                    error = load_32(errors, np.int64(samples[row, j]) * n_out + base)
                    total = total + error * factors[row, j]
                store_32(sums, at, total)
        for row in range(rows):
            for j in range(active[row]):
                for i in range(tiled, n_out):
                    out_gradient[begin + row, i] += factors[row, j] * delta[samples[row, j], i]


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
