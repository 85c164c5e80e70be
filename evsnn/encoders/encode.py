"""Encoding of images into events."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import augment, encode, saccade

from evsnn.backends.base import Array, Backend
from evsnn.encoders.poisson import poisson_table
from evsnn.encoders.saccade import saccade_tables
from evsnn.encoders.settings import MARGIN, AugmentSettings, EncoderSettings, SaccadeSettings
from evsnn.events.queue import Queue, QueueBuffer
from evsnn.seeds import seed_words

Int64 = npt.NDArray[np.int64]
_KINDS = {
    "stratified": layout.ENCODE_STRATIFIED,
    "poisson": layout.ENCODE_POISSON,
    "latency": layout.ENCODE_LATENCY,
}


class Encoder:
    """Draws the events of images; the same seed, epoch and sample give the same events.

    Parameters
    ----------
    settings : EncoderSettings or SaccadeSettings
    seed : int
        0 to 2^64 - 1.
    backend : Backend
    augmentation : AugmentSettings, optional
        Distortion of each image before its events are drawn.
    """

    def __init__(
        self,
        settings: EncoderSettings | SaccadeSettings,
        seed: int,
        backend: Backend,
        augmentation: AugmentSettings | None = None,
    ) -> None:
        self.settings = settings
        self._key = seed_words(seed)
        self._backend = backend
        self._augmentation = augmentation if augmentation is not None and augmentation.enabled else None
        self._buffer = QueueBuffer(backend)
        self._kernel = self._arguments()

    def draw(self, images: Array, samples: Int64, epoch: int = 0, rows: Int64 | None = None) -> Queue:
        """Draw the events of ``images[rows]``.

        Parameters
        ----------
        images : Array of uint8, shape (n, H, W)
        samples : ndarray of int64, shape (n_samples,)
            Counters of the random numbers.
        epoch : int
            Another counter: every epoch has events of its own.
        rows : ndarray of int64, shape (n_samples,), optional
            Where the images lie; default: ``samples``.

        Returns
        -------
        Queue
            Valid until the next call.
        """
        put = self._backend.put
        counters = put(samples)
        places = counters if rows is None else put(rows)
        if self._augmentation is not None:
            images = self._distort(images, places, counters, epoch)
            places = put(np.arange(len(samples)))
        produce = partial(self._produce, images, places, counters, epoch)
        return self._buffer.fill(len(samples), produce)

    def _arguments(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """Kernel of this encoder, and its parameters."""
        settings, put = self.settings, self._backend.put
        if isinstance(settings, EncoderSettings):
            table = (
                poisson_table(settings.rate) if settings.kind == "poisson" else np.empty((256, 0), np.uint32)
            )
            return encode.encode, (
                _KINDS[settings.kind],
                settings.rate,
                settings.duration_us,
                settings.resolution_us,
                put(table),
            )
        tables = saccade_tables(settings)
        return saccade.saccade, (
            put(tables.path),
            settings.step_us,
            round(settings.lag_ms * 1000.0),
            np.float32(settings.wander),
            MARGIN,
            tables.reach,
            put(tables.taps),
            put(tables.log_luminance),
            tables.share,
            np.float32(settings.threshold_on),
            np.float32(settings.threshold_off),
            np.float32(settings.mismatch),
            np.float32(settings.jitter),
            np.uint64(settings.camera),
            round(settings.refractory_ms * 1000.0),
            put(tables.noise),
            np.uint64(tables.on_share),
            settings.resolution_us,
        )

    def _produce(
        self,
        images: Array,
        rows: Array,
        samples: Array,
        epoch: int,
        times: Array,
        units: Array,
        slot: Array,
        count: Array,
    ) -> None:
        kernel, parameters = self._kernel
        self._backend.run(
            kernel,
            len(samples),
            images,
            rows,
            samples,
            *parameters,
            *self._key,
            epoch,
            times,
            units,
            slot,
            count,
        )

    def _distort(self, images: Array, rows: Array, samples: Array, epoch: int) -> Array:
        assert self._augmentation is not None
        settings = self._augmentation
        amounts = (settings.shift, settings.shear, settings.scale, settings.elastic)
        distorted = self._backend.empty((len(samples), *images.shape[1:]), np.uint8)
        self._backend.run(
            augment.distort,
            len(samples),
            images,
            rows,
            samples,
            *(np.float32(amount) for amount in amounts),
            *self._key,
            epoch,
            distorted,
        )
        return distorted
