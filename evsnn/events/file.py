"""Event files: labelled recordings on disk, in HDF5, read lazily and written as a stream.

The layout is one group a split (``train``, ``validation``, ``test``) with the data sets ``times`` and
``units`` (uint32, one value an event), ``offsets`` (int64, samples + 1), ``labels`` (uint16, one a sample)
and, where the events were drawn from images, ``images`` (uint8, samples x H x W). The attributes of the file
say what it is: ``format``, ``version``, ``shape``, ``duration_us``, ``classes``, ``source``, ``encoder`` and
``seed``.

Every data set is cut into chunks and carries a Fletcher32 checksum. The files are written in the HDF5 1.10
format, whose inner structures are checksummed as well, so that a flipped bit is found wherever it matters.
"""

from __future__ import annotations

import io
import json
import math
import operator
import os
import re
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
from evsnn.events.core import (
    Events,
    EventSet,
    UInt32,
    as_uint32,
    check_events,
    check_labels,
    check_offsets,
)

FORMAT = "evsnn-events"
VERSION = 1
SPLITS = ("train", "validation", "test")

_COLUMNS: dict[str, tuple[type[np.generic], int]] = {
    "times": (np.uint32, 1),
    "units": (np.uint32, 1),
    "offsets": (np.int64, 1),
    "labels": (np.uint16, 1),
    "images": (np.uint8, 3),
}

_EVENT_CHUNK = 1 << 16
_SAMPLE_CHUNK = 1 << 14
_IMAGE_CHUNK_BYTES = 1 << 18
_VERIFY_EVENTS = 1 << 20

# What a reader accepts from a file it did not write: without limits, few bytes can promise terabytes.
_MAX_CHUNK_BYTES = 1 << 26
_MAX_DEFLATE_RATIO = 1100  # deflate cannot do better than 1032 to 1
_MIN_BYTES_A_CHUNK = 8  # no entry of a chunk index is smaller
_FILTERS = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32}

_DAMAGED = "the file is damaged, copy or make it again"


def open_events(path: str | os.PathLike[str]) -> EventFile:
    """Open an event file for reading; no events are read before they are asked for.

    Parameters
    ----------
    path : path-like
        The file, as ``evsnn convert-mnist`` or :class:`EventWriter` writes it.

    Returns
    -------
    EventFile
        Also a context manager that closes the file.

    Raises
    ------
    DataError
        If the file is missing, is no event file, is of a later version, or breaks a promise of the format
        that shows without reading the events (those are checked when they are read).
    """
    return EventFile(path)


