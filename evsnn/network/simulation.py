"""Simulation of a batch of samples through all layers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import activity as activity_kernels

from evsnn.backends.base import Array, Backend, QueueTooSmallError
from evsnn.errors import SettingsError
from evsnn.events.queue import HostQueue, Queue
from evsnn.layers.base import Layer, LayerState, SpikingLayer

Float32 = npt.NDArray[np.float32]
_ACTIVITIES = {"counts": layout.ACTIVITY_COUNTS, "trace": layout.ACTIVITY_TRACE}


def predicted_classes(counts: npt.NDArray[Any], potential: Float32) -> npt.NDArray[np.int64]:
    """Class of each sample: most output spikes, ties by residual potential, then lowest index (S9).

    Parameters
    ----------
    counts : ndarray, shape (n_samples, n_out)
        Output spike counts.
    potential : ndarray of float32, shape (n_samples, n_out)
        Residual membrane potential of the output neurons over their threshold.
    """
    best = counts == counts.max(axis=1, keepdims=True)
    classes: npt.NDArray[np.int64] = np.argmax(np.where(best, potential, -np.inf), axis=1)
    return classes


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a batch came to, on the host.

    Parameters
    ----------
    counts : ndarray of float32, shape (n_samples, n_out)
        Output spike counts.
    potential : ndarray of float32, shape (n_samples, n_out)
        Residual membrane potential of the output neurons over their threshold.
    events : ndarray of int64, shape (n_layers + 1, n_samples)
        Events of the input and of every layer.
    operations : ndarray of int64, shape (n_layers, n_samples)
        Synaptic operations of every layer.
    active : ndarray of int64, shape (n_layers + 1, n_samples)
        Units of the input and of every layer whose activity is not 0.
    """

    counts: Float32
    potential: Float32
    events: npt.NDArray[np.int64]
    operations: npt.NDArray[np.int64]
    active: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)

    def predictions(self) -> npt.NDArray[np.int64]:
        """Class of each sample, see :func:`predicted_classes`."""
        return predicted_classes(self.counts, self.potential)


@dataclass(frozen=True, eq=False)
class Pass:
    """What one forward pass of a batch leaves behind, where the backend's kernels reach it.

    Parameters
    ----------
    activities : list of Array of float32, shape (n_samples, n_units)
        Activity of the input and of every layer.
    counts : Array of float32, shape (n_samples, n_out)
        Output spike counts.
    potential : Array of float32, shape (n_samples, padded(n_out))
        Residual membrane potential of the output neurons over their threshold.
    input_events : Array of int64, shape (n_samples,)
    counters : Array of int64, shape (3 n_layers + 1, n_samples)
        Output events of every layer, synaptic operations of every layer, active units of the input and of
        every layer.
    """

    activities: list[Array]
    counts: Array
    potential: Array
    input_events: Array
    counters: Array

    def fetch(self, backend: Backend, *more: Array) -> tuple[Outcome, list[npt.NDArray[Any]]]:
        """Wait for the batch; return what it came to, and the values of other arrays.

        Raises
        ------
        QueueTooSmallError
            If the batch is to be repeated.
        """
        counts, potential, inputs, counters, *others = backend.fetch(
            self.counts, self.potential, self.input_events, self.counters, *more
        )
        n = len(self.activities) - 1
        outcome = Outcome(
            counts,
            potential[:, : counts.shape[1]],
            np.concatenate([inputs[None], counters[:n]]),
            counters[n : 2 * n],
            counters[2 * n :],
        )
        return outcome, others


