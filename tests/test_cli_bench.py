"""``evsnn bench --ops``."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import shutil
import sys
from dataclasses import replace

import pytest
from support import SMALL, evsnn, write_events

from evsnn import load_model, open_events
from evsnn.operations import count_operations
from evsnn.training import presets
from evsnn.training.early_answer import choose_margin, early_answers

torch_needed = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch, of the extra torch, is not installed"
)


def result_of(*arguments):
    done = evsnn("bench", "--ops", *arguments, "--threads", 1, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture(scope="module")
def result(small_run, small_events):
    return result_of(small_run, small_events)


def test_the_numbers(result, small_run, small_events):
    network = load_model(small_run / "model.h5")
    with open_events(small_events) as file:
        test, validation = file["test"].load(), file["validation"].load()
    counts = count_operations(network, test)
    assert result["layers"] == counts.rows()
    plain = json.loads(evsnn("evaluate", small_run, small_events, "--json").out)
    total = result["layers"][-1]
    assert total["synaptic_operations"] == pytest.approx(plain["synaptic_operations_per_sample"])
    assert total["dense_macs"] == plain["dense_macs_per_sample"]
    assert result["accuracy"] == plain["accuracy"]
    for name in ("over_events", "over_margins"):
        assert result[name]["accuracy"][-1] == plain["accuracy"]
        assert result[name]["synaptic_operations"][-1] == pytest.approx(total["synaptic_operations"])
    assert result["over_margins"]["at"][-1] == "inf"
    # The margin was chosen on the validation samples, and what it costs is told of the test samples.
    curve = early_answers(network, validation)
    chosen = float(curve.at[choose_margin(curve)])
    assert result["early_answer"]["at"] == (chosen if chosen < 1e9 else "inf")
    assert result["early_answer"]["chosen"] == f"on {len(validation)} validation samples"
    assert result["neurobench"]["step_us"] == 1000
    assert result["neurobench"]["effective_acs"] > 0
    assert result["energy"] is None
    assert result["baseline"] is None
    assert result["environment"]["threads"] == 1


def test_the_table_and_files(small_run, small_events, tmp_path):
    table, picture = tmp_path / "a.csv", tmp_path / "a.png"
    done = evsnn(
        *(
            "bench",
            "--ops",
            small_run,
            small_events,
            "--limit",
            7,
            "--margin",
            2,
            "--energy",
            "horowitz-45nm",
        ),
        *("--csv", table, "--png", picture, "--grid-ms", 5),
    )
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("784-16-10: accuracy ")
    assert "of 7 samples (test)" in lines[0]
    assert lines[1].split()[:3] == ["layer", "events", "SOPs"]
    assert [line.split()[0] for line in lines[2:5]] == ["16", "10", "total"]
    assert "12.7k multiply-accumulates of the dense network" in done.out
    assert "early answer at a lead of 2 (given)" in done.out
    assert "on a grid of 5 ms (11 steps" in done.out
    assert "addition 0.9 pJ, multiplication 3.7 pJ" in done.out
    assert "ISSCC 2014" in done.out
    assert "not counted: comparison, weight_byte" in done.out
    assert done.out.endswith(f"written: {table}\nwritten: {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    expected = result_of(small_run, small_events, "--limit", 7)["layers"]
    assert [row["layer"] for row in rows] == ["16", "10", "total"]
    for row, other in zip(rows, expected, strict=True):
        assert {name: float(value) for name, value in row.items() if name != "layer"} == {
            name: float(value) for name, value in other.items() if name != "layer"
        }


def test_a_smaller_margin_costs_less(small_run, small_events):
    points = [
        result_of(small_run, small_events, "--margin", margin)["early_answer"] for margin in (0.1, 0.7, 1000)
    ]
    assert [point["at"] for point in points] == [0.1, 0.7, 1000.0]
    spent = [point["synaptic_operations"] for point in points]
    assert spent[0] < spent[1] < spent[2]


def test_energy_of_ones_own(small_run, small_events, tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text('source = "data sheet"\naddition = 1000\nmultiplication = 0\n')
    result = result_of(small_run, small_events, "--energy", path)
    total = result["layers"][-1]
    assert result["energy"]["source"] == "data sheet"
    assert result["energy"]["spiking_nanojoules"][-1] == pytest.approx(total["additions"])
    assert result["energy"]["dense_nanojoules"][-1] == pytest.approx(total["dense_macs"])


def test_the_data_of_the_run(small_run, result):
    """Without DATA, the run's own samples, and those that it held out of its training samples."""
    own = result_of(small_run)
    assert own["data"] == "MNIST subset of the package"
    assert own["samples"] == 60
    assert own["early_answer"]["chosen"] == "on 10 validation samples"  # a sixth of 60
    assert result_of(small_run, "--split", "validation")["samples"] == 10


