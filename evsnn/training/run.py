"""A training run and the folder it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evsnn import checkpoint
from evsnn.backends import Backend, CpuBackend
from evsnn.datasets.sampling import Source
from evsnn.environment import describe_environment, peak_memory_mb
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import EventSet
from evsnn.files import append_line, read_limited, write_atomically
from evsnn.layers.base import SpikingLayer
from evsnn.network.network import Network
from evsnn.plots import plot_curves
from evsnn.training.config import RunConfig
from evsnn.training.data import RunData, load_data
from evsnn.training.evaluation import evaluate
from evsnn.training.fit import make_source, train_epochs
from evsnn.training.health import health_warnings
from evsnn.training.trainer import Totals, Trainer

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.h5"
MODEL = "model.h5"
RESULT = "result.json"
CURVES = "curves.png"
_FILES = (CONFIG, METRICS, CHECKPOINT, MODEL, RESULT, CURVES)
#: What every line of metrics must hold for a run to go on and be drawn.
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


@dataclass(eq=False)
class _Best:
    """The best epoch so far by validation accuracy."""

    accuracy: float = -1.0
    epoch: int = 0

    def improved(self, metrics: dict[str, Any]) -> bool:
        accuracy = metrics["validation_accuracy"]
        if accuracy is not None and accuracy <= self.accuracy:
            return False
        self.accuracy = -1.0 if accuracy is None else accuracy
        self.epoch = metrics["epoch"]
        return True


class Run:
    """One run folder: training into it, and going on where it stopped.

    Parameters
    ----------
    folder : Path
    config : RunConfig
    backend : Backend, optional
        Where to compute, closed by whoever opened it; default: all processors. Results do not depend on it.
    """

    def __init__(self, folder: Path, config: RunConfig, backend: Backend | None = None) -> None:
        self.folder = folder
        self.config = config
        self.backend = backend or CpuBackend()
        self._saved: checkpoint.Checkpoint | None = None

    @classmethod
    def create(
        cls, folder: Path, config: RunConfig, *, backend: Backend | None = None, force: bool = False
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
        if not force and any((folder / name).exists() for name in _FILES):
            raise DataError(f"{folder} holds a run already; pass --force to replace it, or --resume to go on")
        return cls(folder, config, backend)

    @classmethod
    def resume(cls, folder: Path, *, backend: Backend | None = None) -> Run:
        """Go on with a run that was stopped.

        Raises
        ------
        DataError, SettingsError
            If the folder holds no run that can go on.
        """
        if not (folder / CHECKPOINT).is_file():
            raise DataError(f"{folder} holds no {CHECKPOINT} to resume from")
        config = RunConfig.from_toml(folder / CONFIG)
        run = cls(folder, config, backend)
        run._saved = checkpoint.load(folder / CHECKPOINT)
        stored = run._saved.info.get("config")
        if stored != json.loads(json.dumps(config.to_dict())):
            raise SettingsError(
                f"{folder / CONFIG} differs from the configuration in {CHECKPOINT}; restore it"
            )
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
            If the data are wrong or do not fit the network, or the folder cannot be written.
        DivergedError
            If the loss is not finite.
        """
        config = self.config
        data = data or load_data(config, self.backend.host)
        if self._saved is not None:
            network = self._saved.network
            network.check_fits(data.train, data.name)
        else:
            network = new_network(config, data)
        best = _Best()
        trainer = self._trainer(network, data)
        if self._saved is not None:
            self._restore(trainer, best)
        else:
            self._begin()
        history = read_metrics(self.folder / METRICS, trainer.epoch)
        self._write(METRICS, "".join(json.dumps(line) + "\n" for line in history))
        listener.started(network, data, trainer.epoch)
        for metrics in train_epochs(
            trainer,
            data.validation,
            epochs=config.epochs,
            report=listener.batch,
            should_stop=should_stop,
        ):
            history.append(metrics)
            append_line(self.folder / METRICS, json.dumps(metrics))
            if best.improved(metrics):
                checkpoint.save_model(self.folder / MODEL, network, {"epoch": best.epoch})
            self._save(trainer, best)
            listener.epoch(metrics)
            for line in _warnings(network, metrics, config.learning.loss):
                listener.warning(line)
        interrupted = trainer.epoch < config.epochs
        if interrupted:
            self._save(trainer, best)
        if not history:
            checkpoint.save_model(self.folder / MODEL, network, {"epoch": 0})
        return self._finish(data, history, best, trainer.epoch)

    def _begin(self) -> None:
        clear_folder(self.folder)
        self._write(CONFIG, self.config.to_toml())

    def _trainer(self, network: Network, data: RunData) -> Trainer:
        config = self.config
        source = training_source(config, data, self.backend)
        return Trainer(
            network, source, config.learning, epochs=config.epochs, seed=config.seed, backend=self.backend
        )

    def _save(self, trainer: Trainer, best: _Best) -> None:
        info = {
            "config": self.config.to_dict(),
            "epoch": trainer.epoch,
            "batch": trainer.batch,
            "step": trainer.optimiser.step_number,
            "totals": trainer.totals.to_dict(),
            "best_accuracy": best.accuracy,
            "best_epoch": best.epoch,
        }
        state = checkpoint.Checkpoint(trainer.network, info, trainer.optimiser.state())
        checkpoint.save(self.folder / CHECKPOINT, state)

    def _restore(self, trainer: Trainer, best: _Best) -> None:
        assert self._saved is not None
        info = self._saved.info
        trainer.optimiser.restore(self._saved.arrays, info["step"])
        trainer.epoch = info["epoch"]
        trainer.batch = info["batch"]
        trainer.totals = Totals.from_dict(len(trainer.network.layers), info["totals"])
        best.accuracy = info["best_accuracy"]
        best.epoch = info["best_epoch"]

    def _finish(
        self, data: RunData, history: list[dict[str, Any]], best: _Best, epochs: int
    ) -> dict[str, Any]:
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
    remedy = "restore it, or remove the file to go on without the metrics of earlier epochs"
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
