"""The answer of a network while a recording is still running."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit
from evsnn.events.queue import HostQueue
from evsnn.network.network import Network, queues_of
from evsnn.network.simulation import Simulator, predicted_classes

#: More points than this in a curve are taken for a typing error.
MOST_POINTS = 10_000
_TIME_POINTS = 100
_EVENT_POINTS = 80
NEVER = -1  # before any event: times count from 0

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AnswerCurve:
    """What a network answers, and has spent, after a part of each recording.

    Parameters
    ----------
    by : {"time", "events", "margin"}
        What the points count: time since the recording began, input events, or the lead at which the answer
        is given (:func:`evsnn.training.early_answer.early_answers`).
    at : ndarray of int64 or float64, shape (n_points,)
        Microseconds, a number of events, or a lead in spikes; ascending. At the last point every recording
        has ended.
    time_us : ndarray of float64, shape (n_points,)
        Time up to which events were read; by events and by margin, the mean over the samples.
    samples : int
        Number of samples.
    correct : ndarray of int64, shape (n_points,)
        Samples whose answer at this point is their label.
    spiking : ndarray of int64, shape (n_points,)
        Samples with at least one output spike so far.
    input_events, synaptic_operations : ndarray of float64, shape (n_points,)
        Mean over the samples of what came in and what was spent so far.
    """

    by: str
    at: Int64 | Float64
    time_us: Float64
    samples: int
    correct: Int64
    spiking: Int64
    input_events: Float64
    synaptic_operations: Float64

    @property
    def accuracy(self) -> Float64:
        """Share of samples whose answer is their label, shape (n_points,)."""
        return self.correct / max(self.samples, 1)

    @property
    def spiking_share(self) -> Float64:
        """Share of samples with at least one output spike so far, shape (n_points,)."""
        return self.spiking / max(self.samples, 1)

    @property
    def settled(self) -> int:
        """First point from which on the accuracy is never more than 1 point (0.01) below the final one."""
        behind = 100 * (self.correct[-1] - self.correct) > self.samples
        return int(np.flatnonzero(behind)[-1]) + 1 if behind.any() else 0

    def columns(self) -> dict[str, list[Any]]:
        """Plain values by column, as ``over-time.csv`` names them."""
        at: list[Any] = (self.at / 1000).tolist() if self.by == "time" else self.at.tolist()
        return {
            "by": [self.by] * len(self.at),
            "at": at,
            "time_ms": (self.time_us / 1000).tolist(),
            "input_events": self.input_events.tolist(),
            "synaptic_operations": self.synaptic_operations.tolist(),
            "spiking_share": self.spiking_share.tolist(),
            "accuracy": self.accuracy.tolist(),
        }


@dataclass(eq=False)
class _Sums:
    """Sums over samples for each point of a curve."""

    by: str
    at: Int64
    time: Int64 = field(init=False)
    correct: Int64 = field(init=False)
    spiking: Int64 = field(init=False)
    events: Int64 = field(init=False)
    operations: Int64 = field(init=False)

    def __post_init__(self) -> None:
        for name in ("time", "correct", "spiking", "events", "operations"):
            setattr(self, name, np.zeros(len(self.at), np.int64))

    def curve(self, samples: int) -> AnswerCurve:
        n = max(samples, 1)
        # The time of a curve by time is its point, also after the last event of a sample.
        time = self.at.astype(np.float64) if self.by == "time" else self.time / n
        return AnswerCurve(
            self.by,
            self.at,
            time,
            samples,
            self.correct,
            self.spiking,
            self.events / n,
            self.operations / n,
        )


def time_grid(duration_us: int, step_us: int | None = None) -> Int64:
    """Points from 0 to the duration, both included.

    Parameters
    ----------
    duration_us : int
    step_us : int, optional
        Default: the smallest of 1, 2, 5, 10, 20, 50, ... that makes at most 100 steps.

    Raises
    ------
    SettingsError
        If the step is below 1 or makes more than 10,000 points.
    """
    if step_us is None:
        step_us = 1
        while -(-duration_us // step_us) > _TIME_POINTS:
            step_us = step_us * 5 // 2 if str(step_us).startswith("2") else step_us * 2
    if step_us < 1:
        raise SettingsError(f"the step in time must be 1 us (0.001 ms) or more, got {step_us} us")
    if duration_us // step_us > MOST_POINTS:
        raise SettingsError(
            f"a step of {step_us / 1000:g} ms makes more than {MOST_POINTS} points of a recording of "
            f"{duration_us / 1000:g} ms; take a longer one"
        )
    return np.append(np.arange(0, duration_us, step_us, dtype=np.int64), np.int64(duration_us))


def event_grid(largest: int) -> Int64:
    """About 80 numbers of events from 1 to the largest recording's, in equal ratios."""
    if largest < 1:
        return np.zeros(1, np.int64)
    return np.unique(np.rint(np.geomspace(1, largest, _EVENT_POINTS)).astype(np.int64))