def test_without_a_model_the_latest_run(small_run, small_events, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, age in (("old", 100), ("new", 1), ("older", 200)):
        shutil.copytree(small_run, tmp_path / "runs" / name)
        stamp = 1_700_000_000 - age
        os.utime(tmp_path / "runs" / name / "model.h5", (stamp, stamp))
    (tmp_path / "runs" / "empty").mkdir()
    done = evsnn("bench", "--ops", "--limit", 5, "--json")
    assert done.code == 0, done.err
    assert "No MODEL given: measuring the latest run, runs/new" in done.err
    assert json.loads(done.out)["model"] == "runs/new/model.h5"


def test_without_any_run_the_default_is_trained_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = presets.preset("default", "784-16-10")
    tiny = replace(tiny, epochs=1, data=replace(tiny.data, limit=60))
    monkeypatch.setattr(presets, "preset", lambda name: {"default": tiny}[name])
    done = evsnn("bench", "--ops", "--json")
    assert done.code == 0, done.err
    assert "no run under runs/: training the default first, into runs/" in done.err
    result = json.loads(done.out)
    assert result["architecture"] == "784-16-10"
    [folder] = (tmp_path / "runs").iterdir()
    assert result["model"] == str(folder.relative_to(tmp_path) / "model.h5")
    assert evsnn("bench", "--ops", "--json").code == 0  # and is the latest run from then on
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_without_validation_samples_no_margin_is_chosen(tmp_path, small_events):
    run = tmp_path / "run"
    done = evsnn("train", *SMALL, "--epochs", 1, "--validation", 0, "--out", run)
    assert done.code == 0, done.err
    done = evsnn("bench", "--ops", run)
    assert done.code == 0, done.err
    assert "early answer: margin not chosen: there are no validation samples; name one" in done.out
    done = evsnn("bench", "--ops", run, "--split", "validation")
    assert done.code == 1
    assert "there are no validation samples; splits with samples: train, test" in done.err


def test_a_file_with_test_samples_only(small_run, small_events, tmp_path):
    """A sixth of another file is no validation set: the model may have learned it."""
    with open_events(small_events) as file:
        test, train = file["test"].load(), file["train"].load()
    only = write_events(tmp_path / "noisy.h5", test=test)
    result = result_of(small_run, only, "--limit", 5)
    assert result["samples"] == 5
    assert result["early_answer"] is None
    learned = write_events(tmp_path / "learned.h5", train=train, test=test)
    assert result_of(small_run, learned, "--limit", 5)["early_answer"] is None
    done = evsnn("bench", "--ops", small_run, only, "--split", "train")
    assert done.code == 1
    assert "noisy.h5: there are no train samples; splits with samples: test" in done.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "Say what to measure"),
        (["--ops", "--margin", "0"], 2, "'0' is neither auto nor a number above 0"),
        (["--ops", "--margin", "safe"], 2, "'safe' is neither auto nor a number above 0"),
        (["--ops", "--margin", "nan"], 2, "'nan' is neither auto"),
        (["--ops", "--grid-ms", "0"], 1, "--grid-ms must be above 0"),
        (["--ops", "--grid-ms", "1e-9"], 1, "1 us (0.001 ms) or more"),
        (["--ops", "--energy", "horowitz"], 1, "neither a file nor one of horowitz-45nm"),
        (["--ops", "--baseline-epochs", "3"], 2, "belong to --baseline"),
        (["--ops", "--baseline-arch", "784-10"], 2, "belong to --baseline"),
        (["--ops", "--csv", "none/a.csv"], 1, "cannot write none/a.csv"),
    ],
)
def test_wrong_options(small_run, small_events, tmp_path, monkeypatch, options, code, words):
    monkeypatch.chdir(tmp_path)
    done = evsnn("bench", small_run, small_events, *options)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
    assert not any(tmp_path.iterdir())


def test_a_model_that_is_not_there(tmp_path):
    done = evsnn("bench", "--ops", tmp_path / "model.h5")
    assert done.code == 1
    assert str(tmp_path / "model.h5") in done.err


def test_a_baseline_without_torch(small_run, small_events, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = evsnn("bench", "--ops", small_run, small_events, "--baseline", "cnn")
    assert done.code == 1
    assert "pip install 'evsnn[torch]'" in done.err


@torch_needed
def test_the_baseline_is_trained_kept_and_loaded(small_run, small_events, tmp_path):
    path = tmp_path / "cnn.pt"
    common = (small_run, small_events, "--baseline", "cnn", "--baseline-model", path)
    arch = "28x28-4C5-P2-10"
    trained = result_of(*common, "--baseline-arch", arch, "--baseline-epochs", 3)["baseline"]
    assert trained["architecture"] == arch
    assert trained["macs"] == 24 * 24 * 4 * 25 + 12 * 12 * 4 * 10
    assert 0 < trained["effective_macs"] < trained["macs"]
    assert result_of(*common)["baseline"] == trained
    done = evsnn("bench", "--ops", *common, "--baseline-arch", "784-10")
    assert done.code == 1
    assert f"{path} holds {arch}, --baseline-arch says 784-10" in done.err
    done = evsnn("bench", "--ops", *common)
    assert f"conventional {arch} on frames of event counts" in done.out
    assert "equal accuracy" in done.out


@torch_needed
def test_the_baseline_of_the_same_shape(small_run, small_events):
    baseline = result_of(small_run, small_events, "--baseline", "cnn", "--baseline-epochs", 1)["baseline"]
    assert baseline["architecture"] == "784-16-10"
    assert baseline["macs"] == 784 * 16 + 160
    point = baseline["equal_accuracy"]
    if point is not None:
        assert point["accuracy"] >= baseline["accuracy"]
        assert point["ratio"] == pytest.approx(baseline["macs"] / point["synaptic_operations"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "Say what to measure, --ops or --speed."),
        (["--ops", "--speed"], "Say what to measure, --ops or --speed."),
        (["--ops", "--repeats", "3"], "--repeats belongs to --speed."),
        (["--speed", "--margin", "3"], "--margin belongs to --ops."),
    ],
)
def test_what_to_measure_is_said_once(options, line):
    done = evsnn("bench", *options)
    assert done.code == 2
    assert line in done.err
