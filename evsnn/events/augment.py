"""Random distortion of recordings, drawn anew every epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from evsnn_kernels import portable

from evsnn.backends.base import Array, Backend
from evsnn.backends.stage import Stage
from evsnn.errors import SettingsError
from evsnn.events.core import EventSet
from evsnn.events.queue import Queue
from evsnn.events.stage import event_stage
from evsnn.seeds import seed_words

Int64 = npt.NDArray[np.int64]

#: Largest value of each strength.
_HIGHEST = {
    "shift": 1000.0,
    "rotation": 90.0,
    "shear": 1.0,
    "scale": 0.9,
    "elastic": 1000.0,
    "time_scale": 0.9,
    "jitter_us": (1 << 31) - 1,
    "flip": 1.0,
    "drop": 1.0,
    "window_ms": 4e6,
}


@dataclass(frozen=True)
class EventAugmentSettings:
    """Random distortion of each recording, anew every epoch (docs/model.md, S21); 0 switches a part off.

    Parameters
    ----------
    shift : float
        Largest shift in pixels, each axis.
    rotation : float
        Largest angle in degrees, up to 90.
    shear : float
        Largest off-diagonal entry of the linear map, before the rotation.
    scale : float
        Largest relative change of size, each axis.
    elastic : float
        Largest displacement in pixels of the nodes of a 5 x 5 elastic grid.
    time_scale : float
        Largest relative change of speed.
    jitter_us : int
        Largest change of an event's time, each event on its own, in microseconds.
    flip : float
        Probability that the two polarities of a recording are exchanged; needs two channels.
    drop : float
        Largest share of events that are dropped; each recording draws its share.
    window_ms : float
        Length of the part of the presentation that is learned, from a random time on; 0 for all of it.
    always : bool
        Also distort the stored events of a data set with images, where training does not draw fresh ones.

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    shift: float = 2.0
    rotation: float = 12.0
    shear: float = 0.1
    scale: float = 0.15
    elastic: float = 2.5
    time_scale: float = 0.0
    jitter_us: int = 0
    flip: float = 0.0
    drop: float = 0.0
    window_ms: float = 0.0
    always: bool = False

    def __post_init__(self) -> None:
        for name, high in _HIGHEST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SettingsError(f"{name} must be a number, got {value!r}")
            if not (math.isfinite(value) and 0.0 <= value <= high):
                raise SettingsError(f"{name} must lie in 0 to {high:.10g}, got {value}")
        if not isinstance(self.jitter_us, int):
            raise SettingsError(f"jitter_us must be a whole number of microseconds, got {self.jitter_us}")
        if not isinstance(self.always, bool):
            raise SettingsError(f"always must be true or false, got {self.always!r}")

    @classmethod
    def none(cls) -> EventAugmentSettings:
        """Settings that leave every recording as it is."""
        return cls(
            shift=0.0,
            rotation=0.0,
            shear=0.0,
            scale=0.0,
            elastic=0.0,
            time_scale=0.0,
            jitter_us=0,
            flip=0.0,
            drop=0.0,
            window_ms=0.0,
        )

    @property
    def enabled(self) -> bool:
        """Whether any distortion is on."""
        return any(getattr(self, name) for name in _HIGHEST)


class EventAugmenter:
    """Distorts the recordings of a set; the same seed, epoch and sample give the same events.

    Parameters
    ----------
    data : EventSet
    settings : EventAugmentSettings
    seed : int
        0 to 2^64 - 1.
    backend : Backend
    stage : Stage, optional
        Of the same set; default: one of its own.

    Raises
    ------
    SettingsError
        If polarities are to be exchanged and the set does not have two channels.
    """

    def __init__(
        self,
        data: EventSet,
        settings: EventAugmentSettings,
        seed: int,
        backend: Backend,
        stage: Stage[Int64] | None = None,
    ) -> None:
        channels, height, width = data.shape
        if settings.flip and channels != 2:
            raise SettingsError(
                f"flip exchanges two polarities, but these events have {channels} channel(s); set it to 0"
            )
        self._shape = data.shape
        self._duration_us = data.duration_us
        self._stage = stage or event_stage(data, backend)
        self._counts = np.diff(data.offsets)
        self._key = seed_words(seed)
        self._backend = backend
        # An axis of one pixel is no axis: nothing moves along it, and nothing turns into it.
        tall, wide = float(height > 1), float(width > 1)
        plane = tall * wide
        window = round(settings.window_ms * 1e3)
        self._strengths = (
            np.float32(settings.shift * tall),
            np.float32(settings.shift * wide),
            np.float32(portable.tangent(math.radians(settings.rotation) / 2.0) * plane),
            np.float32(settings.shear * plane),
            np.float32(settings.scale * tall),
            np.float32(settings.scale * wide),
            np.float32(settings.elastic * plane),
            np.float64(settings.time_scale),
            np.int64(settings.jitter_us),
            np.float32(settings.flip),
            np.float32(settings.drop),
            np.int64(window if window < data.duration_us else 0),
        )
        self._times: Array = backend.empty((0,), np.uint32)
        self._units: Array = backend.empty((0,), np.uint32)

    def draw(self, samples: npt.NDArray[np.int64], epoch: int = 0) -> Queue:
        """Distort some recordings.

        Parameters
        ----------
        samples : ndarray of int64, shape (n_samples,)
            Rows of the set, which are also the counters of the random numbers.
        epoch : int
            Another counter: every epoch has distortions of its own.

        Returns
        -------
        Queue
            Valid until the next call.
        """
        from evsnn_kernels.cpu import augment_events  # noqa: PLC0415 - numba, when something is computed

        backend = self._backend
        offsets, (times, units), rows = self._stage.locate(samples)
        counts = self._counts[samples]
        slot = np.zeros(len(samples) + 1, np.int64)
        np.cumsum(counts, out=slot[1:])
        if len(self._times) < slot[-1]:
            self._times = backend.empty((int(slot[-1]),), np.uint32)
            self._units = backend.empty((int(slot[-1]),), np.uint32)
        kept = backend.empty((len(samples),), np.int64)
        backend.run(
            augment_events.augment_events,
            len(samples),
            times,
            units,
            backend.put(offsets[rows]),
            backend.put(counts),
            backend.put(samples),
            *self._shape,
            self._duration_us,
            *self._strengths,
            *self._key,
            epoch,
            self._times,
            self._units,
            backend.put(slot),
            kept,
        )
        return Queue(self._times, self._units, backend.put(slot[:-1]), kept)
