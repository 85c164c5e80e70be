"""Event files written as a stream, which appear under their name only when they are complete."""

from __future__ import annotations

import json
import operator
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, EvsnnError, SettingsError
from evsnn.events.core import TIME_LIMIT, EventSet, as_uint32, check_labels
from evsnn.events.format import COLUMNS, FORMAT, SPLITS, VERSION, image_chunk, shape_fits
from evsnn.hdf5 import Sink, fixed_text, reason

_EVENT_CHUNK = 1 << 16
_SAMPLE_CHUNK = 1 << 14


class EventWriter:
    """Write an event file as a stream; it appears under its name only when it is complete.

    Use it as a context manager. Everything goes to a temporary file in the same folder, which takes the place
    of ``path`` at a clean exit and is removed otherwise: nobody ever sees half a file, and a file that is
    being replaced stays as it is until then.

    Parameters
    ----------
    path : path-like
        The file to write.
    shape : (C, H, W)
        Shape of the input.
    duration_us : int or None
        Length of the longest sample in microseconds; None takes the largest time written + 1.
    classes : int
        Number of classes.
    source : mapping of str to str, optional
        SHA-256 of each file the events were made from, by name.
    encoder : mapping, optional
        Settings of the encoder, as plain values.
    seed : int, optional
        Seed of the encoder.
    force : bool
        Replace a file that is there.

    Raises
    ------
    DataError
        If the file exists and ``force`` is not given, or it cannot be written (then or at any later step).
    SettingsError
        If a setting makes no sense.

    Examples
    --------
    >>> with EventWriter("toy.h5", shape=(1, 2, 2), duration_us=100, classes=2) as writer:  # doctest: +SKIP
    ...     writer.begin_split("train")
    ...     writer.append(times=[5, 9, 3], units=[0, 3, 1], counts=[2, 1], labels=[0, 1])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        shape: tuple[int, int, int],
        duration_us: int | None,
        classes: int,
        source: Mapping[str, str] | None = None,
        encoder: Mapping[str, Any] | None = None,
        seed: int | None = None,
        force: bool = False,
    ) -> None:
        self.path = Path(path)
        self._force = force
        if not shape_fits(shape):
            raise SettingsError(f"shape must be three positive numbers (C, H, W), got {shape}")
        channels, height, width = (int(size) for size in shape)
        self._shape = (channels, height, width)
        self._duration_us = None if duration_us is None else _setting("duration_us", duration_us, 1, 1 << 32)
        self._classes = _setting("classes", classes, 1, 1 << 16)
        self._seed = None if seed is None else _setting("seed", seed, 0, (1 << 64) - 1)
        self._source = _to_json("source", source)
        self._encoder = _to_json("encoder", encoder)
        self._sink: Sink | None = None
        self._done: list[str] = []
        self._columns: dict[str, _Column] = {}
        self._split = ""
        self._n_samples = 0
        self._last_us = 0
        self._refuse_existing()
        if not self.path.parent.is_dir():
            raise DataError(f"cannot write {self.path}: the folder {self.path.parent} does not exist")

    def _refuse_existing(self) -> None:
        if self.path.is_dir():
            raise DataError(f"cannot write {self.path}: it is a folder")
        if not self._force and os.path.lexists(self.path):
            raise DataError(f"{self.path} exists; pass --force to replace it")

    def __enter__(self) -> Self:
        # A short name of its own: the name of the file may already be as long as the file system allows.
        self._temporary = self.path.parent / f".evsnn-{secrets.token_hex(8)}.tmp"
        try:
            self._sink = Sink(self._temporary)
        except OSError as error:
            raise self._cannot_write(error) from error
        try:
            with self._writing():
                # Without a cache each chunk goes to disk as soon as it is full, so a full disk shows at once.
                self._h5 = h5py.File(self._sink, "w", libver=("v110", "v110"), rdcc_nbytes=0)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except BaseException:
            self._discard()
            raise

    def begin_split(
        self, name: str, with_images: bool = False, image_shape: tuple[int, int] | None = None
    ) -> None:
        """Begin a split; the one before it is complete.

        Parameters
        ----------
        name : str
            One of train, validation and test.
        with_images : bool
            Whether every sample comes with its image.
        image_shape : (H, W), optional
            Default: that of the input.

        Raises
        ------
        SettingsError
            If the name is another or was used before.
        """
        if name not in SPLITS:
            raise SettingsError(f"a split is called {', '.join(SPLITS[:-1])} or {SPLITS[-1]}, not {name!r}")
        if name in self._done:
            raise SettingsError(f"{self.path}: split {name} was written before")
        with self._writing():
            self._end_split()
            group = self._h5.create_group(name)
            self._columns = {
                "times": _Column(group, "times", _EVENT_CHUNK),
                "units": _Column(group, "units", _EVENT_CHUNK),
                "offsets": _Column(group, "offsets", _SAMPLE_CHUNK),
                "labels": _Column(group, "labels", _SAMPLE_CHUNK),
            }
            if with_images:
                height, width = image_shape or self._shape[1:]
                chunk = image_chunk((1, height, width))
                self._columns["images"] = _Column(group, "images", chunk, (height, width))
            self._columns["offsets"].append(np.zeros(1, np.int64))
        self._split = name
        self._done.append(name)
        self._n_samples = 0
        self._n_events = 0

    def append(
        self,
        times: npt.ArrayLike,
        units: npt.ArrayLike,
        counts: npt.ArrayLike,
        labels: npt.ArrayLike,
        images: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Append a block of samples to the split begun last.

        Parameters
        ----------
        times, units : array-like of int, shape (n_events,)
            The events of all samples of the block, one sample after the other: microseconds, input indices.
        counts : array-like of int, shape (n_samples,)
            Number of events of each sample.
        labels : array-like of int, shape (n_samples,)
            Class index of each sample.
        images : ndarray of uint8, shape (n_samples, H, W), optional
            Given if, and only if, the split was begun with images.

        Raises
        ------
        DataError
            If the block breaks a promise of the format (naming sample and event), or cannot be written.
        """
        if not self._split:
            raise SettingsError(f"{self.path}: begin a split before appending to it")
        where = f"{self.path}, split {self._split}"
        if ("images" in self._columns) != (images is not None):
            raise DataError(
                f"{where}: the split was begun with{'' if 'images' in self._columns else 'out'} images, "
                f"this block comes with{'out' if images is None else ''}"
            )
        if images is not None and images.ndim == 3 and images.shape[1:] != self._columns["images"].row:
            raise DataError(
                f"{where}: images of shape {images.shape} for {len(images)} samples "
                f"of shape {(1, *self._columns['images'].row)}"
            )
        event_counts = as_uint32(f"{where}: counts", counts)
        if event_counts.ndim != 1:
            raise DataError(f"{where}: counts must be a row of numbers, got shape {event_counts.shape}")
        block = EventSet(
            times=as_uint32(f"{where}: times", times, TIME_LIMIT),
            units=as_uint32(f"{where}: units", units),
            offsets=np.concatenate([[0], np.cumsum(event_counts, dtype=np.int64)]),
            labels=_as_labels(where, labels, self._classes, self._n_samples),
            shape=self._shape,
            duration_us=1 << 32 if self._duration_us is None else self._duration_us,
            classes=self._classes,
            images=images,
        ).check(where, first_sample=self._n_samples)
        with self._writing():
            self._columns["times"].append(block.times)
            self._columns["units"].append(block.units)
            self._columns["offsets"].append(block.offsets[1:] + self._n_events)
            self._columns["labels"].append(block.labels)
            if block.images is not None:
                self._columns["images"].append(block.images)
        self._n_samples += len(block)
        self._n_events += len(block.times)
        if len(block.times):
            self._last_us = max(self._last_us, int(block.times.max()))

    def _end_split(self) -> None:
        for column in self._columns.values():
            column.flush()
        self._columns = {}

    def _finish(self) -> None:
        if not self._done:
            raise SettingsError(f"cannot write {self.path}: no split was begun")
        with self._writing():
            self._end_split()
            attributes = self._h5.attrs
            attributes["format"] = fixed_text(FORMAT)
            attributes["version"] = np.int64(VERSION)
            attributes["shape"] = np.array(self._shape, np.int64)
            attributes["duration_us"] = np.int64(self._duration_us or self._last_us + 1)
            attributes["classes"] = np.int64(self._classes)
            attributes["source"] = fixed_text(self._source)
            attributes["encoder"] = fixed_text(self._encoder)
            if self._seed is not None:
                attributes["seed"] = np.uint64(self._seed)
            self._h5.close()
        assert self._sink is not None
        try:
            self._sink.finish()
            self._refuse_existing()
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _discard(self) -> None:
        with suppress(Exception):
            self._h5.close()
        with suppress(Exception):
            if self._sink is not None:
                self._sink.close()
        with suppress(OSError):
            self._temporary.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._sink is None:
            raise SettingsError("use the EventWriter in a with statement")
        try:
            yield
        except Exception as error:
            if self._sink.error is None and not isinstance(error, EvsnnError):
                raise self._cannot_write(error) from error
            if self._sink.error is None:
                raise
        if (first := self._sink.error) is not None:
            if not isinstance(first, Exception):
                raise first
            raise self._cannot_write(first) from first

    def _cannot_write(self, error: Exception) -> DataError:
        return DataError(f"cannot write {self.path}: {reason(error)}")


