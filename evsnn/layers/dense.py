"""Fully connected layer of spiking neurons."""

from __future__ import annotations

import numpy as np
from evsnn_kernels import layout
from evsnn_kernels.cpu import backward, dense, gradient

from evsnn.events.queue import Queue, QueueBuffer
from evsnn.layers.base import Float32, Int64, LayerState, Shape, SpikingLayer
from evsnn.layers.settings import NeuronSettings
from evsnn.parallel import Workers


class Dense(SpikingLayer):
    """Fully connected layer: every input reaches every neuron, all neurons form one WTA group.

    Parameters
    ----------
    weight : ndarray of float32, shape (n_in, n_out)
    threshold : ndarray of float32, shape (n_out,)
    neuron : NeuronSettings
    in_shape : (C, H, W), optional
        Shape of the input; default: flat.
    gain : float
        Weight that an input event carries.
    """

    def __init__(
        self,
        weight: Float32,
        threshold: Float32,
        neuron: NeuronSettings,
        in_shape: Shape | None = None,
        gain: float = 1.0,
    ) -> None:
        n_in, n_out = weight.shape
        super().__init__(weight, threshold, neuron, in_shape or (n_in, 1, 1), (n_out, 1, 1), gain)

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of a conventional layer of this shape."""
        return self.n_in * self.n_out

    @property
    def synapses(self) -> Int64:
        """Synaptic operations of one event of each input: every neuron."""
        return np.full(self.n_in, self.n_out, np.int64)

    def state_columns(self, neuron: int) -> tuple[int, int]:
        """Columns of a neuron; all neurons share their time of last update."""
        return neuron, 0

    def new_state(self, n_samples: int) -> LayerState:
        """State of ``n_samples`` samples at rest."""
        width = layout.padded(self.n_out)
        spikes = width if self.neuron.refractory_us > 0 else 0
        return LayerState(
            np.zeros((n_samples, width), np.float32),
            np.zeros(n_samples, np.int64),
            np.full((n_samples, spikes), layout.NEVER, np.int64),
        )

    def membranes(self, state: LayerState) -> Float32:
        """Membrane potentials over threshold; see :meth:`Layer.membranes`."""
        return np.ascontiguousarray(state.potential[:, : self.n_out])

    def forward(
        self, queue: Queue, state: LayerState, buffer: QueueBuffer, workers: Workers
    ) -> tuple[Queue, Int64]:
        """Simulate a batch; see :meth:`Layer.forward`."""
        operations = queue.count * self.n_out
        return self._simulate(dense.forward, (), queue, state, buffer, workers), operations

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
        """Mean gradients of weights and thresholds; see :meth:`SpikingLayer.gradients`."""
        n = len(activity)
        weight_scale, threshold_scale = self._scales(activity, normalise=normalise, workers=workers)
        weight_gradient = np.empty_like(self.weight)
        threshold_gradient = np.empty_like(self.threshold)
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
