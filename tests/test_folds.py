"""Cross-validation: how samples are dealt, what a fold may see, and the folder that is left behind."""

from __future__ import annotations

import json
import shutil
import statistics
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SMALL, evsnn, evsnn_process, same_bits, toy_events, write_events

from evsnn import evaluate, load_model
from evsnn.datasets.division import deal
from evsnn.errors import DataError, SettingsError
from evsnn.training import CrossValidation, RunConfig
from evsnn.training.data import RunData, fold_data

RUN_FILES = {
    *("config.toml", "metrics.jsonl", "checkpoint.h5", "checkpoint-previous.h5"),
    *("model.h5", "result.json", "curves.png"),
}
#: Options of a cross-validation that takes a moment.
TOYS = ("--arch", "5x5-12-3", "--epochs", "2", "--alpha", "2,2", "--batch-size", "8", "--threads", "1")


@pytest.fixture(scope="module")
def toys():
    return toy_events(np.random.default_rng(3), 41)


@pytest.fixture(scope="module")
def toy_file(toys, tmp_path_factory):
    return write_events(tmp_path_factory.mktemp("toys") / "toys.h5", train=toys)


@pytest.fixture(scope="module")
def whole(toy_file, tmp_path_factory):
    """Folder of a cross-validation in three parts; not to be written to."""
    folder = tmp_path_factory.mktemp("folds") / "run"
    done = evsnn("train", toy_file, *TOYS, "--folds", 3, "--out", folder)
    assert done.code == 0, done.err
    return folder


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def without_times(folder):
    times = ("train_seconds", "peak_memory_mb", "environment")
    return {name: value for name, value in result_of(folder).items() if name not in times}


def same_folds(left, right, folds=3):
    names = [f"fold-{fold}/{name}" for fold in range(1, folds + 1) for name in ("model.h5", "checkpoint.h5")]
    return all(same_bits(left / name, right / name) for name in names)


# Dealing


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=60),
    folds=st.integers(2, 12),
)
def test_folds_are_dealt_like_cards(labels, folds):
    if folds > len(labels):
        with pytest.raises(SettingsError, match=f"2 to the number of training samples, {len(labels)}, got"):
            deal(np.array(labels), folds)
        return
    found = deal(np.array(labels, np.uint16), folds)
    hands, turn = {}, 0
    for label in sorted(set(labels)):
        for sample, other in enumerate(labels):
            if other == label:
                hands[sample] = turn % folds
                turn += 1
    assert found.tolist() == [hands[sample] for sample in range(len(labels))]
    sizes = [list(found).count(fold) for fold in range(folds)]
    assert max(sizes) - min(sizes) <= 1
    for label in set(labels):
        counts = Counter(found[np.array(labels) == label].tolist())
        assert max(counts.values()) - min(counts.get(fold, 0) for fold in range(folds)) <= 1


def test_the_deal_of_the_recordings(nmnist_archive):
    """Eighty recordings of every digit: sixteen of each in every one of five folds."""
    labels = np.arange(800) % 10
    found = deal(labels, 5)
    assert {int(((found == fold) & (labels == 3)).sum()) for fold in range(5)} == {16}


@pytest.mark.parametrize("folds", [2, 5, 41])
def test_every_sample_is_tested_once_and_learned_in_all_other_folds(toys, folds):
    counted = replace(toys, images=np.arange(41 * 25, dtype=np.uint8).reshape(41, 5, 5))
    identity = {sample.times.tobytes() + sample.units.tobytes(): index for index, sample in enumerate(toys)}
    assert len(identity) == len(toys)
    tested = []
    for fold in range(1, folds + 1):
        data = fold_data(RunData("toys", counted, None, None), folds, fold)
        assert data.validation is None
        parts = []
        for part in (data.train, data.test):
            part.check()
            chosen = [identity[sample.times.tobytes() + sample.units.tobytes()] for sample in part]
            assert chosen == sorted(chosen)
            assert part.labels.tolist() == toys.labels[chosen].tolist()
            np.testing.assert_array_equal(part.images, counted.images[chosen])
            parts.append(chosen)
        learned, held_out = parts
        assert sorted(learned + held_out) == list(range(41))
        tested += held_out
    assert sorted(tested) == list(range(41))