class _Column:
    """A data set that grows: rows are collected into whole chunks, so that each chunk is compressed once."""

    def __init__(self, group: h5py.Group, name: str, chunk: int, row: tuple[int, ...] = ()) -> None:
        self._dataset = group.create_dataset(
            name,
            shape=(0, *row),
            maxshape=(None, *row),
            chunks=(chunk, *row),
            dtype=COLUMNS[name][0],
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
        )
        self._buffer = np.empty((chunk, *row), COLUMNS[name][0])
        self.row = row
        self._fill = 0
        self._length = 0

    def append(self, rows: npt.NDArray[Any]) -> None:
        while len(rows):
            taken = rows[: len(self._buffer) - self._fill]
            self._buffer[self._fill : self._fill + len(taken)] = taken
            self._fill += len(taken)
            rows = rows[len(taken) :]
            if self._fill == len(self._buffer):
                self.flush()

    def flush(self) -> None:
        if self._fill:
            self._dataset.resize(self._length + self._fill, axis=0)
            self._dataset[self._length :] = self._buffer[: self._fill]
            self._length += self._fill
            self._fill = 0


def _to_json(name: str, value: Mapping[str, Any] | None) -> str:
    def plain(item: object) -> object:
        if isinstance(item, np.generic):
            return item.item()
        raise TypeError

    try:
        return json.dumps(dict(value or {}), sort_keys=True, default=plain)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{name} must hold plain values (text, numbers, true or false, lists)") from error


def _setting(name: str, value: int, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if not low <= number <= high:
        raise SettingsError(f"{name} must be an integer of {low} to {high}, got {value!r}")
    return number


def _as_labels(where: str, labels: npt.ArrayLike, classes: int, first_sample: int) -> npt.NDArray[np.uint16]:
    converted = as_uint32(f"{where}: labels", labels)
    check_labels(converted, classes, where, first_sample)
    return converted.astype(np.uint16)
