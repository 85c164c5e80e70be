"""Where a training loop takes its batches from: stored events, distorted or not, or fresh ones of images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from evsnn.backends.base import Backend, Part
from evsnn.backends.stage import Stage
from evsnn.encoders.encode import Encoder
from evsnn.encoders.settings import AugmentSettings, EncoderSettings, SaccadeSettings
from evsnn.errors import SettingsError
from evsnn.events.augment import EventAugmenter, EventAugmentSettings
from evsnn.events.core import EventSet
from evsnn.events.queue import Queue
from evsnn.events.stage import event_stage

Int64 = npt.NDArray[np.int64]


class Source(Protocol):
    """Labelled samples that can be asked for in any order."""

    labels: npt.NDArray[np.uint16]
    duration_us: int

    def plan(self, batches: Sequence[Int64]) -> None:
        """Say which batches will be asked for; others may be, but may have to be waited for."""
        ...

    def close(self) -> None:
        """Bring no more samples."""
        ...

    def batch(self, samples: Int64, epoch: int) -> Queue:
        """Events of some samples in one epoch; valid until the call after the next."""
        ...


class _Staged:
    """A source that keeps its samples on a stage."""

    def __init__(self, stage: Stage[Any]) -> None:
        self._stage = stage

    def plan(self, batches: Sequence[Int64]) -> None:
        """Say which batches will be asked for."""
        self._stage.plan(batches)

    def close(self) -> None:
        """Bring no more samples."""
        self._stage.close()


class StoredEvents(_Staged):
    """Batches of the events of a set, the same in every epoch; nothing is copied.

    Parameters
    ----------
    data : EventSet
    backend : Backend
    """

    def __init__(self, data: EventSet, backend: Backend) -> None:
        self.labels = data.labels
        self.duration_us = data.duration_us
        self._backend = backend
        super().__init__(event_stage(data, backend))
        self._counts = np.diff(data.offsets)

    def batch(self, samples: Int64, epoch: int) -> Queue:
        """Events of some samples."""
        offsets, (times, units), rows = self._stage.locate(samples)
        put = self._backend.put
        return Queue(times, units, put(offsets[rows]), put(self._counts[samples]))


class AugmentedEvents(_Staged):
    """Batches of the events of a set, distorted anew in every epoch.

    Parameters
    ----------
    data : EventSet
    augmentation : EventAugmentSettings
    seed : int
    backend : Backend

    Raises
    ------
    SettingsError
        If the set does not have the channels that the distortion needs.
    """

    def __init__(
        self, data: EventSet, augmentation: EventAugmentSettings, seed: int, backend: Backend
    ) -> None:
        self.labels = data.labels
        self.duration_us = data.duration_us
        # Each augmenter has one queue: two of them let the next batch be drawn while one is learned.
        super().__init__(event_stage(data, backend))
        self._augmenters = cycle(
            [EventAugmenter(data, augmentation, seed, backend, self._stage) for _ in range(2)]
        )

    def batch(self, samples: Int64, epoch: int) -> Queue:
        """Distort some samples for one epoch."""
        return next(self._augmenters).draw(samples, epoch)


class FreshEvents(_Staged):
    """Batches of events drawn from the images of a set, anew in every epoch.

    Parameters
    ----------
    data : EventSet
        With images.
    encoder : EncoderSettings or SaccadeSettings
    augmentation : AugmentSettings or None
        Distortion of each image before its events are drawn.
    seed : int
    backend : Backend

    Raises
    ------
    SettingsError
        If the set has no images, or the encoder would make events of another shape of them.
    """

    def __init__(
        self,
        data: EventSet,
        encoder: EncoderSettings | SaccadeSettings,
        augmentation: AugmentSettings | None,
        seed: int,
        backend: Backend,
    ) -> None:
        if data.images is None:
            raise SettingsError("fresh spikes need images, and this data set has none; train with fresh off")
        height, width = data.images.shape[1:]
        if encoder.event_shape(height, width) != data.shape:
            raise SettingsError(
                f"the encoder {encoder.kind!r} makes events of shape {encoder.event_shape(height, width)} of "
                f"these images, the data set has {data.shape}; train with fresh off"
            )
        self.labels = data.labels
        self.duration_us = encoder.duration_us
        images = data.images

        def gather(samples: Int64 | None) -> Part[None]:
            return None, (images if samples is None else images[samples],)

        sizes = np.full(len(images), height * width, np.int64)
        super().__init__(Stage(backend, sizes, gather))
        # Each encoder has one queue: two of them let the next batch be drawn while one is learned.
        self._encoders = cycle([Encoder(encoder, seed, backend, augmentation) for _ in range(2)])

    def batch(self, samples: Int64, epoch: int) -> Queue:
        """Draw the events of some samples for one epoch."""
        _, (images,), rows = self._stage.locate(samples)
        return next(self._encoders).draw(images, samples, epoch, rows)


class Lookahead:
    """The batches of an epoch in order, each drawn while the one before is being learned.

    Parameters
    ----------
    source : Source
    batches : sequence of ndarray of int64
        Samples of each batch.
    epoch : int
    threaded : bool
        Whether to draw ahead; otherwise each batch is drawn when it is taken.
    """

    def __init__(self, source: Source, batches: Sequence[Int64], epoch: int, threaded: bool) -> None:
        self._source = source
        source.plan(batches)
        self._batches = iter(batches)
        self._epoch = epoch
        self._executor = ThreadPoolExecutor(1) if threaded else None
        self._pending: Future[Queue] | None = None

    def take(self) -> Queue:
        """Events of the next batch; valid until the call after the next."""
        if self._pending is None:
            return self._source.batch(next(self._batches), self._epoch)
        queue = self._pending.result()
        self._pending = None
        return queue

    def begin_next(self) -> None:
        """Begin to draw the batch that will be taken next, if there is one."""
        if self._executor is not None and (samples := next(self._batches, None)) is not None:
            self._pending = self._executor.submit(self._source.batch, samples, self._epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._executor is not None:
            self._executor.shutdown()
        self._source.close()