@pytest.mark.parametrize("fold", [0, 4])
def test_a_fold_there_is_not(toys, fold):
    with pytest.raises(SettingsError, match=f"fold must lie in 1 to 3, got {fold}"):
        fold_data(RunData("toys", toys, None, None), 3, fold)


# Choosing samples


def test_select(toys):
    order = [7, 0, 40, 7]
    chosen = toys.select(order).check()
    for found, index in zip(chosen, order, strict=True):
        assert found.times.tolist() == toys[index].times.tolist()
        assert found.units.tolist() == toys[index].units.tolist()
    assert chosen.labels.tolist() == toys.labels[order].tolist()
    assert (chosen.shape, chosen.duration_us, chosen.images) == (toys.shape, toys.duration_us, None)
    assert len(toys.select([])) == 0
    everything = toys.select(np.arange(len(toys), dtype=np.uint8))
    assert everything.times.tobytes() == toys.times.tobytes()
    assert everything.offsets.tolist() == toys.offsets.tolist()
    chosen.times[:] = 0
    assert toys[7].times.any()


@pytest.mark.parametrize("samples", [[41], [-1, 3], [0.5], [[1, 2]], [True, False]])
def test_samples_that_cannot_be_selected(toys, samples):
    with pytest.raises(SettingsError, match="samples"):
        toys.select(samples)


# What a run leaves behind


