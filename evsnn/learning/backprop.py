"""Gradients of a batch from the activities of its forward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout, portable
from evsnn_kernels.cpu import backward

from evsnn.backends.base import Array
from evsnn.layers.base import Placement, SpikingLayer
from evsnn.learning.settings import LearningSettings
from evsnn.network.network import Network
from evsnn.network.simulation import Pass


@dataclass(frozen=True, eq=False)
class Gradient:
    """Mean gradient of one layer over a batch: ``weight`` (n_in, n_out) and ``threshold`` (n_out,)."""

    weight: Array
    threshold: Array


def backpropagate(
    network: Network,
    placed: Sequence[Placement],
    forward: Pass,
    labels: npt.NDArray[np.uint16],
    settings: LearningSettings,
) -> tuple[Array, list[Gradient]]:
    """Loss of every sample and the mean gradient of every layer (docs/model.md, S7 to S9).

    Parameters
    ----------
    network : Network
    placed : sequence of Placement
        Where the layers are.
    forward : Pass
        Forward pass of the batch, with the activity measure of ``settings``.
    labels : ndarray of uint16, shape (n_samples,)
    settings : LearningSettings

    Returns
    -------
    fit : Array of float64, shape (n_samples,)
        What :func:`losses` makes the loss of.
    gradients : list of Gradient
        A layer with neurons each.
    """
    backend = placed[-1].backend
    counts = forward.counts
    error = backend.empty(counts.shape, np.float32)
    fit = backend.empty((len(counts),), np.float64)
    backend.run(
        backward.output_error,
        len(counts),
        backend.put(labels),
        counts,
        forward.potential,
        layout.LOSS_MSE if settings.loss == "mse" else layout.LOSS_CROSS_ENTROPY,
        int(settings.normalise),
        error,
        fit,
        work=10 * math.prod(counts.shape),
    )
    gradients: list[Gradient] = []
    share = settings.sparsity / network.dense_macs
    operations_of_a_spike = 0.0  # in the next layer that has neurons
    for index in range(len(network.layers) - 1, -1, -1):
        layer = network.layers[index]
        inputs = forward.activities[index]
        if not isinstance(layer, SpikingLayer):
            error = layer.propagate(inputs, error, normalise=settings.normalise, placed=placed[index])
            continue
        delta, threshold_delta = layer.deltas(
            forward.activities[index + 1],
            error,
            normalise=settings.normalise,
            is_output=index == len(network.layers) - 1,
            spike_cost=share * operations_of_a_spike,
            placed=placed[index],
        )
        weight, threshold = layer.gradients(
            inputs, delta, threshold_delta, normalise=settings.normalise, placed=placed[index]
        )
        gradients.insert(0, Gradient(weight, threshold))
        operations_of_a_spike = layer.dense_macs / layer.n_in
        if index > 0:
            error = layer.propagate(inputs, delta, normalise=settings.normalise, placed=placed[index])
    return fit, gradients


def losses(fit: npt.NDArray[np.float64], settings: LearningSettings) -> npt.NDArray[np.float64]:
    """Loss of every sample: of the mean squared error itself, of the probability of the label its -log.

    Parameters
    ----------
    fit : ndarray of float64, shape (n_samples,)
        As :func:`backpropagate` returns it, on the host.
    settings : LearningSettings
    """
    if settings.loss == "mse":
        return fit
    return -portable.log(np.maximum(fit, 1e-30))
