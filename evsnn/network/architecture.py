"""Architecture strings, as papers write them: ``784-800-10``, ``34x34x2-800-10``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from evsnn.errors import SettingsError

#: More neurons or inputs than this in one layer are taken for a typing error.
LARGEST = 1 << 24


@dataclass(frozen=True)
class Architecture:
    """A parsed architecture string.

    Parameters
    ----------
    text : str
        The string itself.
    shape : (C, H, W)
        Shape of the input; a flat size n is (1, 1, n).
    sizes : tuple of int
        Neurons of each layer, the output layer last.
    """

    text: str
    shape: tuple[int, int, int]
    sizes: tuple[int, ...]

    @property
    def n_inputs(self) -> int:
        """Number of input units."""
        return math.prod(self.shape)


def parse_architecture(text: str) -> Architecture:
    """Parse an architecture string.

    Raises
    ------
    SettingsError
        Naming the token at fault.
    """
    tokens = text.strip().split("-")
    if len(tokens) < 2:
        raise SettingsError(
            f"architecture {text!r}: needs an input and at least one layer, such as 784-800-10"
        )
    shape = _input_shape(tokens[0], text)
    sizes = tuple(_layer_size(token, place, text) for place, token in enumerate(tokens[1:], start=2))
    return Architecture(text.strip(), shape, sizes)


def _input_shape(token: str, text: str) -> tuple[int, int, int]:
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


def _layer_size(token: str, place: int, text: str) -> int:
    if re.fullmatch(r"\d+C\d+(p\d+)?|P\d+", token, flags=re.ASCII):
        raise SettingsError(
            f"architecture {text!r}: token {place}, {token!r}: this version has fully connected layers only"
        )
    if not re.fullmatch(r"\d+", token, flags=re.ASCII):
        raise SettingsError(
            f"architecture {text!r}: token {place}, {token!r}: a layer is a number of neurons, such as 800"
        )
    return _bounded(token, token, text)


def _bounded(number: str, token: str, text: str) -> int:
    if len(number) > 9 or not 1 <= int(number) <= LARGEST:
        raise SettingsError(f"architecture {text!r}: {token!r}: sizes must lie in 1 to {LARGEST}")
    return int(number)
