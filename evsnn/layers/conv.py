"""Convolutional layer of spiking neurons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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
        return place * layout.padded(self.maps) + neuron // self.places, place

    def new_state(self, n_samples: int) -> LayerState:
        """State of ``n_samples`` samples at rest, place by place."""
        size = self.places * layout.padded(self.maps)
        spikes = size if self.neuron.refractory_us > 0 else 0
        return LayerState(
            np.zeros((n_samples, size), np.float32),
            np.zeros((n_samples, self.places), np.int64),
            np.full((n_samples, spikes), layout.NEVER, np.int64),
        )

    def membranes(self, state: LayerState) -> Float32:
        """Membrane potentials over threshold as of each place's last update; see :meth:`Layer.membranes`."""
        by_place = state.potential.reshape(len(state.potential), self.places, -1)[:, :, : self.maps]
        return by_place.transpose(0, 2, 1).reshape(-1, self.n_out)

    def forward(
        self, queue: Queue, state: LayerState, buffer: QueueBuffer, workers: Workers
    ) -> tuple[Queue, Int64]:
        """Simulate a batch; see :meth:`Layer.forward`."""
        operations = np.zeros(len(queue), np.int64)
        geometry = (*self._geometry, *self.out_shape[1:], self.maps)
        out = self._simulate(conv.forward, geometry, queue, state, buffer, workers, (operations,))
        return out, operations

    def propagate(self, activity: Float32, delta: Float32, *, normalise: bool, workers: Workers) -> Float32:
        """Error of the layer's inputs, shape (n_samples, n_in), from ``delta`` (S8, S18)."""
        error = np.empty_like(activity)
        workers.run(
            conv.propagate,
            len(error),
            activity,
            np.ascontiguousarray(self.weight.T),
            int(normalise),
            *self._geometry,
            self.out_shape[2],
            *self._by_place(delta, workers),
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
        n = len(activity)
        inputs = np.empty((n, self.n_in, 3), np.int32)
        n_inputs = np.empty(n, np.int64)
        workers.run(conv.active_inputs, n, activity, *self.in_shape[1:], inputs, n_inputs, work=activity.size)
        weight_gradient = np.empty_like(self.weight)
        threshold_gradient = np.empty_like(self.threshold)
        workers.run(
            conv.weight_gradient,
            self.kernel * self.kernel,
            activity,
            inputs,
            n_inputs,
            *self._by_place(delta, workers),
            weight_scale,
            *self._geometry,
            *self.out_shape[1:],
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

    def _by_place(self, delta: Float32, workers: Workers) -> tuple[Float32, npt.NDArray[np.uint8]]:
        ordered = np.empty((len(delta), self.places * layout.padded(self.maps)), np.float32)
        active = np.empty((len(delta), self.places), np.uint8)
        workers.run(conv.by_place, len(delta), delta, self.maps, ordered, active, work=delta.size)
        return ordered, active
