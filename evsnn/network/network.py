"""A feed-forward network of spiking layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.backends import Backend, CpuBackend, backend_of
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import Events, EventSet
from evsnn.events.file import EventSplit
from evsnn.events.queue import HostQueue, Queue
from evsnn.events.reorder import OrderSettings
from evsnn.layers.base import Layer, LayerState, SpikingLayer
from evsnn.layers.dense import Dense
from evsnn.layers.settings import NeuronSettings
from evsnn.network.architecture import Architecture, parse_architecture
from evsnn.network.build import Parameters, build_layers
from evsnn.network.defaults import suited_settings
from evsnn.network.settings import NetworkSettings
from evsnn.network.simulation import Outcome, Simulator, predicted_classes
from evsnn.network.stream import Stream
from evsnn.seeds import seed_words

#: Samples simulated at a time when no gradients are needed.
EVALUATION_BATCH = 256


@dataclass(frozen=True, eq=False)
class Record:
    """What :meth:`Network.run` saw of one sample.

    Parameters
    ----------
    spikes : list of Events
        Output events of every layer.
    counts : ndarray of int64, shape (n_out,)
        Output spike counts.
    potential : ndarray of float32, shape (n_out,)
        Residual membrane potential of the output neurons over their threshold.
    prediction : int
        Most output spikes, ties by residual potential.
    group_times : ndarray of uint32, shape (n_groups,), or None
        Times of the input events; with ``record="membrane"``.
    membrane : list of ndarray of float32, shape (n_groups, n), or empty
        Membrane potential over threshold of every layer after the input events of each time, before the
        next decay; with ``record="membrane"``. Place by place for a convolution, no columns for a pooling
        layer.
    """

    spikes: list[Events]
    counts: npt.NDArray[np.int64]
    potential: npt.NDArray[np.float32]
    prediction: int
    group_times: npt.NDArray[np.uint32] | None = None
    membrane: list[npt.NDArray[np.float32]] = field(default_factory=list)


def queues_of(data: EventSet | EventSplit) -> Iterator[HostQueue]:
    """Input queues of blocks of samples, in order; an event file is read block by block."""
    for start in range(0, len(data), EVALUATION_BATCH):
        stop = min(start + EVALUATION_BATCH, len(data))
        part = data.load(start, stop) if isinstance(data, EventSplit) else data.part(start, stop)
        yield HostQueue(part.times, part.units, part.offsets[:-1], np.diff(part.offsets))


class Network:
    """A feed-forward network: layers that turn queues of events into queues of events.

    Parameters
    ----------
    architecture : Architecture
    layers : list of Layer
        As the architecture says.
    settings : NetworkSettings
    seed : int
        Seed the initial weights were drawn with.
    """

    def __init__(
        self, architecture: Architecture, layers: Sequence[Layer], settings: NetworkSettings, seed: int
    ) -> None:
        planned = [(plan.in_shape, plan.out_shape) for plan in architecture.layers]
        found = [(layer.in_shape, layer.out_shape) for layer in layers]
        if found != planned:
            raise SettingsError(f"layers of shapes {found} do not make the architecture {architecture.text}")
        self.architecture = architecture
        self.layers = list(layers)
        self.settings = settings
        self.seed = seed

    @classmethod
    def from_architecture(
        cls, architecture: str, *, seed: int = 0, settings: NetworkSettings | None = None
    ) -> Network:
        """Draw a new network.

        Parameters
        ----------
        architecture : str
            Such as ``784-800-10`` or ``34x34x2-800-10``.
        seed : int
            Seed of the initial weights.
        settings : NetworkSettings, optional
            Physics of the neurons; default: what suits the architecture (:func:`suited_settings`).

        Raises
        ------
        SettingsError
            For a wrong architecture, seed or setting.
        """
        parsed = parse_architecture(architecture)
        settings = settings or suited_settings(parsed)
        key = seed_words(seed)

        def draw(index: int, shape: tuple[int, int], neuron: NeuronSettings, gain: float) -> Parameters:
            return SpikingLayer.draw(*shape, neuron, gain, key, index)

        return cls(parsed, build_layers(parsed, settings, draw), settings, seed)

    @property
    def spiking_layers(self) -> list[SpikingLayer]:
        """The layers that have neurons, in order."""
        return [layer for layer in self.layers if isinstance(layer, SpikingLayer)]

    def use_half_weights(self, wanted: bool = True) -> None:
        """Have dense layers simulated with 2-byte copies of their weights, on the CPU.

        Weights over thresholds are rounded to float16, everything else is computed in float32 as ever. Where
        the weights of a layer exceed the cache, half the bytes take half the time. What the network has
        learned stays as it is, and so do simulations and streams opened before. Convolutions, whose weights
        are few, keep float32.

        Parameters
        ----------
        wanted : bool
            False: float32 again.
        """
        for layer in self.spiking_layers:
            layer.half_weights = wanted and isinstance(layer, Dense)

    @property
    def n_inputs(self) -> int:
        """Number of input units."""
        return self.architecture.n_inputs

    @property
    def n_classes(self) -> int:
        """Number of output neurons."""
        return self.architecture.n_outputs

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return sum(layer.parameters for layer in self.spiking_layers)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates a sample of the conventional network of the same shape."""
        return sum(layer.dense_macs for layer in self.layers)

    @property
    def weight_norms(self) -> list[float]:
        """Root mean square, over the neurons of each layer that has some, of the norm of their weights."""
        return [
            math.sqrt(np.square(layer.weight, dtype=np.float64).sum() / layer.weight.shape[1])
            for layer in self.spiking_layers
        ]

    def __repr__(self) -> str:
        return f"Network({self.architecture.text!r}, parameters={self.parameters})"

    def check_fits(self, data: EventSet | EventSplit, where: str = "the data") -> None:
        """Check that a data set has this network's inputs and no more classes than outputs.

        Raises
        ------
        DataError
            Saying both sizes.
        """
        self.check_shape(data.shape, where)
        if data.classes > self.n_classes:
            raise DataError(
                f"architecture {self.architecture.text} has {self.n_classes} outputs, {where} has "
                f"{data.classes} classes; end the architecture with {data.classes}"
            )

    def check_shape(self, shape: tuple[int, int, int], where: str = "the data") -> None:
        """Check that events of this shape (C, H, W) are this network's inputs.

        Raises
        ------
        DataError
            Saying both sizes.
        """
        channels, height, width = shape
        own = self.architecture.shape
        flat = own[:2] == (1, 1)
        fits = self.n_inputs == channels * height * width if flat else own == tuple(shape)
        if not fits:
            size = "" if flat else f" ({own[1]}x{own[2]}x{own[0]})"
            raise DataError(
                f"architecture {self.architecture.text} has {self.n_inputs} inputs{size}, {where} has "
                f"{channels * height * width} ({height}x{width}x{channels}); "
                f"start the architecture with {height}x{width}x{channels}"
            )

    def check_units(self, events: Events) -> None:
        """Check that every event has a unit of this network's input.

        Raises
        ------
        DataError
            Naming the unit.
        """
        if len(events) and int(events.units.max()) >= self.n_inputs:
            raise DataError(f"unit {events.units.max()} is outside the input of {self.n_inputs} units")

    def passes(
        self,
        data: EventSet | EventSplit,
        *,
        backend: Backend | str = "cpu",
        threads: int | None = None,
        report: Callable[[int], None] | None = None,
    ) -> Iterator[Outcome]:
        """Simulate every sample of a data set from rest.

        Parameters
        ----------
        data : EventSet or EventSplit
        backend : Backend or {"cpu", "cuda", "auto"}
            Where to compute; the result does not depend on it.
        threads : int, optional
            Of the CPU, where ``backend`` is a name; default: all processors.
        report : callable, optional
            Called with the number of samples done.

        Yields
        ------
        Outcome
            One for each block of samples, in order.

        Raises
        ------
        BackendError
            If the backend cannot be had.
        DataError
            If the data do not fit the network.
        """
        self.check_fits(data)
        with backend_of(backend, threads) as opened:
            simulator = Simulator(self.layers, opened)
            with opened.feed((queue, (queue.times, queue.units)) for queue in queues_of(data)) as feed:
                for host, (times, units) in feed:
                    queue = Queue(times, units, opened.put(host.start), opened.put(host.count))
                    yield simulator.outcome(queue, data.duration_us)
                    if report is not None:
                        report(len(queue))

    def predict(
        self,
        data: EventSet | EventSplit,
        *,
        backend: Backend | str = "cpu",
        threads: int | None = None,
    ) -> npt.NDArray[np.int64]:
        """Class index of every sample, shape (n_samples,); arguments and errors as :meth:`passes`."""
        parts = [outcome.predictions() for outcome in self.passes(data, backend=backend, threads=threads)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def run(self, events: Events, *, record: str = "spikes") -> Record:
        """Simulate one sample from rest.

        Parameters
        ----------
        events : Events
        record : {"spikes", "membrane"}
            ``membrane`` also keeps every layer's membrane potential after each input time.

        Raises
        ------
        DataError
            If a unit is outside the network's input.
        SettingsError
            If ``record`` is unknown.
        """
        if record not in ("spikes", "membrane"):
            raise SettingsError(f"record must be 'spikes' or 'membrane', got {record!r}")
        self.check_units(events)
        with CpuBackend(1) as backend:
            simulator = Simulator(self.layers, backend)
            states = [layer.new_state(1, backend) for layer in self.layers]
            if record == "spikes":
                edges = np.array([0, len(events)])
            else:
                starts = np.flatnonzero(events.times[1:] != events.times[:-1]) + 1
                edges = np.concatenate([[0], starts, [len(events)]]) if len(events) else np.array([0])
            spikes: list[list[tuple[Any, Any]]] = [[] for _ in self.layers]
            membrane: list[list[npt.NDArray[np.float32]]] = [[] for _ in self.layers]
            for low, high in pairwise(edges):
                queue = HostQueue(events.times, events.units, np.array([low]), np.array([high - low]))
                for index, out in enumerate(simulator.advance(queue, states)):
                    spikes[index].append(out.sample(0))
                    membrane[index].append(self._membranes(index, states, backend).copy())
        joined = [
            Events(
                np.concatenate([np.empty(0, np.uint32), *(times for times, _ in parts)]),
                np.concatenate([np.empty(0, np.uint32), *(units for _, units in parts)]),
            )
            for parts in spikes
        ]
        counts = np.bincount(joined[-1].units, minlength=self.n_classes)
        potential = self._membranes(-1, states, backend)
        return Record(
            joined,
            counts,
            potential,
            int(predicted_classes(counts[None], potential[None])[0]),
            events.times[edges[:-1]] if record == "membrane" else None,
            [
                np.array(rows, np.float32).reshape(len(rows), len(self._membranes(index, states, backend)))
                for index, rows in enumerate(membrane)
            ]
            if record == "membrane"
            else [],
        )

    def stream(self, *, reorder_us: int = 0, late: str = "drop", max_held: int = 1 << 22) -> Stream:
        """Return the network at rest, ready for the packets of a live sensor (:class:`Stream`).

        Parameters
        ----------
        reorder_us, late, max_held
            What becomes of events out of order, see :class:`evsnn.events.reorder.OrderSettings`.

        Raises
        ------
        SettingsError
            If one of these is out of range.
        """
        return Stream(self, OrderSettings(reorder_us, late, max_held))

    def _membranes(
        self, index: int, states: Sequence[LayerState], backend: Backend
    ) -> npt.NDArray[np.float32]:
        """Membrane potentials of one layer's neurons in the only sample."""
        [potential] = backend.fetch(states[index].potential)
        row: npt.NDArray[np.float32] = self.layers[index].membranes(potential)[0]
        return row
