"""Table that Poisson numbers are drawn from."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from evsnn_kernels import portable


@lru_cache(maxsize=8)
def poisson_table(rate: float) -> npt.NDArray[np.uint32]:
    """Cumulative Poisson probabilities of 0, 1, 2, ... events for intensities 0 to 255, times 2^32.

    Returns
    -------
    ndarray of uint32, shape (256, n)
        n is large enough that what lies beyond is below 2^-32.
    """
    size = int(rate + 10.0 * math.sqrt(rate) + 24.0)
    mean = rate * np.arange(1, 256)[:, None] / 255.0
    log_factorial = np.concatenate([[0.0], np.cumsum(portable.log(np.arange(1, size)))])
    probability = np.zeros((256, size))
    probability[0, 0] = 1.0
    probability[1:] = portable.exp(np.arange(size) * portable.log(mean) - mean - log_factorial)
    cumulative = np.minimum(np.cumsum(probability, axis=1) * 2.0**32, 2.0**32 - 1.0)
    return np.ascontiguousarray(cumulative.astype(np.uint32))
