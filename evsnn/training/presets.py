"""Named configurations."""

from __future__ import annotations

from evsnn.encoders.settings import AugmentSettings, EncoderSettings
from evsnn.errors import SettingsError
from evsnn.events.augment import EventAugmentSettings
from evsnn.learning.settings import LearningSettings
from evsnn.network.settings import NetworkSettings
from evsnn.training.config import RunConfig

#: ``default`` is what we found to work best; ``paper`` is Lee, Delbruck and Pfeiffer (2016).
PRESETS = {
    "default": RunConfig(),
    "paper": RunConfig(
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
    ),
}


def preset(name: str) -> RunConfig:
    """Return a named configuration.

    Raises
    ------
    SettingsError
        Listing the names there are.
    """
    if name not in PRESETS:
        raise SettingsError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
