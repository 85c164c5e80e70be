"""The command line: what it prints where, how it ends, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib

import click
import numpy as np
import pytest
from click.testing import CliRunner
from evsnn_cli.console import progress
from evsnn_cli.main import cli
from support import SMALL, evsnn, evsnn_process, same_bits, weights

from evsnn.checkpoint import load
from evsnn.encoders import EncoderSettings
from evsnn.training import preset

FILES = {
    *("config.toml", "metrics.jsonl", "checkpoint.h5", "checkpoint-previous.h5"),
    *("model.h5", "result.json", "curves.png"),
}


def only_json(text):
    """The one JSON object of an output, read as strictly as the standard has it."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def plain(value):
    """A setting as the help shows it."""
    if isinstance(value, tuple):
        return ",".join(plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


# Help


@pytest.mark.parametrize("name", ["", *cli.commands])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(name, option):
    result = CliRunner().invoke(cli, [name, option] if name else [option], prog_name="evsnn")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: evsnn {name}".rstrip())
    assert result.stderr == ""
    assert "\\b" not in result.stdout


def test_help_keeps_the_examples_apart():
    lines = CliRunner().invoke(cli, ["--help"]).stdout.splitlines()
    first = lines.index("  evsnn train                     learn digits from the MNIST subset in the package")
    assert [line.split()[1] for line in lines[first : first + 3]] == ["train", "convert-mnist", "train"]


@pytest.mark.parametrize("command", [cli, *cli.commands.values()], ids=lambda command: command.name)
def test_every_option_is_documented_with_its_default(command):
    assert command.help
    with click.Context(command) as context:
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "version":
                _, text = option.get_help_record(context)
                assert re.match(r"[A-Z].*\. +\[default: [^]]+\]$", text), f"{option.opts}: {text}"


def test_the_defaults_that_train_states_are_those_of_the_preset():
    config, conv = preset("default"), preset("default", "28x28-8C5-P2-10").network
    expected = {
        "epochs": "by network and data",
        "seed": config.seed,
        "batch_size": "by network and data",
        "optimizer": config.learning.optimizer,
        "lr": "by network and data",
        "sparsity": "by network and data",
        "alpha": f"{plain(config.network.alpha)}; {plain(conv.alpha[:2])},... with convolutions",
        "clamp": config.network.clamp,
        "kappa": f"{plain(config.network.kappa)}; {plain(conv.kappa[0])} in convolutions",
        "rate": config.encoder.rate,
        "fresh": "fresh" if config.data.fresh else "no-fresh",
        "augment": "augment" if config.data.augment else "no-augment",
        "folds": config.data.folds or "no cross-validation",
        "limit": config.data.limit or "all",
    }
    others = {"data", "preset", "arch", "settings", "backend", "device", "threads", "out", "resume"}
    others |= {"config", "validation", "force", "as_json", "checkpoint_minutes"}
    train = cli.commands["train"]
    assert {option.name for option in train.params} == expected.keys() | others
    with click.Context(train) as context:
        for option in train.params:
            if option.name in expected:
                _, text = option.get_help_record(context)
                assert re.search(rf"\[default: \({re.escape(plain(expected[option.name]))}\)", text), text
    assert plain(1.5) == "1.5"
    assert plain((16.0, 15.0)) == "16,15"


def test_the_defaults_of_convert_mnist_are_those_of_the_encoder():
    settings = EncoderSettings()
    found = {option.name: option.default for option in cli.commands["convert-mnist"].params}
    assert found["encoder"] == settings.kind
    assert found["rate"] == settings.rate
    assert found["duration"] == settings.duration_ms
    assert found["resolution"] == settings.resolution_us


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    program = (
        "import runpy, sys\n"
        f"sys.argv = {['evsnn', *arguments]}\n"
        "try:\n"
        "    runpy.run_module('evsnn', run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'numba', 'numpy', 'h5py', 'matplotlib', 'tqdm', 'pooch', 'requests'}\n"
        "    print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_version():
    done = evsnn("--version")
    assert done.code == 0
    assert re.fullmatch(r"evsnn \d+\.\d+\.\d+\S*\n", done.out)


# Exit codes and streams of a real process


def test_a_process_that_succeeds(tmp_path):
    done = evsnn_process("train", *SMALL, "--epochs", 1, "--threads", 1, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert re.search(r"^test accuracy [\d.]+ %$", done.out, re.MULTILINE)
    assert f"run folder {tmp_path / 'run'}\n" in done.out
    assert "training:" not in done.out
    assert "epoch 1/1" not in done.out
    assert "training: 100%" in done.err
    assert "epoch 1/1  loss " in done.err
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_a_process_that_fails(tmp_path):
    done = evsnn_process("info", "missing.h5", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err == "Error: missing.h5: no such file or folder\n"


def test_a_process_used_wrongly(tmp_path):
    done = evsnn_process("train", "--epochs", "many", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: evsnn train")
    assert "Error: Invalid value for '--epochs'" in done.err
    assert not any(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path):
    done = evsnn_process("--debug", "info", "missing.h5", cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Traceback (most recent call last):")
    assert "DataError: missing.h5" in done.err


def test_an_error_nobody_foresaw_is_one_line(monkeypatch, small_events):
    def fail(path):
        raise LookupError("no\nsuch thing")

    monkeypatch.setattr("evsnn.open_events", fail)
    done = evsnn("info", small_events)
    assert done.code == 1
    assert done.err == (
        "Error: LookupError: no such thing (evsnn --debug ... shows where; please report it)\n"
    )


@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"], ["evaluate"]])
def test_a_reader_that_has_gone(arguments, small_run):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "evsnn", arguments[0], small_run, *arguments[1:]]
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert "Exception ignored" not in done.stderr


# Training


def test_the_run_folder(small_run):
    assert {path.name for path in small_run.iterdir()} == FILES
    config = tomllib.loads((small_run / "config.toml").read_text())
    assert config["arch"] == "784-16-10"
    assert config["network"]["alpha"] == [4.0, 3.0]
    assert config["data"]["limit"] == 60
    lines = [only_json(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert line["loss"] > 0
        assert 0 <= line["train_accuracy"] <= 1
        assert 0 <= line["validation_accuracy"] <= 1
        assert len(line["events_per_sample"]) == 3
        assert len(line["synaptic_operations_per_sample"]) == 2
        assert len(line["active_share"]) == 2
        assert line["seconds"] > 0
        assert line["samples_per_second"] == pytest.approx(50 / line["seconds"])
    result = only_json((small_run / "result.json").read_text())
    assert result["epochs"] == 2
    assert result["interrupted"] is False
    assert result["samples"] == {"train": 50, "validation": 10, "test": 60}
    assert result["train_seconds"] == pytest.approx(sum(line["seconds"] for line in lines))
    assert result["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert result["dense_macs_per_sample"] == 784 * 16 + 16 * 10
    assert (small_run / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert load(small_run / "model.h5").info["epoch"] == result["best_epoch"]
    assert load(small_run / "checkpoint.h5").info["epoch"] == 2
    best = max(lines, key=lambda line: line["validation_accuracy"])
    assert result["validation_accuracy"] == best["validation_accuracy"]
    assert result["best_epoch"] == best["epoch"]


def test_the_result_holds_what_is_promised(small_run):
    result = only_json((small_run / "result.json").read_text())
    numbers = {
        "test_accuracy",
        "validation_accuracy",
        "epochs",
        "train_seconds",
        "samples_per_second",
        "synaptic_operations_per_sample",
        "dense_macs_per_sample",
        "parameters",
    }
    assert all(isinstance(result[name], int | float) for name in numbers)
    assert len(result["spikes_per_sample"]) == 2
    known = {"git_revision", "cpu", "gpu", "threads", "python", "evsnn", "numba", "numpy"}
    assert known <= result["environment"].keys()
    assert result["environment"]["threads"] == 1
    assert result["environment"]["cpu"]
    # Operations follow from the events: each reaches all neurons of the next layer.
    events = [result["input_events_per_sample"], *result["spikes_per_sample"]]
    expected = events[0] * 16 + events[1] * 10
    assert result["synaptic_operations_per_sample"] == pytest.approx(expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_configuration_repeats_the_run_bit_for_bit(small_run, tmp_path, threads):
    again = tmp_path / "again"
    done = evsnn("train", "--config", small_run / "config.toml", "--out", again, "--threads", threads)
    assert done.code == 0, done.err
    assert same_bits(small_run / "model.h5", again / "model.h5")
    assert same_bits(small_run / "checkpoint.h5", again / "checkpoint.h5")
    assert (small_run / "config.toml").read_bytes() == (again / "config.toml").read_bytes()


def test_another_seed_is_another_run(small_run, tmp_path):
    other = tmp_path / "other"
    done = evsnn("train", "--config", small_run / "config.toml", "--seed", 1, "--out", other)
    assert done.code == 0, done.err
    assert not same_bits(small_run / "model.h5", other / "model.h5")


def test_options_lie_over_the_configuration_which_lies_over_the_preset(tmp_path):
    (tmp_path / "mine.toml").write_text("epochs = 2\n[learning]\nlr = 0.01\nbatch_size = 20\n")
    done = evsnn(
        "train",
        *("--arch", "784-8-10", "--limit", 20, "--preset", "paper", "--config", tmp_path / "mine.toml"),
        *("--epochs", 1, "--clamp", "2,3", "--kappa", -0.25, "--set", "learning.batch_size=10"),
        *("--set", "augment.elastic=0.5", "--set", "encoder.kind=latency", "--no-fresh"),
        *("--out", tmp_path / "run"),
    )
    assert done.code == 0, done.err
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["epochs"] == 1
    assert config["learning"]["lr"] == 0.01
    assert config["learning"]["batch_size"] == 10
    assert config["learning"]["loss"] == preset("paper").learning.loss
    assert config["network"]["clamp"] == [2.0, 3.0]
    assert config["network"]["kappa"] == -0.25
    assert config["network"]["tau_ms"] == preset("paper").network.tau_ms
    assert config["augment"]["elastic"] == 0.5
    assert config["encoder"]["kind"] == "latency"
    assert config["data"]["fresh"] is False


def test_without_a_name_the_run_folder_is_named_after_time_and_architecture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = evsnn("train", "--arch", "784-8-10", "--limit", 12, "--epochs", 1, "--json")
    assert done.code == 0, done.err
    [folder] = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-784-8-10", folder.name)
    assert only_json(done.out)["run_folder"] == f"runs/{folder.name}"


def test_an_earlier_run_is_replaced_by_force_only(small_run, tmp_path):
    folder = tmp_path / "run"
    options = ("--config", small_run / "config.toml", "--out", folder)
    assert evsnn("train", *options).code == 0
    (folder / "notes.txt").write_text("mine")
    before = (folder / "result.json").read_bytes()

    refused = evsnn("train", *options)
    assert refused.code == 1
    assert f"{folder} holds a run already; pass --force" in refused.err
    # Nothing is lost to a mistake either.
    assert evsnn("train", tmp_path / "missing.h5", *options, "--force").code == 1
    assert (folder / "result.json").read_bytes() == before
    assert (folder / "metrics.jsonl").read_text().count("\n") == 2

    assert evsnn("train", *options, "--force", "--epochs", 1).code == 0
    assert (folder / "metrics.jsonl").read_text().count("\n") == 1
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_run_that_never_began_leaves_no_folder(tmp_path):
    run = tmp_path / "run"
    assert evsnn("train", "--arch", "100-16-10", "--out", run).code == 1
    assert not run.exists()


# Interruption: a process that sends itself the signal of Ctrl-C in a chosen batch.

INTERRUPT = """
import os, signal
from evsnn.learning.optimiser import Optimiser
step, batches = Optimiser.step, 0
def interrupted(*arguments, **named):
    global batches
    step(*arguments, **named)
    batches += 1
    for _ in range({signals} if batches == {batch} else 0):
        os.kill(os.getpid(), signal.SIGINT)
Optimiser.step = interrupted
"""


def interrupt(folder, batch, *options, signals=1):
    before = INTERRUPT.format(batch=batch, signals=signals)
    return evsnn_process("train", *SMALL, "--epochs", 3, "--out", folder, *options, before=before)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = evsnn("train", *SMALL, "--epochs", 3, "--out", folder)
    assert done.code == 0, done.err
    return folder


def without_times(path):
    times = ("seconds", "samples_per_second")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in times} for line in lines]


def test_interrupted_and_resumed(tmp_path, whole_run):
    folder = tmp_path / "run"
    stopped = interrupt(folder, 8)  # 5 batches an epoch: in the middle of the second
    assert stopped.code == 130, stopped.err
    assert "Stopping after this batch" in stopped.err
    assert stopped.err.endswith(f"Interrupted; go on with: evsnn train --resume {folder}\n")
    assert "Traceback" not in stopped.err
    assert {path.name for path in folder.iterdir()} == FILES
    result = only_json((folder / "result.json").read_text())
    assert result["interrupted"] is True
    assert result["epochs"] == 1
    assert load(folder / "checkpoint.h5").info["batch"] == 3
    assert evsnn("evaluate", folder).code == 0
    assert evsnn("info", folder).code == 0

    resumed = evsnn("train", "--resume", folder, "--threads", 2, "--json")
    assert resumed.code == 0, resumed.err
    assert only_json(resumed.out)["epochs"] == 3
    assert only_json(resumed.out)["interrupted"] is False
    for name in ("model.h5", "checkpoint.h5"):
        assert same_bits(folder / name, whole_run / name)
    moments = load(folder / "checkpoint.h5").arrays
    expected = load(whole_run / "checkpoint.h5").arrays
    assert moments.keys() == expected.keys()
    assert all(moments[name].tobytes() == expected[name].tobytes() for name in moments)
    assert without_times(folder / "metrics.jsonl") == without_times(whole_run / "metrics.jsonl")

    again = evsnn("train", "--resume", folder)
    assert again.code == 0, again.err
    assert same_bits(folder / "model.h5", whole_run / "model.h5")


def test_interrupted_in_the_first_epoch_with_json(tmp_path, whole_run):
    folder = tmp_path / "run"
    stopped = interrupt(folder, 2, "--json")
    assert stopped.code == 130, stopped.err
    result = only_json(stopped.out)
    assert result["interrupted"] is True
    assert (result["epochs"], result["validation_accuracy"]) == (0, None)
    # Without an epoch there are no curves yet.
    assert {path.name for path in folder.iterdir()} == FILES - {"curves.png"}
    assert evsnn("train", "--resume", folder).code == 0
    assert same_bits(folder / "model.h5", whole_run / "model.h5")
    assert {path.name for path in folder.iterdir()} == FILES


def test_the_second_interrupt_stops_at_once(tmp_path):
    stopped = interrupt(tmp_path / "run", 8, signals=2)
    assert stopped.code == 130
    assert stopped.err.endswith("Interrupted.\n")
    assert "Traceback" not in stopped.err
    assert load(tmp_path / "run" / "checkpoint.h5").info["epoch"] == 1


def test_a_run_killed_while_it_wrote_its_metrics_goes_on(tmp_path, whole_run):
    folder = tmp_path / "run"
    assert interrupt(folder, 8).code == 130
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lea')
    resumed = evsnn("train", "--resume", folder)
    assert resumed.code == 0, resumed.err
    assert same_bits(folder / "model.h5", whole_run / "model.h5")
    assert without_times(folder / "metrics.jsonl") == without_times(whole_run / "metrics.jsonl")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["mnist.h5"], "data"),
        (["--arch", "784-8-10"], "--arch"),
        (["--epochs", "5"], "--epochs"),
        (["--lr", "0.1"], "--lr"),
        (["--preset", "paper"], "--preset"),
        (["--set", "learning.lr=0.1"], "--set"),
        (["--config", "some.toml"], "--config"),
        (["--out", "elsewhere"], "--out"),
        (["--no-fresh"], "--fresh"),
        (["--seed", "0"], "--seed"),
        (["--force"], "--force"),
    ],
)
def test_resume_refuses_other_options(small_run, options, named):
    done = evsnn("train", "--resume", small_run, *options)
    assert (done.code, done.out) == (2, "")
    assert f"Error: --resume goes on with the settings of its run; drop {named}\n" in done.err


# Conversion, evaluation, information


def test_convert_train_evaluate_info(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    converted = evsnn("convert-mnist", "--embedded", "--limit", 40, "--validation", 8, "-o", "few.h5")
    assert converted.code == 0, converted.err
    assert re.fullmatch(r"few\.h5: 80 images, [\d.]+ events each, in [\d.]+ s\n", converted.out)
    assert "converting: 100%" in converted.err

    shown = evsnn("info", "few.h5")
    assert shown.code == 0, shown.err
    assert shown.err == ""
    for line in ("kind: event file", "shape: 28x28x1 (HxWxC)", "classes: 10", "intact: yes"):
        assert line in shown.out.splitlines()

    trained = evsnn("train", "few.h5", "--epochs", 1, "--arch", "28x28-16-10", "--out", "run")
    assert trained.code == 0, trained.err
    assert "on few.h5: 32 training, 8 validation, 40 test samples" in trained.err
    stored = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["data"]["path"]
    assert stored == str(tmp_path / "few.h5")

    result = json.loads((tmp_path / "run" / "result.json").read_text())
    by_run = only_json(evsnn("evaluate", "run", "--json").out)
    by_file = only_json(evsnn("evaluate", "run/model.h5", "few.h5", "--json").out)
    assert by_run == by_file
    assert by_run["accuracy"] == result["test_accuracy"]
    assert by_run["samples"] == 40
    assert np.sum(by_run["confusion"]) == 40
    assert np.trace(by_run["confusion"]) == round(40 * by_run["accuracy"])
    assert by_run["synaptic_operations_per_sample"] == pytest.approx(result["synaptic_operations_per_sample"])

    held_out = evsnn("evaluate", "run", "--split", "validation")
    assert held_out.code == 0, held_out.err
    assert held_out.out.startswith(f"accuracy {100 * result['validation_accuracy']:.2f} % of 8 samples")
    assert "label \\ predicted" in held_out.out
    assert "evaluating: 100%" in held_out.err


def test_an_evaluation_ignores_a_configuration_it_does_not_need(small_run, small_events, tmp_path):
    (tmp_path / "model.h5").write_bytes((small_run / "model.h5").read_bytes())
    (tmp_path / "config.toml").write_text("something else")
    assert evsnn("evaluate", tmp_path / "model.h5", small_events).code == 0
    assert evsnn("evaluate", tmp_path / "model.h5").code == 1


def test_conversion_is_reproducible(small_events, tmp_path):
    options = ("convert-mnist", "--embedded", "--limit", 60, "--validation", 12)
    done = evsnn(*options, "-o", tmp_path / "again.h5", "--threads", 3)
    assert done.code == 0
    assert (tmp_path / "again.h5").read_bytes() == small_events.read_bytes()
    assert evsnn(*options, "-o", tmp_path / "other.h5", "--seed", 1).code == 0
    assert (tmp_path / "other.h5").read_bytes() != small_events.read_bytes()


def test_an_event_file_is_replaced_by_force_only(tmp_path):
    path = tmp_path / "few.h5"
    path.write_text("precious")
    options = ("convert-mnist", "--embedded", "--limit", 5, "-o", path)
    refused = evsnn(*options)
    assert refused.code == 1
    assert refused.err == f"Error: {path} exists; pass --force to replace it\n"
    assert path.read_text() == "precious"
    assert evsnn(*options, "--force").code == 0
    assert evsnn("info", path).code == 0


@pytest.mark.parametrize("encoder", ["stratified", "poisson", "latency"])
def test_json_of_a_conversion(tmp_path, encoder):
    path = tmp_path / "few.h5"
    options = ("--encoder", encoder, "--rate", 3, "--duration", 20, "--resolution", 10, "--seed", 7)
    done = evsnn("convert-mnist", "--embedded", "--limit", 9, "-o", path, "--json", *options)
    assert done.code == 0, done.err
    found = only_json(done.out)
    assert found.keys() == {"file", "images", "events", "seconds"}
    assert found["images"] == 18
    shown = only_json(evsnn("info", path, "--json").out)
    assert {name: part["events"] for name, part in shown["splits"].items()} == found["events"]
    assert shown["encoder"] == {"kind": encoder, "rate": 3.0, "duration_ms": 20.0, "resolution_us": 10}
    assert (shown["seed"], shown["duration_us"]) == (7, 20000)
    assert len(shown["source"]) == 4


def test_json_of_a_training_and_its_parts(tmp_path):
    folder = tmp_path / "run"
    options = ("--epochs", 1, "--set", "network.tau_ms=inf", "--clamp", "inf,2", "--out", folder)
    trained = evsnn("train", *SMALL, *options, "--json")
    assert trained.code == 0, trained.err
    expected = json.loads((folder / "result.json").read_text()) | {"run_folder": str(folder)}
    assert only_json(trained.out) == expected

    model = only_json(evsnn("info", folder / "model.h5", "--json").out)
    assert (model["kind"], model["architecture"], model["intact"]) == ("model", "784-16-10", True)
    assert model["settings"]["tau_ms"] == "inf"
    assert model["settings"]["clamp"] == ["inf", 2.0]
    assert only_json(evsnn("info", folder / "checkpoint.h5", "--json").out)["kind"] == "checkpoint"
    run = only_json(evsnn("info", folder, "--json").out)
    assert run["kind"] == "run folder"
    assert run["model.h5"]["parameters"] == model["parameters"]
    assert run["result"] == json.loads((folder / "result.json").read_text())

    evaluated = only_json(evsnn("evaluate", folder, "--json", "--split", "train").out)
    assert evaluated["split"] == "train"
    assert evaluated["samples"] == 5000
    assert np.shape(evaluated["confusion"]) == (10, 10)


def test_the_last_training_samples_are_held_out(small_events, tmp_path):
    common = ("train", small_events, "--arch", "784-8-10", "--epochs", 1)
    own = evsnn(*common, "--out", tmp_path / "own")
    assert "48 training, 12 validation, 60 test samples" in own.err
    fewer = evsnn(*common, "--validation", 5, "--out", tmp_path / "fewer")
    assert "43 training, 5 validation, 60 test samples" in fewer.err
    none = evsnn(*common, "--validation", 0, "--out", tmp_path / "none", "--json")
    assert "48 training, 0 validation, 60 test samples" in none.err
    assert only_json(none.out)["validation_accuracy"] is None
    assert only_json(none.out)["best_epoch"] == 1
    limited = evsnn(*common, "--limit", 7, "--out", tmp_path / "limited")
    assert "7 training, 7 validation, 7 test samples" in limited.err


def test_a_warning_is_given_once(tmp_path):
    options = ("--alpha", "1000,1000", "--epochs", 3, "--out", tmp_path / "run")
    done = evsnn("train", *SMALL, *options)
    assert done.code == 0, done.err
    assert done.err.count("Warning: layer 1 (16 neurons) is silent, ") == 1
    assert done.err.count("Warning: samples end without an output spike, 100% of them") == 1
    assert "cross-entropy" not in done.err
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run" / "model.h5"))


def test_a_progress_bar_does_not_count_what_was_done_before_as_speed():
    with progress(10, "training", "samples", 4) as bar:
        bar.update(2)
        state = bar.format_dict
    assert (state["n"], state["initial"], state["total"]) == (6, 4, 10)
