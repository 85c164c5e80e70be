"""Compiling and launching CUDA kernels under the float policy of :mod:`evsnn_kernels.jit`.

NVVM fuses a multiplication and an addition into one operation unless it is told not to, and no released
version of ``numba.cuda`` passes that option on. So the option is added while a kernel of ours compiles,
and the PTX that results is read: a fused or approximate operation in it is an error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numba import cuda, types
from numba.extending import register_jitable

#: Whether kernels run in Numba's simulator, one Python thread for each CUDA thread.
SIMULATED: Final[bool] = bool(cuda.config.ENABLE_CUDASIM)


class _MadeOnce(dict[Any, Any]):
    """Shared arrays of a simulated block: whoever finds none makes it, while the others wait.

    The simulator looks for an array and then makes it, so that two threads could each get their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._making = threading.Lock()

    def get(self, key: Any, default: Any = None) -> Any:
        self._making.acquire()
        if key not in self:
            return default  # and hold the lock until the array is here
        self._making.release()
        return self[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self._making.release()


def _share_arrays_once() -> None:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared  # noqa: PLC0415 - only where it simulates

    plain = FakeCUDAShared.__init__

    def initialise(self: Any, dynamic_size: int) -> None:
        plain(self, dynamic_size)
        self._allocations = _MadeOnce()

    FakeCUDAShared.__init__ = initialise


@register_jitable
def _set_bits(word: Any) -> Any:
    found = 0
    rest = np.int64(word)
    while rest != 0:
        rest &= rest - 1
        found += 1
    return found


if SIMULATED:
    _share_arrays_once()
    # The simulator counts bits in the file of a kernel, but not in that of a function it calls.
    cuda.popc = _set_bits

#: Shared memory that a block has on every card, without asking for more.
MOST_SHARED_BYTES: Final = 48 * 1024

# What must not appear in PTX: fused multiply-add; multiplication, addition and subtraction without a
# rounding mode, which the assembler may still fuse; approximate or flushing operations; minimum and maximum,
# which treat zeros and NaN otherwise than the CPU.
_FORBIDDEN: Final = re.compile(
    r"\b(?:fma|mad)\.(?:r[nzmp]\.)?(?:ftz\.)?(?:sat\.)?f(?:32|64)\b"
    r"|\b(?:mul|add|sub|min|max)\.(?:ftz\.)?(?:sat\.)?f(?:32|64)\b"
    r"|\b[a-z0-9]+(?:\.[a-z0-9]+)*\.(?:ftz|approx|full)\b[.a-z0-9]*"
)


# Numba's own functions are replaced while a kernel compiles, so only one does at a time.
_lock: Final = threading.RLock()


class FloatPolicyError(RuntimeError):
    """A compiled kernel rounds otherwise than its CPU twin."""


class SharedMemoryError(ValueError):
    """A block would need more shared memory than it has."""


def check_float_policy(ptx: str) -> None:
    """Raise :class:`FloatPolicyError` if PTX has an operation that is not rounded as on the CPU."""
    found = sorted(set(_FORBIDDEN.findall(ptx)))
    if found:
        raise FloatPolicyError(f"CUDA kernel with operations that round otherwise: {', '.join(found)}")


@contextlib.contextmanager
def _exact_floats() -> Iterator[None]:
    """Have ``numba.cuda`` compile without contraction, for this block only."""
    from numba.cuda.cudadrv import nvvm  # noqa: PLC0415 - the simulator has none

    with _lock:
        plain = nvvm.compile_ir

        def compile_ir(modules: Any, **options: Any) -> Any:
            return plain(modules, **(options | {"fma": False}))

        nvvm.compile_ir = compile_ir
        try:
            yield
        finally:
            nvvm.compile_ir = plain


@dataclass(frozen=True)
class Resources:
    """What one kernel needs on the card, as the assembler ``ptxas`` reports it.

    Attributes
    ----------
    registers : int
        Registers a thread.
    shared_bytes : int
        Static shared memory a block; the dynamic part comes on top.
    stack_bytes, spill_bytes : int
        Local memory a thread: its stack frame, and registers that did not fit (stores plus loads).
    cubin : bytes
        The machine code.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int
    cubin: bytes


def find_ptxas() -> Path | None:
    """``ptxas`` of the toolkit wheels (extra ``cuda12``; ``cuda13`` brings none) or on the path."""
    wheels = importlib.util.find_spec("nvidia")
    for folder in (wheels.submodule_search_locations or ()) if wheels else ():
        for found in sorted(Path(folder).glob("*/bin/ptxas*")):
            return found
    on_path = shutil.which("ptxas")
    return Path(on_path) if on_path else None


def assemble(ptx: str, cc: tuple[int, int]) -> Resources:
    """Assemble the only kernel of a PTX text for a compute capability.

    Raises
    ------
    FileNotFoundError
        Without ``ptxas``.
    subprocess.CalledProcessError
        If ``ptxas`` refuses the text.
    """
    ptxas = find_ptxas()
    if ptxas is None:
        raise FileNotFoundError("no ptxas: install evsnn[cuda12]")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [str(ptxas), "-v", f"-arch=sm_{cc[0]}{cc[1]}", str(source), "-o", str(target)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr

        def total(pattern: str) -> int:
            return sum(int(n) for n in re.findall(pattern, report))

        return Resources(
            total(r"Used (\d+) registers"),
            total(r"(\d+) bytes smem"),
            total(r"(\d+) bytes stack frame"),
            total(r"(\d+) bytes spill (?:stores|loads)"),
            target.read_bytes(),
        )


class _TargetDevice:
    """Stands for a card of a compute capability where there is none: all that compiling asks of it."""

    def __init__(self, cc: tuple[int, int]) -> None:
        self.compute_capability = cc


@contextlib.contextmanager
def _compiling_for(cc: tuple[int, int]) -> Iterator[None]:
    """Let functions called by a kernel compile for ``cc``; Numba would ask the current card."""
    from numba.cuda import dispatcher  # noqa: PLC0415 - the simulator has none

    with _lock:
        plain = dispatcher.get_current_device
        dispatcher.get_current_device = lambda: _TargetDevice(cc)
        try:
            yield
        finally:
            dispatcher.get_current_device = plain


class CudaKernel:
    """A CUDA kernel that computes what its CPU twin computes, to the bit.

    Made by :func:`evsnn_kernels.jit.cuda_kernel`.

    Attributes
    ----------
    function : callable
        The Python function.
    """

    def __init__(
        self,
        function: Callable[..., None],
        threads: int | Callable[..., int],
        shared_bytes: Callable[..., int] | None,
        indices: int,
        blocks: Callable[..., int] | None,
    ) -> None:
        self.function = function
        self._threads = threads
        self._shared_bytes = shared_bytes
        self._indices = indices
        self._blocks = blocks
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self._dispatcher: Any = cuda.jit(function) if SIMULATED else None
        self._compiled: set[tuple[Any, ...]] = set()

    def threads(self, *args: Any) -> int:
        """Threads a block of an ordinary launch with these arguments."""
        return self._threads(*args) if callable(self._threads) else self._threads

    def shared_bytes(self, *args: Any) -> int:
        """Bytes of dynamic shared memory a block needs for these arguments."""
        return 0 if self._shared_bytes is None else self._shared_bytes(*args)

    def blocks(self, size: int, *args: Any) -> tuple[int, int]:
        """Blocks of an ordinary launch for ``size`` indices: in all, and for each share of an index."""
        return -(-size // self._indices), 1 if self._blocks is None else self._blocks(*args)

    def launch(self, size: int, *args: Any, threads: int | None = None, stream: Any = 0) -> None:
        """Run the kernel for ``size`` indices; the range ``first, last`` is the last two arguments.

        Parameters
        ----------
        size : int
            Number of indices, ``last - first``. Nothing runs if it is 0.
        *args
            The kernel's arguments: device arrays and scalars of the types that the CPU twin gets.
        threads : int, optional
            Threads a block instead of the kernel's own number.
        stream : optional
            Stream of ``numba.cuda``.

        Raises
        ------
        SharedMemoryError
            If the sizes of the arrays need more shared memory than a block has.
        """
        if size > 0:
            shared = self.shared_bytes(*args)
            if shared > MOST_SHARED_BYTES:
                name = f"{self.__module__.rpartition('.')[2]}.{self.__name__}"
                raise SharedMemoryError(
                    f"{name} needs {shared} bytes of shared memory for these sizes, a CUDA block has"
                    f" {MOST_SHARED_BYTES}; use the CPU"
                )
            self[self.blocks(size, *args), threads or self.threads(*args), stream, shared](*args)

    def __getitem__(self, configuration: tuple[Any, ...]) -> Callable[..., None]:
        """Kernel for ``[blocks, threads, stream, shared_bytes]``, as in ``numba.cuda``."""
        if SIMULATED:
            simulated: Callable[..., None] = self._dispatcher[configuration]
            return simulated
        return lambda *args: self._run(configuration, args)

    def _run(self, configuration: tuple[Any, ...], args: tuple[Any, ...]) -> None:
        if self._dispatcher is None:
            self._dispatcher = cuda.jit(self.function, **_jit_options())
        key = tuple(self._dispatcher.typeof_pyval(a) for a in args)
        if key in self._compiled:
            self._dispatcher[configuration](*args)
            return
        with _exact_floats():
            self._dispatcher.compile(key)
        for ptx in _as_texts(self._dispatcher.inspect_asm(key)):
            check_float_policy(ptx)
        self._compiled.add(key)
        self._dispatcher[configuration](*args)

    def ptx(self, arguments: tuple[Any, ...], cc: tuple[int, int], *, exact: bool = True) -> str:
        """Compile without a card.

        Parameters
        ----------
        arguments : tuple of Numba types
            Types of the kernel's arguments; those of a device array are of mutable arrays in C order.
        cc : tuple of int
            Compute capability, such as (8, 0).
        exact : bool
            False compiles as ``numba.cuda`` does by itself, to show the difference.

        Raises
        ------
        FloatPolicyError
            If the result has an operation that is rounded otherwise than on the CPU.
        """
        with _compiling_for(cc), _exact_floats() if exact else contextlib.nullcontext():
            text, _ = cuda.compile(
                self.function, types.void(*arguments), device=False, abi="numba", cc=cc, output="ptx"
            )
        if exact:
            check_float_policy(text)
        return str(text)


def _jit_options() -> dict[str, Any]:
    """Options of ``cuda.jit``: PTX is what gets checked, so the linker must not optimise anew."""
    if "lto" not in inspect.signature(cuda.jit).parameters:
        # The numba.cuda inside Numba cannot compile the min and max of integers.
        raise RuntimeError("CUDA kernels need numba-cuda: pip install evsnn[cuda12] or evsnn[cuda13]")
    return {"lto": False}


def _as_texts(asm: Any) -> list[str]:
    return list(asm.values()) if isinstance(asm, dict) else [asm]
