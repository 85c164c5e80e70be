"""Samples of a data set where the kernels of a backend reach them: all of them, or chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic

import numpy as np
import numpy.typing as npt

from evsnn.backends.base import Array, Backend, Feed, Part, T

Int64 = npt.NDArray[np.int64]

#: A set that does not fit is brought in chunks of this share of the room: one is read, one arrives.
_CHUNK_SHARE = 0.4


class Stage(Generic[T]):
    """Keeps the samples of a set, or those of the next batches, in the memory of a backend.

    Parameters
    ----------
    backend : Backend
    sizes : ndarray of int64, shape (n_samples,)
        Bytes of each sample.
    gather : callable
        Given sample indices, or None for the whole set, returns what the host must know about those samples
        and their arrays, sample after sample. May be called by another thread.
    """

    def __init__(self, backend: Backend, sizes: Int64, gather: Callable[[Int64 | None], Part[T]]) -> None:
        self._backend = backend
        self._sizes = sizes
        self._gather = gather
        self._whole: tuple[T, tuple[Array, ...]] | None = None
        room = backend.room
        if sizes.sum() <= room:
            about, arrays = gather(None)
            self._whole = about, tuple(backend.put(array) for array in arrays)
        else:
            self._chunk_bytes = _CHUNK_SHARE * room
            self._feed: Feed[tuple[Int64, T]] | None = None
            self._chunk: tuple[T, tuple[Array, ...]] | None = None
            self._row = np.full(len(sizes), -1, np.int64)

    def plan(self, batches: Sequence[Int64]) -> None:
        """Say which samples will be asked for, batch after batch."""
        if self._whole is None:
            self.close()
            self._feed = self._backend.feed(self._chunks(list(batches)))

    def locate(self, samples: Int64) -> tuple[T, tuple[Array, ...], Int64]:
        """Find the samples of one batch.

        Returns
        -------
        about
            What the host knows about the set, or the chunk, that holds them.
        arrays : tuple of Array
            Valid until another batch is located.
        rows : ndarray of int64, shape (n_samples,)
            Index of each sample among those of the arrays.
        """
        if self._whole is not None:
            return (*self._whole, samples)
        while self._chunk is None or (self._row[samples] < 0).any():
            self._advance(samples)
        assert self._feed is not None
        self._feed.poll()
        return (*self._chunk, self._row[samples])

    def close(self) -> None:
        """Bring no more chunks."""
        if self._whole is None and self._feed is not None:
            self._feed.close()
            self._feed, self._chunk = None, None

    def _advance(self, samples: Int64) -> None:
        following = None if self._feed is None else next(self._feed, None)
        if following is None:  # nobody planned for these
            self.plan([samples])
            return
        (chosen, about), arrays = following
        self._row[:] = -1
        self._row[chosen] = np.arange(len(chosen))
        self._chunk = about, arrays

    def _chunks(self, batches: list[Int64]) -> Iterator[Part[tuple[Int64, T]]]:
        """As many batches at a time as a chunk has room for."""
        chunk: list[Int64] = []
        size = 0.0
        for batch in batches:
            needed = float(self._sizes[batch].sum())
            if chunk and size + needed > self._chunk_bytes:
                yield self._part(chunk)
                chunk, size = [], 0.0
            chunk.append(batch)
            size += needed
        if chunk:
            yield self._part(chunk)

    def _part(self, chunk: list[Int64]) -> Part[tuple[Int64, T]]:
        chosen = np.concatenate(chunk)
        about, arrays = self._gather(chosen)
        return (chosen, about), arrays
