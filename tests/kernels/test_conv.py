"""Convolution and pooling against plain loops: spikes, operations, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu import conv
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.convolution import convolution_matrix, simulate_conv, simulate_pool
from reference.surrogate import cross_entropy, numerical_gradient, solve_inhibition
from support import learn, queue_of, run_layer, scaled, simulate, sorted_events

from evsnn.backends import CpuBackend
from evsnn.errors import SettingsError
from evsnn.layers import AveragePool, Conv2d, NeuronSettings
from evsnn.learning import LearningSettings
from evsnn.network import Network, NetworkSettings, Pass, Simulator, parse_architecture


def run_conv(layer, samples, threads=1):
    return simulate(layer, samples, threads)


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel = draw(st.integers(1, 4))
    in_shape = (draw(st.integers(1, 3)), draw(st.integers(kernel, 7)), draw(st.integers(kernel, 7)))
    geometry = (kernel, draw(st.integers(1, 3)), draw(st.integers(0, kernel - 1)))
    maps = draw(st.sampled_from([1, 2, 5, 20]))
    neuron = NeuronSettings(
        tau_ms=draw(st.sampled_from([2.0, 20.0, math.inf])),
        refractory_ms=draw(st.sampled_from([0.0, 0.004, 1.0])),
        kappa=draw(st.sampled_from([0.0, -0.1, -1.0])),
        clamp=draw(st.sampled_from([0.0, 1.0, 8.0, math.inf])),
    )
    weight = rng.normal(0.15, 0.5, (kernel * kernel * in_shape[0], maps))
    threshold = rng.uniform(0.3, 1.5, maps)
    if draw(st.booleans()):  # a coarse grid meets the threshold exactly, again and again
        weight, threshold = np.round(weight * 4) / 4, np.full(maps, 0.5)
    span = draw(st.sampled_from([1, 8, 3000]))
    events = sorted_events(rng, draw(st.integers(0, 80)), int(np.prod(in_shape)), span)
    return weight.astype(np.float32), threshold.astype(np.float32), in_shape, geometry, neuron, events


@settings(max_examples=150)
@given(cases())
def test_conv_equals_plain_loops_bit_for_bit(case):
    weight, threshold, in_shape, geometry, neuron, (times, units) = case
    layer = Conv2d(weight, threshold, neuron, in_shape, *geometry)
    (found,), potential, operations = run_conv(layer, [(times, units)])
    expected = simulate_conv(
        times,
        units,
        weight,
        threshold,
        in_shape,
        *geometry,
        tau_us=neuron.tau_us,
        refractory_us=neuron.refractory_us,
        kappa=neuron.kappa,
        clamp=neuron.clamp,
        dtype=np.float32,
        normalised=True,
        decay_tables=layout.decay_tables(neuron.tau_us),
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(potential[0], expected[2].T.astype(np.float32).ravel())
    assert operations[0] == expected[3]


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(2, 9)),
    size=st.integers(1, 4),
    seed=st.integers(0, 1000),
    span=st.sampled_from([1, 5, 1000]),
)
def test_pool_relays_in_order(shape, size, seed, span):
    if size > min(shape[1:]):
        with pytest.raises(SettingsError, match="does not fit"):
            AveragePool(shape, size)
        return
    times, units = sorted_events(np.random.default_rng(seed), 90, int(np.prod(shape)), span)
    pool = AveragePool(shape, size)
    (found, silent), _, operations = simulate(pool, [(times, units), (times[:0], units[:0])])
    expected = simulate_pool(times, units, shape, size)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert len(silent[0]) == 0
    assert operations.tolist() == [0, 0]


@pytest.mark.parametrize("refractory_ms", [0.0, 1.0])
def test_conv_of_a_single_place_equals_dense(refractory_ms):
    rng = np.random.default_rng(0)
    weight, threshold = rng.normal(0.1, 0.5, (6, 9)).astype(np.float32), rng.uniform(0.5, 1, 9)
    neuron = NeuronSettings(tau_ms=5.0, kappa=-0.2, refractory_ms=refractory_ms)
    samples = [sorted_events(rng, 150, 6, 20_000) for _ in range(3)]
    layer = Conv2d(weight, threshold.astype(np.float32), neuron, (6, 1, 1), 1)
    found, potential, operations = run_conv(layer, samples)
    expected, dense_potential = run_layer(weight, threshold, neuron, samples)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(potential, dense_potential)
    assert operations.tolist() == [150 * 9] * 3


@pytest.mark.usefixtures("spread")
def test_threads_and_growing_queues_do_not_change_a_bit():
    rng = np.random.default_rng(1)
    layer = Conv2d(
        rng.normal(0.2, 0.4, (18, 20)).astype(np.float32),
        np.full(20, 0.5, np.float32),
        NeuronSettings(kappa=-0.05),
        (2, 8, 8),
        3,
        padding=1,
    )
    samples = [sorted_events(rng, int(n), 128, 30_000) for n in rng.integers(0, 400, 23)]
    one = run_conv(layer, samples)
    assert max(len(times) for times, _ in one[0]) > 1000
    for threads in (2, 3):
        several = run_conv(layer, samples, threads)
        for a, b in zip(one[0], several[0], strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one[1], several[1])
        np.testing.assert_array_equal(one[2], several[2])


def test_weights_are_transposed_map_by_map():
    weight = np.random.default_rng(2).normal(size=(18, 5)).astype(np.float32)
    transposed = np.full((5, 18), 7, np.float32)
    conv.transpose(weight, transposed, 1, 4)
    np.testing.assert_array_equal(transposed[1:4], weight.T[1:4])
    assert (transposed[[0, 4]] == 7).all()


ARCHITECTURE = "6x6x2-3C3p1-P2-4C2-5-3"


def gradients(seed, threads=1, **learning):
    """Backpropagation through conv, pool, conv and dense layers from surrogate activities."""
    rng = np.random.default_rng(seed)
    physics = NetworkSettings(kappa=(-0.2, 0.0), sigma=(0.5, 0.0), alpha=(2.0, 8.0, 2.0, 2.0))
    net = Network.from_architecture(ARCHITECTURE, seed=seed, settings=physics)
    for layer in net.spiking_layers:
        layer.weight += np.abs(layer.weight).mean()
        layer.threshold *= rng.uniform(0.7, 1.3, len(layer.threshold)).astype(np.float32)
    batch = 3
    x = rng.integers(0, 4, (batch, 72)).astype(np.float64)
    labels = rng.integers(0, 3, batch).astype(np.uint16)
    weights = [layer.weight.astype(np.float64) for layer in net.spiking_layers]
    thresholds = [layer.threshold.astype(np.float64) for layer in net.spiking_layers]
    masks = [rng.random((batch, layer.n_out)) > 0.25 for layer in net.layers]

    def matrices(weights):
        """Weights of the dense layers that all layers are."""
        return [
            convolution_matrix(weight, layer.in_shape, layer.kernel, padding=layer.padding)
            if isinstance(layer, Conv2d)
            else weight
            for layer, weight in zip(net.spiking_layers, weights, strict=True)
        ]

    def surrogate(s, weights, thresholds):
        activities, spiking = [x[s]], 0
        for index, layer in enumerate(net.layers):
            below = activities[-1]
            if isinstance(layer, AveragePool):
                c, h, w = layer.in_shape
                activities.append(below.reshape(c, h // 2, 2, w // 2, 2).mean(axis=(2, 4)).ravel())
                continue
            weight, threshold = weights[spiking], thresholds[spiking]
            places = 1
            if isinstance(layer, Conv2d):
                places = layer.places
            drive = below @ weight / np.repeat(threshold, places)
            last = index == len(net.layers) - 1
            active = np.ones(layer.n_out, bool) if last else masks[index][s]
            neuron = layer.neuron
            values = np.zeros(layer.n_out)
            for place in range(places):
                group = slice(place, None, places)
                values[group] = solve_inhibition(drive[group], active[group], neuron.sigma, neuron.kappa)
            activities.append(values)
            spiking += 1
        return activities

    # Active means positive: silence what inhibition drove below zero.
    while True:
        dense = matrices(weights)
        samples = (surrogate(s, dense, thresholds) for s in range(batch))
        stacked = [np.stack(rows) for rows in zip(*samples, strict=True)]
        bad = [mask & (values <= 1e-3) for mask, values in zip(masks[:-1], stacked[1:-1], strict=True)]
        bad = [b & (not isinstance(layer, AveragePool)) for layer, b in zip(net.layers, bad, strict=False)]
        if not any(b.any() for b in bad):
            break
        masks[:-1] = [mask & ~b for mask, b in zip(masks[:-1], bad, strict=True)]

    # What a spike of a hidden layer costs on average in the next one, over the dense network's operations.
    macs = 36 * 18 * 3, 4 * 12 * 4, 16 * 5, 5 * 3
    costs = {1: macs[1] / 27, 3: macs[2] / 16, 4: macs[3] / 5}

    def loss(weights, thresholds):
        total = 0.0
        dense = matrices(weights)
        for s in range(batch):
            *hidden, output = surrogate(s, dense, thresholds)
            total += cross_entropy(output, int(labels[s]))
            spent = sum(cost * hidden[index].sum() for index, cost in costs.items())
            total += learning.get("sparsity", 0.0) * spent / sum(macs)
        return total / batch

    arrays = [values.astype(np.float32) for values in stacked]
    empty = np.zeros((len(arrays), batch), np.int64)
    forward = Pass(arrays, arrays[-1], np.zeros_like(arrays[-1]), empty[0], empty)
    found_loss, found = learn(net, forward, labels, LearningSettings(**learning), threads)
    return net, found_loss, found, loss, weights, thresholds


@pytest.mark.parametrize(("seed", "sparsity"), [(0, 0.0), (1, 0.0), (2, 0.0), (0, 30.0), (1, 30.0)])
def test_gradient_is_the_derivative_of_the_surrogate(seed, sparsity):
    _, found_loss, found, loss, weights, thresholds = gradients(seed, normalise=False, sparsity=sparsity)
    if sparsity == 0.0:  # the loss that is reported leaves the penalty out
        assert found_loss.mean() == pytest.approx(loss(weights, thresholds), rel=1e-4)
    for index in range(len(weights)):

        def by_weight(array, index=index):
            return loss([array if i == index else w for i, w in enumerate(weights)], thresholds)

        def by_threshold(array, index=index):
            return loss(weights, [array if i == index else t for i, t in enumerate(thresholds)])

        for got, expected in (
            (found[index].weight, numerical_gradient(by_weight, weights[index])),
            (found[index].threshold, numerical_gradient(by_threshold, thresholds[index])),
        ):
            assert np.abs(expected).max() > 1e-5
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@pytest.mark.usefixtures("spread")
@pytest.mark.parametrize("normalise", [True, False])
def test_gradients_do_not_depend_on_threads(normalise):
    one = gradients(3, normalise=normalise)[2]
    for threads in (2, 3):
        several = gradients(3, threads, normalise=normalise)[2]
        for a, b in zip(one, several, strict=True):
            assert np.isfinite(a.weight).all()
            np.testing.assert_array_equal(a.weight, b.weight)
            np.testing.assert_array_equal(a.threshold, b.threshold)


def test_pooled_events_weigh_a_quarter():
    """A pooled event moves the next layer's membrane by w / 4, and counts as 1/4 in learning."""
    net = Network.from_architecture("4x4-P2-3", settings=NetworkSettings(tau_ms=math.inf, alpha=100.0))
    dense = net.layers[1]
    np.testing.assert_array_equal(scaled(dense), dense.weight / dense.threshold * np.float32(0.25))
    twice = Network.from_architecture("4x4-P2-P2-3", settings=NetworkSettings(alpha=100.0))
    np.testing.assert_array_equal(
        scaled(twice.layers[2]),
        twice.layers[2].weight / twice.layers[2].threshold * np.float32(1 / 16),
    )


