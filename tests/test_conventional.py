"""Conventional networks for comparison: shapes, frames, operations, files."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from support import toy_events

from evsnn import DataError, Network, SettingsError
from evsnn.backends import CpuBackend
from evsnn.datasets.sampling import StoredEvents
from evsnn.training import conventional
from evsnn.training.conventional import (
    ConventionalNetwork,
    ConventionalSettings,
    frame_source,
    suited_conventional,
    train_conventional,
)

ARCHITECTURES = ("25-20-3", "5x5-4C3p1-P2-12-3", "5x5-2C2-3C2-3")

torch_needed = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch, of the extra torch, is not installed",
)


def data_of(n=40):
    return toy_events(np.random.default_rng(0), n=n)


@torch_needed
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_shape_is_that_of_the_spiking_network(arch):
    network = ConventionalNetwork.from_architecture(arch, seed=1)
    spiking = Network.from_architecture(arch)
    weights = [p.numel() for p in network.module.parameters() if p.dim() > 1]
    assert weights == [layer.weight.size for layer in spiking.spiking_layers]
    assert network.macs == spiking.dense_macs


@torch_needed
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_results_by_plain_loops(arch):
    import torch

    network, data = ConventionalNetwork.from_architecture(arch, seed=1), data_of(10)
    result = network.evaluate(data)
    correct = effective = 0
    for sample, label in zip(data, data.labels, strict=True):
        frame = np.zeros(25)
        for unit in sample.units:
            frame[unit] += 1
        x = torch.from_numpy(np.log(1 + frame).astype(np.float32)).reshape(1, *network.architecture.shape)
        for layer in network.module:
            if isinstance(layer, torch.nn.Linear):
                effective += int(np.count_nonzero(x.detach())) * layer.out_features
            elif isinstance(layer, torch.nn.Conv2d):
                (k, _), pad = layer.kernel_size, layer.padding[0]
                padded = np.pad(x[0].detach().numpy(), ((0, 0), (pad, pad), (pad, pad)))
                for y in range(padded.shape[1] - k + 1):
                    for z in range(padded.shape[2] - k + 1):
                        effective += np.count_nonzero(padded[:, y : y + k, z : z + k]) * layer.out_channels
            x = layer(x)
        correct += int(x.argmax()) == label
    assert (result.samples, result.correct) == (10, correct)
    assert result.effective_macs == pytest.approx(effective / 10)
    assert 0 < result.effective_macs < result.macs


@torch_needed
def test_it_learns_and_is_kept(tmp_path):
    data = data_of(60)
    network = ConventionalNetwork.from_architecture("25-20-3", seed=1)
    before = network.evaluate(data).accuracy
    done = []
    with CpuBackend(1) as backend:
        settings = ConventionalSettings(epochs=20, batch_size=16, lr=1e-2)
        train_conventional(network, StoredEvents(data, backend), settings, done.append)
    after = network.evaluate(data)
    assert sum(done) == 20 * 60
    assert before < 0.8
    assert after.accuracy > 0.95
    path = tmp_path / "cnn.pt"
    network.save(path)
    assert ConventionalNetwork.load(path).evaluate(data) == after
    assert [file.name for file in tmp_path.iterdir()] == ["cnn.pt"]


@torch_needed
def test_the_same_seed_learns_the_same():
    results = []
    for seed in (1, 1, 2):
        network = ConventionalNetwork.from_architecture("25-8-3", seed=seed)
        with CpuBackend(1) as backend:
            source = StoredEvents(data_of(), backend)
            train_conventional(network, source, ConventionalSettings(2, 8, 1e-2, seed))
        results.append(next(iter(network.module.parameters())).detach().numpy().tobytes())
    assert results[0] == results[1] != results[2]


@torch_needed
def test_files_that_are_none(tmp_path):
    import torch

    path = tmp_path / "cnn.pt"
    with pytest.raises(DataError, match="cannot read"):
        ConventionalNetwork.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not a conventional network of evsnn"):
        ConventionalNetwork.load(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(DataError, match="not a conventional network of evsnn"):
        ConventionalNetwork.load(path)


@torch_needed
def test_data_that_do_not_fit():
    network = ConventionalNetwork.from_architecture("6x6-4C3-3")
    with pytest.raises(DataError, match="6x6-4C3-3 does not fit data of 5x5x1 with 3 classes"):
        network.check_fits(data_of())
    with pytest.raises(DataError, match="does not fit"):
        ConventionalNetwork.from_architecture("25-2").check_fits(data_of())


def test_frames_are_of_whole_recordings(monkeypatch):
    from evsnn.training.data import RunData
    from evsnn.training.presets import preset

    seen = []
    monkeypatch.setattr(conventional, "training_source", lambda config, data, backend: seen.append(config))
    config = preset("default", "25-3", recordings=True)
    assert config.augment_events.window_ms > 0
    frame_source(config, RunData("x", data_of(), None, None), None)
    assert seen[0].augment_events.window_ms == 0
    assert seen[0].augment_events.rotation == config.augment_events.rotation > 0


def test_settings():
    assert suited_conventional(recordings=True).epochs > suited_conventional(recordings=False).epochs
    for wrong in ({"epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": float("nan")}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            ConventionalSettings(**wrong)


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SettingsError, match=r"pip install 'evsnn\[torch\]'"):
        ConventionalNetwork.from_architecture("25-3")
