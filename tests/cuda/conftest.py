"""Twin tests: every CUDA kernel, run in Numba's simulator, against its CPU twin, bit for bit.

Numba decides when it is imported whether it simulates, so these tests need a process of their own:
``tests/test_cuda_simulator.py`` starts it, or ``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda``. With a card,
``EVSNN_TEST_CARD=1 pytest tests/cuda`` runs what can run there: kernels as they are, nothing planted in them.
"""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np
import pytest

SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

CARD = os.environ.get("EVSNN_TEST_CARD") == "1" and not SIMULATOR

# Collected elsewhere: without the simulator or a card the modules could not even be imported.
collect_ignore_glob = [] if SIMULATOR or CARD else ["test_*.py"]
if CARD:
    # Tests launch few threads, on arrays of the host.
    os.environ |= {"NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "0", "NUMBA_CUDA_WARN_ON_IMPLICIT_COPY": "0"}
    collect_ignore_glob += ["test_planted.py", "test_simulator.py"]


def pytest_collection_modifyitems(items):
    """Skip on a card what changes a kernel's Python functions under it, or needs no card."""
    if CARD:
        for item in items:
            if item.get_closest_marker("planted"):
                item.add_marker(pytest.mark.skip(reason="differences are planted in the simulator"))
            elif "compiled_for_one_thread" in item.name:
                item.add_marker(pytest.mark.skip(reason="runs on the CPU"))


@pytest.fixture(autouse=True)
def fast_switching():
    """Simulated threads wait for each other at barriers: short turns make that many times faster."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


def same_bits(a, b):
    """Whether two arrays hold the same bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def copies(arguments):
    """The same arguments with arrays of their own."""
    return [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]


@pytest.fixture
def constants(monkeypatch):
    """Set constants of a kernel's module; what a card compiled has them in it for good."""

    def set_constants(module, **values):
        for name, value in values.items():
            if CARD and getattr(module, name) != value:
                pytest.skip(f"{name} is compiled into the kernels of a card")
            monkeypatch.setattr(module, name, value)

    return set_constants


def schedule(seed):
    """How a kernel's threads run: one at a time in the simulator, in an order drawn at every barrier."""
    if CARD:
        return contextlib.nullcontext()
    # The simulator's own modules are there only while it is on.
    from in_turns import in_turns

    return in_turns(seed)


@pytest.fixture
def twins():
    """Run a CPU kernel and its CUDA twin on copies of the arguments, compare all arrays, return CUDA's.

    Arrays at the positions ``apart`` are not compared.
    """

    def run(cpu, gpu, size, *args, threads=8, apart=()):
        ours = copies(args)
        cpu(*ours, 0, size)
        theirs = copies(args)
        with schedule(seed=size):
            gpu.launch(size, *theirs, 0, size, threads=threads)
        for position, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if isinstance(a, np.ndarray) and position not in apart:
                assert same_bits(a, b), f"argument {position}: {a} on the CPU, {b} on CUDA"
        return theirs

    return run