@pytest.mark.parametrize(
    ("text", "sizes"), [("4x4x2-P2-3", (2,)), ("4x4x2-P2-P2-3", (2, 2)), ("4x4x2-P2-P1-3", (2, 1))]
)
def test_pooled_activity_is_the_mean_over_the_window(text, sizes):
    """What learning sees of a pooling layer, one after the other, a window of one pixel included."""
    net = Network.from_architecture(text, settings=NetworkSettings(alpha=100.0))
    times, units = sorted_events(np.random.default_rng(2), 60, 32, 500)
    forward = Simulator(net.layers, CpuBackend(1)).forward(queue_of([(times, units)]), 500)
    expected = np.bincount(units, minlength=32).reshape(2, 4, 4).astype(float)
    np.testing.assert_array_equal(forward.activities[0][0], expected.ravel())
    for index, size in enumerate(sizes, start=1):
        c, h, w = expected.shape
        expected = expected.reshape(c, h // size, size, w // size, size).mean(axis=(2, 4))
        np.testing.assert_array_equal(forward.activities[index][0], expected.ravel())


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (
            "28x28-20C5-P2-50C5-P2-200-10",
            [(20, 24, 24), (20, 12, 12), (50, 8, 8), (50, 4, 4), (200, 1, 1), (10, 1, 1)],
        ),
        ("34x34x2-12C5-P2-64C5-P2-10", [(12, 30, 30), (12, 15, 15), (64, 11, 11), (64, 5, 5), (10, 1, 1)]),
        ("8x8x2-4C3p1-10", [(4, 8, 8), (10, 1, 1)]),
    ],
)
def test_architecture_shapes(text, shapes):
    parsed = parse_architecture(text)
    assert [layer.out_shape for layer in parsed.layers] == shapes
    net = Network.from_architecture(text, settings=NetworkSettings(alpha=6.0))
    assert [layer.out_shape for layer in net.layers] == shapes


