"""Forward kernels and those of the convolution: CUDA (simulated) against CPU, bit for bit."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu import activity as cpu_activity
from evsnn_kernels.cpu import conv as cpu_conv
from evsnn_kernels.cpu import dense as cpu_dense
from evsnn_kernels.cpu import pool as cpu_pool
from evsnn_kernels.cuda import activity, conv, dense, pool
from numba import types
from one_thread import check

NEURONS = {
    "plain": {},
    "wta": {"kappa": -0.3},
    "refractory": {"refractory": 3},
    "both": {"kappa": -0.6, "refractory": 9, "clamp": 0.4},
    "held at zero": {"kappa": -0.2, "clamp": 0.0},
    "no decay, no clamp": {"tau": math.inf, "clamp": math.inf, "kappa": -0.1},
    "decays to nothing": {"tau": 5.0, "kappa": -0.2},
}


def neuron(tau=30.0, kappa=0.0, refractory=0, clamp=1.0):
    """Parameters of the kernels from decay tables on."""
    return *layout.decay_tables(tau), np.float32(-clamp), np.float32(kappa), refractory


def events(rng, n_samples, n_in, n_events, span):
    """Input queue; sample 0 has one event, the last one none."""
    count = rng.integers(n_events // 2, n_events + 1, n_samples)
    count[0], count[-1] = 1, 0
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    times, units = np.zeros((2, count.sum()), np.uint32)
    for s, n in zip(start, count, strict=True):
        t, u = rng.integers(0, span, n), rng.integers(0, n_in, n)
        order = np.lexsort((u, t))
        times[s : s + n], units[s : s + n] = t[order], u[order]
    return times, units, start.astype(np.int64), count.astype(np.int64)


def room(n_samples, slot):
    """Output queue with ``slot`` places a sample."""
    times, units = np.full((2, n_samples * slot), 99, np.uint32)
    return times, units, np.arange(n_samples + 1, dtype=np.int64) * slot, np.zeros(n_samples, np.int64)


def weights(rng, shape, scale):
    """Half of the values on a coarse grid, which meets thresholds and clamps exactly, and 0."""
    w = rng.normal(0.1 * scale, scale, shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.5, np.round(w * 4) / 4, w).astype(np.float32)


def dense_case(seed, n_out, *, span=60, slot=400, n_events=40, **settings):
    """Arguments of the dense forward pass, with neurons in whole groups of lanes."""
    rng = np.random.default_rng(seed)
    n_samples, n_in, width = 3, 5, layout.padded(n_out)
    queue = events(rng, n_samples, n_in, n_events, span)
    parameters = neuron(**settings)
    weight = np.zeros((n_in, width), np.float32)
    weight[:, :n_out] = weights(rng, (n_in, n_out), 0.4)
    potential = np.zeros((n_samples, width), np.float32)
    potential[:, :n_out] = rng.normal(0, 0.5, (n_samples, n_out))
    spikes = width if parameters[-1] > 0 else 0
    last_spike = rng.choice([layout.NEVER, -2], (n_samples, spikes)).astype(np.int64)
    state = (potential, np.zeros(n_samples, np.int64), last_spike)
    operations = np.full(n_samples, 7, np.int64)
    return [*queue, weight, *parameters, n_out, *state, *room(n_samples, slot), operations]


@pytest.mark.parametrize("settings", NEURONS.values(), ids=NEURONS)
def test_dense(twins, settings):
    out = twins(cpu_dense.forward, dense.forward, 3, *dense_case(1, 37, **settings))
    assert out[-2].sum() > 5
    np.testing.assert_array_equal(out[-1], out[3] * 37)


@pytest.mark.parametrize("threads", [1, 7, 8, 9, 16])
@pytest.mark.parametrize("n_out", [1, 8, 9, 17, 24, 25, 33, 64, 65])
@pytest.mark.parametrize("kappa", [0.0, -0.2])
def test_dense_at_the_edges_of_blocks_and_words(twins, n_out, threads, kappa):
    case = dense_case(n_out, n_out, n_events=16, kappa=kappa, refractory=4)
    twins(cpu_dense.forward, dense.forward, 3, *case, threads=threads)


def cut(case, slot):
    """Queue of the CPU with room for all, of each sample its first events that a smaller slot holds."""
    whole = [a.copy() if isinstance(a, np.ndarray) else a for a in case]
    cpu_dense.forward(*whole, 0, 3)
    times, units, slots, count = whole[-5:-1]
    assert count.max() <= slots[1]
    parts = [np.full(3 * slot, 99, np.uint32) for _ in range(2)]
    for s in range(3):
        n = min(count[s], slot)
        for part, events in zip(parts, (times, units), strict=True):
            part[s * slot : s * slot + n] = events[slots[s] : slots[s] + n]
    return parts


def dense_twins(twins, case, slot):
    """Twins with slots that are too small. The CPU repeats at once; CUDA's next layer reads what there is."""
    small = [*case[:-5], *room(3, slot), case[-1]]
    queue = len(case) - 5, len(case) - 4
    out = twins(cpu_dense.forward, dense.forward, 3, *small, apart=queue)
    for position, expected in zip(queue, cut(case, slot), strict=True):
        np.testing.assert_array_equal(out[position], expected)
    return out


