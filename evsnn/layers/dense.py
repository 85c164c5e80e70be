"""Fully connected layer of spiking neurons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import backward, dense, gradient, optimiser, random

from evsnn.events.queue import Queue, QueueBuffer
from evsnn.layers.settings import NeuronSettings
from evsnn.parallel import Workers

Float32 = npt.NDArray[np.float32]


@dataclass(eq=False)
class LayerState:
    """What a layer remembers between events, for a batch of samples (see ``evsnn_kernels.layout``)."""

    potential: Float32
    last_update: npt.NDArray[np.int64]
    last_spike: npt.NDArray[np.int64]
    at_rest: bool = True

    def rest(self) -> None:
        """Return to rest: potential 0 at time 0, no spike yet."""
        self.potential[:] = 0.0
        self.last_update[:] = 0
        self.last_spike[:] = layout.NEVER
        self.at_rest = True

    def copy(self) -> LayerState:
        """Return an independent copy."""
        return LayerState(
            self.potential.copy(), self.last_update.copy(), self.last_spike.copy(), self.at_rest
        )

    def restore(self, other: LayerState) -> None:
        """Take over another state of the same shape."""
        self.potential[:] = other.potential
        self.last_update[:] = other.last_update
        self.last_spike[:] = other.last_spike
        self.at_rest = other.at_rest


class Dense:
    """Fully connected layer: every input reaches every neuron, all neurons form one WTA group.

    Parameters
    ----------
    weight : ndarray of float32, shape (n_in, n_out)
    threshold : ndarray of float32, shape (n_out,)
        Positive. Call :meth:`refresh` after changing either array.
    neuron : NeuronSettings
    """

    kind = "dense"

    def __init__(self, weight: Float32, threshold: Float32, neuron: NeuronSettings) -> None:
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.threshold = np.ascontiguousarray(threshold, np.float32)
        self.neuron = neuron
        self._scaled = np.empty_like(self.weight)
        self._decay = layout.decay_tables(neuron.tau_us)
        self.refresh()

    @classmethod
    def drawn(cls, n_in: int, n_out: int, neuron: NeuronSettings, key: tuple[int, int], index: int) -> Dense:
        """Draw initial weights uniform in +-sqrt(3/M), thresholds alpha sqrt(3/M), fan-in M (S14).

        Parameters
        ----------
        n_in, n_out : int
        neuron : NeuronSettings
        key : (int, int)
            Seed as two 32-bit words.
        index : int
            Position of the layer, part of the random counter.
        """
        weight = np.empty((n_in, n_out), np.float32)
        bound = math.sqrt(3.0 / n_in)
        random.uniform_weights(np.float32(bound), index, layout.PURPOSE_WEIGHTS, *key, weight, 0, n_in)
        return cls(weight, np.full(n_out, neuron.alpha * bound, np.float32), neuron)

    @property
    def n_in(self) -> int:
        """Number of inputs, M."""
        return int(self.weight.shape[0])

    @property
    def n_out(self) -> int:
        """Number of neurons, N."""
        return int(self.weight.shape[1])

    @property
    def initial_threshold(self) -> float:
        """Threshold every neuron starts with, alpha sqrt(3/M)."""
        return self.neuron.alpha * math.sqrt(3.0 / self.n_in)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of a conventional layer of this shape."""
        return self.n_in * self.n_out

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return self.weight.size + self.threshold.size

    def refresh(self, workers: Workers | None = None) -> None:
        """Recompute what is derived from weights and thresholds."""
        arguments = (self.weight, self.threshold, self._scaled)
        if workers is None:
            optimiser.divide_by_threshold(*arguments, 0, self.n_in)
        else:
            workers.run(optimiser.divide_by_threshold, self.n_in, *arguments, work=self.weight.size)

    def new_state(self, n_samples: int) -> LayerState:
        """State of ``n_samples`` samples at rest."""
        spikes = self.n_out if self.neuron.refractory_us > 0 else 0
        return LayerState(
            np.zeros((n_samples, self.n_out), np.float32),
            np.zeros(n_samples, np.int64),
            np.full((n_samples, spikes), layout.NEVER, np.int64),
        )

    def forward(self, queue: Queue, state: LayerState, buffer: QueueBuffer, workers: Workers) -> Queue:
        """Simulate a batch from its present state; return the output events (valid until the next call)."""
        before = None if state.at_rest else state.copy()

        def produce(
            times: npt.NDArray[np.uint32],
            units: npt.NDArray[np.uint32],
            slot: npt.NDArray[np.int64],
            count: npt.NDArray[np.int64],
        ) -> None:
            if before is not None:
                state.restore(before)
            elif not state.at_rest:
                state.rest()
            state.at_rest = False
            workers.run(
                dense.forward,
                len(queue),
                queue.times,
                queue.units,
                queue.start,
                queue.count,
                self._scaled,
                *self._decay,
                np.float32(-self.neuron.clamp),
                np.float32(self.neuron.kappa),
                self.neuron.refractory_us,
                state.potential,
                state.last_update,
                state.last_spike,
                times,
                units,
                slot,
                count,
            )

        return buffer.fill(len(queue), produce)

    def synaptic_operations(self, queue: Queue) -> npt.NDArray[np.int64]:
        """Synaptic operations of each sample of an input queue: every event reaches all neurons."""
        return queue.count * self.n_out

    def deltas(
        self, activity: Float32, error: Float32, *, normalise: bool, is_output: bool, workers: Workers
    ) -> tuple[Float32, Float32]:
        """Errors of the input sums and thresholds from the error of the activities (S7, S8).

        Parameters
        ----------
        activity, error : ndarray of float32, shape (n_samples, n_out)

        Returns
        -------
        delta, threshold_delta : ndarray of float32, shape (n_samples, n_out)
        """
        delta = np.empty_like(error)
        threshold_delta = np.empty_like(error)
        coupling = np.float32(self.neuron.sigma * self.neuron.kappa)
        workers.run(
            backward.layer_delta,
            len(error),
            activity,
            self.threshold,
            coupling,
            int(normalise),
            int(is_output),
            error,
            delta,
            threshold_delta,
            work=error.size,
        )
        return delta, threshold_delta

    def propagate(self, activity: Float32, delta: Float32, *, normalise: bool, workers: Workers) -> Float32:
        """Error of the layer's inputs, shape (n_samples, n_in), from ``delta`` (S8)."""
        error = np.empty_like(activity)
        workers.run(
            backward.propagate,
            len(error),
            activity,
            self.weight,
            int(normalise),
            delta,
            error,
            work=error.size * self.n_out // 4,
        )
        return error

    def gradients(
        self,
        activity: Float32,
        delta: Float32,
        threshold_delta: Float32,
        *,
        normalise: bool,
        workers: Workers,
    ) -> tuple[Float32, Float32]:
        """Mean gradients over the batch: weights (n_in, n_out) and thresholds (n_out,) (S8).

        Parameters
        ----------
        activity : ndarray of float32, shape (n_samples, n_in)
            Activity of the layer's inputs.
        delta, threshold_delta : ndarray of float32, shape (n_samples, n_out)
        """
        n = len(activity)
        weight_scale = np.empty(n, np.float32)
        threshold_scale = np.empty(n, np.float32)
        weight_gradient = np.empty_like(self.weight)
        threshold_gradient = np.empty_like(self.threshold)
        workers.run(
            gradient.gradient_scales,
            n,
            activity,
            self.n_out,
            int(normalise),
            weight_scale,
            threshold_scale,
            work=activity.size,
        )
        workers.run(
            gradient.weight_gradient,
            self.n_in,
            activity,
            delta,
            weight_scale,
            weight_gradient,
            work=self.weight.size * n // 4,
        )
        workers.run(
            gradient.threshold_gradient,
            self.n_out,
            threshold_delta,
            threshold_scale,
            threshold_gradient,
            work=threshold_delta.size,
        )
        return weight_gradient, threshold_gradient
