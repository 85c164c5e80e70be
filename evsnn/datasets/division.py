"""Splits for recordings that come without them, and folds for cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.datasets.recordings import Recording
from evsnn.errors import SettingsError


def divide(
    splits: Mapping[str, Sequence[Recording]], test: float, validation: float
) -> dict[str, list[Recording]]:
    """Hold out training recordings, deterministically and balanced.

    Parameters
    ----------
    splits : mapping of str to sequence of Recording
        ``train`` and ``test`` as far as they are there.
    test, validation : int or float
        What to hold out as these splits, ``test`` first: a number of recordings (int) or a share of all
        training recordings (float below 1), 0 for nothing. Every label gives its share, each time the last
        recordings of it, so that no random order decides.

    Returns
    -------
    dict of str to list of Recording
        In the order of the file: train, validation, test.

    Raises
    ------
    SettingsError
        If there is nothing to hold out from, nothing would be left, or the split is there already.
    """
    train = list(splits.get("train", []))
    total = len(train)
    parts = {name: list(part) for name, part in splits.items()}
    for name, amount in (("test", test), ("validation", validation)):
        if not amount:
            continue
        if name in splits:
            raise SettingsError(f"the source has a {name} set of its own; drop --{name}")
        if not train:
            raise SettingsError(f"the source has no training recordings, from which --{name} is taken")
        if isinstance(amount, bool) or not (isinstance(amount, int) or 0.0 < amount < 1.0):
            raise SettingsError(f"{name} must be a number of recordings or a share below 1, got {amount}")
        wanted = amount if isinstance(amount, int) else round(amount * total)
        if not 0 < wanted < len(train):
            raise SettingsError(
                f"{name} {amount} holds out {wanted} of the {len(train)} training recordings there are; "
                f"1 to {len(train) - 1} are possible"
            )
        train, parts[name] = _hold_out(train, wanted)
        parts["train"] = train
    return {name: parts[name] for name in ("train", "validation", "test") if name in parts}


def deal(labels: npt.NDArray[np.integer[Any]], folds: int) -> npt.NDArray[np.int64]:
    """Deal samples to the folds of a cross-validation, like cards.

    All samples of label 0 are dealt first, in their order, one to each fold in turn, then those of label 1,
    beginning with the fold whose turn it is, and so on. So folds differ by at most one sample, in all and of
    every label, and no random order decides.

    Parameters
    ----------
    labels : ndarray of int, shape (n_samples,)
    folds : int
        2 to the number of samples.

    Returns
    -------
    ndarray of int64, shape (n_samples,)
        Fold of each sample, from 0.

    Raises
    ------
    SettingsError
        If there are too few samples.
    """
    if not 2 <= folds <= len(labels):
        raise SettingsError(
            f"folds must lie in 2 to the number of training samples, {len(labels)}, got {folds}"
        )
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % folds
    return fold


def _hold_out(recordings: Sequence[Recording], wanted: int) -> tuple[list[Recording], list[Recording]]:
    """Split off the last recordings of each label, of every label its share."""
    available = np.bincount([one.label for one in recordings])
    # Largest remainders: whole shares first, then one more where the rest is largest.
    quota, rest = np.divmod(wanted * available, len(recordings))
    quota[np.argsort(-rest, kind="stable")[: wanted - int(quota.sum())]] += 1
    kept: list[Recording] = []
    held: list[Recording] = []
    for one in recordings:
        available[one.label] -= 1
        (held if available[one.label] < quota[one.label] else kept).append(one)
    return kept, held
