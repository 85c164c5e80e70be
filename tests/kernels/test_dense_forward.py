"""The dense layer against the plain NumPy reference, spike for spike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu import dense
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.event_driven import simulate_dense
from support import queue_of, run_layer, simulate, sorted_events

from evsnn.backends import CpuBackend
from evsnn.layers import Dense, NeuronSettings


def reference(weight, threshold, neuron, times, units, *, exact=True):
    """The reference in the kernels' own arithmetic (float32, threshold 1), or in float64 volts."""
    options = {"dtype": np.float32, "normalised": True, "decay_tables": layout.decay_tables(neuron.tau_us)}
    return simulate_dense(
        times,
        units,
        weight.astype(np.float32) if exact else weight,
        threshold.astype(np.float32) if exact else threshold,
        tau_us=neuron.tau_us,
        refractory_us=neuron.refractory_us,
        kappa=neuron.kappa,
        clamp=neuron.clamp,
        **(options if exact else {}),
    )


def assert_same(found, potential, expected):
    np.testing.assert_array_equal(found[0], expected.times)
    np.testing.assert_array_equal(found[1], expected.units)
    np.testing.assert_array_equal(potential, np.asarray(expected.potential, np.float32))


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_in = draw(st.integers(1, 12))
    n_out = draw(st.sampled_from([1, 2, 10, 31, 32, 33, 64, 70]))
    n_events = draw(st.integers(0, 120))
    span = draw(st.sampled_from([1, 5, 60, 3000, 2_000_000, 2**32 - 1]))
    neuron = NeuronSettings(
        tau_ms=draw(st.sampled_from([0.05, 2.0, 20.0, 500.0, math.inf])),
        refractory_ms=draw(st.sampled_from([0.0, 0.001, 0.004, 1.0, 50.0])),
        kappa=draw(st.sampled_from([0.0, -0.05, -0.4, -1.0])),
        clamp=draw(st.sampled_from([0.0, 1.0, 8.0, math.inf])),
    )
    grid = draw(st.booleans())  # weights on a coarse grid meet the threshold exactly, again and again
    weight = rng.normal(0.15, 0.5, (n_in, n_out))
    threshold = rng.uniform(0.2, 2.0, n_out)
    if grid:
        weight, threshold = np.round(weight * 4) / 4, np.full(n_out, 0.5)
    return weight, threshold, neuron, sorted_events(rng, n_events, n_in, span)


@settings(max_examples=300)
@given(cases())
def test_equals_the_reference_bit_for_bit(case):
    weight, threshold, neuron, (times, units) = case
    (found,), potential = run_layer(weight, threshold, neuron, [(times, units)])
    assert_same(found, potential[0], reference(weight, threshold, neuron, times, units))


def run_with_slots(layer, samples, sizes):
    """Queue and slots after one call of the kernel, its counters, the state; slots begin full of sevens."""
    backend, queue, n = CpuBackend(1), queue_of(samples), len(samples)
    placed, state = layer.place(backend), layer.new_state(n, backend)
    slot = np.concatenate([[0], np.cumsum(sizes)])
    times, units = np.full(slot[-1], 7, np.uint32), np.full(slot[-1], 7, np.uint32)
    count, operations = np.zeros(n, np.int64), np.zeros(n, np.int64)
    dense.forward(
        *(queue.times, queue.units, queue.start, queue.count),
        *(placed.scaled, *placed.decay, np.float32(-layer.neuron.clamp), np.float32(layer.neuron.kappa), 0),
        layer.n_out,
        *(*state.arrays(), times, units, slot, count, operations, 0, n),
    )
    return (times, units, slot), count, operations, state


