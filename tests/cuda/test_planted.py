"""The twin tests can fail: differences planted in a CUDA kernel are found by the same comparison."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu import dense as cpu_dense
from evsnn_kernels.cpu import gradient as cpu_gradient
from evsnn_kernels.cuda import dense, gradient
from support import sorted_events


def forward(twins):
    rng = np.random.default_rng(0)
    n, n_in, n_out = 3, 7, 8
    samples = [sorted_events(rng, 30, n_in, 900) for _ in range(n)]
    times, units = (np.concatenate(arrays) for arrays in zip(*samples, strict=True))
    events = times, units, np.arange(0, 90, 30), np.full(n, 30)
    weight = rng.normal(0, 0.3, (n_in, n_out)).astype(np.float32)
    state = np.zeros((n, n_out), np.float32), np.zeros(n, np.int64), np.zeros((n, 0), np.int64)
    queue = np.zeros(300, np.uint32), np.zeros(300, np.uint32), np.arange(0, 301, 100), np.zeros(n, np.int64)
    parameters = weight, *layout.decay_tables(500.0), np.float32(-4.0), np.float32(-0.1), 0, n_out
    return twins(
        cpu_dense.forward, dense.forward, n, *events, *parameters, *state, *queue, np.zeros(n, np.int64)
    )


def weights(twins):
    rng = np.random.default_rng(1)
    activity = rng.integers(0, 4, (9, 5)).astype(np.float32)
    delta = rng.normal(0, 1, (9, 6)).astype(np.float32)
    scale = rng.uniform(0.1, 1, 9).astype(np.float32)
    found = np.empty((5, 6), np.float32)
    return twins(cpu_gradient.weight_gradient, gradient.weight_gradient, 5, activity, delta, scale, found)


def test_without_a_planted_difference_they_agree(twins):
    assert forward(twins)[-2].sum() > 0
    weights(twins)


def test_a_fused_multiply_and_add_is_found(twins, monkeypatch):
    """Decay and reception rounded once: the exact product of two float32 fits a float64."""
    monkeypatch.setattr(dense, "decayed", lambda potential, factor: np.float64(potential) * factor)
    monkeypatch.setattr(dense, "received", lambda potential, weight: np.float32(potential + weight))
    with pytest.raises(AssertionError, match="on the CPU"):
        forward(twins)


def test_a_sum_in_another_order_is_found(twins, monkeypatch):
    """The samples of a sum are listed from the last to the first."""
    bits_below = gradient.bits_below

    def from_the_last(words, n):
        n_active = bits_below(words, 32 * len(words))
        return n_active if n == 32 * len(words) else n_active - 1 - bits_below(words, n)

    monkeypatch.setattr(gradient, "bits_below", from_the_last)
    with pytest.raises(AssertionError, match="on the CPU"):
        weights(twins)


def test_a_threshold_that_must_be_exceeded_is_found(twins, monkeypatch):
    events_on_the_threshold(twins)
    monkeypatch.setattr(dense, "reaches", lambda potential: potential > 1.0)
    with pytest.raises(AssertionError, match="on the CPU"):
        events_on_the_threshold(twins)


def events_on_the_threshold(twins):
    times, units = np.array([1, 2], np.uint32), np.array([0, 0], np.uint32)
    state = np.zeros((1, 8), np.float32), np.zeros(1, np.int64), np.zeros((1, 0), np.int64)
    queue = np.zeros(40, np.uint32), np.zeros(40, np.uint32), np.array([0, 40]), np.zeros(1, np.int64)
    parameters = np.full((1, 8), 0.5, np.float32), *layout.decay_tables(np.inf), np.float32(-4.0)
    twins(
        cpu_dense.forward,
        dense.forward,
        1,
        *(times, units, np.array([0]), np.array([2])),
        *parameters,
        *(np.float32(0.0), 0, 8),
        *state,
        *queue,
        np.zeros(1, np.int64),
    )
