"""Event files open for reading: labelled recordings on disk, read lazily."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, SettingsError
from evsnn.events.core import (
    Events,
    EventSet,
    UInt32,
    check_events,
    check_labels,
    check_offsets,
    images_fit,
)
from evsnn.events.format import COLUMNS, FORMAT, SPLITS, VERSION, image_chunk, shape_fits
from evsnn.hdf5 import (
    decoded,
    open_dataset,
    read_attribute,
    read_integer,
    read_json,
    readable_size,
    reading,
    reason,
    refuse_links,
    why_not_open,
)

_VERIFY_EVENTS = 1 << 20


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
        self._size = readable_size(self.path)
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
        with reading(str(self.path), "the splits"):
            names = [name for name in SPLITS if self._h5.get(name, getlink=True) is not None]
        if not names:
            raise DataError(f"{self.path}: holds no split (looked for {', '.join(SPLITS)})")
        return {name: EventSplit(self, name) for name in names}

    def _read_attributes(self) -> None:
        file, size = self._h5, self._size
        kind = decoded(read_attribute(file, "format", size, "this HDF5 file is no event file"))
        if kind != FORMAT:
            raise DataError(f"{self.path}: holds {kind[:40]!r}, an event file has format {FORMAT!r}")
        version = read_integer(file, "version", size, 1, 1 << 31)
        if version > VERSION:
            raise DataError(
                f"{self.path}: version {version} of the format, this evsnn reads {VERSION}; upgrade evsnn"
            )
        shape = np.asarray(read_attribute(file, "shape", size))
        if shape.shape != (3,) or shape.dtype.kind not in "iu" or not shape_fits(tuple(shape.tolist())):
            raise DataError(f"{self.path}: attribute 'shape' must be three positive numbers (C, H, W)")
        channels, height, width = (int(size) for size in shape)
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.duration_us: int = read_integer(file, "duration_us", size, 1, 1 << 32)
        self.classes: int = read_integer(file, "classes", size, 1, 1 << 16)
        self.source: dict[str, str] = read_json(file, "source", size, dict)
        if not all(isinstance(value, str) for value in self.source.values()):
            raise DataError(f"{self.path}: attribute 'source' must map names to SHA-256 sums")
        self.encoder: dict[str, Any] = read_json(file, "encoder", size, dict)
        with reading(str(self.path), "the attributes"):
            seeded = "seed" in file.attrs
        self.seed: int | None = read_integer(file, "seed", size, 0, (1 << 64) - 1) if seeded else None

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
        with reading(self._where, "the group"):
            refuse_links(file._h5, name, self._where)
            group = file._h5[name]
            if not isinstance(group, h5py.Group):
                raise DataError(f"{self._where}: must be a group of data sets")
            with_images = group.get("images", getlink=True) is not None
            present = [column for column in COLUMNS if column != "images" or with_images]
        self._columns = {
            column: open_dataset(group, column, COLUMNS[column], self._where, file._size)
            for column in present
        }
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
        if self.has_images and not images_fit(sizes["images"], self._n_samples, file.shape):
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
        return self._columns[column].read(low, high)

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
            step = image_chunk(self.shape) * 16
            for low in range(0, len(self), step):
                self._read("images", low, min(low + step, len(self)))

    def __repr__(self) -> str:
        return f"<EventSplit {self._where}: {len(self)} samples, {self.n_events} events>"


def _why_not_open(error: Exception) -> str:
    why = reason(error)
    if "signature not found" in why:
        return "not an HDF5 file; event files are made with `evsnn convert-mnist` or `evsnn convert-nmnist`"
    return why_not_open(error)
