"""What all layers have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import backward, gradient, optimiser, random

from evsnn.events.queue import Queue, QueueBuffer
from evsnn.layers.settings import NeuronSettings
from evsnn.parallel import Workers

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Shape = tuple[int, int, int]


@dataclass(eq=False)
class LayerState:
    """What a layer remembers between events, for a batch of samples (see ``evsnn_kernels.layout``)."""

    potential: Float32
    last_update: Int64
    last_spike: Int64
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


class Layer(ABC):
    """Turns a queue of events into a queue of events.

    Parameters
    ----------
    in_shape, out_shape : (C, H, W)
        Shapes of input and output; a flat layer of n units is (n, 1, 1).
    """

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        self.in_shape = in_shape
        self.out_shape = out_shape

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return math.prod(self.in_shape)

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return math.prod(self.out_shape)

    @property
    @abstractmethod
    def event_weight(self) -> float:
        """Weight that an output event carries to the next layer."""

    @property
    @abstractmethod
    def dense_macs(self) -> int:
        """Multiply-accumulates of the conventional layer of this shape."""

    @property
    @abstractmethod
    def synapses(self) -> Int64:
        """Synaptic operations that one event of each input costs (S15), shape (n_in,)."""

    @abstractmethod
    def new_state(self, n_samples: int) -> LayerState:
        """State of ``n_samples`` samples at rest."""

    @abstractmethod
    def membranes(self, state: LayerState) -> Float32:
        """Membrane potentials over threshold, shape (n_samples, n_out), in the order of the units.

        A layer without neurons has none: shape (n_samples, 0).
        """

    @abstractmethod
    def forward(
        self, queue: Queue, state: LayerState, buffer: QueueBuffer, workers: Workers
    ) -> tuple[Queue, Int64]:
        """Simulate a batch from its present state.

        Returns
        -------
        queue : Queue
            Output events, valid until the next call with this buffer.
        operations : ndarray of int64, shape (n_samples,)
            Synaptic operations of each sample (S15).
        """

    @abstractmethod
    def propagate(self, activity: Float32, delta: Float32, *, normalise: bool, workers: Workers) -> Float32:
        """Error of the layer's inputs, shape (n_samples, n_in), from ``delta`` (S8)."""


