"""Fully connected layer of spiking neurons."""

from __future__ import annotations

import numpy as np
from evsnn_kernels import layout
from evsnn_kernels.cpu import backward, dense, gradient

from evsnn.backends.base import Array, Backend
from evsnn.events.queue import Queue
from evsnn.layers.base import Float32, Int64, LayerState, Placement, Shape, SpikingLayer
from evsnn.layers.settings import NeuronSettings


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

    @property
    def reach(self) -> int:
        """Every neuron."""
        return self.n_out

    def state_columns(self, neuron: int) -> tuple[int, int]:
        """Columns of a neuron; all neurons share their time of last update."""
        return neuron, 0

    def new_state(self, n_samples: int, backend: Backend) -> LayerState:
        """State of ``n_samples`` samples at rest."""
        width = layout.padded(self.n_out)
        spikes = width if self.neuron.refractory_us > 0 else 0
        return LayerState.new(backend, (n_samples, width), (n_samples,), spikes)

    def membranes(self, potential: Float32) -> Float32:
        """Membrane potentials over threshold; see :meth:`Layer.membranes`."""
        return np.ascontiguousarray(potential[:, : self.n_out])

    def forward(
        self,
        queue: Queue,
        state: LayerState,
        placed: Placement,
        *,
        events: Array | None = None,
        operations: Array | None = None,
    ) -> Queue:
        """Simulate a batch; see :meth:`Layer.forward`."""
        return self._simulate(dense.forward, (self.n_out,), queue, state, placed, events, operations)

    def propagate(self, activity: Array, delta: Array, *, normalise: bool, placed: Placement) -> Array:
        """Error of the layer's inputs, shape (n_samples, n_in), from ``delta`` (S8)."""
        error = placed.backend.empty(activity.shape, np.float32)
        placed.backend.run(
            backward.propagate,
            len(error),
            activity,
            placed.weight,
            int(normalise),
            delta,
            error,
            work=len(error) * self.n_in * self.n_out // 4,
        )
        return error

    def gradients(
        self, activity: Array, delta: Array, threshold_delta: Array, *, normalise: bool, placed: Placement
    ) -> tuple[Array, Array]:
        """Mean gradients of weights and thresholds; see :meth:`SpikingLayer.gradients`."""
        backend = placed.backend
        n = len(activity)
        weight_scale, threshold_scale = self._scales(activity, normalise=normalise, backend=backend)
        weight_gradient = backend.empty(self.weight.shape, np.float32)
        threshold_gradient = backend.empty(self.threshold.shape, np.float32)
        backend.run(
            gradient.weight_gradient,
            self.n_in,
            activity,
            delta,
            weight_scale,
            weight_gradient,
            work=self.weight.size * n // 4,
        )
        backend.run(
            gradient.threshold_gradient,
            self.n_out,
            threshold_delta,
            threshold_scale,
            threshold_gradient,
            work=n * self.n_out,
        )
        return weight_gradient, threshold_gradient
