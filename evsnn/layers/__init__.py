"""Layers: each turns a queue of events into a queue of events."""

from evsnn.layers.base import Layer, LayerState, SpikingLayer
from evsnn.layers.conv import Conv2d
from evsnn.layers.dense import Dense
from evsnn.layers.pool import AveragePool
from evsnn.layers.settings import NeuronSettings

__all__ = ["AveragePool", "Conv2d", "Dense", "Layer", "LayerState", "NeuronSettings", "SpikingLayer"]
