"""Where a run stands: its checkpoints, written, found again and compared with what there is now."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evsnn_kernels.cache import source_hash

from evsnn import checkpoint
from evsnn.environment import package_version
from evsnn.errors import DataError, SettingsError
from evsnn.training.config import RunConfig
from evsnn.training.data import RunData
from evsnn.training.trainer import Totals, Trainer

CHECKPOINT = "checkpoint.h5"
#: The checkpoint before the last.
PREVIOUS = "checkpoint-previous.h5"
#: Minutes after which a checkpoint is written inside an epoch.
CHECKPOINT_MINUTES = 10.0

#: Packages whose versions may decide about the last bits.
_PACKAGES = ("evsnn", "numba", "llvmlite", "numpy")


@dataclass(eq=False)
class Best:
    """The best epoch so far by validation accuracy."""

    accuracy: float = -1.0
    epoch: int = 0

    def improved(self, metrics: Mapping[str, Any]) -> bool:
        """Whether an epoch is the best so far, which is then noted; without validation data the last is."""
        accuracy = metrics["validation_accuracy"]
        if accuracy is not None and accuracy <= self.accuracy:
            return False
        self.accuracy = -1.0 if accuracy is None else accuracy
        self.epoch = metrics["epoch"]
        return True


@dataclass(eq=False)
class RunState:
    """What changes while a run goes on."""

    trainer: Trainer
    best: Best = field(default_factory=Best)
    history: list[dict[str, Any]] = field(default_factory=list)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint, whose network the trainer has already."""
        info, trainer = saved.info, self.trainer
        trainer.optimiser.restore(saved.arrays, info["step"])
        trainer.epoch = info["epoch"]
        trainer.batch = info["batch"]
        trainer.totals = Totals.from_dict(len(trainer.network.layers), info["totals"])
        self.best = Best(info["best_accuracy"], info["best_epoch"])
        self.history = [dict(line) for line in saved.history]


class Checkpoints:
    """The last two checkpoints of a run folder.

    Parameters
    ----------
    folder : Path
    config : RunConfig
    data : mapping
        What :func:`describe_data` says, for every checkpoint.
    minutes : float
        After which the next one is due; 0 for after every batch.
    """

    def __init__(self, folder: Path, config: RunConfig, data: Mapping[str, Any], minutes: float) -> None:
        self._folder = folder
        self._fixed = {"config": config.to_dict(), "data": data, "versions": _versions()}
        self._keep = True
        self._seconds = 60.0 * minutes
        self._next = time.monotonic() + self._seconds
        self.last = "no checkpoint was written"

    @property
    def due(self) -> bool:
        """Whether so much time has gone by that a checkpoint should be written."""
        return time.monotonic() >= self._next

    def save(self, state: RunState) -> None:
        """Write a checkpoint, and keep the one before.

        Raises
        ------
        DataError
            If it cannot be written; the last one is then untouched.
        """
        trainer = state.trainer
        info = {
            **self._fixed,
            "epoch": trainer.epoch,
            "batch": trainer.batch,
            "step": trainer.optimiser.step_number,
            "totals": trainer.totals.to_dict(),
            "best_accuracy": state.best.accuracy,
            "best_epoch": state.best.epoch,
        }
        saved = checkpoint.Checkpoint(trainer.network, info, trainer.optimiser.state(), state.history)
        keep = self._folder / PREVIOUS if self._keep else None
        checkpoint.save(self._folder / CHECKPOINT, saved, keep=keep)
        self._next = time.monotonic() + self._seconds
        self.resumed(info, CHECKPOINT)

    def resumed(self, info: Mapping[str, Any], name: str) -> None:
        """Take note of the last good checkpoint; if that is the one before the last, it is kept as that."""
        self._keep = name == CHECKPOINT
        self.last = f"the last good checkpoint is {self._folder / name} ({position(info)})"


