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
from evsnn_kernels.cpu import state as state_kernels

from evsnn.backends.base import Array, Backend, HostArray
from evsnn.errors import SettingsError
from evsnn.events.queue import EVENT_BYTES, Queue, QueueBuffer
from evsnn.layers.settings import NeuronSettings

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Shape = tuple[int, int, int]

#: Events of a sample that a layer's first output queue has room for, at most.
_FIRST_ROOM = 2048
#: Where float16 rounds to infinity.
_FLOAT16_END = 65520.0


@dataclass(eq=False)
class LayerState:
    """What a layer remembers between events, for a batch of samples (see ``evsnn_kernels.layout``)."""

    potential: Array
    last_update: Array
    last_spike: Array
    at_rest: bool = True

    @classmethod
    def new(
        cls, backend: Backend, potential: tuple[int, int], last_update: tuple[int, ...], last_spike: int
    ) -> LayerState:
        """Return a state at rest, of arrays of these shapes; ``last_spike`` are columns."""
        made = cls(
            backend.empty(potential, np.float32),
            backend.empty(last_update, np.int64),
            backend.empty((potential[0], last_spike), np.int64),
        )
        made.rest(backend)
        return made

    def rest(self, backend: Backend) -> None:
        """Return to rest: potential 0 at time 0, no spike yet."""
        n = len(self.potential)
        columns = self.last_update.shape[1] if len(self.last_update.shape) > 1 else 1
        backend.run(
            state_kernels.rest,
            n,
            self.potential,
            self.last_update.reshape((n, columns)),
            self.last_spike,
            work=n * self.potential.shape[1] // 4,
        )
        self.at_rest = True

    def arrays(self) -> tuple[Array, Array, Array]:
        """Potential, last update and last spike."""
        return self.potential, self.last_update, self.last_spike

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(
            math.prod(array.shape) * size for array, size in zip(self.arrays(), (4, 8, 8), strict=True)
        )


