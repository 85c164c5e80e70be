"""Optimisers and regularisers: from gradients to new parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from evsnn_kernels.cpu import optimiser as kernels
from evsnn_kernels.cpu import regulariser

from evsnn.errors import DataError, SettingsError
from evsnn.layers.base import SpikingLayer
from evsnn.layers.dense import Dense
from evsnn.learning.backprop import Gradient
from evsnn.learning.settings import LearningSettings
from evsnn.network.network import Network
from evsnn.parallel import Workers

Float32 = npt.NDArray[np.float32]


class Optimiser:
    """Adam or gradient descent with momentum over all layers, with the regularisers (S10, S11).

    Parameters
    ----------
    network : Network
        Its parameters are updated in place.
    settings : LearningSettings
    workers : Workers

    Raises
    ------
    SettingsError
        If a regulariser does not fit the network's layers.
    """

    def __init__(self, network: Network, settings: LearningSettings, workers: Workers) -> None:
        if settings.threshold_balance > 0 and not all(isinstance(layer, Dense) for layer in network.layers):
            raise SettingsError("threshold_balance is for fully connected networks; set it to 0")
        self._network = network
        self._settings = settings
        self._workers = workers
        self.step_number = 0
        moments = 2 if settings.optimizer == "adam" else 1
        self._weight_moments = [
            [np.zeros_like(layer.weight) for _ in range(moments)] for layer in network.spiking_layers
        ]
        self._threshold_moments = [
            [np.zeros((1, len(layer.threshold)), np.float32) for _ in range(moments)]
            for layer in network.spiking_layers
        ]
        self._floors = [
            np.full(len(layer.threshold), settings.threshold_floor * layer.initial_threshold, np.float32)
            for layer in network.spiking_layers
        ]

    def step(
        self, gradients: Sequence[Gradient], activities: Sequence[Float32], rate_factor: float = 1.0
    ) -> None:
        """Update every layer.

        Parameters
        ----------
        gradients : sequence of Gradient
            A layer each. The weight gradients are overwritten with the regularised ones.
        activities : sequence of ndarray of float32, shape (n_samples, n_units)
            Activities of input and layers, for the threshold regularisation.
        rate_factor : float
            Share of the learning rate that the schedule leaves.
        """
        self.step_number += 1
        settings = self._settings
        rate = settings.lr * rate_factor
        layers = self._network.spiking_layers
        for index, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
            if settings.norm_strength > 0:
                self._workers.run(
                    regulariser.add_norm_penalty,
                    len(layer.threshold),
                    layer.weight,
                    self._norms(layer),
                    settings.norm_strength,
                    settings.norm_steepness,
                    gradient.weight,
                    work=layer.weight.size,
                )
            keep = 1.0 - rate * settings.weight_decay
            self._update(gradient.weight, rate, keep, self._weight_moments[index], layer.weight)
            if settings.max_norm > 0:
                norms = self._norms(layer)
                self._workers.run(
                    regulariser.limit_norms,
                    len(layer.threshold),
                    norms,
                    settings.max_norm,
                    layer.weight,
                    work=layer.weight.size,
                )
            if settings.threshold_lr > 0:
                threshold = layer.threshold.reshape(1, -1)
                moments = self._threshold_moments[index]
                row = gradient.threshold.reshape(1, -1)
                self._update(row, rate * settings.threshold_lr, 1.0, moments, threshold)
            if settings.threshold_balance > 0:
                self._workers.run(
                    regulariser.balance_thresholds,
                    len(layer.threshold),
                    activities[self._network.layers.index(layer) + 1],
                    np.float32(settings.threshold_balance * rate_factor),
                    layer.threshold,
                    work=0,  # every range would count the whole batch again
                )
            np.maximum(layer.threshold, self._floors[index], out=layer.threshold)
            layer.refresh(self._workers)

    def _norms(self, layer: SpikingLayer) -> npt.NDArray[np.float64]:
        norms = np.empty(len(layer.threshold), np.float64)
        self._workers.run(
            regulariser.squared_norms, len(layer.threshold), layer.weight, norms, work=layer.weight.size
        )
        return norms

    def _update(
        self, gradient: Float32, rate: float, keep: float, moments: Sequence[Float32], value: Float32
    ) -> None:
        settings = self._settings
        if settings.optimizer == "sgd":
            self._workers.run(
                kernels.sgd_step,
                len(value),
                gradient,
                np.float32(rate),
                np.float32(keep),
                np.float32(settings.momentum),
                *moments,
                value,
                work=value.size,
            )
            return
        self._workers.run(
            kernels.adam_step,
            len(value),
            gradient,
            np.float32(rate),
            np.float32(keep),
            np.float32(settings.beta1),
            np.float32(settings.beta2),
            np.float32(1.0 / (1.0 - settings.beta1**self.step_number)),
            np.float32(1.0 / (1.0 - settings.beta2**self.step_number)),
            np.float32(settings.epsilon),
            *moments,
            value,
            work=value.size,
        )

    def state(self) -> dict[str, Float32]:
        """Moments of every layer by name, as a checkpoint stores them."""
        arrays = {}
        for index, _ in enumerate(self._network.spiking_layers):
            for place, array in enumerate(self._weight_moments[index]):
                arrays[f"layer{index}/weight_moment{place}"] = array
            for place, array in enumerate(self._threshold_moments[index]):
                arrays[f"layer{index}/threshold_moment{place}"] = array
        return arrays

    def restore(self, arrays: Mapping[str, Float32], step_number: int) -> None:
        """Take over moments and step number from a checkpoint.

        Raises
        ------
        DataError
            If an array is missing or has another shape.
        """
        for name, array in self.state().items():
            stored = arrays.get(name)
            if stored is None or stored.shape != array.shape:
                raise DataError(f"the optimiser state {name} is missing or has another shape")
            array[:] = stored
        self.step_number = step_number
