"""Events in memory and in files: the only input and output of a layer."""

from evsnn.events.augment import EventAugmentSettings
from evsnn.events.core import Events, EventSet
from evsnn.events.file import EventFile, EventSplit, open_events
from evsnn.events.writer import EventWriter

__all__ = [
    "EventAugmentSettings",
    "EventFile",
    "EventSet",
    "EventSplit",
    "EventWriter",
    "Events",
    "open_events",
]
