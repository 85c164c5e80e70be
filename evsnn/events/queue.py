"""Queues of events of a batch of samples: what a layer reads and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evsnn.backends.base import Array, Backend

UInt32 = npt.NDArray[np.uint32]
Int64 = npt.NDArray[np.int64]


#: Memory of an event in a queue: its time and its unit.
EVENT_BYTES = 8


@dataclass(frozen=True, eq=False)
class Queue:
    """Time-sorted events of a batch of samples, in the memory of a backend.

    Parameters
    ----------
    times, units : Array of uint32, shape (capacity,)
        Microseconds and unit index.
    start, count : Array of int64, shape (n_samples,)
        Sample s owns the events ``start[s] : start[s] + count[s]``.
    """

    times: Array
    units: Array
    start: Array
    count: Array

    def __len__(self) -> int:
        return len(self.count)

    def fetch(self, backend: Backend) -> HostQueue:
        """Return the queue with its arrays on the host."""
        return HostQueue(*backend.fetch(self.times, self.units, self.start, self.count))


@dataclass(frozen=True, eq=False)
class HostQueue(Queue):
    """A queue whose arrays are NumPy's."""

    times: UInt32
    units: UInt32
    start: Int64
    count: Int64

    def sample(self, index: int) -> tuple[UInt32, UInt32]:
        """Times and units of one sample, copied."""
        low = int(self.start[index])
        high = low + int(self.count[index])
        return self.times[low:high].copy(), self.units[low:high].copy()

    def flat(self) -> tuple[Int64, Int64, Int64]:
        """Sample, time and unit of every event, sample after sample, each of shape (n_events,)."""
        sample = np.repeat(np.arange(len(self)), self.count)
        first = np.cumsum(self.count) - self.count
        place = np.arange(len(sample)) + np.repeat(self.start - first, self.count)
        return sample, self.times[place].astype(np.int64), self.units[place].astype(np.int64)

    def unit_counts(self, n: int) -> Int64:
        """Events of each of ``n`` units, shape (n_samples, n)."""
        sample, _, units = self.flat()
        counts = np.bincount(sample * n + units, minlength=len(self) * n)
        return counts.reshape(len(self), n).astype(np.int64)


class QueueBuffer:
    """Memory for an output queue that is reused from batch to batch and grows when it is too small.

    A kernel that finds its slot full goes on counting, so one repetition always suffices.

    Parameters
    ----------
    backend : Backend
        Whose kernels fill the queue.
    expected : int, optional
        Events of a sample that there is room for in the first batch.
    """

    def __init__(self, backend: Backend, expected: int = 64) -> None:
        self._backend = backend
        self._expected = expected
        self._size = np.empty(0, np.int64)
        self._least = 0  # room of the sample that has least
        self._too_small = False
        self._slots: tuple[Array, Array] | None = None
        self._times: Array = backend.empty((0,), np.uint32)
        self._units: Array = backend.empty((0,), np.uint32)

    def fill(
        self,
        n_samples: int,
        produce: Callable[[Array, Array, Array, Array], None],
        count: Array | None = None,
        least: int = 0,
    ) -> Queue:
        """Call ``produce(times, units, slot, count)`` until every event has found its place.

        Parameters
        ----------
        n_samples : int
            Samples of the batch.
        produce : callable
            Fills the slots ``slot[s] : slot[s + 1]`` and reports in ``count`` how many events there were.
            It is called again, from the start, when a slot was too small; where the backend does not see that
            at once, the queue ends at its slots and the whole batch is repeated.
        count : Array of int64, shape (n_samples,), optional
            Where ``produce`` reports.
        least : int
            Room that every sample has at least. Where no more events can occur, ``produce`` is called once.

        Returns
        -------
        Queue
            Valid until the next call.
        """
        backend = self._backend
        if count is None:
            count = backend.empty((n_samples,), np.int64)
        while True:
            start, slot = self._room(n_samples, least)
            produce(self._times, self._units, slot, count)
            admitted = backend.admit(self, slot, count)
            if admitted is not None:
                return Queue(self._times, self._units, start, admitted)

    def settle(self, count: Int64) -> bool:
        """Say whether all events found room; from that, expect those of the next batch.

        Parameters
        ----------
        count : ndarray of int64, shape (n_samples,)
            Events that occurred in each sample.
        """
        counts = count.tolist()  # for the few samples of a live stream, faster than NumPy
        if counts:
            # One sample with very many events must not make room for as many in all the others.
            expected = int(min(1.25 * max(counts), 4.0 * sum(counts) / len(counts))) + 64
            expected = max(expected, min(self._expected, 4 * expected))
            if expected != self._expected:
                self._expected = expected
                self._slots = None
        self._too_small = max(counts, default=0) > self._least and bool((count > self._size).any())
        if self._too_small:
            self._size = np.maximum(self._size, count)
        return not self._too_small

    def _room(self, n_samples: int, least: int) -> tuple[Array, Array]:
        """Start of every sample's slot, and the slots."""
        grown = self._too_small and len(self._size) == n_samples
        self._too_small = False
        if not grown:
            if self._slots is not None and len(self._size) == n_samples and self._least >= least:
                return self._slots
            self._size = np.full(n_samples, self._expected, np.int64)
        self._size = np.maximum(self._size, least)
        self._least = int(self._size.min()) if n_samples else 0
        slot = np.zeros(n_samples + 1, np.int64)
        np.cumsum(self._size, out=slot[1:])
        if len(self._times) < slot[-1]:
            self._times = self._backend.empty((int(slot[-1]),), np.uint32)
            self._units = self._backend.empty((int(slot[-1]),), np.uint32)
        slots = self._backend.put(slot[:-1]), self._backend.put(slot)
        self._slots = None if grown else slots
        return slots
