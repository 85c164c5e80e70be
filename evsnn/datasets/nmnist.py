"""N-MNIST: MNIST digits recorded with an event camera that moved in three saccades.

G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, "Converting static image datasets to spiking neuromorphic
datasets using saccades", Front. Neurosci. 9:437 (2015).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evsnn.backends import CpuBackend
from evsnn.datasets.division import divide
from evsnn.datasets.encoding import pack
from evsnn.datasets.nmnist_reader import CLASSES, RecordingReader, RecordingSettings
from evsnn.datasets.recordings import LAYOUT, Recording, RecordingSource, read_file
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import Events
from evsnn.events.writer import EventWriter

__all__ = ["Conversion", "RecordingSettings", "convert_nmnist", "parse_recording", "read_recording"]

# What is read at a time, which bounds the memory of a conversion.
_BLOCK, _BLOCK_BYTES = 512, 1 << 25


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Parameters
    ----------
    recordings, events : dict of str to int
        Number of recordings and of events of each split of the file.
    silent : int
        Recordings of which no event was left.
    skipped : list of str
        A line for each file that was left out.
    """

    recordings: dict[str, int]
    events: dict[str, int]
    silent: int
    skipped: list[str]


def parse_recording(
    data: bytes,
    name: str = "recording",
    settings: RecordingSettings | None = None,
    *,
    seed: int = 0,
    number: int = 0,
) -> Events:
    """Read the bytes of one recording.

    Parameters
    ----------
    data : bytes
        Five bytes an event.
    name : str
        Named in messages.
    settings : RecordingSettings, optional
        Default: everything as it was recorded.
    seed, number : int
        Seed of the noise, and which of its streams.

    Returns
    -------
    Events
        Sorted by (time, unit); the unit of pixel (x, y) is ``(c*H + y)*W + x``, channel c the polarity.

    Raises
    ------
    DataError
        If the bytes are no recording; the message names the event.
    """
    reader = RecordingReader(settings or RecordingSettings(), seed, CpuBackend(1))
    checked = reader.check([data], [name])
    for problem in checked.problems:
        raise problem
    [(_, queue)] = reader.select(checked, np.array([number]), np.zeros(1, np.int64))
    return Events(*queue.sample(0))


def read_recording(
    path: str | os.PathLike[str], settings: RecordingSettings | None = None, *, seed: int = 0
) -> Events:
    """Read one recording from its file; see :func:`parse_recording`.

    Raises
    ------
    DataError
        If the file cannot be read or is no recording.
    """
    return parse_recording(read_file(path), str(path), settings, seed=seed)


def convert_nmnist(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    settings: RecordingSettings | None = None,
    *,
    seed: int = 0,
    test: float = 0,
    validation: float = 0,
    limit: int | None = None,
    skip_bad: bool = False,
    force: bool = False,
    threads: int | None = None,
    begin: Callable[[int], None] | None = None,
    report: Callable[[int], None] | None = None,
    complain: Callable[[str], None] | None = None,
) -> Conversion:
    """Turn N-MNIST recordings into an event file.

    Within a split the samples are ordered by the number of the recording. The file does not depend on the
    number of threads, and memory does not grow with the number of recordings.

    Parameters
    ----------
    source : path-like
        A folder with ``Train`` and ``Test`` (or ``Train.zip`` and ``Test.zip``), or a zip archive of them,
        which is read in place.
    path : path-like
        Event file to write; it appears when it is complete.
    settings : RecordingSettings, optional
        Default: everything as it was recorded.
    seed : int
        Seed of the noise.
    test, validation : int or float
        Training recordings to hold out as these splits: a number of recordings (int), or a share of them
        below 1 (float). Every digit gives its share, each time the last by number. ``test`` is for sources
        without a test set of their own, and is taken first.
    limit : int, optional
        Take only the first so many recordings of ``Train`` and of ``Test``.
    skip_bad : bool
        Leave out files that are wrong instead of stopping at the first.
    force : bool
        Replace a file that is there.
    threads : int, optional
        Default: all processors.
    begin : callable, optional
        Called once, with the number of recordings to read.
    report : callable, optional
        Called with the number of recordings done since the last call.
    complain : callable, optional
        Called with one line for each file that is left out.

    Returns
    -------
    Conversion

    Raises
    ------
    DataError
        If a file is wrong, no recording is left, or the file exists or cannot be written.
    SettingsError
        If the held-out splits leave nothing to train on.
    """
    settings = settings or RecordingSettings()
    if limit is not None and limit < 1:
        raise SettingsError(f"limit must be at least 1, got {limit}")
    skipped: list[str] = []

    def bad(problem: DataError) -> None:
        if not skip_bad:
            raise problem
        skipped.append(str(problem))
        if complain is not None:
            complain(str(problem))

    with RecordingSource(source) as found, CpuBackend(threads) as backend:
        for problem in found.problems:
            bad(problem)
        splits = divide({name: part[:limit] for name, part in found.splits.items()}, test, validation)
        chosen = [one for part in splits.values() for one in part]
        if not chosen:
            raise DataError(f"{found.path}: holds no recordings ({LAYOUT})")
        reader = RecordingReader(settings, seed, backend)
        with EventWriter(
            path,
            shape=settings.shape,
            duration_us=settings.duration_us,
            classes=CLASSES,
            source=found.digests(chosen, backend),
            encoder=settings.to_dict(),
            seed=seed if settings.noise_hz else None,
            force=force,
        ) as writer:
            if begin is not None:
                begin(len(chosen))
            recordings, events = dict.fromkeys(splits, 0), dict.fromkeys(splits, 0)
            silent = 0
            for name, part in splits.items():
                writer.begin_split(name)
                for block in _blocks(part):
                    for labels, queue in reader.read(block, bad):
                        writer.append(*pack(queue), queue.count, labels)
                        recordings[name] += len(queue)
                        events[name] += int(queue.count.sum())
                        silent += int((queue.count == 0).sum())
                    if report is not None:
                        report(len(block))
                if not recordings[name]:
                    raise DataError(f"{found.path}: no recording of the split {name!r} could be read")
    return Conversion(recordings, events, silent, skipped)


def _blocks(recordings: Sequence[Recording]) -> Iterator[Sequence[Recording]]:
    """Cut recordings into blocks of a bounded number of recordings and bytes."""
    low, size = 0, 0
    for i, one in enumerate(recordings):
        if i > low and (i - low == _BLOCK or size + one.size > _BLOCK_BYTES):
            yield recordings[low:i]
            low, size = i, 0
        size += one.size
    if low < len(recordings):
        yield recordings[low:]
