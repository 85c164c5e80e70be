"""The differentiable surrogate of section 2, its losses and its derivatives, for one sample in float64.

Activities run from the input to the output: ``activities[0]`` is x, ``activities[l + 1]`` belongs to
``weights[l]`` (n_in, n_out). ``active_sets[l]`` is a boolean mask over the neurons of layer l.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "cross_entropy",
    "cross_entropy_error",
    "error_normalised_backward",
    "mse",
    "mse_error",
    "numerical_gradient",
    "output_logits",
    "solve_inhibition",
    "surrogate_forward",
]

Array = NDArray[np.float64]


def solve_inhibition(values: ArrayLike, active: ArrayLike, sigma: float, kappa: float) -> Array:
    """Return ``(I - sigma K)^-1 values`` with ``K = kappa (J - I)`` over the active neurons, 0 elsewhere.

    Solved numerically, so that the closed form of section 2 has something to be checked against.
    """
    values = np.asarray(values, np.float64)
    active = np.asarray(active, bool)
    n = int(active.sum())
    K = kappa * (np.ones((n, n)) - np.eye(n))
    result = np.zeros(values.shape)
    result[active] = np.linalg.solve(np.eye(n) - sigma * K, values[active])
    return result


def surrogate_forward(
    x: ArrayLike,
    weights: Sequence[ArrayLike],
    thresholds: Sequence[ArrayLike],
    active_sets: Sequence[ArrayLike],
    sigma: float = 0.0,
    kappa: float = 0.0,
) -> list[Array]:
    """Return the activities of all layers: ``a = (I - sigma K)^-1 (s / V_th)``, section 2.

    A neuron outside its layer's active set has activity 0, whatever its input.

    Returns
    -------
    list of ndarray
        The input first, then one array for each layer.
    """
    activities = [np.asarray(x, np.float64)]
    for weight, threshold, active in zip(weights, thresholds, active_sets, strict=True):
        s = activities[-1] @ np.asarray(weight, np.float64)
        activities.append(solve_inhibition(s / np.asarray(threshold, np.float64), active, sigma, kappa))
    return activities


def output_logits(counts: ArrayLike, residual: ArrayLike, threshold: ArrayLike) -> Array:
    """Return counts plus half the residual potential over V_th (section 3)."""
    return np.asarray(counts) + 0.5 * np.asarray(residual, np.float64) / np.asarray(threshold, np.float64)


def cross_entropy(logits: ArrayLike, label: int) -> float:
    """Return the negative logarithm of the softmax at `label` (section 3)."""
    z = np.asarray(logits, np.float64)
    shifted = z - z.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[label])


def cross_entropy_error(logits: ArrayLike, label: int) -> Array:
    """Return the derivative of `cross_entropy` by the logits: softmax minus one-hot."""
    z = np.asarray(logits, np.float64)
    error = np.exp(z - z.max())
    error /= error.sum()
    error[label] -= 1.0
    return error


def _share_of_maximum(counts: ArrayLike) -> Array:
    counts = np.asarray(counts, np.float64)
    # silent outputs: all shares are 0, so that the loss stays finite
    return counts / counts.max() if counts.max() > 0 else np.zeros(counts.shape)


def mse(counts: ArrayLike, label: int) -> float:
    """Return ``1/2 |o - onehot|^2`` with ``o = counts / max count`` (section 3)."""
    o = _share_of_maximum(counts)
    return float(0.5 * np.sum((o - np.eye(len(o))[label]) ** 2))


def mse_error(counts: ArrayLike, label: int) -> Array:
    """Return the derivative of `mse` by o (not by the counts): ``o - onehot``."""
    o = _share_of_maximum(counts)
    return o - np.eye(len(o))[label]


def numerical_gradient(f: Callable[[Array], float], array: ArrayLike, eps: float = 1e-6) -> Array:
    """Return the gradient of ``f(array)`` by central differences."""
    array = np.array(array, np.float64)
    gradient = np.zeros(array.shape)
    for index in np.ndindex(array.shape):
        above, below = array.copy(), array.copy()
        above[index] += eps
        below[index] -= eps
        gradient[index] = (f(above) - f(below)) / (2 * eps)
    return gradient


def error_normalised_backward(
    activities: Sequence[ArrayLike],
    weights: Sequence[ArrayLike],
    thresholds: Sequence[ArrayLike],
    active_sets: Sequence[ArrayLike],
    error: ArrayLike,
    sigma: float = 0.0,
    kappa: float = 0.0,
    *,
    normalise: bool = True,
) -> tuple[list[Array], list[Array]]:
    """Propagate the loss error back through the layers (section 2).

    Parameters
    ----------
    activities : sequence of array_like
        Input first, then one for each layer. An input counts as active where its activity is not 0, a
        hidden neuron where its active set says so.
    weights, thresholds, active_sets : sequence of array_like
        One entry for each layer. The last active set is not read: all output neurons count as active.
    error : array_like
        Derivative of the loss by the output activity.
    sigma, kappa : float
        Weight of the inhibition in the derivative, and its strength.
    normalise : bool
        True: the error-normalised recursion. False: the exact derivative of the surrogate.

    Returns
    -------
    weight_gradients, threshold_gradients : list of ndarray
        A layer without an active neuron, or without an active input, gets zeros.
    """
    activities = [np.asarray(a, np.float64) for a in activities]
    weights = [np.asarray(w, np.float64) for w in weights]
    thresholds = [np.asarray(v, np.float64) for v in thresholds]
    active_inputs = [activities[0] != 0] + [np.asarray(s, bool) for s in active_sets[:-1]]
    weight_gradients = [np.zeros(w.shape) for w in weights]
    threshold_gradients = [np.zeros(v.shape) for v in thresholds]

    e = np.asarray(error, np.float64)
    active = np.ones(e.shape, bool)
    fan_in_factor = 1.0
    for layer in reversed(range(len(weights))):
        x, a = activities[layer], activities[layer + 1]
        M, N = weights[layer].shape
        m = int(active_inputs[layer].sum())
        if m == 0 or not active.any():
            break

        g = 1.0 / thresholds[layer]
        if normalise:
            g_bar = math.sqrt(np.mean(g[active] ** 2))
            delta = g / g_bar * fan_in_factor * solve_inhibition(e, active, sigma, kappa)
            weight_factor, threshold_factor = math.sqrt(N / m), math.sqrt(N / (m * M))
        else:
            delta = g * solve_inhibition(e, active, sigma, kappa)
            weight_factor = threshold_factor = 1.0

        for k in np.flatnonzero(active_inputs[layer]):
            for i in np.flatnonzero(active):
                weight_gradients[layer][k, i] = weight_factor * delta[i] * x[k]
        for i in np.flatnonzero(active):
            others = sum(a[j] for j in np.flatnonzero(active) if j != i)
            threshold_gradients[layer][i] = threshold_factor * delta[i] * (-a[i] + sigma * kappa * others)

        # only active neurons pass error back; M / m of this layer scales the deltas of the one below
        e = weights[layer] @ delta
        active = active_inputs[layer]
        fan_in_factor = math.sqrt(M / m)
    return weight_gradients, threshold_gradients
