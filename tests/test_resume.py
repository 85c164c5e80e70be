"""Interruption: whatever stops a run, it goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import SMALL, evsnn, evsnn_process, same_bits, toy_events, write_events

from evsnn import checkpoint
from evsnn.backends import CpuBackend
from evsnn.environment import describe_environment
from evsnn.errors import DataError
from evsnn.files import remove_temporary, write_atomically
from evsnn.training import state as state_module
from evsnn.training.run import Run, read_metrics
from evsnn.training.trainer import DivergedError

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")

#: `EVSNN_KILLS=30 pytest tests/test_resume.py -k kill` is the long run.
KILLS = int(os.environ.get("EVSNN_KILLS", "4"))
EPOCHS = 30
LAST, PREVIOUS = "checkpoint.h5", "checkpoint-previous.h5"


def without_times(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "samples_per_second")} for line in lines]


def same_run(one: Path, other: Path) -> bool:
    """Whether two finished runs have the same parameters, optimiser state and metrics."""
    ours, theirs = (checkpoint.load(folder / LAST) for folder in (one, other))
    return (
        same_bits(one / LAST, other / LAST)
        and same_bits(one / "model.h5", other / "model.h5")
        and ours.arrays.keys() == theirs.arrays.keys()
        and all(ours.arrays[name].tobytes() == theirs.arrays[name].tobytes() for name in ours.arrays)
        and without_times(one / "metrics.jsonl") == without_times(other / "metrics.jsonl")
    )


# Killed at random moments


class Reader(threading.Thread):
    """Reads what a run writes, over and over: whatever is there must be whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self._ended = folder, threading.Event()
        self.reads, self.faults = 0, []

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                for name in ("config.toml", LAST, PREVIOUS, "model.h5", "result.json"):
                    self._read(self._folder / name)
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            time.sleep(0.01)

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        if path.suffix == ".h5":
            info = checkpoint.load(path).info
            if path.name == LAST:
                read_metrics(self._folder / "metrics.jsonl", info["epoch"])
        elif path.suffix == ".toml":
            tomllib.loads(path.read_text())
        else:
            json.loads(path.read_text())
        self.reads += 1

    def stop(self) -> None:
        self._ended.set()
        self.join()