@dataclass(frozen=True, eq=False)
class Placement:
    """A layer where the kernels of a backend reach it: its arrays, and the memory of its output queue.

    Parameters
    ----------
    backend : Backend
    buffer : QueueBuffer
    weight : Array of float32, shape (fan_in, n)
    threshold : Array of float32, shape (n,)
        Trained in place; :meth:`SpikingLayer.store` brings them back.
    scaled : Array of float32, shape (fan_in, padded(n))
        Weights over thresholds, as the layer's kernel reads them; :meth:`SpikingLayer.refresh` recomputes
        them.
    decay : (Array, Array)
        Tables of the membrane's decay.
    halves : Array of uint16, shape (fan_in, padded(n)), optional
        The bits of ``scaled`` rounded to float16, which the kernel then reads instead.

    Notes
    -----
    The arrays of a layer without neurons are empty.
    """

    backend: Backend
    buffer: QueueBuffer
    weight: Array
    threshold: Array
    scaled: Array
    decay: tuple[Array, Array]
    halves: Array | None = None


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
    def place(self, backend: Backend) -> Placement:
        """Put the layer where the kernels of a backend reach it."""

    def _new_buffer(self, backend: Backend) -> QueueBuffer:
        """Output queue with room for a quarter more than an event of every output, which most batches fit."""
        return QueueBuffer(backend, min(64 + 5 * self.n_out // 4, _FIRST_ROOM))

    @abstractmethod
    def new_state(self, n_samples: int, backend: Backend) -> LayerState:
        """State of ``n_samples`` samples at rest."""

    @abstractmethod
    def membranes(self, potential: Float32) -> Float32:
        """Membrane potentials over threshold, shape (n_samples, n_out), in the order of the units.

        A layer without neurons has none: shape (n_samples, 0).

        Parameters
        ----------
        potential : ndarray of float32
            Of the layer's state, on the host.
        """

    @abstractmethod
    def forward(
        self,
        queue: Queue,
        state: LayerState,
        placed: Placement,
        *,
        events: Array | None = None,
        operations: Array | None = None,
    ) -> Queue:
        """Simulate a batch from its present state.

        Parameters
        ----------
        queue : Queue
            Input events.
        state : LayerState
        placed : Placement
            Of this layer.
        events, operations : Array of int64, shape (n_samples,), optional
            Overwritten with the output events and synaptic operations of each sample (S15).

        Returns
        -------
        Queue
            Output events, valid until the next call with this placement.
        """

    @abstractmethod
    def propagate(self, activity: Array, delta: Array, *, normalise: bool, placed: Placement) -> Array:
        """Error of the layer's inputs, shape (n_samples, n_in), from ``delta`` (S8)."""


class SpikingLayer(Layer):
    """A layer of neurons with trainable weights and thresholds.

    Parameters
    ----------
    weight : ndarray of float32, shape (fan_in, n)
        One column for each neuron of a dense layer, for each map of a convolution.
    threshold : ndarray of float32, shape (n,)
        Positive.
    neuron : NeuronSettings
    in_shape, out_shape : (C, H, W)
    gain : float
        Weight that an input event carries: 1, or 1 / P^2 after average pooling.

    Raises
    ------
    SettingsError
        If a threshold is not positive.
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
        if not (self.threshold > 0).all():
            raise SettingsError(f"thresholds must be positive, got {self.threshold.min()}")
        self.neuron = neuron
        self.gain = gain
        #: Whether it is simulated with float16 weights, from when it is placed next.
        self.half_weights = False

    @property
    @abstractmethod
    def reach(self) -> int:
        """Neurons that one input event reaches at most: it cannot cause more output events."""

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

    @abstractmethod
    def state_columns(self, neuron: int) -> tuple[int, int]:
        """Columns of ``potential`` and of ``last_update`` in the layer's state that belong to a neuron."""

    def place(self, backend: Backend) -> Placement:
        """Put the layer where the kernels of a backend reach it; on the CPU, its own arrays are trained.

        Raises
        ------
        SettingsError
            If its weights are to be float16, and the backend or a weight does not allow it.
        """
        width = layout.padded(self.weight.shape[1])
        if self.half_weights and backend.name != "cpu":
            raise SettingsError("2-byte weights are for the CPU: take --backend cpu, or leave them out")
        decay_high, decay_low = layout.decay_tables(self.neuron.tau_us)
        scaled = layout.aligned((self.fan_in, width), np.float32)
        scaled[:] = 0.0
        placed = Placement(
            backend,
            self._new_buffer(backend),
            backend.put(self.weight),
            backend.put(self.threshold),
            backend.put(scaled),
            (backend.put(decay_high), backend.put(decay_low)),
            backend.put(np.zeros((self.fan_in, width), np.uint16)) if self.half_weights else None,
        )
        self.refresh(placed)
        return placed

    def refresh(self, placed: Placement) -> None:
        """Recompute what is derived from weights and thresholds, which have changed."""
        placed.backend.run(
            optimiser.divide_by_threshold,
            self.fan_in,
            placed.weight,
            placed.threshold,
            np.float32(self.gain),
            placed.scaled,
            work=self.weight.size,
        )
        if placed.halves is not None:
            scaled, halves = placed.backend.fetch(placed.scaled, placed.halves)
            if np.abs(scaled).max(initial=0.0) >= _FLOAT16_END:
                raise SettingsError(
                    "2-byte weights: a weight is 65520 thresholds or more, which float16 cannot hold"
                )
            halves[:] = scaled.astype(np.float16).view(np.uint16)

    def store(self, placed: Placement) -> None:
        """Bring weights and thresholds back from where they were trained."""
        for own, array in zip(
            (self.weight, self.threshold),
            placed.backend.fetch(placed.weight, placed.threshold),
            strict=True,
        ):
            if array is not own:
                own[:] = array

    def deltas(
        self,
        activity: Array,
        error: Array,
        *,
        normalise: bool,
        is_output: bool,
        spike_cost: float,
        placed: Placement,
    ) -> tuple[Array, Array]:
        """Errors of the input sums and thresholds from the error of the activities (S7, S8).

        Parameters
        ----------
        activity, error : Array of float32, shape (n_samples, n_out)
        spike_cost : float
            Derivative of the penalty of synaptic operations by an activity of this layer (S10).

        Returns
        -------
        delta, threshold_delta : Array of float32, shape (n_samples, n_out)
        """
        backend = placed.backend
        delta = backend.empty(error.shape, np.float32)
        threshold_delta = backend.empty(error.shape, np.float32)
        coupling = np.float32(self.neuron.sigma * self.neuron.kappa)
        backend.run(
            backward.layer_delta,
            len(error),
            activity,
            placed.threshold,
            coupling,
            int(normalise),
            int(is_output),
            np.float32(spike_cost),
            error,
            delta,
            threshold_delta,
            work=4 * math.prod(error.shape),  # two divisions an element
        )
        return delta, threshold_delta

    @abstractmethod
    def gradients(
        self, activity: Array, delta: Array, threshold_delta: Array, *, normalise: bool, placed: Placement
    ) -> tuple[Array, Array]:
        """Mean gradients over the batch: weights (fan_in, n) and thresholds (n,) (S8).

        Parameters
        ----------
        activity : Array of float32, shape (n_samples, n_in)
            Activity of the layer's inputs.
        delta, threshold_delta : Array of float32, shape (n_samples, n_out)
        """

    def _scales(self, activity: Array, *, normalise: bool, backend: Backend) -> tuple[Array, Array]:
        """Factors of each sample's weight and threshold gradients, shape (n_samples,) (S8)."""
        n = len(activity)
        weight_scale = backend.empty((n,), np.float32)
        threshold_scale = backend.empty((n,), np.float32)
        backend.run(
            gradient.gradient_scales,
            n,
            activity,
            self.n_out,
            int(normalise),
            weight_scale,
            threshold_scale,
            work=math.prod(activity.shape),
        )
        return weight_scale, threshold_scale

    def _simulate(
        self,
        kernel: Callable[..., object],
        geometry: tuple[int, ...],
        queue: Queue,
        state: LayerState,
        placed: Placement,
        events: Array | None,
        operations: Array | None,
    ) -> Queue:
        backend = placed.backend
        if operations is None:
            operations = backend.empty((len(queue),), np.int64)
        # A queue that turns out too small would have to start once more from the state as it was. Room for
        # all events that can occur is never touched where they do not: better than a copy that is larger.
        before: list[HostArray] | None = None
        least = 0
        if not state.at_rest:
            [count] = backend.fetch(queue.count)
            most = self.reach * int(count.max(initial=0))
            if len(queue) * most * EVENT_BYTES <= state.nbytes:
                least = most
            else:
                before = [array.copy() for array in backend.fetch(*state.arrays())]
        again = False

        def produce(times: Array, units: Array, slot: Array, count: Array) -> None:
            nonlocal again
            if again and before is not None:
                arrays = (backend.put(array.copy()) for array in before)
                state.potential, state.last_update, state.last_spike = arrays
            elif again:
                if least:
                    raise AssertionError(f"more than {least} output events of a sample")
                state.rest(backend)
            again = True
            state.at_rest = False
            backend.run(
                kernel,
                len(queue),
                queue.times,
                queue.units,
                queue.start,
                queue.count,
                placed.scaled if placed.halves is None else placed.halves,
                *placed.decay,
                np.float32(-self.neuron.clamp),
                np.float32(self.neuron.kappa),
                self.neuron.refractory_us,
                *geometry,
                *state.arrays(),
                times,
                units,
                slot,
                count,
                operations,
            )

        return placed.buffer.fill(len(queue), produce, events, least)