@pytest.mark.parametrize("n_out", [8, 16, 24, 63, 64, 65, 100, 128, 129, 200, 248, 264, 300])
@pytest.mark.parametrize("span", [5, 4000])
def test_tiles_of_neurons_equal_the_reference(n_out, span):
    """Neurons that do not act on each other run tile by tile; every width of a tile meets its edges here."""
    rng = np.random.default_rng(n_out + span)
    weight = (np.round(rng.normal(0.1, 0.5, (9, n_out)) * 4) / 4).astype(np.float32)
    layer = Dense(weight, np.full(n_out, 0.5, np.float32), NeuronSettings(tau_ms=3.0, clamp=1.0))
    samples = [sorted_events(rng, n, 9, span) for n in (60, 0, 1, 200)]
    # Room for all, and not for one more.
    _, sizes, *_ = run_with_slots(layer, samples, [200 * n_out] * 4)
    (out_times, out_units, slot), count, _, state = run_with_slots(layer, samples, sizes)
    potential = layer.membranes(state.potential)
    for sample, (times, units) in enumerate(samples):
        found = slice(slot[sample], slot[sample] + count[sample])
        expected = reference(weight, layer.threshold, layer.neuron, times, units)
        assert_same((out_times[found], out_units[found]), potential[sample], expected)
    assert count[3] > 0


@pytest.mark.parametrize("capacity", [0, 1, 7, 40])
@pytest.mark.parametrize("kappa", [0.0, -0.01])
def test_a_slot_that_is_too_small_harms_no_other(capacity, kappa):
    rng = np.random.default_rng(capacity)
    n_out = 136
    weight = rng.normal(0.3, 0.5, (6, n_out)).astype(np.float32)
    layer = Dense(weight, np.ones(n_out, np.float32), NeuronSettings(kappa=kappa))
    samples = [sorted_events(rng, n, 6, 3000) for n in (50, 20, 50)]
    events, expected, operations = simulate(layer, samples)
    (times, units, slot), count, used, state = run_with_slots(layer, samples, [5000, capacity, 5000])
    np.testing.assert_array_equal(count, [len(t) for t, _ in events])
    assert count[1] > capacity
    for sample in (0, 2):
        low, high, end = slot[sample], slot[sample] + count[sample], slot[sample + 1]
        np.testing.assert_array_equal(times[low:high], events[sample][0])
        np.testing.assert_array_equal(units[low:high], events[sample][1])
        assert (times[high:end] == 7).all()
    np.testing.assert_array_equal(layer.membranes(state.potential), expected)
    np.testing.assert_array_equal(used, operations)
    np.testing.assert_array_equal(state.last_update, [t[-1] for t, _ in samples])


@settings(max_examples=150)
@given(cases())
def test_equals_the_reference_in_float64_where_no_potential_is_near_threshold(case):
    weight, threshold, neuron, (times, units) = case
    expected = reference(weight, threshold, neuron, times, units, exact=False)
    if expected.margin < 1e-3:
        return
    (found,), potential = run_layer(weight, threshold, neuron, [(times, units)])
    np.testing.assert_array_equal(found[0], expected.times)
    np.testing.assert_array_equal(found[1], expected.units)
    np.testing.assert_allclose(potential[0], expected.potential / threshold, rtol=1e-5, atol=2e-4)


def test_most_float64_cases_are_compared():
    """The margin of the test above must not excuse everything."""
    rng = np.random.default_rng(3)
    kept = 0
    for _ in range(40):
        weight, threshold = rng.normal(0.1, 0.5, (5, 8)), rng.uniform(0.5, 1.5, 8)
        times, units = sorted_events(rng, 60, 5, 3000)
        kept += reference(weight, threshold, NeuronSettings(), times, units, exact=False).margin >= 1e-3
    assert kept >= 10


def one(weight, events, threads=1, **settings):
    """Spikes (time, neuron) of a layer of thresholds 1, from events (time, unit)."""
    times = np.array([time for time, _ in events], np.uint32)
    units = np.array([unit for _, unit in events], np.uint32)
    weight = np.array(weight, np.float32)
    neuron = NeuronSettings(**{"tau_ms": math.inf, **settings})
    ((out_times, out_units),), potential = run_layer(
        weight, np.ones(weight.shape[1]), neuron, [(times, units)], threads
    )
    return list(zip(out_times.tolist(), out_units.tolist(), strict=True)), potential[0]


