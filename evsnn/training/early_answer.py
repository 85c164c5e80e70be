"""The early answer: a sample is read no further once the lead of the winning output is safe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit
from evsnn.events.queue import HostQueue
from evsnn.network.network import Network, queues_of
from evsnn.network.simulation import Simulator, predicted_classes
from evsnn.training.over_time import NEVER, AnswerCurve, outputs_at, spent_by

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

#: Leads that are tried where a margin is to be chosen: from almost none to never (an infinite one).
MARGINS = (*(0.25 * step for step in range(1, 17)), *(0.5 * step for step in range(9, 41)), float("inf"))


def leads(counts: Int64, potential: npt.NDArray[np.float32]) -> Float64:
    """Lead of the answer over the best other output of each sample, in spikes, shape (n_samples,).

    An output is worth its spikes and its residual potential over threshold: what it received and has not
    forgotten (docs/operations.md, O17). The answer has most spikes, so its lead may be below 0.

    Parameters
    ----------
    counts : ndarray of int64, shape (n_samples, n_out)
        Output spike counts.
    potential : ndarray of float32, shape (n_samples, n_out)
        Residual membrane potential of the output neurons over their threshold.
    """
    worth = counts + potential.astype(np.float64)
    if worth.shape[1] == 1:
        return np.full(len(worth), np.inf)
    rows = np.arange(len(worth))
    answer = predicted_classes(counts, potential)
    own = worth[rows, answer]
    worth[rows, answer] = -np.inf
    lead: Float64 = own - worth.max(axis=1)
    return lead


def early_answers(
    network: Network,
    data: EventSet | EventSplit,
    margins: Sequence[float] = MARGINS,
    *,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> AnswerCurve:
    """Accuracy and cost where each sample is read until its lead reaches a margin (docs/operations.md, O17).

    After every time group of the output layer's input the lead is compared with the margin; at the first
    that reaches it the answer is given, and no later event is read or computed. A sample whose lead never
    reaches it is read to its end.

    Parameters
    ----------
    network : Network
    data : EventSet or EventSplit
    margins : sequence of float
        Leads in spikes, above 0 and ascending; ``inf`` for reading all.
    threads : int, optional
        Default: all processors. The result does not depend on it.
    report : callable, optional
        Called with the number of samples done.

    Returns
    -------
    AnswerCurve
        By ``margin``, a point each. Operations are those of the events up to the answer, exactly.

    Raises
    ------
    DataError
        If the data do not fit the network, or there are no samples.
    SettingsError
        If the margins make no sense.
    """
    network.check_fits(data)
    if not len(data):
        raise DataError("there are no samples to classify")
    at = np.asarray(margins, np.float64)
    if not at.size or not (at > 0).all() or not (np.diff(at) > 0).all():
        raise SettingsError(f"margins must be numbers above 0 in ascending order, got {list(margins)}")
    synapses = [layer.synapses for layer in network.layers]
    sums = {
        name: np.zeros(len(at), np.int64) for name in ("time", "correct", "spiking", "events", "operations")
    }
    done = 0
    with CpuBackend(threads) as backend:
        simulator = Simulator(network.layers, backend)
        for queue in queues_of(data):
            queues = simulator.inputs(queue)
            labels = data.labels[done : done + len(queue)].astype(np.int64)
            cuts, answers, spiking = _stops(simulator, queue, queues[-1], at)
            parts = [spent_by(*each, cuts) for each in zip(queues, synapses, strict=True)]
            sums["time"] += np.maximum(cuts, 0).sum(axis=0)
            sums["correct"] += (answers == labels[:, None]).sum(axis=0)
            sums["spiking"] += spiking.sum(axis=0)
            sums["events"] += parts[0][0].sum(axis=0)
            sums["operations"] += sum(operations.sum(axis=0) for _, operations in parts)
            done += len(queue)
            if report is not None:
                report(len(queue))
    return AnswerCurve(
        "margin",
        at,
        sums["time"] / done,
        done,
        sums["correct"],
        sums["spiking"],
        sums["events"] / done,
        sums["operations"] / done,
    )


def choose_margin(curve: AnswerCurve, loss: float = 0.0) -> int:
    """Point of the cheapest margin that is safe on a validation set.

    Parameters
    ----------
    curve : AnswerCurve
        Of :func:`early_answers` on validation data, the last margin infinite.
    loss : float
        Share of samples by which the accuracy may fall below that of reading all.

    Returns
    -------
    int
        First point from which on the accuracy is never more than ``loss`` below the last one's.
    """
    behind = curve.correct[-1] - curve.correct > loss * curve.samples
    return int(np.flatnonzero(behind)[-1]) + 1 if behind.any() else 0


def _stops(
    simulator: Simulator, queue: HostQueue, last: HostQueue, margins: Float64
) -> tuple[Int64, Int64, npt.NDArray[np.bool_]]:
    """Time up to which events are read, answer, and whether there was an output spike, at each margin.

    Parameters
    ----------
    queue, last : HostQueue
        Input of the network, and of its last layer.
    margins : ndarray of float64, shape (n_margins,)

    Returns
    -------
    cuts, answers : ndarray of int64, shape (n_samples, n_margins)
    spiking : ndarray of bool, shape (n_samples, n_margins)
    """
    reached, stamps = _groups(last)
    shape = len(queue), len(margins)
    cuts = np.full(shape, NEVER, np.int64)
    answers = np.zeros(shape, np.int64)
    spiking = np.zeros(shape, bool)
    running: npt.NDArray[np.bool_] = np.ones(shape, bool)
    for point, (counts, potential) in enumerate(outputs_at(simulator, last, reached)):
        # What a sample answers at its end also holds for all margins that it did not reach.
        answers = np.where(running, predicted_classes(counts, potential)[:, None], answers)
        spiking = spiking | (running & (counts.max(axis=1)[:, None] > 0))
        safe: npt.NDArray[np.bool_] = leads(counts, potential)[:, None] >= margins
        stops = running & safe
        cuts = np.where(stops, stamps[:, point, None], cuts)
        running = running & ~stops
        if not running.any():
            break
    ends = np.array([times[-1] if len(times) else NEVER for times in _times(queue)], np.int64)
    return np.where(running, ends[:, None], cuts), answers, spiking


def _times(queue: HostQueue) -> list[Int64]:
    """Times of the events of each sample."""
    return [
        queue.times[start : start + count].astype(np.int64)
        for start, count in zip(queue.start, queue.count, strict=True)
    ]


def _groups(queue: HostQueue) -> tuple[Int64, Int64]:
    """Events up to each time group, and its time; a sample stays at its last one, (n_samples, n_points).

    There is at least one point; a sample without events has seen none at it, at no time.
    """
    reached, stamps = [], []
    for times in _times(queue):
        last = np.flatnonzero(np.append(times[1:] != times[:-1], True)) if len(times) else np.array([-1])
        reached.append(last + 1)
        stamps.append(times[last] if len(times) else np.array([NEVER]))
    points = max(len(each) for each in reached)
    return _filled(reached, points), _filled(stamps, points)


def _filled(rows: list[Int64], points: int) -> Int64:
    """Rows of one length: a shorter one repeats its last value."""
    return np.array([np.pad(row, (0, points - len(row)), mode="edge") for row in rows])
