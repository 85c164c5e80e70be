"""What the library asks of the place where its kernels run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from evsnn.backends.cpu import CpuBackend

#: Elementary operations that are worth spreading over threads.
LEAST_WORK = 200_000

#: Arrays of the host: NumPy's.
HostArray: TypeAlias = npt.NDArray[Any]

T = TypeVar("T")

#: A part of a data set: what the host says of it, and its arrays.
Part: TypeAlias = tuple[T, tuple[HostArray, ...]]


class Array(Protocol):
    """An array in the memory that a backend's kernels reach, C order; on the CPU one of NumPy.

    Kernels compute with it. The host sees its values through :meth:`Backend.fetch` only.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of every axis."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        ...

    def __len__(self) -> int: ...

    def reshape(self, shape: tuple[int, ...], /) -> Array:
        """Return the same memory under another shape."""
        ...


class Growing(Protocol):
    """A queue that can make more room."""

    def settle(self, count: npt.NDArray[np.int64]) -> bool:
        """Say whether ``count`` events of each sample, shape (n_samples,), found room; if not, make room."""
        ...


class QueueTooSmallError(Exception):
    """Events found no room in a queue, which has grown since: the batch is to be repeated."""


class Feed(ABC, Generic[T]):
    """Parts of a data set, one after the other, each put where kernels reach it.

    A part is a tuple of arrays, which may be longer than those that were put, and what the host says of them.
    It is valid until the next one is taken.
    """

    def __iter__(self) -> Iterator[tuple[T, tuple[Array, ...]]]:
        return self

    @abstractmethod
    def __next__(self) -> tuple[T, tuple[Array, ...]]: ...

    def poll(self) -> None:
        """Go on bringing the next part, if it can go on without waiting."""

    def close(self) -> None:
        """Bring no more parts."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Backend(ABC):
    """Runs kernels and keeps their arrays.

    A kernel is named by its function for the CPU; every backend computes the same bits.
    """

    #: ``cpu`` or ``cuda``.
    name: str

    @property
    @abstractmethod
    def host(self) -> CpuBackend:
        """The backend of the CPU, for what no device is needed for."""

    @property
    @abstractmethod
    def device(self) -> str | None:
        """Name of the device, None without one."""

    @property
    @abstractmethod
    def draws_ahead(self) -> bool:
        """Whether another thread may call :meth:`run` for the next batch while this one is learned."""

    @property
    @abstractmethod
    def room(self) -> float:
        """Bytes that a data set may take up beside everything else; ``inf`` where it is in place already."""

    @abstractmethod
    def run(
        self,
        kernel: Callable[..., Any],
        size: int,
        *arguments: Any,  # noqa: ANN401 - whatever the kernel takes
        work: int = LEAST_WORK,
    ) -> None:
        """Compute ``kernel(*arguments, 0, size)``.

        Parameters
        ----------
        kernel : callable
            A kernel of ``evsnn_kernels.cpu``.
        size : int
            Samples, rows or columns: the range of the kernel.
        *arguments
            Arrays of this backend, and scalars.
        work : int
            A rough number of elementary operations: little work is not spread over threads.
        """

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of any content.

        Raises
        ------
        BackendError
            If the device has no memory left, with what to do about it.
        """

    @abstractmethod
    def put(self, array: HostArray) -> Array:
        """Return an array with the values of one of the host, which on the CPU is the array itself."""

    @abstractmethod
    def fetch(self, *arrays: Array) -> list[HostArray]:
        """Wait for all kernels, and return arrays on the host: those of the CPU themselves, or copies.

        Raises
        ------
        QueueTooSmallError
            If a queue was too small since the last call: it has grown, and what was computed with it is void.
        """

    @abstractmethod
    def rows(self, array: Array) -> list[Array]:
        """Return the rows of an array with two axes, as arrays in the same memory."""

    @abstractmethod
    def admit(self, queue: Growing, slot: Array, count: Array) -> Array | None:
        """Look whether a queue had room for its events; where that must wait, :meth:`fetch` does.

        Parameters
        ----------
        queue : Growing
        slot : Array of int64, shape (n_samples + 1,)
        count : Array of int64, shape (n_samples,)
            Events that occurred in each sample.

        Returns
        -------
        Array of int64, shape (n_samples,), or None
            Events of each sample that later kernels may read; None if the queue was too small and has grown:
            what filled it is to be repeated.
        """

    @abstractmethod
    def feed(self, parts: Iterator[Part[T]]) -> Feed[T]:
        """Put parts of a data set, the next one while kernels work on the last where that is possible."""

    @abstractmethod
    def close(self) -> None:
        """Give back threads and memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
