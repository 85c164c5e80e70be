"""Queues of events of a batch of samples: what a layer reads and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt32 = npt.NDArray[np.uint32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Queue:
    """Time-sorted events of a batch of samples.

    Parameters
    ----------
    times, units : ndarray of uint32, shape (capacity,)
        Microseconds and unit index.
    start, count : ndarray of int64, shape (n_samples,)
        Sample s owns the events ``start[s] : start[s] + count[s]``.
    """

    times: UInt32
    units: UInt32
    start: Int64
    count: Int64

    def __len__(self) -> int:
        return len(self.start)

    def sample(self, index: int) -> tuple[UInt32, UInt32]:
        """Times and units of one sample, copied."""
        low = int(self.start[index])
        high = low + int(self.count[index])
        return self.times[low:high].copy(), self.units[low:high].copy()


class QueueBuffer:
    """Memory for an output queue that is reused from batch to batch and grows when it is too small.

    A kernel that finds its slot full goes on counting, so one repetition always suffices.
    """

    def __init__(self) -> None:
        self._expected = 64
        self._times: UInt32 = np.empty(0, np.uint32)
        self._units: UInt32 = np.empty(0, np.uint32)

    def fill(self, n_samples: int, produce: Callable[[UInt32, UInt32, Int64, Int64], None]) -> Queue:
        """Call ``produce(times, units, slot, count)`` until every event has found its place.

        Parameters
        ----------
        n_samples : int
            Samples of the batch.
        produce : callable
            Fills the slots ``slot[s] : slot[s + 1]`` and reports in ``count`` how many events there were.
            It is called again, from the start, when a slot was too small.

        Returns
        -------
        Queue
            Valid until the next call.
        """
        size = np.full(n_samples, self._expected, np.int64)
        count = np.zeros(n_samples, np.int64)
        while True:
            slot = np.zeros(n_samples + 1, np.int64)
            np.cumsum(size, out=slot[1:])
            if len(self._times) < slot[-1]:
                self._times = np.empty(int(slot[-1]), np.uint32)
                self._units = np.empty(int(slot[-1]), np.uint32)
            produce(self._times, self._units, slot, count)
            if (count <= size).all():
                break
            size = np.maximum(size, count)
        if n_samples:
            # One sample with very many events must not make room for as many in all the others.
            expected = min(1.25 * float(count.max()), 4.0 * float(count.mean())) + 64
            self._expected = max(int(expected), min(self._expected, 4 * int(expected)))
        return Queue(self._times, self._units, slot[:-1], count)
