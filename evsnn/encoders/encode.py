"""Encoding of images into events."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import augment, encode, saccade

from evsnn.encoders.poisson import poisson_table
from evsnn.encoders.saccade import saccade_tables
from evsnn.encoders.settings import MARGIN, AugmentSettings, EncoderSettings, SaccadeSettings
from evsnn.events.queue import Queue, QueueBuffer
from evsnn.parallel import Workers
from evsnn.seeds import seed_words

UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
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
    workers : Workers
    augmentation : AugmentSettings, optional
        Distortion of each image before its events are drawn.
    """

    def __init__(
        self,
        settings: EncoderSettings | SaccadeSettings,
        seed: int,
        workers: Workers,
        augmentation: AugmentSettings | None = None,
    ) -> None:
        self.settings = settings
        self._key = seed_words(seed)
        self._workers = workers
        self._augmentation = augmentation if augmentation is not None and augmentation.enabled else None
        self._buffer = QueueBuffer()
        self._kernel = self._arguments()

    def draw(self, images: UInt8, samples: npt.NDArray[np.int64], epoch: int = 0) -> Queue:
        """Draw the events of ``images[samples]``.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, H, W)
        samples : ndarray of int64, shape (n_samples,)
            Rows of ``images``, which are also the counters of the random numbers.
        epoch : int
            Another counter: every epoch has events of its own.

        Returns
        -------
        Queue
            Valid until the next call.
        """
        rows = samples
        if self._augmentation is not None:
            images = self._distort(images, samples, epoch)
            rows = np.arange(len(samples))
        produce = partial(self._produce, images, rows, samples, epoch)
        return self._buffer.fill(len(samples), produce)

    def _arguments(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """Kernel of this encoder, and its parameters."""
        settings = self.settings
        if isinstance(settings, EncoderSettings):
            table = (
                poisson_table(settings.rate) if settings.kind == "poisson" else np.empty((256, 0), np.uint32)
            )
            return encode.encode, (
                _KINDS[settings.kind],
                settings.rate,
                settings.duration_us,
                settings.resolution_us,
                table,
            )
        tables = saccade_tables(settings)
        return saccade.saccade, (
            tables.path,
            settings.step_us,
            round(settings.lag_ms * 1000.0),
            np.float32(settings.wander),
            MARGIN,
            tables.reach,
            tables.taps,
            tables.log_luminance,
            tables.share,
            np.float32(settings.threshold_on),
            np.float32(settings.threshold_off),
            np.float32(settings.mismatch),
            np.float32(settings.jitter),
            np.uint64(settings.camera),
            round(settings.refractory_ms * 1000.0),
            tables.noise,
            np.uint64(tables.on_share),
            settings.resolution_us,
        )

    def _produce(
        self,
        images: UInt8,
        rows: Int64,
        samples: Int64,
        epoch: int,
        times: UInt32,
        units: UInt32,
        slot: Int64,
        count: Int64,
    ) -> None:
        kernel, parameters = self._kernel
        self._workers.run(
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

    def _distort(self, images: UInt8, samples: npt.NDArray[np.int64], epoch: int) -> UInt8:
        if self._augmentation is None:
            return images[samples]
        distorted = np.empty((len(samples), *images.shape[1:]), np.uint8)
        settings = self._augmentation
        amounts = (settings.shift, settings.shear, settings.scale, settings.elastic)
        self._workers.run(
            augment.distort,
            len(samples),
            images,
            samples,
            *(np.float32(amount) for amount in amounts),
            *self._key,
            epoch,
            distorted,
        )
        return distorted
