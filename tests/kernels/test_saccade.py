"""Saccade encoder: event by event against an oracle, and what a simulated event camera must do."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from reference.saccade import record
from scipy.interpolate import CubicHermiteSpline
from scipy.ndimage import gaussian_filter1d
from scipy.stats import poisson

from evsnn.backends import CpuBackend
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.images import ImageSet
from evsnn.datasets.sampling import FreshEvents
from evsnn.encoders import AugmentSettings, Encoder, EncoderSettings, SaccadeSettings
from evsnn.encoders.saccade import PATH, blur_taps, saccade_path, saccade_tables
from evsnn.encoders.settings import encoder_settings
from evsnn.errors import SettingsError

#: No noise, no differences between pixels, recordings or events.
IDEAL = SaccadeSettings(
    lag_ms=0.0,
    wander=0.0,
    mismatch=0.0,
    jitter=0.0,
    refractory_ms=0.0,
    noise_on_hz=0.0,
    noise_off_hz=0.0,
)


def drawn(images, settings, *, seed=0, epoch=0, threads=1, augmentation=None, samples=None):
    with CpuBackend(threads) as backend:
        encoder = Encoder(settings, seed, backend, augmentation)
        chosen = np.arange(len(images)) if samples is None else np.asarray(samples)
        queue = encoder.draw(images, chosen, epoch).fetch(backend)
        return [queue.sample(s) for s in range(len(queue))]


def pictures(n=3, shape=(5, 4), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)


def bar():
    """A bright vertical bar on black, 28 x 28."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 6:22, 12:16] = 255
    return image


def keys(times, units):
    return times.astype(np.uint64) << np.uint64(32) | units


def equal(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"refractory_ms": 0.0, "bandwidth_ms": 0.0, "threshold_on": 0.05, "jitter": 0.3},
        {"noise_on_hz": 20.0, "noise_off_hz": 35.0, "refractory_ms": 4.0, "camera": 0, "blur": 0.0},
        {"duration_ms": 40.0, "amplitude": 0.3, "lag_ms": 20.0, "resolution_us": 500, "wander": 1.7},
    ],
)
def test_every_event_is_that_of_the_oracle(changes):
    settings = replace(SaccadeSettings(), **changes)
    images = pictures()
    images[1, :3] = 0
    seed, epoch = 2**33 + 5, 4
    found = drawn(images, settings, seed=seed, epoch=epoch, samples=[1, 2])
    for sample, (times, units) in zip((1, 2), found, strict=True):
        expected = record(images[sample], sample, epoch, seed, settings, saccade_tables(settings))
        assert len(expected) > 10
        assert list(zip(times.tolist(), units.tolist(), strict=True)) == expected


@hypothesis_settings(max_examples=25)
@given(
    duration_ms=st.sampled_from([1.0, 33.3, 320.0]),
    amplitude=st.sampled_from([0.0, 1.0, 4.0]),
    lag=st.sampled_from([0.0, 0.5]),
    wander=st.sampled_from([0.0, 5.3]),
    blur=st.sampled_from([0.0, 2.5]),
    threshold=st.sampled_from([0.02, 0.2]),
    mismatch=st.sampled_from([0.0, 0.35]),
    refractory_ms=st.sampled_from([0.0, 0.001, 50.0]),
    noise=st.sampled_from([0.0, 100.0]),
    resolution_us=st.sampled_from([1, 7, 5000]),
    seed=st.integers(0, 2**64 - 1),
)
def test_events_are_sorted_and_inside(
    duration_ms, amplitude, lag, wander, blur, threshold, mismatch, refractory_ms, noise, resolution_us, seed
):
    settings = SaccadeSettings(
        duration_ms=duration_ms,
        amplitude=amplitude,
        lag_ms=lag * duration_ms,
        wander=wander,
        blur=blur,
        threshold_on=threshold,
        threshold_off=threshold,
        mismatch=mismatch,
        jitter=mismatch,
        refractory_ms=refractory_ms,
        noise_on_hz=noise,
        resolution_us=resolution_us,
    )
    for times, units in drawn(pictures(2, (6, 3)), settings, seed=seed):
        assert (np.diff(keys(times, units).astype(np.float64)) >= 0).all()
        if len(times):
            assert times.max() < settings.duration_us
            assert units.max() < 2 * 12 * 9
        assert (times % resolution_us == 0).all()


