"""Gradients against finite differences of the surrogate and against the plain NumPy recursion."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu.backward import output_error
from evsnn_kernels.cpu.gradient import weight_gradient
from evsnn_kernels.spec.learning import lateral_inverse, portable_exp
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.surrogate import (
    cross_entropy,
    error_normalised_backward,
    mse_error,
    numerical_gradient,
    solve_inhibition,
    surrogate_forward,
)
from support import learn

from evsnn.layers import Dense
from evsnn.learning import LearningSettings
from evsnn.network import Network, NetworkSettings, Pass, parse_architecture


class Case:
    """A random network with random activities of a batch, silent units included."""

    def __init__(self, seed, sizes=(7, 9, 6, 4), batch=5, sigma=0.5, kappa=-0.4, silent=0.3):
        rng = np.random.default_rng(seed)
        self.sizes, self.batch, self.sigma, self.kappa = sizes, batch, sigma, kappa
        self.weights = [rng.normal(0.15, 0.6, pair).astype(np.float32) for pair in itertools.pairwise(sizes)]
        self.thresholds = [rng.uniform(0.5, 2.0, n).astype(np.float32) for n in sizes[1:]]
        self.thresholds[-1] *= 10  # keeps the softmax away from certainty
        self.x = rng.integers(0, 5, (batch, sizes[0])).astype(np.float64)
        self.active = [rng.random((batch, n)) > silent for n in sizes[1:]]
        self.active[-1][:] = True
        self.labels = rng.integers(0, sizes[-1], batch).astype(np.uint16)
        # The kernels know an active neuron by its positive activity, the surrogate may go below zero:
        # neurons that do are silenced until the active sets and the activities agree.
        while True:
            self.activities = [
                surrogate_forward(
                    self.x[s], self.weights, self.thresholds, [a[s] for a in self.active], sigma, kappa
                )
                for s in range(batch)
            ]
            negative = [
                self.active[layer] & (np.stack([a[layer + 1] for a in self.activities]) <= 1e-3)
                for layer in range(len(self.active) - 1)
            ]
            if not any(mask.any() for mask in negative):
                break
            for layer, mask in enumerate(negative):
                self.active[layer] &= ~mask

    def network(self):
        parsed = parse_architecture("-".join(str(n) for n in self.sizes))
        physics = NetworkSettings(alpha=1.0, kappa=self.kappa, sigma=self.sigma)
        layers = [
            Dense(w, t, n, plan.in_shape)
            for w, t, n, plan in zip(
                self.weights,
                self.thresholds,
                physics.neurons(len(self.weights)),
                parsed.layers,
                strict=True,
            )
        ]
        return Network(parsed, layers, physics, 0)

    def forward(self):
        stacked = [
            np.stack([a[layer] for a in self.activities]).astype(np.float32)
            for layer in range(len(self.sizes))
        ]
        empty = np.zeros((len(self.sizes), self.batch), np.int64)
        return Pass(stacked, stacked[-1], np.zeros_like(stacked[-1]), empty[0], empty)


def test_the_random_cases_have_active_and_silent_neurons():
    masks = [mask for seed in range(10) for mask in Case(seed).active[:-1]]
    assert 0.2 < np.mean([mask.mean() for mask in masks]) < 0.8


def gradients(case, threads=1, **settings):
    return learn(case.network(), case.forward(), case.labels, LearningSettings(**settings), threads)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    lateral=st.sampled_from([(0.0, 0.0), (0.5, -0.4), (1.0, -0.1), (0.5, -1.0)]),
)
def test_without_normalisation_the_gradient_is_the_derivative_of_the_surrogate(seed, lateral):
    case = Case(seed, sigma=lateral[0], kappa=lateral[1])

    def loss(weights, thresholds):
        total = 0.0
        for s in range(case.batch):
            masks = [a[s] for a in case.active]
            out = surrogate_forward(case.x[s], weights, thresholds, masks, case.sigma, case.kappa)[-1]
            total += cross_entropy(out, int(case.labels[s]))
        return total / case.batch

    found_loss, found = gradients(case, normalise=False)
    weights = [w.astype(np.float64) for w in case.weights]
    thresholds = [t.astype(np.float64) for t in case.thresholds]
    assert found_loss.mean() == pytest.approx(loss(weights, thresholds), rel=1e-4)
    for layer in range(len(weights)):

        def by_weight(array, layer=layer):
            return loss([array if i == layer else w for i, w in enumerate(weights)], thresholds)

        def by_threshold(array, layer=layer):
            return loss(weights, [array if i == layer else t for i, t in enumerate(thresholds)])

        for got, expected in (
            (found[layer].weight, numerical_gradient(by_weight, weights[layer])),
            (found[layer].threshold, numerical_gradient(by_threshold, thresholds[layer])),
        ):
            np.testing.assert_allclose(
                got, expected, rtol=2e-3, atol=2e-3 * max(np.abs(expected).max(), 1e-4)
            )


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
@pytest.mark.parametrize("lateral", [(0.0, 0.0), (0.5, -0.4)])
def test_gradients_equal_the_plain_recursion(normalise, loss, lateral):
    for seed in range(10):
        case = Case(seed, sigma=lateral[0], kappa=lateral[1])
        _, found = gradients(case, normalise=normalise, loss=loss)
        expected_w = [np.zeros_like(w, np.float64) for w in case.weights]
        expected_t = [np.zeros_like(t, np.float64) for t in case.thresholds]
        for s in range(case.batch):
            counts = case.activities[s][-1].astype(np.float32).astype(np.float64)
            label = int(case.labels[s])
            if loss == "mse":
                largest = max(1.0, counts.max())
                error = counts / largest - np.eye(len(counts))[label]
                if counts.max() >= 1.0:
                    np.testing.assert_allclose(error, mse_error(counts, label))
                error = error if normalise else error / largest
            else:
                p = np.exp(counts - counts.max())
                error = p / p.sum() - np.eye(len(counts))[label]
            dw, dt = error_normalised_backward(
                case.activities[s],
                case.weights,
                case.thresholds,
                [a[s] for a in case.active],
                error,
                case.sigma,
                case.kappa,
                normalise=normalise,
            )
            for layer in range(len(dw)):
                expected_w[layer] += dw[layer] / case.batch
                expected_t[layer] += dt[layer] / case.batch
        for layer, gradient in enumerate(found):
            for got, expected in (
                (gradient.weight, expected_w[layer]),
                (gradient.threshold, expected_t[layer]),
            ):
                np.testing.assert_allclose(
                    got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max() + 1e-9
                )


@pytest.mark.usefixtures("spread")
@pytest.mark.parametrize("normalise", [True, False])
def test_threads_do_not_change_a_bit(normalise):
    case = Case(1, sizes=(50, 70, 10), batch=33)
    loss, one = gradients(case, normalise=normalise)
    for threads in (2, 3):
        other_loss, several = gradients(case, threads, normalise=normalise)
        np.testing.assert_array_equal(loss, other_loss)
        for a, b in zip(one, several, strict=True):
            np.testing.assert_array_equal(a.weight, b.weight)
            np.testing.assert_array_equal(a.threshold, b.threshold)


def test_only_active_inputs_and_neurons_get_updates():
    case = Case(2)
    _, found = gradients(case)
    for layer, gradient in enumerate(found[:-1]):
        silent = ~np.stack(case.active[layer]).any(axis=0)
        assert (gradient.weight[:, silent] == 0).all()
    silent_inputs = (case.x == 0).all(axis=0)
    assert (found[0].weight[silent_inputs] == 0).all()


def test_a_wholly_silent_layer_passes_nothing_back_and_divides_by_nothing():
    case = Case(3)
    case.active[0][:] = False
    forward = case.forward()
    silent = replace(
        forward, activities=[forward.activities[0]] + [np.zeros_like(a) for a in forward.activities[1:]]
    )
    loss, found = learn(case.network(), silent, case.labels, LearningSettings())
    assert np.isfinite(loss).all()
    for gradient in found:
        assert (gradient.weight == 0).all()
        assert np.isfinite(gradient.threshold).all()


def test_silent_outputs_still_learn():
    """Under both losses an output that never fired is told to."""
    for loss in ("mse", "cross-entropy"):
        case = Case(4, sizes=(5, 3), batch=1)
        forward = case.forward()
        silent = replace(
            forward,
            activities=[forward.activities[0], np.zeros_like(forward.activities[1])],
            counts=np.zeros_like(forward.counts),
        )
        _, found = learn(case.network(), silent, case.labels, LearningSettings(loss=loss))
        active = case.x[0] > 0
        assert (found[0].weight[active, case.labels[0]] < 0).all()


@given(st.integers(1, 20), st.floats(0.01, 1.0), st.floats(-0.99, 0.0), st.integers(0, 1000))
def test_closed_form_of_the_lateral_inverse(n, sigma, kappa, seed):
    values = np.random.default_rng(seed).normal(size=n)
    expected = solve_inhibition(values, np.ones(n, bool), sigma, kappa)
    coupling = np.float32(sigma * kappa)
    total = np.float32(values.sum())
    found = [lateral_inverse(np.float32(v), total, coupling, n) for v in values]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


@given(st.floats(-700, 700))
def test_portable_exp(x):
    assert portable_exp(x) == pytest.approx(np.exp(x), rel=1e-14)


def test_portable_exp_below_its_range_is_zero():
    assert portable_exp(-1e4) == 0.0


@pytest.mark.parametrize(("n_in", "n_out"), [(40, 70), (17, 32), (5, 96), (33, 7)])
@pytest.mark.parametrize("first", [0, 3])
def test_gradients_of_weights_are_summed_in_the_order_of_samples(n_in, n_out, first):
    """Bit for bit: in float32, sample after sample, whatever rows and neurons are taken together."""
    rng = np.random.default_rng(n_out + first)
    activity = (rng.integers(0, 5, (23, n_in)) * (rng.random((23, n_in)) < 0.4)).astype(np.float32)
    delta = (rng.normal(size=(23, n_out)) * (rng.random((23, n_out)) < 0.5)).astype(np.float32)
    scale = rng.uniform(0.01, 1.0, 23).astype(np.float32)
    expected = np.zeros((n_in, n_out), np.float32)
    for s in range(23):
        for k in np.flatnonzero(activity[s]):
            expected[k] += (activity[s, k] * scale[s]) * delta[s]
    found = np.full((n_in, n_out), 7, np.float32)
    weight_gradient(activity, delta, scale, found, first, n_in - 1)
    assert found[first:-1].tobytes() == expected[first:-1].tobytes()
    assert (found[:first] == 7).all()
    assert (found[-1] == 7).all()


def test_a_planted_error_is_found():
    """The recursion with the wrong sign of the threshold derivative does not pass for the right one."""
    case = Case(1)
    _, found = gradients(case, normalise=False)
    wrong = -found[0].threshold
    assert np.abs(found[0].threshold).max() > 1e-3
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, found[0].threshold, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [layout.LOSS_CROSS_ENTROPY, layout.LOSS_MSE])
def test_potentials_beyond_the_output_neurons_are_not_read(kind):
    """A layer's state has columns up to a whole group of lanes."""
    rng = np.random.default_rng(6)
    counts = rng.integers(0, 5, (4, 10)).astype(np.float32)
    padded = np.full((4, 16), np.nan, np.float32)
    padded[:, :10] = rng.uniform(-3, 1, (4, 10))
    found = []
    for potential in (padded, np.ascontiguousarray(padded[:, :10])):
        error, loss = np.empty((4, 10), np.float32), np.empty(4)
        output_error(np.arange(4, dtype=np.uint16), counts, potential, kind, 0, error, loss, 0, 4)
        found.append((error, loss))
    for wide, narrow in zip(*found, strict=True):
        assert np.isfinite(wide).all()
        np.testing.assert_array_equal(wide, narrow)
