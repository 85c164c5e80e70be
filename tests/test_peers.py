"""What all peers of the comparison read: events on a grid of time steps, in the forms of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from evsnn.events.core import EventSet

PEERS = Path(__file__).resolve().parent.parent / "benchmarks" / "peers"
if not PEERS.is_dir():
    pytest.skip("needs the source tree, not an installed package", allow_module_level=True)
sys.path.insert(0, str(PEERS))

import common  # noqa: E402 - from the folder above
import compare  # noqa: E402 - from the folder above
import environments  # noqa: E402 - from the folder above
import export  # noqa: E402 - from the folder above

RNG = np.random.default_rng(11)


@pytest.fixture
def recordings():
    counts = RNG.integers(0, 400, 7)
    times = [np.sort(RNG.integers(0, 9_000, count)) for count in counts]
    return EventSet(
        np.concatenate(times).astype(np.uint32),
        RNG.integers(0, 12, counts.sum()).astype(np.uint32),
        np.concatenate([[0], np.cumsum(counts)]),
        RNG.integers(0, 3, 7).astype(np.uint16),
        (1, 3, 4),
        9_000,
        3,
    )


@pytest.fixture
def stored(recordings, tmp_path):
    """Binned to five steps, written and read."""
    for name, values in zip(("steps", "units", "offsets"), export.bin_events(recordings, 5), strict=True):
        np.save(tmp_path / f"train-{name}.npy", values)
    np.save(tmp_path / "train-labels.npy", recordings.labels)
    (tmp_path / "about.json").write_text(json.dumps({"n_steps": 5, "n_inputs": 12}))
    return common.StoredEvents.read(tmp_path, "train")


def test_binning_keeps_each_step_and_unit_once(recordings, stored):
    assert len(stored) == len(recordings)
    for index, events in enumerate(recordings):
        expected = sorted({(t // 1000, u) for t, u in zip(events.times, events.units, strict=True)})
        expected = [(step, unit) for step, unit in expected if step < 5]
        steps, units = stored.sample(index)
        assert list(zip(steps, units, strict=True)) == expected


def test_frames_and_rows_hold_the_same_events(stored):
    samples = np.array([5, 0, 3])
    frames = stored.frames(samples)
    assert frames.shape == (5, 3, 12)
    for place, index in enumerate(samples):
        steps, units = stored.sample(index)
        assert frames[:, place].sum() == len(steps)
        assert (frames[steps, place, units] == 1).all()
    pointer, columns = stored.rows(samples)
    dense = np.zeros((15, 12))
    for row in range(15):
        dense[row, columns[pointer[row] : pointer[row + 1]]] += 1
    assert np.array_equal(dense, frames.reshape(15, 12))


def test_batches_go_through_every_sample_once_an_epoch():
    batches = common.shuffled_batches(25, seed=1, size=10)
    first, second = ([next(batches) for _ in range(2)] for _ in range(2))
    assert len(np.unique(np.concatenate(first))) == 20
    assert not np.array_equal(first, second)
    with pytest.raises(ValueError, match="a batch of 30 samples of 25"):
        next(common.shuffled_batches(25, seed=1, size=30))


def test_accuracy_is_measured_while_the_clock_stands_still(stored):
    class Peer(common.Peer):
        trained = 0

        def place(self, events, samples):
            return samples

        def train(self, batch, labels, rate):
            self.trained += len(batch)

        def infer(self, batch):
            return stored.labels[batch] if self.trained > 100 else -1 - stored.labels[batch]

    peer = Peer()
    many = common.StoredEvents(
        stored.steps, stored.units, np.zeros(301, np.int64), np.zeros(300, np.int64), 12, 5
    )
    curve = common.accuracy_over_time(peer, many, stored, seconds=0.0, goal=0.9, seed=0)
    assert [point["accuracy"] for point in curve] == [0.0]
    curve = common.accuracy_over_time(peer, many, stored, seconds=0.0, goal=0.9, seed=0)
    assert [point["accuracy"] for point in curve] == [1.0]
    assert curve[0]["samples"] == 100


def measured(rate):
    return dict.fromkeys(compare.MEASURES, rate) | {"about": {}}


def test_ratios_are_of_the_same_round_and_failures_are_named():
    rounds = [
        {"evsnn": measured(10.0), "other": measured(1.0), "broken": {"error": "no such thing"}},
        {"evsnn": measured(30.0), "other": measured(2.0)},
        {"evsnn": measured(20.0), "other": {"error": "killed"}},
    ]
    table = compare.summary(rounds)
    assert table["broken"] == {"error": "no such thing"}
    assert table["evsnn"]["samples_per_second"] == 20.0
    assert table["other"]["repeats"] == 2
    assert table["other"]["evsnn_over_it_samples_per_second"] == 12.5  # of 10 and 15


def test_a_peer_that_does_not_install_is_reported(tmp_path, monkeypatch):
    broken = environments.Peer("with_nothing.py", (("--no-index", "no-such-peer"),), ("no-such-peer",))
    monkeypatch.setitem(environments.PEERS, "broken", broken)
    with pytest.raises(environments.NotInstalledError, match=r"no-such-peer|No module named pip"):
        environments.make_environment("broken", tmp_path)


def test_the_tables_hold_every_peer_and_its_failure():
    rounds = [{"evsnn": measured(2000.0), "slow": measured(10.0), "broken": {"error": "no such thing"}}]
    learned = {
        name: {"curve": [{"processor_seconds": s, "accuracy": a} for s, a in points]}
        for name, points in {"evsnn": ((1.0, 0.5), (2.0, 0.96), (3.0, 0.92)), "slow": ((1.5, 0.8),)}.items()
    } | {"broken": {"error": "no such thing"}}
    result = {"workloads": {"small": {"train": compare.summary(rounds), "accuracy": learned}}}
    text = compare.tables(result)
    assert "| small | accuracy at the end | after seconds | 75% | 80% | 85% | 90% | 95% |\n" in text
    assert "| slow | 10 (200.0), 10 MiB |" in text
    assert "| broken | failed: no such thing |" in text
    assert "| evsnn | 92.00% | 3.0 | 2.0 s | 2.0 s | 2.0 s | 2.0 s | 2.0 s |" in text
    assert "| slow | 80.00% | 1.5 | 1.5 s | 1.5 s |  |  |  |" in text
    assert "| broken | failed: no such thing |  |  |  |  |  |  |" in text
    assert "infer" not in text