def position(info: Mapping[str, Any]) -> str:
    """Where in training a checkpoint was written."""
    return f"after epoch {info['epoch']}" + (f" and {info['batch']} batches" if info["batch"] else "")


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint in a run folder, damaged or not."""
    return any((folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))


def load_last(folder: Path) -> tuple[checkpoint.Checkpoint, str, str | None]:
    """Load the last checkpoint of a run folder, or the one before if that is damaged or gone.

    Returns
    -------
    Checkpoint
    str
        Its name.
    str or None
        What is wrong with the last one, if it was not that.

    Raises
    ------
    DataError
        If neither can be read.
    """
    last, previous = folder / CHECKPOINT, folder / PREVIOUS
    try:
        return _load(last), CHECKPOINT, None
    except DataError as error:
        if not previous.is_file():
            raise
        try:
            saved = _load(previous)
        except DataError as second:
            raise DataError(f"{error}; nor can the one before be used: {second}") from error
        return saved, PREVIOUS, f"{error}: going on from {PREVIOUS}, {position(saved.info)}"


def _load(path: Path) -> checkpoint.Checkpoint:
    if not path.is_file():
        raise DataError(f"{path} is not there")
    saved = checkpoint.load(path)
    needed = {"config", "data", "versions", "epoch", "batch", "step", "totals", "best_accuracy", "best_epoch"}
    if missing := sorted(needed - saved.info.keys()):
        raise DataError(f"{path}: no checkpoint of a run, it lacks {', '.join(missing)}")
    for name in ("epoch", "batch", "step", "best_epoch"):
        if type(saved.info[name]) is not int or not 0 <= saved.info[name] < 1 << 53:
            raise DataError(f"{path}: {name!r} is no count")
    if not isinstance(saved.info["best_accuracy"], int | float):
        raise DataError(f"{path}: 'best_accuracy' is no number")
    if not all(isinstance(saved.info[name], dict) for name in ("config", "data", "versions", "totals")):
        raise DataError(f"{path}: 'config', 'data', 'versions' and 'totals' must be JSON objects")
    for part in saved.info["data"].values():
        if not isinstance(part, dict) or [type(part.get(key)) for key in ("samples", "events", "sha256")] != [
            int,
            int,
            str,
        ]:
            raise DataError(f"{path}: 'data' must hold the size and fingerprint of every split")
    try:
        Totals.from_dict(len(saved.network.layers), saved.info["totals"])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if len(saved.history) != saved.info["epoch"]:
        raise DataError(
            f"{path}: holds the metrics of {len(saved.history)} epochs after epoch {saved.info['epoch']}"
        )
    return saved


def check_config(saved: checkpoint.Checkpoint, config: RunConfig, path: Path) -> None:
    """Check that a checkpoint was written by a run of this configuration.

    Raises
    ------
    SettingsError
        Naming the settings that differ; ``path`` is the file of the configuration.
    """
    stored = saved.info["config"]
    now = json.loads(json.dumps(config.to_dict()))
    if stored != now:
        changes = ", ".join(_differences(stored, now))
        raise SettingsError(
            f"{path} differs from the configuration in {CHECKPOINT}: {changes}; "
            "restore it, or start a new run with it (--config, --out)"
        )


def _differences(stored: Mapping[str, Any], now: Mapping[str, Any], section: str = "") -> Iterator[str]:
    for name in sorted(stored.keys() | now.keys()):
        old, new = stored.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{section}{name}.")
        elif old != new:
            yield f"{section}{name} was {json.dumps(old)}, is {json.dumps(new)}"


def describe_data(data: RunData) -> dict[str, dict[str, Any]]:
    """Size and fingerprint of every split."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        name: {"samples": len(part), "events": len(part.times), "sha256": part.fingerprint()}
        for name, part in splits.items()
        if part is not None
    }


def check_data(saved: checkpoint.Checkpoint, now: Mapping[str, Any], data_name: str) -> None:
    """Check that the data are those that a run began with; ``now`` is what :func:`describe_data` says.

    Raises
    ------
    DataError
        Naming the splits that differ, and how.
    """
    stored = saved.info["data"]
    changes = []
    for name in ("train", "validation", "test"):
        old, new = stored.get(name), now.get(name)
        if old == new:
            continue
        was, found = _size(old), _size(new)
        if old is not None and new is not None and was == found:
            was, found = f"SHA-256 {old['sha256'][:12]}", f"as many, with SHA-256 {new['sha256'][:12]}"
        changes.append(f"{name}: {found}, were {was}")
    if changes:
        raise DataError(
            f"{data_name}: not the samples that the run began with; {'; '.join(changes)}; "
            "restore the file, or start a new run"
        )


def _size(part: Mapping[str, Any] | None) -> str:
    return "none" if part is None else f"{part['samples']} samples with {part['events']} events"


def _versions() -> dict[str, str]:
    return {**{name: package_version(name) for name in _PACKAGES}, "kernels": source_hash()}


def other_versions(saved: checkpoint.Checkpoint) -> str | None:
    """Say which versions are not those that a checkpoint was written with; None if all are."""
    changes = list(_differences(saved.info["versions"], _versions()))
    if not changes:
        return None
    return (
        f"the run goes on with other versions, so perhaps not bit for bit as it would have: "
        f"{', '.join(changes)}"
    )
