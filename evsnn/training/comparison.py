"""A spiking network against a conventional one: operations at equal accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evsnn.training.over_time import AnswerCurve


@dataclass(frozen=True)
class EqualAccuracy:
    """Where a curve is as good as a conventional network (docs/operations.md, O19).

    Parameters
    ----------
    by : str
        Which curve.
    at : float
        Point on it: events, or margin.
    accuracy : float
        There.
    synaptic_operations : float
        There, a sample.
    ratio : float
        Multiply-accumulates of the conventional network over these.
    effective_ratio : float
        The same of those whose input is not 0.
    """

    by: str
    at: float
    accuracy: float
    synaptic_operations: float
    ratio: float
    effective_ratio: float


def equal_accuracy(
    curves: Sequence[AnswerCurve], accuracy: float, macs: float, effective_macs: float
) -> EqualAccuracy | None:
    """Cheapest point of some curves from which on the accuracy is never below a given one.

    Parameters
    ----------
    curves : sequence of AnswerCurve
    accuracy : float
        Of the conventional network.
    macs, effective_macs : float
        Its multiply-accumulates a sample, and those whose input is not 0.

    Returns
    -------
    EqualAccuracy or None
        None if no curve ends at that accuracy or above.
    """
    found = []
    for curve in curves:
        below = curve.correct < np.ceil(accuracy * curve.samples - 1e-9)
        point = int(np.flatnonzero(below)[-1]) + 1 if below.any() else 0
        if point == len(curve.at):
            continue
        spent = float(curve.synaptic_operations[point])
        if spent > 0:
            found.append(
                EqualAccuracy(
                    curve.by,
                    float(curve.at[point]),
                    float(curve.accuracy[point]),
                    spent,
                    macs / spent,
                    effective_macs / spent,
                )
            )
    return min(found, key=lambda point: point.synaptic_operations, default=None)
