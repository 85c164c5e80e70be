"""How fast this machine simulates and learns, beside what its memory allows."""

from evsnn.speed.layers import LayerSpeed, measure_layers
from evsnn.speed.limits import arithmetic_speedup, memory_bandwidth
from evsnn.speed.live import LiveSpeed, measure_live
from evsnn.speed.training import TrainingSpeed, measure_training

__all__ = [
    "LayerSpeed",
    "LiveSpeed",
    "TrainingSpeed",
    "arithmetic_speedup",
    "measure_layers",
    "measure_live",
    "measure_training",
    "memory_bandwidth",
]
