"""A CUDA kernel compiled for the CPU, as if a block were one thread: fast enough for ordinary sizes.

The simulator runs kernels as Python, in which a wrong type often goes unnoticed (an int64 and a uint64 make
a float64, only when compiled). One thread needs no other, so its barriers are empty, and what the block
shares is its own.
"""

from __future__ import annotations

import functools
import sys
import types
from unittest import mock

import evsnn_kernels.cuda.launch  # noqa: F401 - mends the simulator
import numba
import numpy as np
from numba import cuda
from numba.extending import overload, register_jitable

#: Elements of an array whose size a launch would give.
DYNAMIC = 1 << 14


def _shared_array(shape, dtype):
    raise NotImplementedError("for compiled code only")


@overload(_shared_array)
def _compiled_shared_array(shape, dtype):
    def of_length(shape, dtype):
        return np.empty(shape if shape > 0 else DYNAMIC, dtype)

    def of_shape(shape, dtype):
        return np.empty(shape, dtype)

    return of_length if isinstance(shape, numba.types.Integer) else of_shape


@register_jitable
def _nothing():
    pass


@register_jitable
def _zero(dimensions):
    return 0


@register_jitable
def _one(dimensions):
    return 1


@register_jitable
def _add(array, index, value):
    array[index] += value


@register_jitable
def _or(array, index, value):
    array[index] |= value


def _module(name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    return module


_CUDA = _module(
    "cuda",
    threadIdx=_module("threadIdx", x=0),
    blockIdx=_module("blockIdx", x=0, y=0),
    blockDim=_module("blockDim", x=1),
    gridDim=_module("gridDim", x=1, y=1),
    shared=_module("shared", array=_shared_array),
    syncthreads=_nothing,
    atomic=_module("atomic", add=_add, or_=_or),
    popc=cuda.popc,
    grid=_zero,
    gridsize=_one,
)


@functools.cache
def _compiled(function):
    return numba.njit(error_model="numpy")(function)


def check(cpu, gpu, size, *args):
    """Compare the bits of all arrays after both kernels ran, one index after the other; return them."""
    ours, theirs = ([a.copy() if isinstance(a, np.ndarray) else a for a in args] for _ in range(2))
    cpu(*ours, 0, size)
    compiled = _compiled(gpu.function)
    with mock.patch.object(sys.modules[gpu.__module__], "cuda", _CUDA):
        for index in range(size):
            compiled(*theirs, index, index + 1)
    for position, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if isinstance(a, np.ndarray):
            assert a.tobytes() == b.tobytes(), f"argument {position} differs"
    return ours
