"""Simulation of a batch of samples through all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import activity as activity_kernels

from evsnn.errors import SettingsError
from evsnn.events.queue import Queue, QueueBuffer
from evsnn.layers.base import Layer, LayerState, SpikingLayer
from evsnn.parallel import Workers

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
class Pass:
    """What one forward pass of a batch leaves behind.

    Parameters
    ----------
    activities : list of ndarray of float32, shape (n_samples, n_units)
        Activity of the input and of every layer.
    counts : ndarray of float32, shape (n_samples, n_out)
        Output spike counts.
    potential : ndarray of float32, shape (n_samples, n_out)
        Residual membrane potential of the output neurons over their threshold.
    events : ndarray of int64, shape (n_layers + 1, n_samples)
        Events of the input and of every layer.
    operations : ndarray of int64, shape (n_layers, n_samples)
        Synaptic operations of every layer.
    """

    activities: list[Float32]
    counts: Float32
    potential: Float32
    events: npt.NDArray[np.int64]
    operations: npt.NDArray[np.int64]

    def predictions(self) -> npt.NDArray[np.int64]:
        """Class of each sample, see :func:`predicted_classes`."""
        return predicted_classes(self.counts, self.potential)


class Simulator:
    """Runs batches through a network; keeps the memory of its queues from batch to batch.

    Parameters
    ----------
    layers : sequence of Layer
    workers : Workers
    activity : {"counts", "trace"}
        Activity measure that learning uses (docs/model.md, S7).
    """

    def __init__(self, layers: Sequence[Layer], workers: Workers, activity: str = "counts") -> None:
        if activity not in _ACTIVITIES:
            raise SettingsError(f"activity must be one of {', '.join(_ACTIVITIES)}, got {activity!r}")
        self.layers = layers
        self.workers = workers
        self._activity = activity
        self._buffers = [QueueBuffer() for _ in layers]
        # A trace decays with the time constant of its layer; that of the input, and of a relay, with that of
        # the neurons it reaches.
        tables = []
        tau = np.inf
        for layer in reversed(layers):
            tau = layer.neuron.tau_us if isinstance(layer, SpikingLayer) else tau
            tables.append(layout.decay_tables(tau))
        self._decay = [tables[-1], *reversed(tables)]

    def forward(self, queue: Queue, duration_us: int) -> Pass:
        """Simulate a batch from rest.

        Parameters
        ----------
        queue : Queue
            Input events.
        duration_us : int
            End of the presentation, for traces.
        """
        layers = self.layers
        activities = [self._measure(queue, layers[0].n_in, 0, self._activity, duration_us)]
        events = [queue.count.copy()]
        operations = []
        gain = 1.0  # of an event that came through one pooling layer after the other
        for index, (layer, buffer) in enumerate(zip(layers, self._buffers, strict=True)):
            state = layer.new_state(len(queue))
            queue, used = layer.forward(queue, state, buffer, self.workers)
            operations.append(used)
            events.append(queue.count.copy())
            activity = self._measure(queue, layer.n_out, index + 1, self._activity, duration_us)
            gain = 1.0 if isinstance(layer, SpikingLayer) else gain * layer.event_weight
            if gain != 1.0:
                activity *= np.float32(gain)
            activities.append(activity)
        counts = activities[-1]
        if self._activity != "counts":
            counts = self._measure(queue, layers[-1].n_out, len(layers), "counts", duration_us)
        potential = layers[-1].membranes(state)
        return Pass(activities, counts, potential, np.stack(events), np.stack(operations))

    def advance(self, queue: Queue, states: Sequence[LayerState]) -> list[Queue]:
        """Simulate a batch from given states, which are updated; return the queue of every layer."""
        queues = []
        for layer, state, buffer in zip(self.layers, states, self._buffers, strict=True):
            queue, _ = layer.forward(queue, state, buffer, self.workers)
            queues.append(queue)
        return queues

    def inputs(self, queue: Queue) -> list[Queue]:
        """Simulate a batch from rest; return the queue that each layer reads, the batch itself first.

        A layer's events up to a time depend on nothing later, so the part of a queue up to a time is the
        queue of a recording that is cut there. Valid until the next call; the last layer is not simulated.
        """
        queues = [queue]
        for layer, buffer in zip(self.layers[:-1], self._buffers, strict=False):
            queues.append(layer.forward(queues[-1], layer.new_state(len(queue)), buffer, self.workers)[0])
        return queues

    def _measure(self, queue: Queue, n: int, index: int, kind: str, duration_us: int) -> Float32:
        result = np.empty((len(queue), n), np.float32)
        self.workers.run(
            activity_kernels.activity,
            len(queue),
            queue.times,
            queue.units,
            queue.start,
            queue.count,
            *self._decay[index],
            _ACTIVITIES[kind],
            duration_us,
            result,
            work=result.size,
        )
        return result
