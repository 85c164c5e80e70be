"""Event-driven training of deep spiking neural networks.

Backpropagation on spikes and membrane potentials (Lee, Delbruck and Pfeiffer 2016), event by event.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evsnn.checkpoint import load_model, save_model
    from evsnn.encoders.settings import AugmentSettings, EncoderSettings, SaccadeSettings
    from evsnn.errors import BackendError, DataError, EvsnnError, SettingsError
    from evsnn.events.augment import EventAugmentSettings
    from evsnn.events.core import Events, EventSet
    from evsnn.events.file import EventFile, EventSplit, open_events
    from evsnn.learning.settings import LearningSettings
    from evsnn.network.network import Network, Record
    from evsnn.network.settings import NetworkSettings
    from evsnn.network.trace import MembraneTrace, trace_membrane
    from evsnn.operations.counting import OperationCounts, count_operations
    from evsnn.operations.grid import GridMetrics, grid_metrics
    from evsnn.training.early_answer import early_answers
    from evsnn.training.evaluation import Evaluation, evaluate
    from evsnn.training.fit import fit
    from evsnn.training.over_time import AnswerCurve, over_time

# Numba takes a third of a second to import: `evsnn --help` must not pay for it.
_HOMES = {
    "AnswerCurve": "evsnn.training.over_time",
    "AugmentSettings": "evsnn.encoders.settings",
    "BackendError": "evsnn.errors",
    "DataError": "evsnn.errors",
    "EncoderSettings": "evsnn.encoders.settings",
    "Evaluation": "evsnn.training.evaluation",
    "EventAugmentSettings": "evsnn.events.augment",
    "EventFile": "evsnn.events.file",
    "EventSet": "evsnn.events.core",
    "EventSplit": "evsnn.events.file",
    "Events": "evsnn.events.core",
    "EvsnnError": "evsnn.errors",
    "GridMetrics": "evsnn.operations.grid",
    "LearningSettings": "evsnn.learning.settings",
    "MembraneTrace": "evsnn.network.trace",
    "Network": "evsnn.network.network",
    "NetworkSettings": "evsnn.network.settings",
    "OperationCounts": "evsnn.operations.counting",
    "Record": "evsnn.network.network",
    "SaccadeSettings": "evsnn.encoders.settings",
    "SettingsError": "evsnn.errors",
    "count_operations": "evsnn.operations.counting",
    "early_answers": "evsnn.training.early_answer",
    "evaluate": "evsnn.training.evaluation",
    "fit": "evsnn.training.fit",
    "grid_metrics": "evsnn.operations.grid",
    "load_model": "evsnn.checkpoint",
    "open_events": "evsnn.events.file",
    "over_time": "evsnn.training.over_time",
    "save_model": "evsnn.checkpoint",
    "trace_membrane": "evsnn.network.trace",
}

__all__ = [
    "AnswerCurve",
    "AugmentSettings",
    "BackendError",
    "DataError",
    "EncoderSettings",
    "Evaluation",
    "EventAugmentSettings",
    "EventFile",
    "EventSet",
    "EventSplit",
    "Events",
    "EvsnnError",
    "GridMetrics",
    "LearningSettings",
    "MembraneTrace",
    "Network",
    "NetworkSettings",
    "OperationCounts",
    "Record",
    "SaccadeSettings",
    "SettingsError",
    "count_operations",
    "early_answers",
    "evaluate",
    "fit",
    "grid_metrics",
    "load_model",
    "open_events",
    "over_time",
    "save_model",
    "trace_membrane",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
