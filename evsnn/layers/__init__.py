"""Layers: each turns a queue of events into a queue of events."""

from evsnn.layers.dense import Dense, LayerState
from evsnn.layers.settings import NeuronSettings

__all__ = ["Dense", "LayerState", "NeuronSettings"]
