"""Events and sets of recordings in memory, at eight bytes an event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, SettingsError

UInt32 = npt.NDArray[np.uint32]

TIME_LIMIT = " us, which is 71 minutes (cut longer recordings into samples)"

#: The field order and types of tonic's N-MNIST recordings: pixel, microseconds, polarity.
TONIC_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])


@dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording: a light view of two arrays.

    Parameters
    ----------
    times : ndarray of uint32, shape (n,)
        Microseconds from the start of the recording, non-decreasing.
    units : ndarray of uint32, shape (n,)
        Input index of each event, ``(c*H + y)*W + x`` for a recording of shape (C, H, W).
    """

    times: UInt32
    units: UInt32

    def __post_init__(self) -> None:
        if self.times.ndim != 1 or self.times.shape != self.units.shape:
            raise DataError(
                f"events need a time and a unit each, got shapes {self.times.shape} and {self.units.shape}"
            )

    def __len__(self) -> int:
        return len(self.times)

    @classmethod
    def from_arrays(cls, times: npt.ArrayLike, units: npt.ArrayLike) -> Events:
        """Build events from any integer arrays, checked and converted.

        Simultaneous events are put in the order of their units, in which a layer adds them up.

        Raises
        ------
        DataError
            If a value is not an integer, is negative or beyond 32 bits, or if time runs back.
        """
        events = cls(as_uint32("event times", times, TIME_LIMIT), as_uint32("event units", units))
        check_sorted(events.times)
        keys = events.times.astype(np.uint64) << np.uint64(32) | events.units
        if (keys[1:] < keys[:-1]).any():
            order = np.argsort(keys, kind="stable")
            events = cls(events.times[order], events.units[order])
        return events

    @classmethod
    def from_structured(cls, array: npt.NDArray[Any], shape: tuple[int, int, int]) -> Events:
        """Convert a structured array with fields x, y, t (microseconds) and p, as tonic has them.

        Parameters
        ----------
        array : structured ndarray, shape (n,)
            One record an event; polarity p selects the channel.
        shape : (C, H, W)
            Shape of the sensor.

        Raises
        ------
        DataError
            If a field is missing or not of integers, a coordinate lies outside the sensor, or time runs back.
        """
        channels, height, width = shape
        missing = {"x", "y", "t", "p"} - set(array.dtype.names or ())
        if missing:
            raise DataError(
                f"structured events need the fields x, y, t and p; missing: {', '.join(sorted(missing))}"
            )
        for name, size in (("x", width), ("y", height), ("p", channels)):
            values = array[name]
            if values.dtype.kind not in "iub":
                raise DataError(f"field {name} must hold integers, got {values.dtype}")
            if values.size and (int(values.min()) < 0 or int(values.max()) >= size):
                raise DataError(
                    f"field {name} must lie in 0 to {size - 1}, got {values.min()} to {values.max()}"
                )
        x, y, p = (array[name].astype(np.int64) for name in "xyp")
        return cls.from_arrays(array["t"], (p * height + y) * width + x)

    def to_structured(self, shape: tuple[int, int, int]) -> npt.NDArray[Any]:
        """Convert to a structured array with fields x, y, t (microseconds) and p, as tonic has them."""
        _, height, width = shape
        array = np.empty(len(self), TONIC_DTYPE)
        array["t"] = self.times
        array["x"] = self.units % width
        array["y"] = self.units // width % height
        array["p"] = self.units // (width * height)
        return array


