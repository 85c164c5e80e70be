"""Cross-validation: a run for every fold of the training split, and the folder they leave behind."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from evsnn.backends import Backend, CpuBackend
from evsnn.environment import describe_environment, peak_memory_mb
from evsnn.errors import SettingsError
from evsnn.files import make_folder, write_atomically
from evsnn.lock import FolderLock
from evsnn.training.config import RunConfig
from evsnn.training.data import RunData, fold_data, load_training
from evsnn.training.run import (
    CONFIG,
    RESULT,
    Listener,
    Run,
    clear_folder,
    new_network,
    training_source,
)
from evsnn.training.state import CHECKPOINT_MINUTES, has_checkpoint

#: What every fold of a run has in common, or what is averaged over their samples.
_COMMON = ("dense_macs_per_sample", "parameters", "architecture", "data")
_MEANS = ("synaptic_operations_per_sample", "input_events_per_sample")


class FoldListener(Listener, Protocol):
    """Whoever watches a cross-validation; what a run tells is told for every fold."""

    def fold_started(self, fold: int, folds: int) -> None:
        """A fold begins, the first has number 1."""
        ...

    def fold_done(self, fold: int, folds: int, errors: int, samples: int) -> None:
        """A fold was classified by what the others taught."""
        ...


class CrossValidation:
    """Training on all folds of a training split but one, for each fold in turn.

    Folds are dealt by :func:`evsnn.datasets.division.deal`: balanced by label, and by no random order. Every
    fold's network starts from the same weights, learns the other folds for all epochs, and classifies its own
    samples once, after the last epoch: they choose neither an epoch nor anything else. A validation or test
    split of the data is not touched.

    Parameters
    ----------
    folder : Path
        Gets the run folders ``fold-1``, ``fold-2``, ..., and a ``config.toml`` and ``result.json`` of all.
    config : RunConfig
        With ``data.folds``, and ``data.fold`` = 0.
    backend : Backend, optional
        Where to compute, closed by whoever opened it; default: all processors. Results do not depend on it.
    checkpoint_minutes : float
        As of :class:`Run`.
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
        self._resumed = False

    @classmethod
    def create(
        cls,
        folder: Path,
        config: RunConfig,
        *,
        backend: Backend | None = None,
        force: bool = False,
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
    ) -> CrossValidation:
        """Start a new folder; errors as :meth:`Run.create`."""
        if not is_cross_validation(config):
            raise SettingsError("cross-validation needs data.folds of 2 or more, and data.fold 0")
        Run.create(folder, config, force=force)  # which looks whether there is a run already
        validation = cls(folder, config, backend, checkpoint_minutes=checkpoint_minutes)
        validation._force = force
        return validation

    @classmethod
    def resume(
        cls,
        folder: Path,
        *,
        backend: Backend | None = None,
        checkpoint_minutes: float = CHECKPOINT_MINUTES,
    ) -> CrossValidation:
        """Go on where a cross-validation was stopped: in the fold that was begun, then with those to come.

        Raises
        ------
        SettingsError
            If the folder holds no cross-validation.
        """
        config = RunConfig.from_toml(folder / CONFIG)
        if not is_cross_validation(config):
            raise SettingsError(f"{folder / CONFIG}: no cross-validation, data.folds is {config.data.folds}")
        validation = cls(folder, config, backend, checkpoint_minutes=checkpoint_minutes)
        validation._resumed = True
        return validation

    def train(self, listener: FoldListener, should_stop: Callable[[], bool] | None = None) -> dict[str, Any]:
        """Train and classify every fold, or as many as there are before it is stopped.

        Parameters
        ----------
        listener : FoldListener
        should_stop : callable, optional
            Asked before every batch. A fold that was stopped is not classified for the result, and can go on.

        Returns
        -------
        dict
            What ``result.json`` of the folder holds.

        Raises
        ------
        DataError, SettingsError, DivergedError
            As :meth:`Run.train`.
        """
        whole = load_training(self.config, self.backend.host)
        self._check(whole)
        make_folder(self.folder)
        with FolderLock(self.folder):
            if not self._resumed:
                Run.create(self.folder, self.config, force=self._force)
                clear_folder(self.folder)
                write_atomically(self.folder / CONFIG, self.config.to_toml().encode())
            return self._train(whole, listener, should_stop)

    def _train(
        self, whole: RunData, listener: FoldListener, should_stop: Callable[[], bool] | None
    ) -> dict[str, Any]:
        folds = self.config.data.folds
        done: list[dict[str, Any]] = []
        for fold in range(1, folds + 1):
            listener.fold_started(fold, folds)
            result = self._run(fold).train(listener, should_stop, fold_data(whole, folds, fold))
            if result["interrupted"]:
                break
            done.append(result)
            errors, samples = _errors(result)
            listener.fold_done(fold, folds, errors, samples)
        summary = self._summary(done)
        write_atomically(self.folder / RESULT, (json.dumps(summary, indent=2) + "\n").encode())
        return summary

    def _check(self, whole: RunData) -> None:
        """Raise whatever a fold would, before anything is written."""
        folds = self.config.data.folds
        new_network(self.config, whole)
        training_source(self.config, fold_data(whole, folds, folds), self.backend.host)

    def _run(self, fold: int) -> Run:
        config = replace(self.config, data=replace(self.config.data, fold=fold))
        folder = self.folder / f"fold-{fold}"
        if not (self._resumed and has_checkpoint(folder)):
            return Run.create(
                folder, config, backend=self.backend, force=True, checkpoint_minutes=self._minutes
            )
        run = Run.resume(folder, backend=self.backend, checkpoint_minutes=self._minutes)
        if run.config != config:
            raise SettingsError(f"{folder / CONFIG} differs from {self.folder / CONFIG}; restore it")
        return run

    def _summary(self, done: Sequence[dict[str, Any]]) -> dict[str, Any]:
        accuracies = [result["test_accuracy"] for result in done]
        counts = [_errors(result) for result in done]
        total = sum(samples for _, samples in counts)

        def mean(values: Sequence[float]) -> float | None:
            """Mean over all samples, each counted in the fold that classified it."""
            pairs = zip(values, counts, strict=True)
            return sum(value * samples for value, (_, samples) in pairs) / total if total else None

        return {
            "folds": self.config.data.folds,
            "interrupted": len(done) < self.config.data.folds,
            "mean_accuracy": statistics.fmean(accuracies) if done else None,
            "std_accuracy": statistics.stdev(accuracies) if len(done) > 1 else None,
            "errors": sum(errors for errors, _ in counts),
            "samples": total,
            "fold_accuracies": accuracies,
            "fold_errors": [errors for errors, _ in counts],
            "fold_samples": [samples for _, samples in counts],
            "epochs": self.config.epochs,
            "train_seconds": sum(result["train_seconds"] for result in done),
            **{name: mean([result[name] for result in done]) for name in _MEANS},
            "spikes_per_sample": [
                mean(layer) for layer in zip(*(result["spikes_per_sample"] for result in done), strict=True)
            ],
            **{name: done[0][name] if done else None for name in _COMMON},
            "peak_memory_mb": peak_memory_mb(),
            "environment": describe_environment(
                self.backend.host.threads, backend=self.backend.name, gpu=self.backend.device
            ),
        }


def is_cross_validation(config: RunConfig) -> bool:
    """Whether a configuration asks for all folds in turn, not for one run."""
    return config.data.folds > 0 and config.data.fold == 0


def _errors(result: dict[str, Any]) -> tuple[int, int]:
    """Samples of a fold that were classified wrongly, and all of them."""
    samples = result["samples"]["test"]
    return samples - round(result["test_accuracy"] * samples), samples
