"""Gradients of a batch from the activities of its forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout
from evsnn_kernels.cpu import backward

from evsnn.layers.base import SpikingLayer
from evsnn.learning.settings import LearningSettings
from evsnn.network.network import Network
from evsnn.network.simulation import Pass
from evsnn.parallel import Workers

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Gradient:
    """Mean gradient of one layer over a batch: ``weight`` (n_in, n_out) and ``threshold`` (n_out,)."""

    weight: Float32
    threshold: Float32


def backpropagate(
    network: Network,
    forward: Pass,
    labels: npt.NDArray[np.uint16],
    settings: LearningSettings,
    workers: Workers,
) -> tuple[npt.NDArray[np.float64], list[Gradient]]:
    """Loss of every sample and the mean gradient of every layer (docs/model.md, S7 to S9).

    Parameters
    ----------
    network : Network
    forward : Pass
        Forward pass of the batch, with the activity measure of ``settings``.
    labels : ndarray of uint16, shape (n_samples,)
    settings : LearningSettings
    workers : Workers

    Returns
    -------
    loss : ndarray of float64, shape (n_samples,)
    gradients : list of Gradient
        A layer with neurons each.
    """
    counts = forward.counts
    error = np.empty_like(counts)
    loss = np.empty(len(counts), np.float64)
    is_mse = settings.loss == "mse"
    workers.run(
        backward.output_error,
        len(counts),
        labels,
        counts,
        forward.potential,
        layout.LOSS_MSE if is_mse else layout.LOSS_CROSS_ENTROPY,
        int(settings.normalise),
        error,
        loss,
        work=10 * counts.size,
    )
    if not is_mse:
        loss = -np.log(np.maximum(loss, 1e-30))
    gradients: list[Gradient] = []
    share = settings.sparsity / network.dense_macs
    operations_of_a_spike = 0.0  # in the next layer that has neurons
    for index in range(len(network.layers) - 1, -1, -1):
        layer = network.layers[index]
        inputs = forward.activities[index]
        if not isinstance(layer, SpikingLayer):
            error = layer.propagate(inputs, error, normalise=settings.normalise, workers=workers)
            continue
        delta, threshold_delta = layer.deltas(
            forward.activities[index + 1],
            error,
            normalise=settings.normalise,
            is_output=index == len(network.layers) - 1,
            spike_cost=share * operations_of_a_spike,
            workers=workers,
        )
        weight, threshold = layer.gradients(
            inputs, delta, threshold_delta, normalise=settings.normalise, workers=workers
        )
        gradients.insert(0, Gradient(weight, threshold))
        operations_of_a_spike = layer.dense_macs / layer.n_in
        if index > 0:
            error = layer.propagate(inputs, delta, normalise=settings.normalise, workers=workers)
    return loss, gradients
