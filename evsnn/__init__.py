"""Event-driven training of deep spiking neural networks.

Backpropagation on spikes and membrane potentials (Lee, Delbruck and Pfeiffer 2016), event by event.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evsnn.checkpoint import load_model, save_model
    from evsnn.encoders.settings import AugmentSettings, EncoderSettings, SaccadeSettings
    from evsnn.errors import DataError, EvsnnError, SettingsError
    from evsnn.events.core import Events, EventSet
    from evsnn.events.file import EventFile, EventSplit, open_events
    from evsnn.learning.settings import LearningSettings
    from evsnn.network.network import Network, Record
    from evsnn.network.settings import NetworkSettings
    from evsnn.training.evaluation import Evaluation, evaluate
    from evsnn.training.fit import fit

# Numba takes a third of a second to import: `evsnn --help` must not pay for it.
_HOMES = {
    "AugmentSettings": "evsnn.encoders.settings",
    "DataError": "evsnn.errors",
    "EncoderSettings": "evsnn.encoders.settings",
    "Evaluation": "evsnn.training.evaluation",
    "EventFile": "evsnn.events.file",
    "EventSet": "evsnn.events.core",
    "EventSplit": "evsnn.events.file",
    "Events": "evsnn.events.core",
    "EvsnnError": "evsnn.errors",
    "LearningSettings": "evsnn.learning.settings",
    "Network": "evsnn.network.network",
    "NetworkSettings": "evsnn.network.settings",
    "Record": "evsnn.network.network",
    "SaccadeSettings": "evsnn.encoders.settings",
    "SettingsError": "evsnn.errors",
    "evaluate": "evsnn.training.evaluation",
    "fit": "evsnn.training.fit",
    "load_model": "evsnn.checkpoint",
    "open_events": "evsnn.events.file",
    "save_model": "evsnn.checkpoint",
}

__all__ = [
    "AugmentSettings",
    "DataError",
    "EncoderSettings",
    "Evaluation",
    "EventFile",
    "EventSet",
    "EventSplit",
    "Events",
    "EvsnnError",
    "LearningSettings",
    "Network",
    "NetworkSettings",
    "Record",
    "SaccadeSettings",
    "SettingsError",
    "evaluate",
    "fit",
    "load_model",
    "open_events",
    "save_model",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
