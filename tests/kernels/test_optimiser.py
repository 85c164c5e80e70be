"""Optimisers and regularisers against plain NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels.cpu.regulariser import raise_thresholds
from reference.optimisers import (
    adam_step,
    max_norm,
    regularise_thresholds,
    sgd_step,
    weight_regulariser_gradient,
)

from evsnn.backends import CpuBackend
from evsnn.errors import DataError, SettingsError
from evsnn.learning import Gradient, LearningSettings, Optimiser, rate_factor
from evsnn.network import Network, NetworkSettings

SIZES = "12-9-4"


def network():
    return Network.from_architecture(SIZES, seed=3, settings=NetworkSettings(alpha=2.0))


def batches(n=6, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(12, 9), (9, 4)]
    for _ in range(n):
        gradients = [
            Gradient(
                rng.normal(0, 0.1, shape).astype(np.float32),
                rng.normal(0, 0.1, shape[1]).astype(np.float32),
            )
            for shape in shapes
        ]
        activities = [np.maximum(rng.normal(0, 1, (7, size)), 0).astype(np.float32) for size in (12, 9, 4)]
        yield gradients, activities


def optimiser_of(net, settings, backend=None):
    backend = backend or CpuBackend(1)
    return Optimiser(net, [layer.place(backend) for layer in net.layers], settings)


def trained(threads=1, **settings):
    net = network()
    with CpuBackend(threads) as backend:
        optimiser = optimiser_of(net, LearningSettings(**settings), backend)
        for step, (gradients, activities) in enumerate(batches()):
            optimiser.step(gradients, activities, rate_factor("linear", step, 10))
    return net, optimiser


def assert_close(net, weights, thresholds):
    for layer, weight, threshold in zip(net.layers, weights, thresholds, strict=True):
        np.testing.assert_allclose(layer.weight, weight, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(layer.threshold, threshold, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("penalty", [0.0, 0.02])
@pytest.mark.parametrize("limit", [0.0, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.001])
def test_adam_and_every_regulariser(decay, penalty, limit, rho):
    net, _ = trained(
        lr=0.01,
        threshold_lr=0.1,
        epsilon=1e-4,
        weight_decay=decay,
        norm_strength=penalty,
        norm_steepness=3.0,
        max_norm=limit,
        threshold_balance=rho,
        threshold_floor=0.9,
    )
    start = network()
    weights = [layer.weight.astype(np.float64) for layer in start.layers]
    thresholds = [layer.threshold.astype(np.float64) for layer in start.layers]
    floors = [0.9 * t.copy() for t in thresholds]
    moments = [[(0.0, 0.0), (0.0, 0.0)] for _ in weights]
    for step, (gradients, activities) in enumerate(batches()):
        factor = 1 - step / 10
        rate = 0.01 * factor
        for i in range(2):
            gradient = gradients[i].weight.astype(np.float64)
            if penalty:
                gradient = gradient + weight_regulariser_gradient(weights[i], penalty, 3.0)
            weights[i], *moments[i][0] = adam_step(
                weights[i],
                gradient,
                *moments[i][0],
                step + 1,
                learning_rate=rate,
                eps=1e-4,
                weight_decay=decay,
            )
            if limit:
                weights[i] = max_norm(weights[i], limit)
            thresholds[i], *moments[i][1] = adam_step(
                thresholds[i],
                gradients[i].threshold,
                *moments[i][1],
                step + 1,
                learning_rate=0.1 * rate,
                eps=1e-4,
            )
            thresholds[i] = regularise_thresholds(
                thresholds[i], activities[i + 1] > 0, rho * factor, floors[i]
            )
    assert_close(net, weights, thresholds)


def test_sgd_with_momentum():
    net, _ = trained(optimizer="sgd", lr=0.05, momentum=0.8, weight_decay=0.1, threshold_lr=0.5)
    start = network()
    weights = [layer.weight.astype(np.float64) for layer in start.layers]
    thresholds = [layer.threshold.astype(np.float64) for layer in start.layers]
    floors = [0.1 * t.copy() for t in thresholds]
    velocities = [[0.0, 0.0] for _ in weights]
    for step, (gradients, _) in enumerate(batches()):
        rate = 0.05 * (1 - step / 10)
        for i in range(2):
            weights[i], velocities[i][0] = sgd_step(
                weights[i],
                gradients[i].weight,
                velocities[i][0],
                learning_rate=rate,
                momentum=0.8,
                weight_decay=0.1,
            )
            thresholds[i], velocities[i][1] = sgd_step(
                thresholds[i],
                gradients[i].threshold,
                velocities[i][1],
                learning_rate=0.5 * rate,
                momentum=0.8,
            )
            thresholds[i] = np.maximum(thresholds[i], floors[i])
    assert_close(net, weights, thresholds)


def test_thresholds_are_raised_to_their_floor_and_nan_stays():
    floor = np.float32([0.5, 0.5, 0.5, 0.5, 0.5, 0.25])
    threshold = np.float32([0.1, 0.5, 0.9, np.nan, -np.inf, 0.1])
    with np.errstate(invalid="ignore"):
        expected = np.maximum(threshold, floor)
    raise_thresholds(floor, threshold, 1, 6)
    np.testing.assert_array_equal(threshold[1:], expected[1:])
    assert np.isnan(threshold[3])
    assert threshold[0] == np.float32(0.1)


def test_thresholds_stay_fixed_without_a_rate():
    net, _ = trained(threshold_lr=0.0)
    for layer, start in zip(net.layers, network().layers, strict=True):
        np.testing.assert_array_equal(layer.threshold, start.threshold)


@pytest.mark.usefixtures("spread")
def test_threads_do_not_change_a_bit():
    settings = {
        "threshold_lr": 0.1,
        "norm_strength": 0.02,
        "max_norm": 0.9,
        "threshold_balance": 0.001,
        "norm_steepness": 3.0,
    }
    one, _ = trained(**settings)
    for threads in (2, 3):
        several, _ = trained(threads, **settings)
        for a, b in zip(one.layers, several.layers, strict=True):
            np.testing.assert_array_equal(a.weight, b.weight)
            np.testing.assert_array_equal(a.threshold, b.threshold)


def test_moments_never_become_denormal():
    net = network()
    optimiser = optimiser_of(net, LearningSettings(beta1=0.1, beta2=0.1))
    for step in range(80):
        size = 1e-3 if step == 0 else 0.0
        gradients = [
            Gradient(np.full_like(layer.weight, size), np.full_like(layer.threshold, size))
            for layer in net.layers
        ]
        optimiser.step(gradients, next(batches(1))[1])
        for array in optimiser.state().values():
            assert ((array == 0) | (np.abs(array) > 1.2e-38)).all()
    assert all((array == 0).all() for array in optimiser.state().values())


def test_state_survives_and_refuses_another_shape():
    _net, optimiser = trained()
    other = optimiser_of(network(), LearningSettings())
    other.restore(optimiser.state(), optimiser.step_number)
    for name, array in optimiser.state().items():
        np.testing.assert_array_equal(other.state()[name], array)
    with pytest.raises(DataError, match="missing or has another shape"):
        optimiser_of(Network.from_architecture("3-2"), LearningSettings()).restore(optimiser.state(), 1)


def test_a_step_renews_the_weights_over_thresholds():
    net = network()
    placed = [layer.place(CpuBackend(1)) for layer in net.layers]
    before = [each.scaled.copy() for each in placed]
    gradients, activities = next(batches(1))
    Optimiser(net, placed, LearningSettings(threshold_lr=1.0)).step(gradients, activities)
    for layer, each, old in zip(net.layers, placed, before, strict=True):
        found = each.scaled[:, : layer.n_out]
        np.testing.assert_array_equal(found, layer.weight / layer.threshold)
        assert not np.array_equal(each.scaled, old)


def test_schedules():
    assert [rate_factor("constant", s, 4) for s in range(5)] == [1.0] * 5
    assert [rate_factor("linear", s, 4) for s in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    np.testing.assert_allclose(
        [rate_factor("cosine", s, 4) for s in range(5)], [1, 0.8535534, 0.5, 0.1464466, 0], atol=1e-7
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", float("nan")),
        ("lr", 0.0),
        ("lr", float("inf")),
        ("batch_size", 0),
        ("loss", "hinge"),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("threshold_floor", 0.0),
        ("schedule", "step"),
    ],
)
def test_absurd_settings_are_named(name, value):
    with pytest.raises(SettingsError, match=name):
        LearningSettings(**{name: value})
