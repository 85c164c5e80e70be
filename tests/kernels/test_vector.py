"""Lanes mean, value by value, what the same functions mean for one neuron."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.cpu import vector
from evsnn_kernels.cpu.vector import (
    count_bits,
    highest,
    load,
    load_64,
    lowest_bit,
    may_reach,
    prefetch,
    prefetch_64,
    store,
    value_at,
)
from evsnn_kernels.layout import LANES
from evsnn_kernels.spec.neuron import clamped, decayed, inhibition, reaches, received


@numba.njit
def step_of_lanes(potential, at, weight, row, factor, floor, change):
    v = clamped(received(decayed(load(potential, at), factor), load(weight, row)), floor)
    mask = reaches(v)
    store(potential, at, received(v, change))
    return mask


@numba.njit
def lowest(mask):
    return lowest_bit(mask)


@numba.njit
def any_of_64(values, bound):
    return may_reach(load_64(values, 0), bound)


@numba.njit
def any_of_two(values, bound):
    return may_reach(highest(load(values, 0), load(values, LANES)), bound)


@pytest.mark.parametrize("test", [any_of_64, any_of_two])
@pytest.mark.parametrize(
    "rest", [0.0, -0.0, -1.0, -3e38, -np.inf, 0.5, np.nextafter(np.float32(1), np.float32(0))]
)
def test_may_reach_finds_a_single_value_at_the_threshold(test, rest):
    n = 64 if test is any_of_64 else 2 * LANES
    threshold = np.float32(1.0)
    assert not test(np.full(n, rest, np.float32), threshold)
    for lane in range(n):
        for value in (1.0, np.nextafter(np.float32(1), np.float32(2)), 3e38, np.inf):
            values = np.full(n, rest, np.float32)
            values[lane] = value
            assert test(values, threshold)


def test_may_reach_does_not_lose_a_spike_beside_nan():
    for nan in (np.nan, -np.nan):
        values = np.full(2 * LANES, nan, np.float32)
        values[3] = 1.5
        assert any_of_two(values, np.float32(1.0))


@pytest.mark.parametrize("seed", range(20))
def test_lanes_equal_single_neurons(seed):
    rng = np.random.default_rng(seed)
    potential = rng.normal(0.5, 1.0, 3 * LANES).astype(np.float32)
    weight = rng.normal(0.2, 0.5, 2 * LANES).astype(np.float32)
    if seed % 2:  # meets threshold and clamp exactly
        potential, weight = np.round(potential * 4) / 4, np.round(weight * 4) / 4
    factor, floor = np.float32([0.5, 0.75, 1.0][seed % 3]), np.float32(-0.5)
    change = inhibition(np.int64(2), np.float32(-0.1))
    expected, bits = potential.copy(), 0
    for lane in range(LANES):
        v = np.float32(np.float32(potential[5 + lane] * factor) + weight[3 + lane])
        v = max(v, floor)
        bits |= int(v >= 1.0) << lane
        expected[5 + lane] = np.float32(v + change)
    found = step_of_lanes(potential, 5, weight, 3, factor, floor, change)
    assert found == bits
    np.testing.assert_array_equal(potential, expected)


@pytest.mark.parametrize("bit", range(64))
def test_lowest_bit(bit):
    assert lowest(np.uint64(1 << bit)) == bit
    assert lowest(np.uint64(1 << bit | 1 << 63)) == bit


@pytest.mark.parametrize("mask", [0, 1, 1 << 63, 0b1011, 2**64 - 1])
def test_count_bits(mask):
    @numba.njit
    def count(mask):
        return count_bits(mask)

    assert count(np.uint64(mask)) == mask.bit_count()


@pytest.mark.parametrize(("dtype", "lines"), [(np.float32, 1 + 4), (np.uint16, 1 + 2)])
def test_prefetch_names_every_cache_line(dtype, lines):
    @numba.njit
    def announce(array):
        prefetch(array, 3)
        prefetch_64(array, 5)

    array = np.arange(100).astype(dtype)
    announce(array)
    assert np.array_equal(array, np.arange(100))
    [code] = announce.inspect_llvm().values()
    assert code.count("call void @llvm.prefetch") == lines


@pytest.mark.parametrize(("n", "padded"), [(1, 8), (7, 8), (8, 8), (9, 16), (50, 56)])
def test_padding(n, padded):
    assert layout.padded(n) == padded


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (2, 0, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_aligned_arrays_begin_at_a_cache_line(shape, dtype):
    array = layout.aligned(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.size == 0 or array.ctypes.data % layout.CACHE_LINE == 0


@pytest.mark.parametrize("instruction", [True, False])
def test_values_of_two_bytes_are_those_of_float16(instruction, monkeypatch):
    if not instruction:
        monkeypatch.setattr(vector, "has_cpu_feature", lambda name: False)

    @numba.njit
    def widen(halves, lanes, single):
        for i in range(0, len(halves), LANES):
            store(lanes, i, load(halves, i))
        for i in range(len(halves)):
            single[i] = value_at(halves, i)

    bits = np.arange(1 << 16, dtype=np.uint16)
    bits = bits[np.isfinite(bits.view(np.float16))]
    lanes, single = np.zeros(len(bits), np.float32), np.zeros(len(bits), np.float32)
    widen(bits, lanes, single)
    expected = bits.view(np.float16).astype(np.float32)
    assert lanes.tobytes() == expected.tobytes()
    assert single.tobytes() == expected.tobytes()
