"""Threads over kernels: a kernel releases the interpreter lock and works on a range of samples or rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout

from evsnn.backends.base import LEAST_WORK, Array, Backend, Feed, Growing, HostArray, Part, T
from evsnn.errors import SettingsError

#: Values of an array that is worth the microseconds of beginning it at a cache line.
_LEAST_ALIGNED = 1024

#: Ranges for each thread, so that a thread with cheap samples takes over from one with dear ones.
RANGES_PER_THREAD = 3


def available_threads() -> int:
    """Number of processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class CpuBackend(Backend):
    """A pool of threads; results never depend on their number.

    Parameters
    ----------
    threads : int, optional
        Number of threads; default: all processors this process may run on.

    Raises
    ------
    SettingsError
        If ``threads`` is below 1.
    """

    name = "cpu"
    device = None
    room = math.inf

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise SettingsError(f"threads must be 1 or more, got {threads}")
        self.threads = threads or available_threads()
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    @property
    def host(self) -> CpuBackend:
        """The backend itself."""
        return self

    @property
    def draws_ahead(self) -> bool:
        """With more than one thread."""
        return self.threads > 1

    def run(
        self,
        kernel: Callable[..., Any],
        size: int,
        *arguments: Any,  # noqa: ANN401 - whatever the kernel takes
        work: int = LEAST_WORK,
    ) -> None:
        """Call the kernel for ranges that cover 0 to ``size``; see :meth:`Backend.run`."""
        if self._pool is None or size < 2 or work < LEAST_WORK:
            kernel(*arguments, 0, size)
            return
        parts = min(size, self.threads * RANGES_PER_THREAD)
        edges = [size * part // parts for part in range(parts + 1)]
        ranges = iter(list(pairwise(edges)))

        def take_ranges() -> None:
            for low, high in ranges:
                kernel(*arguments, low, high)

        # The calling thread takes its share: waking a thread costs more than a small kernel.
        helpers = [self._pool.submit(take_ranges) for _ in range(min(parts, self.threads) - 1)]
        take_ranges()
        for helper in helpers:
            helper.result()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of any content."""
        size = math.prod(shape)
        return np.empty(shape, dtype) if size < _LEAST_ALIGNED else layout.aligned(shape, dtype)

    def put(self, array: HostArray) -> Array:
        """Return the array itself."""
        return array

    def fetch(self, *arrays: Array) -> list[HostArray]:
        """Return the arrays themselves."""
        return cast("list[HostArray]", list(arrays))

    def rows(self, array: Array) -> list[Array]:
        """The rows of an array with two axes."""
        return list(cast(HostArray, array))

    def admit(self, queue: Growing, slot: Array, count: Array) -> Array | None:
        """Look at once whether there was room."""
        return count if queue.settle(cast("npt.NDArray[np.int64]", count)) else None

    def feed(self, parts: Iterator[Part[T]]) -> Feed[T]:
        """Hand on the parts."""
        return _Handed(parts)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


class _Handed(Feed[T]):
    """Parts that are where kernels reach them."""

    def __init__(self, parts: Iterator[Part[T]]) -> None:
        self._parts = parts

    def __next__(self) -> tuple[T, tuple[Array, ...]]:
        return next(self._parts)
