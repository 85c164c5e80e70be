"""Accuracy of a network on a data set, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit
from evsnn.network.network import Network
from evsnn.training.trainer import Totals


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of :func:`evaluate`.

    Parameters
    ----------
    accuracy : float
        Share of samples whose prediction is the label.
    predictions : ndarray of int64, shape (n_samples,)
    confusion : ndarray of int64, shape (n_classes, n_classes)
        ``confusion[label, prediction]``.
    totals : Totals
    """

    accuracy: float
    predictions: npt.NDArray[np.int64]
    confusion: npt.NDArray[np.int64]
    totals: Totals


def evaluate(
    network: Network,
    data: EventSet | EventSplit,
    *,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> Evaluation:
    """Classify every sample of a data set.

    Parameters
    ----------
    network : Network
    data : EventSet or EventSplit
    threads : int, optional
        Default: all processors. The result does not depend on it.
    report : callable, optional
        Called with the number of samples done.
    """
    labels = data.labels
    totals = Totals(len(network.layers))
    predictions = np.empty(len(data), np.int64)
    done = 0
    for forward in network.passes(data, threads=threads, report=report):
        n = len(forward.counts)
        totals.add(forward, labels[done : done + n])
        predictions[done : done + n] = forward.predictions()
        done += n
    confusion = np.zeros((network.n_classes, network.n_classes), np.int64)
    np.add.at(confusion, (labels.astype(np.int64), predictions), 1)
    accuracy = totals.correct / len(data) if len(data) else float("nan")
    return Evaluation(accuracy, predictions, confusion, totals)