def test_dense_macs_of_the_papers_conv_net():
    net = Network.from_architecture("28x28-20C5-P2-50C5-P2-200-10", settings=NetworkSettings(alpha=6.0))
    assert net.dense_macs == 24 * 24 * 20 * 25 + 8 * 8 * 50 * 500 + 800 * 200 + 200 * 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("784-20C5-10", r"token 2, '20C5': the 5x5 kernel does not fit its input of 1x784x1"),
        ("28x28-20C5-P30-10", r"token 3, 'P30': no 30x30 window fits its input of 24x24x20"),
        ("28x28-20C5p5-10", "padding must be smaller"),
        ("28x28-800-P2-10", r"token 3, 'P2': no 2x2 window fits its input of 1x1x800"),
        ("28x28-20C5-P2", "must be the number of classes"),
        ("28x28-0C5-10", "sizes must lie in 1"),
        ("28x28-20C-10", "token 2, '20C'"),
    ],
)
def test_wrong_architectures_name_token_and_shape(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_architecture(text)


def test_initial_thresholds_count_the_weight_of_pooled_events():
    net = Network.from_architecture("8x8x2-3C3-P2-4-2", settings=NetworkSettings(alpha=(6.0, 5.0, 4.0)))
    conv, _, hidden, output = net.layers
    np.testing.assert_allclose(conv.threshold, 6 * math.sqrt(3 / 18), rtol=1e-6)
    np.testing.assert_allclose(hidden.threshold, 5 * math.sqrt(3 / 27) / 4, rtol=1e-6)
    np.testing.assert_allclose(output.threshold, 4 * math.sqrt(3 / 4), rtol=1e-6)
    assert hidden.initial_threshold == pytest.approx(hidden.threshold[0])
