"""Convolutional layer of spiking neurons."""

from __future__ import annotations

import numpy as np
from evsnn_kernels import layout
from evsnn_kernels.cpu import conv

from evsnn.backends.base import Array, Backend
from evsnn.errors import SettingsError
from evsnn.events.queue import Queue
from evsnn.layers.base import Float32, Int64, LayerState, Placement, Shape, SpikingLayer
from evsnn.layers.settings import NeuronSettings


class Conv2d(SpikingLayer):
    """Convolution with square kernels; the maps of one place form a WTA group (S18).

    Parameters
    ----------
    weight : ndarray of float32, shape (kernel * kernel * C, maps)
        Row ``(ky * kernel + kx) * C + c``.
    threshold : ndarray of float32, shape (maps,)
        Shared by all places of a map.
    neuron : NeuronSettings
    in_shape : (C, H, W)
    kernel, stride, padding : int
    gain : float
        Weight that an input event carries.

    Raises
    ------
    SettingsError
        If the kernel does not fit the input.
    """

    def __init__(
        self,
        weight: Float32,
        threshold: Float32,
        neuron: NeuronSettings,
        in_shape: Shape,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        gain: float = 1.0,
    ) -> None:
        out_shape = self.shape_after(in_shape, weight.shape[1], kernel, stride, padding)
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        super().__init__(weight, threshold, neuron, in_shape, out_shape, gain)

    @staticmethod
    def shape_after(in_shape: Shape, maps: int, kernel: int, stride: int, padding: int) -> Shape:
        """Shape (maps, H, W) of the output.

        Raises
        ------
        SettingsError
            If the kernel does not fit the padded input.
        """
        _, height, width = in_shape
        sizes = [(size + 2 * padding - kernel) // stride + 1 for size in (height, width)]
        if min(height, width) + 2 * padding < kernel:
            raise SettingsError(f"a {kernel}x{kernel} kernel does not fit an input of {height}x{width}")
        return maps, sizes[0], sizes[1]

    @property
    def maps(self) -> int:
        """Number of maps."""
        return self.out_shape[0]

    @property
    def places(self) -> int:
        """Number of places of a map."""
        return self.out_shape[1] * self.out_shape[2]

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of a conventional convolution of this shape."""
        return self.fan_in * self.n_out

    @property
    def geometry(self) -> tuple[int, ...]:
        """Height and width of the input, kernel, stride and padding, as kernels take them."""
        _, height, width = self.in_shape
        return height, width, self.kernel, self.stride, self.padding

    @property
    def targets(self) -> Int64:
        """Place that an input position reaches through each kernel entry, -1 for none (S18).

        Returns
        -------
        ndarray of int64, shape (H * W, kernel * kernel)
            Entry ``ky * kernel + kx`` of position ``y * W + x``; the same for all channels.
        """
        row, column = (
            self._places_along(size, places)
            for size, places in zip(self.in_shape[1:], self.out_shape[1:], strict=True)
        )
        place = row[:, None, :, None] * self.out_shape[2] + column[None, :, None, :]
        exists = (row[:, None, :, None] >= 0) & (column[None, :, None, :] >= 0)
        return np.where(exists, place, -1).reshape(-1, self.kernel * self.kernel)

    def _places_along(self, size: int, places: int) -> Int64:
        """Along one axis: place that each position reaches through each kernel entry, (size, kernel)."""
        offset = np.arange(size)[:, None] + self.padding - np.arange(self.kernel)
        place, rest = np.divmod(offset, self.stride)
        return np.where((rest == 0) & (place >= 0) & (place < places), place, -1)

    @property
    def synapses(self) -> Int64:
        """Synaptic operations of one event of each input: the places it reaches, times the maps."""
        reached = (self.targets >= 0).sum(axis=1) * self.maps
        return np.tile(reached, self.in_shape[0]).astype(np.int64)

    @property
    def reach(self) -> int:
        """All maps at as many places as kernels overlap."""
        overlapping = -(-self.kernel // self.stride)
        return overlapping * overlapping * self.maps

    def state_columns(self, neuron: int) -> tuple[int, int]:
        """Columns of neuron ``map * places + place``: potentials lie place by place."""
        place = neuron % self.places
        return place * layout.padded(self.maps) + neuron // self.places, place

    def new_state(self, n_samples: int, backend: Backend) -> LayerState:
        """State of ``n_samples`` samples at rest, place by place."""
        size = self.places * layout.padded(self.maps)
        spikes = size if self.neuron.refractory_us > 0 else 0
        return LayerState.new(backend, (n_samples, size), (n_samples, self.places), spikes)

    def membranes(self, potential: Float32) -> Float32:
        """Membrane potentials over threshold as of each place's last update; see :meth:`Layer.membranes`."""
        by_place = potential.reshape(len(potential), self.places, -1)[:, :, : self.maps]
        return by_place.transpose(0, 2, 1).reshape(-1, self.n_out)

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
        geometry = (*self.geometry, *self.out_shape[1:], self.maps)
        return self._simulate(conv.forward, geometry, queue, state, placed, events, operations)

    def propagate(self, activity: Array, delta: Array, *, normalise: bool, placed: Placement) -> Array:
        """Error of the layer's inputs, shape (n_samples, n_in), from ``delta`` (S8, S18)."""
        backend = placed.backend
        error = backend.empty(activity.shape, np.float32)
        transposed = backend.empty((self.maps, self.fan_in), np.float32)
        backend.run(conv.transpose, self.maps, placed.weight, transposed, work=self.weight.size)
        backend.run(
            conv.propagate,
            len(error),
            activity,
            transposed,
            int(normalise),
            *self.geometry,
            self.out_shape[2],
            *self._by_place(delta, backend),
            error,
        )
        return error

    def gradients(
        self, activity: Array, delta: Array, threshold_delta: Array, *, normalise: bool, placed: Placement
    ) -> tuple[Array, Array]:
        """Mean gradients of weights and thresholds; see :meth:`SpikingLayer.gradients`."""
        backend = placed.backend
        n = len(activity)
        weight_scale, threshold_scale = self._scales(activity, normalise=normalise, backend=backend)
        inputs = backend.empty((n, self.n_in, 3), np.int32)
        n_inputs = backend.empty((n,), np.int64)
        backend.run(conv.active_inputs, n, activity, *self.in_shape[1:], inputs, n_inputs, work=n * self.n_in)
        weight_gradient = backend.empty(self.weight.shape, np.float32)
        threshold_gradient = backend.empty(self.threshold.shape, np.float32)
        backend.run(
            conv.weight_gradient,
            self.kernel * self.kernel,
            activity,
            inputs,
            n_inputs,
            *self._by_place(delta, backend),
            weight_scale,
            *self.geometry,
            *self.out_shape[1:],
            weight_gradient,
        )
        backend.run(
            conv.threshold_gradient,
            self.maps,
            threshold_delta,
            threshold_scale,
            self.places,
            threshold_gradient,
            work=n * self.n_out,
        )
        return weight_gradient, threshold_gradient

    def _by_place(self, delta: Array, backend: Backend) -> tuple[Array, Array]:
        n = len(delta)
        ordered = backend.empty((n, self.places * layout.padded(self.maps)), np.float32)
        active = backend.empty((n, self.places), np.uint8)
        backend.run(conv.by_place, n, delta, self.maps, ordered, active, work=n * self.n_out)
        return ordered, active
