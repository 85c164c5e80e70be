"""The splits a run works on, by its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import embedded_mnist
from evsnn.encoders.settings import EncoderSettings
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit, open_events
from evsnn.parallel import Workers
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


def load_split(path: str, split: str, encoder: EncoderSettings, seed: int, threads: int | None) -> EventSet:
    """Load one split of an event file, or of the package's MNIST subset where ``path`` is empty.

    Parameters
    ----------
    path : str
    split : str
        ``train``, ``validation`` or ``test``.
    encoder : EncoderSettings
        Draws the events of the subset.
    seed : int
    threads : int, optional

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
    with Workers(threads) as workers:
        return encode_images(splits[split], encoder, seed, workers)


def load_data(config: RunConfig, threads: int | None) -> RunData:
    """Load the splits of a run.

    Raises
    ------
    DataError, SettingsError
        If a file is wrong, or the validation split leaves nothing to train on.
    """
    data = config.data
    if data.path:
        with open_events(data.path) as file:
            splits = {name: _load(file[name], data.limit) for name in file.splits}
        name = Path(data.path).name
    else:
        with Workers(threads) as workers:
            splits = {
                name: encode_images(
                    images.part(0, min(data.limit or len(images), len(images))),
                    config.encoder,
                    config.seed,
                    workers,
                )
                for name, images in embedded_mnist().items()
            }
        name = "MNIST subset of the package"
    splits = {split: part for split, part in splits.items() if len(part)}
    if "train" not in splits:
        raise DataError(f"{data.path} has no split 'train' with samples to learn from")
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


def _load(split: EventSplit, limit: int) -> EventSet:
    return split.load(0, min(limit, len(split)) if limit else None)
