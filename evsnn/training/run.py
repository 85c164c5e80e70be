"""A training run and the folder it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evsnn import checkpoint
from evsnn.backends import Backend, CpuBackend
from evsnn.datasets.sampling import Source
from evsnn.environment import describe_environment, peak_memory_mb
from evsnn.errors import DataError, EvsnnError
from evsnn.events.core import EventSet
from evsnn.files import append_line, make_folder, read_limited, remove_temporary, write_atomically
from evsnn.layers.base import SpikingLayer
from evsnn.lock import FolderLock
from evsnn.network.network import Network
from evsnn.plots import plot_curves
from evsnn.training.config import RunConfig
from evsnn.training.data import RunData, load_data
from evsnn.training.evaluation import evaluate
from evsnn.training.fit import make_source, train_epochs
from evsnn.training.health import health_warnings
from evsnn.training.state import (
    CHECKPOINT,
    CHECKPOINT_MINUTES,
    PREVIOUS,
    Checkpoints,
    RunState,
    check_config,
    check_data,
    describe_data,
    has_checkpoint,
    load_last,
    other_versions,
)
from evsnn.training.trainer import Totals, Trainer

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
MODEL = "model.h5"
RESULT = "result.json"
CURVES = "curves.png"
#: What only the run itself writes, and what others may write, too.
_OWN_FILES = (CONFIG, METRICS, CHECKPOINT, PREVIOUS, MODEL, RESULT)
_FILES = (*_OWN_FILES, CURVES)
#: What every line of metrics must hold to be drawn.
_PLOTTED = {"epoch", "loss", "train_accuracy", "validation_accuracy", "events_per_sample", "seconds"}

#: No line is as long, and no number of it as large.
_LONGEST_LINE = 1 << 22
_ABSURD = 1e30


class Listener(Protocol):
    """Whoever watches a run: the command line, a notebook."""

    def started(self, network: Network, data: RunData, epoch: int) -> None:
        """Training begins, after ``epoch`` epochs done before."""
        ...

    def batch(self, totals: Totals) -> None:
        """A batch is done."""
        ...

    def epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch is done."""
        ...

    def warning(self, line: str) -> None:
        """Something deserves attention."""
        ...