class Simulator:
    """Runs batches through a network on a backend; keeps the memory of its queues from batch to batch.

    Parameters
    ----------
    layers : sequence of Layer
    backend : Backend
    activity : {"counts", "trace"}
        Activity measure that learning uses (docs/model.md, S7).
    """

    def __init__(self, layers: Sequence[Layer], backend: Backend, activity: str = "counts") -> None:
        if activity not in _ACTIVITIES:
            raise SettingsError(f"activity must be one of {', '.join(_ACTIVITIES)}, got {activity!r}")
        self.layers = layers
        self.backend = backend
        self.placed = [layer.place(backend) for layer in layers]
        self._activity = activity
        # A trace decays with the time constant of its layer; that of the input, and of a relay, with that of
        # the neurons it reaches.
        tables: list[tuple[Array, Array]] = []
        decay_high, decay_low = layout.decay_tables(np.inf)
        table = backend.put(decay_high), backend.put(decay_low)
        for layer, placed in zip(reversed(layers), reversed(self.placed), strict=True):
            table = placed.decay if isinstance(layer, SpikingLayer) else table
            tables.append(table)
        self._decay = [table, *reversed(tables)]

    def forward(self, queue: Queue, duration_us: int) -> Pass:
        """Simulate a batch from rest.

        Parameters
        ----------
        queue : Queue
            Input events.
        duration_us : int
            End of the presentation, for traces.

        Returns
        -------
        Pass
            Valid if its :meth:`Pass.fetch` raises nothing.
        """
        layers, n = self.layers, len(self.layers)
        counters = self.backend.empty((3 * n + 1, len(queue)), np.int64)
        rows = self.backend.rows(counters)
        input_events = queue.count
        activity = self._measure(queue, layers[0].n_in, 0, self._activity, duration_us, 1.0, rows[2 * n])
        activities = [activity]
        gain = 1.0  # of an event that came through one pooling layer after the other
        for index, (layer, placed) in enumerate(zip(layers, self.placed, strict=True)):
            state = layer.new_state(len(queue), self.backend)
            queue = layer.forward(queue, state, placed, events=rows[index], operations=rows[n + index])
            gain = 1.0 if isinstance(layer, SpikingLayer) else gain * layer.event_weight
            row = rows[2 * n + 1 + index]
            activities.append(
                self._measure(queue, layer.n_out, index + 1, self._activity, duration_us, gain, row)
            )
        counts = activities[-1]
        if self._activity != "counts":
            row = self.backend.empty((len(queue),), np.int64)
            counts = self._measure(queue, layers[-1].n_out, n, "counts", duration_us, 1.0, row)
        return Pass(activities, counts, state.potential, input_events, counters)

    def outcome(self, queue: Queue, duration_us: int) -> Outcome:
        """Simulate a batch from rest, as often as its queues have to grow."""
        while True:
            with suppress(QueueTooSmallError):
                return self.forward(queue, duration_us).fetch(self.backend)[0]

    def advance(self, queue: Queue, states: Sequence[LayerState]) -> list[HostQueue]:
        """Simulate a batch from given states, which are updated; return the queue of every layer.

        On the CPU only: elsewhere a queue that was too small would be seen when the states are lost.
        """
        queues = []
        for layer, state, placed in zip(self.layers, states, self.placed, strict=True):
            queue = layer.forward(queue, state, placed)
            queues.append(queue.fetch(self.backend))
        return queues

    def inputs(self, queue: Queue) -> list[HostQueue]:
        """Simulate a batch from rest; return the queue that each layer reads, the batch itself first.

        A layer's events up to a time depend on nothing later, so the part of a queue up to a time is the
        queue of a recording that is cut there. Valid until the next call; the last layer is not simulated.
        """
        queues = [queue.fetch(self.backend)]
        for layer, placed in zip(self.layers[:-1], self.placed, strict=False):
            state = layer.new_state(len(queue), self.backend)
            queue = layer.forward(queue, state, placed)
            queues.append(queue.fetch(self.backend))
        return queues

    def _measure(
        self, queue: Queue, n: int, index: int, kind: str, duration_us: int, scale: float, active: Array
    ) -> Array:
        result = self.backend.empty((len(queue), n), np.float32)
        self.backend.run(
            activity_kernels.activity,
            len(queue),
            queue.times,
            queue.units,
            queue.start,
            queue.count,
            *self._decay[index],
            _ACTIVITIES[kind],
            duration_us,
            np.float32(scale),
            result,
            active,
            work=len(queue) * n,
        )
        return result
