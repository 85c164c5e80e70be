"""Average pooling as a relay of events."""

from __future__ import annotations

import numpy as np
from evsnn_kernels.cpu import pool

from evsnn.backends.base import Array, Backend
from evsnn.errors import SettingsError
from evsnn.events.queue import Queue
from evsnn.layers.base import Float32, Int64, Layer, LayerState, Placement, Shape


class AveragePool(Layer):
    """Relays an event at (c, y, x) to (c, y // P, x // P) with weight 1 / P^2: no neurons (S19).

    Parameters
    ----------
    in_shape : (C, H, W)
    size : int
        P; rows and columns that fill no whole window have no target.

    Raises
    ------
    SettingsError
        If no window fits the input.
    """

    def __init__(self, in_shape: Shape, size: int) -> None:
        channels, height, width = in_shape
        if min(height, width) < size:
            raise SettingsError(f"pooling over {size}x{size} does not fit an input of {height}x{width}")
        super().__init__(in_shape, (channels, height // size, width // size))
        self.size = size

    @property
    def event_weight(self) -> float:
        """Weight that an output event carries to the next layer."""
        return 1.0 / self.size**2

    @property
    def dense_macs(self) -> int:
        """Pooling is folded into the next layer's weights: no multiply-accumulates."""
        return 0

    @property
    def synapses(self) -> Int64:
        """A relay costs no synaptic operation."""
        return np.zeros(self.n_in, np.int64)

    def place(self, backend: Backend) -> Placement:
        """Put the layer where the kernels of a backend reach it: it has no arrays."""
        none = backend.empty((0,), np.float32)
        return Placement(backend, self._new_buffer(backend), none, none, none, (none, none))

    def new_state(self, n_samples: int, backend: Backend) -> LayerState:
        """A relay remembers nothing."""
        return LayerState(
            backend.empty((n_samples, 0), np.float32),
            backend.empty((n_samples, 0), np.int64),
            backend.empty((n_samples, 0), np.int64),
        )

    def membranes(self, potential: Float32) -> Float32:
        """A relay has no membranes: shape (n_samples, 0)."""
        return potential

    def forward(
        self,
        queue: Queue,
        state: LayerState,
        placed: Placement,
        *,
        events: Array | None = None,
        operations: Array | None = None,
    ) -> Queue:
        """Relay a batch; see :meth:`Layer.forward`. A relay costs no synaptic operation."""
        backend = placed.backend
        if operations is None:
            operations = backend.empty((len(queue),), np.int64)

        def produce(times: Array, units: Array, slot: Array, count: Array) -> None:
            backend.run(
                pool.forward,
                len(queue),
                queue.times,
                queue.units,
                queue.start,
                queue.count,
                *self.in_shape[1:],
                self.size,
                times,
                units,
                slot,
                count,
                operations,
            )

        return placed.buffer.fill(len(queue), produce, events)

    def propagate(self, activity: Array, delta: Array, *, normalise: bool, placed: Placement) -> Array:
        """Error of the active inputs from the error ``delta`` of the relayed activities."""
        error = placed.backend.empty(activity.shape, np.float32)
        placed.backend.run(
            pool.propagate,
            len(error),
            activity,
            *self.in_shape[1:],
            self.size,
            np.float32(self.event_weight),
            delta,
            error,
            work=len(error) * self.n_in,
        )
        return error
