"""Twin tests: every CUDA kernel, run in Numba's simulator, against its CPU twin, bit for bit.

Numba decides when it is imported whether it simulates, so these tests need a process of their own:
``tests/test_cuda_simulator.py`` starts it, or ``NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda``.
"""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np
import pytest

SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

# Collected elsewhere: without the simulator the modules could not even be imported.
collect_ignore_glob = [] if SIMULATOR else ["test_*.py"]


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
def twins():
    """Run a CPU kernel and its CUDA twin on copies of the arguments, compare all arrays, return them.

    The twin runs twice: its threads all at once, and one at a time from barrier to barrier.
    """
    # The simulator's own modules are there only while it is on.
    from in_turns import in_turns

    def run(cpu, gpu, size, *args, threads=8):
        ours = copies(args)
        cpu(*ours, 0, size)
        for schedule in (contextlib.nullcontext(), in_turns(seed=size)):
            theirs = copies(args)
            with schedule:
                gpu.launch(size, *theirs, 0, size, threads=threads)
            for position, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                if isinstance(a, np.ndarray):
                    assert same_bits(a, b), f"argument {position}: {a} on the CPU, {b} on CUDA"
        return ours

    return run
