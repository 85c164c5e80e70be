"""What `evsnn bench --speed` measures: the right amounts of work. No figure of speed is asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from evsnn_cli.main import cli
from evsnn_kernels.cpu import stream
from evsnn_kernels.layout import padded

from evsnn import Network
from evsnn.backends import CpuBackend
from evsnn.events.core import EventSet
from evsnn.events.queue import HostQueue
from evsnn.layers import Conv2d
from evsnn.learning import LearningSettings
from evsnn.network import Simulator
from evsnn.speed import (
    arithmetic_speedup,
    measure_layers,
    measure_live,
    measure_training,
    memory_bandwidth,
)
from evsnn.speed import live as live_module
from evsnn.speed.live import latencies, moving_edge
from evsnn.training import DataSettings, RunConfig

RNG = np.random.default_rng(7)
SHAPE = (2, 9, 11)


def recordings(n=6, events=300, shape=SHAPE):
    """Random labelled events."""
    counts = RNG.integers(0, events, n)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    times = [np.sort(RNG.integers(0, 50_000, count)) for count in counts]
    units = RNG.integers(0, np.prod(shape), offsets[-1])
    return EventSet(
        np.concatenate(times).astype(np.uint32),
        units.astype(np.uint32),
        offsets,
        RNG.integers(0, 3, n).astype(np.uint16),
        shape,
        50_000,
        3,
    )


def queue_of(data):
    return HostQueue(data.times, data.units, data.offsets[:-1], np.diff(data.offsets))


# Streaming


@pytest.mark.parametrize("n", [3, 8, 70, 136])
@pytest.mark.parametrize("kernel", [stream.dense_rows, stream.dense_rows_ahead, stream.dense_tiles])
def test_streaming_adds_the_rows_of_all_events(kernel, n):
    data = recordings()
    weight = np.zeros((data.n_inputs, padded(n)), np.float32)
    weight[:, :n] = RNG.integers(-8, 9, (data.n_inputs, n))  # whole numbers: sums are exact in any order
    total = np.zeros((len(data), padded(n)), np.float32)
    queue = queue_of(data)
    kernel(queue.units, queue.start, queue.count, weight, total, 0, 4)
    kernel(queue.units, queue.start, queue.count, weight, total, 4, len(data))
    assert np.array_equal(total, [weight[sample.units].sum(axis=0) for sample in data])


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 2), (2, 1)])
def test_streaming_a_convolution_reaches_the_places_that_exist(stride, padding):
    data = recordings()
    channels, height, width = SHAPE
    kernel, maps = 3, 5
    weight = np.zeros((kernel * kernel * channels, padded(maps)), np.float32)
    weight[:, :maps] = RNG.integers(-8, 9, (len(weight), maps))
    _, out_height, out_width = Conv2d.shape_after(SHAPE, maps, kernel, stride, padding)
    total = np.zeros((len(data), out_height * out_width * padded(maps)), np.float32)
    queue = queue_of(data)
    geometry = height, width, kernel, stride, padding, out_height, out_width
    stream.conv_rows(queue.units, queue.start, queue.count, weight, *geometry, total, 0, len(data))
    frames = np.zeros((len(data), channels, height + 2 * padding, width + 2 * padding))
    for frame, sample in zip(frames, data, strict=True):
        channel, y, x = np.unravel_index(sample.units, SHAPE)
        np.add.at(frame, (channel, y + padding, x + padding), 1)
    expected = np.zeros((len(data), out_height, out_width, padded(maps)))
    for ky in range(kernel):
        for kx in range(kernel):
            rows = weight[(ky * kernel + kx) * channels :][:channels]
            seen = frames[:, :, ky : ky + stride * out_height : stride, kx : kx + stride * out_width : stride]
            expected += np.einsum("sc...,cm->s...m", seen[:, :, :out_height, :out_width], rows)
    assert np.array_equal(total, expected.reshape(total.shape))


def test_the_other_limits():
    data = recordings()
    queue = queue_of(data)
    times, units = np.zeros_like(queue.times), np.zeros_like(queue.units)
    stream.copy_events(queue.times, queue.units, queue.start, queue.count, times, units, 0, len(data))
    assert np.array_equal(times, queue.times)
    assert np.array_equal(units, queue.units)
    a, b, out = (np.full((4, 5), value, np.float32) for value in (1, 2, 0))
    stream.triad(a, b, out, 1, 3)
    assert np.array_equal(out[:, 0], [0, 7, 7, 0])
    with CpuBackend(2) as backend:
        assert memory_bandwidth(backend, repeats=1, array_bytes=1 << 16) > 0
    assert arithmetic_speedup(2, repeats=5) > 0


# Layers


@pytest.mark.parametrize("arch", ["9x11x2-40-3", "9x11x2-4C3-P2-20-3"])
def test_layers_are_measured_on_what_the_simulator_computes(arch):
    data = recordings()
    network = Network.from_architecture(arch, seed=3)
    before = [layer.weight.copy() for layer in network.spiking_layers]
    speeds = measure_layers(
        network, data, LearningSettings(), threads=(1, 2), repeats=2, bandwidth_bytes=1 << 16
    )
    with CpuBackend(1) as backend:
        outcome = Simulator(network.layers, backend).outcome(queue_of(data), data.duration_us)
    assert [speed.layer for speed in speeds] == 2 * arch.split("-")[1:]
    assert [speed.threads for speed in speeds] == [n for n in (1, 2) for _ in network.layers]
    for index, speed in enumerate(speeds):
        place = index % len(network.layers)
        assert speed.samples == len(data)
        assert speed.events == outcome.events[place].sum()
        assert speed.spikes == outcome.events[place + 1].sum()
        assert speed.operations == outcome.operations[place].sum()
        spiking = speed.kind != "pool"
        assert len(speed.forward) == len(speed.rows) == len(speed.limit) == 2
        assert len(speed.backward) == 2
        assert len(speed.update) == (2 if spiking else 0)
        row = speed.to_dict()
        assert (row["update"] is not None) == spiking
        assert (row["forward"]["operations_per_second"] is not None) == (speed.operations > 0)
    assert speeds[0].events == len(data.times)
    # Each active input once for the gradient; above the first layer, once more for the error.
    active = sum(len(np.unique(sample.units)) for sample in data)
    if "C" not in arch:
        assert speeds[0].gradient_operations == 40 * active
        assert speeds[1].gradient_operations == 2 * 3 * outcome.active[1].sum()
    for layer, weight in zip(network.spiking_layers, before, strict=True):
        assert np.array_equal(layer.weight, weight)


def test_training_is_measured_and_learns_the_same_with_any_number_of_threads():
    config = RunConfig(
        arch="9x11x2-20-3", data=DataSettings(augment=False), learning=LearningSettings(batch_size=3)
    )
    data = recordings()
    [one, two], network = measure_training(config, data, threads=(1, 2), repeats=2, warm_epochs=1, steps=2)
    assert (one.threads, two.threads) == (1, 2)
    assert len(one.epochs) == len(one.parts) == 2
    # The measured parts change nothing, so both numbers of threads have learned the same.
    assert one.events == two.events
    assert one.events[0] == pytest.approx(len(data.times) / len(data))
    assert one.operations[0] == pytest.approx(20 * one.events[0])
    row = two.to_dict()
    assert set(row["microseconds_per_sample"]) == {"encode", "forward", "backward", "update"}
    assert network.architecture.text == "9x11x2-20-3"


# The live sensor


def test_packets_of_an_edge_follow_each_other():
    packets = [moving_edge(SHAPE, 2e5, 2000, index) for index in range(50)]
    for index, packet in enumerate(packets):
        times = packet.times.astype(int)
        assert len(packet) == 1
        assert packet.count[0] == len(times)
        assert ((times >= 2000 * index) & (times < 2000 * (index + 1))).all()
        assert (packet.units < np.prod(SHAPE)).all()
        keys = times * 1000 + packet.units
        assert (np.diff(keys) >= 0).all()
    assert np.mean([packet.count[0] for packet in packets]) == pytest.approx(400, rel=0.05)
    first, last = (np.unravel_index(packets[i].units, SHAPE)[2].mean() for i in (0, 49))
    assert first < last


def test_latencies_of_packets_that_wait():
    service = np.array([0.5, 2.5, 0.5, 0.5, 0.5])
    # The second is ready 1.5 after the third came; the third and fourth wait for what is left of it.
    assert latencies(service, 1.0) == pytest.approx([0.5, 2.5, 2.0, 1.5, 1.0])


@pytest.mark.parametrize(("hiccups", "kept_up"), [(2, True), (3, False)])
def test_one_hiccup_does_not_end_the_live_search(monkeypatch, hiccups, kept_up):
    tried = []

    def trial(layers, backend, rate, packet_us, packets):
        tried.append(rate)
        p99 = 9.0 if rate > 16e3 or (rate == 4e3 and tried.count(rate) <= hiccups) else 0.5
        return live_module.LiveTrial(rate, packets, 1, 0, 0.5, p99, p99, p99, p99)

    monkeypatch.setattr(live_module, "_try", trial)
    speed = measure_live("small", Network.from_architecture("9-3").layers)
    assert speed.sustained is not None
    assert (speed.sustained.events_per_second >= 16e3 / 1.1) == kept_up
    assert len(speed.trials) == len(set(tried))


def test_the_live_search_ends_at_a_rate_that_was_kept_up_with():
    layers = Network.from_architecture("9x11x2-4C3-P2-3", seed=1).layers
    seen = []
    live = measure_live("small", layers, packet_us=100_000, packets=4, highest=2e4, report=seen.append)
    assert len(seen) == len(live.trials)
    rates = [trial.events_per_second for trial in live.trials]
    assert rates == sorted(rates)
    assert live.sustained is None or live.sustained in live.trials
    for trial in live.trials:
        assert trial.p50_ms <= trial.p95_ms <= trial.p99_ms <= trial.worst_ms
    json.dumps(live.to_dict())


# The command


def test_the_command(tmp_path):
    runner = CliRunner()
    assert "--speed" in runner.invoke(cli, ["bench", "--help"]).output
    assert runner.invoke(cli, ["bench"]).exit_code == 2
