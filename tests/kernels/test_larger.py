"""The larger and the smaller of two floats are the same bits for a neuron, for lanes and in plain Python."""

from __future__ import annotations

import itertools

import numba
import numpy as np
import pytest
from evsnn_kernels.cpu.vector import load, store
from evsnn_kernels.jit import larger, smaller
from evsnn_kernels.layout import LANES
from evsnn_kernels.spec.neuron import clamped

VALUES = np.float32([0.0, -0.0, 1.0, -1.0, 1e-45, np.inf, -np.inf, np.nan])


@numba.njit
def compiled(a, b):
    return larger(a, b), smaller(a, b)


@numba.njit
def clamp_lanes(values, floor):
    store(values, 0, clamped(load(values, 0), floor))


@pytest.mark.parametrize(("a", "b"), list(itertools.product(VALUES, VALUES)))
def test_one_meaning_of_larger_and_smaller(a, b):
    expected = np.float32([b if b > a else a, b if b < a else a])
    assert np.float32(compiled(a, b)).tobytes() == expected.tobytes()
    assert np.float32([larger(a, b), smaller(a, b)]).tobytes() == expected.tobytes()
    lanes = np.full(LANES, a, np.float32)
    clamp_lanes(lanes, b)
    assert lanes.tobytes() == np.full(LANES, expected[0]).tobytes()
