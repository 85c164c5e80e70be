"""Decisions of a network while events come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from evsnn.errors import SettingsError
from evsnn.network.stream import Stream, StreamSpikes


@dataclass(frozen=True)
class Decision:
    """What the network says at one time.

    Parameters
    ----------
    time_us : int
        All events before this time have been seen, and none of it or later.
    label : int
        Class with most output spikes in the window, ties by residual potential (docs/model.md, S9).
    spikes : int
        Output spikes of this class in the window.
    total : int
        Output spikes of all classes in the window.
    """

    time_us: int
    label: int
    spikes: int
    total: int


class DecisionMaker:
    """Decides at a fixed step of the sensor's time, from the output spikes of a window that ends there.

    Steps are counted from the first event; one in which no event acted brings no decision. The result does
    not depend on the packets in which events come.

    Parameters
    ----------
    stream : Stream
        At rest.
    window_us : int
        Length of the window; 0: since the start.
    step_us : int
        Time between two decisions.

    Raises
    ------
    SettingsError
        If a time is out of range.
    """

    def __init__(self, stream: Stream, window_us: int, step_us: int) -> None:
        if window_us < 0 or step_us < 1:
            raise SettingsError(
                f"the window must be 0 us or more and the step at least 1 us, got {window_us} and {step_us}"
            )
        self._stream = stream
        self._window = window_us
        self._step = step_us
        self._first: int | None = None
        self._end: int | None = None  # of the step in which events have acted since the last decision
        self._counts = stream.counts
        self._recent: deque[StreamSpikes] = deque()

    def decide(self) -> Iterator[Decision]:
        """Simulate what is complete; yield the decisions due."""
        stream = self._stream
        while True:
            if self._end is None:
                time = stream.next_time
                if time is None or time >= stream.open_from:
                    return
                if self._first is None:
                    self._first = time
                self._end = time - (time - self._first) % self._step + self._step
            self._count(stream.run(self._end))
            if stream.open_from < self._end:
                return
            yield self._decision(self._end)
            self._end = None

    def finish(self) -> Iterator[Decision]:
        """Let all events held act; yield the last decisions, the very last one at the end of its step."""
        self._stream.accept_end()
        yield from self.decide()
        if self._end is not None:
            yield self._decision(self._end)
            self._end = None

    def _count(self, spikes: StreamSpikes) -> None:
        if len(spikes):
            self._counts += np.bincount(spikes.units, minlength=len(self._counts))
            if self._window:
                self._recent.append(spikes)

    def _decision(self, time: int) -> Decision:
        while self._recent:
            oldest = self._recent[0]
            gone = int(np.searchsorted(oldest.times, time - self._window))
            self._counts -= np.bincount(oldest.units[:gone], minlength=len(self._counts))
            if gone < len(oldest):
                self._recent[0] = StreamSpikes(oldest.times[gone:], oldest.units[gone:])
                break
            self._recent.popleft()
        label = self._stream.predict(self._counts)
        return Decision(time, label, int(self._counts[label]), int(self._counts.sum()))
