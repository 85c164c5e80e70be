"""The training loop: one epoch after the other, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.backends import Backend, QueueTooSmallError
from evsnn.datasets.sampling import Lookahead, Source
from evsnn.errors import DataError, EvsnnError
from evsnn.layers.base import SpikingLayer
from evsnn.learning.backprop import backpropagate, losses
from evsnn.learning.optimiser import Optimiser
from evsnn.learning.schedule import rate_factor
from evsnn.learning.settings import LearningSettings
from evsnn.network.network import Network
from evsnn.network.simulation import Outcome, Simulator
from evsnn.seeds import shuffled


class DivergedError(EvsnnError):
    """Training produced values that are not finite."""


@dataclass(eq=False)
class Totals:
    """Sums over the samples seen so far in an epoch, or over a data set.

    Parameters
    ----------
    n_layers : int
    """

    n_layers: int
    samples: int = 0
    loss: float = 0.0
    correct: int = 0
    silent: int = 0
    seconds: float = 0.0
    events: npt.NDArray[np.int64] = field(init=False)
    operations: npt.NDArray[np.int64] = field(init=False)
    active: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.events = np.zeros(self.n_layers + 1, np.int64)
        self.operations = np.zeros(self.n_layers, np.int64)
        self.active = np.zeros(self.n_layers, np.float64)

    def add(self, outcome: Outcome, labels: npt.NDArray[np.uint16], sizes: Sequence[int]) -> None:
        """Count one batch; ``sizes`` are the units of every layer."""
        self.samples += len(labels)
        self.correct += int((outcome.predictions() == labels).sum())
        self.silent += int((outcome.events[-1] == 0).sum())
        self.events += outcome.events.sum(axis=1)
        self.operations += outcome.operations.sum(axis=1)
        self.active += outcome.active[1:].sum(axis=1) / np.array(sizes)

    def means(self) -> dict[str, Any]:
        """Means a sample, by the names that ``metrics.jsonl`` uses."""
        n = max(self.samples, 1)
        return {
            "accuracy": self.correct / n,
            "silent_samples": self.silent / n,
            "events_per_sample": (self.events / n).tolist(),
            "synaptic_operations_per_sample": (self.operations / n).tolist(),
            "active_share": (self.active / n).tolist(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint inside an epoch stores them."""
        values = {name: getattr(self, name) for name in ("samples", "loss", "correct", "silent", "seconds")}
        return values | {name: getattr(self, name).tolist() for name in ("events", "operations", "active")}

    @classmethod
    def from_dict(cls, n_layers: int, values: dict[str, Any]) -> Totals:
        """Restore what :meth:`to_dict` returned.

        Raises
        ------
        DataError
            If something is missing, or is no number, or no row of them of the right length.
        """
        totals = cls(n_layers)
        for name, plain in totals.to_dict().items():
            try:
                found = np.asarray(values.get(name))
            except ValueError as error:  # lists of different lengths
                raise DataError(f"the sums of the epoch have a wrong {name!r}") from error
            if found.dtype.kind not in "iuf" or found.shape != np.shape(plain):
                raise DataError(f"the sums of the epoch have a wrong {name!r}")
            array = getattr(totals, name)
            setattr(
                totals, name, found.astype(array.dtype) if isinstance(array, np.ndarray) else found.item()
            )
        return totals


