"""``evsnn convert-nmnist``: options, output, errors, and what other commands do with its file."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from evsnn_cli.convert_nmnist import convert_nmnist as command
from recording_files import GOOD, ONE, ORDER, check_order, folder, pack
from reference.recording import read_records, select, write_records
from support import evsnn, evsnn_process

from evsnn.datasets.nmnist import RecordingSettings
from evsnn.events import open_events


@pytest.fixture
def source(tmp_path):
    return pack(tmp_path / "in.zip", GOOD)


def loaded(path):
    with open_events(path) as file:
        file.verify()
        return {name: file[name].load() for name in file.splits}


def error_of(done, code=1):
    assert (done.code, done.out) == (code, ""), done
    assert "Traceback" not in done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    return line.removeprefix("Error: ")


def test_a_process_converts(source, tmp_path):
    done = evsnn_process("convert-nmnist", "in.zip", cwd=tmp_path)
    assert done.code == 0, done.err
    assert re.fullmatch(
        r"nmnist\.h5: 6 recordings \(4 train, 2 test\), [\d.]+ events each, in [\d.]+ s\n", done.out
    )
    assert "converting: 100%" in done.err
    assert "6/6" in done.err
    check_order(loaded(tmp_path / "nmnist.h5"))


def test_a_process_fails_in_one_line(tmp_path):
    pack(tmp_path / "in.zip", GOOD | {"Train/1/7.bin": b"abc"})
    done = evsnn_process("convert-nmnist", "in.zip", cwd=tmp_path)
    assert error_of(done).startswith("in.zip: Train/1/7.bin: 3 bytes are no multiple of 5, ")
    assert [path.name for path in tmp_path.iterdir()] == ["in.zip"]


def test_the_real_recordings_in_json(nmnist_archive, tmp_path):
    out = tmp_path / "out.h5"
    done = evsnn("convert-nmnist", nmnist_archive, "-o", out, "--json", "--threads", 2)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found.keys() == {"file", "recordings", "events", "silent", "skipped", "seconds"}
    assert found["recordings"] == {"train": 800}
    assert found["events"] == {"train": 3_281_009}
    assert (found["file"], found["silent"], found["skipped"]) == (str(out), 0, [])
    shown = json.loads(evsnn("info", out, "--json").out)
    assert (shown["shape"], shown["classes"], shown["intact"]) == ("34x34x2 (HxWxC)", 10, True)
    assert shown["splits"]["train"] == {
        "samples": 800,
        "events": 3_281_009,
        "events_per_sample": 4101.3,
        "images": False,
    }
    assert shown["encoder"] == RecordingSettings().to_dict()
    assert shown["source"].keys() == {"nmnist-800.zip"}


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ((), {}),
        (("--start", 20, "--stop", 120.5), {"start_ms": 20.0, "stop_ms": 120.5}),
        (("--first", 5), {"first": 5}),
        (("--merge-polarity",), {"merge_polarity": True}),
        (("--crop",), {"crop": True}),
        (("--refractory", 30), {"refractory_ms": 30.0}),
        (("--noise", 0.5, "--seed", 9), {"noise_hz": 0.5}),
    ],
)
def test_options_are_settings(source, tmp_path, options, changed):
    done = evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5", *options)
    assert done.code == 0, done.err
    with open_events(tmp_path / "out.h5") as file:
        assert file.encoder == RecordingSettings(**changed).to_dict()
        assert file.shape == RecordingSettings(**changed).shape
        assert file.seed == (9 if "noise_hz" in changed else None)
        assert file.duration_us == (100_500 if "stop_ms" in changed else int(file.duration_us))


def test_a_filter_reaches_the_file(source, tmp_path):
    options = ("--start", 20, "--stop", 200, "--first", 9, "--crop", "--merge-polarity", "--refractory", 1)
    assert evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5", *options).code == 0
    chosen = {"start_us": 20_000, "stop_us": 200_000, "first": 9, "crop": True, "merge": True}
    for split, part in loaded(tmp_path / "out.h5").items():
        for events, name in zip(part, ORDER[split], strict=True):
            times, units = select(read_records(GOOD[name]), refractory_us=1000, **chosen)
            assert (events.times.tolist(), events.units.tolist()) == (times, units)


def test_the_defaults_are_those_of_the_library():
    found = {option.name: option.default for option in command.params}
    settings = RecordingSettings()
    assert found["start"] == settings.start_ms
    assert found["stop"] is settings.stop_ms is None
    assert found["refractory"] == settings.refractory_ms
    assert found["noise"] == settings.noise_hz
    assert (found["crop"], found["merge_polarity"]) == (settings.crop, settings.merge_polarity)
    assert (found["first"] or 0) == settings.first


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        (("--validation", 1), {"train": 3, "validation": 1, "test": 2}),
        (("--validation", "0.5"), {"train": 2, "validation": 2, "test": 2}),
        (("--limit", 2, "--validation", 1), {"train": 1, "validation": 1, "test": 2}),
        (("--limit", 1, "--validation", "0"), {"train": 1, "test": 1}),
    ],
)
def test_splits(source, tmp_path, options, sizes):
    done = evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5", "--json", *options)
    assert done.code == 0, done.err
    assert json.loads(done.out)["recordings"] == sizes
    assert {name: len(part) for name, part in loaded(tmp_path / "out.h5").items()} == sizes


def test_a_test_split_where_there_is_none(tmp_path):
    files = {name: data for name, data in GOOD.items() if name.startswith("Train")}
    source = folder(tmp_path / "in", files)
    done = evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5", "--test", "0.25", "--validation", "1")
    assert done.code == 0, done.err
    assert "4 recordings (2 train, 1 validation, 1 test)" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--test", 1), "the source has a test set of its own; drop --test"),
        (("--validation", 4), "validation 4 holds out 4 of the 4 training recordings there are; 1 to 3 are"),
        (("--validation", "0.01"), "validation 0.01 holds out 0 of the 4 training recordings"),
        (("--noise", -1), "noise_hz must lie in 0 to 10000, got -1.0"),
        (("--noise", "nan"), "noise_hz must lie in 0 to 10000, got nan"),
        (("--refractory", "inf"), "refractory_ms must lie in 0 to "),
        (("--start", -1), "start_ms must lie in 0 to "),
        (("--start", 10, "--stop", 10), "stop_ms must lie at least a microsecond after start_ms, 10.0"),
        (("--seed", -1), "seed must lie in 0 to 2^64 - 1, got -1"),
        (("-o", "no/such/out.h5"), "cannot write no/such/out.h5: the folder no/such does not exist"),
    ],
)
def test_what_fails(source, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert error_of(evsnn("convert-nmnist", source, *options)).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["in.zip"]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("a", "b"),
        ("a", "--limit", 0),
        ("a", "--first", 0),
        ("a", "--threads", 0),
        ("a", "--test", "-1"),
        ("a", "--test", "1.5"),
        ("a", "--test", "nan"),
        ("a", "--validation", "some"),
        ("a", "--start", "early"),
        ("a", "--crop", "28"),
    ],
)
def test_wrong_usage(options):
    done = evsnn("convert-nmnist", *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: evsnn convert-nmnist [OPTIONS] SOURCE\n")


def test_an_amount_that_is_none():
    done = evsnn("convert-nmnist", "a", "--validation", "1.5")
    assert error_of(done, code=2) == (
        "Invalid value for '--validation': '1.5' is neither a number of recordings nor a share below 1."
    )


def test_bad_files_are_reported_and_left_out(tmp_path):
    bad = {"Train/1/00004.bin": b"", "Train/x/00005.bin": ONE, "Test/9/00007.bin": ONE[:3]}
    source = folder(tmp_path / "in", GOOD | bad)
    assert evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5").code == 1
    done = evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5", "--skip-bad", "--json")
    assert done.code == 0, done.err
    warnings = re.findall(r"Warning: left out: (.*)", done.err)
    assert json.loads(done.out)["skipped"] == warnings
    for line, name in zip(warnings, ("Train/x", "Train/1/00004.bin", "Test/9/00007.bin"), strict=True):
        assert line.startswith(f"{source / name}: ")
    check_order(loaded(tmp_path / "out.h5"))


def test_many_bad_files_do_not_flood_the_terminal(tmp_path):
    source = folder(tmp_path / "in", GOOD | {f"Train/1/{100 + i}.bin": b"" for i in range(30)})
    done = evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5", "--skip-bad", "--json")
    assert done.code == 0
    assert done.err.count("Warning: left out: ") == 21
    assert "Warning: left out: 10 more files\n" in done.err
    assert len(json.loads(done.out)["skipped"]) == 30


def test_recordings_without_events_are_mentioned(source, tmp_path):
    done = evsnn("convert-nmnist", source, "-o", tmp_path / "out.h5", "--start", 4000)
    assert done.code == 0
    assert "Warning: no event was left of 6 recordings\n" in done.err
    assert ", 0 events each, " in done.out


def test_only_force_replaces(source, tmp_path):
    out = tmp_path / "out.h5"
    out.write_text("precious")
    assert error_of(evsnn("convert-nmnist", source, "-o", out)) == f"{out} exists; pass --force to replace it"
    assert out.read_text() == "precious"
    assert evsnn("convert-nmnist", source, "-o", out, "--force").code == 0
    check_order(loaded(out))


def test_an_interrupt_leaves_nothing(source, tmp_path):
    before = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored\n"
        "from evsnn.events.writer import EventWriter\n"
        "EventWriter.append = lambda *a, **n: signal.raise_signal(signal.SIGINT)\n"
    )
    done = evsnn_process("convert-nmnist", source, "-o", tmp_path / "out.h5", before=before)
    assert (done.code, done.out) == (130, "")
    assert done.err.endswith("Interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.zip"]


def test_train_and_evaluate(nmnist_archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--limit", 60, "--test", 20, "--stop", 105, "--crop")
    assert evsnn("convert-nmnist", nmnist_archive, *options).code == 0
    trained = evsnn("train", "nmnist.h5", "--arch", "28x28x2-12-10", "--epochs", 1, "--out", "run")
    assert trained.code == 0, trained.err
    done = evsnn("evaluate", "run", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["samples"] == 20
    assert np.sum(found["confusion"]) == 20


def test_times_reach_the_file_unchanged(tmp_path):
    files = {"Train/5/1.bin": write_records([(8_388_607, 1, 2, 1)])}
    assert evsnn("convert-nmnist", folder(tmp_path / "in", files), "-o", tmp_path / "out.h5").code == 0
    with open_events(tmp_path / "out.h5") as file:
        assert file.duration_us == 8_388_608
        assert file["train"][0].to_structured(file.shape).tolist() == [(1, 2, 8_388_607, 1)]
