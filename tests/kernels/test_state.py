"""States at rest, and events that found room in their queue."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels.cpu.queue import admit
from evsnn_kernels.cpu.state import rest
from evsnn_kernels.layout import NEVER


@pytest.mark.parametrize("spikes", [0, 6])
@pytest.mark.parametrize("places", [1, 3])
def test_only_the_samples_of_the_range_come_to_rest(spikes, places):
    potential = np.full((4, 6), np.nan, np.float32)
    last_update, last_spike = np.full((4, places), 5, np.int64), np.full((4, spikes), 9, np.int64)
    rest(potential, last_update, last_spike, 1, 3)
    assert (potential[1:3] == 0).all()
    assert not np.signbit(potential[1:3]).any()
    assert (last_update[1:3] == 0).all()
    assert (last_spike[1:3] == NEVER).all()
    for array, before in ((last_update, 5), (last_spike, 9)):
        assert (array[[0, 3]] == before).all()
    assert np.isnan(potential[[0, 3]]).all()


def test_as_many_events_are_admitted_as_found_room():
    slot = np.array([0, 10, 10, 15, 20], np.int64)
    count = np.array([3, 0, 5, 99], np.int64)
    admitted, overflow = np.full(4, -1, np.int64), np.zeros(1, np.int64)
    admit(slot, count, admitted, overflow, 0, 3)
    assert admitted.tolist() == [3, 0, 5, -1]
    assert overflow[0] == 0
    admit(slot, count, admitted, overflow, 3, 4)
    assert admitted.tolist() == [3, 0, 5, 5]
    assert overflow[0] == 1
    admit(slot, count, admitted, overflow, 0, 3)
    assert overflow[0] == 1
