"""Random numbers: published test vectors, and independence of order and threads."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evsnn_kernels import layout
from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.spec.random import philox, scaled, unit_interval

from evsnn.errors import SettingsError
from evsnn.network import Network
from evsnn.seeds import seed_words, shuffled

# D. E. Shaw Research, Random123, file kat_vectors: philox4x32 with 10 rounds.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@cpu_kernel
def compiled(c0, c1, c2, c3, k0, k1):
    return philox(c0, c1, c2, c3, k0, k1)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers_in_python_and_compiled(counter, key, expected):
    assert tuple(int(word) for word in philox(*counter, *key)) == expected
    assert tuple(int(word) for word in compiled(*counter, *key)) == expected


def test_unit_interval_and_scaled_cover_their_range_exactly():
    assert unit_interval(np.uint64(0)) == 0.0
    assert unit_interval(np.uint64(2**32 - 1)) == 1.0 - 2.0**-24
    assert scaled(np.uint64(2**32 - 1), 10) == 9
    assert scaled(np.uint64(0), 10) == 0


def test_shuffled_is_a_permutation_that_differs_by_seed_and_epoch():
    orders = [shuffled(1000, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (2**40, 0))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], shuffled(1000, 0, 0))


def test_seed_range():
    assert seed_words(2**64 - 1) == (2**32 - 1, 2**32 - 1)
    for seed in (-1, 2**64):
        with pytest.raises(SettingsError, match="seed must lie"):
            seed_words(seed)


def test_initial_weights_are_uniform_and_thresholds_as_specified():
    net = Network.from_architecture("300-200-10", seed=7)
    bound = math.sqrt(3 / 300)
    weight = net.layers[0].weight
    assert np.abs(weight).max() <= bound
    assert np.abs(weight).max() > 0.999 * bound
    assert abs(weight.mean()) < 5 * bound / math.sqrt(3 * weight.size)
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    np.testing.assert_allclose(net.layers[0].threshold, 16 * bound, rtol=1e-6)
    assert not np.array_equal(net.layers[1].weight[:10, :10], weight[:10, :10])
    again = Network.from_architecture("300-200-10", seed=7)
    np.testing.assert_array_equal(again.layers[0].weight, weight)


def test_purposes_are_distinct():
    values = [getattr(layout, name) for name in dir(layout) if name.startswith("PURPOSE_")]
    assert len(values) == len(set(values)) >= 4
    assert all(0 <= value < 256 for value in values)