def test_a_uniform_image_gives_only_noise():
    quiet = np.zeros((1, 28, 28), np.uint8)
    assert len(drawn(quiet, IDEAL)[0][0]) == 0
    # As large as path and blur reach, a bright screen has no edge in sight of the middle pixels.
    full = np.full((1, 60, 60), 255, np.uint8)
    _, units = drawn(full, IDEAL)[0]
    y, x = units // 66 % 66, units % 66
    assert len(units) > 1000
    assert not ((y > 15) & (y < 50) & (x > 15) & (x < 50)).any()


def test_noise_has_its_rates():
    settings = replace(IDEAL, noise_on_hz=9.0, noise_off_hz=3.0)
    blank = np.zeros((40, 28, 28), np.uint8)
    units = np.concatenate([units for _, units in drawn(blank, settings)])
    pixels = 40 * 34 * 34
    off, on = np.bincount(units // 34**2, minlength=2)
    for count, rate in ((off, 3.0), (on, 9.0)):
        mean = rate * 0.32 * pixels
        assert abs(count - mean) < 5 * np.sqrt(mean)
    times = np.concatenate([times for times, _ in drawn(blank, settings)])
    histogram = np.histogram(times, 8, (0, settings.duration_us))[0]
    assert (np.abs(histogram - histogram.mean()) < 5 * np.sqrt(histogram.mean())).all()


def test_a_bright_bar_moves_as_in_the_recordings():
    """Dark digits on a bright screen: what the bar moves onto becomes darker, OFF; what it leaves, ON."""
    times, units = drawn(bar(), IDEAL)[0]
    channel, y, x = units // 34**2, units // 34 % 34, units % 34
    third = times > 220_000
    # The third saccade goes left.
    assert x[third & (channel == 0)].mean() < x[third & (channel == 1)].mean() - 2
    first = times < 95_000
    # The first goes down.
    assert y[first & (channel == 0)].mean() > y[first & (channel == 1)].mean() + 2
    # It comes back to where it began: what became brighter has become darker again.
    assert channel.mean() == pytest.approx(0.5, abs=0.03)


def test_inverted_contrast_swaps_the_polarities():
    """Where the black level is so high that the logarithm is nearly straight, and far from the border."""
    blocks = np.random.default_rng(0).choice([30, 225], (10, 10))
    image = np.kron(blocks, np.ones((1, 6, 6), np.int64)).astype(np.uint8).reshape(1, 60, 60)
    settings = replace(IDEAL, black_level=3.0, threshold_on=0.01, threshold_off=0.01)
    counts = []
    for picture in (image, 255 - image):
        times, units = drawn(picture, settings)[0]
        # Over the first saccade: the whole path is closed, each pixel ends as it began.
        grid = np.bincount(units[times < 95_000], minlength=2 * 66 * 66).reshape(2, 66, 66)
        counts.append(grid[:, 16:50, 16:50].astype(float))
    (off, on), (inverted_off, inverted_on) = counts
    assert on.sum() > 1000
    assert np.corrcoef((on - off).ravel(), (inverted_off - inverted_on).ravel())[0, 1] > 0.98
    assert on.sum() == pytest.approx(inverted_off.sum(), rel=0.05)
    assert off.sum() == pytest.approx(inverted_on.sum(), rel=0.05)


def test_half_the_threshold_twice_the_events():
    images = np.repeat(bar(), 4, axis=0)
    n = [
        sum(len(t) for t, _ in drawn(images, replace(IDEAL, threshold_on=th, threshold_off=th)))
        for th in (0.05, 0.1)
    ]
    assert n[0] / n[1] == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("noise", [0.0, 300.0])
def test_a_pixel_rests_after_an_event(noise):
    settings = replace(
        SaccadeSettings(), refractory_ms=5.0, threshold_on=0.03, threshold_off=0.03, noise_on_hz=noise
    )
    times, units = drawn(bar(), settings)[0]
    pixel = units % 34**2
    order = np.lexsort((times, pixel))
    gaps = np.diff(times[order].astype(int))[np.diff(pixel[order].astype(int)) == 0]
    assert len(gaps) > 1000
    assert 5000 <= gaps.min() < 5300


@pytest.mark.parametrize("augmentation", [None, AugmentSettings()])
def test_same_seed_same_events_for_any_threads_and_batches(augmentation):
    images = pictures(7, (9, 8))
    settings = SaccadeSettings(camera=0)
    one = drawn(images, settings, augmentation=augmentation)
    equal(one, drawn(images, settings, augmentation=augmentation, threads=2))
    alone = [drawn(images, settings, augmentation=augmentation, samples=[s])[0] for s in range(7)]
    equal(one, alone)


def test_seed_epoch_and_sample_give_other_recordings():
    images = np.repeat(pictures(1), 2, axis=0)
    base = drawn(images, SaccadeSettings())
    for other in (
        drawn(images, SaccadeSettings(), seed=1)[0],
        drawn(images, SaccadeSettings(), epoch=1)[0],
        base[1],
    ):
        assert not np.array_equal(base[0][0], other[0])


def test_a_camera_keeps_its_pixels():
    """Without other randomness, pixels differ between cameras but not between recordings or seeds."""
    images = np.repeat(bar(), 2, axis=0)
    settings = replace(IDEAL, mismatch=0.2, threshold_on=0.02, threshold_off=0.02)

    def counts(camera, seed):
        return np.array(
            [
                np.bincount(u, minlength=2312)
                for _, u in drawn(images, replace(settings, camera=camera), seed=seed)
            ]
        )

    one = counts(1, 0)
    # The reference at the start is random: an event more or less in each saccade.
    assert np.abs(one[0] - one[1]).max() <= 4
    assert np.abs(one[0] - counts(1, 7)[0]).max() <= 4
    assert np.abs(one[0] - counts(2, 0)[0]).max() > 10
    each = counts(0, 0)
    assert np.abs(each[0] - each[1]).max() > 10


def test_thresholds_deviate_as_told():
    """Where a pixel sees the same swing, events go as one over its threshold."""
    image = np.zeros((1, 60, 60), np.uint8)
    image[0, :, 30:] = 255
    settings = replace(
        IDEAL, mismatch=0.1, threshold_on=0.01, threshold_off=0.01, black_level=1.0, bandwidth_ms=0.0
    )
    _, units = drawn(image, settings)[0]
    even = drawn(image, replace(settings, mismatch=0.0))[0][1]
    shape = (2, 66, 66)
    ratio = np.bincount(even, minlength=2 * 66 * 66) / np.maximum(
        np.bincount(units, minlength=2 * 66 * 66), 1
    )
    column = ratio.reshape(shape)[:, 15:51, 32:34]
    assert column.std() == pytest.approx(0.1, rel=0.25)
    assert np.corrcoef(column[0].ravel(), column[1].ravel())[0, 1] == pytest.approx(0.62, abs=0.2)


def test_the_tables():
    knots = np.array(PATH)
    slope = np.gradient(knots, axis=0)
    slope[0], slope[-1] = (knots[1] - knots[0]) / 2, (knots[-1] - knots[-2]) / 2
    spline = CubicHermiteSpline(np.arange(33), knots, slope)
    np.testing.assert_allclose(saccade_path(), spline(np.arange(161) / 5), atol=1e-6)
    centre = knots.mean(axis=0)
    np.testing.assert_allclose(saccade_path(0.5) - centre, (saccade_path() - centre) / 2, atol=1e-6)
    impulse = np.zeros(21)
    impulse[10] = 1.0
    np.testing.assert_allclose(blur_taps(0.9), gaussian_filter1d(impulse, 0.9, radius=3)[7:14], rtol=1e-5)
    assert blur_taps(0.0).tolist() == [1.0]
    tables = saccade_tables(SaccadeSettings(noise_on_hz=3.0, noise_off_hz=1.0))
    expected = poisson.cdf(np.arange(6), 4.0 * 0.32) * 2**32
    np.testing.assert_allclose(tables.noise[:6], expected, rtol=1e-6)
    assert tables.on_share == 3 << 30
    assert tables.share == pytest.approx(1 - np.exp(-1.0))
    np.testing.assert_allclose(tables.log_luminance[[0, 255]], np.log([1.25, 0.25]), rtol=1e-6)


def test_the_path_is_a_triangle():
    """Three saccades between corners five pixels apart, back to the start (Orchard et al. 2015)."""
    path = saccade_path()
    corners = [path[at] for at in (0, 50, 112, 160)]
    for a, b in pairwise(corners):
        assert np.hypot(*(b - a)) == pytest.approx(5.8, rel=0.15)
    assert np.hypot(*(corners[3] - corners[0])) < 0.2


def test_a_set_in_memory_keeps_images_and_shape():
    images = ImageSet(pictures(450, (4, 4)), np.zeros(450, np.uint16), 2)
    with CpuBackend(1) as backend:
        data = encode_images(images, SaccadeSettings(duration_ms=16.0), 3, backend)
    assert data.check().shape == (2, 10, 10)
    assert data.images.shape == (450, 4, 4)
    direct = drawn(images.images, SaccadeSettings(duration_ms=16.0), seed=3)
    for i in (0, 199, 200, 449):
        np.testing.assert_array_equal(data[i].times, direct[i][0])
        np.testing.assert_array_equal(data[i].units, direct[i][1])


def test_fresh_events_must_have_the_shape_of_the_set():
    images = ImageSet(pictures(3, (4, 4)), np.zeros(3, np.uint16), 2)
    with CpuBackend(1) as backend:
        data = encode_images(images, SaccadeSettings(duration_ms=16.0), 0, backend)
        FreshEvents(data, SaccadeSettings(), AugmentSettings(), 0, backend)
        with pytest.raises(SettingsError, match="makes events of shape"):
            FreshEvents(data, EncoderSettings(), AugmentSettings(), 0, backend)


def test_settings_travel_as_plain_values():
    settings = SaccadeSettings(camera=3, blur=0.1)
    assert encoder_settings(settings.to_dict()) == settings
    assert encoder_settings(EncoderSettings(rate=2.0).to_dict()) == EncoderSettings(rate=2.0)
    with pytest.raises(SettingsError, match="colour"):
        encoder_settings({"kind": "saccade", "colour": 1})
    with pytest.raises(SettingsError, match="rate"):
        encoder_settings({"kind": "saccade", "rate": 5.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("duration_ms", 0.5),
        ("duration_ms", float("nan")),
        ("amplitude", -1.0),
        ("lag_ms", 161.0),
        ("wander", float("inf")),
        ("blur", 6.0),
        ("black_level", 0.0),
        ("bandwidth_ms", -1.0),
        ("threshold_on", 0.0),
        ("threshold_off", True),
        ("mismatch", 0.5),
        ("jitter", "much"),
        ("refractory_ms", -0.1),
        ("noise_on_hz", 1e4),
        ("camera", 1.5),
        ("camera", 1 << 32),
        ("resolution_us", 0),
        ("kind", "poisson"),
    ],
)
def test_absurd_settings_are_named(name, value):
    with pytest.raises(SettingsError, match="encoder" if name == "kind" else name):
        SaccadeSettings(**{name: value})


def test_too_much_noise_for_a_long_recording_is_refused():
    with pytest.raises(SettingsError, match="noise_on_hz"):
        SaccadeSettings(duration_ms=1e5, noise_on_hz=500.0)


def test_the_other_encoders_say_where_saccade_is():
    with pytest.raises(SettingsError, match="convert-mnist --encoder saccade"):
        EncoderSettings("saccade")
