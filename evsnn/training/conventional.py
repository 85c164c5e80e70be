"""Conventional networks to compare with: the same shape, the same data as frames of event counts.

A frame holds log(1 + n) of the n events of each unit over the whole sample. Torch is needed
(``pip install 'evsnn[torch]'``).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.datasets.sampling import Source
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import EventSet
from evsnn.events.queue import HostQueue
from evsnn.files import write_atomically
from evsnn.network.architecture import Architecture, parse_architecture
from evsnn.network.network import queues_of
from evsnn.training.config import RunConfig
from evsnn.training.data import RunData
from evsnn.training.run import training_source

Float32 = npt.NDArray[np.float32]

#: Samples classified at a time.
_BATCH = 256
_FORMAT = "evsnn-conventional"


@dataclass(frozen=True)
class ConventionalSettings:
    """How a conventional network is trained: Adam, cross-entropy, learning rate falling linearly to 0.

    Parameters
    ----------
    epochs, batch_size : int
    lr : float
    seed : int
        Of weights and order.
    """

    epochs: int = 40
    batch_size: int = 20
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise SettingsError(f"lr must be above 0, got {self.lr:g}")


def import_torch() -> Any:  # noqa: ANN401 - a module
    """Return torch.

    Raises
    ------
    SettingsError
        If it is not installed, with the command that installs it.
    """
    try:
        import torch  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise SettingsError(
            f"a conventional network needs torch ({error}); pip install 'evsnn[torch]'"
        ) from error
    return torch


@dataclass(frozen=True, eq=False)
class ConventionalNetwork:
    """Convolutions, average pooling and linear layers with ReLU between, as an architecture says.

    Parameters
    ----------
    architecture : Architecture
    module : torch.nn.Sequential
    """

    architecture: Architecture
    module: Any

    @classmethod
    def from_architecture(cls, text: str, seed: int = 0) -> ConventionalNetwork:
        """Draw a new network.

        Raises
        ------
        SettingsError
            For a wrong architecture, or without torch.
        """
        architecture = parse_architecture(text)
        torch = import_torch()
        torch.manual_seed(seed)
        layers: list[Any] = []
        flat = False
        for plan in architecture.layers:
            channels = plan.in_shape[0]
            if plan.kind == "conv":
                layers.append(torch.nn.Conv2d(channels, plan.out_shape[0], plan.kernel, padding=plan.padding))
            elif plan.kind == "pool":
                layers.append(torch.nn.AvgPool2d(plan.kernel))
                continue
            else:
                if not flat:
                    layers.append(torch.nn.Flatten())
                    flat = True
                layers.append(torch.nn.Linear(math.prod(plan.in_shape), plan.n_out))
            layers.append(torch.nn.ReLU())
        return cls(architecture, torch.nn.Sequential(*layers[:-1]))

    def frames(self, queue: HostQueue) -> Any:  # noqa: ANN401 - a tensor
        """Frames of a block of samples, float32 tensor (n_samples, C, H, W)."""
        counts = queue.unit_counts(self.architecture.n_inputs).astype(np.float32)
        torch = import_torch()
        return torch.from_numpy(np.log1p(counts).reshape(len(queue), *self.architecture.shape))

    def evaluate(self, data: EventSet, report: Callable[[int], None] | None = None) -> ConventionalResult:
        """Classify the frames of every sample, and count the operations of it."""
        torch = import_torch()
        effective = 0.0
        answers = []
        done = 0
        with torch.no_grad():
            for queue in queues_of(data):
                x = self.frames(queue)
                for layer in self.module:
                    effective += _effective_macs(layer, x)
                    x = layer(x)
                answers.append(x.argmax(dim=1).numpy())
                done += len(queue)
                if report is not None:
                    report(len(queue))
        predictions = np.concatenate(answers)
        correct = int((predictions == data.labels).sum())
        return ConventionalResult(
            self.architecture.text, len(data), correct, self.macs, effective / max(len(data), 1)
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates a sample, zeros included."""
        total = 0
        for plan in self.architecture.layers:
            fan_in = math.prod(plan.in_shape) if plan.kind == "dense" else plan.kernel**2 * plan.in_shape[0]
            total += 0 if plan.kind == "pool" else fan_in * plan.n_out
        return total

    def save(self, path: Path) -> None:
        """Write architecture and weights to a file.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        torch = import_torch()
        content = io.BytesIO()
        torch.save({_FORMAT: self.architecture.text, "weights": self.module.state_dict()}, content)
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> ConventionalNetwork:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataError
            If it is not such a file.
        """
        torch = import_torch()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        try:
            stored = torch.load(io.BytesIO(content), weights_only=True)
            network = cls.from_architecture(stored[_FORMAT])
            network.module.load_state_dict(stored["weights"])
        except Exception as error:  # torch says in many ways that a file is not what it should be
            raise DataError(
                f"{path}: not a conventional network of evsnn; name a file that --baseline-model wrote"
            ) from error
        return network

    def check_fits(self, data: EventSet) -> None:
        """Check that a data set has this network's inputs and no more classes than outputs.

        Raises
        ------
        DataError
            Saying both.
        """
        own, flat = self.architecture.shape, self.architecture.shape[:2] == (1, 1)
        fits = math.prod(own) == data.n_inputs if flat else own == tuple(data.shape)
        if not fits or data.classes > self.architecture.n_outputs:
            channels, height, width = data.shape
            raise DataError(
                f"the conventional network {self.architecture.text} does not fit data of {height}x{width}x"
                f"{channels} with {data.classes} classes"
            )