class SpikingLayer(Layer):
    """A layer of neurons with trainable weights and thresholds.

    Parameters
    ----------
    weight : ndarray of float32, shape (fan_in, n)
        One column for each neuron of a dense layer, for each map of a convolution.
    threshold : ndarray of float32, shape (n,)
        Positive. Call :meth:`refresh` after changing either array.
    neuron : NeuronSettings
    in_shape, out_shape : (C, H, W)
    gain : float
        Weight that an input event carries: 1, or 1 / P^2 after average pooling.
    """

    def __init__(
        self,
        weight: Float32,
        threshold: Float32,
        neuron: NeuronSettings,
        in_shape: Shape,
        out_shape: Shape,
        gain: float = 1.0,
    ) -> None:
        super().__init__(in_shape, out_shape)
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.threshold = np.ascontiguousarray(threshold, np.float32)
        self.neuron = neuron
        self.gain = gain
        self._scaled = self._scaled_weight()
        self._decay = layout.decay_tables(neuron.tau_us)
        self.refresh()

    @staticmethod
    def draw(
        fan_in: int, n: int, neuron: NeuronSettings, gain: float, key: tuple[int, int], index: int
    ) -> tuple[Float32, Float32]:
        """Draw initial weights uniform in +-sqrt(3/M), thresholds gain alpha sqrt(3/M), fan-in M (S14).

        Parameters
        ----------
        fan_in, n : int
            Rows and columns of the weights.
        neuron : NeuronSettings
        gain : float
            Weight that an input event carries.
        key : (int, int)
            Seed as two 32-bit words.
        index : int
            Position of the layer, part of the random counter.
        """
        weight = np.empty((fan_in, n), np.float32)
        bound = math.sqrt(3.0 / fan_in)
        random.uniform_weights(np.float32(bound), index, layout.PURPOSE_WEIGHTS, *key, weight, 0, fan_in)
        return weight, np.full(n, neuron.alpha * bound * gain, np.float32)

    @property
    def event_weight(self) -> float:
        """Weight that an output event carries to the next layer: a spike is 1."""
        return 1.0

    @property
    def fan_in(self) -> int:
        """Inputs of one neuron, M."""
        return int(self.weight.shape[0])

    @property
    def initial_threshold(self) -> float:
        """Threshold every neuron starts with, gain alpha sqrt(3/M)."""
        return self.neuron.alpha * math.sqrt(3.0 / self.fan_in) * self.gain

    @property
    def parameters(self) -> int:
        """Number of trainable values."""
        return self.weight.size + self.threshold.size

    def _scaled_weight(self) -> Float32:
        """Room for the weights over the thresholds, as the layer's kernel reads them."""
        return np.zeros((self.fan_in, layout.padded(self.weight.shape[1])), np.float32)

    @abstractmethod
    def state_columns(self, neuron: int) -> tuple[int, int]:
        """Columns of ``potential`` and of ``last_update`` in the layer's state that belong to a neuron."""

    def refresh(self, workers: Workers | None = None) -> None:
        """Recompute what is derived from weights and thresholds."""
        arguments = (self.weight, self.threshold, np.float32(self.gain), self._scaled)
        if workers is None:
            optimiser.divide_by_threshold(*arguments, 0, self.fan_in)
        else:
            workers.run(optimiser.divide_by_threshold, self.fan_in, *arguments, work=self.weight.size)

    def deltas(
        self,
        activity: Float32,
        error: Float32,
        *,
        normalise: bool,
        is_output: bool,
        spike_cost: float,
        workers: Workers,
    ) -> tuple[Float32, Float32]:
        """Errors of the input sums and thresholds from the error of the activities (S7, S8).

        Parameters
        ----------
        activity, error : ndarray of float32, shape (n_samples, n_out)
        spike_cost : float
            Derivative of the penalty of synaptic operations by an activity of this layer (S10).

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
            np.float32(spike_cost),
            error,
            delta,
            threshold_delta,
            work=4 * error.size,  # two divisions an element
        )
        return delta, threshold_delta

    @abstractmethod
    def gradients(
        self,
        activity: Float32,
        delta: Float32,
        threshold_delta: Float32,
        *,
        normalise: bool,
        workers: Workers,
    ) -> tuple[Float32, Float32]:
        """Mean gradients over the batch: weights (fan_in, n) and thresholds (n,) (S8).

        Parameters
        ----------
        activity : ndarray of float32, shape (n_samples, n_in)
            Activity of the layer's inputs.
        delta, threshold_delta : ndarray of float32, shape (n_samples, n_out)
        """

    def _scales(self, activity: Float32, *, normalise: bool, workers: Workers) -> tuple[Float32, Float32]:
        """Factors of each sample's weight and threshold gradients, shape (n_samples,) (S8)."""
        n = len(activity)
        weight_scale = np.empty(n, np.float32)
        threshold_scale = np.empty(n, np.float32)
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
        return weight_scale, threshold_scale

    def _simulate(
        self,
        kernel: Callable[..., object],
        geometry: tuple[int, ...],
        queue: Queue,
        state: LayerState,
        buffer: QueueBuffer,
        workers: Workers,
        counters: tuple[Int64, ...] = (),
    ) -> Queue:
        before = None if state.at_rest else state.copy()

        def produce(times: UInt32, units: UInt32, slot: Int64, count: Int64) -> None:
            if before is not None:
                state.restore(before)
            elif not state.at_rest:
                state.rest()
            state.at_rest = False
            workers.run(
                kernel,
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
                *geometry,
                state.potential,
                state.last_update,
                state.last_spike,
                times,
                units,
                slot,
                count,
                *counters,
            )

        return buffer.fill(len(queue), produce)
