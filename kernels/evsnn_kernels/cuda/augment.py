"""Random distortion of images, drawn anew for every sample and epoch (docs/model.md, S13)."""

from __future__ import annotations

import numpy as np
from numba import cuda, float32

from evsnn_kernels.cpu.augment import GRID
from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import I64, PURPOSE_AUGMENT, U8, Scalar
from evsnn_kernels.spec.image import grid_value, pixel_value, signed_unit
from evsnn_kernels.spec.random import philox, unit_interval


@cuda_kernel(threads=256)
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
    """Shift, rotate, shear, scale and bend images ``images[rows[s]]``; a block a sample.

    See :func:`evsnn_kernels.cpu.augment.distort`. Every thread draws the map for itself, and its share of
    the elastic grid.
    """
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    _, height, width = images.shape
    grid_y = cuda.shared.array((GRID, GRID), float32)
    grid_x = cuda.shared.array((GRID, GRID), float32)
    one = np.float32(1.0)
    centre_y = np.float32(height - 1) * np.float32(0.5)
    centre_x = np.float32(width - 1) * np.float32(0.5)
    step_y = np.float32(GRID - 1) / np.float32(max(height - 1, 1))
    step_x = np.float32(GRID - 1) / np.float32(max(width - 1, 1))
    for s in range(first + cuda.blockIdx.x, last, cuda.gridDim.x):
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
            for node in range(thread, GRID * GRID, threads):
                a, b, _, _ = philox(2 + node, sample[s], epoch, PURPOSE_AUGMENT, key_low, key_high)
                grid_y[node // GRID, node % GRID] = elastic * signed_unit(unit_interval(a))
                grid_x[node // GRID, node % GRID] = elastic * signed_unit(unit_interval(b))
        cuda.syncthreads()
        for pixel in range(thread, height * width, threads):
            y = pixel // width
            x = pixel % width
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
        cuda.syncthreads()
