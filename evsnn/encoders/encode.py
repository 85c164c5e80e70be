"""Encoding of images into events."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import augment, encode

from evsnn.encoders.settings import AugmentSettings, EncoderSettings
from evsnn.events.queue import Queue, QueueBuffer
from evsnn.parallel import Workers
from evsnn.seeds import seed_words

UInt8 = npt.NDArray[np.uint8]
_KINDS = {
    "stratified": layout.ENCODE_STRATIFIED,
    "poisson": layout.ENCODE_POISSON,
    "latency": layout.ENCODE_LATENCY,
}


@lru_cache(maxsize=8)
def poisson_table(rate: float) -> npt.NDArray[np.uint32]:
    """Cumulative Poisson probabilities of 0, 1, 2, ... events for intensities 0 to 255, times 2^32.

    Returns
    -------
    ndarray of uint32, shape (256, n)
        n is large enough that what lies beyond is below 2^-32.
    """
    size = int(rate + 10.0 * math.sqrt(rate) + 24.0)
    mean = rate * np.arange(256)[:, None] / 255.0
    log_factorial = np.array([math.lgamma(n + 1.0) for n in range(size)])
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = np.arange(size) * np.log(mean) - mean - log_factorial
    log_p[0] = -np.inf
    log_p[0, 0] = 0.0
    cumulative = np.minimum(np.cumsum(np.exp(log_p), axis=1) * 2.0**32, 2.0**32 - 1.0)
    return np.ascontiguousarray(cumulative.astype(np.uint32))


class Encoder:
    """Draws the events of images; the same seed, epoch and sample give the same events.

    Parameters
    ----------
    settings : EncoderSettings
    seed : int
        0 to 2^64 - 1.
    workers : Workers
    augmentation : AugmentSettings, optional
        Distortion of each image before its events are drawn.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        seed: int,
        workers: Workers,
        augmentation: AugmentSettings | None = None,
    ) -> None:
        self.settings = settings
        self._key = seed_words(seed)
        self._workers = workers
        self._augmentation = augmentation if augmentation is not None and augmentation.enabled else None
        self._buffer = QueueBuffer()

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
        settings = self.settings
        is_poisson = settings.kind == "poisson"
        table = poisson_table(settings.rate) if is_poisson else np.empty((256, 0), np.uint32)

        def produce(
            times: npt.NDArray[np.uint32],
            units: npt.NDArray[np.uint32],
            slot: npt.NDArray[np.int64],
            count: npt.NDArray[np.int64],
        ) -> None:
            self._workers.run(
                encode.encode,
                len(samples),
                images,
                rows,
                samples,
                _KINDS[settings.kind],
                settings.rate,
                settings.duration_us,
                settings.resolution_us,
                table,
                *self._key,
                epoch,
                times,
                units,
                slot,
                count,
            )

        return self._buffer.fill(len(samples), produce)

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
