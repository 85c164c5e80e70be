"""Table that Poisson numbers are drawn from."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt


@lru_cache(maxsize=8)
def poisson_table(rate: float) -> npt.NDArray[np.uint32]:
    """Cumulative Poisson probabilities of 0, 1, 2, ... events for intensities 0 to 255, times 2^32.

    Returns
    -------
    ndarray of uint32, shape (256, n)
        n is large enough that what lies beyond is below 2^-32.
    """
    size = int(rate + 10.0 * math.sqrt(rate) + 24.0)
    mean = rate * np.arange(256)[:, None] / 255.0
    log_factorial = np.array([math.lgamma(n + 1.0) for n in range(size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = np.arange(size) * np.log(mean) - mean - log_factorial
    log_p[0] = -np.inf
    log_p[0, 0] = 0.0
    cumulative = np.minimum(np.cumsum(np.exp(log_p), axis=1) * 2.0**32, 2.0**32 - 1.0)
    return np.ascontiguousarray(cumulative.astype(np.uint32))
