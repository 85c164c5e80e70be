"""Live sources of events: the binary format, where it comes from, and decisions while it comes."""

from evsnn.streams.decisions import Decision
from evsnn.streams.live import LiveReport, LiveSession
from evsnn.streams.send import send
from evsnn.streams.sources import Source, open_source

__all__ = ["Decision", "LiveReport", "LiveSession", "Source", "open_source", "send"]
