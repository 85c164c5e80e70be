"""The only place that names Numba's compilers: decorators, cache policy, float policy.

Float policy: no ``fastmath``. A threshold test must give the same answer on every machine and every
backend, so multiplications and additions are rounded one by one, in the written order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import llvmlite.binding
import numba
from numba.extending import overload, register_jitable

from evsnn_kernels import cache
from evsnn_kernels.compiled import share
from evsnn_kernels.layout import Scalar

if TYPE_CHECKING:
    from evsnn_kernels.cuda.launch import CudaKernel

F = TypeVar("F", bound=Callable[..., object])


def physics(function: F) -> F:
    """Mark a scalar function of ``spec``: plain Python, inlined into the kernels of every backend."""
    marked: Any = register_jitable(function)
    return cast(F, marked)


def larger(a: Scalar, b: Scalar) -> Scalar:
    """``b`` where ``b > a``, else ``a``: ``max`` with one meaning on every backend.

    ``max`` of CUDA makes 0 of -0 and 0 in any order, and a number of a number and NaN; that of the CPU keeps
    its first argument.
    """
    return b if b > a else a


def smaller(a: Scalar, b: Scalar) -> Scalar:
    """``b`` where ``b < a``, else ``a``: ``min`` with one meaning on every backend; see :func:`larger`."""
    return b if b < a else a


@overload(larger, strict=False)
def _larger(a: Scalar, b: Scalar) -> Callable[..., Scalar]:
    if isinstance(a, numba.types.Float):
        return larger
    # The lanes of cpu.vector have no branches, but a max of this meaning.
    return lambda a, b: max(a, b)  # noqa: PLW0108 - Numba compares its signature with larger's


physics(smaller)


def cpu_part(function: F) -> F:
    """Mark a part of a CPU kernel that takes arrays: inlined before Numba compiles it.

    Handing an array to a compiled function counts a reference, which is an atomic operation on memory that
    all threads share: as dear as the work on a small layer.
    """
    marked: Any = register_jitable(inline="always")(function)
    return cast(F, marked)


def cpu_routine(function: F) -> F:
    """Mark a part of a CPU kernel that takes arrays and works long: a function of its own in machine code.

    Of a kernel that inlines much, Numba infers the types in a time that grows with the square of its size.
    """
    marked: Any = register_jitable(function)
    return cast(F, marked)


def has_cpu_feature(name: str) -> bool:
    """Whether CPU kernels are compiled for a processor with a feature of LLVM's name, such as ``avx2``.

    Only what is fast may depend on it, never a result.
    """
    config: Any = numba.config
    if config.CPU_FEATURES is not None:
        features = config.CPU_FEATURES
    elif config.CPU_NAME not in (None, "host"):
        features = ""  # Numba compiles for the processor named, and does not tell what it has
    else:
        features = llvmlite.binding.get_host_cpu_features().flatten()
    return f"+{name}" in features.split(",")


def cpu_kernel(function: F) -> F:
    """Compile a loop for the CPU, at its first call; it runs without the interpreter lock."""
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": False,
        "cache": cache.enabled(),
    }
    compiled: Any = numba.njit(**options)(function)
    share(compiled)
    return cast(F, compiled)


def cuda_kernel(
    threads: int | Callable[..., int] = 128,
    shared_bytes: Callable[..., int] | None = None,
    *,
    indices: int = 1,
    blocks: Callable[..., int] | None = None,
) -> Callable[[Callable[..., None]], CudaKernel]:
    """Make a CUDA kernel of a loop, compiled at its first launch (or without a card, to PTX).

    The kernel has the parameters of its CPU twin and runs one block for every index of ``first:last``:
    ``index = first + cuda.blockIdx.x``, unless ``indices`` or ``blocks`` say otherwise. It must be right for
    any number of threads a block, and with ``indices`` or ``blocks`` for any number of blocks.

    Parameters
    ----------
    threads : int or callable
        Threads a block of an ordinary launch; or, given the kernel's arguments, their number.
    shared_bytes : callable, optional
        Given the kernel's arguments, the bytes of dynamic shared memory that a block needs.
    indices : int
        Indices of the range for each block, where one is too little work.
    blocks : callable, optional
        Given the kernel's arguments, the blocks that share the work on an index, ``cuda.blockIdx.y``, where
        there are too few indices to fill a card; default: one.

    Notes
    -----
    The float policy is that of :func:`cpu_kernel`: compilation without FMA contraction, ``fastmath`` or
    flushed denormal numbers is enforced, and checked, by :mod:`evsnn_kernels.cuda.launch`.
    """
    from evsnn_kernels.cuda.launch import CudaKernel  # noqa: PLC0415 - nobody without CUDA pays for it

    def decorate(function: Callable[..., None]) -> CudaKernel:
        return CudaKernel(function, threads, shared_bytes, indices, blocks)

    return decorate


def cuda_part(function: F) -> F:
    """Mark a part of a CUDA kernel that takes arrays: inlined into the kernel."""
    marked: Any = register_jitable(function)
    return cast(F, marked)
