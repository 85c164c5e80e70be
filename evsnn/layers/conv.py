"""Convolutional layer of spiking neurons."""

from __future__ import annotations

import numpy as np
from evsnn_kernels import layout
from evsnn_kernels.cpu import conv

from evsnn.errors import SettingsError
from evsnn.events.queue import Queue, QueueBuffer
from evsnn.layers.base import Float32, Int64, LayerState, Shape, SpikingLayer
from evsnn.layers.settings import NeuronSettings
from evsnn.parallel import Workers


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
    def _geometry(self) -> tuple[int, ...]:
        _, height, width = self.in_shape
        return height, width, self.kernel, self.stride, self.padding

    @property
    def synapses(self) -> Int64:
        """Synaptic operations of one event of each input: the places it reaches, times the maps."""
        reached = []
        for size, places in zip(self.in_shape[1:], self.out_shape[1:], strict=True):
            offset = np.arange(size)[:, None] + self.padding - np.arange(self.kernel)
            place, rest = np.divmod(offset, self.stride)
            reached.append(((rest == 0) & (place >= 0) & (place < places)).sum(axis=1))
        return np.tile(np.outer(*reached).ravel() * self.maps, self.in_shape[0]).astype(np.int64)

    def state_columns(self, neuron: int) -> tuple[int, int]:
        """Columns of neuron ``map * places + place``: potentials lie place by place."""
        place = neuron % self.places
        return place * self.maps + neuron // self.places, place

    def new_state(self, n_samples: int) -> LayerState:
        """State of ``n_samples`` samples at rest, place by place."""
        spikes = self.n_out if self.neuron.refractory_us > 0 else 0
        return LayerState(
            np.zeros((n_samples, self.n_out), np.float32),
            np.zeros((n_samples, self.places), np.int64),
            np.full((n_samples, spikes), layout.NEVER, np.int64),
        )

    def forward(
        self, queue: Queue, state: LayerState, buffer: QueueBuffer, workers: Workers
    ) -> tuple[Queue, Int64]:
        """Simulate a batch; see :meth:`Layer.forward`."""
        operations = np.zeros(len(queue), np.int64)
        geometry = (*self._geometry, *self.out_shape[1:])
        out = self._simulate(conv.forward, geometry, queue, state, buffer, workers, (operations,))
        return out, operations

    def propagate(self, activity: Float32, delta: Float32, *, normalise: bool, workers: Workers) -> Float32:
        """Error of the layer's inputs, shape (n_samples, n_in), from ``delta`` (S8, S18)."""
        error = np.empty_like(activity)
        by_place, places, n_places = self._active_places(delta, workers)
        workers.run(
            conv.propagate,
            len(error),
            activity,
            np.ascontiguousarray(self.weight.T),
            int(normalise),
            *self._geometry,
            self.out_shape[2],
            by_place,
            places,
            n_places,
            error,
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
        weight_scale, threshold_scale = self._scales(activity, normalise=normalise, workers=workers)
        by_place, places, n_places = self._active_places(delta, workers)
        weight_gradient = np.empty_like(self.weight)
        threshold_gradient = np.empty_like(self.threshold)
        workers.run(
            conv.weight_gradient,
            self.fan_in,
            activity,
            by_place,
            places,
            n_places,
            weight_scale,
            *self._geometry,
            self.out_shape[2],
            weight_gradient,
        )
        workers.run(
            conv.threshold_gradient,
            self.maps,
            threshold_delta,
            threshold_scale,
            self.places,
            threshold_gradient,
            work=threshold_delta.size,
        )
        return weight_gradient, threshold_gradient

    def _active_places(self, delta: Float32, workers: Workers) -> tuple[Float32, Int64, Int64]:
        by_place = np.empty_like(delta)
        places = np.empty((len(delta), self.places), np.int64)
        n_places = np.empty(len(delta), np.int64)
        workers.run(
            conv.active_places, len(delta), delta, self.maps, by_place, places, n_places, work=delta.size
        )
        return by_place, places, n_places