class EventFile:
    """An event file open for reading: a mapping of split names to :class:`EventSplit`.

    Attributes
    ----------
    path : Path
        Where the file is.
    splits : tuple of str
        The splits it holds, among train, validation and test.
    shape : (C, H, W)
        Shape of the input.
    duration_us : int
        Length of the longest sample in microseconds.
    classes : int
        Number of classes.
    source : dict of str to str
        SHA-256 of each file the events were made from, by name.
    encoder : dict
        Settings of the encoder that drew the events.
    seed : int or None
        Seed of the encoder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._size = _readable_size(self.path)
        try:
            # No lock: a finished event file is only replaced as a whole, and some network folders have none.
            self._h5 = h5py.File(self.path, "r", locking=False)
        except Exception as error:
            raise DataError(f"{self.path}: {_why_not_open(error)}") from error
        try:
            self._read_attributes()
            self._open = self._open_splits()
        except BaseException:
            self._h5.close()
            raise
        self.splits: tuple[str, ...] = tuple(self._open)

    def _open_splits(self) -> dict[str, EventSplit]:
        with _reading(str(self.path), "the splits"):
            names = [name for name in SPLITS if self._h5.get(name, getlink=True) is not None]
        if not names:
            raise DataError(f"{self.path}: holds no split (looked for {', '.join(SPLITS)})")
        return {name: EventSplit(self, name) for name in names}

    def _read_attributes(self) -> None:
        kind = _text(self._attribute("format", "this HDF5 file is no event file"))
        if kind != FORMAT:
            raise DataError(f"{self.path}: holds {kind[:40]!r}, an event file has format {FORMAT!r}")
        version = self._integer("version", 1, 1 << 31)
        if version > VERSION:
            raise DataError(
                f"{self.path}: version {version} of the format, this evsnn reads {VERSION}; upgrade evsnn"
            )
        shape = np.asarray(self._attribute("shape"))
        if shape.shape != (3,) or shape.dtype.kind not in "iu" or not _shape_fits(tuple(shape.tolist())):
            raise DataError(f"{self.path}: attribute 'shape' must be three positive numbers (C, H, W)")
        channels, height, width = (int(size) for size in shape)
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.duration_us: int = self._integer("duration_us", 1, 1 << 32)
        self.classes: int = self._integer("classes", 1, 1 << 16)
        self.source: dict[str, str] = self._json("source")
        if not all(isinstance(value, str) for value in self.source.values()):
            raise DataError(f"{self.path}: attribute 'source' must map names to SHA-256 sums")
        self.encoder: dict[str, Any] = self._json("encoder")
        with _reading(str(self.path), "the attributes"):
            seeded = "seed" in self._h5.attrs
        self.seed: int | None = self._integer("seed", 0, (1 << 64) - 1) if seeded else None

    def _attribute(self, name: str, absent: str | None = None) -> Any:  # noqa: ANN401 - whatever the file holds
        with _reading(str(self.path), f"attribute {name!r}"):
            if name not in self._h5.attrs:
                raise DataError(f"{self.path}: {absent or f'the attribute {name!r} is missing'}")
            if h5py.h5a.open(self._h5.id, name.encode()).get_storage_size() > self._size:
                raise DataError(f"{self.path}: attribute {name!r} claims more bytes than the file has")
            return self._h5.attrs[name]

    def _integer(self, name: str, low: int, high: int) -> int:
        value = np.asarray(self._attribute(name))
        if value.size != 1 or value.dtype.kind not in "iu" or not low <= int(value.item()) <= high:
            raise DataError(f"{self.path}: attribute {name!r} must be an integer of {low} to {high}")
        return int(value.item())

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(_text(self._attribute(name)))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: attribute {name!r} is no JSON") from error
        if not isinstance(value, dict):
            raise DataError(f"{self.path}: attribute {name!r} must be a JSON object")
        return value

    def __getitem__(self, name: str) -> EventSplit:
        """Return a split.

        Raises
        ------
        DataError
            If the file does not hold it; the message names those it holds.
        """
        if name not in self._open:
            remedy = "; make one with `evsnn convert-mnist --validation N`" if name == "validation" else ""
            raise DataError(
                f"{self.path}: no split {name!r}, the file holds {', '.join(self.splits)}{remedy}"
            )
        return self._open[name]

    def __contains__(self, name: object) -> bool:
        return name in self._open

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def __len__(self) -> int:
        return len(self.splits)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return self.splits

    def verify(self) -> None:
        """Read the whole file in bounded pieces and check every checksum and every promise of the format.

        Raises
        ------
        DataError
            Naming the split, and the sample and event where there is one.
        """
        for split in self._open.values():
            split._verify()

    def close(self) -> None:
        """Close the file; what was loaded into memory stays usable."""
        with suppress(Exception):
            self._h5.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(split)} samples" for name, split in self._open.items())
        return f"<EventFile {str(self.path)!r}, shape {self.shape}, {sizes}>"


class EventSplit:
    """One split of an event file; samples are read from disk when they are asked for.

    Reading checks what it reads, and raises DataError naming file, split, sample and event.
    """

    def __init__(self, file: EventFile, name: str) -> None:
        self._file = file
        self.name = name
        self._where = f"{file.path}, split {name}"
        with _reading(self._where, "the group"):
            _refuse_links(file._h5, name, self._where)
            group = file._h5[name]
            if not isinstance(group, h5py.Group):
                raise DataError(f"{self._where}: must be a group of data sets")
            with_images = group.get("images", getlink=True) is not None
            present = [column for column in _COLUMNS if column != "images" or with_images]
        self._columns = {column: _open_column(group, column, self._where, file._size) for column in present}
        sizes = {column: data.shape for column, data in self._columns.items()}
        self._n_samples: int = sizes["labels"][0]
        self.n_events: int = sizes["times"][0]
        if sizes["units"] != sizes["times"]:
            raise DataError(f"{self._where}: {self.n_events} times but {sizes['units'][0]} units")
        if sizes["offsets"] != (self._n_samples + 1,):
            raise DataError(
                f"{self._where}: {self._n_samples} labels need {self._n_samples + 1} offsets, "
                f"found {sizes['offsets'][0]}"
            )
        if self.has_images and sizes["images"] != (self._n_samples, *file.shape[1:]):
            raise DataError(
                f"{self._where}: images of shape {sizes['images']} "
                f"for {self._n_samples} samples of shape {file.shape}"
            )
        self._offsets: npt.NDArray[np.int64] | None = None
        self._labels: npt.NDArray[np.uint16] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the input, (C, H, W)."""
        return self._file.shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._file.classes

    @property
    def duration_us(self) -> int:
        """Length of the longest sample of the file, in microseconds."""
        return self._file.duration_us

    @property
    def encoder(self) -> dict[str, Any]:
        """Settings of the encoder that drew the events."""
        return self._file.encoder

    @property
    def n_inputs(self) -> int:
        """Number of input units, C*H*W."""
        return math.prod(self.shape)

    @property
    def has_images(self) -> bool:
        """Whether the images the events were drawn from are in the file."""
        return "images" in self._columns

    @property
    def labels(self) -> npt.NDArray[np.uint16]:
        """Class index of each sample, uint16 of shape (n_samples,), read once and not writable."""
        if self._labels is None:
            labels = self._read("labels", 0, self._n_samples)
            check_labels(labels, self.classes, self._where)
            labels.flags.writeable = False
            self._labels = labels
        return self._labels

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each sample starts, int64 of shape (n_samples + 1,), read once and not writable."""
        if self._offsets is None:
            offsets = self._read("offsets", 0, self._n_samples + 1)
            check_offsets(offsets, self._n_samples, self.n_events, self._where)
            offsets.flags.writeable = False
            self._offsets = offsets
        return self._offsets

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, index: int) -> Events:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"sample {index} of {n}")
        sample = index % n
        low, high = (int(offset) for offset in self.offsets[sample : sample + 2])
        times, units = self._events(low, high)
        check_events(
            times,
            units,
            self.offsets[sample : sample + 2],
            n_inputs=self.n_inputs,
            duration_us=self.duration_us,
            where=self._where,
            first_event=low,
            first_sample=sample,
        )
        return Events(times, units)

    def __iter__(self) -> Iterator[Events]:
        return (self[i] for i in range(len(self)))

    def load(self, start: int = 0, stop: int | None = None) -> EventSet:
        """Read samples ``start`` to ``stop - 1`` into memory, 8 bytes an event, with their images.

        Parameters
        ----------
        start, stop : int
            The samples wanted; all of them by default.

        Returns
        -------
        EventSet
            Checked; its times are microseconds from the start of each sample.

        Raises
        ------
        DataError
            If the file breaks a promise of the format, or the events do not fit into memory.
        SettingsError
            If the split does not hold these samples.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise SettingsError(
                f"{self._where}: samples {start} to {stop} asked for, the split holds {len(self)}"
            )
        offsets = self.offsets[start : stop + 1]
        times, units = self._events(int(offsets[0]), int(offsets[-1]))
        return EventSet(
            times=times,
            units=units,
            offsets=offsets - offsets[0],
            labels=self.labels[start:stop].copy(),
            shape=self.shape,
            duration_us=self.duration_us,
            classes=self.classes,
            images=self._read("images", start, stop) if self.has_images else None,
            encoder=self.encoder,
        ).check(self._where, first_sample=start)

    def _events(self, low: int, high: int) -> tuple[UInt32, UInt32]:
        return self._read("times", low, high), self._read("units", low, high)

    def _read(self, column: str, low: int, high: int) -> npt.NDArray[Any]:
        if not self._file._h5:
            raise DataError(f"{self._where}: the file was closed")
        with _reading(self._where, f"data set {column!r}"):
            # A file from a machine of the other byte order is turned here.
            return np.ascontiguousarray(self._columns[column][low:high], dtype=_COLUMNS[column][0])

    def _verify(self) -> None:
        offsets = self.offsets
        _ = self.labels
        for low in range(0, self.n_events, _VERIFY_EVENTS):
            # One event of the piece before is read again, for the order across the cut.
            first, high = max(low - 1, 0), min(low + _VERIFY_EVENTS, self.n_events)
            times, units = self._events(first, high)
            check_events(
                times,
                units,
                offsets,
                n_inputs=self.n_inputs,
                duration_us=self.duration_us,
                where=self._where,
                first_event=first,
            )
        if self.has_images:
            step = _image_chunk(self.shape) * 16
            for low in range(0, len(self), step):
                self._read("images", low, min(low + step, len(self)))

    def __repr__(self) -> str:
        return f"<EventSplit {self._where}: {len(self)} samples, {self.n_events} events>"


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
        if not _shape_fits(shape):
            raise SettingsError(f"shape must be three positive numbers (C, H, W), got {shape}")
        channels, height, width = (int(size) for size in shape)
        self._shape = (channels, height, width)
        self._duration_us = None if duration_us is None else _setting("duration_us", duration_us, 1, 1 << 32)
        self._classes = _setting("classes", classes, 1, 1 << 16)
        self._seed = None if seed is None else _setting("seed", seed, 0, (1 << 64) - 1)
        self._source = _to_json("source", source)
        self._encoder = _to_json("encoder", encoder)
        self._sink: _Sink | None = None
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
            self._sink = _Sink(self._temporary)
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

    def begin_split(self, name: str, with_images: bool = False) -> None:
        """Begin a split; the one before it is complete.

        Parameters
        ----------
        name : str
            One of train, validation and test.
        with_images : bool
            Whether every sample comes with its image.

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
                chunk = _image_chunk(self._shape)
                self._columns["images"] = _Column(group, "images", chunk, self._shape[1:])
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
        event_counts = as_uint32(f"{where}: counts", counts)
        if event_counts.ndim != 1:
            raise DataError(f"{where}: counts must be a row of numbers, got shape {event_counts.shape}")
        block = EventSet(
            times=as_uint32(f"{where}: times", times),
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
            attributes["format"] = _fixed_text(FORMAT)
            attributes["version"] = np.int64(VERSION)
            attributes["shape"] = np.array(self._shape, np.int64)
            attributes["duration_us"] = np.int64(self._duration_us or self._last_us + 1)
            attributes["classes"] = np.int64(self._classes)
            attributes["source"] = _fixed_text(self._source)
            attributes["encoder"] = _fixed_text(self._encoder)
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
        return DataError(f"cannot write {self.path}: {_reason(error)}")


class _Sink(io.RawIOBase):
    """The file HDF5 writes to, which never fails in its face.

    HDF5 cannot close a file after a write that failed: it keeps the file open, and a second close or the end
    of the program crashes. So the first error is kept for the caller, who asks after every step, and what
    HDF5 writes from then on, a few blocks until the caller gives up, is kept in memory to be read back.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = io.FileIO(path, "x+")
        self._position = 0
        self._kept: list[tuple[int, bytes]] = []
        self.error: BaseException | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            ends = [start + len(data) for start, data in self._kept]
            offset += max([self._file.seek(0, os.SEEK_END), *ends])
        self._position = offset
        return offset

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - anything with the buffer protocol
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._file.seek(self._position)
        self._file.readinto(view)
        for start, data in self._kept:
            low, high = max(start, self._position), min(start + len(data), self._position + len(view))
            if low < high:
                view[low - self._position : high - self._position] = data[low - start : high - start]
        self._position += len(view)
        return len(view)

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - anything with the buffer protocol
        view = memoryview(data).cast("B")
        try:
            if self.error is None:
                self._file.seek(self._position)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:]) or 0
        except BaseException as error:  # an interrupt, too, must not pass through HDF5
            self.error = error
        if self.error is not None:
            self._kept.append((self._position, bytes(view)))
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            if self.error is None:
                self._file.truncate(size)
        except BaseException as error:
            self.error = error
        return size

    def finish(self) -> None:
        """Bring everything to the disk and close; errors are raised."""
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Column:
    """A data set that grows: rows are collected into whole chunks, so that each chunk is compressed once."""

    def __init__(self, group: h5py.Group, name: str, chunk: int, row: tuple[int, ...] = ()) -> None:
        self._dataset = group.create_dataset(
            name,
            shape=(0, *row),
            maxshape=(None, *row),
            chunks=(chunk, *row),
            dtype=_COLUMNS[name][0],
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fletcher32=True,
        )
        self._buffer = np.empty((chunk, *row), _COLUMNS[name][0])
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


