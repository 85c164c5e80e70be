"""Architecture strings, as papers write them: ``784-800-10``, ``28x28-20C5-P2-50C5-P2-200-10``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from evsnn.errors import SettingsError
from evsnn.layers.base import Shape
from evsnn.layers.conv import Conv2d
from evsnn.layers.pool import AveragePool

#: More neurons or inputs than this in one layer are taken for a typing error.
LARGEST = 1 << 24
_MOST_LAYERS = 1000
_LONGEST_TEXT = 20_000


@dataclass(frozen=True)
class LayerPlan:
    """One layer of an architecture.

    Parameters
    ----------
    kind : {"dense", "conv", "pool"}
    in_shape, out_shape : (C, H, W)
    kernel : int
        Kernel of a convolution, window of a pooling layer; 0 for dense.
    padding : int
    """

    kind: str
    in_shape: Shape
    out_shape: Shape
    kernel: int = 0
    padding: int = 0

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return math.prod(self.out_shape)


@dataclass(frozen=True)
class Architecture:
    """A parsed architecture string.

    Parameters
    ----------
    text : str
        The string itself.
    shape : (C, H, W)
        Shape of the input; a flat size n is (1, 1, n).
    layers : tuple of LayerPlan
        The output layer last.
    """

    text: str
    shape: Shape
    layers: tuple[LayerPlan, ...]

    @property
    def n_inputs(self) -> int:
        """Number of input units."""
        return math.prod(self.shape)

    @property
    def n_outputs(self) -> int:
        """Number of output neurons."""
        return self.layers[-1].n_out

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer."""
        return tuple(layer.n_out for layer in self.layers)

    @property
    def n_spiking(self) -> int:
        """Number of layers that have neurons."""
        return sum(layer.kind != "pool" for layer in self.layers)


def parse_architecture(text: str) -> Architecture:
    """Parse an architecture string.

    Raises
    ------
    SettingsError
        Naming the token at fault and the shape it met.
    """
    if len(text) > _LONGEST_TEXT or text.count("-") > _MOST_LAYERS:
        raise SettingsError(
            f"architecture {text[:40]!r}...: {len(text)} characters with {text.count('-')} layers; at most "
            f"{_LONGEST_TEXT} and {_MOST_LAYERS} are read"
        )
    tokens = text.strip().split("-")
    if len(tokens) < 2:
        raise SettingsError(
            f"architecture {text!r}: needs an input and at least one layer, such as 784-800-10"
        )
    shape = _input_shape(tokens[0], text)
    layers: list[LayerPlan] = []
    for place, token in enumerate(tokens[1:], start=2):
        layers.append(_layer(token, place, layers[-1].out_shape if layers else shape, text))
    if layers[-1].kind != "dense":
        raise SettingsError(
            f"architecture {text!r}: the last token, {tokens[-1]!r}, must be the number of classes, "
            "such as 10"
        )
    return Architecture(text.strip(), shape, tuple(layers))


def _input_shape(token: str, text: str) -> Shape:
    if not re.fullmatch(r"\d+|\d+x\d+(x\d+)?", token, flags=re.ASCII):
        raise SettingsError(
            f"architecture {text!r}: input {token!r} must be a size such as 784, "
            "or HxW or HxWxC such as 34x34x2"
        )
    numbers = [_bounded(number, token, text) for number in token.split("x")]
    if len(numbers) == 1:
        return 1, 1, numbers[0]
    height, width, *channels = numbers
    shape = (channels[0] if channels else 1, height, width)
    if math.prod(shape) > LARGEST:
        raise SettingsError(f"architecture {text!r}: input {token!r} has more than {LARGEST} units")
    return shape


def _layer(token: str, place: int, shape: Shape, text: str) -> LayerPlan:
    where = f"architecture {text!r}: token {place}, {token!r}"
    found = re.fullmatch(r"(\d+)|(\d+)C(\d+)(?:p(\d+))?|P(\d+)", token, flags=re.ASCII)
    if found is None:
        raise SettingsError(
            f"{where}: a layer is a number of neurons such as 800, a convolution such as 20C5 or 20C5p2, "
            "or a pooling such as P2"
        )
    dense, maps, kernel, padding, window = found.groups()
    if dense is not None:
        return LayerPlan("dense", shape, (_bounded(dense, token, text), 1, 1))
    size = _bounded(window or kernel, token, text)
    if window is not None:
        if size > min(shape[1:]):
            raise SettingsError(f"{where}: no {size}x{size} window fits its input of {_sizes(shape)}")
        return LayerPlan("pool", shape, AveragePool(shape, size).out_shape, size)
    n_maps = _bounded(maps, token, text)
    border = int(padding or "0") if len(padding or "") <= 9 else size
    if border >= size:
        raise SettingsError(f"{where}: the padding must be smaller than the kernel")
    if size > min(shape[1:]) + 2 * border:
        raise SettingsError(f"{where}: the {size}x{size} kernel does not fit its input of {_sizes(shape)}")
    out_shape = Conv2d.shape_after(shape, n_maps, size, 1, border)
    if math.prod(out_shape) > LARGEST:
        raise SettingsError(f"{where}: more than {LARGEST} neurons in one layer")
    return LayerPlan("conv", shape, out_shape, size, border)


def _sizes(shape: Shape) -> str:
    channels, height, width = shape
    return f"{height}x{width}x{channels} (HxWxC)"


def _bounded(number: str, token: str, text: str) -> int:
    if len(number) > 9 or not 1 <= int(number) <= LARGEST:
        raise SettingsError(f"architecture {text!r}: {token!r}: sizes must lie in 1 to {LARGEST}")
    return int(number)