@dataclass(frozen=True, eq=False)
class EventSet:
    """Labelled recordings in memory, one after the other in two flat arrays.

    Parameters
    ----------
    times, units : ndarray of uint32, shape (n_events,)
        As in :class:`Events`; times start anew in each sample.
    offsets : ndarray of int64, shape (n_samples + 1,)
        Sample i holds the events ``offsets[i]:offsets[i + 1]``.
    labels : ndarray of uint16, shape (n_samples,)
        Class index of each sample.
    shape : (C, H, W)
        Shape of the input.
    duration_us : int
        Length of the longest sample, in microseconds; no event is later.
    classes : int
        Number of classes.
    images : ndarray of uint8, shape (n_samples, H, W), optional
        The images the events were drawn from, so that fresh spikes can be drawn every epoch. They may be
        smaller than the input by the same margin on all four sides.
    encoder : mapping, optional
        Settings of the encoder that drew the events, as plain values.
    """

    times: UInt32
    units: UInt32
    offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint16]
    shape: tuple[int, int, int]
    duration_us: int
    classes: int
    images: npt.NDArray[np.uint8] | None = None
    encoder: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Events:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"sample {index} of {n}")
        low, high = self.offsets[index % n], self.offsets[index % n + 1]
        return Events(self.times[low:high], self.units[low:high])

    def __iter__(self) -> Iterator[Events]:
        return (self[i] for i in range(len(self)))

    @property
    def n_inputs(self) -> int:
        """Number of input units, C*H*W."""
        channels, height, width = self.shape
        return channels * height * width

    def part(self, start: int, stop: int) -> EventSet:
        """Return samples ``start`` to ``stop - 1`` as a view; nothing is copied but the offsets."""
        if not 0 <= start <= stop <= len(self):
            raise SettingsError(f"samples {start} to {stop} asked for, the set holds {len(self)}")
        low, high = self.offsets[start], self.offsets[stop]
        return replace(
            self,
            times=self.times[low:high],
            units=self.units[low:high],
            offsets=self.offsets[start : stop + 1] - low,
            labels=self.labels[start:stop],
            images=None if self.images is None else self.images[start:stop],
        )

    def select(self, samples: npt.ArrayLike) -> EventSet:
        """Return a copy of some samples, in the order in which they are named.

        Parameters
        ----------
        samples : array-like of int, shape (n,)
            Indices of samples; each may be named any number of times.

        Raises
        ------
        SettingsError
            If an index is not an integer, or the set does not hold such a sample.
        """
        chosen = np.asarray(samples)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise SettingsError(f"samples are chosen by a row of integers, got {chosen.dtype} {chosen.shape}")
        if chosen.size and not (int(chosen.min()) >= 0 and int(chosen.max()) < len(self)):
            raise SettingsError(
                f"samples {chosen.min()} to {chosen.max()} asked for, the set holds {len(self)}"
            )
        chosen = chosen.astype(np.int64)
        counts = np.diff(self.offsets)[chosen]
        offsets = np.zeros(len(chosen) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], counts)
        return replace(
            self,
            times=self.times[events],
            units=self.units[events],
            offsets=offsets,
            labels=self.labels[chosen],
            images=None if self.images is None else self.images[chosen],
        )

    def fingerprint(self) -> str:
        """SHA-256 of all that the set holds, however it was stored; the same on every machine."""
        digest = hashlib.sha256()
        about = (self.shape, self.duration_us, self.classes, dict(self.encoder), len(self), len(self.times))
        digest.update(json.dumps(about, sort_keys=True).encode())
        columns = ((self.times, "<u4"), (self.units, "<u4"), (self.offsets, "<i8"), (self.labels, "<u2"))
        for array, kind in (*columns, *([] if self.images is None else [(self.images, "u1")])):
            digest.update(np.ascontiguousarray(array, kind).data)
        return digest.hexdigest()

    def check(self, where: str = "events", first_sample: int = 0) -> EventSet:
        """Check every promise of the format and return the set itself.

        Parameters
        ----------
        where : str
            Named in messages: the file and split the events came from.
        first_sample : int
            Number of the first sample here within that split, for messages.

        Raises
        ------
        DataError
            Naming the sample, and the event where there is one.
        """
        for name, dtype in (
            ("times", np.uint32),
            ("units", np.uint32),
            ("offsets", np.int64),
            ("labels", np.uint16),
        ):
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1:
                raise DataError(
                    f"{where}: {name} must be a row of {np.dtype(dtype)}, "
                    f"found {array.dtype} in {array.ndim} dimensions"
                )
        n = len(self)
        if len(self.times) != len(self.units):
            raise DataError(f"{where}: {len(self.times)} times but {len(self.units)} units")
        check_offsets(self.offsets, n, len(self.times), where, first_sample)
        check_labels(self.labels, self.classes, where, first_sample)
        check_events(
            self.times,
            self.units,
            self.offsets,
            n_inputs=self.n_inputs,
            duration_us=self.duration_us,
            where=where,
            first_sample=first_sample,
        )
        if self.images is not None:
            if self.images.dtype != np.uint8:
                raise DataError(f"{where}: images must be uint8, found {self.images.dtype}")
            if not images_fit(self.images.shape, n, self.shape):
                raise DataError(
                    f"{where}: images of shape {self.images.shape} for {n} samples of shape {self.shape}"
                )
        return self


def images_fit(images: tuple[int, ...], n_samples: int, shape: tuple[int, int, int]) -> bool:
    """Whether images are those of an input (C, H, W): as large, or smaller by an equal margin all around."""
    if len(images) != 3:
        return False
    n, height, width = images
    margin = shape[1] - height
    return (
        n == n_samples
        and margin >= 0
        and margin % 2 == 0
        and shape[2] - width == margin
        and min(height, width) > 0
    )