def _open_column(group: h5py.Group, name: str, where: str, file_size: int) -> h5py.Dataset:
    """Open a data set and refuse whatever the format does not allow, before any of its values is read."""
    what = f"data set {name!r}"
    with _reading(where, what):
        if group.get(name, getlink=True) is None:
            raise DataError(f"{where}: {what} is missing")
        _refuse_links(group, name, where)
        data = group[name]
        if not isinstance(data, h5py.Dataset):
            raise DataError(f"{where}: {name!r} must be a data set")
        dtype, ndim = _COLUMNS[name]
        if data.dtype.newbyteorder("=") != np.dtype(dtype) or data.ndim != ndim:
            raise DataError(
                f"{where}: {what} must be {np.dtype(dtype)} in {ndim} dimension{'s' * (ndim > 1)}, "
                f"found {data.dtype} in {data.ndim}"
            )
        creation = data.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise DataError(f"{where}: {what} keeps its values outside the file, which evsnn does not follow")
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        if creation.get_layout() != h5py.h5d.CHUNKED or h5py.h5z.FILTER_FLETCHER32 not in filters:
            raise DataError(f"{where}: {what} has no Fletcher32 checksum")
        if not set(filters) <= _FILTERS or len(set(filters)) < len(filters):
            raise DataError(f"{where}: {what} is packed in a way that evsnn does not read; use gzip")
        claims = DataError(
            f"{where}: {what} claims {data.size} values, more than the file can hold; {_DAMAGED}"
        )
        if math.prod(data.chunks) * data.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise DataError(f"{where}: {what} has chunks of more than {_MAX_CHUNK_BYTES >> 20} MiB")
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True))
        if chunks * _MIN_BYTES_A_CHUNK > file_size:
            raise claims
        if (stored := data.id.get_num_chunks()) != chunks:
            raise DataError(f"{where}: {what} has {stored} of its {chunks} chunks; {_DAMAGED}")
        stored_bytes = data.id.get_storage_size()
        if stored_bytes > file_size or data.nbytes > stored_bytes * _MAX_DEFLATE_RATIO:
            raise claims
        return data


