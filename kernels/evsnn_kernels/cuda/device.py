"""Memory and streams of one CUDA device, without policy: what :mod:`evsnn.backends.cuda` is made of."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from numba import cuda

from evsnn_kernels.cuda.launch import SIMULATED

#: CUDA_ERROR_OUT_OF_MEMORY.
_OUT_OF_MEMORY = 2

if not SIMULATED:
    # A batch of few samples makes small grids, on purpose.
    cuda.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


class Device:
    """A device with two streams: one for kernels and their arrays, one that brings data meanwhile.

    Parameters
    ----------
    index : int
        Its number among the visible devices.
    """

    def __init__(self, index: int) -> None:
        cuda.select_device(index)
        self.index = index
        self.compute = cuda.stream()
        self.transfer = cuda.stream()

    @property
    def name(self) -> str:
        """Name of the card."""
        if SIMULATED:
            return "Numba's CUDA simulator"
        name = cuda.current_context().device.name
        return name.decode() if isinstance(name, bytes) else str(name)

    @property
    def free_bytes(self) -> float:
        """Memory that is free; ``inf`` in the simulator."""
        return float(cuda.current_context().get_memory_info().free)

    def allocate(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:  # noqa: ANN401 - Numba's array
        """Return a device array of any content.

        Raises
        ------
        MemoryError
            If the device has none left.
        """
        try:
            return cuda.device_array(shape, dtype)
        except Exception as error:
            if getattr(error, "code", None) == _OUT_OF_MEMORY:
                raise MemoryError(str(error)) from error
            raise

    def release(self) -> None:
        """Give memory that nobody refers to back to the device; Numba would do so some time later."""
        if not SIMULATED:
            cuda.current_context().deallocations.clear()

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a host array that the device copies from and to by itself."""
        array: npt.NDArray[Any] = cuda.pinned_array(shape, dtype)
        return array

    def event(self) -> Any:  # noqa: ANN401 - Numba's event
        """Return a mark in a stream that others can wait for."""
        return cuda.event(timing=False) if not SIMULATED else cuda.event()

    def upload(self, source: npt.NDArray[Any], target: Any, *, meanwhile: bool = False) -> None:  # noqa: ANN401 - Numba's array
        """Copy a host array of C order into a device array, in the order of the stream.

        From memory that is not pinned, ``source`` may be overwritten on return.
        """
        target.copy_to_device(source, stream=self.transfer if meanwhile else self.compute)

    def download(self, source: Any, target: npt.NDArray[Any]) -> None:  # noqa: ANN401 - Numba's array
        """Copy a device array into a host array; into pinned memory it is there after :meth:`wait`."""
        source.copy_to_host(target, stream=self.compute)

    def wait(self) -> None:
        """Wait for all kernels and copies in the stream of kernels."""
        self.compute.synchronize()