@dataclass(frozen=True)
class ConventionalResult:
    """Accuracy and cost of a conventional network on a data set.

    Parameters
    ----------
    architecture : str
    samples, correct : int
    macs : int
        Multiply-accumulates a sample, zeros included.
    effective_macs : float
        Those whose input is not 0, mean over the samples.
    """

    architecture: str
    samples: int
    correct: int
    macs: int
    effective_macs: float

    @property
    def accuracy(self) -> float:
        """Share of samples whose prediction is their label."""
        return self.correct / max(self.samples, 1)


def _effective_macs(layer: Any, x: Any) -> float:  # noqa: ANN401 - of torch
    """Multiply-accumulates of a layer whose input is not 0, summed over a batch."""
    torch = import_torch()
    if isinstance(layer, torch.nn.Linear):
        return int((x != 0).sum()) * int(layer.out_features)
    if isinstance(layer, torch.nn.Conv2d):
        ones = torch.ones(1, layer.in_channels, *layer.kernel_size)
        reached = torch.nn.functional.conv2d((x != 0).float(), ones, padding=layer.padding)
        return float(reached.sum(dtype=torch.float64)) * int(layer.out_channels)
    return 0.0


def train_conventional(
    network: ConventionalNetwork,
    source: Source,
    settings: ConventionalSettings,
    report: Callable[[int], None] | None = None,
) -> None:
    """Train in place on frames of the samples of a source on the CPU.

    Parameters
    ----------
    network : ConventionalNetwork
    source : Source
        With arrays of the host; draws samples anew in every epoch, as for a spiking network.
    settings : ConventionalSettings
    report : callable, optional
        Called with the number of samples done.
    """
    torch = import_torch()
    labels = torch.from_numpy(source.labels.astype(np.int64))
    rng = np.random.default_rng(settings.seed)
    optimiser = torch.optim.Adam(network.module.parameters(), lr=settings.lr)
    size = settings.batch_size
    steps = settings.epochs * -(-len(labels) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for epoch in range(settings.epochs):
        order = rng.permutation(len(labels))
        batches = [order[low : low + size] for low in range(0, len(order), size)]
        source.plan(batches)
        for samples in batches:
            queue = source.batch(samples, epoch)
            x = network.frames(HostQueue(*(np.asarray(array) for array in _arrays(queue))))
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(network.module(x), labels[samples])
            loss.backward()
            optimiser.step()
            schedule.step()
            if report is not None:
                report(len(samples))
    source.close()


def _arrays(queue: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a queue of any backend
    return queue.times, queue.units, queue.start, queue.count


def frame_source(config: RunConfig, data: RunData, backend: CpuBackend) -> Source:
    """Samples of a run's training split for frames, which are of the whole recording, not of a window."""
    whole = replace(config, augment_events=replace(config.augment_events, window_ms=0.0))
    return training_source(whole, data, backend)


def suited_conventional(*, recordings: bool) -> ConventionalSettings:
    """What suits a kind of data: few recordings are seen more often than many images."""
    return ConventionalSettings() if recordings else ConventionalSettings(epochs=10, batch_size=100)
