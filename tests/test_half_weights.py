"""Dense layers simulated with 2-byte copies of their weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from support import evsnn, toy_events

from evsnn import Network, NetworkSettings, evaluate
from evsnn.checkpoint import save_model
from evsnn.errors import SettingsError
from evsnn.events import EventWriter
from evsnn.events.queue import QueueBuffer

SETTINGS = {
    "plain": NetworkSettings(tau_ms=5.0, alpha=1.0),
    "inhibited": NetworkSettings(tau_ms=5.0, alpha=1.0, kappa=-0.2),
    "refractory": NetworkSettings(tau_ms=5.0, alpha=1.0, refractory_ms=1.0),
}


@pytest.fixture(scope="module")
def toys():
    return toy_events(np.random.default_rng(0), n=8)


def rounded(network):
    """The same network with weights over thresholds that are float16 values to begin with."""
    other = Network.from_architecture(network.architecture.text, seed=1, settings=network.settings)
    for layer in other.spiking_layers:
        layer.weight[:] = (layer.weight / layer.threshold).astype(np.float16)
        layer.threshold[:] = 1
    return other


def outcome(network, data):
    result = evaluate(network, data, threads=1)
    return [result.predictions.tolist(), result.totals.events.tolist(), result.totals.operations.tolist()]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("room", [None, 1])
def test_it_is_the_network_of_the_rounded_weights(toys, settings, room, monkeypatch):
    if room:
        plain = QueueBuffer.__init__

        def tiny(self, backend, expected):
            plain(self, backend, room)

        monkeypatch.setattr(QueueBuffer, "__init__", tiny)
    network = Network.from_architecture("5x5-75-19-3", seed=1, settings=settings)
    before, expected = outcome(network, toys), outcome(rounded(network), toys)
    network.use_half_weights()
    assert outcome(network, toys) == expected
    assert expected[1][1] > 0
    network.use_half_weights(False)
    assert outcome(network, toys) == before


def test_a_stream_answers_as_offline(toys):
    network = Network.from_architecture("5x5-75-3", seed=1, settings=SETTINGS["plain"])
    network.use_half_weights()
    expected = outcome(network, toys)
    spikes = 0
    for sample in toys:
        stream = network.stream()
        for low in range(0, len(sample.times), 7):
            spikes += len(stream.push(sample.times[low : low + 7], sample.units[low : low + 7]).times)
        spikes += len(stream.flush().times)
    assert spikes == expected[1][-1]


def test_convolutions_keep_their_weights(toys):
    network = Network.from_architecture("5x5-3C2-P2-3", seed=1, settings=SETTINGS["plain"])
    network.use_half_weights()
    assert [layer.half_weights for layer in network.spiking_layers] == [False, True]
    assert outcome(network, toys)[1][1] > 0


def test_weights_that_float16_cannot_hold(toys):
    network = Network.from_architecture("5x5-3", seed=1)
    network.use_half_weights()
    network.layers[0].threshold[1] = 1e-9
    with pytest.raises(SettingsError, match="65520 thresholds or more"):
        evaluate(network, toys)


def test_other_backends_refuse():
    network = Network.from_architecture("5x5-3", seed=1)
    network.use_half_weights()
    with pytest.raises(SettingsError, match="--backend cpu"):
        network.layers[0].place(SimpleNamespace(name="cuda"))


def test_the_command(toys, tmp_path):
    network = Network.from_architecture("5x5-9-3", seed=1, settings=SETTINGS["plain"])
    save_model(tmp_path / "model.h5", network)
    with EventWriter(tmp_path / "toys.h5", shape=(1, 5, 5), duration_us=60_000, classes=3) as writer:
        writer.begin_split("test")
        writer.append(toys.times, toys.units, np.diff(toys.offsets), toys.labels)
    done = evsnn(
        "evaluate", tmp_path / "model.h5", tmp_path / "toys.h5", "--half-weights", "--backend", "cpu"
    )
    assert done.code == 0, done.err
    assert "accuracy" in done.out
