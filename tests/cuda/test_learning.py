"""Errors, gradients, regularisers and optimisers on CUDA: the bits of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu import backward as cpu_backward
from evsnn_kernels.cpu import gradient as cpu_gradient
from evsnn_kernels.cpu import optimiser as cpu_optimiser
from evsnn_kernels.cpu import regulariser as cpu_regulariser
from evsnn_kernels.cuda import backward, gradient, optimiser, regulariser
from one_thread import check

THREADS = 8
SIZES = (1, THREADS - 1, THREADS, THREADS + 1, 3 * THREADS + 2)


def rng(*seed):
    return np.random.default_rng([sum(map(ord, str(word))) for word in seed])


def numbers(random, *shape, spread=3.0):
    """Numbers of both signs and many magnitudes, so that the order of a sum shows in its bits."""
    return (random.normal(size=shape) * np.exp(random.normal(size=shape) * spread)).astype(np.float32)


def counts(random, *shape, silent=0.4):
    """Spike counts, some of them 0."""
    return (random.integers(1, 9, shape) * (random.random(shape) > silent)).astype(np.float32)


@pytest.mark.parametrize("kind", [layout.LOSS_CROSS_ENTROPY, layout.LOSS_MSE])
@pytest.mark.parametrize("normalise", [0, 1])
@pytest.mark.parametrize("n_out", SIZES)
def test_output_error(twins, kind, normalise, n_out):
    random = rng(kind, normalise, n_out)
    labels = random.integers(0, n_out, 3).astype(np.uint16)
    # The state of a layer has more columns than neurons.
    potential = np.full((3, layout.padded(n_out)), np.nan, np.float32)
    potential[:, :n_out] = random.uniform(-5, 1, (3, n_out))
    spikes = counts(random, 3, n_out)
    spikes[1] = 0.0
    spikes[2, 0] = 1500.0  # all other neurons have probability 0
    error, loss = np.full((3, n_out), 7, np.float32), np.full(3, 7.0)
    result = twins(
        cpu_backward.output_error,
        backward.output_error,
        3,
        labels,
        spikes,
        potential,
        kind,
        normalise,
        error,
        loss,
        threads=THREADS,
    )
    assert np.isfinite(result[5]).all()
    assert np.isfinite(result[6]).all()


def test_output_error_of_more_neurons_than_a_tile(twins, constants):
    constants(backward, TILE=5)
    random = rng("tile")
    labels = np.array([11, 0], np.uint16)
    twins(
        cpu_backward.output_error,
        backward.output_error,
        2,
        labels,
        counts(random, 2, 12),
        random.uniform(-5, 1, (2, 12)).astype(np.float32),
        layout.LOSS_CROSS_ENTROPY,
        1,
        np.empty((2, 12), np.float32),
        np.empty(2),
        threads=4,
    )


@pytest.mark.parametrize(("members", "groups"), [(n, 1) for n in SIZES] + [(3, 7), (3, 8), (4, 9), (20, 25)])
@pytest.mark.parametrize("normalise", [0, 1])
@pytest.mark.parametrize("is_output", [0, 1])
@pytest.mark.parametrize("tile", [8, 512])
def test_layer_delta(twins, constants, members, groups, normalise, is_output, tile):
    constants(backward, TILE=tile)
    random = rng(members, groups, normalise, is_output)
    n = members * groups
    activity = counts(random, 3, n)
    activity[1] = 0.0
    error = numbers(random, 3, n)
    if not is_output:
        error[activity == 0] = np.nan  # must not be read
    twins(
        cpu_backward.layer_delta,
        backward.layer_delta,
        3,
        activity,
        np.abs(numbers(random, members)) + np.float32(0.01),
        np.float32(-0.05),
        normalise,
        is_output,
        np.float32(0.003),
        error,
        np.full((3, n), 7, np.float32),
        np.full((3, n), 7, np.float32),
        threads=THREADS,
    )


@pytest.mark.parametrize("n_in", SIZES)
@pytest.mark.parametrize("n_out", SIZES)
@pytest.mark.parametrize("normalise", [0, 1])
def test_propagate(twins, n_in, n_out, normalise):
    random = rng(n_in, n_out, normalise)
    delta = numbers(random, 3, n_out)
    delta[0, random.random(n_out) < 0.5] = 0.0
    delta[1] = 0.0
    activity = counts(random, 3, n_in)
    activity[2] = 0.0
    weight = numbers(random, n_in, n_out)
    twins(
        cpu_backward.propagate,
        backward.propagate,
        3,
        activity,
        weight,
        normalise,
        delta,
        np.full((3, n_in), 7, np.float32),
        threads=THREADS,
    )


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 3), (5, 64)])
@pytest.mark.parametrize("listed", [1, 3, 11])
def test_propagate_in_tiles(twins, constants, rows, columns, listed):
    constants(backward, LIST=listed, LIST_WORDS=1)
    constants(backward, TILE_INPUTS=rows, TILE_NEURONS=columns, TILE_PITCH=columns + 1)
    random = rng(rows, columns)
    weight = numbers(random, 11, 13)
    # A silent input's row, and a neuron without error, never enter a sum.
    delta = numbers(random, 2, 13)
    activity = counts(random, 2, 11)
    delta[:, 4] = 0.0
    activity[:, 6] = 0.0
    weight[:, 4] = np.inf
    weight[6] = np.nan
    out = np.empty((2, 11), np.float32)
    result = twins(cpu_backward.propagate, backward.propagate, 2, activity, weight, 1, delta, out, threads=4)
    assert np.isfinite(result[-1]).all()


@pytest.mark.parametrize("n_in", SIZES)
@pytest.mark.parametrize("normalise", [0, 1])
def test_gradient_scales(twins, n_in, normalise):
    activity = counts(rng(n_in), 5, n_in)
    activity[3] = 0.0
    out = [np.full(5, 7, np.float32) for _ in range(2)]
    twins(
        cpu_gradient.gradient_scales,
        gradient.gradient_scales,
        5,
        activity,
        800,
        normalise,
        *out,
        threads=THREADS,
    )


@pytest.mark.parametrize("n_out", SIZES)
@pytest.mark.parametrize(("n_samples", "at_once"), [(1, 256), (10, 256), (10, 4)])
def test_weight_gradient(twins, constants, n_out, n_samples, at_once):
    constants(gradient, _SAMPLES=at_once)
    random = rng(n_out, n_samples)
    activity = counts(random, n_samples, 4)
    activity[:, 2] = 0.0
    twins(
        cpu_gradient.weight_gradient,
        gradient.weight_gradient,
        4,
        activity,
        numbers(random, n_samples, n_out),
        np.abs(numbers(random, n_samples)),
        np.full((4, n_out), 7, np.float32),
        threads=THREADS,
    )


@pytest.mark.parametrize("n_out", SIZES)
def test_threshold_gradient(twins, n_out):
    random = rng(n_out)
    twins(
        cpu_gradient.threshold_gradient,
        gradient.threshold_gradient,
        n_out,
        numbers(random, 12, n_out),
        np.abs(numbers(random, 12)),
        np.full(n_out, 7, np.float32),
        threads=THREADS,
    )


@pytest.mark.parametrize("n_out", SIZES)
@pytest.mark.parametrize(("threads", "rows"), [(THREADS, 64), (7, 5), (7, 13)])
def test_norms(twins, constants, n_out, threads, rows):
    constants(regulariser, TILE_ROWS=rows)
    random = rng(n_out)
    weight = numbers(random, 13, n_out, spread=1.0)
    weight[:, 0] = 0.0
    norms = twins(
        cpu_regulariser.squared_norms,
        regulariser.squared_norms,
        n_out,
        weight,
        np.full(n_out, 7.0),
        threads=threads,
    )[1]
    twins(
        cpu_regulariser.add_norm_penalty,
        regulariser.add_norm_penalty,
        n_out,
        weight,
        norms,
        0.02,
        0.3,
        numbers(random, 13, n_out),
        threads=threads,
    )
    scaled = twins(
        cpu_regulariser.limit_norms, regulariser.limit_norms, n_out, norms, 1.5, weight, threads=threads
    )[2]
    assert (np.linalg.norm(scaled, axis=0) < 1.5 * (1 + 1e-6)).all()


@pytest.mark.parametrize("n", SIZES)
def test_balance_thresholds(twins, n):
    random = rng(n)
    twins(
        cpu_regulariser.balance_thresholds,
        regulariser.balance_thresholds,
        n,
        counts(random, 7, n),
        np.float32(0.03),
        np.abs(numbers(random, n)),
        threads=THREADS,
    )


@pytest.mark.parametrize("n", SIZES)
def test_raise_thresholds(twins, n):
    random = rng(n)
    threshold = numbers(random, n)
    threshold[n // 2] = np.nan
    twins(
        cpu_regulariser.raise_thresholds,
        regulariser.raise_thresholds,
        n,
        np.abs(numbers(random, n)),
        threshold,
        threads=THREADS,
    )


@pytest.mark.parametrize("n", SIZES)
def test_adam_step(twins, n):
    random = rng(n)
    gradient_of, mean, value = (numbers(random, 3, n) for _ in range(3))
    square = np.abs(numbers(random, 3, n))
    gradient_of[1] = 0.0
    mean[1] = 1e-30  # flushed to 0
    result = twins(
        cpu_optimiser.adam_step,
        optimiser.adam_step,
        3,
        gradient_of,
        *map(np.float32, (2e-3, 0.9997, 0.9, 0.999, 1.9, 90.0, 1e-8)),
        mean,
        square,
        value,
        threads=THREADS,
    )
    assert (result[8][1] == 0).all()


@pytest.mark.parametrize("n", SIZES)
def test_sgd_step(twins, n):
    random = rng(n)
    twins(
        cpu_optimiser.sgd_step,
        optimiser.sgd_step,
        3,
        numbers(random, 3, n),
        *map(np.float32, (0.1, 0.999, 0.9)),
        numbers(random, 3, n),
        numbers(random, 3, n),
        threads=THREADS,
    )


@pytest.mark.parametrize("n", SIZES)
def test_divide_by_threshold(twins, n):
    random = rng(n)
    twins(
        cpu_optimiser.divide_by_threshold,
        optimiser.divide_by_threshold,
        3,
        numbers(random, 3, n),
        np.abs(numbers(random, n)),
        np.float32(0.25),
        np.full((3, n), 7, np.float32),
        threads=THREADS,
    )


@pytest.mark.parametrize("n", SIZES)
def test_count_not_finite(twins, n):
    random = rng(n)
    value = numbers(random, 6, n)
    value[0, n // 2] = np.nan
    value[1] = np.inf
    value[2, 0], value[2, -1] = -np.inf, np.nan
    value[3, 0] = np.finfo(np.float32).max
    found = twins(
        cpu_optimiser.count_not_finite,
        optimiser.count_not_finite,
        6,
        value,
        np.full(6, 7, np.int32),
        threads=THREADS,
    )[1]
    assert found.tolist() == [1, n, min(2, n), 0, 0, 0]


def test_a_kernel_is_right_for_any_grid_and_any_range():
    """Fewer blocks than indices, and a range that does not begin at 0."""
    random = rng("grid")
    activity, delta = counts(random, 6, 9), numbers(random, 6, 5)
    threshold_delta, scale = numbers(random, 6, 9), np.abs(numbers(random, 6))
    for cpu, gpu, arguments, shape in (
        (cpu_gradient.weight_gradient, gradient.weight_gradient, (activity, delta, scale), (9, 5)),
        (cpu_gradient.threshold_gradient, gradient.threshold_gradient, (threshold_delta, scale), (9,)),
    ):
        ours, theirs = np.full(shape, 7, np.float32), np.full(shape, 7, np.float32)
        cpu(*arguments, ours, 2, 8)
        gpu[2, 4, 0, 0](*arguments, theirs, 2, 8)
        assert ours.tobytes() == theirs.tobytes()
        assert (theirs[:2] == 7).all()
        assert (theirs[8:] == 7).all()


def test_a_sum_in_another_order_is_found(twins):
    """The comparison can fail: the same gradient, summed from the last sample to the first."""
    random = rng("order")
    activity, delta = counts(random, 40, 2), numbers(random, 40, 6)
    scale = np.abs(numbers(random, 40))
    out = np.zeros((2, 6), np.float32)

    def backwards(activity, delta, scale, out, first, last):
        cpu_gradient.weight_gradient(
            activity[::-1].copy(), delta[::-1].copy(), scale[::-1].copy(), out, first, last
        )

    with pytest.raises(AssertionError, match="argument 3"):
        twins(backwards, gradient.weight_gradient, 2, activity, delta, scale, out, threads=4)


def ordinary_sizes():
    """Every kernel of learning with arguments of an ordinary network, by name."""
    random = rng("ordinary")
    delta = numbers(random, 20, 400)
    delta[random.random(delta.shape) < 0.6] = 0.0
    weight = numbers(random, 300, 400, spread=0.1) * np.float32(0.05)
    threshold = np.abs(numbers(random, 400)) + np.float32(0.01)
    scale = np.abs(numbers(random, 20))
    inputs, outputs = counts(random, 20, 300), counts(random, 20, 400)
    adam = map(np.float32, (2e-3, 0.9997, 0.9, 0.999, 1.9, 90.0, 1e-8))
    norms = np.square(weight.astype(np.float64)).sum(axis=0)
    out, row, column = np.zeros((20, 400), np.float32), np.zeros(20, np.float32), np.zeros(400, np.float32)
    potential = random.uniform(-5, 1, (20, 400)).astype(np.float32)
    labels = random.integers(0, 400, 20).astype(np.uint16)
    error = numbers(random, 20, 400)
    shared = np.float32(-0.002), 1, 0, np.float32(0.003), error, out, out
    return [
        (cpu_backward, backward, "output_error", 20, labels, outputs, potential, 0, 1, out, np.zeros(20)),
        (cpu_backward, backward, "output_error", 20, labels, outputs, potential, 1, 0, out, np.zeros(20)),
        (cpu_backward, backward, "layer_delta", 20, outputs, threshold, *shared),
        (cpu_backward, backward, "layer_delta", 20, outputs, threshold[:16], *shared),
        (cpu_backward, backward, "propagate", 20, inputs, weight, 1, delta, np.zeros_like(inputs)),
        (cpu_gradient, gradient, "gradient_scales", 20, inputs, 400, 1, row, row),
        (cpu_gradient, gradient, "weight_gradient", 300, inputs, delta, scale, np.zeros_like(weight)),
        (cpu_gradient, gradient, "threshold_gradient", 400, delta, scale, column),
        (cpu_regulariser, regulariser, "squared_norms", 400, weight, np.zeros(400)),
        (
            cpu_regulariser,
            regulariser,
            "add_norm_penalty",
            400,
            weight,
            norms,
            0.02,
            10.0,
            weight[::-1].copy(),
        ),
        (cpu_regulariser, regulariser, "limit_norms", 400, norms, 0.8, weight),
        (cpu_regulariser, regulariser, "balance_thresholds", 400, outputs, np.float32(1e-4), threshold),
        (cpu_optimiser, optimiser, "adam_step", 20, delta, *adam, error, np.abs(error), potential),
        (
            cpu_optimiser,
            optimiser,
            "sgd_step",
            20,
            delta,
            *map(np.float32, (0.1, 0.999, 0.9)),
            error,
            potential,
        ),
        (cpu_optimiser, optimiser, "divide_by_threshold", 300, weight, threshold, np.float32(0.25), weight),
        (cpu_optimiser, optimiser, "count_not_finite", 300, weight, np.zeros(300, np.int32)),
    ]


@pytest.mark.parametrize("case", ordinary_sizes(), ids=lambda case: case[2])
def test_compiled_for_one_thread(case):
    cpu, gpu, name, size, *arguments = case
    check(getattr(cpu, name), getattr(gpu, name), size, *arguments)
