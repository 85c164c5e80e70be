"""Named configurations."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evsnn.encoders.settings import AugmentSettings, EncoderSettings
from evsnn.errors import SettingsError
from evsnn.events.augment import EventAugmentSettings
from evsnn.learning.settings import LearningSettings
from evsnn.network.architecture import Architecture, parse_architecture
from evsnn.network.defaults import suited_settings
from evsnn.network.settings import NetworkSettings
from evsnn.training.config import RunConfig

#: ``default`` is what we found to work best for a kind of network and data; ``paper`` is Lee, Delbruck and
#: Pfeiffer (2016).
PRESETS = ("default", "paper")

#: A saccade of N-MNIST: recordings are learned saccade by saccade and classified by all of them.
SACCADE_MS = 105.0

_PAPER = RunConfig(
    epochs=40,
    encoder=EncoderSettings(kind="poisson", rate=20.0, duration_ms=50.0),
    augment=AugmentSettings(shift=0.0, shear=0.0, scale=0.0, elastic=0.0),
    augment_events=EventAugmentSettings.none(),
    network=NetworkSettings(
        tau_ms=20.0, refractory_ms=1.0, kappa=(-0.4, 0.0), sigma=(0.5, 0.0), clamp=1.0, alpha=10.0
    ),
    learning=LearningSettings(
        loss="mse",
        activity="trace",
        lr=1e-3,
        threshold_lr=0.1,
        schedule="linear",
        batch_size=50,
        epsilon=1e-8,
        weight_decay=0.0,
        norm_strength=0.002,
        norm_steepness=10.0,
        threshold_balance=1e-6,
    ),
)


@dataclass(frozen=True)
class Suited:
    """What suits a kind of network and data, beside the physics (benchmarks/RESULTS.md)."""

    epochs: int
    learning: LearningSettings
    augment_events: EventAugmentSettings


_DISTORTED = EventAugmentSettings(window_ms=SACCADE_MS)
#: A convolution sees a shifted or bent digit much as it was: it learns more from less distortion.
_SLIGHTLY = replace(_DISTORTED, rotation=8.0, scale=0.1, shear=0.0, elastic=0.0)

#: By (has convolutions, learns from recordings).
_SUITED = {
    (False, False): Suited(40, LearningSettings(), _DISTORTED),
    (True, False): Suited(30, LearningSettings(lr=1e-3, batch_size=50, sparsity=0.1), _SLIGHTLY),
    (False, True): Suited(100, LearningSettings(lr=3e-3, batch_size=20), _DISTORTED),
    (True, True): Suited(60, LearningSettings(lr=2e-3, batch_size=10, sparsity=0.05), _SLIGHTLY),
}


def suited(architecture: Architecture, *, recordings: bool) -> Suited:
    """Return what suits a kind of network and data.

    Parameters
    ----------
    architecture : Architecture
    recordings : bool
        Whether the samples are recordings, or else events of images.
    """
    return _SUITED[any(plan.kind == "conv" for plan in architecture.layers), recordings]


def preset(name: str, arch: str = "", *, recordings: bool = False) -> RunConfig:
    """Return a named configuration.

    Parameters
    ----------
    name : str
        One of ``PRESETS``.
    arch : str
        Architecture it is for; empty for one hidden layer.
    recordings : bool
        Whether it is for recordings, which have no images.

    Raises
    ------
    SettingsError
        Listing the names there are, or naming what is wrong in the architecture.
    """
    if name not in PRESETS:
        raise SettingsError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    if name == "paper":
        return replace(_PAPER, arch=arch)
    architecture = parse_architecture(arch or "1-1")
    chosen = suited(architecture, recordings=recordings)
    return RunConfig(
        arch=arch,
        epochs=chosen.epochs,
        augment_events=chosen.augment_events,
        network=suited_settings(architecture),
        learning=chosen.learning,
    )
