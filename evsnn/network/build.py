"""The layers of an architecture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from evsnn.layers.base import Layer
from evsnn.layers.conv import Conv2d
from evsnn.layers.dense import Dense
from evsnn.layers.pool import AveragePool
from evsnn.layers.settings import NeuronSettings
from evsnn.network.architecture import Architecture
from evsnn.network.settings import NetworkSettings

#: Weights (fan_in, n) and thresholds (n,) of a layer.
Parameters = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def build_layers(
    architecture: Architecture,
    settings: NetworkSettings,
    parameters: Callable[[int, tuple[int, int], NeuronSettings, float], Parameters],
) -> list[Layer]:
    """Make the layers of an architecture.

    Parameters
    ----------
    architecture : Architecture
    settings : NetworkSettings
    parameters : callable
        Given the position of a layer, the shape (fan_in, n) of its weights, its neurons and the weight that
        an input event carries, returns weights and thresholds: drawn, or read from a file.

    Raises
    ------
    SettingsError
        If a setting has a wrong number of values.
    """
    neurons = iter(settings.neurons(architecture.n_spiking))
    layers: list[Layer] = []
    gain = 1.0
    for index, plan in enumerate(architecture.layers):
        if plan.kind == "pool":
            layers.append(AveragePool(plan.in_shape, plan.kernel))
            gain *= layers[-1].event_weight
            continue
        neuron = next(neurons)
        channels = plan.in_shape[0]
        fan_in = (
            plan.kernel**2 * channels
            if plan.kind == "conv"
            else channels * plan.in_shape[1] * plan.in_shape[2]
        )
        weight, threshold = parameters(index, (fan_in, plan.out_shape[0]), neuron, gain)
        if plan.kind == "conv":
            layers.append(
                Conv2d(weight, threshold, neuron, plan.in_shape, plan.kernel, 1, plan.padding, gain)
            )
        else:
            layers.append(Dense(weight, threshold, neuron, plan.in_shape, gain))
        gain = 1.0
    return layers