class Trainer:
    """Trains a network on a source of samples; can stop and go on between any two batches.

    Parameters
    ----------
    network : Network
        Trained in place.
    source : Source
    learning : LearningSettings
    epochs : int
        Length of the learning-rate schedule.
    seed : int
        Of the order of samples.
    backend : Backend
        Where to compute; what is learned does not depend on it.
    """

    def __init__(
        self,
        network: Network,
        source: Source,
        learning: LearningSettings,
        *,
        epochs: int,
        seed: int,
        backend: Backend,
    ) -> None:
        self.network = network
        self._simulator = Simulator(network.layers, backend, learning.activity)
        self.optimiser = Optimiser(network, self._simulator.placed, learning)
        self.epoch = 0
        self.batch = 0
        self.totals = Totals(len(network.layers))
        self._source = source
        self._learning = learning
        self._seed = seed
        self.backend = backend
        self._sizes = [layer.n_out for layer in network.layers]
        self.batches = -(-len(source.labels) // learning.batch_size)
        self._steps = epochs * self.batches

    @property
    def rate(self) -> float:
        """Learning rate of the first step of the present epoch."""
        first = self.epoch * self.batches
        return self._learning.lr * rate_factor(self._learning.schedule, first, self._steps)

    def _rate_factor(self) -> float:
        return rate_factor(self._learning.schedule, self.optimiser.step_number, self._steps)

    def run_epoch(
        self,
        *,
        report: Callable[[Totals], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Totals | None:
        """Train to the end of the present epoch.

        Parameters
        ----------
        report : callable, optional
            Called after every batch with the sums so far.
        should_stop : callable, optional
            Asked before every batch; if true, training stops there and can go on later.

        Returns
        -------
        Totals or None
            The epoch's sums; None if stopped before its end.

        Raises
        ------
        DivergedError
            If a loss, weight or threshold is not finite, naming layer and step.
        """
        order = shuffled(len(self._source.labels), self._seed, self.epoch)
        size = self._learning.batch_size
        batches = [order[low : low + size] for low in range(self.batch * size, len(order), size)]
        begin = time.perf_counter()
        with Lookahead(self._source, batches, self.epoch, self.backend.draws_ahead) as lookahead:
            for samples in batches:
                if should_stop is not None and should_stop():
                    self.store()
                    return None
                self._train_batch(samples, lookahead)
                self.batch += 1
                now = time.perf_counter()
                self.totals.seconds += now - begin
                begin = now
                if report is not None:
                    report(self.totals)
        self.store()
        finished = self.totals
        self.totals = Totals(len(self.network.layers))
        self.batch = 0
        self.epoch += 1
        return finished

    def _train_batch(self, samples: npt.NDArray[np.int64], lookahead: Lookahead) -> None:
        labels = self._source.labels[samples]
        queue = lookahead.take()
        while True:
            forward = self._simulator.forward(queue, self._source.duration_us)
            # What follows has parts that one thread does alone: the next batch is drawn in their shade.
            lookahead.begin_next()
            fit, gradients = backpropagate(
                self.network, self._simulator.placed, forward, labels, self._learning
            )
            try:
                outcome, [fit_of_samples, *checks] = forward.fetch(self.backend, fit, *self.optimiser.checks)
                break
            except QueueTooSmallError:
                queue = self._source.batch(samples, self.epoch)
        self._refuse_fault(checks)
        total = float(losses(fit_of_samples, self._learning).sum())
        if not np.isfinite(total):
            raise DivergedError(
                f"epoch {self.epoch + 1}, batch {self.batch + 1}: the loss is not finite; lower --lr"
            )
        self.optimiser.step(gradients, forward.activities, self._rate_factor())
        self.totals.loss += total
        self.totals.add(outcome, labels, self._sizes)

    def _refuse_fault(self, checks: list[npt.NDArray[Any]]) -> None:
        """Stop if the last step left parameters that are not finite; fetched with the batch after it."""
        fault = self.optimiser.find_fault(checks)
        if fault is not None:
            epoch, batch = divmod(self.optimiser.step_number - 1, self.batches)
            raise DivergedError(f"epoch {epoch + 1}, batch {batch + 1}: {fault}; lower --lr")

    def store(self) -> None:
        """Bring the parameters back to the network from where they are trained.

        Raises
        ------
        DivergedError
            If they are not finite.
        """
        self._refuse_fault(self.backend.fetch(*self.optimiser.checks))
        for layer, placed in zip(self.network.layers, self._simulator.placed, strict=True):
            if isinstance(layer, SpikingLayer):
                layer.store(placed)
