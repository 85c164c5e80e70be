"""Splits for recordings that come without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

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
