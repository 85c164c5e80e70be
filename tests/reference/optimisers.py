"""Optimisers and regularisers of section 3 in float64: arrays in, new arrays out.

Weights are (n_in, n_out): the incoming weights of neuron i are column i.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "adam_step",
    "max_norm",
    "regularise_thresholds",
    "sgd_step",
    "weight_regulariser",
    "weight_regulariser_gradient",
]

Array = NDArray[np.float64]


def sgd_step(
    parameter: ArrayLike,
    gradient: ArrayLike,
    velocity: ArrayLike,
    *,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """Return parameter and velocity after one step of SGD with momentum (section 3).

    ``velocity = momentum * velocity + gradient``; the learning rate multiplies the velocity when it is
    applied, so a schedule also acts on the gradients of the past. Weight decay is decoupled.
    """
    p, g = np.asarray(parameter, np.float64), np.asarray(gradient, np.float64)
    velocity = momentum * np.asarray(velocity, np.float64) + g
    return p - learning_rate * velocity - learning_rate * weight_decay * p, velocity


def adam_step(
    parameter: ArrayLike,
    gradient: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    step: int,
    *,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Return parameter, first and second moment after Adam's step number `step`, counted from 1 (section 3).

    Both moments are corrected for their bias; `eps` is added to the root. Weight decay is decoupled:
    ``w -= learning_rate * weight_decay * w``, of the weight before the step.
    """
    p, g = np.asarray(parameter, np.float64), np.asarray(gradient, np.float64)
    first = beta1 * np.asarray(first, np.float64) + (1 - beta1) * g
    second = beta2 * np.asarray(second, np.float64) + (1 - beta2) * g**2
    mean = first / (1 - beta1**step)
    square = second / (1 - beta2**step)
    change = learning_rate * mean / (np.sqrt(square) + eps)
    return p - change - learning_rate * weight_decay * p, first, second


def weight_regulariser(weight: ArrayLike, lam: float, beta: float) -> float:
    """Return the sum over neurons of ``1/2 lambda exp(beta (|w_i|^2 - 1))`` (section 3)."""
    square = np.sum(np.asarray(weight, np.float64) ** 2, axis=0)
    return float(np.sum(0.5 * lam * np.exp(beta * (square - 1))))


def weight_regulariser_gradient(weight: ArrayLike, lam: float, beta: float) -> Array:
    """Return the derivative of `weight_regulariser` by each weight."""
    w = np.asarray(weight, np.float64)
    square = np.sum(w**2, axis=0)
    return lam * beta * np.exp(beta * (square - 1)) * w


def regularise_thresholds(
    threshold: ArrayLike, fired: ArrayLike, rho: float, floor: ArrayLike = 0.0
) -> Array:
    """Return the thresholds after one batch of the rule of section 3.

    Of N neurons N_w fired on a sample: ``+ rho N`` for those, ``- rho N_w`` for all. The changes are averaged
    over the batch, the floor acts once afterwards.

    Parameters
    ----------
    threshold : array_like, shape (N,)
    fired : array_like of bool, shape (batch, N)
    rho : float
    floor : array_like
        Lower bound in volts (a share of the initial thresholds).
    """
    threshold = np.asarray(threshold, np.float64)
    fired = np.asarray(fired, bool)
    N = threshold.size
    change = np.zeros(N)
    for sample in fired:
        change[sample] += rho * N
        change -= rho * np.count_nonzero(sample)
    return np.maximum(threshold + change / len(fired), floor)


def max_norm(weight: ArrayLike, limit: float) -> Array:
    """Scale down the incoming weights of every neuron whose Euclidean norm exceeds `limit` (section 3)."""
    result = np.array(weight, np.float64)
    for i in range(result.shape[1]):
        norm = np.sqrt(np.sum(result[:, i] ** 2))
        if norm > limit:
            result[:, i] *= limit / norm
    return result
