"""Events and sets of recordings in memory."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evsnn.errors import DataError, EvsnnError, SettingsError
from evsnn.events import Events, EventSet
from evsnn.events.core import TONIC_DTYPE, check_events

SHAPE = (2, 3, 4)


def make_set(**changes):
    """Three samples of 2, 0 and 3 events on 24 units."""
    fields = {
        "times": np.array([5, 9, 0, 0, 7], np.uint32),
        "units": np.array([0, 23, 1, 2, 3], np.uint32),
        "offsets": np.array([0, 2, 2, 5], np.int64),
        "labels": np.array([1, 0, 2], np.uint16),
        "shape": SHAPE,
        "duration_us": 10,
        "classes": 3,
    }
    return EventSet(**{**fields, **changes})


def u32(*values):
    return np.array(values, np.uint32)


def test_events_are_a_view():
    times, units = u32(1, 2), u32(3, 4)
    events = Events(times, units)
    assert len(events) == 2
    assert events.times is times
    assert Events.from_arrays(times, units).times is times
    assert events.times.nbytes + events.units.nbytes == 8 * len(events)


@pytest.mark.parametrize(
    ("times", "units", "message"),
    [
        ([1, 2], [3], "a time and a unit each, got shapes (2,) and (1,)"),
        ([[1, 2]], [[3, 4]], "a time and a unit each"),
        ([1.0, 2.0], [3, 4], "event times must be integers, got float64"),
        ([1, 2], [3, -4], "event units must lie in 0 to 2^32 - 1, got -4 to 3"),
        ([1, 2**32], [3, 4], "event times must lie in 0 to 2^32 - 1"),
        ([1, 5, 4], [0, 0, 0], "event 2: time runs back from 5 to 4 us"),
    ],
)
def test_events_refuse(times, units, message):
    with pytest.raises(DataError, match=re.escape(message)):
        Events.from_arrays(times, units)


def test_no_events():
    events = Events.from_arrays([], [])
    assert len(events) == 0
    assert len(events.to_structured(SHAPE)) == 0
    assert events.times.dtype == np.uint32


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)),
        max_size=20,
    )
)
def test_structured_round_trip(rows):
    array = np.zeros(len(rows), TONIC_DTYPE)
    for i, (t, x, y, p) in enumerate(sorted(rows)):
        array[i] = (x, y, t, p)
    events = Events.from_structured(array, SHAPE)
    # Simultaneous events come back in the order of their units: by polarity, row, column.
    array = array[np.lexsort((array["x"], array["y"], array["p"], array["t"]))]
    np.testing.assert_array_equal(events.to_structured(SHAPE), array)
    np.testing.assert_array_equal(events.units, (array["p"] * 3 + array["y"]) * 4 + array["x"])


def test_structured_of_other_types():
    dtype = [("t", np.uint64), ("x", np.uint8), ("y", np.uint64), ("p", np.bool_)]
    array = np.array([(7, 3, 2, True), (8, 0, 1, False)], dtype)
    assert Events.from_structured(array, SHAPE).units.tolist() == [23, 4]


@pytest.mark.parametrize(
    ("dtype", "row", "message"),
    [
        ([("x", int), ("y", int), ("t", int)], (0, 0, 0), "missing: p"),
        ([("x", int), ("y", int), ("t", int), ("p", float)], (0, 0, 0, 0.5), "field p must hold integers"),
        ([("x", int), ("y", int), ("t", float), ("p", int)], (0, 0, 0.5, 0), "event times must be integers"),
        (TONIC_DTYPE, (4, 0, 0, 0), "field x must lie in 0 to 3, got 4 to 4"),
        (TONIC_DTYPE, (0, -1, 0, 0), "field y must lie in 0 to 2, got -1 to -1"),
        (TONIC_DTYPE, (0, 0, 0, 2), "field p must lie in 0 to 1, got 2 to 2"),
        (TONIC_DTYPE, (0, 0, -5, 0), "event times must lie in 0"),
    ],
)
def test_structured_refuses(dtype, row, message):
    with pytest.raises(DataError, match=re.escape(message)):
        Events.from_structured(np.array([row], dtype), SHAPE)


def test_plain_array_is_not_structured():
    with pytest.raises(DataError, match="missing: p, t, x, y"):
        Events.from_structured(np.zeros((3, 4)), SHAPE)


def test_set_gives_samples():
    data = make_set().check()
    assert len(data) == 3
    assert data.n_inputs == 24
    assert [len(events) for events in data] == [2, 0, 3]
    assert data[-1].times.tolist() == [0, 0, 7]
    assert data[0].times.base is not None
    for outside in (3, -4):
        with pytest.raises(IndexError, match="of 3"):
            data[outside]


def test_part_is_a_view():
    data = make_set(images=np.zeros((3, 3, 4), np.uint8))
    part = data.part(1, 3).check()
    assert len(part) == 2
    assert np.shares_memory(part.times, data.times)
    assert np.shares_memory(part.images, data.images)
    assert part.labels.tolist() == [0, 2]
    assert part[1].units.tolist() == [1, 2, 3]
    assert len(data.part(2, 2).check()) == 0
    with pytest.raises(SettingsError, match="samples 1 to 4 asked for, the set holds 3"):
        data.part(1, 4)


def test_empty_set():
    empty = make_set(times=u32(), units=u32(), offsets=np.zeros(1, np.int64), labels=np.zeros(0, np.uint16))
    assert len(empty.check()) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": u32(0, 1)}, "5 times but 2 units"),
        ({"times": np.arange(5)}, "times must be a row of uint32, found int64"),
        (
            {"labels": np.zeros((3, 1), np.uint16)},
            "labels must be a row of uint16, found uint16 in 2 dimensions",
        ),
        ({"offsets": np.array([0, 5])}, "3 labels need 4 offsets, found 2"),
        (
            {"offsets": np.array([1, 2, 2, 5])},
            "offsets run from 1 to 5, must run from 0 to the number of events, 5",
        ),
        ({"offsets": np.array([0, 2, 2, 4])}, "offsets run from 0 to 4"),
        ({"offsets": np.array([0, 3, 2, 5])}, "sample 1: its offsets run backwards"),
        ({"labels": np.array([1, 3, 2], np.uint16)}, "sample 1: label 3 is not below the 3 classes"),
        ({"units": u32(0, 1, 24, 2, 3)}, "sample 2, event 0: unit 24 is outside the input of 24 units"),
        ({"units": u32(0, 1, 2, 24, 3)}, "sample 2, event 1: unit 24 is outside the input of 24 units"),
        ({"times": u32(5, 9, 0, 0, 11)}, "sample 2, event 2: time 11 us is past the duration of 10 us"),
        ({"times": u32(5, 4, 0, 0, 7)}, "sample 0, event 1: time runs back from 5 to 4 us"),
        ({"times": u32(5, 9, 1, 0, 7)}, "sample 2, event 1: time runs back from 1 to 0 us"),
        (
            {"images": np.zeros((3, 4, 3), np.uint8)},
            "images of shape (3, 4, 3) for 3 samples of shape (2, 3, 4)",
        ),
        ({"images": np.zeros((3, 3, 4))}, "images must be uint8, found float64"),
    ],
)
def test_check_names_the_place(changes, message):
    with pytest.raises(DataError, match=re.escape(f"toy.h5: {message}")):
        make_set(**changes).check("toy.h5")


def test_check_counts_from_the_first_sample():
    with pytest.raises(DataError, match="sample 102, event 1: unit 24"):
        make_set(units=u32(0, 1, 2, 24, 3)).check(first_sample=100)


def test_time_may_equal_the_duration():
    make_set(times=u32(5, 10, 0, 0, 10)).check()


@given(st.data())
def test_any_stretch_is_checked_like_the_whole(data):
    counts = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    n = sum(counts)
    times = data.draw(hnp.arrays(np.uint32, n, elements=st.integers(0, 3)))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))

    def complaint(low, high):
        try:
            check_events(
                times[low:high],
                np.zeros(high - low, np.uint32),
                offsets,
                n_inputs=1,
                duration_us=3,
                first_event=low,
            )
        except DataError as error:
            return str(error)
        return None

    expected = None
    for sample, (low, high) in enumerate(pairwise(offsets)):
        for event in range(low + 1, high):
            if expected is None and times[event] < times[event - 1]:
                expected = f"sample {sample}, event {event - low}: time runs back"
    edges = [0, *cuts, n]
    pieces = [complaint(max(low - 1, 0), high) for low, high in pairwise(edges)]
    for found in (complaint(0, n), next((piece for piece in pieces if piece), None)):
        assert (found is None) == (expected is None)
        assert found is None or expected in found


def test_errors_are_ours():
    assert issubclass(DataError, EvsnnError)
    assert issubclass(SettingsError, ValueError)