@pytest.mark.parametrize("slot", [0, 1, 5])
def test_dense_counts_what_does_not_fit(twins, slot):
    out = dense_twins(twins, dense_case(2, 12), slot)
    assert out[-2].max() > slot


@pytest.mark.parametrize("span", [1, 4, 1000])
@pytest.mark.parametrize(("kappa", "run", "run_words"), [(-0.1, 32, 1024), (0.0, 3, 1024), (0.0, 32, 10)])
def test_dense_time_groups_over_staged_chunks_and_runs(twins, constants, span, kappa, run, run_words):
    constants(dense, _CHUNK=8, _RUN=run, _RUN_WORDS=run_words)
    case = dense_case(3, 65, span=span, kappa=kappa, tau=500.0)
    out = twins(cpu_dense.forward, dense.forward, 3, *case)
    assert out[-2].sum() > 0


@pytest.mark.parametrize("kappa", [0.0, -0.01])
@pytest.mark.parametrize("slot", [2000, 500, 33])
def test_dense_when_all_neurons_fire_at_all_events(twins, kappa, slot):
    """Every bit of a run is set, and the queue ends somewhere in it."""
    case = dense_case(6, 33, span=40, slot=2000, kappa=kappa)
    case[4][:, :33] = 1.5
    out = dense_twins(twins, case, slot)
    assert out[-2].max() > 700


def test_dense_in_global_memory(twins, constants):
    constants(dense, _MOST_SHARED=4)
    for kappa in (0.0, -0.2):
        twins(cpu_dense.forward, dense.forward, 3, *dense_case(4, 20, kappa=kappa))


def test_a_range_leaves_other_samples_alone(twins):
    case = dense_case(5, 8)
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in case]
    dense.forward[4, 8, 0, dense.forward.shared_bytes(*case, 1, 2)](*case, 1, 2)
    cpu_dense.forward(*before, 1, 2)
    for a, b in zip(case, before, strict=True):
        if isinstance(a, np.ndarray):
            assert a.tobytes() == b.tobytes()


