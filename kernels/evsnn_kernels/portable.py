"""Elementary functions for tables and schedules, with the same bits on every machine.

Those of NumPy and of the system's library differ in the last bit from one processor to the next: they are
chosen by what vectors it has. Here is nothing but additions, multiplications, divisions and roots of
float64, each rounded as IEEE 754 says. Errors are a few units in the last place.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]

_LN2_HIGH = 0.693147180369123816490
_LN2_LOW = 1.90821492927058770002e-10


def exp(x: npt.ArrayLike) -> F64:
    """e^x of every element, for x <= 700; 0 below -700. As ``spec.learning.portable_exp``, for arrays."""
    value = np.asarray(x, np.float64)
    held = np.maximum(value, -700.0)
    k = np.floor(held * 1.4426950408889634 + 0.5)
    r = (held - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.ones_like(held)
    for n in range(13, 0, -1):
        total = 1.0 + r * total / n
    result: F64 = np.where(value < -700.0, 0.0, np.ldexp(total, k.astype(np.int32)))
    return result


def log(x: npt.ArrayLike) -> F64:
    """Natural logarithm of every element, for x > 0.

    x = 2^k m with m near 1, and log m = 2 (s + s^3 / 3 + s^5 / 5 + ...), s = (m - 1) / (m + 1).
    """
    m, k = np.frexp(np.asarray(x, np.float64))
    small = m < math.sqrt(0.5)
    m = np.where(small, 2.0 * m, m)
    k = k - small
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    total = np.zeros_like(s)
    for n in range(25, 0, -2):
        total = 1.0 / n + square * total
    result: F64 = k * _LN2_HIGH + (2.0 * s * total + k * _LN2_LOW)
    return result


def sine(x: float) -> float:
    """Sine of an angle of at most a quarter turn, up or down."""
    square = x * x
    total = 1.0
    for n in range(24, 0, -2):
        total = 1.0 - square * total / (n * (n + 1))
    return x * total


def cosine(x: float) -> float:
    """Cosine of an angle of 0 to half a turn."""
    return sine(math.pi / 2.0 - x)


def tangent(x: float) -> float:
    """Tangent of an angle of less than a quarter turn, up or down."""
    return sine(x) / cosine(abs(x))


def power(base: float, exponent: int) -> float:
    """``base ** exponent`` for a whole exponent of 0 or more, by squaring."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