class TestByHand:
    def test_threshold_is_met_when_equal_and_reset_is_soft(self):
        spikes, potential = one([[1.0], [1.75]], [(3, 0), (9, 1)])
        assert spikes == [(3, 0), (9, 0)]
        assert potential[0] == 0.75

    def test_one_spike_a_time_group_however_high_the_potential(self):
        spikes, potential = one([[5.0]], [(1, 0)])
        assert spikes == [(1, 0)]
        assert potential[0] == 4.0

    def test_order_inside_a_time_group_does_not_matter(self):
        # One by one, the first event would fire before the second takes the potential back.
        assert one([[1.5], [-1.0]], [(5, 0), (5, 1)])[0] == []
        assert one([[-1.0], [1.5]], [(5, 0), (5, 1)])[0] == []

    def test_clamp_after_the_whole_group(self):
        _, potential = one([[-5.0], [4.5]], [(1, 0), (1, 1)], clamp=2.0)
        assert potential[0] == -0.5
        _, potential = one([[-5.0], [0.5]], [(1, 0), (2, 1)], clamp=2.0)
        assert potential[0] == -1.5

    def test_simultaneous_spikes_inhibit_each_other_once(self):
        spikes, potential = one([[1.0, 1.0, 0.25]], [(1, 0)], kappa=-0.5, clamp=0.75)
        assert spikes == [(1, 0), (1, 1)]
        assert potential.tolist() == [-0.5, -0.5, -0.75]

    def test_a_single_spike_leaves_its_own_neuron_alone(self):
        _, potential = one([[1.0, 0.5]], [(1, 0)], kappa=-0.25)
        assert potential.tolist() == [0.0, 0.25]

    @pytest.mark.parametrize(("since", "expected"), [(1000, 1.0), (500, 0.25), (999, 0.999**2)])
    def test_refractory_period_weakens_input_until_it_ends(self, since, expected):
        _, potential = one([[1.0], [0.5]], [(10, 0), (10 + since, 1)], refractory_ms=1.0)
        assert potential[0] == pytest.approx(0.5 * expected, rel=1e-6)

    def test_decay(self):
        _, potential = one([[0.5]], [(0, 0), (20_000, 0)], tau_ms=20.0)
        assert potential[0] == pytest.approx(0.5 * math.exp(-1) + 0.5, rel=1e-6)

    def test_a_sample_without_events(self):
        spikes, potential = one([[1.0]], [])
        assert spikes == []
        assert potential.tolist() == [0.0]

    def test_the_last_microsecond(self):
        assert one([[1.0]], [(2**32 - 1, 0)])[0] == [(2**32 - 1, 0)]


def test_all_events_at_one_time_and_a_wide_layer():
    rng = np.random.default_rng(0)
    weight, threshold = rng.normal(0, 1, (50, 1000)), np.full(1000, 0.7)
    times, units = np.full(400, 77, np.uint32), np.sort(rng.integers(0, 50, 400)).astype(np.uint32)
    neuron = NeuronSettings(kappa=-0.01, clamp=3.0)
    (found,), potential = run_layer(weight, threshold, neuron, [(times, units)])
    assert_same(found, potential[0], reference(weight, threshold, neuron, times, units))


def test_queues_grow_and_nothing_is_lost():
    """The first slot holds 64 events; thousands come."""
    rng = np.random.default_rng(1)
    weight, threshold = np.abs(rng.normal(0.5, 0.1, (3, 40))), np.full(40, 0.4)
    neuron = NeuronSettings(refractory_ms=0.5, kappa=-0.02)
    samples = [sorted_events(rng, n, 3, 100_000) for n in (0, 900, 3, 2000)]
    found, potential = run_layer(weight, threshold, neuron, samples)
    assert len(found[3][0]) > 5000
    for sample, (times, units) in enumerate(samples):
        assert_same(found[sample], potential[sample], reference(weight, threshold, neuron, times, units))


