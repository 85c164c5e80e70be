"""The bytes of N-MNIST recordings become events.

A recording is a file of five bytes an event, a big-endian number of 40 bits: x (8 bits), y (8), polarity (1:
1 where it became brighter, ON; 0 where it became darker, OFF) and time in microseconds (23). The sensor has
34 x 34 pixels. A record with y = 240 is no event: it adds 2^13 microseconds to all times after it, as in the
authors' Python reader and in tonic. (Their MATLAB reader knows no such marker. The recordings last a third of
a second, for which 23 bits suffice, so that none should hold one.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from evsnn_kernels.cpu import recording as kernel

from evsnn.backends import CpuBackend
from evsnn.datasets.recordings import Recording
from evsnn.encoders.poisson import poisson_table
from evsnn.errors import DataError, SettingsError
from evsnn.events.queue import HostQueue
from evsnn.seeds import seed_words

Int64 = npt.NDArray[np.int64]

CLASSES = 10
#: Pixels along each side of the sensor, and of what ``crop`` leaves.
SIDE, CROPPED = kernel.SIDE, 28

# What bounds the memory: events selected at a time, and events of one recording with its noise.
_PIECE_EVENTS = 1 << 22
_MOST_EVENTS = 1 << 24

_LATEST_MS = 2.0**32 / 1000.0


@dataclass(frozen=True)
class RecordingSettings:
    """What becomes of a recording (docs/model.md, S17), in the order of the steps.

    Parameters
    ----------
    noise_hz : float
        Background noise: events a second that each pixel adds of itself, half of each polarity.
    refractory_ms : float
        Refractory filter: an event is dropped that follows the last kept event of its pixel, of either
        polarity, in less than this time; 0 keeps all.
    start_ms, stop_ms : float
        Time window: events at start_ms <= time < stop_ms are kept, and time counts from start_ms. Without
        stop_ms the window is open.
    crop : bool
        Keep the middle 28 x 28 of the 34 x 34 pixels.
    first : int
        Keep only the first so many of the events that are left; 0 keeps all.
    merge_polarity : bool
        One channel for both polarities instead of OFF (channel 0) and ON (channel 1).

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    noise_hz: float = 0.0
    refractory_ms: float = 0.0
    start_ms: float = 0.0
    stop_ms: float | None = None
    crop: bool = False
    first: int = 0
    merge_polarity: bool = False

    def __post_init__(self) -> None:
        for name, high in (("noise_hz", 1e4), ("refractory_ms", _LATEST_MS), ("start_ms", _LATEST_MS)):
            _check_number(name, getattr(self, name), 0.0, high)
        if self.stop_ms is not None:
            _check_number("stop_ms", self.stop_ms, 0.0, _LATEST_MS)
            if _microseconds(self.stop_ms) <= self.start_us:
                raise SettingsError(
                    f"stop_ms must lie at least a microsecond after start_ms, {self.start_ms}, "
                    f"got {self.stop_ms}"
                )
        for name in ("crop", "merge_polarity"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if isinstance(self.first, bool) or not isinstance(self.first, int) or self.first < 0:
            raise SettingsError(f"first must be 0 or a number of events, got {self.first!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the input, (C, H, W)."""
        side = CROPPED if self.crop else SIDE
        return 1 if self.merge_polarity else 2, side, side

    @property
    def start_us(self) -> int:
        """Start of the window in microseconds."""
        return _microseconds(self.start_ms)

    @property
    def duration_us(self) -> int | None:
        """Length of the window in microseconds; None where it is open."""
        return None if self.stop_ms is None else _microseconds(self.stop_ms) - self.start_us

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as event files store them."""
        return {"kind": "nmnist", **asdict(self)}


@dataclass(frozen=True, eq=False)
class Checked:
    """The bytes of some recordings, one after the other, and what a first look at them found.

    ``sound`` are the indices of those without fault, ``problems`` the others' faults in order; the arrays
    have an entry for each sound one.
    """

    data: npt.NDArray[np.uint8]
    begin: Int64
    end: Int64
    events: Int64
    last_us: Int64
    sound: Int64
    problems: list[DataError]


class RecordingReader:
    """Bytes of recordings to events, in parallel; results do not depend on the number of threads."""

    def __init__(self, settings: RecordingSettings, seed: int, backend: CpuBackend) -> None:
        self._settings = settings
        self._key = seed_words(seed)
        self._backend = backend
        # Mean of one pixel and polarity in one segment.
        self._noise_mean = settings.noise_hz / 2.0 * (1 << kernel.SEGMENT_BITS) / 1e6
        self._noise_table = (
            np.ascontiguousarray(poisson_table(self._noise_mean)[255])
            if self._noise_mean > 0.0
            else np.empty(0, np.uint32)
        )

    def read(
        self, recordings: Sequence[Recording], bad: Callable[[DataError], None]
    ) -> Iterator[tuple[npt.NDArray[np.uint16], HostQueue]]:
        """Read recordings; give labels and events of the sound ones, and the others to ``bad``, in order."""
        contents: list[bytes | DataError] = [b""] * len(recordings)
        size = sum(one.size for one in recordings)
        self._backend.run(_read_range, len(recordings), recordings, contents, work=1000 * size)
        checked = self.check(contents, [one.name for one in recordings])
        for problem in checked.problems:
            bad(problem)
        kept = [recordings[i] for i in checked.sound]
        labels = np.array([one.label for one in kept], np.uint16)
        numbers = np.array([one.number for one in kept], np.int64)
        # Recordings of one number differ in label or split, and so do their streams of random numbers.
        streams = np.array([one.label + CLASSES * (one.split == "test") for one in kept], np.int64)
        for part, queue in self.select(checked, numbers, streams):
            yield labels[part], queue

    def check(self, contents: Sequence[bytes | DataError], names: Sequence[str]) -> Checked:
        """Find out which contents are recordings."""
        problems: list[DataError | None] = [
            content if isinstance(content, DataError) else _wrong_size(content, name)
            for content, name in zip(contents, names, strict=True)
        ]
        index = [i for i, problem in enumerate(problems) if problem is None]
        whole = [content for i in index if isinstance(content := contents[i], bytes)]
        data = np.frombuffer(b"".join(whole), np.uint8)
        edges = np.zeros(len(whole) + 1, np.int64)
        np.cumsum([len(content) for content in whole], out=edges[1:])
        fault = np.zeros((len(whole), 4), np.int64)
        events, last_us = np.zeros(len(whole), np.int64), np.zeros(len(whole), np.int64)
        self._backend.run(
            kernel.check,
            len(whole),
            data,
            edges[:-1],
            edges[1:],
            fault,
            events,
            last_us,
            work=len(data),
        )
        for row, i in enumerate(index):
            problems[i] = _fault(names[i], fault[row], int(events[row])) or self._too_many(
                names[i], int(events[row]), int(last_us[row])
            )
        rows = np.array([row for row, i in enumerate(index) if problems[i] is None], np.int64)
        return Checked(
            data,
            edges[rows],
            edges[rows + 1],
            events[rows],
            last_us[rows],
            np.array(index, np.int64)[rows],
            [problem for problem in problems if problem is not None],
        )

    def select(self, checked: Checked, numbers: Int64, streams: Int64) -> Iterator[tuple[slice, HostQueue]]:
        """Give the events of the sound recordings, a stretch of them at a time."""
        settings = self._settings
        stop_us = 1 << 62 if settings.stop_ms is None else _microseconds(settings.stop_ms)
        noise = self._noise(checked.last_us)
        # Room for what the noise may add with near certainty; where it is too little, once more.
        room = checked.events + np.ceil(noise + 6.0 * np.sqrt(noise)).astype(np.int64)
        for low, high in self._pieces(checked.events + noise):
            part = slice(low, high)
            size, count = room[part], np.zeros(high - low, np.int64)
            while True:
                slot = np.zeros(len(size) + 1, np.int64)
                np.cumsum(size, out=slot[1:])
                times, units = np.empty(slot[-1], np.uint32), np.empty(slot[-1], np.uint32)
                self._backend.run(
                    kernel.select,
                    len(size),
                    checked.data,
                    checked.begin[part],
                    checked.end[part],
                    numbers[part],
                    streams[part],
                    settings.start_us,
                    stop_us,
                    settings.first or 1 << 62,
                    settings.shape[0],
                    (SIDE - settings.shape[1]) // 2,
                    _microseconds(settings.refractory_ms),
                    self._noise_table,
                    *self._key,
                    times,
                    units,
                    slot,
                    count,
                    work=10 * int(slot[-1]),
                )
                if (count <= size).all():
                    break
                size = np.maximum(size, count)
            yield part, HostQueue(times, units, slot[:-1], count)

    @staticmethod
    def _pieces(expected: npt.NDArray[np.float64]) -> Iterator[tuple[int, int]]:
        """Stretches of recordings with a bounded number of events each."""
        low, total = 0, 0.0
        for i, events in enumerate(expected.tolist()):
            if i > low and total + events > _PIECE_EVENTS:
                yield low, i
                low, total = i, 0.0
            total += events
        if low < len(expected):
            yield low, len(expected)

    def _noise(self, last_us: Any) -> Any:  # noqa: ANN401 - a number or an array of them
        return ((last_us >> kernel.SEGMENT_BITS) + 1) * (2 * kernel.PIXELS * self._noise_mean)

    def _too_many(self, name: str, events: int, last_us: int) -> DataError | None:
        total = events + self._noise(last_us)
        if self._noise_mean == 0.0 or total <= _MOST_EVENTS:
            return None
        return DataError(
            f"{name}: its {last_us / 1e6:.3g} s with noise make {total:.3g} events, more than the "
            f"{_MOST_EVENTS} that are drawn; lower the noise"
        )


def _read_range(
    recordings: Sequence[Recording], contents: list[bytes | DataError], first: int, last: int
) -> None:
    for i in range(first, last):
        try:
            contents[i] = recordings[i].read()
        except DataError as error:
            contents[i] = error


def _wrong_size(content: bytes, name: str) -> DataError | None:
    if not content:
        return DataError(f"{name}: the recording is empty")
    if len(content) % kernel.EVENT_BYTES:
        return DataError(
            f"{name}: {len(content)} bytes are no multiple of {kernel.EVENT_BYTES}, the bytes of an event; "
            "is the file cut off?"
        )
    return None


def _fault(name: str, fault: Int64, events: int) -> DataError | None:
    kind, event, a, b = (int(value) for value in fault)
    place = f"{name}: event {event} (byte {kernel.EVENT_BYTES * event})"
    if kind == kernel.FAULT_PIXEL:
        return DataError(f"{place}: pixel x {a}, y {b} is outside the {SIDE}x{SIDE} of the sensor")
    if kind == kernel.FAULT_TIME_BACK:
        return DataError(f"{place}: time runs back from {a} to {b} us")
    if kind == kernel.FAULT_TIME_LARGE:
        return DataError(f"{place}: time {b} us does not fit 32 bits")
    if not events:
        return DataError(f"{name}: the recording is empty, it holds overflow markers only")
    return None


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and low <= value <= high):
        raise SettingsError(f"{name} must lie in {low:g} to {high:g}, got {value}")


def _microseconds(milliseconds: float) -> int:
    return round(milliseconds * 1000.0)