def test_the_folder(whole, toys):
    assert {path.name for path in whole.iterdir()} == {
        *("config.toml", "result.json"),
        *("fold-1", "fold-2", "fold-3"),
    }
    config = tomllib.loads((whole / "config.toml").read_text())
    assert (config["data"]["folds"], config["data"]["fold"]) == (3, 0)
    result = result_of(whole)
    accuracies = []
    for fold in range(1, 4):
        folder = whole / f"fold-{fold}"
        assert {path.name for path in folder.iterdir()} == RUN_FILES
        own = tomllib.loads((folder / "config.toml").read_text())
        assert own["data"].pop("fold") == fold
        assert own["data"] | {"fold": 0} == config["data"]
        # Judged on its own samples, after the last epoch.
        data = fold_data(RunData("toys", toys, None, None), 3, fold)
        accuracies.append(evaluate(load_model(folder / "model.h5"), data.test).accuracy)
        assert same_bits(folder / "model.h5", folder / "checkpoint.h5")
        assert result_of(folder)["best_epoch"] == 2
        assert result_of(folder)["validation_accuracy"] is None
        assert result["fold_errors"][fold - 1] == round((1 - accuracies[-1]) * len(data.test))
        assert result["fold_samples"][fold - 1] == len(data.test)
    assert result["fold_accuracies"] == accuracies
    assert result["mean_accuracy"] == pytest.approx(sum(accuracies) / 3)
    assert result["std_accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert result["std_accuracy"] == pytest.approx(statistics.stdev(accuracies))
    assert result["samples"] == 41
    assert result["errors"] == sum(result["fold_errors"])
    assert (result["folds"], result["epochs"], result["interrupted"]) == (3, 2, False)
    assert result["parameters"] == 25 * 12 + 12 + 12 * 3 + 3
    events = [result["input_events_per_sample"], *result["spikes_per_sample"]]
    assert events[0] == pytest.approx(np.diff(toys.offsets).mean())
    assert result["synaptic_operations_per_sample"] == pytest.approx(events[0] * 12 + events[1] * 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_configuration_repeats_the_run_bit_for_bit(whole, tmp_path, threads):
    again = tmp_path / "again"
    done = evsnn("train", "--config", whole / "config.toml", "--threads", threads, "--out", again, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == result_of(again) | {"run_folder": str(again)}
    assert same_folds(again, whole)
    assert (again / "config.toml").read_bytes() == (whole / "config.toml").read_bytes()
    assert without_times(again) == without_times(whole)


def test_the_configuration_of_a_fold_repeats_the_fold(whole, tmp_path):
    done = evsnn("train", "--config", whole / "fold-2" / "config.toml", "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert same_bits(tmp_path / "run" / "checkpoint.h5", whole / "fold-2" / "checkpoint.h5")
    assert json.loads(done.out)["test_accuracy"] == result_of(whole)["fold_accuracies"][1]


def test_other_splits_are_not_touched(whole, toys, tmp_path):
    """Nothing changes where the file has a validation and a test split whose labels are all wrong."""
    wrong = replace(toys, labels=(2 - toys.labels).astype(np.uint16))
    path = write_events(tmp_path / "toys.h5", train=toys, validation=wrong, test=wrong)
    done = evsnn("train", path, *TOYS, "--folds", 3, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert without_times(tmp_path / "run") == without_times(whole)
    assert same_folds(tmp_path / "run", whole)


def test_what_is_printed(toy_file, tmp_path):
    done = evsnn("train", toy_file, *TOYS, "--folds", 2, "--limit", 20, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    result = result_of(tmp_path / "run")
    assert result["fold_samples"] == [10, 10]
    lines = [
        f"fold {fold}: {100 * result['fold_accuracies'][fold - 1]:.2f} % "
        f"({result['fold_errors'][fold - 1]} of 10 wrong)"
        for fold in (1, 2)
    ]
    mean = (
        f"mean {100 * result['mean_accuracy']:.2f} %, standard deviation {100 * result['std_accuracy']:.2f} "
        f"({result['errors']} of 20 wrong)"
    )
    assert done.out.splitlines() == [*lines, mean, f"run folder {tmp_path / 'run'}"]
    assert "on toys.h5: fold 2/2, 10 training, 10 held out\n" in done.err
    assert f"fold 1/2  accuracy {lines[0].removeprefix('fold 1: ')}\n" in done.err
    assert evsnn("info", tmp_path / "run").code == 0
    assert evsnn("evaluate", tmp_path / "run" / "fold-1", toy_file, "--split", "train").code == 0


def test_the_subset_of_the_package_in_folds(tmp_path):
    """Fresh events of images, and the tests on events as they are stored."""
    done = evsnn("train", *SMALL, "--epochs", 1, "--folds", 2, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["fold_samples"] == [30, 30]
    assert result["data"] == "MNIST subset of the package"


# Replacing and going on


def test_an_earlier_run_is_replaced_by_force_only(whole, toy_file, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "fold-3" / "notes.txt").write_text("mine")
    refused = evsnn("train", toy_file, *TOYS, "--folds", 2, "--out", folder)
    assert refused.code == 1
    assert f"{folder} holds a run already; pass --force" in refused.err
    lost = evsnn("train", tmp_path / "missing.h5", *TOYS, "--folds", 2, "--out", folder, "--force")
    assert lost.code == 1
    assert same_folds(folder, whole)
    done = evsnn("train", toy_file, *TOYS, "--folds", 2, "--out", folder, "--force")
    assert done.code == 0, done.err
    assert result_of(folder)["folds"] == 2
    # Of the fold that is no more, only what is not the run's own stays.
    assert [path.name for path in (folder / "fold-3").iterdir()] == ["notes.txt"]
    single = evsnn("train", toy_file, *TOYS, "--out", folder, "--force")
    assert single.code == 0, single.err
    assert {path.name for path in folder.iterdir()} == RUN_FILES | {"fold-3"}


INTERRUPT = """
import os, signal
from evsnn.learning.optimiser import Optimiser
step, batches = Optimiser.step, 0
def interrupted(*arguments, **named):
    global batches
    step(*arguments, **named)
    batches += 1
    if batches == {batch}:
        os.kill(os.getpid(), signal.SIGINT)
Optimiser.step = interrupted
"""


def test_interrupted_and_resumed(whole, toy_file, tmp_path):
    folder = tmp_path / "run"
    # Four batches an epoch, eight a fold: in the second epoch of the second fold.
    stopped = evsnn_process(
        *("train", toy_file, *TOYS, "--folds", 3, "--out", folder, "--json"),
        before=INTERRUPT.format(batch=14),
    )
    assert stopped.code == 130, stopped.err
    assert stopped.err.endswith(f"Interrupted; go on with: evsnn train --resume {folder}\n")
    partial = json.loads(stopped.out)
    assert (partial["interrupted"], partial["fold_samples"]) == (True, [14])
    assert partial["fold_accuracies"] == result_of(whole)["fold_accuracies"][:1]
    assert partial["std_accuracy"] is None
    assert not (folder / "fold-3").exists()
    resumed = evsnn("train", "--resume", folder, "--threads", 2)
    assert resumed.code == 0, resumed.err
    assert same_folds(folder, whole)
    assert without_times(folder) == without_times(whole)
    again = evsnn("train", "--resume", folder)
    assert again.code == 0, again.err
    assert without_times(folder) == without_times(whole)


def test_interrupted_before_the_first_fold_was_done(toy_file, tmp_path):
    folder = tmp_path / "run"
    stopped = evsnn_process(
        *("train", toy_file, *TOYS, "--folds", 3, "--out", folder), before=INTERRUPT.format(batch=1)
    )
    assert stopped.code == 130, stopped.err
    assert stopped.out == f"run folder {folder}\n"
    assert result_of(folder)["mean_accuracy"] is None
    assert result_of(folder)["spikes_per_sample"] == []


def test_a_fold_that_never_reached_a_checkpoint_begins_anew(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "fold-2" / "checkpoint.h5").unlink()
    (folder / "fold-2" / "checkpoint-previous.h5").unlink()
    (folder / "fold-2" / "metrics.jsonl").unlink()
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "fold-3")
    resumed = evsnn("train", "--resume", folder)
    assert resumed.code == 0, resumed.err
    assert same_folds(folder, whole)
    assert without_times(folder) == without_times(whole)


def test_resume_refuses_a_configuration_that_was_changed(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("epochs = 2", "epochs = 3"))
    refused = evsnn("train", "--resume", folder)
    assert refused.code == 1
    line = refused.err.splitlines()[-1]
    assert line == (
        f"Error: {folder / 'fold-1' / 'config.toml'} differs from {folder / 'config.toml'}; restore it"
    )


# Bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--folds", "1"], ["folds", "2 or more", "1"]),
        (["--folds", "-3"], ["folds", "-3"]),
        (["--folds", "42"], ["folds", "41", "42"]),
        (["--folds", "3", "--validation", "5"], ["validation", "5"]),
        (["--set", "data.folds=true"], ["folds", "True"]),
        (["--set", "data.folds=2.5"], ["folds", "2.5"]),
        (["--set", "data.fold=2"], ["fold", "2"]),
        (["--folds", "3", "--set", "data.fold=4"], ["fold", "3", "4"]),
        (["--folds", "3", "--set", "augment_events.flip=0.5"], ["flip", "1 channel"]),
        (["--folds", "3", "--arch", "6x6-5-3"], ["36"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_settings_are_one_line_and_write_nothing(toy_file, tmp_path, options, words):
    done = evsnn("train", toy_file, "--epochs", 1, *options, "--out", tmp_path / "run")
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    assert line.startswith("Error: ")
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_from_python_without_folds(tmp_path):
    with pytest.raises(SettingsError, match="folds"):
        CrossValidation.create(tmp_path / "run", RunConfig())
    (tmp_path / "config.toml").write_text("epochs = 1\n")
    with pytest.raises(SettingsError, match="no cross-validation"):
        CrossValidation.resume(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        CrossValidation.create(Path(tmp_path / "file"), RunConfig.from_dict({"data": {"folds": 2}}))
