"""Optimisers and regularisers: from gradients to new parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from evsnn_kernels import portable
from evsnn_kernels.cpu import optimiser as kernels
from evsnn_kernels.cpu import regulariser

from evsnn.backends.base import Array
from evsnn.errors import DataError, SettingsError
from evsnn.layers.base import Placement, SpikingLayer
from evsnn.layers.dense import Dense
from evsnn.learning.backprop import Gradient
from evsnn.learning.settings import LearningSettings
from evsnn.network.network import Network

Float32 = npt.NDArray[np.float32]


class Optimiser:
    """Adam or gradient descent with momentum over all layers, with the regularisers (S10, S11).

    Parameters
    ----------
    network : Network
    placed : sequence of Placement
        Where its layers are: the parameters there are updated in place.
    settings : LearningSettings

    Raises
    ------
    SettingsError
        If a regulariser does not fit the network's layers.
    """

    def __init__(self, network: Network, placed: Sequence[Placement], settings: LearningSettings) -> None:
        if settings.threshold_balance > 0 and not all(isinstance(layer, Dense) for layer in network.layers):
            raise SettingsError("threshold_balance is for fully connected networks; set it to 0")
        self._network = network
        self._settings = settings
        self._placed = placed
        self._backend = backend = placed[0].backend
        self.step_number = 0
        moments = 2 if settings.optimizer == "adam" else 1
        layers = network.spiking_layers

        def zeros(shape: tuple[int, ...]) -> list[Array]:
            return [backend.put(np.zeros(shape, np.float32)) for _ in range(moments)]

        self._weight_moments = [zeros(layer.weight.shape) for layer in layers]
        self._threshold_moments = [zeros((1, len(layer.threshold))) for layer in layers]
        #: Values that are not finite in each row of the weights, and in the thresholds, of every layer.
        self._not_finite = [
            (
                backend.put(np.zeros(len(layer.weight), np.int32)),
                backend.put(np.zeros(1, np.int32)),
            )
            for layer in layers
        ]
        self._floors = [
            backend.put(
                np.full(len(layer.threshold), settings.threshold_floor * layer.initial_threshold, np.float32)
            )
            for layer in layers
        ]

    def step(
        self, gradients: Sequence[Gradient], activities: Sequence[Array], rate_factor: float = 1.0
    ) -> None:
        """Update every layer.

        Parameters
        ----------
        gradients : sequence of Gradient
            A layer each. The weight gradients are overwritten with the regularised ones.
        activities : sequence of Array of float32, shape (n_samples, n_units)
            Activities of input and layers, for the threshold regularisation.
        rate_factor : float
            Share of the learning rate that the schedule leaves.
        """
        self.step_number += 1
        settings = self._settings
        rate = settings.lr * rate_factor
        backend = self._backend
        layers = self._network.spiking_layers
        for index, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
            position = self._network.layers.index(layer)
            placed = self._placed[position]
            if settings.norm_strength > 0:
                backend.run(
                    regulariser.add_norm_penalty,
                    len(layer.threshold),
                    placed.weight,
                    self._norms(layer, placed),
                    settings.norm_strength,
                    settings.norm_steepness,
                    gradient.weight,
                    work=layer.weight.size,
                )
            keep = 1.0 - rate * settings.weight_decay
            self._update(gradient.weight, rate, keep, self._weight_moments[index], placed.weight)
            if settings.max_norm > 0:
                norms = self._norms(layer, placed)
                backend.run(
                    regulariser.limit_norms,
                    len(layer.threshold),
                    norms,
                    settings.max_norm,
                    placed.weight,
                    work=layer.weight.size,
                )
            if settings.threshold_lr > 0:
                threshold = placed.threshold.reshape((1, len(layer.threshold)))
                moments = self._threshold_moments[index]
                row = gradient.threshold.reshape((1, len(layer.threshold)))
                self._update(row, rate * settings.threshold_lr, 1.0, moments, threshold)
            if settings.threshold_balance > 0:
                backend.run(
                    regulariser.balance_thresholds,
                    len(layer.threshold),
                    activities[position + 1],
                    np.float32(settings.threshold_balance * rate_factor),
                    placed.threshold,
                    work=0,  # every range would count the whole batch again
                )
            backend.run(
                regulariser.raise_thresholds,
                len(layer.threshold),
                self._floors[index],
                placed.threshold,
                work=layer.threshold.size,
            )
            layer.refresh(placed)
        self.check()

    def check(self) -> None:
        """Count the parameters that are infinite or NaN, for :meth:`find_fault`."""
        for layer, counts in zip(self._network.spiking_layers, self._not_finite, strict=True):
            placed = self._placed[self._network.layers.index(layer)]
            thresholds = placed.threshold.reshape((1, len(layer.threshold)))
            for value, count in zip((placed.weight, thresholds), counts, strict=True):
                self._backend.run(
                    kernels.count_not_finite, len(value), value, count, work=math.prod(value.shape) // 4
                )

    @property
    def checks(self) -> list[Array]:
        """What :meth:`find_fault` wants to see on the host: for each layer of its weights and thresholds."""
        return [count for pair in self._not_finite for count in pair]

    def find_fault(self, checks: Sequence[npt.NDArray[np.int32]]) -> str | None:
        """Say which layer's parameters the last step left infinite or NaN, None if all are finite.

        A gradient that is not finite leaves such parameters.

        Parameters
        ----------
        checks : sequence of ndarray of int32
            :attr:`checks`, fetched after the step.
        """
        network = self._network
        for layer, weights, thresholds in zip(network.spiking_layers, checks[::2], checks[1::2], strict=True):
            for kind, size, count in (
                ("weights", layer.weight.size, weights),
                ("thresholds", layer.threshold.size, thresholds),
            ):
                if bad := int(count.sum()):
                    place = network.layers.index(layer) + 1
                    return f"{bad} of {size} {kind} of layer {place} are not finite"
        return None

    def _norms(self, layer: SpikingLayer, placed: Placement) -> Array:
        norms = self._backend.empty(layer.threshold.shape, np.float64)
        self._backend.run(
            regulariser.squared_norms, len(layer.threshold), placed.weight, norms, work=layer.weight.size
        )
        return norms

    def _update(
        self, gradient: Array, rate: float, keep: float, moments: Sequence[Array], value: Array
    ) -> None:
        settings = self._settings
        work = math.prod(value.shape)
        if settings.optimizer == "sgd":
            self._backend.run(
                kernels.sgd_step,
                len(value),
                gradient,
                np.float32(rate),
                np.float32(keep),
                np.float32(settings.momentum),
                *moments,
                value,
                work=work,
            )
            return
        self._backend.run(
            kernels.adam_step,
            len(value),
            gradient,
            np.float32(rate),
            np.float32(keep),
            np.float32(settings.beta1),
            np.float32(settings.beta2),
            np.float32(1.0 / (1.0 - portable.power(settings.beta1, self.step_number))),
            np.float32(1.0 / (1.0 - portable.power(settings.beta2, self.step_number))),
            np.float32(settings.epsilon),
            *moments,
            value,
            work=work,
        )

    def state(self) -> dict[str, Float32]:
        """Moments of every layer by name, as a checkpoint stores them."""
        moments = self._moments()
        return dict(zip(moments, self._backend.fetch(*moments.values()), strict=True))

    def _moments(self) -> dict[str, Array]:
        return {
            f"layer{index}/{kind}_moment{place}": array
            for index, _ in enumerate(self._network.spiking_layers)
            for kind, moments in (("weight", self._weight_moments), ("threshold", self._threshold_moments))
            for place, array in enumerate(moments[index])
        }

    def restore(self, arrays: Mapping[str, Float32], step_number: int) -> None:
        """Take over moments and step number from a checkpoint.

        Raises
        ------
        DataError
            If an array is missing or has another shape.
        """
        for name, array in self._moments().items():
            stored = arrays.get(name)
            if stored is None or stored.shape != array.shape:
                raise DataError(f"the optimiser state {name} is missing or has another shape")
        for moments, kind in ((self._weight_moments, "weight"), (self._threshold_moments, "threshold")):
            for index, places in enumerate(moments):
                for place, _ in enumerate(places):
                    places[place] = self._backend.put(arrays[f"layer{index}/{kind}_moment{place}"])
        self.step_number = step_number
