"""States at rest and events that found room, on CUDA: the bits of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels.cpu import queue as cpu_queue
from evsnn_kernels.cpu import state as cpu_state
from evsnn_kernels.cuda import queue, state


@pytest.mark.parametrize("spikes", [0, 17])
@pytest.mark.parametrize("places", [1, 7, 8, 9])
def test_rest(twins, places, spikes):
    potential = np.full((3, 17), np.nan, np.float32)
    times, last_spike = np.full((3, places), 5, np.int64), np.full((3, spikes), 5, np.int64)
    twins(cpu_state.rest, state.rest, 3, potential, times, last_spike)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 26])
def test_admit(twins, n):
    rng = np.random.default_rng(n)
    slot = np.cumsum(rng.integers(0, 6, n + 1))
    counts, admitted, overflow = rng.integers(0, 6, n), np.full(n, -7), np.zeros(1, np.int64)
    result = twins(cpu_queue.admit, queue.admit, n, slot, counts, admitted, overflow)
    assert result[2].min() >= 0
    assert result[3][0] == (counts > np.diff(slot)).any()
