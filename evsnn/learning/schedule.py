"""Course of the learning rate (docs/model.md, S11)."""

from __future__ import annotations

import math

from evsnn_kernels import portable


def rate_factor(schedule: str, step: int, steps: int) -> float:
    """Learning rate at ``step`` of ``steps``, as a share of the initial one.

    ``constant`` is 1, ``linear`` falls from 1 to 0 and ``cosine`` follows half a cosine from 1 to 0.
    """
    done = min(step / max(steps, 1), 1.0)
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + portable.cosine(math.pi * done))
    return 1.0
