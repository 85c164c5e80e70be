"""``evsnn convert-mnist --encoder saccade``: its file, its options, and training on it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import evsnn

from evsnn.backends import CpuBackend
from evsnn.datasets import embedded_mnist
from evsnn.encoders import Encoder, SaccadeSettings
from evsnn.errors import DataError
from evsnn.events import EventWriter, open_events

CONVERT = ("convert-mnist", "--embedded", "--encoder", "saccade", "--limit", 30, "--validation", 5)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    path = tmp_path_factory.mktemp("saccade") / "few.h5"
    done = evsnn(*CONVERT, "-o", path, "--seed", 5, "--threads", 1)
    assert done.code == 0, done.err
    return path


def test_the_file_holds_recordings_labels_and_images(recordings):
    digits = embedded_mnist()
    with open_events(recordings) as file:
        file.verify()
        assert (file.shape, file.duration_us, file.seed, file.classes) == ((2, 34, 34), 320_000, 5, 10)
        assert file.encoder == SaccadeSettings().to_dict()
        splits = {name: file[name].load() for name in file.splits}
    assert {name: len(part) for name, part in splits.items()} == {"train": 25, "validation": 5, "test": 30}
    for name, digit, first in (("train", "train", 0), ("validation", "train", 25), ("test", "test", 0)):
        part, stop = splits[name], first + len(splits[name])
        np.testing.assert_array_equal(part.images, digits[digit].images[first:stop])
        np.testing.assert_array_equal(part.labels, digits[digit].labels[first:stop])
    with CpuBackend(1) as backend:
        queue = (
            Encoder(SaccadeSettings(), 5, backend).draw(splits["train"].images, np.arange(25)).fetch(backend)
        )
        for i, events in enumerate(splits["train"]):
            np.testing.assert_array_equal(events.times, queue.sample(i)[0])
            np.testing.assert_array_equal(events.units, queue.sample(i)[1])


def test_threads_change_nothing(recordings, tmp_path):
    again = tmp_path / "again.h5"
    assert evsnn(*CONVERT, "-o", again, "--seed", 5, "--threads", 2).code == 0
    assert again.read_bytes() == recordings.read_bytes()


def test_training_draws_fresh_recordings(recordings, tmp_path):
    options = ("--arch", "34x34x2-16-10", "--epochs", 2, "--batch-size", 5, "--threads", 1, "--json")
    events = []
    for name, fresh in (("fresh", "--fresh"), ("stored", "--no-fresh")):
        done = evsnn("train", recordings, "--out", tmp_path / name, fresh, *options)
        assert done.code == 0, done.err
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        events.append([json.loads(line)["events_per_sample"][0] for line in lines])
    assert events[0][0] != events[0][1]
    assert events[1][0] == events[1][1]
    assert evsnn("evaluate", tmp_path / "fresh").code == 0


def test_duration_and_resolution_are_settings(tmp_path):
    path = tmp_path / "short.h5"
    done = evsnn(*CONVERT[:4], "--limit", 3, "-o", path, "--duration", 100, "--resolution", 1000)
    assert done.code == 0, done.err
    with open_events(path) as file:
        assert file.encoder == SaccadeSettings(duration_ms=100.0, resolution_us=1000).to_dict()
        assert file.duration_us == 100_000
        assert (file["train"].load().times % 1000 == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", 5), "the encoder saccade has no --rate: contrast decides how many events there are"),
        (("--duration", 0.1), "duration_ms must lie in 1 to 100000, got 0.1"),
        (("--resolution", 0), "resolution_us must lie in 1 to 1e+06, got 0"),
    ],
)
def test_senseless_options_end_in_one_line(tmp_path, options, message):
    done = evsnn(*CONVERT, "-o", tmp_path / "no.h5", *options)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"Error: {message}")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_cannot_ask_for_it_without_a_file(tmp_path):
    done = evsnn("train", "--set", "encoder.kind=saccade", "--out", tmp_path / "run")
    assert done.code == 1
    assert "evsnn convert-mnist --encoder saccade" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("size", [(3, 4), (5, 4), (1, 3)])
def test_images_must_leave_an_equal_margin(tmp_path, size):
    def write():
        with EventWriter(tmp_path / "bad.h5", shape=(2, 4, 4), duration_us=9, classes=2) as writer:
            writer.begin_split("train", with_images=True, image_shape=size)
            writer.append([1], [0], [1], [0], images=np.zeros((1, *size), np.uint8))

    with pytest.raises(DataError, match="images of shape"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_all_images_of_a_split_have_one_shape(tmp_path):
    def write():
        with EventWriter(tmp_path / "bad.h5", shape=(2, 4, 4), duration_us=9, classes=2) as writer:
            writer.begin_split("train", with_images=True, image_shape=(2, 2))
            writer.append([1], [0], [1], [0], images=np.zeros((1, 2, 2), np.uint8))
            writer.append([1], [0], [1], [0], images=np.zeros((1, 4, 4), np.uint8))

    with pytest.raises(DataError, match="images of shape"):
        write()
