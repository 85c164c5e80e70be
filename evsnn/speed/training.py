"""Whole epochs of training, and the parts of a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from evsnn.backends import CpuBackend
from evsnn.events.core import EventSet
from evsnn.learning.backprop import backpropagate
from evsnn.learning.optimiser import Optimiser
from evsnn.network.network import Network
from evsnn.network.simulation import Simulator
from evsnn.training.config import RunConfig
from evsnn.training.data import RunData
from evsnn.training.run import training_source
from evsnn.training.trainer import Trainer

PARTS = ("encode", "forward", "backward", "update")


@dataclass(eq=False)
class TrainingSpeed:
    """Speed of training a network with one number of threads.

    Parameters
    ----------
    architecture : str
    threads, samples : int
        Samples of an epoch.
    epochs : list of float
        Seconds of each epoch.
    parts : list of list of float
        Seconds a sample of each of ``PARTS``, one after the other, a row for each repeat.
    events, operations : list of float
        Events of input and layers, and synaptic operations of the layers, a sample.
    """

    architecture: str
    threads: int
    samples: int
    epochs: list[float] = field(default_factory=list)
    parts: list[list[float]] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    operations: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Medians over the repeats."""
        seconds = statistics.median(self.epochs)
        return {
            "architecture": self.architecture,
            "threads": self.threads,
            "samples": self.samples,
            "samples_per_second": self.samples / seconds,
            "events_per_second": self.samples * self.events[0] / seconds,
            "operations_per_second": self.samples * sum(self.operations) / seconds,
            "events_per_sample": self.events,
            "synaptic_operations_per_sample": self.operations,
            "microseconds_per_sample": {
                name: 1e6 * statistics.median(values)
                for name, values in zip(PARTS, zip(*self.parts, strict=True), strict=True)
            },
        }


class _Bench:
    """A network in training on one number of threads."""

    def __init__(self, config: RunConfig, data: EventSet, threads: int) -> None:
        self.learning = replace(config.learning, schedule="constant")
        self.backend = CpuBackend(threads)
        self.data = data
        self.network = Network.from_architecture(config.arch, seed=config.seed, settings=config.network)
        self.source = training_source(config, RunData("", data, None, None), self.backend)
        self.trainer = Trainer(
            self.network, self.source, self.learning, epochs=1, seed=config.seed, backend=self.backend
        )
        self.speed = TrainingSpeed(config.arch, threads, len(data))

    def epoch(self) -> None:
        """Train one epoch."""
        begin = time.perf_counter()
        totals = self.trainer.run_epoch()
        self.speed.epochs.append(time.perf_counter() - begin)
        if totals is not None:
            means = totals.means()
            self.speed.events = means["events_per_sample"]
            self.speed.operations = means["synaptic_operations_per_sample"]

    def parts(self, steps: int) -> None:
        """Time the parts of some steps, at a learning rate of 0."""
        simulator = Simulator(self.network.layers, self.backend, self.learning.activity)
        optimiser = Optimiser(self.network, simulator.placed, self.learning)
        size = min(self.learning.batch_size, len(self.data))
        simulator.outcome(self.source.batch(np.arange(size), 0), self.source.duration_us)
        seconds = np.zeros(len(PARTS))
        for step in range(steps):
            samples = np.arange(step * size, (step + 1) * size) % len(self.data)
            stamps = [time.perf_counter()]
            queue = self.source.batch(samples, step)
            stamps.append(time.perf_counter())
            forward = simulator.forward(queue, self.source.duration_us)
            stamps.append(time.perf_counter())
            labels = self.source.labels[samples]
            _, gradients = backpropagate(self.network, simulator.placed, forward, labels, self.learning)
            stamps.append(time.perf_counter())
            optimiser.step(gradients, forward.activities, 0.0)
            stamps.append(time.perf_counter())
            seconds += np.diff(stamps)
        self.speed.parts.append((seconds / (steps * size)).tolist())


def measure_training(
    config: RunConfig,
    data: EventSet,
    *,
    threads: Sequence[int] = (1,),
    repeats: int = 5,
    warm_epochs: int = 2,
    steps: int = 20,
    report: Callable[[int], None] | None = None,
) -> tuple[list[TrainingSpeed], Network]:
    """Train a network for some epochs with each number of threads in turn.

    Parameters
    ----------
    config : RunConfig
        What is trained, and on what: fresh events, distorted or as they are; the schedule is constant.
    data : EventSet
    threads : sequence of int
    repeats : int
        Epochs that are measured.
    warm_epochs : int
        Epochs before: speed depends on how much the network fires.
    steps : int
        Steps whose parts are timed in each repeat.
    report : callable, optional
        Called with the number of epochs done.

    Returns
    -------
    speeds : list of TrainingSpeed
        For each number of threads.
    network : Network
        What was learned.

    Raises
    ------
    DataError, SettingsError
        If the data do not fit the configuration.
    """
    benches = [_Bench(config, data, n) for n in threads]
    with ExitStack() as stack:
        for bench in benches:
            stack.enter_context(bench.backend)
        for turn in range(warm_epochs + repeats):
            for bench in benches:
                if turn == warm_epochs:
                    bench.speed.epochs.clear()
                bench.epoch()
                if turn >= warm_epochs:
                    bench.parts(steps)
            if report is not None:
                report(1)
    return [bench.speed for bench in benches], benches[0].network
