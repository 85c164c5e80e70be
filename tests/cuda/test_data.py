"""Random numbers, encoders and distortions on CUDA: the bits of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu import augment as cpu_augment
from evsnn_kernels.cpu import augment_events as cpu_augment_events
from evsnn_kernels.cpu import encode as cpu_encode
from evsnn_kernels.cpu import random as cpu_random
from evsnn_kernels.cpu import saccade as cpu_saccade
from evsnn_kernels.cuda import augment, augment_events, encode, random, saccade
from evsnn_kernels.cuda.block import narrowed, queue_key, sort_step
from one_thread import check

from evsnn.encoders.poisson import poisson_table

THREADS = 8
SIZES = (1, THREADS - 1, THREADS, THREADS + 1, 3 * THREADS + 2)
KEY = (0xFFFFFFFF, 0x12345678)


def slots(sizes):
    """Output queue with room for ``sizes`` events, filled with what no event looks like."""
    slot = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    events = np.full(slot[-1], 0xFFFFFFFF, np.uint32)
    return events, events.copy(), slot, np.full(len(sizes), -7, np.int64)


@pytest.mark.parametrize("n", SIZES)
def test_random_keys(twins, n):
    twins(
        cpu_random.random_keys,
        random.random_keys,
        n,
        layout.PURPOSE_SHUFFLE,
        3,
        *KEY,
        np.zeros(n, np.uint64),
        threads=THREADS,
    )


@pytest.mark.parametrize("n", SIZES)
def test_uniform_weights(twins, n):
    twins(
        cpu_random.uniform_weights,
        random.uniform_weights,
        3,
        np.float32(0.0618),
        2,
        layout.PURPOSE_WEIGHTS,
        *KEY,
        np.zeros((3, n), np.float32),
        threads=THREADS,
    )


@pytest.mark.parametrize("n", [*range(10), 15, 16, 17, 33])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_queue_is_sorted_by_the_steps_of_all_threads(n, threads):
    values = np.random.default_rng(n).integers(0, 5, (2, n + 3)).astype(np.uint32)
    times, units = values.copy()
    size, gap = 2, 1
    while size < 2 * n:
        for thread in range(threads):
            sort_step(times, units, 2, n, size, gap, thread, threads)
        gap >>= 1
        if gap == 0:
            gap, size = size, 2 * size
    pairs = list(zip(*values.tolist(), strict=True))
    assert list(zip(times.tolist(), units.tolist(), strict=True)) == [
        *pairs[:2],
        *sorted(pairs[2 : 2 + n]),
        *pairs[2 + n :],
    ]
    assert queue_key(times, units, 2) == int(times[2]) << 32 | int(units[2])


@pytest.mark.parametrize("capacity", range(8))
def test_the_first_key_that_is_not_stored_is_found(capacity):
    keys = [3, 3, 5, 9, 9, 9, 9, 14]
    low, high = np.uint64(0), np.uint64(16)
    bound, found = high, False
    while not found:
        below = sum(key < bound for key in keys)
        counted = bound
        low, high, bound = narrowed(low, high, bound, below, capacity)
        found = bound == counted
    assert low == keys[capacity]
    assert sum(key < bound for key in keys) == below <= capacity


def encoding(twins, kind, images, room, *, rate=3.0, duration=5000, resolution=1, threads=THREADS):
    table = poisson_table(rate) if kind == layout.ENCODE_POISSON else np.empty((256, 0), np.uint32)
    n = len(images)
    return twins(
        cpu_encode.encode,
        encode.encode,
        n,
        images,
        np.arange(n)[::-1].copy(),
        np.arange(n) * 1000,
        kind,
        rate,
        duration,
        resolution,
        table,
        *KEY,
        4,
        *slots([room] * n),
        threads=threads,
    )


def pictures(*shape):
    images = np.random.default_rng(shape).integers(0, 256, shape).astype(np.uint8)
    images[0] = 0  # an empty sample
    return images


KINDS = [layout.ENCODE_STRATIFIED, layout.ENCODE_POISSON, layout.ENCODE_LATENCY]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", SIZES)
def test_encode(twins, kind, pixels):
    *_, count = encoding(twins, kind, pictures(3, 1, pixels), 6 * pixels + 9)
    assert count[2] == 0
    assert count[:2].sum() > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 3, 16])
def test_encode_with_any_number_of_threads(twins, kind, threads):
    encoding(twins, kind, pictures(2, 3, 4), 200, rate=7.3, threads=threads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resolution", [1, 400, 5000])
@pytest.mark.parametrize("room", [0, 1, 7, 8, 9, 24])
def test_encode_into_slots_that_are_too_small(twins, kind, resolution, room):
    """The first events are stored, and counted are all; on a coarse grid many have the same time or key."""
    images = pictures(2, 2, 3)
    images[1] = 255
    rate = 6.0
    *_, count = encoding(twins, kind, images, room, rate=rate, resolution=resolution)
    assert count[0] >= 6


@pytest.mark.parametrize("elastic", [0.0, 1.5])
@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 1, 9), (2, 3, 3), (2, 6, 5)])
def test_distort(twins, shape, elastic):
    images = pictures(*shape)
    result = twins(
        cpu_augment.distort,
        augment.distort,
        len(images),
        images,
        np.arange(len(images))[::-1].copy(),
        np.arange(len(images)) + 5,
        *map(np.float32, (1.5, 0.3, 0.2, elastic)),
        *KEY,
        1,
        np.full(shape, 77, np.uint8),
        threads=THREADS,
    )
    assert shape[1] * shape[2] == 1 or result[-1].any()


def recordings(channels, height, width, duration, sizes):
    """Queue of random recordings, sorted by time and unit."""
    chance = np.random.default_rng(sizes)
    total = sum(sizes)
    sample = np.repeat(np.arange(len(sizes)), sizes)
    times = chance.integers(0, duration // 7, total) * 7
    units = chance.integers(0, channels * height * width, total)
    order = np.lexsort((units, times, sample))
    start = np.cumsum([0, *sizes[:-1]]).astype(np.int64)
    return times[order].astype(np.uint32), units[order].astype(np.uint32), start, np.array(sizes, np.int64)


@pytest.mark.parametrize(
    ("elastic", "jitter", "window"), [(0.0, 0, 0), (0.0, 400, 0), (0.8, 0, 600), (0.8, 30, 600)]
)
@pytest.mark.parametrize("threads", [1, THREADS])
def test_augment_events(twins, elastic, jitter, window, threads):
    sizes = [0, *SIZES, 60]
    times, units, start, count = recordings(2, 4, 5, 1000, sizes)
    result = twins(
        cpu_augment_events.augment_events,
        augment_events.augment_events,
        len(sizes),
        times,
        units,
        start,
        count,
        np.arange(len(sizes)) * 11,
        *(2, 4, 5),
        1000,
        *map(np.float32, (1.0, 0.8, 0.1, 0.2, 0.15, 0.1, elastic)),
        np.float64(0.2),
        jitter,
        np.float32(0.5),
        np.float32(0.3),
        window,
        *KEY,
        2,
        *slots(sizes),
        threads=threads,
    )
    kept = result[-1]
    assert kept[0] == 0
    assert 0 < kept[-1] < 60


def recording_settings(refractory=0, noise=0.0, camera=0, blur=3, lag=900, step=300):
    """Arguments of the camera, for a sensor one pixel larger than its image on each side."""
    path = np.array([[0.2, 0.4], [1.3, -2.2], [-1.7, 0.6], [-0.4, 1.9], [-0.4, 1.9], [2.1, 1.1]], np.float32)
    taps = np.array([0.25, 0.5, 0.25] if blur == 3 else [1.0], np.float32)
    grey = np.arange(256) / 255.0
    return (
        path,
        step,
        lag,
        np.float32(0.3),
        1,
        5,
        taps,
        np.log(1.1 - grey).astype(np.float32),
        np.float32(0.7),
        *map(np.float32, (0.07, 0.09, 0.1, 0.05)),
        np.uint64(camera),
        refractory,
        poisson_table(noise)[255] if noise else np.empty(0, np.uint32),
        np.uint64(round(0.6 * 2**32)),
    )


def record(twins, images, room, *, resolution=1, threads=THREADS, **settings):
    n = len(images)
    return twins(
        cpu_saccade.saccade,
        saccade.saccade,
        n,
        images,
        np.arange(n)[::-1].copy(),
        np.arange(n) * 1000,
        *recording_settings(**settings),
        resolution,
        *KEY,
        1,
        *slots([room] * n),
        threads=threads,
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"noise": 1.5},
        {"noise": 6.0, "refractory": 700, "camera": 3},
        {"refractory": 400, "blur": 1, "lag": 0},
        {"step": 30_000_000},  # times as fine as the potentials that decide them
        {"step": 1, "noise": 6.0, "lag": 0},  # many noise events of a pixel at the same time
    ],
)
def test_saccade(twins, settings):
    *_, count = record(twins, pictures(2, 2, 3), 900, **settings)
    assert count[0] > 20
    assert (count[1] > 0) == ("noise" in settings)


@pytest.mark.parametrize("rows", [5, 7, 8, 9])
def test_saccade_in_strips(twins, constants, rows):
    """A strip of some of the sensor's 8 rows is watched by 6 more of the padded image's 16 rows of 13."""
    constants(saccade, _MOST_SHARED=13 * (rows + 6))
    *_, count = record(twins, pictures(2, 6, 3), 900, noise=1.5)
    assert count[0] > 20


def test_shared_memory_of_large_images():
    def shared(height, width):
        images = np.zeros((1, height, width), np.uint8)
        return saccade.saccade.shared_bytes(images, None, None, *recording_settings())

    assert shared(34, 34) == 4 * (34 + 10) ** 2
    assert 4 * 11 * 138 < shared(128, 128) <= 45056
    assert shared(128, 1000) <= 45056
    with pytest.raises(ValueError, match=r"10x1200 is too wide.*on the CPU"):
        shared(10, 1200)


@pytest.mark.parametrize("threads", [1, 20, 21])
def test_saccade_with_any_number_of_threads(twins, threads):
    """The sensor has 20 pixels."""
    record(twins, pictures(2, 2, 3)[1:], 300, threads=threads, noise=1.0)


@pytest.mark.parametrize(("room", "resolution"), [(0, 1), (5, 1), (4, 1500)])
def test_saccade_into_slots_that_are_too_small(twins, room, resolution):
    *_, count = record(twins, pictures(2, 1, 2)[1:], room, resolution=resolution, noise=1.0)
    assert count[0] > room


def test_random_numbers_compiled_for_one_thread():
    check(cpu_random.random_keys, random.random_keys, 999, 2, 3, *KEY, np.zeros(999, np.uint64))
    weight = np.zeros((30, 40), np.float32)
    check(cpu_random.uniform_weights, random.uniform_weights, 30, np.float32(0.06), 2, 1, *KEY, weight)


@pytest.mark.parametrize("room", [150, 9000])
def test_encode_compiled_for_one_thread(room):
    def one_thread(cpu, gpu, size, *arguments, threads):
        return check(cpu, gpu, size, *arguments)

    for kind in KINDS:
        *_, count = encoding(one_thread, kind, pictures(3, 28, 28), room, rate=9.0, duration=50_000)
        assert count.max() > 150


def test_distort_compiled_for_one_thread():
    images = pictures(4, 28, 28)
    amounts = map(np.float32, (1.5, 0.3, 0.2, 1.5))
    check(
        cpu_augment.distort,
        augment.distort,
        4,
        images,
        np.arange(4),
        np.arange(4) + 5,
        *amounts,
        *KEY,
        1,
        np.zeros_like(images),
    )


def test_augment_events_compiled_for_one_thread():
    sizes = [0, 3000, 700]
    times, units, start, count = recordings(2, 34, 34, 300_000, sizes)
    check(
        cpu_augment_events.augment_events,
        augment_events.augment_events,
        3,
        times,
        units,
        start,
        count,
        np.arange(3),
        *(2, 34, 34),
        300_000,
        *map(np.float32, (1.0, 0.8, 0.1, 0.2, 0.15, 0.1, 0.8)),
        np.float64(0.2),
        400,
        np.float32(0.5),
        np.float32(0.3),
        200_000,
        *KEY,
        2,
        *slots(sizes),
    )


@pytest.mark.parametrize("room", [150, 9000])
def test_saccade_compiled_for_one_thread(room):
    def one_thread(cpu, gpu, size, *arguments, threads):
        return check(cpu, gpu, size, *arguments)

    *_, count = record(one_thread, pictures(3, 14, 14), room, noise=0.5, refractory=200)
    assert count.max() > 150