def conv_case(seed, *, maps=3, channels=2, size=(6, 5), kernel=3, stride=1, padding=0, **settings):
    rng = np.random.default_rng(seed)
    span, slot, n_events = (settings.pop(k, d) for k, d in (("span", 40), ("slot", 300), ("n_events", 30)))
    n_samples, (height, width) = 3, size
    out_height, out_width = ((n + 2 * padding - kernel) // stride + 1 for n in size)
    places, padded = out_height * out_width, layout.padded(maps)
    weight = np.zeros((kernel * kernel * channels, padded), np.float32)
    weight[:, :maps] = weights(rng, (len(weight), maps), 0.5)
    parameters = neuron(**settings)
    spikes = places * padded if parameters[-1] > 0 else 0
    potential = np.zeros((n_samples, places, padded), np.float32)
    potential[:, :, :maps] = rng.normal(0, 0.4, (n_samples, places, maps))
    state = (
        potential.reshape(n_samples, -1),
        np.zeros((n_samples, places), np.int64),
        np.full((n_samples, spikes), layout.NEVER, np.int64),
    )
    geometry = (height, width, kernel, stride, padding, out_height, out_width, maps)
    queue = events(rng, n_samples, channels * height * width, n_events, span)
    operations = np.zeros(n_samples, np.int64)
    return [*queue, weight, *parameters, *geometry, *state, *room(n_samples, slot), operations]


@pytest.mark.parametrize("settings", NEURONS.values(), ids=NEURONS)
def test_conv(twins, settings):
    out = twins(cpu_conv.forward, conv.forward, 3, *conv_case(1, **settings))
    assert out[-2].sum() > 5


@pytest.mark.parametrize(
    "shape",
    [
        {"maps": 1, "channels": 1, "size": (1, 1), "kernel": 1},
        {"maps": 8, "kernel": 2, "stride": 2},
        {"maps": 9, "kernel": 3, "stride": 2, "padding": 1},
        {"maps": 2, "kernel": 5, "padding": 2},
        {"maps": 4, "kernel": 1, "stride": 3},  # inputs that reach no place
        {"maps": 3, "kernel": 2, "stride": 3, "size": (7, 7)},
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 8, 13])
def test_conv_shapes(twins, shape, threads):
    case = conv_case(2, **shape, span=25, kappa=-0.2)
    twins(cpu_conv.forward, conv.forward, 3, *case, threads=threads)


@pytest.mark.parametrize("span", [1, 5, 5000])
@pytest.mark.parametrize("refractory", [0, 7])
@pytest.mark.parametrize("words", [1, 9, 1024])
@pytest.mark.parametrize("maps", [5, 33])
def test_conv_in_small_pieces(twins, constants, span, refractory, words, maps):
    """Spikes of a time group that have words for the places of no event, of one, of the whole image."""
    constants(conv, _CHUNK=4, _WORDS=words, _SETS=2 * words, _BITS=32 * words)
    case = conv_case(3, span=span, maps=maps, kappa=-0.15, refractory=refractory, tau=3000.0)
    out = twins(cpu_conv.forward, conv.forward, 3, *case)
    assert out[-2].sum() > 0


def test_a_kernel_that_needs_too_much_shared_memory_is_refused():
    case = conv_case(1, size=(64, 64), kernel=47, padding=46)
    with pytest.raises(ValueError, match=r"conv\.forward needs 57564 bytes of shared memory .* use the CPU"):
        conv.forward.launch(3, *case, 0, 3)


@pytest.mark.parametrize("slot", [0, 1, 6])
def test_conv_counts_what_does_not_fit(twins, slot):
    out = twins(cpu_conv.forward, conv.forward, 3, *conv_case(4, slot=slot, tau=1e4))
    assert out[-2].max() > slot


def learning_case(seed, *, maps=3, channels=2, size=(6, 5), kernel=3, stride=1, padding=0):
    """Activities and errors of a batch, about half of them 0."""
    rng = np.random.default_rng(seed)
    n = 4
    out_height, out_width = ((k + 2 * padding - kernel) // stride + 1 for k in size)
    places, n_in = out_height * out_width, channels * math.prod(size)

    def sparse(*shape):
        return (rng.normal(0, 1, shape) * (rng.random(shape) < 0.4)).astype(np.float32)

    activity = np.abs(sparse(n, n_in))
    activity[1] = 0.0
    return SimpleNamespace(
        n=n,
        maps=maps,
        places=places,
        rows=kernel * kernel * channels,
        activity=activity,
        delta=sparse(n, maps * places),
        weight=rng.normal(0, 1, (maps, kernel * kernel * channels)).astype(np.float32),
        scale=rng.random(n).astype(np.float32),
        geometry=(*size, kernel, stride, padding),
        out_size=(out_height, out_width),
    )


@pytest.mark.parametrize("threads", [1, 8, 13])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"maps": 9, "stride": 2, "padding": 1},
        {"kernel": 2, "stride": 3, "size": (7, 7)},
        {"channels": 1, "maps": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("small", [False, True])
def test_learning_of_a_convolution(twins, constants, shape, threads, small):
    if small:
        constants(conv, _SAMPLES=3, _SAMPLES_AND_END=4, _INPUTS=5, _INPUT_WORDS=1)
        constants(conv, _PRODUCTS=11, _LISTED=20, _PLACES=3)
    c = learning_case(7, **shape)
    ordered = np.full((c.n, c.places * layout.padded(c.maps)), 7, np.float32)
    active = np.full((c.n, c.places), 7, np.uint8)
    _, _, ordered, active = twins(
        cpu_conv.by_place, conv.by_place, c.n, c.delta, c.maps, ordered, active, threads=threads
    )
    inputs, n_inputs = np.full((c.n, c.activity.shape[1], 3), 7, np.int32), np.full(c.n, 7, np.int64)
    size = c.geometry[:2]
    *_, inputs, n_inputs = twins(
        cpu_conv.active_inputs, conv.active_inputs, c.n, c.activity, *size, inputs, n_inputs, threads=threads
    )
    for normalise in (0, 1):
        error = np.full_like(c.activity, 7)
        case = (c.activity, c.weight, normalise, *c.geometry, c.out_size[1], ordered, active, error)
        twins(cpu_conv.propagate, conv.propagate, c.n, *case, threads=threads)
    gradient = np.full((c.rows, c.maps), 7, np.float32)
    case = (c.activity, inputs, n_inputs, ordered, active, c.scale, *c.geometry, *c.out_size, gradient)
    out = twins(cpu_conv.weight_gradient, conv.weight_gradient, c.geometry[2] ** 2, *case, threads=threads)
    assert np.count_nonzero(out[-1])
    case = (c.delta, c.scale, c.places, np.full(c.maps, 7, np.float32))
    twins(cpu_conv.threshold_gradient, conv.threshold_gradient, c.maps, *case, threads=min(threads, 3))


@pytest.mark.parametrize("span", [1, 6, 1000])
@pytest.mark.parametrize(("slot", "size"), [(100, 2), (3, 2), (0, 3), (100, 4)])
@pytest.mark.parametrize("small", [False, True])
def test_pool(twins, constants, span, slot, size, small):
    if small:
        constants(pool, _CHUNK=9, _CHUNK_WORDS=1, _WINDOW=7)
    rng = np.random.default_rng(8)
    queue = events(rng, 3, 2 * 7 * 5, 50, span)
    case = (*queue, 7, 5, size, *room(3, slot), np.full(3, 7, np.int64))
    out = twins(cpu_pool.forward, pool.forward, 3, *case)
    assert out[-2].sum() > 0
    assert out[-1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_propagate_through_a_pool(twins, size):
    rng = np.random.default_rng(9)
    activity = np.maximum(rng.normal(0, 1, (3, 2 * 7 * 5)), 0).astype(np.float32)
    error = rng.normal(0, 1, (3, 2 * (7 // size) * (5 // size))).astype(np.float32)
    case = (activity, 7, 5, size, np.float32(1 / size**2), error, np.full_like(activity, 7))
    twins(cpu_pool.propagate, pool.propagate, 3, *case)


@pytest.mark.parametrize("threads", [1, 8, 16])
@pytest.mark.parametrize("n", [1, 8, 15, 17, 33])
@pytest.mark.parametrize("kind", [layout.ACTIVITY_COUNTS, layout.ACTIVITY_TRACE])
def test_activity(twins, constants, kind, n, threads):
    constants(activity, _CHUNK=16, _TILE=16)
    rng = np.random.default_rng(n)
    queue = events(rng, 3, n, 60, 3000)
    tables = layout.decay_tables(700.0)
    out = np.full((3, n), 7, np.float32), np.full(3, 7, np.int64)
    case = (*queue, *tables, kind, 2500, np.float32(0.3), *out)
    result = twins(cpu_activity.activity, activity.activity, 3, *case, threads=threads)
    assert result[-1].tolist() == np.count_nonzero(result[-2], axis=1).tolist()
    assert result[-1][0] == 1


def test_a_count_ends_where_float32_does(twins, constants):
    """2^24 events are more than a test can have, so the count that rounds is taken for a smaller one."""
    constants(activity, _HIGHEST_COUNT=5)
    queue = events(np.random.default_rng(0), 3, 2, 30, 3000)
    tables = layout.decay_tables(700.0)
    out = np.zeros((3, 2), np.float32), np.zeros(3, np.int64)
    activity.activity.launch(3, *queue, *tables, 0, 0, np.float32(1), *out, 0, 3, threads=8)
    assert out[0].max() == 5
    full = np.float32(1 << 24)
    assert full + np.float32(1) == full


def test_a_count_never_runs_over(constants):
    """A count in 8 bits, and 400 events of one unit, for one in 32 bits and 2^31 events."""
    constants(activity, _HIGHEST_COUNT=100, int32=types.int8)
    times, units = np.arange(400, dtype=np.uint32), np.zeros(400, np.uint32)
    queue = times, units, np.zeros(1, np.int64), np.full(1, 400)
    out = np.zeros((1, 2), np.float32), np.zeros(1, np.int64)
    tables = layout.decay_tables(700.0)
    activity.activity.launch(1, *queue, *tables, 0, 0, np.float32(1), *out, 0, 1, threads=8)
    assert out[0].tolist() == [[100, 0]]


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 26])
@pytest.mark.parametrize("maps", [1, 3, 9])
def test_transpose(twins, rows, maps):
    weight = np.random.default_rng(rows).normal(size=(rows, maps)).astype(np.float32)
    twins(cpu_conv.transpose, conv.transpose, maps, weight, np.full((maps, rows), 7, np.float32))


SETTINGS = {"kappa": -0.1, "refractory": 30}


@pytest.mark.parametrize("settings", [{}, SETTINGS], ids=["independent", "inhibited"])
def test_dense_compiled_for_one_thread(settings):
    case = dense_case(12, 300, span=3000, n_events=900, slot=90_000, tau=1e3, **settings)
    out = check(cpu_dense.forward, dense.forward, 3, *case)
    assert out[-2].max() > 1000


@pytest.mark.parametrize("settings", [{}, SETTINGS], ids=["independent", "inhibited"])
def test_conv_compiled_for_one_thread(settings):
    shape = {"maps": 20, "size": (12, 11), "kernel": 5, "padding": 1}
    case = conv_case(13, **shape, span=500, n_events=900, slot=9000, tau=1e3, **settings)
    out = check(cpu_conv.forward, conv.forward, 3, *case)
    assert out[-2].max() > 500


def test_learning_of_a_convolution_compiled_for_one_thread():
    c = learning_case(14, maps=20, channels=3, size=(12, 11), kernel=5, padding=1)
    ordered = np.zeros((c.n, c.places * layout.padded(c.maps)), np.float32)
    case = (c.delta, c.maps, ordered, np.zeros((c.n, c.places), np.uint8))
    _, _, *places = check(cpu_conv.by_place, conv.by_place, c.n, *case)
    listed = np.zeros((c.n, c.activity.shape[1], 3), np.int32), np.zeros(c.n, np.int64)
    case = (c.activity, *c.geometry[:2], *listed)
    *_, inputs, n_inputs = check(cpu_conv.active_inputs, conv.active_inputs, c.n, *case)
    case = (c.activity, c.weight, 1, *c.geometry, c.out_size[1], *places, np.zeros_like(c.activity))
    check(cpu_conv.propagate, conv.propagate, c.n, *case)
    gradient = np.zeros((c.rows, c.maps), np.float32)
    case = (c.activity, inputs, n_inputs, *places, c.scale, *c.geometry, *c.out_size, gradient)
    check(cpu_conv.weight_gradient, conv.weight_gradient, c.geometry[2] ** 2, *case)
    case = (c.delta, c.scale, c.places, np.zeros(c.maps, np.float32))
    check(cpu_conv.threshold_gradient, conv.threshold_gradient, c.maps, *case)
    check(cpu_conv.transpose, conv.transpose, c.rows, c.weight, np.zeros((c.rows, c.maps), np.float32))


def test_queues_compiled_for_one_thread():
    rng = np.random.default_rng(15)
    queue = events(rng, 3, 2 * 60 * 60, 5000, 2000)
    case = (*queue, 60, 60, 2, *room(3, 9000), np.zeros(3, np.int64))
    check(cpu_pool.forward, pool.forward, 3, *case)
    tables = layout.decay_tables(700.0)
    for kind in (layout.ACTIVITY_COUNTS, layout.ACTIVITY_TRACE):
        out = np.zeros((3, 7200), np.float32), np.zeros(3, np.int64)
        case = (*queue, *tables, kind, 2000, np.float32(0.3), *out)
        check(cpu_activity.activity, activity.activity, 3, *case)


@pytest.mark.planted
def test_a_fused_multiply_add_is_noticed(twins, monkeypatch):
    case = dense_case(10, 24, tau=30.0)
    twins(cpu_dense.forward, dense.forward, 3, *case)
    # One rounding instead of two: the product stays in float64 until the sum is rounded.
    monkeypatch.setattr(dense, "decayed", lambda v, factor: np.float64(v) * np.float64(factor))
    monkeypatch.setattr(dense, "received", lambda v, w: np.float32(v + np.float64(w)))
    with pytest.raises(AssertionError, match="on CUDA"):
        twins(cpu_dense.forward, dense.forward, 3, *case)


@pytest.mark.planted
def test_a_sum_in_another_order_is_noticed(twins, monkeypatch):
    c = learning_case(11, maps=9)
    case = (c.delta, c.scale, c.places, np.zeros(c.maps, np.float32))
    twins(cpu_conv.threshold_gradient, conv.threshold_gradient, c.maps, *case)
    monkeypatch.setattr(conv, "range", lambda *bounds: reversed(range(*bounds)), raising=False)
    with pytest.raises(AssertionError, match="on CUDA"):
        twins(cpu_conv.threshold_gradient, conv.threshold_gradient, c.maps, *case)