def over_time(
    network: Network,
    data: EventSet | EventSplit,
    *,
    step_us: int | None = None,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> tuple[AnswerCurve, AnswerCurve]:
    """Accuracy and cost as functions of time and of the number of input events since the start.

    The answer at time t is what the network answers to the recording cut off after t, events at t included:
    most output spikes, ties by residual potential, then the lowest class (docs/model.md, S9). A number
    of events n means cut off at the time of event n: simultaneous events are never parted.

    Parameters
    ----------
    network : Network
    data : EventSet or EventSplit
    step_us : int, optional
        Step in time; default: see :func:`time_grid`.
    threads : int, optional
        Default: all processors. The result does not depend on it.
    report : callable, optional
        Called with the number of samples done.

    Returns
    -------
    by_time, by_events : AnswerCurve

    Raises
    ------
    DataError
        If the data do not fit the network, or there are no samples.
    SettingsError
        If the step makes no sense.

    Notes
    -----
    Each layer but the last is simulated once for each sample. The last one stops at every point to read its
    potentials and goes on from there.
    """
    network.check_fits(data)
    if not len(data):
        raise DataError("there are no samples to classify")
    by_time = _Sums("time", time_grid(data.duration_us, step_us))
    by_events = _Sums("events", event_grid(int(np.diff(data.offsets).max())))
    synapses = [layer.synapses for layer in network.layers]
    done = 0
    with CpuBackend(threads) as backend:
        simulator = Simulator(network.layers, backend)
        for queue in queues_of(data):
            queues = simulator.inputs(queue)
            labels = data.labels[done : done + len(queue)].astype(np.int64)
            for sums in (by_time, by_events):
                cuts = _cuts(queue, sums)
                sums.time += np.maximum(cuts, 0).sum(axis=0)
                parts = [spent_by(*each, cuts) for each in zip(queues, synapses, strict=True)]
                sums.events += parts[0][0].sum(axis=0)
                sums.operations += sum(operations.sum(axis=0) for _, operations in parts)
                for point, (counts, potential) in enumerate(outputs_at(simulator, queues[-1], parts[-1][0])):
                    sums.correct[point] += (predicted_classes(counts, potential) == labels).sum()
                    sums.spiking[point] += counts.any(axis=1).sum()
            done += len(queue)
            if report is not None:
                report(len(queue))
    return by_time.curve(done), by_events.curve(done)


def _cuts(queue: HostQueue, sums: _Sums) -> Int64:
    """Time up to which events are read, shape (n_samples, n_points)."""
    if sums.by == "time":
        return np.broadcast_to(sums.at, (len(queue), len(sums.at)))
    cuts = np.full((len(queue), len(sums.at)), NEVER, np.int64)
    for sample, (start, count) in enumerate(zip(queue.start, queue.count, strict=True)):
        number = np.minimum(sums.at, count)
        some = number > 0
        cuts[sample, some] = queue.times[start + number[some] - 1]
    return cuts


def spent_by(queue: HostQueue, synapses: Int64, cuts: Int64) -> tuple[Int64, Int64]:
    """Events of a queue up to each cut, and their synaptic operations, both (n_samples, n_points).

    Parameters
    ----------
    queue : HostQueue
    synapses : ndarray of int64, shape (n_in,)
        Synaptic operations of one event of each unit.
    cuts : ndarray of int64, shape (n_samples, n_points)
        Time up to which events are read.
    """
    reached = np.empty(cuts.shape, np.int64)
    operations = np.empty(cuts.shape, np.int64)
    for sample, (start, count) in enumerate(zip(queue.start, queue.count, strict=True)):
        stretch = slice(int(start), int(start + count))
        reached[sample] = np.searchsorted(queue.times[stretch], cuts[sample], side="right")
        spent = np.append(np.int64(0), np.cumsum(synapses[queue.units[stretch]]))
        operations[sample] = spent[reached[sample]]
    return reached, operations


def outputs_at(simulator: Simulator, queue: HostQueue, reached: Int64) -> Iterator[tuple[Int64, Float32]]:
    """Output spikes and potentials of each sample after a growing part of the last layer's input.

    Parameters
    ----------
    simulator : Simulator
    queue : HostQueue
        Input of the last layer.
    reached : ndarray of int64, shape (n_samples, n_points)
        Events of it that each point has seen, ascending.

    Yields
    ------
    counts : ndarray of int64, shape (n_samples, n_out)
        Valid until the next point.
    potential : ndarray of float32, shape (n_samples, n_out)
        Residual potential over threshold.
    """
    backend, layer, placed = simulator.backend, simulator.layers[-1], simulator.placed[-1]
    state = layer.new_state(len(queue), backend)
    counts = np.zeros((len(queue), layer.n_out), np.int64)
    before = np.zeros(len(queue), np.int64)
    for now in reached.T:
        if (now > before).any():
            part = HostQueue(queue.times, queue.units, queue.start + before, now - before)
            counts += layer.forward(part, state, placed).fetch(backend).unit_counts(layer.n_out)
            before = now
        yield counts, layer.membranes(*backend.fetch(state.potential))


def to_csv(*curves: AnswerCurve) -> str:
    """Text of ``over-time.csv``: a head and one line a point, curve after curve."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for curve in curves:
        columns = curve.columns()
        if curve is curves[0]:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
