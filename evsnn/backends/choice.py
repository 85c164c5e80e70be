"""Opening the backend that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from evsnn.backends.base import Backend
from evsnn.backends.cpu import CpuBackend
from evsnn.backends.system import backend_of_choice
from evsnn.errors import BackendError


def open_backend(
    name: str = "auto",
    *,
    threads: int | None = None,
    device: int = 0,
    tell: Callable[[str], None] | None = None,
) -> Backend:
    """Open a backend; close it, or use it in a ``with`` statement.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}
        ``auto`` takes a CUDA device where there is one.
    threads : int, optional
        Of the CPU; default: all processors.
    device : int
        Number of the CUDA device.
    tell : callable, optional
        Told in one line why ``auto`` took the CPU.

    Raises
    ------
    BackendError
        If ``cuda`` was asked for and cannot be had: why, and the remedy.
    SettingsError
        If there is no such backend, or ``threads`` is below 1.
    """
    chosen, reason = backend_of_choice(name, device)
    if chosen == "cuda":
        from evsnn.backends.cuda import CudaBackend  # noqa: PLC0415 - imports numba.cuda

        try:
            return CudaBackend(device, threads)
        except BackendError as error:
            if name == "cuda":
                raise
            reason = str(error)
    if reason is not None and tell is not None:
        tell(reason)
    return CpuBackend(threads)


@contextmanager
def backend_of(backend: Backend | str, threads: int | None = None) -> Iterator[Backend]:
    """Lend an open backend, or open one by name for the duration of a ``with`` statement."""
    if isinstance(backend, Backend):
        yield backend
        return
    with open_backend(backend, threads=threads) as opened:
        yield opened
