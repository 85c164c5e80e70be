"""Distorted recordings: event for event against a plain oracle, exact properties, statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.augment_events import distort

from evsnn.backends import CpuBackend
from evsnn.datasets.sampling import AugmentedEvents, Lookahead
from evsnn.errors import SettingsError
from evsnn.events import EventAugmentSettings, EventSet
from evsnn.events.augment import EventAugmenter

NONE = EventAugmentSettings.none()
ALL = EventAugmentSettings(
    shift=1.7,
    rotation=25.0,
    shear=0.2,
    scale=0.3,
    elastic=1.5,
    time_scale=0.3,
    jitter_us=40,
    flip=0.5,
    drop=0.6,
    window_ms=0.4,
)
#: Only what moves events in the plane is left.
AWAY_FROM_TIME = {"flip": 0.0, "drop": 0.0, "time_scale": 0.0, "jitter_us": 0, "window_ms": 0.0}
STRENGTHS = [name for name in vars(NONE) if name != "always"]
#: Events at one time, beyond which the kernel sorts in another way.
MANY = 60


def recordings(seed=0, n=12, events=80, shape=(2, 7, 9), duration=2000):
    """Random recordings, some of them with many simultaneous events, one empty."""
    rng = np.random.default_rng(seed)
    times, units, counts = [], [], []
    for index in range(n):
        size = 0 if index == 3 else events + index
        sample_times = np.sort(rng.integers(0, duration + 1, size))
        if index % 4 == 1:
            sample_times[:MANY] = sample_times[MANY - 1]
        sample_units = rng.integers(0, np.prod(shape), size)
        order = np.lexsort((sample_units, sample_times))
        times.append(sample_times[order])
        units.append(sample_units[order])
        counts.append(size)
    return EventSet(
        np.concatenate(times).astype(np.uint32),
        np.concatenate(units).astype(np.uint32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        (np.arange(n) % 3).astype(np.uint16),
        shape,
        duration,
        3,
    ).check()


def one_place(unit, n=400, times=(1000,), **options):
    """Recordings of the same events at one unit of a 2 x 21 x 21 sensor."""
    times = np.asarray(times)
    return EventSet(
        np.tile(times, n).astype(np.uint32),
        np.full(n * len(times), unit, np.uint32),
        np.arange(n + 1) * len(times),
        np.zeros(n, np.uint16),
        **{"shape": (2, 21, 21), "duration_us": 2000, "classes": 2} | options,
    ).check()


def drawn(data, strengths, *, seed=0, epoch=0, threads=1, samples=None):
    with CpuBackend(threads) as backend:
        chosen = np.arange(len(data)) if samples is None else np.asarray(samples)
        queue = EventAugmenter(data, strengths, seed, backend).draw(chosen, epoch).fetch(backend)
        return [queue.sample(s) for s in range(len(queue))]


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


def places(samples, width=21):
    """Mean (y, x) of the events of each sample."""
    return np.array([[units // width % width, units % width] for _, units in samples], float).mean(axis=2)


# Against the oracle


@settings(max_examples=25)
@given(
    strengths=st.fixed_dictionaries(
        {
            "shift": st.sampled_from([0.0, 1.0, 30.0]),
            "rotation": st.sampled_from([0.0, 10.0, 90.0]),
            "shear": st.sampled_from([0.0, 0.3]),
            "scale": st.sampled_from([0.0, 0.5]),
            "elastic": st.sampled_from([0.0, 1.5]),
            "time_scale": st.sampled_from([0.0, 0.4]),
            "jitter_us": st.sampled_from([0, 3, 500, 2**31 - 1]),
            "flip": st.sampled_from([0.0, 0.5, 1.0]),
            "drop": st.sampled_from([0.0, 0.5, 1.0]),
            "window_ms": st.sampled_from([0.0, 0.3, 2.0, 1e3]),
        }
    ),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 1000),
)
def test_every_event_goes_where_the_oracle_sends_it(strengths, seed, epoch):
    data = recordings(n=4)
    found = drawn(data, EventAugmentSettings(**strengths), seed=seed, epoch=epoch)
    for index, (times, units) in enumerate(found):
        expected = distort(
            *(data[index].times, data[index].units, data.shape, data.duration_us),
            **{"sample": index, "epoch": epoch, "seed": seed, **strengths},
        )
        assert (times.tolist(), units.tolist()) == expected


def test_without_strength_nothing_changes():
    data = recordings()
    plain = [(sample.times, sample.units) for sample in data]
    assert same(drawn(data, NONE), plain)
    assert not same(drawn(data, replace(NONE, jitter_us=1)), plain)


@pytest.mark.parametrize("name", STRENGTHS)
def test_every_strength_does_something_and_keeps_the_events_in_order(name):
    data = recordings()
    strong = replace(NONE, **{name: getattr(ALL, name)})
    found = drawn(data, strong)
    assert not same(found, [(sample.times, sample.units) for sample in data])
    for times, units in found:
        keys = times.astype(np.uint64) << np.uint64(32) | units
        assert (keys[1:] >= keys[:-1]).all()
        assert (times <= data.duration_us).all()
        assert (units < data.n_inputs).all()
    if name in {"time_scale", "jitter_us", "flip", "drop", "window_ms"}:
        # Pixels stay where they are.
        pixels = data.n_inputs // 2
        for index, (_, units) in enumerate(found):
            assert set(units % pixels) <= set(data[index].units % pixels)


def test_an_event_that_never_moved_in_time_keeps_its_time():
    data = recordings()
    spatial = replace(ALL, time_scale=0.0, jitter_us=0, window_ms=0.0)
    for index, (times, _) in enumerate(drawn(data, spatial)):
        assert set(times) <= set(data[index].times)


def test_many_simultaneous_events_cost_no_more_than_their_number():
    """Sorted right where all events of a large recording are simultaneous."""
    rng = np.random.default_rng(0)
    units = np.sort(rng.integers(0, 2 * 480 * 640, 50_000)).astype(np.uint32)
    data = EventSet(
        np.full(len(units), 7, np.uint32),
        units,
        np.array([0, len(units)]),
        np.zeros(1, np.uint16),
        (2, 480, 640),
        7,
        1,
    ).check()
    [(times, found)] = drawn(data, replace(NONE, rotation=40.0))
    assert (np.diff(found.astype(int)) >= 0).all()
    assert (times == 7).all()


# What results do not depend on


@pytest.mark.parametrize("strengths", [ALL, replace(ALL, jitter_us=0, time_scale=0.0)])
def test_neither_threads_nor_batches_nor_order_matter(strengths):
    data = recordings(n=20)
    expected = drawn(data, strengths, epoch=4)
    assert same(drawn(data, strengths, epoch=4, threads=2), expected)
    singly = [drawn(data, strengths, epoch=4, samples=[s])[0] for s in range(20)]
    assert same(singly, expected)
    order = np.random.default_rng(0).permutation(20)
    backwards = drawn(data, strengths, epoch=4, samples=order)
    assert same(backwards, [expected[s] for s in order])


@pytest.mark.parametrize("name", STRENGTHS)
def test_seed_epoch_and_sample_matter(name):
    strengths = replace(NONE, **{name: getattr(ALL, name)})
    alike = one_place(50, n=30, times=(100, 500, 500, 900, 1500))
    base = drawn(alike, strengths)
    assert not same(drawn(alike, strengths, epoch=1), base)
    assert not same(drawn(alike, strengths, seed=1), base)
    assert not same(base[:15], base[15:])


@pytest.mark.parametrize("threaded", [False, True])
def test_a_batch_is_not_overwritten_while_the_next_is_drawn(threaded):
    data = recordings(n=12)
    expected = drawn(data, ALL, epoch=2)
    batches = [np.arange(12)[low : low + 5] for low in (0, 5, 10)]
    with CpuBackend(1) as backend:
        source = AugmentedEvents(data, ALL, 0, backend)
        with Lookahead(source, batches, 2, threaded) as lookahead:
            for samples in batches:
                queue = lookahead.take().fetch(backend)
                lookahead.begin_next()
                if lookahead._pending is not None:
                    lookahead._pending.result()
                assert same([queue.sample(s) for s in range(len(samples))], [expected[s] for s in samples])


# Bounds and statistics


def test_shifts_are_uniform_to_their_bound():
    middle = 10 * 21 + 10
    moved = places(drawn(one_place(middle, times=[5] * 200), replace(NONE, shift=3.0))) - 10
    assert np.abs(moved).max() < 3.2
    assert np.abs(moved).max(axis=0).min() > 2.7
    # Of a uniform distribution in +-3; a mean of 400 has a standard error of 0.087.
    assert np.abs(moved.mean(axis=0)).max() < 0.4
    assert moved.std(axis=0) == pytest.approx([3**0.5] * 2, rel=0.12)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2


def test_the_mean_place_of_an_event_is_where_the_map_sends_it():
    """Half a pixel to the right is half of the events one pixel to the right, not all or none of them."""
    samples = drawn(one_place(220, n=60, times=[5] * 1000), replace(NONE, shift=1.0))
    for _, units in samples:
        columns = np.unique(units % 21)
        assert len(columns) <= 2
        assert np.ptp(columns) <= 1
    share = np.array([np.mean(units % 21 == units[0] % 21) for _, units in samples])
    assert ((share > 0.05) & (share < 0.95)).mean() > 0.7


@pytest.mark.parametrize("degrees", [10.0, 90.0])
def test_a_rotation_keeps_distances_and_stays_within_its_angle(degrees):
    unit = 10 * 21 + 18  # eight pixels right of the centre
    at = places(drawn(one_place(unit, times=[5] * 2000), replace(NONE, rotation=degrees))) - 10
    assert np.hypot(*at.T) == pytest.approx(8.0, abs=0.15)
    angles = np.degrees(np.arctan2(at[:, 0], at[:, 1]))
    assert np.abs(angles).max() < degrees + 1
    assert angles.max() > 0.9 * degrees
    assert angles.min() < -0.9 * degrees
    assert abs(angles.mean()) < 0.15 * degrees


def test_scales_and_shears_stay_within_their_bounds():
    unit = 2 * 21 + 2  # eight pixels up and left of the centre
    data = one_place(unit, times=[5] * 1000)
    scaled = places(drawn(data, replace(NONE, scale=0.2))) - 10
    assert scaled.min() > -8 * 1.2 - 0.1
    assert scaled.max() < -8 * 0.8 + 0.1
    assert np.ptp(scaled, axis=0).min() > 8 * 0.35
    sheared = places(drawn(data, replace(NONE, shear=0.2))) - 10
    assert np.abs(sheared + 8).max() < 8 * 0.2 + 0.1
    assert np.ptp(sheared, axis=0).min() > 8 * 0.35


def test_elastic_bends_differently_across_the_sensor_within_its_bound():
    units = np.array([2 * 21 + 2, 18 * 21 + 18])
    data = one_place(0, n=200, times=[5] * 400)
    data = replace(data, units=np.tile(np.repeat(units, 200), 200).astype(np.uint32))
    for _, found in drawn(data, replace(NONE, elastic=2.0)):
        ys, xs = found // 21, found % 21
        near = ys + xs < 20
        corners = np.array([[ys[part].mean(), xs[part].mean()] for part in (near, ~near)])
        assert np.abs(corners - [[2, 2], [18, 18]]).max() < 2.01
    both = np.array(
        [
            [np.mean(found[found // 21 < 10] // 21) - 2, np.mean(found[found // 21 > 10] // 21) - 18]
            for _, found in drawn(data, replace(NONE, elastic=2.0))
        ]
    )
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.3
    assert both.std(axis=0).min() > 0.4


def test_events_that_leave_the_sensor_are_dropped():
    corner = one_place(0, times=[5] * 50)
    counts = np.array([len(times) for times, _ in drawn(corner, replace(NONE, shift=20.0))])
    # Both axes must move to the inside: a quarter of the samples keeps its events.
    assert 60 < (counts == 50).sum() < 140
    assert (counts == 0).sum() > 240


def test_times_are_jittered_uniformly_and_scaled_to_their_bound():
    data = one_place(220, n=50, times=[1000] * 400)
    times = np.concatenate([times for times, _ in drawn(data, replace(NONE, jitter_us=3))]).astype(int) - 1000
    assert sorted(set(times)) == list(range(-3, 4))
    counts = np.bincount(times + 3)
    assert (np.abs(counts - 20_000 / 7) < 6 * np.sqrt(20_000 * (1 / 7) * (6 / 7))).all()
    stretched = drawn(one_place(220, times=[0, 500, 1000]), replace(NONE, time_scale=0.5))
    last = np.array([times[-1] for times, _ in stretched])
    assert last.min() >= 500
    assert last.max() <= 1500
    assert np.ptp(last) > 900
    for times, _ in stretched:
        assert times[0] == 0
        assert abs(int(times[1]) * 2 - int(times[2])) <= 1
    late = drawn(one_place(220, times=[1900]), replace(NONE, time_scale=0.5))
    assert {len(times) for times, _ in late} == {0, 1}


def test_dropped_shares_are_uniform_to_their_bound():
    n, events = 300, 1000
    kept = [
        len(times) for times, _ in drawn(one_place(220, n=n, times=[5] * events), replace(NONE, drop=0.6))
    ]
    dropped = 1 - np.array(kept) / events
    assert dropped.max() < 0.6 + 6 * np.sqrt(0.24 / events)
    assert dropped.max() > 0.55
    assert dropped.min() < 0.05
    # Uniform in 0 to 0.6: mean 0.3, standard deviation 0.173.
    assert dropped.mean() == pytest.approx(0.3, abs=6 * 0.175 / np.sqrt(n))


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_polarities_of_a_whole_sample_are_exchanged_with_their_probability(probability):
    n = 400
    data = one_place(220, n=n, times=[5] * 20)
    data = replace(data, units=data.units + np.tile([0, 441], n * 10).astype(np.uint32))
    data = replace(data, units=np.where(np.arange(len(data.units)) % 20 < 4, 220, 661).astype(np.uint32))
    found = drawn(data, replace(NONE, flip=probability))
    counts = np.array([(units >= 441).sum() for _, units in found])
    assert set(counts) <= {4, 16}
    bound = 6 * np.sqrt(n * probability * (1 - probability))
    assert abs((counts == 4).sum() - n * probability) <= bound


# Sensors of other shapes


def test_an_axis_of_one_pixel_is_left_alone():
    line = recordings(shape=(1, 1, 40))
    found = drawn(line, replace(ALL, **AWAY_FROM_TIME, shift=0.0, scale=0.0))
    assert same(found, [(sample.times, sample.units) for sample in line])
    moved = drawn(line, replace(NONE, shift=2.0))
    assert not same(moved, found)
    assert sum(len(times) for times, _ in moved) > 0.9 * len(line.times)
    flat = recordings(shape=(63, 1, 1))
    found = drawn(flat, replace(ALL, **AWAY_FROM_TIME))
    assert same(found, [(sample.times, sample.units) for sample in flat])


@pytest.mark.parametrize("shape", [(1, 6, 6), (3, 6, 6)])
def test_only_two_polarities_can_be_exchanged(shape):
    data = recordings(shape=shape)
    with pytest.raises(SettingsError, match=f"flip .* {shape[0]} channel"):
        drawn(data, ALL)
    assert len(drawn(data, replace(ALL, flip=0.0))) == len(data)


def test_an_empty_batch():
    assert drawn(recordings(), ALL, samples=np.zeros(0, np.int64)) == []


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e12, True, "much", None])
def test_absurd_strengths_are_named(name, value):
    with pytest.raises(SettingsError, match=f"^{name} "):
        EventAugmentSettings(**{name: value})


def test_other_absurd_settings_are_named():
    with pytest.raises(SettingsError, match=r"jitter_us .* 1\.5"):
        EventAugmentSettings(jitter_us=1.5)
    with pytest.raises(SettingsError, match="always"):
        EventAugmentSettings(always=1)
    assert not NONE.enabled
    assert EventAugmentSettings(always=True).enabled == EventAugmentSettings().enabled


# Windows


def test_a_window_opens_anywhere_and_time_counts_from_there():
    times = np.arange(0, 2001, 10)
    starts = []
    for found, _ in drawn(one_place(220, n=600, times=times), replace(NONE, window_ms=0.5)):
        assert len(found) == 50
        assert found[0] < 10
        np.testing.assert_array_equal(np.diff(found), 10)
        starts.append(-int(found[0]) % 10)
    assert set(starts) == set(range(10))


def test_a_window_as_long_as_the_presentation_takes_all():
    data = recordings()
    assert same(drawn(data, replace(NONE, window_ms=1e4)), drawn(data, NONE))
