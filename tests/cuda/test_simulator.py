"""What the twin tests rely on: all threads of a simulated block get the same shared array."""

from __future__ import annotations

import time

import evsnn_kernels.cuda.launch  # noqa: F401 - mends the simulator
import numpy as np
import pytest
from in_turns import in_turns
from numba import cuda
from numba.cuda.simulator import kernelapi


@cuda.jit
def neighbours(out):
    shared = cuda.shared.array(8, np.int32)
    thread = cuda.threadIdx.x
    shared[thread] = thread
    cuda.syncthreads()
    out[thread] = shared[(thread + 1) % 8]


def test_shared_arrays_are_made_once(monkeypatch):
    empty = np.empty

    def slow(*arguments, **options):
        time.sleep(0.002)  # long enough for other threads to look for the array
        return empty(*arguments, **options)

    monkeypatch.setattr(kernelapi.np, "empty", slow)
    out = np.zeros(8, np.int32)
    neighbours[1, 8](out)
    assert out.tolist() == [1, 2, 3, 4, 5, 6, 7, 0]


@cuda.jit
def without_a_barrier(out):
    shared = cuda.shared.array(8, np.int32)
    thread = cuda.threadIdx.x
    shared[thread] = 0
    cuda.syncthreads()
    shared[thread] = thread
    out[thread] = shared[(thread + 1) % 8]


@cuda.jit
def with_a_barrier_for_some(out):
    if cuda.threadIdx.x < 3:
        cuda.syncthreads()
    out[cuda.threadIdx.x] = 1


def test_threads_in_turns_find_a_missing_barrier():
    out = np.zeros(8, np.int32)
    with in_turns(seed=0):
        neighbours[1, 8](out)
        assert out.tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
        without_a_barrier[1, 8](out)
        assert out.tolist() != [1, 2, 3, 4, 5, 6, 7, 0]
        with pytest.raises(AssertionError, match="never reach"):
            with_a_barrier_for_some[1, 8](out)
