"""Named configurations."""

from __future__ import annotations

from dataclasses import replace

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


def suited_learning(architecture: Architecture, *, recordings: bool) -> LearningSettings:
    """Learning settings for a kind of network and data (benchmarks/RESULTS.md says how they were found).

    Parameters
    ----------
    architecture : Architecture
    recordings : bool
        Whether the samples are recordings, or else events of images.
    """
    if any(plan.kind == "conv" for plan in architecture.layers):
        if recordings:
            return LearningSettings(lr=2e-3, batch_size=10, epsilon=1e-2)
        return LearningSettings(lr=1e-3, batch_size=50, sparsity=0.05)
    return LearningSettings(lr=3e-3, batch_size=20) if recordings else LearningSettings()


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
    return RunConfig(
        arch=arch,
        augment_events=EventAugmentSettings(window_ms=SACCADE_MS),
        network=suited_settings(architecture),
        learning=suited_learning(architecture, recordings=recordings),
    )
