"""The smallest and the largest that there can be: handled, or refused in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.event_driven import simulate_dense
from support import toy_events

from evsnn import EventAugmentSettings, LearningSettings, Network, NetworkSettings, load_model, save_model
from evsnn.backends import CpuBackend
from evsnn.errors import DataError, SettingsError
from evsnn.events import Events, EventSet, EventWriter, open_events
from evsnn.events.queue import HostQueue
from evsnn.layers import Dense, NeuronSettings
from evsnn.network.simulation import Simulator
from evsnn.training import evaluate, fit

PLAIN = EventAugmentSettings.none()
END = 2**32 - 1


def one_sample(times, units, n_inputs, classes=1, duration=1 << 32):
    return EventSet(
        np.asarray(times, np.uint32),
        np.asarray(units, np.uint32),
        np.array([0, len(times)], np.int64),
        np.zeros(1, np.uint16),
        (n_inputs, 1, 1),
        duration,
        classes,
    ).check()


def learn(network, data, **options):
    learning = LearningSettings(lr=1e-2, threshold_lr=0.5, batch_size=4)
    history = fit(network, data, epochs=2, learning=learning, event_augmentation=PLAIN, threads=1, **options)
    assert all(np.isfinite(line["loss"]) for line in history)
    for layer in network.spiking_layers:
        assert np.isfinite(layer.weight).all()
        assert (layer.threshold > 0).all()
    return history


def test_one_neuron_and_one_event():
    network = Network.from_architecture("1-1", settings=NetworkSettings(alpha=0.1))
    network.layers[0].weight[:] = 1.0
    data = one_sample([7], [0], 1)
    assert len(network.run(data[0]).spikes[0]) == 1
    learn(network, data)
    assert evaluate(network, data).predictions.tolist() == [0]


def test_no_event_at_all():
    network = Network.from_architecture("3-2-1")
    data = one_sample([], [], 3)
    learn(network, data)
    assert network.predict(data).tolist() == [0]


@pytest.mark.parametrize("architecture", ["4-65536-2", "4-2", "256x256-2"])
def test_65536_neurons_or_inputs(architecture, tmp_path):
    network = Network.from_architecture(architecture, settings=NetworkSettings(alpha=1.0))
    n = network.n_inputs
    data = one_sample([0, 5, 5, 9], [0, 1, n - 1, n - 1], n, 2)
    data = data if n == 4 else replace(data, shape=(1, 256, 256))
    history = learn(network, data)
    assert history[-1]["events_per_sample"][0] == 4
    save_model(tmp_path / "model.h5", network)
    assert load_model(tmp_path / "model.h5").predict(data).tolist() == network.predict(data).tolist()


@pytest.mark.parametrize("at_once", [True, False])
def test_ten_million_events_in_one_sample(at_once):
    n = 10_000_000
    times = np.full(n, 12345, np.uint32) if at_once else np.arange(n, dtype=np.uint32) * 429
    units = np.sort(np.arange(n, dtype=np.uint32) % 4) if at_once else np.arange(n, dtype=np.uint32) % 4
    data = one_sample(times, units, 4, 2)
    weight = np.array([[0.25, -0.25], [0.25, 0.25], [0.25, 0.25], [0.25, 0.25]], np.float32)
    still = NeuronSettings(tau_ms=np.inf, clamp=np.inf)
    layer = Dense(weight, np.ones(2, np.float32), still)
    with CpuBackend(1) as backend:
        state = layer.new_state(1, backend)
        queue = HostQueue(data.times, data.units, data.offsets[:-1], np.diff(data.offsets))
        out = layer.forward(queue, state, layer.place(backend)).fetch(backend)
    times, units = out.sample(0)
    if at_once:
        # One time group: every neuron fires at most once, and the rest stays in its potential.
        assert (times.tolist(), units.tolist()) == ([12345, 12345], [0, 1])
        assert layer.membranes(state.potential)[0].tolist() == [n / 4 - 1, n / 8 - 1]
    else:
        # Every sum is exact in float32: four events bring 1 and 0.5.
        assert np.bincount(units).tolist() == [n / 4, n / 8]
        assert (np.diff(times.astype(np.int64)) >= 0).all()
        assert times.max() > END * 0.99


def test_all_events_of_a_set_at_one_time():
    data = toy_events(np.random.default_rng(0), 20)
    rows = [np.sort(data[i].units) for i in range(len(data))]
    data = replace(data, times=np.zeros_like(data.times), units=np.concatenate(rows)).check()
    for architecture in ("25-20-3", "5x5-4C3-P3-7-3"):
        network = Network.from_architecture(architecture, settings=NetworkSettings(alpha=1.0))
        history = learn(network, data)
        assert max(history[-1]["events_per_sample"][1:]) <= 20 * 9  # once a neuron


# Time


@given(st.integers(0, 10_000), st.sampled_from([0.0, 3.0]), st.integers(0, 50))
@settings(max_examples=30)
def test_times_up_to_71_minutes_are_exact(gap, refractory_ms, seed):
    """Differences of 32-bit times, across half and the whole of their range."""
    rng = np.random.default_rng(seed)
    times = np.array([0, 3, 2**31 - 1, 2**31, 2**31 + 5, END - gap, END - gap // 2, END, END], np.uint32)
    units = rng.integers(0, 3, len(times)).astype(np.uint32)
    units[-2:] = np.sort(units[-2:])
    weight = rng.uniform(0.2, 0.9, (3, 2)).astype(np.float32)
    neuron = NeuronSettings(tau_ms=1e6, refractory_ms=refractory_ms, clamp=1.0)
    layer = Dense(weight, np.ones(2, np.float32), neuron)
    with CpuBackend(1) as backend:
        state = layer.new_state(1, backend)
        queue = HostQueue(times, units, np.zeros(1, np.int64), np.array([len(times)]))
        placed = layer.place(backend)
        found = layer.forward(queue, state, placed).fetch(backend).sample(0)
    expected = simulate_dense(
        times.astype(np.int64),
        units,
        weight,
        np.ones(2, np.float32),
        tau_us=neuron.tau_us,
        refractory_us=neuron.refractory_us,
        clamp=1.0,
        dtype=np.float32,
        normalised=True,
        decay_tables=placed.decay,
    )
    assert found[0].tolist() == list(expected.times)
    assert found[1].tolist() == list(expected.units)


@pytest.mark.parametrize("time", [2**32, -1])
def test_longer_recordings_are_refused(tmp_path, time):
    with pytest.raises(DataError, match=r"event times must lie in 0 to 2\^32 - 1.*71 minutes.*cut"):
        Events.from_arrays([0, time], [0, 0])
    with EventWriter(tmp_path / "long.h5", shape=(1, 1, 1), duration_us=None, classes=1) as writer:
        writer.begin_split("train")
        with pytest.raises(DataError, match=r"split train: times must lie in 0 to 2\^32 - 1.*71 minutes"):
            writer.append([0, time], [0, 0], [2], [0])


def test_the_longest_recording_survives_a_file(tmp_path):
    with EventWriter(tmp_path / "long.h5", shape=(1, 1, 1), duration_us=None, classes=1) as writer:
        writer.begin_split("train")
        writer.append([0, END], [0, 0], [2], [0])
    with open_events(tmp_path / "long.h5") as file:
        assert file.duration_us == 1 << 32
        data = file["train"].load()
        assert data.times.tolist() == [0, END]
        network = Network.from_architecture("1-1", settings=NetworkSettings(tau_ms=1e6, alpha=0.1))
        learn(network, data)
        learning = LearningSettings(activity="trace", batch_size=1)
        fit(network, data, epochs=1, learning=learning, threads=1)


# More events than 31 bits can count


@pytest.fixture
def sparse(tmp_path):
    """Two columns of 2^31 + 1000 events whose pages are never written but at the end."""
    n = 2**31 + 1000
    columns = [np.memmap(tmp_path / name, np.uint32, "w+", shape=(n,)) for name in ("times", "units")]
    rng = np.random.default_rng(3)
    columns[0][-900:] = np.sort(rng.integers(0, 10_000, 900))
    columns[1][-900:] = rng.integers(0, 5, 900)
    return columns


def test_events_beyond_31_bits_are_reached(sparse):
    times, units = sparse
    n = len(times)
    offsets = np.array([0, 0, n - 900, n - 500, n], np.int64)
    data = EventSet(times, units, offsets, np.zeros(4, np.uint16), (5, 1, 1), 10_000, 2)
    near = replace(
        data,
        times=np.array(times[-900:]),
        units=np.array(units[-900:]),
        offsets=np.array([0, 0, 0, 400, 900], np.int64),
    )
    network = Network.from_architecture("5-6-2", settings=NetworkSettings(alpha=1.0))
    assert data[2].times.tolist() == near[2].times.tolist()
    assert data.part(2, 4).times.tolist() == near.times.tolist()
    with CpuBackend(1) as backend:
        simulator = Simulator(network.layers, backend)
        found, expected = (
            simulator.outcome(
                HostQueue(part.times, part.units, part.offsets[2:4], np.diff(part.offsets)[2:]), 10_000
            )
            for part in (data, near)
        )
    assert found.events.tolist() == expected.events.tolist()
    assert found.potential.tobytes() == expected.potential.tobytes()
    assert found.events[1].sum() > 0


def test_a_writer_counts_beyond_31_bits(tmp_path):
    path = tmp_path / "many.h5"
    with EventWriter(path, shape=(1, 1, 1), duration_us=10, classes=1) as writer:
        writer.begin_split("train")
        writer._n_events = 2**31  # as if so many had been written
        writer.append([1, 2], [0, 0], [2], [0])
    with pytest.raises(DataError, match=f"run from 0 to {2**31 + 2}"):
        _ = open_events(path)["train"].offsets  # which therefore are not cut to 32 bits


# Thresholds


@given(
    st.floats(1e-3, 1e6),
    st.floats(1e-3, 1.0),
    st.integers(1, 1 << 20),
    st.sampled_from([1.0, 1 / 4, 1 / 65536]),
)
def test_the_floor_of_a_threshold_is_never_zero(alpha, floor, fan_in, gain):
    layer = Dense(
        np.zeros((1, 1), np.float32), np.ones(1, np.float32), NeuronSettings(alpha=alpha), gain=gain
    )
    initial = layer.initial_threshold / np.sqrt(fan_in)  # of a neuron with so many inputs
    assert np.float32(LearningSettings(threshold_floor=floor).threshold_floor * initial) > 0


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_thresholds_that_are_pushed_down_stay_positive(optimizer, balance):
    data = toy_events(np.random.default_rng(0), 40)
    learning = LearningSettings(
        optimizer=optimizer,
        lr=1.0,
        threshold_lr=10.0,
        threshold_balance=balance,
        threshold_floor=1e-3,
        batch_size=5,
        schedule="constant",
        weight_decay=0.0,
    )
    network = Network.from_architecture("25-10-3", settings=NetworkSettings(alpha=(2.0, 2.0)))
    floors = [1e-3 * layer.initial_threshold for layer in network.spiking_layers]
    fit(network, data, epochs=3, learning=learning, event_augmentation=PLAIN, threads=1)
    lowest = [layer.threshold.min() for layer in network.spiking_layers]
    assert all(low >= floor * (1 - 1e-6) > 0 for low, floor in zip(lowest, floors, strict=True))


@pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan])
def test_a_layer_refuses_thresholds_that_are_not_positive(threshold):
    with pytest.raises(SettingsError, match="thresholds must be positive"):
        Dense(np.zeros((2, 3), np.float32), np.array([1, threshold, 1]), NeuronSettings())
