"""Seeds and the orders they give."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evsnn.errors import SettingsError


def seed_words(seed: int) -> tuple[int, int]:
    """Split a seed into the two 32-bit words of a random key.

    Raises
    ------
    SettingsError
        If the seed is outside 0 to 2^64 - 1.
    """
    if not 0 <= seed < 1 << 64:
        raise SettingsError(f"seed must lie in 0 to 2^64 - 1, got {seed}")
    return seed & 0xFFFFFFFF, seed >> 32


def shuffled(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Random order of ``n`` samples for one epoch: the order of one random number each (S14)."""
    from evsnn_kernels.cpu import random  # noqa: PLC0415 - numba is loaded when something is computed
    from evsnn_kernels.layout import PURPOSE_SHUFFLE  # noqa: PLC0415 - as above

    keys = np.empty(n, np.uint64)
    random.random_keys(PURPOSE_SHUFFLE, epoch, *seed_words(seed), keys, 0, n)
    return np.argsort(keys, kind="stable").astype(np.int64)
