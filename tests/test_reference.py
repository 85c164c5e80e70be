"""The oracles against cases worked out by hand, and against each other.

Numbers in the hand-made cases are sums of powers of two wherever possible: then no rounding is involved and
equality is meant to the bit.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference.clock_driven import rasterise, simulate_dense_clocked
from reference.event_driven import Result, activity, predict, simulate_dense, simulate_network
from reference.optimisers import (
    adam_step,
    max_norm,
    regularise_thresholds,
    sgd_step,
    weight_regulariser,
    weight_regulariser_gradient,
)
from reference.surrogate import (
    cross_entropy,
    cross_entropy_error,
    error_normalised_backward,
    mse,
    mse_error,
    numerical_gradient,
    output_logits,
    solve_inhibition,
    surrogate_forward,
)

PERFECT = math.inf  # a time constant without decay


def events(result: Result) -> list[tuple[int, int]]:
    return list(zip(result.times.tolist(), result.units.tolist(), strict=True))


def both(times, units, weight, threshold, *, step_us, **kwargs):
    """Run the two simulators on the same case."""
    return (
        simulate_dense(times, units, weight, threshold, record=True, **kwargs),
        simulate_dense_clocked(times, units, weight, threshold, step_us=step_us, record=True, **kwargs),
    )


def difference(one: Result, other: Result, rtol: float = 0.0) -> str:
    """Say what differs between two results, or return an empty string."""
    if events(one) != events(other):
        return f"events {events(one)} and {events(other)}"
    if [t for t, _ in one.history] != [t for t, _ in other.history]:
        return "time groups"
    for (t, v), (_, u) in zip(one.history, other.history, strict=True):
        if not np.allclose(v, u, rtol=rtol, atol=rtol):
            return f"potential {v} and {u} at {t}"
    if not np.allclose(one.potential, other.potential, rtol=rtol, atol=rtol):
        return f"residual {one.potential} and {other.potential}"
    return ""


# --- section 1, worked out by hand ---


def test_soft_reset_keeps_what_exceeds_the_threshold_and_a_tie_fires():
    # 0.75 | 1.5 fires, 0.5 | 1.25 fires, 0.25 | 1.0 is exactly the threshold: fires, 0
    for result in both([0, 10, 20, 30], [0] * 4, [[0.75]], [1.0], tau_us=PERFECT, step_us=10):
        assert events(result) == [(10, 0), (20, 0), (30, 0)]
        assert [v.tolist() for _, v in result.history] == [[0.75], [0.5], [0.25], [0.0]]
        assert result.margin == 0.0
        assert result.times.dtype == result.units.dtype == np.int64


def test_just_below_the_threshold_does_not_fire():
    weight = np.nextafter(1.0, 0.0)
    for result in both([0], [0], [[weight]], [1.0], tau_us=PERFECT, step_us=1):
        assert events(result) == []
        assert result.potential[0] == weight


def test_one_spike_for_a_group_even_far_above_the_threshold():
    # 3.5: one spike leaves 2.5, which waits; the next event, of weight 0, lets it fire once more: 1.5
    for result in both([0, 50], [0, 1], [[3.5], [0.0]], [1.0], tau_us=PERFECT, step_us=10):
        assert events(result) == [(0, 0), (50, 0)]
        assert result.potential.tolist() == [1.5]


def test_decay_acts_between_time_groups():
    # 1.5 decays for one time constant to 1.5 / e = 0.552, receives 1.5: 2.052 >= 2 fires
    for result in both([1000, 2000], [0, 0], [[1.5]], [2.0], tau_us=1000.0, step_us=500):
        assert events(result) == [(2000, 0)]
        assert result.potential == pytest.approx([1.5 / math.e - 0.5], rel=1e-14)
        # |1.5 - 2| / 2 = 0.25 and |2.052 - 2| / 2 = 0.026
        assert result.margin == pytest.approx((1.5 / math.e - 0.5) / 2, rel=1e-12)


def test_the_margin_is_relative_to_the_threshold():
    # |3 - 4| / 4 and |5 - 4| / 4, although the second neuron's distance in volts is 6
    for result in both([0, 1], [0, 1], [[3, 2], [2, 2]], [4, 8], tau_us=PERFECT, step_us=1):
        assert result.margin == 0.25


def test_clamp_bounds_the_potential_from_below():
    # -3 is lifted to -c V_th = -1, then 1.75 gives 0.75; unclamped it would be -1.25; c = 2: -0.25
    for c, expected in [(1.0, 0.75), (2.0, -0.25), (PERFECT, -1.25)]:
        for result in both([0, 1], [0, 1], [[-3.0], [1.75]], [1.0], tau_us=PERFECT, clamp=c, step_us=1):
            assert events(result) == []
            assert result.potential.tolist() == [expected]


def test_clamp_scales_with_the_threshold():
    for result in both([0], [0], [[-9.0, -9.0]], [1.0, 4.0], tau_us=PERFECT, clamp=0.5, step_us=1):
        assert result.potential.tolist() == [-0.5, -2.0]


@pytest.mark.parametrize("units", [[0, 1], [1, 0]])
def test_clamp_waits_for_the_whole_time_group(units):
    # -3 + 3.5 = 0.5 stays silent; a clamp after each event would give -1 + 3.5 = 2.5 and a spike
    for result in both([7, 7], units, [[-3.0], [3.5]], [1.0], tau_us=PERFECT, step_us=7):
        assert events(result) == []
        assert result.potential.tolist() == [0.5]


def test_the_same_input_twice_in_a_group_is_received_twice():
    for result in both([5, 5], [0, 0], [[0.5]], [1.0], tau_us=PERFECT, step_us=5):
        assert events(result) == [(5, 0)]
        assert result.potential.tolist() == [0.0]


def test_simultaneous_spikes_inhibit_each_other_and_the_rest():
    # neurons 0 and 1 fire: 1.5 - 1 = 0.5 and 2 - 2 = 0; each has one rival, neuron 2 has two:
    # 0.5 - 0.5 * 1 = 0 | 0 - 0.5 * 2 = -1 | 1 - 2 * 0.5 * 4 = -3
    weight, threshold = [[1.5, 2.0, 1.0]], [1.0, 2.0, 4.0]
    for result in both([3], [0], weight, threshold, tau_us=PERFECT, kappa=-0.5, step_us=3):
        assert events(result) == [(3, 0), (3, 1)]
        assert result.potential.tolist() == [0.0, -1.0, -3.0]
    # with c = 1/4 the bounds are -0.25, -0.5 and -1
    for result in both([3], [0], weight, threshold, tau_us=PERFECT, kappa=-0.5, clamp=0.25, step_us=3):
        assert events(result) == [(3, 0), (3, 1)]
        assert result.potential.tolist() == [0.0, -0.5, -1.0]


def test_a_lone_spike_does_not_inhibit_its_own_neuron():
    for result in both([3], [0], [[1.5, 0.5]], [1.0, 1.0], tau_us=PERFECT, kappa=-1.0, step_us=3):
        assert events(result) == [(3, 0)]
        assert result.potential.tolist() == [0.5, -0.5]


def test_inhibition_comes_after_the_threshold_test():
    # inhibiting neuron by neuron would keep neuron 1 from firing
    for result in both([3], [0], [[2.0, 1.0]], [1.0, 1.0], tau_us=PERFECT, kappa=-1.0, step_us=3):
        assert events(result) == [(3, 0), (3, 1)]
        assert result.potential.tolist() == [0.0, -1.0]


def test_refractory_ends_exactly_at_t_ref():
    # the spike at 0 leaves 0; the next event gives 1 at dt = T_ref, 0.999^2 one microsecond sooner
    kwargs = {"tau_us": PERFECT, "refractory_us": 1000, "step_us": 1}
    for result in both([0, 1000], [0, 0], [[1.0]], [1.0], **kwargs):
        assert events(result) == [(0, 0), (1000, 0)]
        assert result.potential.tolist() == [0.0]
    for result in both([0, 999], [0, 0], [[1.0]], [1.0], **kwargs):
        assert events(result) == [(0, 0)]
        assert result.potential == pytest.approx([0.998001], rel=1e-14)


def test_refractory_attenuates_every_event_of_the_group_but_no_neuron_at_rest():
    # neuron 0 fired at 0: (512 / 1024)^2 = 1/4 of 2 * 1.5 is 0.75; neuron 1 never fired: 0.25 + 2 * 0.25
    weight = [[1.0, 0.25], [1.5, 0.25]]
    for result in both(
        [0, 512, 512], [0, 1, 1], weight, [1.0, 2.0], tau_us=PERFECT, refractory_us=1024, step_us=512
    ):
        assert events(result) == [(0, 0)]
        assert result.potential.tolist() == [0.75, 0.75]


def test_nothing_in_nothing_out():
    for result in both([], [], np.ones((2, 3)), np.ones(3), tau_us=1000.0, step_us=1):
        assert events(result) == []
        assert result.potential.tolist() == [0.0, 0.0, 0.0]
        assert math.isinf(result.margin)
        assert result.times.dtype == result.units.dtype == np.int64


def test_input_order_does_not_matter():
    rng = np.random.default_rng(5)
    times, units = rng.integers(0, 20, 60), rng.integers(0, 6, 60)
    weight, threshold = rng.normal(size=(6, 4)), np.ones(4)
    shuffle = rng.permutation(60)
    one = simulate_dense(times, units, weight, threshold, tau_us=9.0, kappa=-0.1)
    other = simulate_dense(times[shuffle], units[shuffle], weight, threshold, tau_us=9.0, kappa=-0.1)
    assert one.times.size > 5
    assert difference(one, other) == ""


def test_impossible_input_is_refused():
    with pytest.raises(ValueError, match="thresholds"):
        simulate_dense([0], [0], [[1.0]], [0.0], tau_us=1.0)
    with pytest.raises(ValueError, match="count from 0"):
        simulate_dense([-1], [0], [[1.0]], [1.0], tau_us=1.0)
    with pytest.raises(ValueError, match="grid"):
        rasterise([3], [0], 1, 2)


# --- the normalised, table-driven mode ---


def test_tables_replace_the_exponential_and_their_last_entry_covers_longer_gaps():
    lo = np.full(1024, 9.0)
    lo[0], lo[5], lo[1023] = 1.0, 0.5, 0.75
    hi = np.array([1.0, 0.25, 0.125])
    # 3072 = 3 << 10 is past the table: hi[2] * lo[0]
    for dt, d in [(5, 0.5), (1023, 0.75), (1024, 0.25), (1024 + 5, 0.125), (2048, 0.125), (3072, 0.125)]:
        result = simulate_dense(
            [10, 10 + dt], [0, 1], [[-1.0], [0.0]], [1.0], tau_us=1.0, decay_tables=(hi, lo)
        )
        assert result.potential.tolist() == [-d]


def test_normalised_float32_is_rounded_operation_by_operation():
    f = np.float32
    hi, lo = np.ones(2, f), np.exp(-np.arange(1024) / 300.0).astype(f)
    weight = np.array([[0.3, 2.9], [0.7, -1.1]], f)
    threshold = np.array([1.1, 1.7], f)
    result = simulate_dense(
        [0, 100, 100, 200],
        [1, 0, 1, 0],
        weight,
        threshold,
        tau_us=300.0,
        refractory_us=700,
        kappa=-0.3,
        clamp=1.0,
        dtype=f,
        decay_tables=(hi, lo),
        normalised=True,
        record=True,
    )
    w = [[f(weight[k, i] / threshold[i]) for i in range(2)] for k in range(2)]
    d = f(hi[0] * lo[100])

    # t = 0: only input 1; neuron 1 is at its lower bound -0.647, above -1
    v0, v1 = w[1][0], w[1][1]
    history = [(v0, v1)]
    # t = 100: neuron 0 reaches 0.456 + 0.273 + 0.636 >= 1, neuron 1 -0.464 + 1.706 - 0.647 = 0.595 does not
    v0 = f(f(f(v0 * d) + w[0][0]) + w[1][0])
    v1 = f(f(f(v1 * d) + w[0][1]) + w[1][1])
    assert v0 >= 1 > v1
    v0 = f(v0 - f(1))
    v1 = f(v1 + f(f(1) * f(-0.3)))
    history.append((v0, v1))
    # t = 200: neuron 0 is refractory, r = 100 / 700; neuron 1 fires: 0.2115 + 1.706
    r = f(f(100) / f(700))
    v0 = f(f(v0 * d) + f(f(r * r) * w[0][0]))
    v1 = f(f(v1 * d) + w[0][1])
    assert v1 >= 1 > v0
    v1 = f(v1 - f(1))
    v0 = f(v0 + f(f(1) * f(-0.3)))
    history.append((v0, v1))

    assert events(result) == [(100, 0), (200, 1)]
    assert result.potential.dtype == np.float32
    assert [v.tolist() for _, v in result.history] == [[float(a), float(b)] for a, b in history]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), kappa=st.sampled_from([0.0, -0.25, -1.0]))
def test_normalised_units_are_volts_over_the_threshold(seed, kappa):
    # thresholds that are powers of two make the division exact: the two modes agree to the bit
    rng = np.random.default_rng(seed)
    threshold = 2.0 ** rng.integers(-2, 3, 4)
    kwargs = {"tau_us": 3000.0, "refractory_us": 1500, "kappa": kappa, "record": True}
    sample = (rng.integers(0, 8000, 30), rng.integers(0, 5, 30), rng.normal(size=(5, 4)), threshold)
    volts = simulate_dense(*sample, **kwargs)
    normalised = simulate_dense(*sample, normalised=True, **kwargs)
    assert events(volts) == events(normalised)
    np.testing.assert_array_equal(volts.potential, normalised.potential * threshold)
    assert volts.margin == normalised.margin


def test_float32_with_tables_stays_close_to_float64_with_the_exponential():
    rng = np.random.default_rng(8)
    tau = 20_000.0
    hi = np.exp(-1024.0 * np.arange(200) / tau).astype(np.float32)
    lo = np.exp(-np.arange(1024) / tau).astype(np.float32)
    times, units = np.sort(rng.integers(0, 100_000, 300)), rng.integers(0, 10, 300)
    weight, threshold = rng.normal(size=(10, 6)), rng.uniform(1, 3, 6)
    exact = simulate_dense(times, units, weight, threshold, tau_us=tau, kappa=-0.1, refractory_us=1000)
    single = simulate_dense(
        times,
        units,
        weight,
        threshold,
        tau_us=tau,
        kappa=-0.1,
        refractory_us=1000,
        dtype=np.float32,
        decay_tables=(hi, lo),
        normalised=True,
    )
    assert exact.margin > 1e-5
    assert exact.times.size > 50
    assert events(exact) == events(single)
    np.testing.assert_allclose(single.potential * threshold, exact.potential, atol=1e-4)


# --- event-driven against clock-driven ---


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_in=st.integers(1, 5),
    n_out=st.integers(1, 6),
    n_events=st.integers(0, 40),
    n_steps=st.integers(1, 30),
    step_us=st.sampled_from([1, 250, 1000]),
    tau_steps=st.sampled_from([1.0, 5.0, 40.0, math.inf]),
    refractory_steps=st.sampled_from([0, 1, 2, 7]),
    kappa=st.sampled_from([0.0, -0.05, -0.4, -1.0]),
    clamp=st.sampled_from([0.0, 1.0, 8.0, math.inf]),
)
def test_event_driven_equals_clock_driven(
    seed, n_in, n_out, n_events, n_steps, step_us, tau_steps, refractory_steps, kappa, clamp
):
    rng = np.random.default_rng(seed)
    one, other = both(
        rng.integers(0, n_steps, n_events) * step_us,
        rng.integers(0, n_in, n_events),
        rng.normal(0.2, 1.0, (n_in, n_out)),
        rng.uniform(0.3, 2.0, n_out),
        step_us=step_us,
        tau_us=tau_steps * step_us,
        refractory_us=refractory_steps * step_us,
        kappa=kappa,
        clamp=clamp,
    )
    assume(one.margin > 1e-9)
    assert difference(one, other, rtol=1e-11) == ""
    assert one.margin == pytest.approx(other.margin, abs=1e-10)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_event_driven_equals_clock_driven_to_the_bit_on_dyadic_numbers(data):
    # no decay and sums of powers of two: nothing is rounded, so threshold ties are part of the comparison
    n_in, n_out = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    quarters = st.integers(-8, 8).map(lambda q: q / 4)
    weight = data.draw(
        st.lists(st.lists(quarters, min_size=n_out, max_size=n_out), min_size=n_in, max_size=n_in)
    )
    threshold = data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=n_out, max_size=n_out))
    sample = data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(0, n_in - 1)), max_size=15))
    one, other = both(
        [1024 * step for step, _ in sample],
        [unit for _, unit in sample],
        weight,
        threshold,
        step_us=1024,
        tau_us=PERFECT,
        refractory_us=data.draw(st.sampled_from([0, 1024, 4096])),
        kappa=data.draw(st.sampled_from([0.0, -0.25, -1.0])),
        clamp=data.draw(st.sampled_from([0.0, 1.0, 4.0, math.inf])),
    )
    assert difference(one, other) == ""
    assert one.margin == other.margin


@pytest.mark.parametrize(
    "planted",
    [
        {"tau_us": 5100.0},
        {"refractory_us": 2001},
        {"refractory_us": 0},
        {"kappa": -0.19},
        {"kappa": 0.0},
        {"clamp": 0.9},
        {"threshold": np.full(6, 1.01)},
        {"units": "swapped"},
    ],
    ids=lambda planted: "-".join(f"{name}" for name in planted),
)
def test_the_comparison_finds_a_planted_error(planted):
    rng = np.random.default_rng(3)
    correct = {
        "times": rng.integers(0, 40, 80) * 1000,
        "units": rng.integers(0, 4, 80),
        "weight": rng.normal(0.2, 1.0, (4, 6)),
        "threshold": np.ones(6),
        "tau_us": 5000.0,
        "refractory_us": 2000,
        "kappa": -0.2,
    }
    if planted == {"units": "swapped"}:
        planted = {"units": np.roll(correct["units"], 1)}
    one = simulate_dense(**correct, record=True)
    assert difference(one, simulate_dense_clocked(**correct, step_us=1000, record=True), 1e-11) == ""
    wrong = simulate_dense_clocked(**(correct | planted), step_us=1000, record=True)
    assert difference(one, wrong, rtol=1e-11) != ""


# --- networks, activities, prediction ---


def test_a_network_is_a_chain_of_layers():
    # both hidden neurons fire at 0; the first one again at 20 (0.25 + 1.25): the output collects 1 + 0.5 + 1
    weights = [np.array([[1.25, 1.0], [1.25, 0.0]]), np.array([[1.0], [0.5]])]
    results = simulate_network(
        [0, 20], [0, 1], weights, [np.ones(2), np.array([2.5])], tau_us=[PERFECT, PERFECT], clamp=1.0
    )
    assert events(results[0]) == [(0, 0), (0, 1), (20, 0)]
    assert results[0].potential.tolist() == [0.5, 0.0]
    assert events(results[1]) == [(20, 0)]
    assert results[1].potential.tolist() == [0.0]


def test_network_settings_hold_for_all_layers_or_for_each_one():
    rng = np.random.default_rng(2)
    times, units = rng.integers(0, 9000, 40), rng.integers(0, 3, 40)
    weights = [rng.normal(0.4, 1, (3, 5)), rng.normal(0.4, 1, (5, 2))]
    thresholds = [np.ones(5), np.ones(2)]
    tables = (np.exp(-np.arange(9) / 3), np.exp(-np.arange(1024) / 3000))
    chained = simulate_network(
        times,
        units,
        weights,
        thresholds,
        tau_us=1.0,
        decay_tables=tables,
        kappa=[-0.1, 0.0],
        refractory_us=[0, 500],
    )
    hidden = simulate_dense(
        times, units, weights[0], thresholds[0], tau_us=1.0, decay_tables=tables, kappa=-0.1
    )
    output = simulate_dense(
        hidden.times,
        hidden.units,
        weights[1],
        thresholds[1],
        tau_us=1.0,
        decay_tables=tables,
        refractory_us=500,
    )
    assert output.times.size > 2
    assert difference(chained[0], hidden) == ""
    assert difference(chained[1], output) == ""


def test_activities():
    times, units = [0, 500, 1000, 1000], [2, 0, 2, 2]
    assert activity(times, units, 4).tolist() == [1.0, 0.0, 3.0, 0.0]
    # at T = 1000 with tau = 500: one event one tau ago; one two tau ago and two at this moment
    expected = [math.exp(-1), 0.0, math.exp(-2) + 2, 0.0]
    assert activity(times, units, 4, "trace", T=1000, tau=500) == pytest.approx(expected, rel=1e-15)
    assert activity(times, units, 4, "trace", T=1000).tolist() == [1.0, 0.0, 3.0, 0.0]
    with pytest.raises(ValueError, match="rate"):
        activity(times, units, 4, "rate")


def test_prediction_breaks_ties_by_residual_then_by_index():
    assert predict([1, 3, 2], [0.9, 0.0, 0.9]) == 1
    assert predict([2, 3, 3], [0.9, 0.1, 0.2]) == 2
    assert predict([0, 3, 3, 3], [0.0, 0.1, 0.2, 0.2]) == 2
    assert predict([0, 0], [-0.5, -0.5]) == 0


# --- section 2: surrogate and backward ---


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 12),
    silent=st.integers(0, 4),
    sigma=st.floats(0.0, 1.0),
    kappa=st.floats(-0.9, 0.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_closed_form_of_the_inhibition_equals_the_solve(n, silent, sigma, kappa, seed):
    rng = np.random.default_rng(seed)
    active = rng.permutation(n + silent) < n
    values = rng.normal(size=n + silent)
    c = sigma * kappa
    expected = np.where(active, values + c / (1 - c * (n - 1)) * values[active].sum(), 0.0) / (1 + c)
    np.testing.assert_allclose(solve_inhibition(values, active, sigma, kappa), expected, atol=1e-12)


def test_surrogate_of_two_neurons_by_hand():
    # s = (4, 9), s / V_th = (4, 3); a1 = 4 - a2 / 2 and a2 = 3 - a1 / 2 give a = (10/3, 4/3)
    x, a = surrogate_forward([1.0, 2.0], [[[2.0, 1.0], [1.0, 4.0]]], [[1.0, 3.0]], [[1, 1]], 1.0, -0.5)
    assert x.tolist() == [1.0, 2.0]
    assert a == pytest.approx([10 / 3, 4 / 3], rel=1e-14)
    # alone, the second neuron is not inhibited
    assert surrogate_forward([1.0, 2.0], [[[2.0, 1.0], [1.0, 4.0]]], [[1.0, 3.0]], [[0, 1]], 1.0, -0.5)[
        1
    ] == pytest.approx([0.0, 3.0], rel=1e-14)


def test_losses_by_hand():
    # softmax of (0, log 3) is (1/4, 3/4)
    assert cross_entropy([0.0, math.log(3)], 1) == pytest.approx(math.log(4 / 3), rel=1e-14)
    assert cross_entropy_error([0.0, math.log(3)], 1) == pytest.approx([0.25, -0.25], rel=1e-14)
    assert cross_entropy([1e4, 0.0], 1) == pytest.approx(1e4)
    # o = (1/2, 1), label 0: 1/2 (1/4 + 1)
    assert mse([2, 4], 0) == 0.625
    assert mse_error([2, 4], 0).tolist() == [-0.5, 1.0]
    assert mse([0, 0, 0], 1) == 0.5
    assert mse_error([0, 0, 0], 1).tolist() == [0.0, -1.0, 0.0]
    assert output_logits([3, 0], [0.5, -2.0], [1.0, 2.0]).tolist() == [3.25, -0.5]


def test_cross_entropy_error_is_its_gradient():
    logits = np.array([0.3, -1.2, 2.0, 0.7])
    numeric = numerical_gradient(lambda z: cross_entropy(z, 3), logits)
    np.testing.assert_allclose(cross_entropy_error(logits, 3), numeric, atol=1e-9)


def test_numerical_gradient_of_a_known_function():
    point = np.array([[1.0, -2.0], [0.5, 3.0]])
    np.testing.assert_allclose(
        numerical_gradient(lambda p: float(np.sum(p**3)), point), 3 * point**2, atol=1e-7
    )


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    hidden=st.lists(st.integers(1, 5), min_size=0, max_size=2),
    sigma=st.sampled_from([0.0, 0.5, 1.0]),
    kappa=st.sampled_from([0.0, -0.1, -0.4]),
)
def test_backward_without_normalisation_is_the_gradient_of_the_surrogate(seed, hidden, sigma, kappa):
    rng = np.random.default_rng(seed)
    sizes = [4, *hidden, 3]
    x = rng.integers(0, 4, 4).astype(float)
    weights = [rng.normal(size=shape) for shape in itertools.pairwise(sizes)]
    thresholds = [rng.uniform(0.5, 2.0, n) for n in sizes[1:]]
    active_sets = [rng.random(n) < 0.7 for n in hidden] + [np.ones(3, bool)]

    def loss(w, th):
        return cross_entropy(surrogate_forward(x, w, th, active_sets, sigma, kappa)[-1], 1)

    activities = surrogate_forward(x, weights, thresholds, active_sets, sigma, kappa)
    dw, dth = error_normalised_backward(
        activities,
        weights,
        thresholds,
        active_sets,
        cross_entropy_error(activities[-1], 1),
        sigma,
        kappa,
        normalise=False,
    )
    for layer in range(len(weights)):

        def of_weight(w, layer=layer):
            return loss([*weights[:layer], w, *weights[layer + 1 :]], thresholds)

        def of_threshold(th, layer=layer):
            return loss(weights, [*thresholds[:layer], th, *thresholds[layer + 1 :]])

        np.testing.assert_allclose(
            dw[layer], numerical_gradient(of_weight, weights[layer]), rtol=1e-5, atol=2e-6
        )
        np.testing.assert_allclose(
            dth[layer], numerical_gradient(of_threshold, thresholds[layer]), rtol=1e-5, atol=2e-6
        )


def test_error_normalised_backward_by_hand():
    # layer 1: M = 4 inputs, m = 2 active; N = 4 neurons, 0 and 2 active, g = (1, 7), gbar = sqrt(50 / 2) = 5
    # layer 2: M = 4, m = 2, N = 2, g = (1, 7), gbar = 5
    activities = [[1, 0, 2, 0], [3, 0, 1, 0], [2, 1]]
    weights = [np.ones((4, 4)), [[1.0, 1.0], [8.0, 8.0], [0.5, 0.0], [8.0, 8.0]]]
    thresholds = [[1.0, 3.0, 1 / 7, 5.0], [1.0, 1 / 7]]
    active_sets = [[True, False, True, False], [False, False]]
    dw, dth = error_normalised_backward(activities, weights, thresholds, active_sets, [5.0, -5.0])
    # delta2 = (1/5 * 5, 7/5 * -5) = (1, -7), weight factor sqrt(2 / 2), threshold factor sqrt(2 / 8) = 1/2
    np.testing.assert_allclose(dw[1], [[3, -21], [0, 0], [1, -7], [0, 0]], rtol=1e-14)
    np.testing.assert_allclose(dth[1], [0.5 * 1 * -2, 0.5 * -7 * -1], rtol=1e-14)
    # sums: 1 - 7 = -6 and 0.5; delta1 = sqrt(4 / 2) * (1/5 * -6, 7/5 * 0.5) = sqrt 2 * (-1.2, 0.7)
    # the weight factor sqrt(4 / 2) makes 2 * (-1.2, 0.7) of it, times x = 1 and 2
    np.testing.assert_allclose(
        dw[0], [[-2.4, 0, 1.4, 0], [0, 0, 0, 0], [-4.8, 0, 2.8, 0], [0, 0, 0, 0]], rtol=1e-14
    )
    # threshold factor sqrt(4 / (2 * 4)) = 1 / sqrt 2, times -a = -3 and -1
    np.testing.assert_allclose(dth[0], [3.6, 0, -0.7, 0], rtol=1e-14)


def test_error_normalised_backward_with_inhibition_by_hand():
    # sigma kappa = -1/2 and two neurons: (I - sigma K)^-1 = 2 [I - 1/3 J] = [[4/3, -2/3], [-2/3, 4/3]]
    # e = (3, 0) -> (4, -2); thresholds 1: g / gbar = 1; N = 2, M = m = 1: factors sqrt 2
    dw, dth = error_normalised_backward(
        [[1.0], [5.0, 2.0]], [[[1.0, 1.0]]], [[1.0, 1.0]], [[1, 1]], [3.0, 0.0], 1.0, -0.5
    )
    np.testing.assert_allclose(dw[0], math.sqrt(2) * np.array([[4.0, -2.0]]), rtol=1e-14)
    # -5 - 2 / 2 = -6 and -2 - 5 / 2 = -4.5
    np.testing.assert_allclose(dth[0], math.sqrt(2) * np.array([4 * -6, -2 * -4.5]), rtol=1e-14)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_normalisation_only_rescales_when_all_is_active_and_thresholds_are_equal(seed):
    rng = np.random.default_rng(seed)
    x, sizes, level = rng.uniform(1, 2, 5), [5, 4, 3], [0.5, 2.0]
    weights = [rng.uniform(0.1, 1, shape) for shape in itertools.pairwise(sizes)]
    thresholds = [np.full(n, v) for n, v in zip(sizes[1:], level, strict=True)]
    active_sets = [np.ones(n, bool) for n in sizes[1:]]
    activities = surrogate_forward(x, weights, thresholds, active_sets, 0.5, -0.4)
    args = (activities, weights, thresholds, active_sets, rng.normal(size=3), 0.5, -0.4)
    exact_w, exact_th = error_normalised_backward(*args, normalise=False)
    dw, dth = error_normalised_backward(*args)
    # each layer's division by its threshold is what normalisation leaves out
    for layer, lost in enumerate([0.5 * 2.0, 2.0]):
        M, N = weights[layer].shape
        np.testing.assert_allclose(dw[layer], exact_w[layer] * lost * math.sqrt(N / M), rtol=1e-10)
        np.testing.assert_allclose(dth[layer], exact_th[layer] * lost * math.sqrt(N) / M, rtol=1e-10)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_silent_layer_passes_nothing_and_stays_finite(normalise):
    weights, thresholds = [np.ones((2, 3)), np.ones((3, 2))], [np.ones(3), np.ones(2)]
    dw, dth = error_normalised_backward(
        [[1.0, 0.0], np.zeros(3), np.zeros(2)],
        weights,
        thresholds,
        [np.zeros(3, bool), np.ones(2, bool)],
        [0.5, -0.5],
        normalise=normalise,
    )
    assert not any(g.any() for g in dw + dth)


# --- section 3: optimisers and regularisers ---


def test_sgd_by_hand():
    # velocity 0.5 * 2 + 4 = 5, step 0.1 * 5; decay 0.1 * 0.25 * 8
    p, v = sgd_step([8.0], [4.0], [2.0], learning_rate=0.1, momentum=0.5, weight_decay=0.25)
    assert v.tolist() == [5.0]
    assert p == pytest.approx([8.0 - 0.5 - 0.2], rel=1e-15)


def test_adam_by_hand():
    # the first corrected step has the size of the learning rate, whatever the gradient's size
    p, m, v = adam_step([1.0, 1.0], [1e-3, -50.0], [0, 0], [0, 0], 1, learning_rate=0.01, eps=0.0)
    assert p == pytest.approx([0.99, 1.01], rel=1e-12)
    # second step with gradient 0: m = 0.9 * 0.1 g over 0.19, v = 0.999 * 0.001 g^2 over 0.001999
    p2, _, _ = adam_step(p, [0.0, 0.0], m, v, 2, learning_rate=0.01, eps=0.0, weight_decay=0.5)
    change = 0.01 * (0.09 / 0.19) / math.sqrt(0.000999 / 0.001999)
    assert p2 == pytest.approx([0.99 - change - 0.005 * 0.99, 1.01 + change - 0.005 * 1.01], rel=1e-12)
    # eps is added to the corrected root: 3 / (3 + 1)
    assert adam_step([0.0], [3.0], [0], [0], 1, learning_rate=1.0, eps=1.0)[0] == pytest.approx([-0.75])


def test_weight_regulariser_gradient():
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.4, (5, 3))
    numeric = numerical_gradient(lambda w: weight_regulariser(w, 0.02, 10.0), weight)
    np.testing.assert_allclose(weight_regulariser_gradient(weight, 0.02, 10.0), numeric, rtol=1e-6)
    # a neuron of unit norm: the exponential is 1, so the value is lambda / 2 and the gradient lambda beta w
    assert weight_regulariser([[0.6], [0.8]], 0.02, 10.0) == pytest.approx(0.01)
    np.testing.assert_allclose(weight_regulariser_gradient([[0.6], [0.8]], 0.02, 10.0), [[0.12], [0.16]])


def test_threshold_regularisation_by_hand():
    # N = 4, sample 1: neurons 0 and 1 fired: +0.4 for them, -0.2 for all; sample 2: silent; mean: half of it
    fired = [[1, 1, 0, 0], [0, 0, 0, 0]]
    result = regularise_thresholds([1.0, 1.0, 1.0, 0.3], fired, 0.1, 0.25)
    assert result == pytest.approx([1.1, 1.1, 0.9, 0.25], rel=1e-14)
    # the sum is kept where the floor does not act
    free = regularise_thresholds([1.0, 1.0, 1.0, 0.3], fired, 0.1)
    assert free.sum() == pytest.approx(3.3, rel=1e-14)


def test_max_norm_shrinks_long_columns_only():
    result = max_norm([[3.0, 0.3], [4.0, 0.4]], 1.0)
    np.testing.assert_allclose(result, [[0.6, 0.3], [0.8, 0.4]], rtol=1e-15)
