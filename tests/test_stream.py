"""Live streams: any packets make the spikes of the recording in one piece; what is late, held or refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from evsnn_kernels.cpu import conv, dense
from evsnn_kernels.layout import NEVER
from hypothesis import given, settings
from hypothesis import strategies as st

from evsnn import DataError, Events, Network, NetworkSettings, SettingsError
from evsnn.backends import CpuBackend
from evsnn.layers.base import SpikingLayer
from evsnn.network import stream as stream_module
from evsnn.network.simulation import Simulator

PHYSICS = [
    NetworkSettings(tau_ms=3.0, clamp=2.0, alpha=(1.5, 1.0)),
    NetworkSettings(tau_ms=3.0, refractory_ms=0.4, kappa=-0.2, clamp=0.7, alpha=(0.8, 0.5)),
    NetworkSettings(tau_ms=np.inf, refractory_ms=1.0, clamp=1.0, alpha=(0.6, 0.4)),
    NetworkSettings(tau_ms=20.0, kappa=-0.4, clamp=np.inf, alpha=(0.8, 0.4)),
]
ARCHITECTURES = ["12-9-4", "12-70-21-5", "6x6x2-5C3-P2-3", "6x5x1-3C3p1-4C2-4", "9x9x2-P3-6C2p1-7-3"]


def network_of(architecture, physics, seed=0):
    return Network.from_architecture(architecture, seed=seed, settings=PHYSICS[physics])


def random_events(rng, n_in, n, span):
    """Sorted by (time, unit); a small span makes large time groups, and duplicates."""
    times = np.sort(rng.integers(0, span, n))
    units = rng.integers(0, n_in, n)
    order = np.lexsort((units, times))
    return times[order].astype(np.int64), units[order].astype(np.int64)


def push_all(stream, times, units, cuts):
    """Push the events cut at some places; return all spikes."""
    parts = [
        stream.push(part_times, part_units)
        for part_times, part_units in zip(np.split(times, cuts), np.split(units, cuts), strict=True)
    ]
    parts.append(stream.flush())
    return joined(parts)


def joined(parts):
    return np.concatenate([part.times for part in parts]), np.concatenate([part.units for part in parts])


def check_equal(network, stream, spikes, times, units, offset=0):
    """All that a stream shows equals the run of the whole recording, bit for bit; return its spikes."""
    record = network.run(Events.from_arrays(times, units))
    expected = record.spikes[-1]
    assert spikes[0].dtype == np.int64
    assert (spikes[0] - offset).tolist() == expected.times.tolist()
    assert spikes[1].tolist() == expected.units.tolist()
    assert stream.counts.tolist() == record.counts.tolist()
    assert stream.potential.tobytes() == record.potential.tobytes()
    assert stream.prediction == record.prediction
    return len(expected)


@st.composite
def recordings(draw):
    architecture = draw(st.sampled_from(ARCHITECTURES))
    network = network_of(architecture, draw(st.integers(0, len(PHYSICS) - 1)), draw(st.integers(0, 99)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 250))
    times, units = random_events(rng, network.n_inputs, n, draw(st.sampled_from([1, 20, 300, 30_000])))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=12)))
    return network, times, units, cuts


@given(recordings())
@settings(max_examples=60)
def test_packets_make_no_difference(recording):
    network, times, units, cuts = recording
    stream = network.stream()
    check_equal(network, stream, push_all(stream, times, units, cuts), times, units)
    counters = stream.counters
    assert (counters.received, counters.acted, counters.held) == (len(times), len(times), 0)
    assert counters.late == counters.reordered == 0
    pairs = Counter(zip(times.tolist(), units.tolist(), strict=True))
    assert counters.duplicates == sum(count - 1 for count in pairs.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("physics", range(len(PHYSICS)))
def test_one_event_a_packet(architecture, physics):
    network = network_of(architecture, physics)
    times, units = random_events(np.random.default_rng(1), network.n_inputs, 400, 9000)
    stream = network.stream()
    spikes = push_all(stream, times, units, np.arange(1, len(times)))
    assert check_equal(network, stream, spikes, times, units) > 3


def test_a_time_group_in_several_packets_acts_as_one():
    # Two inputs that only together reach the threshold of a neuron.
    network = network_of("2-1", 0)
    network.layers[0].weight[:] = 0.6
    network.layers[0].threshold[:] = 1.0
    stream = network.stream()
    assert len(stream.push([100], [1])) == 0
    assert stream.counters.held == 1
    assert len(stream.push([], [])) == 0
    assert len(stream.push([100], [0])) == 0
    assert stream.potential.tolist() == [0.0]
    spikes = stream.push([101], [0])
    assert (spikes.times.tolist(), spikes.units.tolist()) == ([100], [0])
    assert stream.counters.held == 1


@pytest.mark.parametrize("span", [1, 7, 1000])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_moving_origin_changes_no_bit(monkeypatch, span, architecture):
    monkeypatch.setattr(stream_module, "_SPAN", span)
    network = network_of(architecture, 1)
    times, units = random_events(np.random.default_rng(2), network.n_inputs, 300, 5000)
    stream = network.stream()
    spikes = push_all(stream, times, units, [10, 11, 150])
    assert check_equal(network, stream, spikes, times, units) > 3


@pytest.mark.parametrize("start", [0, 2**32 - 2500, 1_790_000_000_000_000, 2**62 - 5001])
def test_times_of_any_size(start):
    network = network_of("12-9-4", 1)
    times, units = random_events(np.random.default_rng(3), network.n_inputs, 300, 5000)
    for dtype in (np.int64, np.uint64):
        stream = network.stream()
        spikes = push_all(stream, (times + start).astype(dtype), units.astype(np.uint16), [5, 100, 101])
        assert check_equal(network, stream, spikes, times, units, offset=start) > 3


def test_days_with_pauses_of_hours():
    """After a long pause every potential has decayed to 0: what follows is a recording from rest."""
    network = network_of("6x6x2-5C3-P2-3", 1)
    times, units = random_events(np.random.default_rng(4), network.n_inputs, 200, 4000)
    stream = network.stream()
    hour = 3_600_000_000
    parts = [stream.push(times + start * hour, units) for start in (0, 1, 3, 70, 70_000_000)]
    parts.append(stream.flush())
    found_times, found_units = joined(parts)
    expected = network.run(Events.from_arrays(times, units)).spikes[-1]
    assert len(expected) > 3
    assert found_units.tolist() == expected.units.tolist() * 5
    assert (found_times % hour).tolist() == expected.times.tolist() * 5
    assert stream._states[0].last_spike.min() == NEVER  # has not run over


def test_a_packet_larger_than_a_slice(monkeypatch):
    monkeypatch.setattr(stream_module, "_SLICE", 7)
    network = network_of("6x6x2-5C3-P2-3", 1)
    times, units = random_events(np.random.default_rng(5), network.n_inputs, 500, 60)
    stream = network.stream()
    assert check_equal(network, stream, push_all(stream, times, units, []), times, units) > 3


def test_queues_that_grow():
    """Many events at once after few: the output queues were too small, and the packet is simulated again."""
    network = network_of("12-70-21-5", 0)
    times, units = random_events(np.random.default_rng(6), network.n_inputs, 4000, 9000)
    stream = network.stream()
    assert check_equal(network, stream, push_all(stream, times, units, [3, 30]), times, units) > 500


# Out of order


@pytest.mark.parametrize(("architecture", "repeated"), [("44x44x1-8C5-3", False), ("9-200-3", True)])
def test_small_packets_find_room_without_a_copy_of_a_large_state(monkeypatch, architecture, repeated):
    network = Network.from_architecture(architecture, settings=PHYSICS[0])
    network.layers[0].weight[:] = 2.0 * network.layers[0].threshold  # every event fires all that it reaches
    rng = np.random.default_rng(2)
    times, units = random_events(rng, network.n_inputs, 60, 4000)
    runs, packets = [], []
    run, advance = CpuBackend.run, Simulator.advance

    def noted(self, queue, states):
        packets.append(queue)
        return advance(self, queue, states)

    def counted(self, kernel, *arguments, **options):
        if kernel in (conv.forward, dense.forward):
            runs.append(kernel)
        run(self, kernel, *arguments, **options)

    monkeypatch.setattr(CpuBackend, "run", counted)
    monkeypatch.setattr(Simulator, "advance", noted)
    stream = network.stream()
    spikes = push_all(stream, times, units, [1, 2, 4, 8, 16, 32])
    monkeypatch.undo()
    again = len(runs) - len(network.layers) * len(packets)
    assert (again > 1) == repeated  # the first packet finds every layer at rest, where going back is free
    check_equal(network, stream, spikes, times, units)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_event_causes_more_than_its_reach(architecture):
    for layer in network_of(architecture, 0).layers:
        if isinstance(layer, SpikingLayer):
            assert layer.synapses.max() <= layer.reach <= layer.n_out


def sorted_in(arrivals, reorder_us):
    """Which events act, and how many were behind, one by one as the policy is written down."""
    newest, kept, late, behind = -1, [], 0, 0
    for time, unit in arrivals:
        if time < newest - reorder_us:
            late += 1
            continue
        behind += time < newest
        newest = max(newest, time)
        kept.append((time, unit))
    return sorted(kept), late, behind


@given(recordings(), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 30, 500]), st.integers(0, 1000))
@settings(max_examples=60)
def test_order_of_arrival(recording, seed, reorder_us, spread):
    network, times, units, cuts = recording
    delay = np.random.default_rng(seed).integers(0, spread + 1, len(times))
    order = np.argsort(times + delay, kind="stable")
    times, units = times[order], units[order]
    expected, late, behind = sorted_in(zip(times.tolist(), units.tolist(), strict=True), reorder_us)
    stream = network.stream(reorder_us=reorder_us)
    spikes = push_all(stream, times, units, cuts)
    assert (stream.counters.late, stream.counters.reordered) == (late, behind)
    assert (stream.counters.received, stream.counters.acted) == (len(times), len(expected))
    kept = np.array(expected, np.int64).reshape(-1, 2)
    check_equal(network, stream, spikes, kept[:, 0], kept[:, 1])


def test_how_long_events_are_held():
    stream = network_of("12-9-4", 0).stream(reorder_us=100)
    stream.push([1000, 1099], [0, 0])
    assert stream.counters.held == 2
    stream.push([1100], [0])
    assert (stream.counters.held, stream.next_time, stream.open_from) == (3, 1000, 1000)
    stream.push([1101], [0])
    assert (stream.counters.held, stream.next_time, stream.open_from) == (3, 1099, 1001)
    stream.push([1001, 1000], [3, 3])
    assert (stream.counters.reordered, stream.counters.late) == (1, 1)
    assert stream.next_time == 1001


def test_the_clock_of_the_sensor_lets_events_go():
    network = network_of("12-9-4", 0)
    stream = network.stream()
    stream.push([500], [0])
    stream.advance(500)
    assert stream.counters.held == 1  # another one of this time may come
    stream.advance(501)
    assert stream.counters.held == 0
    stream.advance(400)  # a clock that runs back changes nothing
    stream.push([501, 500], [0, 0])
    assert (stream.counters.held, stream.counters.late) == (1, 1)
    held = network.stream(reorder_us=50)
    held.push([500], [0])
    held.advance(550)
    assert held.counters.held == 1
    held.advance(551)
    assert held.counters.held == 0


def test_after_a_flush_its_times_are_late():
    stream = network_of("12-9-4", 0).stream(reorder_us=50)
    stream.push([500, 520], [0, 1])
    stream.flush()
    assert stream.counters.held == 0
    stream.push([490, 520, 521], [1, 2, 1])
    assert (stream.counters.late, stream.counters.held) == (2, 1)


def test_reset():
    network = network_of("6x6x2-5C3-P2-3", 1)
    times, units = random_events(np.random.default_rng(7), network.n_inputs, 300, 5000)
    stream = network.stream()
    push_all(stream, times + 2**40, units, [])
    stream.reset()
    assert stream.counts.sum() == stream.counters.received == 0
    assert check_equal(network, stream, push_all(stream, times, units, [100]), times, units) > 3


def test_a_look_at_the_state_between():
    """Simulated up to a time, the state is that of the recording cut off there."""
    network = network_of("12-9-4", 1)
    times, units = random_events(np.random.default_rng(8), network.n_inputs, 300, 5000)
    stream = network.stream()
    stream.accept(times, units)
    for until in (0, 1000, 1000, 3000):
        stream.run(until)
        before = times < until
        record = network.run(Events.from_arrays(times[before], units[before]))
        assert stream.counts.tolist() == record.counts.tolist()
        assert stream.potential.tobytes() == record.potential.tobytes()


# What is refused


@pytest.mark.parametrize(
    ("times", "units", "message"),
    [
        ([1, 2, 3], [0, 12, 1], "event 1 of the packet: unit 12 is outside the input of 12 units"),
        ([1, -2, 3], [0, 1, 1], "event 1 of the packet: time -2 us is outside 0 to 2^62 - 1; count microsec"),
        (np.array([2**62], np.uint64), [0], "event 0 of the packet: time 4611686018427387904 us is outside"),
        ([1.5], [0], "event times must be a row of integers (microseconds), got float64 in 1 dimensions"),
        ([[1]], [[0]], "event times must be a row of integers (microseconds), got int64 in 2 dimensions"),
        ([1], [0.5], "event units must be integers, got float64"),
        ([1], [-1], "event units must lie in 0 to 2^32 - 1, got -1 to -1"),
        ([1, 2], [0], "events need a time and a unit each, got shapes (2,) and (1,)"),
        ([True], [0], "event times must be a row of integers (microseconds), got bool in 1 dimensions"),
        ([], [3], "events need a time and a unit each, got shapes (0,) and (1,)"),
    ],
)
def test_a_refused_packet_changes_nothing(times, units, message):
    stream = network_of("12-9-4", 0).stream()
    stream.push([1, 2], [3, 4])
    before = stream.counters, stream.potential.tobytes(), stream.open_from
    with pytest.raises(DataError) as error:
        stream.push(times, units)
    assert str(error.value).startswith(message)
    assert (stream.counters, stream.potential.tobytes(), stream.open_from) == before


def test_late_events_are_refused_if_asked():
    stream = network_of("12-9-4", 0).stream(late="refuse", reorder_us=10)
    stream.push([100, 90], [0, 0])
    before = stream.counters
    with pytest.raises(DataError, match=r"event 2 of the packet: time 100 us comes after 120 us; allow more"):
        stream.push([120, 111, 100], [0, 0, 0])
    assert stream.counters == before


def test_events_held_are_bounded():
    stream = network_of("12-9-4", 0).stream(max_held=5)
    stream.push([7] * 5, range(5))
    before = stream.counters
    with pytest.raises(DataError, match="6 events from 7 us on would have to be held, more than max_h"):
        stream.push([7], [0])
    assert stream.counters == before
    stream.push([8] * 5, range(5))  # the five before may go
    assert stream.counters.acted == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reorder_us": -1}, "reorder_us must be a whole number from 0 to"),
        ({"reorder_us": 0.5}, "reorder_us must be a whole number from 0 to"),
        ({"max_held": 0}, "max_held must be a whole number from 1 to"),
        ({"late": "keep"}, "late must be one of drop, refuse, got 'keep'"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(SettingsError, match=message):
        network_of("12-9-4", 0).stream(**wrong)


def test_clock_between_events_is_that_of_advance():
    network = network_of("12-9-4", 0)
    times, units = np.array([10, 20, 15, 30, 18, 19, 17, 28]), np.array([1, 99, 2, 3, 4, 5, 99, 6])
    clock = np.array([False, True, False, False, False, False, True, False])
    at_once = network.stream(reorder_us=4)
    at_once.accept(times, units, clock)
    spikes = at_once.run()
    step_by_step = network.stream(reorder_us=4)
    parts = []
    for time, unit, shown in zip(times.tolist(), units.tolist(), clock.tolist(), strict=True):
        parts.append(step_by_step.advance(time) if shown else step_by_step.push([time], [unit]))
    assert at_once.counters == step_by_step.counters
    assert at_once.counters.late == 3  # 15 after 20, 18 and 19 after 30
    assert at_once.counters.reordered == 1  # 28 after 30
    assert at_once.potential.tobytes() == step_by_step.potential.tobytes()
    assert spikes.times.tolist() == joined(parts)[0].tolist()


def test_a_clock_that_is_wrong():
    stream = network_of("12-9-4", 0).stream()
    with pytest.raises(DataError, match="time -1 us is outside"):
        stream.advance(-1)
