"""The only place that names Numba's compilers: decorators, cache policy, float policy.

Float policy: no ``fastmath``. A threshold test must give the same answer on every machine and every
backend, so multiplications and additions are rounded one by one, in the written order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.extending import register_jitable

from evsnn_kernels import cache

F = TypeVar("F", bound=Callable[..., object])


def physics(function: F) -> F:
    """Mark a scalar function of ``spec``: plain Python, inlined into the kernels of every backend."""
    marked: Any = register_jitable(function)
    return cast(F, marked)


def cpu_part(function: F) -> F:
    """Mark a part of a CPU kernel that takes arrays: inlined before Numba compiles it.

    Handing an array to a compiled function counts a reference, which is an atomic operation on memory that
    all threads share: as dear as the work on a small layer.
    """
    marked: Any = register_jitable(inline="always")(function)
    return cast(F, marked)


def cpu_kernel(function: F) -> F:
    """Compile a loop for the CPU, at its first call; it runs without the interpreter lock."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": False,
        "cache": cache.enabled(),
    }
    compiled: Any = numba.njit(**options)(function)
    return cast(F, compiled)