class Run:
    """One run folder: training into it, and going on where it stopped.

    Parameters
    ----------
    folder : Path
    config : RunConfig
    backend : Backend, optional
        Where to compute, closed by whoever opened it; default: all processors. Results do not depend on it.
    checkpoint_minutes : float
        A checkpoint is written after every epoch and, inside an epoch, after so many minutes. Results do not
        depend on it.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        backend: Backend | None = None,
        *,
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
    ) -> None:
        self.folder = folder
        self.config = config
        self.backend = backend or CpuBackend()
        self._minutes = checkpoint_minutes
        self._force = False
        self._saved: checkpoint.Checkpoint | None = None
        self._saved_as = CHECKPOINT
        self._news: list[str] = []

    @classmethod
    def create(
        cls,
        folder: Path,
        config: RunConfig,
        *,
        backend: Backend | None = None,
        force: bool = False,
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
    ) -> Run:
        """Start a new run folder.

        Nothing is written, and no earlier run replaced, before :meth:`train` has found the data in order.

        Raises
        ------
        DataError
            If the folder holds a run already and ``force`` is not given.
        """
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder} is a file; a run needs a folder of its own")
        run = cls(folder, config, backend, checkpoint_minutes=checkpoint_minutes)
        run._force = force
        run._refuse_existing()
        return run

    def _refuse_existing(self) -> None:
        if not self._force and any((self.folder / name).exists() for name in _FILES):
            raise DataError(
                f"{self.folder} holds a run already; pass --force to replace it, or --resume to go on"
            )

    @classmethod
    def resume(
        cls,
        folder: Path,
        *,
        backend: Backend | None = None,
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
    ) -> Run:
        """Go on with a run that was stopped, however it was stopped.

        Raises
        ------
        DataError, SettingsError
            If the folder holds no run that can go on.
        """
        begun = (folder / CONFIG).is_file()
        if not has_checkpoint(folder) and (not begun or (folder / METRICS).exists()):
            raise DataError(f"{folder} holds no {CHECKPOINT} to resume from")
        config = RunConfig.from_toml(folder / CONFIG)
        run = cls(folder, config, backend, checkpoint_minutes=checkpoint_minutes)
        if not has_checkpoint(folder):
            run._force = True
            run._news.append("the run was stopped before its first checkpoint: it begins anew")
            return run
        run._saved, run._saved_as, damage = load_last(folder)
        check_config(run._saved, config, folder / CONFIG)
        run._news += [line for line in (damage, other_versions(run._saved)) if line is not None]
        return run

    def train(
        self,
        listener: Listener,
        should_stop: Callable[[], bool] | None = None,
        data: RunData | None = None,
    ) -> dict[str, Any]:
        """Train to the end or until stopped; write every file of the folder.

        Parameters
        ----------
        listener : Listener
        should_stop : callable, optional
            Asked before every batch. A run that stops writes a checkpoint from which it can go on, and is
            judged by what it has learned.
        data : RunData, optional
            The splits that the configuration names, if they are in memory already.

        Returns
        -------
        dict
            What ``result.json`` holds.

        Raises
        ------
        DataError, SettingsError
            If the data are wrong, do not fit the network or are not those that the run began with, if
            another process trains into the folder, or the folder cannot be written: naming the last
            checkpoint, which is kept.
        DivergedError
            If a loss, weight or threshold is not finite, naming layer, step and the last checkpoint.
        """
        with ExitStack() as stack:
            if self._saved is not None:
                self._lock(stack)
            data = data or load_data(self.config, self.backend.host)
            described = describe_data(data)
            if self._saved is not None:
                check_data(self._saved, described, data.name)
            state = RunState(self._trainer(data))
            checkpoints = Checkpoints(self.folder, self.config, described, self._minutes)
            if self._saved is not None:
                state.restore(self._saved)
                checkpoints.resumed(self._saved.info, self._saved_as)
            else:
                self._begin(stack)
                checkpoints.save(state)
            self._write(METRICS, "".join(json.dumps(line) + "\n" for line in state.history))
            listener.started(state.trainer.network, data, state.trainer.epoch)
            for line in self._news:
                listener.warning(line)
            try:
                self._train(state, checkpoints, data, listener, should_stop)
            except DataError as error:
                raise DataError(f"{error}; {checkpoints.last}: make room and go on with --resume") from error
            except EvsnnError as error:
                raise type(error)(f"{error}; {checkpoints.last}") from error
            return self._finish(data, state)

    def _train(
        self,
        state: RunState,
        checkpoints: Checkpoints,
        data: RunData,
        listener: Listener,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        trainer, config = state.trainer, self.config

        def after_batch(totals: Totals) -> None:
            listener.batch(totals)
            if checkpoints.due:
                trainer.store()
                checkpoints.save(state)

        for metrics in train_epochs(
            trainer, data.validation, epochs=config.epochs, report=after_batch, should_stop=should_stop
        ):
            state.history.append(metrics)
            append_line(self.folder / METRICS, json.dumps(metrics))
            if state.best.improved(metrics):
                checkpoint.save_model(self.folder / MODEL, trainer.network, {"epoch": state.best.epoch})
            checkpoints.save(state)
            listener.epoch(metrics)
            for line in _warnings(trainer.network, metrics, config.learning.loss):
                listener.warning(line)
        if trainer.epoch < config.epochs:
            checkpoints.save(state)
        if not state.history:
            checkpoint.save_model(self.folder / MODEL, trainer.network, {"epoch": 0})

    def _lock(self, stack: ExitStack) -> None:
        lock = stack.enter_context(FolderLock(self.folder))
        if not lock.works:
            self._news.append(
                f"the file system of {self.folder} has no locks: "
                "a second training in this folder would not be noticed"
            )
        remove_temporary(self.folder, _OWN_FILES)

    def _begin(self, stack: ExitStack) -> None:
        make_folder(self.folder)
        self._lock(stack)
        self._refuse_existing()
        clear_folder(self.folder)
        self._write(CONFIG, self.config.to_toml())

    def _trainer(self, data: RunData) -> Trainer:
        config = self.config
        if self._saved is None:
            network = new_network(config, data)
        else:
            network = self._saved.network
            network.check_fits(data.train, data.name)
        source = training_source(config, data, self.backend)
        return Trainer(
            network, source, config.learning, epochs=config.epochs, seed=config.seed, backend=self.backend
        )

    def _finish(self, data: RunData, state: RunState) -> dict[str, Any]:
        history, best, epochs = state.history, state.best, state.trainer.epoch
        network = checkpoint.load_model(self.folder / MODEL)
        test = None if data.test is None else evaluate(network, data.test, backend=self.backend)
        measured = test.totals.means() if test is not None else (history[-1] if history else {})
        seconds = sum(metrics["seconds"] for metrics in history)
        operations = measured.get("synaptic_operations_per_sample")
        result = {
            "test_accuracy": None if test is None else test.accuracy,
            "validation_accuracy": best.accuracy if best.accuracy >= 0 else None,
            "epochs": epochs,
            "best_epoch": best.epoch,
            "interrupted": epochs < self.config.epochs,
            "train_seconds": seconds,
            "samples_per_second": len(history) * len(data.train) / seconds if seconds else None,
            "synaptic_operations_per_sample": None if operations is None else float(np.sum(operations)),
            "dense_macs_per_sample": network.dense_macs,
            "input_events_per_sample": _first(measured.get("events_per_sample")),
            "spikes_per_sample": measured.get("events_per_sample", [])[1:],
            "active_share": measured.get("active_share"),
            "parameters": network.parameters,
            "architecture": network.architecture.text,
            "peak_memory_mb": peak_memory_mb(),
            "data": data.name,
            "samples": {
                "train": len(data.train),
                "validation": 0 if data.validation is None else len(data.validation),
                "test": 0 if data.test is None else len(data.test),
            },
            "environment": describe_environment(
                self.backend.host.threads, backend=self.backend.name, gpu=self.backend.device
            ),
        }
        self._write(RESULT, json.dumps(result, indent=2) + "\n")
        if history:
            write_atomically(self.folder / CURVES, plot_curves(history, network.architecture.text))
        return result

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.folder / name, text.encode())


def new_network(config: RunConfig, data: RunData) -> Network:
    """Return the network that a configuration begins with.

    Raises
    ------
    DataError, SettingsError
        If it does not fit the data.
    """
    arch = config.arch or default_architecture(data.train)
    network = Network.from_architecture(arch, seed=config.seed, settings=config.network)
    network.check_fits(data.train, data.name)
    return network


def training_source(config: RunConfig, data: RunData, backend: Backend) -> Source:
    """Return where the batches of a run come from.

    Raises
    ------
    DataError, SettingsError
        If there are no samples, or not of the kind that the configuration needs.
    """
    return make_source(
        data.train,
        fresh=config.data.fresh,
        encoder=None if config.data.path else config.encoder,
        augmentation=config.augment,
        event_augmentation=config.augment_events,
        augment=config.data.augment,
        seed=config.seed,
        backend=backend,
    )


def clear_folder(folder: Path) -> None:
    """Make a run folder, without what an earlier run or cross-validation left there; all else stays.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = [path for path in folder.glob("fold-*") if path.name[5:].isdecimal() and path.is_dir()]
        for path in (folder, *parts):
            for name in _FILES:
                (path / name).unlink(missing_ok=True)
        for path in parts:
            if not any(path.iterdir()):
                path.rmdir()
    except OSError as error:
        raise DataError(f"cannot write {error.filename}: {error.strerror or error}") from error


