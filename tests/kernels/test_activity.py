"""Activity of units: counts and traces, times the weight of an event, and how many are not 0."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu.activity import activity
from reference import event_driven
from support import queue_of, sorted_events

N = 6


def measured(samples, kind, scale, tau=700.0, end_time=2500, n=N):
    queue = queue_of(samples)
    out, active = np.full((len(samples), n), 7, np.float32), np.full(len(samples), 7, np.int64)
    tables = layout.decay_tables(tau)
    events = (queue.times, queue.units, queue.start, queue.count)
    activity(*events, *tables, kind, end_time, np.float32(scale), out, active, 0, len(samples))
    return out, active


@pytest.mark.parametrize("scale", [1.0, 0.25, 1 / 9])
def test_counts_times_the_weight_of_an_event(scale):
    rng = np.random.default_rng(0)
    samples = [sorted_events(rng, n, N - 1, 3000) for n in (40, 0, 3)]
    out, active = measured(samples, layout.ACTIVITY_COUNTS, scale)
    counts = np.stack([np.bincount(units, minlength=N) for _, units in samples])
    np.testing.assert_array_equal(out, counts.astype(np.float32) * np.float32(scale))
    np.testing.assert_array_equal(active, (counts > 0).sum(axis=1))
    assert 0 < active[2] < active[0] < N


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_traces_times_the_weight_of_an_event(scale):
    rng = np.random.default_rng(1)
    samples = [sorted_events(rng, n, N, 3000) for n in (80, 2)]
    out, active = measured(samples, layout.ACTIVITY_TRACE, scale)
    for s, (times, units) in enumerate(samples):
        inside = np.minimum(times, 2500)  # what comes after the end counts in full
        expected = event_driven.activity(inside, units, N, "trace", T=2500, tau=700.0)
        np.testing.assert_allclose(out[s], scale * expected, rtol=1e-6)
    np.testing.assert_array_equal(active, np.count_nonzero(out, axis=1))


def test_a_trace_that_has_decayed_to_nothing_is_not_active():
    times, units = np.array([0, 900_000], np.uint32), np.array([2, 4], np.uint32)
    out, active = measured([(times, units)], layout.ACTIVITY_TRACE, 1.0, tau=5000.0, end_time=900_000)
    assert out[0].tolist() == [0, 0, 0, 0, 1, 0]
    assert active.tolist() == [1]
