"""A CUDA device: kernels run on it one after the other, and their arrays stay there."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from evsnn_kernels.cpu import queue as queue_kernels
from evsnn_kernels.cuda.device import Device
from evsnn_kernels.cuda.launch import SIMULATED, CudaKernel, SharedMemoryError

from evsnn.backends.base import (
    LEAST_WORK,
    Array,
    Backend,
    Feed,
    Growing,
    HostArray,
    Part,
    QueueTooSmallError,
    T,
)
from evsnn.backends.cpu import CpuBackend
from evsnn.errors import BackendError

#: Share of the free memory that a data set may take; the rest is for what a batch needs.
_DATA_SHARE = 0.5

#: Largest array in bytes that is copied to the host through pinned memory.
_SMALL = 1 << 20

# The simulator runs each thread of a block as a thread of Python: few, that take short turns.
_SIMULATED_THREADS = 4
_SIMULATED_SWITCH_INTERVAL = 5e-5


class _Block:
    """Device memory of one shape, and the rows of it that were asked for."""

    __slots__ = ("memory", "rows")

    def __init__(self, memory: Any) -> None:  # noqa: ANN401 - Numba's array
        self.memory = memory
        self.rows: list[Any] | None = None


class DeviceArray:
    """An array on the device; its memory is used again when nothing refers to it any more.

    Nothing can be computed with it but by kernels, so that nothing is copied to the host unseen.
    """

    __slots__ = ("_block", "_owner", "_spare", "dtype", "memory", "shape")

    def __init__(
        self,
        memory: Any,  # noqa: ANN401 - Numba's array
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        block: _Block | None = None,
        spare: list[_Block] | None = None,
        owner: DeviceArray | None = None,
    ) -> None:
        self.memory = memory
        self.shape = shape
        self.dtype = dtype
        self._block = block
        self._spare = spare
        self._owner = owner

    def __len__(self) -> int:
        return self.shape[0]

    def __del__(self) -> None:
        if self._spare is not None and self._block is not None:
            self._spare.append(self._block)

    def reshape(self, shape: tuple[int, ...], /) -> DeviceArray:
        """Return the same memory under another shape."""
        return DeviceArray(self.memory.reshape(shape), shape, self.dtype, owner=self._owner or self)

    def rows(self) -> list[DeviceArray]:
        """The rows of an array with two axes, in the same memory."""
        assert self._block is not None
        if self._block.rows is None:
            self._block.rows = [self.memory[row] for row in range(self.shape[0])]
        return [DeviceArray(row, self.shape[1:], self.dtype, owner=self) for row in self._block.rows]


class CudaBackend(Backend):
    """A CUDA device; in Numba's simulator, threads of Python that stand for it.

    Parameters
    ----------
    device : int
        Number of the card.
    threads : int, optional
        Of the CPU, for what runs there all the same.
    data_bytes : float, optional
        Memory that a data set may take up; default: half of what is free.

    Raises
    ------
    BackendError
        If the device cannot be opened.
    SettingsError
        If ``threads`` is below 1.
    """

    name = "cuda"
    draws_ahead = False

    def __init__(self, device: int = 0, threads: int | None = None, data_bytes: float | None = None) -> None:
        self._host = CpuBackend(threads)
        try:
            self._device = Device(device)
        except Exception as error:  # whatever the driver says: busy, exclusive, out of memory
            line = " ".join(str(error).split())
            raise BackendError(
                f"CUDA device {device} cannot be opened: {line}; use --backend cpu or another --device"
            ) from error
        self._data_bytes = data_bytes
        self._spare: dict[tuple[tuple[int, ...], np.dtype[Any]], list[_Block]] = {}
        self._pinned: dict[tuple[tuple[int, ...], np.dtype[Any]], list[HostArray]] = {}
        self._twins: dict[Callable[..., Any], CudaKernel] = {}
        self._unchecked: list[tuple[Growing, DeviceArray]] = []
        self._overflow = self.put(np.zeros(1, np.int64))
        self._switch_interval = sys.getswitchinterval()
        if SIMULATED:
            sys.setswitchinterval(_SIMULATED_SWITCH_INTERVAL)

    @property
    def host(self) -> CpuBackend:
        """Threads of the CPU."""
        return self._host

    @property
    def device(self) -> str:
        """Name of the card."""
        return self._device.name

    @property
    def room(self) -> float:
        """Bytes that a data set may take up."""
        if self._data_bytes is not None:
            return self._data_bytes
        return _DATA_SHARE * self._device.free_bytes

    def run(
        self,
        kernel: Callable[..., Any],
        size: int,
        *arguments: Any,  # noqa: ANN401 - whatever the kernel takes
        work: int = LEAST_WORK,
    ) -> None:
        """Launch the kernel's twin, one block for each index below ``size``; it may run later.

        Raises
        ------
        TypeError
            If an array is one of the host.
        BackendError
            If a layer or an image is too large for a block of the device.
        """
        twin = self._twins.get(kernel)
        if twin is None:
            twin = self._twins[kernel] = _twin(kernel)
        try:
            twin.launch(
                size,
                *map(_memory, arguments),
                0,
                size,
                threads=_SIMULATED_THREADS if SIMULATED else None,
                stream=self._device.compute,
            )
        except SharedMemoryError as error:
            raise BackendError(f"{error} (--backend cpu)") from None

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Return an array of any content, in memory that was given back before if there is some."""
        key = (shape, np.dtype(dtype))
        spare = self._spare.setdefault(key, [])
        block = spare.pop() if spare else _Block(self._allocate(*key))
        return DeviceArray(block.memory, *key, block, spare)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - Numba's array
        try:
            return self._device.allocate(shape, dtype)
        except MemoryError:
            for blocks in self._spare.values():
                blocks.clear()
            self._device.release()
        try:
            return self._device.allocate(shape, dtype)
        except MemoryError:
            needed = math.prod(shape) * dtype.itemsize / 2**20
            raise BackendError(
                f"CUDA device {self._device.index} has no {needed:.0f} MiB left: lower --batch-size, take a "
                "smaller --arch, or use --backend cpu"
            ) from None

    def put(self, array: HostArray) -> DeviceArray:
        """Copy an array of the host to the device."""
        result = self.empty(array.shape, array.dtype)
        self._device.upload(np.ascontiguousarray(array), result.memory)
        return result

    def fetch(self, *arrays: Array) -> list[HostArray]:
        """Wait for the device once, and copy arrays to the host; see :meth:`Backend.fetch`."""
        wanted = cast(tuple[DeviceArray, ...], (self._overflow, *arrays))
        staged = []
        for array in wanted:
            small = math.prod(array.shape) * array.dtype.itemsize <= _SMALL
            target = self._take_pinned(array) if small else np.empty(array.shape, array.dtype)
            self._device.download(array.memory, target)
            staged.append((target, small))
        self._device.wait()
        values = []
        for target, small in staged:
            values.append(target.copy() if small else target)
            if small:
                self._pinned[target.shape, target.dtype].append(target)
        unchecked, self._unchecked = self._unchecked, []
        if values[0][0]:
            self._overflow = self.put(np.zeros(1, np.int64))
            counts = self.fetch(*(count for _, count in unchecked))
            for (queue, _), count in zip(unchecked, counts, strict=True):
                queue.settle(count)
            raise QueueTooSmallError
        return values[1:]

    def _take_pinned(self, array: DeviceArray) -> HostArray:
        key = (array.shape, array.dtype)
        spare = self._pinned.setdefault(key, [])
        return spare.pop() if spare else self._device.pinned(*key)

    def rows(self, array: Array) -> list[Array]:
        """The rows of an array with two axes."""
        return list(cast(DeviceArray, array).rows())

    def admit(self, queue: Growing, slot: Array, count: Array) -> Array:
        """Have the events that found room counted on the device; :meth:`fetch` tells if others did not."""
        admitted = self.empty(count.shape, count.dtype)
        self.run(queue_kernels.admit, len(count), slot, count, admitted, self._overflow)
        self._unchecked.append((queue, cast(DeviceArray, count)))
        return admitted

    def feed(self, parts: Iterator[Part[T]]) -> Feed[T]:
        """Bring parts of a data set through pinned memory, in the second stream."""
        return _Transfer(self._device, parts)

    def close(self) -> None:
        """Give all memory back that nobody refers to."""
        self._spare.clear()
        self._pinned.clear()
        self._unchecked.clear()
        self._device.release()
        self._host.close()
        if SIMULATED:
            sys.setswitchinterval(self._switch_interval)