def as_uint32(name: str, values: npt.ArrayLike, limit: str = "") -> UInt32:
    """Convert any integers to uint32, without a copy where they are uint32 already.

    Parameters
    ----------
    name : str
        What they are, for messages.
    values : array-like
    limit : str
        What the limit means and what to do about it, for messages.

    Raises
    ------
    DataError
        If a value is not an integer, is negative or beyond 32 bits.
    """
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise DataError(f"{name} must be integers, got {array.dtype}")
    if array.size and array.dtype != np.uint32:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > np.iinfo(np.uint32).max:
            raise DataError(f"{name} must lie in 0 to 2^32 - 1{limit}, got {low} to {high}")
    return np.ascontiguousarray(array, dtype=np.uint32)


def check_offsets(
    offsets: npt.NDArray[np.int64],
    n_samples: int,
    n_events: int,
    where: str = "events",
    first_sample: int = 0,
) -> None:
    """Check that offsets cut ``n_events`` events into ``n_samples`` samples.

    Raises
    ------
    DataError
        Naming the first sample whose offsets run backwards.
    """
    if len(offsets) != n_samples + 1:
        raise DataError(f"{where}: {n_samples} labels need {n_samples + 1} offsets, found {len(offsets)}")
    if offsets[0] != 0 or offsets[-1] != n_events:
        raise DataError(
            f"{where}: offsets run from {offsets[0]} to {offsets[-1]}, "
            f"must run from 0 to the number of events, {n_events}"
        )
    back = offsets[1:] < offsets[:-1]
    if back.any():
        raise DataError(f"{where}: sample {first_sample + int(np.argmax(back))}: its offsets run backwards")


def check_labels(
    labels: npt.NDArray[np.integer[Any]], classes: int, where: str = "events", first_sample: int = 0
) -> None:
    """Check that every label is a class index.

    Raises
    ------
    DataError
        Naming the first sample whose label is not below ``classes``.
    """
    if len(labels) and int(labels.max()) >= classes:
        bad = int(np.argmax(labels >= classes))
        raise DataError(
            f"{where}: sample {first_sample + bad}: label {labels[bad]} is not below the {classes} classes"
        )


def check_events(
    times: UInt32,
    units: UInt32,
    offsets: npt.NDArray[np.int64],
    *,
    n_inputs: int,
    duration_us: int,
    where: str = "events",
    first_event: int = 0,
    first_sample: int = 0,
) -> None:
    """Check the events of any stretch of a set: units, times, and their order inside each sample.

    Parameters
    ----------
    times, units : ndarray of uint32, shape (n,)
        A stretch of the events that ``offsets`` cuts into samples; it may begin and end inside a sample.
    offsets : ndarray of int64, shape (n_samples + 1,)
        As in :class:`EventSet`, already checked.
    n_inputs, duration_us : int
        Units lie below ``n_inputs``, times lie in 0 to ``duration_us`` inclusive.
    where : str
        Named in messages.
    first_event : int
        Index of ``times[0]`` as ``offsets`` counts events.
    first_sample : int
        Number of the first sample of ``offsets``, for messages.

    Raises
    ------
    DataError
        Naming the sample and the event in it.
    """

    def place(event: int) -> str:
        sample = int(np.searchsorted(offsets, first_event + event, side="right")) - 1
        return f"sample {first_sample + sample}, event {first_event + event - int(offsets[sample])}"

    if not len(times):
        return
    if int(units.max()) >= n_inputs:
        event = int(np.argmax(units >= n_inputs))
        raise DataError(
            f"{where}: {place(event)}: unit {units[event]} is outside the input of {n_inputs} units"
        )
    if int(times.max()) > duration_us:
        event = int(np.argmax(times > duration_us))
        raise DataError(
            f"{where}: {place(event)}: time {times[event]} us is past the duration of {duration_us} us"
        )
    back = times[1:] < times[:-1]
    low, high = np.searchsorted(offsets, (first_event, first_event + len(times)), side="left")
    starts = offsets[low:high] - first_event
    back[starts[starts > 0] - 1] = False
    if back.any():
        event = int(np.argmax(back)) + 1
        raise DataError(
            f"{where}: {place(event)}: time runs back from {times[event - 1]} to {times[event]} us; "
            "sort the events of each sample by time"
        )


def check_sorted(times: UInt32, where: str = "events") -> None:
    """Check that time never runs back in one recording.

    Raises
    ------
    DataError
        Naming the first event that is earlier than the one before it.
    """
    back = times[1:] < times[:-1]
    if back.any():
        event = int(np.argmax(back)) + 1
        raise DataError(
            f"{where}: event {event}: time runs back from {times[event - 1]} to {times[event]} us; "
            "sort the events by time"
        )
