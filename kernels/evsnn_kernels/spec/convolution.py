"""Which places of a convolution an input reaches (docs/model.md, S18)."""

from __future__ import annotations

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import Scalar


@physics
def first_place(position: Scalar, kernel: Scalar, padding: Scalar, stride: Scalar) -> Scalar:
    """S18. Lowest output coordinate whose kernel covers input coordinate ``position``."""
    return max(position + padding - kernel + stride, 0) // stride


@physics
def last_place(position: Scalar, padding: Scalar, stride: Scalar, size: Scalar) -> Scalar:
    """S18. Highest output coordinate, of ``size``, whose kernel covers it; below the first if none does."""
    return min((position + padding) // stride, size - 1)


@physics
def offset(position: Scalar, place: Scalar, padding: Scalar, stride: Scalar) -> Scalar:
    """S18. Kernel coordinate through which input ``position`` reaches output coordinate ``place``."""
    return position + padding - place * stride


@physics
def target(position: Scalar, kernel_offset: Scalar, padding: Scalar, stride: Scalar, size: Scalar) -> Scalar:
    """S18. Output coordinate that input ``position`` reaches through a kernel coordinate; -1 if none."""
    reached = position + padding - kernel_offset
    if reached < 0:
        return -1
    if stride > 1:
        if reached % stride != 0:
            return -1
        reached //= stride
    return reached if reached < size else -1


@physics
def origin(place: Scalar, kernel_offset: Scalar, padding: Scalar, stride: Scalar) -> Scalar:
    """S18. Input coordinate under a kernel coordinate of output coordinate ``place``; may lie outside."""
    return place * stride + kernel_offset - padding


@physics
def reached(
    unit: Scalar,
    height: Scalar,
    width: Scalar,
    kernel: Scalar,
    stride: Scalar,
    padding: Scalar,
    out_height: Scalar,
    out_width: Scalar,
) -> Scalar:
    """S18. Of an input: channel, y, x, and the first and last row and column of the places it reaches."""
    row = unit // width
    channel = row // height
    x = unit - row * width
    y = row - channel * height
    return (
        channel,
        y,
        x,
        first_place(y, kernel, padding, stride),
        last_place(y, padding, stride, out_height),
        first_place(x, kernel, padding, stride),
        last_place(x, padding, stride, out_width),
    )
