"""Training from Python, and the epochs that it shares with the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from evsnn.backends import Backend, backend_of
from evsnn.datasets.sampling import AugmentedEvents, FreshEvents, Source, StoredEvents
from evsnn.encoders.settings import AugmentSettings, EncoderSettings, encoder_settings
from evsnn.errors import DataError, SettingsError
from evsnn.events.augment import EventAugmentSettings
from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit
from evsnn.learning.settings import LearningSettings
from evsnn.network.network import Network
from evsnn.training.evaluation import evaluate
from evsnn.training.presets import suited
from evsnn.training.trainer import Totals, Trainer


def fit(
    network: Network,
    data: EventSet | EventSplit,
    *,
    validation: EventSet | EventSplit | None = None,
    epochs: int = 10,
    learning: LearningSettings | None = None,
    augmentation: AugmentSettings | None = None,
    event_augmentation: EventAugmentSettings | None = None,
    augment: bool = True,
    fresh: bool = True,
    seed: int = 0,
    backend: Backend | str = "cpu",
    threads: int | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train a network in place.

    Parameters
    ----------
    network : Network
    data : EventSet or EventSplit
        Training samples.
    validation : EventSet or EventSplit, optional
        Classified after every epoch.
    epochs : int
        Passes over ``data``; the learning rate ends at the last.
    learning : LearningSettings, optional
        Default: what suits the kind of network and data (:func:`evsnn.training.presets.suited`).
    augmentation : AugmentSettings, optional
        Distortion of images before fresh spikes are drawn; default: the ``default`` preset's.
    event_augmentation : EventAugmentSettings, optional
        Distortion of recordings, which have no images; default: as for ``learning``.
    augment : bool
        Whether to distort samples at all.
    fresh : bool
        Draw new spikes every epoch where ``data`` has images.
    seed : int
        Of the order of samples and of fresh spikes.
    backend : Backend or {"cpu", "cuda", "auto"}
        Where to compute; what is learned does not depend on it.
    threads : int, optional
        Of the CPU, where ``backend`` is a name; default: all processors.
    on_epoch : callable, optional
        Called with the metrics of each epoch.

    Returns
    -------
    list of dict
        Metrics of every epoch, as in ``metrics.jsonl``.

    Raises
    ------
    SettingsError, DataError
        If a setting is wrong or the data do not fit the network.
    BackendError
        If the backend cannot be had, or its device has too little memory.
    """
    if epochs < 1:
        raise SettingsError(f"epochs must be 1 or more, got {epochs}")
    network.check_fits(data, "the training data")
    if validation is not None:
        network.check_fits(validation, "the validation data")
    loaded = data.load() if isinstance(data, EventSplit) else data
    chosen = suited(network.architecture, recordings=loaded.images is None)
    learning = learning or chosen.learning
    history = []
    with backend_of(backend, threads) as opened:
        source = make_source(
            loaded,
            fresh=fresh,
            encoder=None,
            augmentation=augmentation or AugmentSettings(),
            event_augmentation=event_augmentation or chosen.augment_events,
            augment=augment,
            seed=seed,
            backend=opened,
        )
        trainer = Trainer(network, source, learning, epochs=epochs, seed=seed, backend=opened)
        for metrics in train_epochs(trainer, validation, epochs=epochs):
            history.append(metrics)
            if on_epoch is not None:
                on_epoch(metrics)
    return history


def make_source(
    data: EventSet,
    *,
    fresh: bool,
    encoder: EncoderSettings | None,
    augmentation: AugmentSettings,
    event_augmentation: EventAugmentSettings,
    augment: bool,
    seed: int,
    backend: Backend,
) -> Source:
    """Return fresh events where the data have images and an encoder, else the stored ones.

    Images, and the stored events of recordings, are distorted where ``augment`` is on.
    """
    if len(data) == 0:
        raise DataError("there are no training samples")
    if fresh and data.images is not None:
        settings = encoder or encoder_settings(data.encoder)
        return FreshEvents(data, settings, augmentation if augment else None, seed, backend)
    wanted = augment and event_augmentation.enabled
    if wanted and (data.images is None or event_augmentation.always):
        return AugmentedEvents(data, event_augmentation, seed, backend)
    return StoredEvents(data, backend)


def train_epochs(
    trainer: Trainer,
    validation: EventSet | EventSplit | None,
    *,
    epochs: int,
    report: Callable[[Totals], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train to the last epoch or until stopped, yielding the metrics of each epoch that was finished."""
    while trainer.epoch < epochs:
        rate = trainer.rate
        totals = trainer.run_epoch(report=report, should_stop=should_stop)
        if totals is None:
            return
        means = totals.means()
        metrics: dict[str, Any] = {
            "epoch": trainer.epoch,
            "learning_rate": rate,
            "loss": totals.loss / totals.samples,
            "train_accuracy": means.pop("accuracy"),
            "validation_accuracy": None,
            **means,
            "weight_norms": trainer.network.weight_norms,
            "seconds": totals.seconds,
            "samples_per_second": totals.samples / totals.seconds,
        }
        if validation is not None and len(validation):
            metrics["validation_accuracy"] = evaluate(
                trainer.network, validation, backend=trainer.backend
            ).accuracy
        yield metrics
