"""Threads over kernels: a kernel releases the interpreter lock and works on a range of its last dimension."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from evsnn.errors import SettingsError

#: Ranges for each thread, so that a thread with cheap samples takes over from one with dear ones.
RANGES_PER_THREAD = 3

#: Elementary operations below which handing a kernel to threads costs more than it saves.
LEAST_WORK = 200_000


def available_threads() -> int:
    """Number of processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
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

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise SettingsError(f"threads must be 1 or more, got {threads}")
        self.threads = threads or available_threads()
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def run(
        self,
        kernel: Callable[..., Any],
        size: int,
        *arguments: Any,  # noqa: ANN401 - whatever the kernel takes
        work: int = LEAST_WORK,
    ) -> None:
        """Call ``kernel(*arguments, first, last)`` so that the ranges cover 0 to ``size``.

        ``work`` is a rough number of elementary operations; little work is not spread over threads.
        """
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

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
