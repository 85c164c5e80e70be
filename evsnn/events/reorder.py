"""Events of a live source, put in order: held until nothing earlier can come, then given away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, SettingsError
from evsnn.events.core import as_uint32

Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]

#: Times of a stream lie below this: 146,000 years of microseconds, with room to compute in int64.
END_OF_TIME = 1 << 62

_LATE = ("drop", "refuse")


@dataclass(frozen=True)
class OrderSettings:
    """What becomes of events that do not arrive in the order of their times.

    Parameters
    ----------
    reorder_us : int
        An event may come up to so many microseconds behind the newest one; all events are held that long.
        0: only those of the newest time are held.
    late : {"drop", "refuse"}
        What becomes of an event that comes later than that: it is dropped and counted, or it is an error.
    max_held : int
        Most events that are held; more of them are an error.

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    reorder_us: int = 0
    late: str = "drop"
    max_held: int = 1 << 22

    def __post_init__(self) -> None:
        for name, low, high in (("reorder_us", 0, 1 << 40), ("max_held", 1, 1 << 40)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
        if self.late not in _LATE:
            raise SettingsError(f"late must be one of {', '.join(_LATE)}, got {self.late!r}")


class EventOrder:
    """Sorts the events of a source by (time, unit), with memory for a stretch of time only.

    Which events are late depends on the order in which they come, not on how they are cut into packets.

    Parameters
    ----------
    settings : OrderSettings
    n_inputs : int
        Units lie below it.
    """

    def __init__(self, settings: OrderSettings, n_inputs: int) -> None:
        self.settings = settings
        self.n_inputs = n_inputs
        self.clear()

    def clear(self) -> None:
        """Forget all events, the time and the counts."""
        #: Events that came, late ones included.
        self.received = 0
        #: Events that came too late and were dropped.
        self.late = 0
        #: Events that came behind a newer one, but in time.
        self.reordered = 0
        #: Events given away that have time and unit of the one before; they all act.
        self.duplicates = 0
        #: Nothing earlier is still accepted.
        self.open_from = 0
        self._newest = -1
        self._times: Int64 = np.empty(0, np.int64)
        self._units: UInt32 = np.empty(0, np.uint32)

    @property
    def held(self) -> int:
        """Events that wait for a later time."""
        return len(self._times)

    @property
    def next_time(self) -> int | None:
        """Time of the first event held, None if there is none."""
        return int(self._times[0]) if len(self._times) else None

    def accept(
        self, times: npt.ArrayLike, units: npt.ArrayLike, clock: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Take events in the order in which they came; after an error nothing has changed.

        Parameters
        ----------
        times : array-like of int, shape (n,)
            Microseconds, 0 to 2^62 - 1, of any integer type.
        units : array-like of int, shape (n,)
        clock : ndarray of bool, shape (n,), optional
            Where True there is no event, but a time that the source's clock shows: see :meth:`advance`.

        Raises
        ------
        DataError
            If a value is no integer, a time or unit is out of range, an event is late and ``late`` is
            "refuse", or more than ``max_held`` events would be held.
        """
        stamps, inputs = _checked_times(times), as_uint32("event units", units)
        if stamps.shape != inputs.shape:
            raise DataError(
                f"events need a time and a unit each, got shapes {stamps.shape} and {inputs.shape}"
            )
        if not len(stamps):
            return
        if clock is not None:
            inputs = np.where(clock, np.uint32(0), inputs)
        if int(inputs.max()) >= self.n_inputs:
            event = int(np.argmax(inputs >= self.n_inputs))
            raise DataError(
                f"event {event} of the packet: unit {inputs[event]} is outside the input of "
                f"{self.n_inputs} units"
            )
        behind, late = 0, 0
        latest = max(self._newest, int(stamps.max()))
        open_from = max(self.open_from, latest - self.settings.reorder_us)
        if (stamps[1:] < stamps[:-1]).any() or int(stamps[0]) < max(self.open_from, self._newest):
            newest = np.maximum.accumulate(np.concatenate([[self._newest], stamps]))[:-1]
            too_late = stamps < np.maximum(newest - self.settings.reorder_us, self.open_from)
            before = stamps < newest
            if clock is not None:
                too_late &= ~clock
                before &= ~clock
            late = int(np.count_nonzero(too_late))
            if late and self.settings.late == "refuse":
                event = int(np.argmax(too_late))
                raise DataError(
                    f"event {event} of the packet: time {stamps[event]} us comes after "
                    f"{newest[event]} us; allow more with reorder_us, or drop late events"
                )
            behind = int(np.count_nonzero(before)) - late
            if late:
                stamps, inputs = stamps[~too_late], inputs[~too_late]
                clock = None if clock is None else clock[~too_late]
        if clock is not None:
            stamps, inputs = stamps[~clock], inputs[~clock]
        waiting = np.count_nonzero(stamps >= open_from) + self.held
        waiting -= int(self._times.searchsorted(open_from))
        if waiting > self.settings.max_held:
            raise DataError(
                f"{waiting} events from {open_from} us on would have to be held, more than max_held = "
                f"{self.settings.max_held}; lower reorder_us, or raise max_held"
            )
        self.received += late + len(stamps)
        self.late += late
        self.reordered += behind
        self.open_from = open_from
        self._newest = latest
        if len(stamps):
            self._times, self._units = _sorted(
                np.concatenate([self._times, stamps]), np.concatenate([self._units, inputs])
            )

    def advance(self, now: int) -> None:
        """Learn that the source's clock has come to ``now``, as if an event of that time had come.

        Raises
        ------
        DataError
            If ``now`` is no time.
        """
        now = int(_checked_times([now])[0])
        self._newest = max(self._newest, now)
        self.open_from = max(self.open_from, now - self.settings.reorder_us)

    def flush(self) -> None:
        """Let all held events go; later ones of their times, or of earlier ones, are late."""
        self.open_from = max(self.open_from, self._newest + 1)

    def take(self, until: int, most: int) -> tuple[Int64, UInt32]:
        """Give away whole time groups below ``until`` that are complete, in order.

        Parameters
        ----------
        until : int
            Microseconds.
        most : int
            Stop at the first time group after so many events.
        """
        n = int(self._times.searchsorted(min(until, self.open_from)))
        if n > most:
            n = int(self._times.searchsorted(self._times[most - 1], side="right"))
        times, units = self._times[:n], self._units[:n]
        self._times, self._units = self._times[n:], self._units[n:]
        if n > 1:
            self.duplicates += int(np.count_nonzero((times[1:] == times[:-1]) & (units[1:] == units[:-1])))
        return times, units


def _checked_times(times: npt.ArrayLike) -> Int64:
    stamps = np.asarray(times)
    if stamps.size == 0:
        return np.empty(stamps.shape, np.int64)
    if stamps.dtype.kind not in "iu" or stamps.ndim != 1:
        raise DataError(
            f"event times must be a row of integers (microseconds), got {stamps.dtype} in "
            f"{stamps.ndim} dimensions"
        )
    low, high = int(stamps.min()), int(stamps.max())
    if low < 0 or high >= END_OF_TIME:
        event = int(np.argmax((stamps < 0) | (stamps >= END_OF_TIME)))
        raise DataError(
            f"event {event} of the packet: time {stamps[event]} us is outside 0 to 2^62 - 1; "
            "count microseconds from any start"
        )
    return stamps.astype(np.int64)


def _sorted(times: Int64, units: UInt32) -> tuple[Int64, UInt32]:
    """Events in the order of (time, unit)."""
    first = int(times.min())
    if int(times.max()) - first >> 32:
        order = np.lexsort((units, times))
        return times[order], units[order]
    keys = (times - first).astype(np.uint64) << np.uint64(32) | units
    if (keys[1:] < keys[:-1]).any():
        # Equal keys are equal events: any sort will do, and one of numbers is fastest.
        keys.sort()
        times = (keys >> np.uint64(32)).astype(np.int64) + first
        units = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return times, units
