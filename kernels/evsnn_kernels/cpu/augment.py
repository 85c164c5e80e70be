"""Random distortion of images, drawn anew for every sample and epoch (docs/model.md, S13)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import I64, PURPOSE_AUGMENT, U8, Scalar
from evsnn_kernels.spec.image import grid_value, pixel_value, signed_unit
from evsnn_kernels.spec.random import philox, unit_interval

#: Nodes of the elastic displacement grid along each side of the image.
GRID = 5


@cpu_kernel
def distort(
    images: U8,
    rows: I64,
    sample: I64,
    shift: Scalar,
    shear: Scalar,
    scale: Scalar,
    elastic: Scalar,
    key_low: Scalar,
    key_high: Scalar,
    epoch: Scalar,
    out_images: U8,
    first: Scalar,
    last: Scalar,
) -> None:
    """Shift, rotate, shear, scale and bend images ``images[rows[s]]`` for s in first:last.

    Parameters
    ----------
    images : uint8 (n, H, W)
    rows : int64 (n_samples,)
        Index of each image.
    sample : int64 (n_samples,)
        Counter of its random numbers.
    shift : float32
        Largest shift in pixels, each axis.
    shear : float32
        Largest off-diagonal entry of the linear map: rotation and shear.
    scale : float32
        Largest relative change of size, each axis.
    elastic : float32
        Largest displacement of a node of the elastic grid, in pixels.
    key_low, key_high, epoch : uint64
        Seed and epoch of the random numbers.
    out_images : uint8 (n_samples, H, W)
    """
    _, height, width = images.shape
    one = np.float32(1.0)
    centre_y = np.float32(height - 1) * np.float32(0.5)
    centre_x = np.float32(width - 1) * np.float32(0.5)
    grid_y = np.zeros((GRID, GRID), np.float32)
    grid_x = np.zeros((GRID, GRID), np.float32)
    step_y = np.float32(GRID - 1) / np.float32(max(height - 1, 1))
    step_x = np.float32(GRID - 1) / np.float32(max(width - 1, 1))
    for s in range(first, last):
        image = images[rows[s]]
        a, b, c, d = philox(0, sample[s], epoch, PURPOSE_AUGMENT, key_low, key_high)
        e, f, _, _ = philox(1, sample[s], epoch, PURPOSE_AUGMENT, key_low, key_high)
        shift_y = centre_y + shift * signed_unit(unit_interval(a))
        shift_x = centre_x + shift * signed_unit(unit_interval(b))
        yy = one + scale * signed_unit(unit_interval(c))
        xx = one + scale * signed_unit(unit_interval(d))
        yx = shear * signed_unit(unit_interval(e))
        xy = shear * signed_unit(unit_interval(f))
        if elastic > np.float32(0.0):
            for j in range(GRID):
                for i in range(GRID):
                    a, b, _, _ = philox(
                        2 + j * GRID + i, sample[s], epoch, PURPOSE_AUGMENT, key_low, key_high
                    )
                    grid_y[j, i] = elastic * signed_unit(unit_interval(a))
                    grid_x[j, i] = elastic * signed_unit(unit_interval(b))
        for y in range(height):
            for x in range(width):
                from_y = np.float32(y) - centre_y
                from_x = np.float32(x) - centre_x
                source_y = yy * from_y + yx * from_x + shift_y
                source_x = xy * from_y + xx * from_x + shift_x
                if elastic > np.float32(0.0):
                    node_y = np.float32(y) * step_y
                    node_x = np.float32(x) * step_x
                    source_y += grid_value(grid_y, node_y, node_x)
                    source_x += grid_value(grid_x, node_y, node_x)
                value = pixel_value(image, source_y, source_x)
                out_images[s, y, x] = np.uint8(value + np.float32(0.5))