def test_an_event_costs_one_operation_a_neuron():
    rng = np.random.default_rng(3)
    layer = Dense(rng.normal(0, 1, (6, 11)).astype(np.float32), np.ones(11, np.float32), NeuronSettings())
    samples = [sorted_events(rng, n, 6, 1000) for n in (20, 0, 7)]
    operations = simulate(layer, samples)[2]
    assert operations.tolist() == [220, 0, 77]


@pytest.mark.usefixtures("spread")
@pytest.mark.parametrize("refractory_ms", [0.0, 2.0])
def test_threads_do_not_change_a_bit(refractory_ms):
    rng = np.random.default_rng(2)
    weight, threshold = rng.normal(0.05, 0.3, (20, 100)), rng.uniform(0.5, 1.0, 100)
    neuron = NeuronSettings(refractory_ms=refractory_ms, kappa=-0.1)
    samples = [sorted_events(rng, int(n), 20, 50_000) for n in rng.integers(0, 300, 37)]
    one_thread = run_layer(weight, threshold, neuron, samples, threads=1)
    for threads in (2, 3):
        several = run_layer(weight, threshold, neuron, samples, threads=threads)
        for a, b in zip(one_thread[0], several[0], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one_thread[1], several[1])


@pytest.mark.parametrize("refractory_ms", [0.0, 3.0])
@pytest.mark.parametrize("kappa", [0.0, -0.3])
def test_state_carries_over_any_cut(refractory_ms, kappa):
    """Two halves with the state kept equal the whole, wherever the cut falls between two times."""
    rng = np.random.default_rng(4)
    times, units = sorted_events(rng, 200, 6, 30_000)
    layer = Dense(
        rng.normal(0.1, 0.4, (6, 33)).astype(np.float32),
        np.full(33, 0.8, np.float32),
        NeuronSettings(tau_ms=10.0, refractory_ms=refractory_ms, kappa=kappa),
    )
    whole = layer.new_state(1, CpuBackend(1))
    [expected], _, _ = simulate(layer, [(times, units)], state=whole)
    for wished in (1, 57, 199):
        cut = wished
        while times[cut] == times[cut - 1]:
            cut += 1
        state = layer.new_state(1, CpuBackend(1))
        parts = [
            simulate(layer, [part], state=state)[0][0]
            for part in ((times[:cut], units[:cut]), (times[cut:], units[cut:]))
        ]
        np.testing.assert_array_equal(np.concatenate([parts[0][0], parts[1][0]]), expected[0])
        np.testing.assert_array_equal(np.concatenate([parts[0][1], parts[1][1]]), expected[1])
        np.testing.assert_array_equal(state.potential, whole.potential)


def test_the_comparison_finds_a_planted_error():
    """One weight that is a hundred thousandth off changes some spike or potential."""
    rng = np.random.default_rng(5)
    weight, threshold = rng.normal(0.1, 0.4, (6, 20)), np.full(20, 0.9)
    times, units = sorted_events(rng, 150, 6, 10_000)
    expected = reference(weight, threshold, NeuronSettings(), times, units)
    wrong = weight.astype(np.float32)
    wrong[2, weight.sum(axis=0).argmax()] *= 1.00001  # a neuron that is busy, not one at its clamp
    (found,), potential = run_layer(wrong, threshold, NeuronSettings(), [(times, units)])
    with pytest.raises(AssertionError):
        assert_same(found, potential[0], expected)


def test_decay_tables_follow_the_exponential():
    for tau_us in (50.0, 20_000.0, 3e6):
        high, low = layout.decay_tables(tau_us)
        dt = np.unique(np.geomspace(1, min(60 * tau_us, 2**31), 500).astype(np.int64))
        factor = high[np.minimum(dt >> 10, len(high) - 1)] * low[dt & 1023]
        np.testing.assert_allclose(factor, np.exp(-dt / tau_us), rtol=2e-7, atol=1e-25)
        assert high[-1] == 0.0


def test_decay_table_of_a_very_long_time_constant_stays_small():
    high, _ = layout.decay_tables(1e9)
    assert len(high) == 2**22 + 1
    assert high[-1] == pytest.approx(math.exp(-(2**32) / 1e9), rel=1e-6)
