"""Random distortion of an image before its events are drawn (docs/model.md, S13)."""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import F32, U8, Scalar


@physics
def signed_unit(uniform: Scalar) -> Scalar:
    """S13. A number uniform in [-1, 1) from one uniform in [0, 1)."""
    return np.float32(2.0) * uniform - np.float32(1.0)


@physics
def interpolated(low: Scalar, high: Scalar, share: Scalar) -> Scalar:
    """S13. Linear interpolation between two values."""
    return low + share * (high - low)


@physics
def grid_value(grid: F32, y: Scalar, x: Scalar) -> Scalar:
    """S13. Bilinear value of a square grid of numbers at (y, x), inside the grid."""
    last = grid.shape[0] - 2
    j = min(int(y), last)
    i = min(int(x), last)
    upper = interpolated(grid[j, i], grid[j, i + 1], x - np.float32(i))
    lower = interpolated(grid[j + 1, i], grid[j + 1, i + 1], x - np.float32(i))
    return interpolated(upper, lower, y - np.float32(j))


@physics
def pixel_value(image: U8, y: Scalar, x: Scalar) -> Scalar:
    """S13. Bilinear intensity at (y, x); outside the image it is 0."""
    height, width = image.shape
    # The floor of a float is an integer on the CPU and a float on CUDA.
    j = np.int64(math.floor(y))
    i = np.int64(math.floor(x))
    if j < -1 or i < -1 or j >= height or i >= width:
        return np.float32(0.0)
    v00 = np.float32(image[j, i]) if j >= 0 and i >= 0 else np.float32(0.0)
    v01 = np.float32(image[j, i + 1]) if j >= 0 and i + 1 < width else np.float32(0.0)
    v10 = np.float32(image[j + 1, i]) if j + 1 < height and i >= 0 else np.float32(0.0)
    v11 = np.float32(image[j + 1, i + 1]) if j + 1 < height and i + 1 < width else np.float32(0.0)
    share = x - np.float32(i)
    upper = interpolated(v00, v01, share)
    lower = interpolated(v10, v11, share)
    return interpolated(upper, lower, y - np.float32(j))