def read_metrics(path: Path, epochs: int) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` up to an epoch; empty if there is no such file.

    What follows that epoch is left out: a run that was killed may have begun a line.

    Raises
    ------
    DataError
        Naming the line that is not an epoch's metrics.
    """
    if epochs == 0 or not path.exists():
        return []
    try:
        if not path.is_file():
            raise DataError(f"cannot read {path}: not a file")
        with path.open("rb") as file:
            return parse_metrics(iter(lambda: file.readline(_LONGEST_LINE), b""), str(path), epochs)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def read_result(path: Path) -> dict[str, Any]:
    """Read ``result.json``.

    Raises
    ------
    DataError
        If it cannot be read or is no JSON object.
    """
    try:
        result = json.loads(read_limited(path, _LONGEST_LINE))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(result, dict):
        raise DataError(f"{path}: must be a JSON object")
    return result


def parse_metrics(lines: Iterable[bytes], where: str, epochs: int) -> list[dict[str, Any]]:
    """Read the lines of ``metrics.jsonl`` up to an epoch; ``where`` and errors as :func:`read_metrics`."""
    remedy = "--resume writes it anew, from the checkpoint"
    history: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            metrics = json.loads(line)
        except (ValueError, RecursionError):
            metrics = None
        if not _is_metrics(metrics, history[-1] if history else None):
            raise DataError(f"{where}, line {number}: not the metrics of an epoch; {remedy}")
        history.append(metrics)
        if metrics["epoch"] == epochs:
            return history
    raise DataError(f"{where}: ends before epoch {epochs}, which {CHECKPOINT} holds; {remedy}")


def _is_metrics(line: Any, before: dict[str, Any] | None) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Whether a line can follow another, and everything that is drawn of it is a number."""
    if not isinstance(line, dict) or not line.keys() >= _PLOTTED:
        return False
    held_out, events = line["validation_accuracy"], line["events_per_sample"]
    if not isinstance(events, list) or len(events) < 2:
        return False
    numbers = [line["loss"], line["train_accuracy"], line["seconds"], *events]
    numbers += [] if held_out is None else [held_out]
    sound = all(
        isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < _ABSURD
        for number in (line["epoch"], *numbers)
    )
    if not sound or not isinstance(line["epoch"], int) or line["epoch"] < 1:
        return False
    return before is None or (
        line["epoch"] > before["epoch"] and len(events) == len(before["events_per_sample"])
    )


def _warnings(network: Network, metrics: dict[str, Any], loss: str) -> list[str]:
    """Health of the layers that have neurons; a pooling layer only repeats what the one before says."""
    places = [index for index, layer in enumerate(network.layers) if isinstance(layer, SpikingLayer)]
    events, active = metrics["events_per_sample"], metrics["active_share"]
    means = metrics | {
        "events_per_sample": [events[0], *(events[index + 1] for index in places)],
        "active_share": [active[index] for index in places],
    }
    return health_warnings(means, tuple(network.layers[index].n_out for index in places), loss)


def _first(values: list[float] | None) -> float | None:
    return values[0] if values else None


def default_architecture(data: EventSet) -> str:
    """One hidden layer of 800 neurons between the inputs and the classes of a data set."""
    channels, height, width = data.shape
    size = f"{height}x{width}" if channels == 1 else f"{height}x{width}x{channels}"
    return f"{size}-800-{data.classes}"