def _refuse_links(group: h5py.Group, name: str, where: str) -> None:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{where}: {name!r} is a link to another place, which evsnn does not follow")


@contextmanager
def _reading(where: str, what: str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged or hostile file into one line."""
    try:
        yield
    except EvsnnError:
        raise
    except MemoryError as error:
        raise DataError(f"{where}: {what} does not fit into memory; load fewer samples at a time") from error
    except Exception as error:
        reason = _reason(error)
        if "checksum" in reason or "filter returned failure" in reason:
            raise DataError(f"{where}: the checksum of {what} failed; {_DAMAGED}") from error
        raise DataError(f"{where}: cannot read {what} ({reason}); {_DAMAGED}") from error


def _reason(error: Exception) -> str:
    """Say in a few words what went wrong: the system's words, else the innermost reason that HDF5 gives."""
    text = " ".join(str(error).split()).strip("'\"")
    if isinstance(error, OSError) and error.strerror and error.strerror in text and "(" not in error.strerror:
        return error.strerror
    inner = re.search(r"\((.*)\)$", text)
    return (inner.group(1) if inner else text)[:200] or type(error).__name__


def _why_not_open(error: Exception) -> str:
    reason = _reason(error)
    if "signature not found" in reason:
        return "not an HDF5 file; event files are made with `evsnn convert-mnist` or `evsnn convert-nmnist`"
    if cut := re.search(r"truncated file: eof = (\d+).* stored_eof = (\d+)", reason):
        return f"truncated: {cut.group(1)} bytes of {cut.group(2)}; {_DAMAGED}"
    if "checksum" in reason:
        return f"the checksum of its header failed; {_DAMAGED}"
    return f"HDF5 cannot open it ({reason}); {_DAMAGED}"


def _readable_size(path: Path) -> int:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DataError(f"{path}: not a file")
        with path.open("rb"):
            return size
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from error


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def _fixed_text(text: str) -> npt.NDArray[np.bytes_]:
    # Fixed length, because HDF5 keeps text of variable length where no checksum covers it.
    data = text.encode()
    return np.array(data, dtype=h5py.string_dtype("utf-8", len(data)))


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


def _shape_fits(shape: tuple[Any, ...]) -> bool:
    return (
        len(shape) == 3
        and all(isinstance(size, int | np.integer) and size > 0 for size in shape)
        and math.prod(int(size) for size in shape) <= 1 << 32
    )


def _image_chunk(shape: tuple[int, int, int]) -> int:
    return max(1, _IMAGE_CHUNK_BYTES // (shape[1] * shape[2]))


def _as_labels(where: str, labels: npt.ArrayLike, classes: int, first_sample: int) -> npt.NDArray[np.uint16]:
    converted = as_uint32(f"{where}: labels", labels)
    check_labels(converted, classes, where, first_sample)
    return converted.astype(np.uint16)