def _twin(kernel: Callable[..., Any]) -> CudaKernel:
    module = importlib.import_module(kernel.__module__.replace(".cpu.", ".cuda."))
    return cast(CudaKernel, getattr(module, kernel.__name__))


def _memory(argument: Any) -> Any:  # noqa: ANN401 - whatever a kernel takes
    if type(argument) is DeviceArray:
        return argument.memory
    if isinstance(argument, np.ndarray):
        raise TypeError("an array of the host cannot be handed to a kernel of the device; put it there first")
    return argument


class _Slot:
    """Room for one part: pinned memory, memory of the device, and marks of when they are in use."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.pinned: list[HostArray] = []
        self.arrays: list[DeviceArray] = []
        self.copied = device.event()
        self.used = device.event()

    def stage(self, part: tuple[HostArray, ...]) -> tuple[HostArray, ...] | None:
        """Copy a part to pinned memory; None if there is too little. Another thread may do this."""
        if len(self.pinned) != len(part) or any(
            len(room) < len(array) for room, array in zip(self.pinned, part, strict=True)
        ):
            return None
        for room, array in zip(self.pinned, part, strict=True):
            room[: len(array)] = array
        return tuple(room[: len(array)] for room, array in zip(self.pinned, part, strict=True))

    def grow(self, part: tuple[HostArray, ...]) -> None:
        """Make room for a part, and for one that is somewhat larger."""
        shapes = [(len(array) + len(array) // 4, *array.shape[1:]) for array in part]
        self.pinned = [
            self._device.pinned(shape, array.dtype) for shape, array in zip(shapes, part, strict=True)
        ]
        self.arrays = [
            DeviceArray(self._device.allocate(shape, array.dtype), shape, array.dtype)
            for shape, array in zip(shapes, part, strict=True)
        ]

    def upload(self, staged: tuple[HostArray, ...]) -> None:
        """Copy to the device as soon as the kernels that read the last part are done."""
        self.used.wait(self._device.transfer)
        for source, target in zip(staged, self.arrays, strict=True):
            if len(source):
                self._device.upload(source, target.memory[: len(source)], meanwhile=True)
        self.copied.record(self._device.transfer)


class _Transfer(Feed[T]):
    """Two slots that take turns: one is read by kernels while the other is filled.

    A thread collects the next part in pinned memory; the copy to the device is begun by whoever uses the
    feed, so that one thread alone talks to the device.
    """

    def __init__(self, device: Device, parts: Iterator[Part[T]]) -> None:
        self._device = device
        self._parts = parts
        self._thread = ThreadPoolExecutor(1)
        self._current, self._next = _Slot(device), _Slot(device)
        self._about: T | None = None
        self._uploaded = False
        self._collected = self._collect()

    def _collect(self) -> Future[tuple[Part[T], tuple[HostArray, ...] | None] | None]:
        slot = self._next

        def collect() -> tuple[Part[T], tuple[HostArray, ...] | None] | None:
            part = next(self._parts, None)
            return None if part is None else (part, slot.stage(part[1]))

        return self._thread.submit(collect)

    def poll(self) -> None:
        """Begin the copy to the device if the part has been collected."""
        if not self._uploaded and self._collected.done():
            self._upload()

    def _upload(self) -> None:
        collected = self._collected.result()
        if collected is None:
            return
        (self._about, arrays), staged = collected
        if staged is None:
            self._next.grow(arrays)
            staged = self._next.stage(arrays)
            assert staged is not None
        self._next.upload(staged)
        self._uploaded = True

    def __next__(self) -> tuple[T, tuple[Array, ...]]:
        if not self._uploaded:
            self._upload()
        if not self._uploaded:
            raise StopIteration
        about = cast(T, self._about)
        self._current.used.record(self._device.compute)
        self._current, self._next = self._next, self._current
        self._current.copied.wait(self._device.compute)
        # Its pinned memory is overwritten from now on.
        self._next.copied.synchronize()
        self._uploaded = False
        self._collected = self._collect()
        return about, tuple(self._current.arrays)

    def close(self) -> None:
        """Wait for the thread, and bring no more parts."""
        self._thread.shutdown(cancel_futures=True)
