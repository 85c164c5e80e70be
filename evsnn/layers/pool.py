"""Average pooling as a relay of events."""

from __future__ import annotations

import numpy as np
from evsnn_kernels.cpu import pool

from evsnn.errors import SettingsError
from evsnn.events.queue import Queue, QueueBuffer
from evsnn.layers.base import Float32, Int64, Layer, LayerState, Shape, UInt32
from evsnn.parallel import Workers


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

    def new_state(self, n_samples: int) -> LayerState:
        """A relay remembers nothing."""
        empty = np.empty((n_samples, 0), np.int64)
        return LayerState(np.empty((n_samples, 0), np.float32), empty, empty)

    def membranes(self, state: LayerState) -> Float32:
        """A relay has no membranes: shape (n_samples, 0)."""
        return state.potential

    def forward(
        self, queue: Queue, state: LayerState, buffer: QueueBuffer, workers: Workers
    ) -> tuple[Queue, Int64]:
        """Relay a batch; see :meth:`Layer.forward`. A relay costs no synaptic operation."""

        def produce(times: UInt32, units: UInt32, slot: Int64, count: Int64) -> None:
            workers.run(
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
            )

        return buffer.fill(len(queue), produce), np.zeros(len(queue), np.int64)

    def propagate(self, activity: Float32, delta: Float32, *, normalise: bool, workers: Workers) -> Float32:
        """Error of the active inputs from the error ``delta`` of the relayed activities."""
        error = np.empty_like(activity)
        workers.run(
            pool.propagate,
            len(error),
            activity,
            *self.in_shape[1:],
            self.size,
            np.float32(self.event_weight),
            delta,
            error,
            work=error.size,
        )
        return error
