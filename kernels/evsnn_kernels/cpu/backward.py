"""Errors, passed back through active neurons only (docs/model.md, S7 to S9)."""

from __future__ import annotations

import math

import numpy as np

from evsnn_kernels.jit import cpu_kernel, larger
from evsnn_kernels.layout import F32, F64, LOSS_CROSS_ENTROPY, U16, Scalar
from evsnn_kernels.spec.learning import effective_activity, lateral_inverse, output_logit, portable_exp


@cpu_kernel
def output_error(
    labels: U16,
    counts: F32,
    potential: F32,
    kind: Scalar,
    normalise: Scalar,
    out_error: F32,
    out_loss: F64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Derivative of the loss by the output activity (S9).

    Parameters
    ----------
    labels : uint16 (n_samples,)
    counts : float32 (n_samples, n_out)
        Output spike counts.
    potential : float32 (n_samples, n_out or more)
        Residual membrane potential over threshold; columns beyond the neurons are not read.
    kind : int64
        ``LOSS_CROSS_ENTROPY`` or ``LOSS_MSE``.
    normalise : int64
        With 1, the error of ``LOSS_MSE`` is that of o = counts / max count, as in the paper; with 0 it is
        the derivative by the counts themselves, the largest count held fixed.
    out_error : float32 (n_samples, n_out)
    out_loss : float64 (n_samples,)
        The loss for ``LOSS_MSE``; for ``LOSS_CROSS_ENTROPY`` the probability given to the label.
    """
    n_out = counts.shape[1]
    logit = np.empty(n_out, np.float64)
    for s in range(first, last):
        label = np.int64(labels[s])
        if kind == LOSS_CROSS_ENTROPY:
            top = -np.inf
            for i in range(n_out):
                logit[i] = output_logit(counts[s, i], potential[s, i])
                top = larger(top, logit[i])
            total = 0.0
            for i in range(n_out):
                logit[i] = portable_exp(logit[i] - top)
                total += logit[i]
            for i in range(n_out):
                target = 1.0 if i == label else 0.0
                out_error[s, i] = np.float32(logit[i] / total - target)
            out_loss[s] = logit[label] / total
        else:
            largest = np.float32(1.0)
            for i in range(n_out):
                largest = larger(largest, counts[s, i])
            loss = 0.0
            for i in range(n_out):
                target32 = np.float32(1.0) if i == label else np.float32(0.0)
                error = counts[s, i] / largest - target32
                loss += 0.5 * np.float64(error) * np.float64(error)
                out_error[s, i] = error if normalise != 0 else error / largest
            out_loss[s] = loss


@cpu_kernel
def layer_delta(
    activity: F32,
    threshold: F32,
    coupling: Scalar,
    normalise: Scalar,
    is_output: Scalar,
    spike_cost: Scalar,
    error: F32,
    out_delta: F32,
    out_threshold_delta: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Error of each neuron's input sum from the error of its activity (S7, S8).

    Parameters
    ----------
    activity : float32 (n_samples, n)
    threshold : float32 (members,)
        Of each member of a WTA group. Neuron ``i * groups + g`` is member i of group g, so that a dense
        layer is one group, and a convolution has a group of maps at every place.
    coupling : float32
        sigma * kappa.
    normalise : int64
        1: scale by g / rms(g), g = 1 / V_th; 0: the exact derivative, scale by g.
    is_output : int64
        1: all neurons count as active (their residual potential carries the error of a silent one).
    spike_cost : float32
        Added to every error: what a spike costs.
    error : float32 (n_samples, n)
        Derivative of the loss by the activity; read where the neuron is active.
    out_delta : float32 (n_samples, n)
        Derivative by the input sum s_i; 0 for inactive neurons.
    out_threshold_delta : float32 (n_samples, n)
        ``delta`` times the effective activity.
    """
    members = threshold.shape[0]
    groups = activity.shape[1] // members
    for s in range(first, last):
        active = 0
        square = np.float32(0.0)
        for i in range(members):
            gain = np.float32(1.0) / threshold[i]
            for k in range(i * groups, (i + 1) * groups):
                if is_output != 0 or activity[s, k] > np.float32(0.0):
                    active += 1
                    square += gain * gain
        scale = np.float32(1.0)
        if normalise != 0 and active > 0:
            scale = np.float32(math.sqrt(square / np.float32(active)))
        for g in range(groups):
            active = 0
            total_error = np.float32(0.0)
            total_activity = np.float32(0.0)
            for i in range(members):
                k = i * groups + g
                if is_output != 0 or activity[s, k] > np.float32(0.0):
                    active += 1
                    total_error += error[s, k] + spike_cost
                    total_activity += activity[s, k]
            for i in range(members):
                k = i * groups + g
                delta = np.float32(0.0)
                effective = np.float32(0.0)
                if is_output != 0 or activity[s, k] > np.float32(0.0):
                    shared = lateral_inverse(error[s, k] + spike_cost, total_error, coupling, active)
                    delta = shared / (threshold[i] * scale)
                    effective = effective_activity(activity[s, k], total_activity, coupling)
                out_delta[s, k] = delta
                out_threshold_delta[s, k] = delta * effective


@cpu_kernel
def propagate(
    activity: F32, weight: F32, normalise: Scalar, delta: F32, out_error: F32, first: Scalar, last: Scalar
) -> None:
    """Error of the active inputs of a dense layer: out_error[k] = sum_i weight[k, i] delta[i] (S8).

    Parameters
    ----------
    activity : float32 (n_samples, n_in)
        Inactive inputs get error 0.
    weight : float32 (n_in, n_out)
    normalise : int64
        1: multiply by sqrt(M / m), M inputs of which m are active.
    delta : float32 (n_samples, n_out)
        Errors of this layer's input sums; zeros are skipped.
    out_error : float32 (n_samples, n_in)
    """
    n_in, n_out = weight.shape
    nonzero = np.empty(n_out, np.int64)
    for s in range(first, last):
        n_delta = 0
        for i in range(n_out):
            if delta[s, i] != np.float32(0.0):
                nonzero[n_delta] = i
                n_delta += 1
        active = 0
        for k in range(n_in):
            total = np.float32(0.0)
            if activity[s, k] > np.float32(0.0):
                active += 1
                for j in range(n_delta):
                    i = nonzero[j]
                    total += weight[k, i] * delta[s, i]
            out_error[s, k] = total
        if normalise != 0 and active > 0:
            scale = np.float32(math.sqrt(np.float32(n_in) / np.float32(active)))
            for k in range(n_in):
                out_error[s, k] *= scale
