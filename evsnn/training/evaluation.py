"""Accuracy of a network on a data set, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evsnn.backends import Backend
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
    backend: Backend | str = "cpu",
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> Evaluation:
    """Classify every sample of a data set.

    Parameters
    ----------
    network : Network
    data : EventSet or EventSplit
    backend : Backend or {"cpu", "cuda", "auto"}
        Where to compute; the result does not depend on it.
    threads : int, optional
        Of the CPU, where ``backend`` is a name; default: all processors.
    report : callable, optional
        Called with the number of samples done.
    """
    labels = data.labels
    totals = Totals(len(network.layers))
    predictions = np.empty(len(data), np.int64)
    done = 0
    sizes = [layer.n_out for layer in network.layers]
    for outcome in network.passes(data, backend=backend, threads=threads, report=report):
        n = len(outcome)
        totals.add(outcome, labels[done : done + n], sizes)
        predictions[done : done + n] = outcome.predictions()
        done += n
    confusion = np.zeros((network.n_classes, network.n_classes), np.int64)
    np.add.at(confusion, (labels.astype(np.int64), predictions), 1)
    accuracy = totals.correct / len(data) if len(data) else float("nan")
    return Evaluation(accuracy, predictions, confusion, totals)
