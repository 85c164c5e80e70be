"""Which place of a convolution an input reaches (docs/model.md, S18)."""

from __future__ import annotations

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import Scalar


@physics
def target(position: Scalar, offset: Scalar, padding: Scalar, stride: Scalar, size: Scalar) -> Scalar:
    """S18. Output coordinate that input ``position`` reaches through kernel ``offset``; -1 if none."""
    reached = position + padding - offset
    if reached < 0 or reached % stride != 0:
        return -1
    reached //= stride
    return reached if reached < size else -1


@physics
def origin(place: Scalar, offset: Scalar, padding: Scalar, stride: Scalar) -> Scalar:
    """S18. Input coordinate under kernel ``offset`` of output coordinate ``place``; may lie outside."""
    return place * stride + offset - padding