@contextmanager
def training(*arguments):
    """A training process, from the moment at which its first batch begins."""
    command = [sys.executable, "-m", "evsnn", "train", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            told = []
            for line in process.stderr:
                told.append(line)
                if "parameters, on" in line:
                    break
            else:
                raise AssertionError("".join(told))
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            yield process
        finally:
            process.kill()
            process.wait()
            drain.join()


def file_number(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def wait_for_a_batch(process: subprocess.Popen, folder: Path, before: int | None) -> None:
    """Wait until the first checkpoint after a batch has made the one before it the previous one."""
    while process.poll() is None and file_number(folder / PREVIOUS) == before:
        time.sleep(0.002)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A run that nothing stops, and the seconds that its batches take."""
    folder = tmp_path_factory.mktemp("long") / "run"
    with training(*SMALL, "--epochs", EPOCHS, "--checkpoint-minutes", 0, "--out", folder) as process:
        wait_for_a_batch(process, folder, None)
        begin = time.monotonic()
        assert process.wait() == 0
        return folder, time.monotonic() - begin


@posix
def test_killed_at_random_moments(long_run, tmp_path, record_property):
    expected, seconds = long_run
    chance = random.Random(int(os.environ.get("EVSNN_KILL_SEED", "1")))
    kills, runs, reads = 0, 0, 0
    inside = set()
    while kills < KILLS:
        folder = tmp_path / f"run{runs}"
        reader = Reader(folder)
        reader.start()
        begin = ["--out", folder, *SMALL, "--epochs", EPOCHS]
        while True:
            options = ["--resume", folder] if (folder / "config.toml").exists() else begin
            before = file_number(folder / PREVIOUS)
            with training(*options, "--checkpoint-minutes", 0, "--threads", chance.choice([1, 2])) as process:
                if chance.random() < 0.9:  # else at once, while kernels are loaded
                    wait_for_a_batch(process, folder, before)
                try:
                    code = process.wait(chance.uniform(0.0, seconds / 2) if kills < KILLS else None)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    code = process.wait()
            if code == 0:
                break
            assert code == -signal.SIGKILL
            kills += 1
            if (folder / LAST).exists():
                info = checkpoint.load(folder / LAST).info
                inside.add(info["step"])
        reader.stop()
        assert not reader.faults
        assert same_run(folder, expected)
        left = {path.name for path in folder.iterdir()} - {path.name for path in expected.iterdir()}
        assert not left, "nothing half written stays"
        runs += 1
        reads += reader.reads
    record_property("kills", kills)
    print(
        f"{kills} kills in {runs} runs, at {len(inside)} places, {reads} files read meanwhile, 0 differences"
    )
    assert len(inside) > KILLS // 3
    assert reads > 0
    if record := os.environ.get("EVSNN_RECORD"):
        found = {"kills": kills, "runs": runs, "batches_killed_after": sorted(inside), "files_read": reads}
        command = f"EVSNN_KILLS={KILLS} pytest tests/test_resume.py -k random_moments"
        result = {"command": command, **found, "differences": 0, "environment": describe_environment(2)}
        Path(record).write_text(json.dumps(result, indent=2) + "\n")


# Signals

SIGNALLED = """
import os, signal
from evsnn.learning.optimiser import Optimiser
step, batches = Optimiser.step, 0
def signalled(*arguments, **named):
    global batches
    step(*arguments, **named)
    batches += 1
    if batches == 8:
        for number in {signals}:
            os.kill(os.getpid(), number)
Optimiser.step = signalled
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
{before}
"""


def signalled(folder, *signals, before="", epochs=3):
    program = SIGNALLED.format(signals=[int(number) for number in signals], before=before)
    return evsnn_process("train", *SMALL, "--epochs", epochs, "--out", folder, before=program)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = evsnn("train", *SMALL, "--epochs", 3, "--out", folder)
    assert done.code == 0, done.err
    return folder


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_leave_a_checkpoint(tmp_path, whole_run, number, code):
    folder = tmp_path / "run"
    stopped = signalled(folder, number)
    assert stopped.code == code, stopped.err
    assert stopped.err.endswith(f"Interrupted; go on with: evsnn train --resume {folder}\n")
    info = checkpoint.load(folder / LAST).info
    assert (info["epoch"], info["batch"]) == (1, 3)
    assert not (folder / "lock").exists()
    assert evsnn("train", "--resume", folder).code == 0
    assert same_run(folder, whole_run)


@posix
def test_a_second_sigterm_ends_at_once_and_loses_no_checkpoint(tmp_path, whole_run):
    folder = tmp_path / "run"
    stopped = signalled(folder, signal.SIGTERM, signal.SIGTERM)
    assert stopped.code == -signal.SIGTERM
    assert checkpoint.load(folder / LAST).info["epoch"] == 1
    assert evsnn("train", "--resume", folder).code == 0
    assert same_run(folder, whole_run)


@posix
def test_nohup_goes_on(tmp_path):
    before = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    assert signalled(tmp_path / "run", signal.SIGHUP, before=before, epochs=2).code == 0


# Checkpoints


def folder_of(tmp_path, run):
    return shutil.copytree(run, tmp_path / "run")


def test_the_checkpoint_before_the_last_is_kept(whole_run):
    last, previous = (checkpoint.load(whole_run / name).info for name in (LAST, PREVIOUS))
    assert (last["epoch"], previous["epoch"]) == (3, 2)


@pytest.mark.parametrize("minutes", ["0", "1e-9"])
def test_timed_checkpoints(tmp_path, whole_run, minutes):
    """In the middle of an epoch, without changing what is learned."""
    folder = tmp_path / "run"
    done = evsnn("train", *SMALL, "--epochs", 3, "--checkpoint-minutes", minutes, "--out", folder)
    assert done.code == 0, done.err
    info = checkpoint.load(folder / PREVIOUS).info  # written after the last batch, before the epoch was done
    assert (info["epoch"], info["batch"]) == (2, 5)
    assert same_run(folder, whole_run)
    shutil.copy(folder / PREVIOUS, folder / LAST)
    assert evsnn("train", "--resume", folder).code == 0
    assert same_run(folder, whole_run)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(tmp_path, whole_run, damage):
    folder = folder_of(tmp_path, whole_run)
    path = folder / LAST
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        if damage == "flipped":
            content[len(content) // 2] ^= 16
        path.write_bytes({"empty": b"", "cut": content[:-100], "flipped": content}[damage])
    resumed = evsnn("train", "--resume", folder)
    assert resumed.code == 0, resumed.err
    assert f"Warning: {path}" in resumed.err
    assert f"going on from {PREVIOUS}, after epoch 2" in resumed.err
    assert same_run(folder, whole_run)


def test_a_good_checkpoint_is_never_replaced_by_a_damaged_one(tmp_path, whole_run, monkeypatch):
    """Killed again while the first checkpoint after a damaged one is written."""
    folder = folder_of(tmp_path, whole_run)
    (folder / LAST).write_bytes(b"")
    good = (folder / PREVIOUS).read_bytes()
    seen = []
    real = Path.replace

    def watched(self, target):
        result = real(self, target)
        seen.append((folder / PREVIOUS).read_bytes() == good or (folder / LAST).read_bytes() != b"")
        return result

    monkeypatch.setattr(Path, "replace", watched)
    assert evsnn("train", "--resume", folder).code == 0
    assert len(seen) > 3
    assert all(seen)


def test_two_damaged_checkpoints_are_one_line(tmp_path, whole_run):
    folder = folder_of(tmp_path, whole_run)
    for name in (LAST, PREVIOUS):
        (folder / name).write_bytes(b"")
    refused = evsnn("train", "--resume", folder)
    assert refused.code == 1
    assert refused.err.startswith(f"Error: {folder / LAST}: ")
    assert f"nor can the one before be used: {folder / PREVIOUS}: " in refused.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "7"),
        ("batch", -1),
        ("epoch", True),
        ("best_accuracy", None),
        ("data", {"train": {}}),
        ("totals", {}),
        ("totals", {"samples": [[1], [1, 2]]}),
        ("versions", []),
    ],
)
def test_a_checkpoint_with_other_values_than_a_run_writes_is_one_line(tmp_path, whole_run, name, value):
    folder = folder_of(tmp_path, whole_run)
    (folder / PREVIOUS).unlink()
    saved = checkpoint.load(folder / LAST)
    checkpoint.save(folder / LAST, replace(saved, info={**saved.info, name: value}))
    refused = evsnn("train", "--resume", folder)
    assert refused.code == 1
    [line] = refused.err.splitlines()
    assert f"{LAST}: " in line


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(tmp_path, whole_run):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole_run / "config.toml", folder)
    resumed = evsnn("train", "--resume", folder)
    assert resumed.code == 0, resumed.err
    assert "Warning: the run was stopped before its first checkpoint: it begins anew" in resumed.err
    assert same_run(folder, whole_run)


def test_metrics_are_in_the_checkpoint(tmp_path, whole_run):
    folder = folder_of(tmp_path, whole_run)
    (folder / "metrics.jsonl").write_text("nonsense\n")
    shutil.copy(folder / PREVIOUS, folder / LAST)
    assert evsnn("train", "--resume", folder).code == 0
    assert same_run(folder, whole_run)


def test_a_long_history_is_checksummed(tmp_path, whole_run):
    saved = checkpoint.load(whole_run / LAST)
    long = replace(saved, history=[dict(saved.history[0], epoch=n) for n in range(2000)])
    checkpoint.save(tmp_path / "long.h5", long)
    assert list(checkpoint.load(tmp_path / "long.h5").history) == long.history
    content = bytearray((tmp_path / "long.h5").read_bytes())
    at = content.index(b'"epoch": 1999')
    content[at + 9] = ord(b"8")
    (tmp_path / "long.h5").write_bytes(content)
    with pytest.raises(DataError, match="'history'"):
        checkpoint.load(tmp_path / "long.h5")


# What differs


@pytest.fixture
def toy_run(tmp_path):
    data = toy_events(np.random.default_rng(1), 48)
    write_events(tmp_path / "toys.h5", train=data, test=data.part(0, 10))
    options = ("--arch", "25-20-3", "--alpha", "2", "--batch-size", 8, "--epochs", 2)
    done = evsnn("train", tmp_path / "toys.h5", *options, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    return tmp_path / "run", tmp_path / "toys.h5", data


def refused_line(*arguments):
    done = evsnn(*arguments)
    assert (done.code, done.out) == (1, "")
    *_, line = done.err.splitlines()
    assert line.startswith("Error: ")
    return line


def test_other_data_are_named(toy_run):
    folder, path, data = toy_run
    before = (folder / LAST).read_bytes()

    write_events(path, train=data, test=data.part(0, 10))  # the same, written again
    assert evsnn("train", "--resume", folder).code == 0

    other = replace(data, times=data.times.copy())
    other.times[0] = 0 if data.times[0] else data.times[1]
    assert (other.times != data.times).any()
    write_events(path, train=other, test=data.part(0, 10))
    line = refused_line("train", "--resume", folder)
    assert "toys.h5: not the samples that the run began with; train: as many, with SHA-256 " in line
    assert "test:" not in line

    write_events(path, train=data, test=data.part(0, 9))
    line = refused_line("train", "--resume", folder)
    assert "test: 9 samples with 360 events, were 10 samples with 400 events" in line
    assert "train:" not in line

    write_events(path, train=data)
    assert "test: none, were 10 samples" in refused_line("train", "--resume", folder)
    assert (folder / LAST).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda data: replace(data, units=data.units[::-1].copy()),
        lambda data: replace(data, labels=(data.labels + 1) % 3),
        lambda data: replace(data, duration_us=data.duration_us + 1),
        lambda data: replace(data, classes=4),
        lambda data: replace(data, shape=(25, 1, 1)),
        lambda data: replace(data, encoder={"rate": 2}),
        lambda data: replace(data, images=np.zeros((len(data), 5, 5), np.uint8)),
        lambda data: data.part(0, len(data) - 1),
    ],
)
def test_the_fingerprint_sees_everything(change):
    data = toy_events(np.random.default_rng(1), 6)
    assert data.fingerprint() == replace(data, times=data.times.copy()).fingerprint()
    assert change(data).fingerprint() != data.fingerprint()


def test_the_fingerprint_does_not_see_where_a_part_was_cut_from():
    data = toy_events(np.random.default_rng(1), 6)
    assert data.part(2, 5).fingerprint() == data.select([2, 3, 4]).fingerprint()


def test_another_architecture_and_other_settings_are_named(toy_run):
    folder, _, _ = toy_run
    config = folder / "config.toml"
    text = config.read_text()
    config.write_text(text.replace('arch = "25-20-3"', 'arch = "25-30-3"').replace("seed = 0", "seed = 4"))
    line = refused_line("train", "--resume", folder)
    assert f'{config} differs from the configuration in {LAST}: arch was "25-20-3", is "25-30-3"' in line
    assert "seed was 0, is 4; restore it" in line


def test_another_version_is_named_and_goes_on(toy_run, monkeypatch):
    folder, _, _ = toy_run
    versions = state_module._versions() | {"evsnn": "0.2.0"}
    monkeypatch.setattr(state_module, "_versions", lambda: versions)
    done = evsnn("train", "--resume", folder)
    assert done.code == 0, done.err
    assert "Warning: the run goes on with other versions, so perhaps not bit for bit" in done.err
    assert 'is "0.2.0"' in done.err


# Full disks and numbers that run away


class Silent:
    """Nobody watches."""

    def __getattr__(self, name):
        return lambda *arguments: None


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tmp_path, whole_run, monkeypatch):
    folder = tmp_path / "run"
    real, written = os.fsync, []

    def full(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            return real(handle)
        written.append(handle)
        if len(written) >= 9:
            raise OSError(28, "No space left on device")
        return real(handle)

    config = Run.resume(whole_run).config
    with CpuBackend(1) as backend:
        run = Run.create(folder, config, backend=backend)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(DataError, match="No space left on device") as told:
                run.train(Silent())
    epoch = checkpoint.load(folder / LAST).info["epoch"]
    assert 0 < epoch < 3
    kept = f"the last good checkpoint is {folder / LAST} (after epoch {epoch})"
    assert str(told.value).endswith(f"; {kept}: make room and go on with --resume")
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
    assert evsnn("train", "--resume", folder).code == 0
    assert same_run(folder, whole_run)


@pytest.mark.parametrize("kind", ["weight", "threshold"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layer", [0, 1])
def test_parameters_that_are_not_finite_stop_training_at_once(
    tmp_path, whole_run, monkeypatch, kind, value, layer
):
    """A gradient of the second batch of the second epoch goes wrong; the loss stays finite."""
    from evsnn.learning import optimiser

    step = optimiser.Optimiser.step

    def spoiled(self, gradients, *arguments):
        if self.step_number == 6:
            getattr(gradients[layer], kind).flat[3] = value
        step(self, gradients, *arguments)

    monkeypatch.setattr(optimiser.Optimiser, "step", spoiled)
    config = Run.resume(whole_run).config
    config = replace(config, learning=replace(config.learning, threshold_lr=0.1))
    folder = tmp_path / "run"
    with CpuBackend(1) as backend, pytest.raises(DivergedError) as told:
        Run.create(folder, config, backend=backend).train(Silent())
    name, total = (f"{kind}s", (784 * 16, 160)[layer] if kind == "weight" else (16, 10)[layer])
    assert str(told.value) == (
        f"epoch 2, batch 2: 1 of {total} {name} of layer {layer + 1} are not finite; lower --lr; "
        f"the last good checkpoint is {folder / LAST} (after epoch 1)"
    )
    assert checkpoint.load(folder / LAST).info["epoch"] == 1


def test_the_last_batch_of_an_epoch_is_checked_before_it_is_saved(tmp_path, whole_run, monkeypatch):
    from evsnn.learning import optimiser

    step = optimiser.Optimiser.step

    def spoiled(self, gradients, *arguments):
        if self.step_number == 9:
            gradients[0].weight[5, 5] = np.nan
        step(self, gradients, *arguments)

    monkeypatch.setattr(optimiser.Optimiser, "step", spoiled)
    folder = tmp_path / "run"
    with CpuBackend(1) as backend, pytest.raises(DivergedError, match="epoch 2, batch 5: "):
        Run.create(folder, Run.resume(whole_run).config, backend=backend).train(Silent())
    assert checkpoint.load(folder / LAST).info["epoch"] == 1


# Files


def test_a_file_is_there_at_every_moment(tmp_path, monkeypatch):
    path, keep = tmp_path / "file", tmp_path / "old"
    write_atomically(path, b"1", keep=keep)
    assert not keep.exists()
    real, seen = Path.replace, []

    def watched(self, target):
        result = real(self, target)
        seen.append(path.read_bytes())
        return result

    monkeypatch.setattr(Path, "replace", watched)
    write_atomically(path, b"2", keep=keep)
    assert seen == [b"1", b"2"]
    assert keep.read_bytes() == b"1"


def test_without_hard_links_the_old_file_is_kept_all_the_same(tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", none)
    path, keep = tmp_path / "file", tmp_path / "old"
    for content in (b"1", b"2", b"3"):
        write_atomically(path, content, keep=keep)
    assert (path.read_bytes(), keep.read_bytes()) == (b"3", b"2")


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: os._exit)
    for name in ("a", "b"):
        write_atomically(tmp_path / name, b"half")
    (tmp_path / ".evsnn-mine.tmp").write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 3
    remove_temporary(tmp_path, ["a"])
    assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / ".evsnn-mine.tmp").exists()
