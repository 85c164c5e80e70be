"""Membrane traces of chosen neurons against the reference simulator."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels.layout import decay_tables
from reference.convolution import fields, simulate_pool
from reference.event_driven import simulate_dense
from support import sorted_events

from evsnn import DataError, Events, Network, NetworkSettings, SettingsError
from evsnn.network.trace import trace_membrane

PHYSICS = NetworkSettings(tau_ms=3.0, refractory_ms=0.4, kappa=-0.2, clamp=0.7, alpha=(0.8, 0.5), sigma=0.5)


def oracle(layer, times, units, weight=None):
    """The reference with the arithmetic that is defined to the bit."""
    neuron = layer.neuron
    return simulate_dense(
        times,
        units,
        layer.weight * np.float32(layer.gain) if weight is None else weight,
        layer.threshold,
        tau_us=neuron.tau_us,
        refractory_us=neuron.refractory_us,
        kappa=neuron.kappa,
        clamp=neuron.clamp,
        dtype=np.float32,
        decay_tables=decay_tables(neuron.tau_us),
        normalised=True,
        record=True,
    )


def agree(traces, result):
    """Traces of a dense layer equal the history of the reference; return how many spikes were seen."""
    for trace in traces:
        assert trace.times.tolist() == [time for time, _ in result.history]
        expected = np.array([v[trace.neuron] for _, v in result.history], np.float32)
        assert trace.potential.tobytes() == expected.tobytes()
        assert trace.spikes.tolist() == result.times[result.units == trace.neuron].tolist()
    return sum(len(trace.spikes) for trace in traces)


def test_dense_layers():
    network = Network.from_architecture("12-9-4", seed=3, settings=PHYSICS)
    times, units = sorted_events(np.random.default_rng(0), 150, 12, 4000)
    times[:3] = 0  # events at the very start
    events = Events.from_arrays(times, units)
    first = oracle(network.layers[0], events.times, events.units)
    assert agree(trace_membrane(network, events, 1, [8, 0, 3]), first) > 3
    second = oracle(network.layers[1], first.times, first.units)
    assert agree(trace_membrane(network, events, 2, range(4)), second) > 3
    record = network.run(events)
    last = trace_membrane(network, events, 2, range(4))
    assert [trace.potential[-1] for trace in last] == record.potential.tolist()


def test_convolution_and_what_follows_it():
    settings = NetworkSettings(tau_ms=3.0, refractory_ms=0.4, kappa=-0.1, clamp=0.7, alpha=(0.8, 0.3))
    network = Network.from_architecture("5x6x2-4C3p1-P2-3", seed=5, settings=settings)
    conv, pool, dense = network.layers
    times, units = sorted_events(np.random.default_rng(1), 200, 60, 3000)
    events = Events.from_arrays(times, units)
    places = fields(conv.in_shape, 3, 1, 1)
    spikes = []
    fired = 0
    for place, (_, _, reached) in enumerate(places):
        row_of = dict(reached)
        mine = np.array([unit in row_of for unit in events.units.tolist()])
        local = np.zeros((60, 4), np.float32)
        for unit, row in row_of.items():
            local[unit] = conv.weight[row]
        result = oracle(conv, events.times[mine], events.units[mine], local)
        if place in (0, 7, 13):
            neurons = [m * len(places) + place for m in range(4)]
            for m, trace in enumerate(trace_membrane(network, events, 1, neurons)):
                assert trace.neuron == neurons[m]
                moved = trace.times > 0  # at time 0 a place that nothing reached is at rest
                assert trace.times[moved].tolist() == [time for time, _ in result.history if time > 0]
                expected = np.array([v[m] for time, v in result.history if time > 0], np.float32)
                assert trace.potential[moved].tobytes() == expected.tobytes()
                assert trace.spikes.tolist() == result.times[result.units == m].tolist()
                fired += len(trace.spikes)
        spikes += [
            (int(t), int(m) * len(places) + place) for t, m in zip(result.times, result.units, strict=True)
        ]
    assert fired > 2
    spikes.sort()
    relayed = simulate_pool([t for t, _ in spikes], [u for _, u in spikes], pool.in_shape, 2)
    expected = oracle(dense, *relayed)
    assert agree(trace_membrane(network, events, 3, [2, 0]), expected) > 0


def test_a_neuron_asked_for_twice_and_a_silent_sample():
    network = Network.from_architecture("12-9-4", seed=3, settings=PHYSICS)
    times, units = sorted_events(np.random.default_rng(0), 150, 12, 4000)
    events = Events.from_arrays(times, units)
    busy = int(network.run(events).spikes[0].units[0])
    one, other = trace_membrane(network, events, 1, [busy, busy])
    assert one.spikes.tolist() == other.spikes.tolist() != []
    [none] = trace_membrane(network, Events.from_arrays([], []), 2, [1])
    assert (len(none.times), len(none.potential), len(none.spikes)) == (0, 0, 0)
    assert trace_membrane(network, events, 1, []) == []


@pytest.mark.parametrize(
    ("layer", "neurons", "words"),
    [
        (0, [0], "no layer 0 in 6x6-8C3-P2-20-3; layers with neurons: 1, 3, 4"),
        (5, [0], "no layer 5"),
        (2, [0], "layer 2 of 6x6-8C3-P2-20-3 only pools; layers with neurons: 1, 3, 4"),
        (1, [0, 128], "neurons 0 to 127, not 128"),
        (4, [-1], "neurons 0 to 2, not -1"),
    ],
)
def test_what_there_is_not(layer, neurons, words):
    network = Network.from_architecture("6x6-8C3-P2-20-3")
    with pytest.raises(SettingsError, match=words):
        trace_membrane(network, Events.from_arrays([1], [1]), layer, neurons)


def test_a_unit_outside_the_input():
    network = Network.from_architecture("6x6-8C3-P2-20-3")
    with pytest.raises(DataError, match="unit 36 is outside"):
        trace_membrane(network, Events.from_arrays([1], [36]), 1, [0])
