"""Counter-based random numbers: Philox4x32-10.

J. K. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

A number depends on its key (the seed) and its counter (what it is for) alone, so any thread can draw any
number in any order.
"""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import physics
from evsnn_kernels.layout import Scalar


@physics
def philox(
    c0: Scalar, c1: Scalar, c2: Scalar, c3: Scalar, k0: Scalar, k1: Scalar
) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """Four random 32-bit words for a counter of four and a key of two 32-bit words.

    All words travel as uint64 below 2^32: products of two then never overflow, in any backend.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    a, b, c, d = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    x, y = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        p = np.uint64(0xD2511F53) * a
        q = np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> half) ^ b ^ x, q & mask, (p >> half) ^ d ^ y, p & mask
        x = (x + np.uint64(0x9E3779B9)) & mask
        y = (y + np.uint64(0xBB67AE85)) & mask
    return a, b, c, d


@physics
def unit_interval(word: Scalar) -> Scalar:
    """A random word as a float32 in [0, 1), exact: its 24 leading bits."""
    return np.float32(word >> np.uint64(8)) * np.float32(5.9604644775390625e-08)


@physics
def scaled(word: Scalar, size: Scalar) -> Scalar:
    """A random word as an integer in [0, size), size below 2^32, in exact integer arithmetic."""
    return np.int64((word * np.uint64(size)) >> np.uint64(32))
