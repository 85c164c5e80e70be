"""Encoders and image distortion: statistics, exact properties, independence of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from evsnn.backends import CpuBackend
from evsnn.encoders import AugmentSettings, Encoder, EncoderSettings
from evsnn.encoders.encode import poisson_table
from evsnn.errors import SettingsError


def drawn(images, settings, *, seed=0, epoch=0, threads=1, augmentation=None, samples=None):
    with CpuBackend(threads) as backend:
        encoder = Encoder(settings, seed, backend, augmentation)
        chosen = np.arange(len(images)) if samples is None else np.asarray(samples)
        queue = encoder.draw(images, chosen, epoch).fetch(backend)
        return [queue.sample(s) for s in range(len(queue))]


def pictures(n=50, size=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size)).astype(np.uint8)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["stratified", "poisson", "latency"]),
    rate=st.sampled_from([0.1, 1.0, 7.3, 60.0]),
    duration_ms=st.sampled_from([0.001, 0.05, 50.0, 1e6]),
    resolution_us=st.sampled_from([1, 7, 5000]),
    seed=st.integers(0, 2**63),
)
def test_events_are_sorted_inside_the_presentation_and_on_the_grid(
    kind, rate, duration_ms, resolution_us, seed
):
    resolution_us = min(resolution_us, max(1, round(duration_ms * 1000)))
    encoder = EncoderSettings(kind, rate, duration_ms, resolution_us)
    images = pictures(4)
    images[2] = 0
    samples = drawn(images, encoder, seed=seed)
    assert len(samples[2][0]) == 0
    for index, (times, units) in enumerate(samples):
        assert (times % resolution_us == 0).all()
        if len(times):
            assert times.max() < encoder.duration_us
        keys = times.astype(np.uint64) << np.uint64(32) | units
        assert (keys[1:] >= keys[:-1]).all()
        assert (images[index].ravel()[units] > 0).all()


def test_stratified_counts_differ_from_their_mean_by_less_than_one():
    images = pictures(200)
    expected = 5.0 * images.reshape(200, -1) / 255
    total = 0.0
    for index, (_, units) in enumerate(drawn(images, EncoderSettings("stratified", 5.0))):
        counts = np.bincount(units, minlength=36)
        assert (np.abs(counts - expected[index]) < 1).all()
        total += counts.sum() - expected[index].sum()
    assert abs(total) < 6 * np.sqrt(200 * 36 / 4)


def test_stratified_puts_one_event_into_each_slot():
    images = np.full((300, 1, 1), 255, np.uint8)
    for times, _ in drawn(images, EncoderSettings("stratified", 8.0, 40.0)):
        assert (times // 5000).tolist() == list(range(8))
    first = [times[0] for times, _ in drawn(images, EncoderSettings("stratified", 8.0, 40.0))]
    assert np.mean(first) == pytest.approx(2500, rel=0.15)


def test_poisson_is_poisson():
    images = np.full((400, 5, 5), 102, np.uint8)
    samples = drawn(images, EncoderSettings("poisson", 5.0))
    counts = np.concatenate([np.bincount(units, minlength=25) for _, units in samples])
    assert counts.mean() == pytest.approx(2.0, abs=0.06)
    assert counts.var() == pytest.approx(2.0, abs=0.12)
    for k in range(6):
        expected = np.exp(-2.0) * 2.0**k / [1, 1, 2, 6, 24, 120][k]
        assert (counts == k).mean() == pytest.approx(expected, abs=0.02)
    times = np.concatenate([times for times, _ in samples])
    histogram = np.histogram(times, 10, (0, 50_000))[0]
    assert (np.abs(histogram - histogram.mean()) < 5 * np.sqrt(histogram.mean())).all()


@pytest.mark.parametrize("rate", [0.01, 1.0, 30.0, 2000.0])
def test_poisson_table_holds_the_whole_distribution(rate):
    table = poisson_table(rate).astype(np.float64) / 2**32
    assert (np.diff(table, axis=1) >= 0).all()
    mean = (1 - table).sum(axis=1)
    np.testing.assert_allclose(mean, rate * np.arange(256) / 255, rtol=1e-5, atol=1e-6)


def test_latency_is_one_event_a_pixel_the_brighter_the_earlier():
    images = np.array([[[255, 128, 1, 0]]], np.uint8)
    ((times, units),) = drawn(images, EncoderSettings("latency", duration_ms=10.0))
    assert units.tolist() == [0, 1, 2]
    assert times[0] == 0
    assert (np.diff(times.astype(int)) > 0).all()
    assert times[2] == 254 * 9999 // 255


@pytest.mark.parametrize("kind", ["stratified", "poisson", "latency"])
@pytest.mark.parametrize("augmentation", [None, AugmentSettings(elastic=1.0)])
def test_same_seed_same_events_for_any_threads_and_batches(kind, augmentation):
    images = pictures(40, 8)
    encoder = EncoderSettings(kind, 6.0)
    one = drawn(images, encoder, augmentation=augmentation)
    for other in (
        drawn(images, encoder, augmentation=augmentation, threads=3),
        [drawn(images, encoder, augmentation=augmentation, samples=[s])[0] for s in range(40)],
    ):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_array_equal(a[1], b[1])


def test_seed_epoch_and_sample_give_other_events():
    images = np.repeat(pictures(1), 2, axis=0)
    encoder = EncoderSettings("stratified", 6.0)
    base = drawn(images, encoder)
    for other in (drawn(images, encoder, seed=1)[0], drawn(images, encoder, epoch=1)[0], base[1]):
        assert not np.array_equal(base[0][0][: len(other[0])], other[0][: len(base[0][0])])


def distorted(images, settings, **kwargs):
    with CpuBackend(1) as backend:
        return Encoder(EncoderSettings(), kwargs.get("seed", 0), backend, settings)._distort(
            images, np.arange(len(images)), np.arange(len(images)), kwargs.get("epoch", 0)
        )


def test_distortion_stays_within_its_bounds():
    """A single bright pixel moves by no more than shift, shear and scale allow."""
    size, at = 21, (5, 14)
    image = np.zeros((300, size, size), np.uint8)
    image[:, at[0], at[1]] = 255
    moved = distorted(image, AugmentSettings(shift=2.0, shear=0.0, scale=0.0, elastic=0.0))
    centres = []
    for picture in moved:
        ys, xs = np.nonzero(picture)
        weights = picture[ys, xs].astype(float)
        centres.append((np.average(ys, weights=weights) - at[0], np.average(xs, weights=weights) - at[1]))
    centres = np.array(centres)
    assert np.abs(centres).max() <= 2.05
    assert np.abs(centres).max(axis=0).min() > 1.8
    assert np.abs(centres.mean(axis=0)).max() < 0.3


def test_distortion_equals_scipy_for_its_linear_map():
    """For one image, the map found by least squares on a ramp image is applied as SciPy applies it."""
    size = 28
    ramp = np.tile(np.arange(size, dtype=np.uint8) * 9, (size, 1))
    settings_ = AugmentSettings(shift=1.0, shear=0.1, scale=0.07, elastic=0.0)
    from_x = distorted(ramp[None], settings_)[0].astype(float) / 9
    from_y = distorted(ramp.T[None], settings_)[0].astype(float) / 9
    ys, xs = np.mgrid[6:22, 6:22]
    design = np.stack([ys.ravel(), xs.ravel(), np.ones(ys.size)], axis=1)
    row_y = np.linalg.lstsq(design, from_y[6:22, 6:22].ravel(), rcond=None)[0]
    row_x = np.linalg.lstsq(design, from_x[6:22, 6:22].ravel(), rcond=None)[0]
    for value in (row_y[0] - 1, row_x[1] - 1):
        assert abs(value) <= 0.07 + 0.01
    for value in (row_y[1], row_x[0]):
        assert abs(value) <= 0.1 + 0.01
    rng = np.random.default_rng(0)
    image = np.zeros((size, size), np.uint8)
    image[8:20, 8:20] = rng.integers(0, 256, (12, 12))
    matrix = np.array([row_y[:2], row_x[:2]])
    expected = affine_transform(image.astype(float), matrix, (row_y[2], row_x[2]), order=1)
    found = distorted(image[None], settings_)[0].astype(float)
    # The map was read off pixels rounded to 1/9; compare where that allows it.
    assert np.abs(found - expected).mean() < 2.5


def test_elastic_bends_differently_across_the_image():
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 6, :] = image[0, 21, :] = 255
    bent = distorted(image, AugmentSettings(0.0, 0.0, 0.0, elastic=3.0))[0]
    upper = [np.average(np.arange(14), weights=bent[:14, x]) for x in range(4, 24)]
    assert np.ptp(upper) > 1.0
    assert np.abs(np.array(upper) - 6).max() <= 3.01


def test_no_distortion_leaves_the_image_alone():
    images = pictures(5, 9)
    np.testing.assert_array_equal(distorted(images, AugmentSettings(0.0, 0.0, 0.0, 1e-9)), images)


@pytest.mark.parametrize(
    ("settings_", "name"),
    [
        ({"kind": "ttfs"}, "encoder"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 1e9}, "rate"),
        ({"duration_ms": 0.0}, "duration_ms"),
        ({"duration_ms": float("inf")}, "duration_ms"),
        ({"resolution_us": 0}, "resolution_us"),
        ({"resolution_us": 10**9}, "resolution_us"),
    ],
)
def test_absurd_encoder_settings_are_named(settings_, name):
    with pytest.raises(SettingsError, match=name):
        EncoderSettings(**settings_)


def test_unknown_encoder_settings_are_named():
    with pytest.raises(SettingsError, match="colour"):
        EncoderSettings.from_dict({"colour": 1})


@pytest.mark.parametrize("name", ["shift", "shear", "scale", "elastic"])
def test_absurd_distortions_are_named(name):
    with pytest.raises(SettingsError, match=name):
        AugmentSettings(**{name: -1.0})
