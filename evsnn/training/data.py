"""The splits a run works on, by its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evsnn.backends import CpuBackend
from evsnn.datasets.division import deal
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import embedded_mnist
from evsnn.encoders.settings import EncoderSettings
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit, open_events
from evsnn.training.config import AUTOMATIC, RunConfig

#: Share of the training split that is held out if the user does not say.
VALIDATION_SHARE = 6


@dataclass(frozen=True, eq=False)
class RunData:
    """Splits of a run, in memory; ``validation`` and ``test`` may be absent."""

    name: str
    train: EventSet
    validation: EventSet | None
    test: EventSet | None


def load_split(path: str, split: str, encoder: EncoderSettings, seed: int, backend: CpuBackend) -> EventSet:
    """Load one split of an event file, or of the package's MNIST subset where ``path`` is empty.

    Parameters
    ----------
    path : str
    split : str
        ``train``, ``validation`` or ``test``.
    encoder : EncoderSettings
        Draws the events of the subset.
    seed : int
    backend : CpuBackend

    Raises
    ------
    DataError, SettingsError
        If there is no such file or split.
    """
    if path:
        with open_events(path) as file:
            return file[split].load()
    splits = embedded_mnist()
    if split not in splits:
        raise SettingsError(f"the MNIST subset has the splits {', '.join(splits)}, not {split!r}")
    return encode_images(splits[split], encoder, seed, backend)


def holds_recordings(path: str) -> bool:
    """Whether the training samples of an event file are recordings: they come without images.

    Raises
    ------
    DataError
        If there is no such file, or it is no event file.
    """
    if not path:
        return False
    with open_events(path) as file:
        return "train" in file.splits and not file["train"].has_images


def load_data(config: RunConfig, backend: CpuBackend) -> RunData:
    """Load the splits of a run.

    In cross-validation the training split is all there is: the fold that is held out stands in for ``test``.

    Raises
    ------
    DataError, SettingsError
        If a file is wrong, or the validation split or the folds leave nothing to train on.
    """
    data = config.data
    if data.folds:
        return fold_data(load_training(config, backend), data.folds, data.fold)
    name, splits = _load_splits(config, backend)
    train, validation = splits["train"], splits.get("validation")
    if data.validation != AUTOMATIC or validation is None:
        held_out = len(train) // VALIDATION_SHARE if data.validation == AUTOMATIC else data.validation
        if held_out >= len(train):
            raise SettingsError(
                f"--validation {held_out} leaves none of the {len(train)} samples to train on"
            )
        edge = len(train) - held_out
        validation = train.part(edge, len(train)) if held_out else None
        train = train.part(0, edge)
    return RunData(name, train, validation, splits.get("test"))


def load_training(config: RunConfig, backend: CpuBackend) -> RunData:
    """Load the whole training split and nothing else; errors as :func:`load_data`."""
    name, splits = _load_splits(config, backend, only="train")
    return RunData(name, splits["train"], None, None)


def fold_data(whole: RunData, folds: int, fold: int) -> RunData:
    """Return one fold of a training split as ``test`` and all others as ``train``, without validation.

    Parameters
    ----------
    whole : RunData
        With the whole training split.
    folds : int
        Number of folds; :func:`evsnn.datasets.division.deal` says which sample lies in which.
    fold : int
        The one that is held out, from 1.

    Raises
    ------
    SettingsError
        If there is no such fold, or too few samples for so many.
    """
    if not 1 <= fold <= folds:
        raise SettingsError(f"fold must lie in 1 to {folds}, got {fold}; CrossValidation trains all in turn")
    held_out = deal(whole.train.labels, folds) == fold - 1
    train, test = (whole.train.select(np.flatnonzero(chosen)) for chosen in (~held_out, held_out))
    return RunData(whole.name, train, None, test)


def _load_splits(
    config: RunConfig, backend: CpuBackend, only: str | None = None
) -> tuple[str, dict[str, EventSet]]:
    """Load the splits that have samples, or one of them; the training split is there."""
    data = config.data
    if data.path:
        name = Path(data.path).name
        with open_events(data.path) as file:
            splits = {split: _load(file[split], data.limit) for split in file.splits if only in (None, split)}
    else:
        name = "MNIST subset of the package"
        splits = {
            split: encode_images(
                images.part(0, min(data.limit or len(images), len(images))),
                config.encoder,
                config.seed,
                backend,
            )
            for split, images in embedded_mnist().items()
            if only in (None, split)
        }
    splits = {split: part for split, part in splits.items() if len(part)}
    if "train" not in splits:
        raise DataError(f"{data.path} has no split 'train' with samples to learn from")
    return name, splits


def _load(split: EventSplit, limit: int) -> EventSet:
    return split.load(0, min(limit, len(split)) if limit else None)
