"""The answer over time equals what recordings cut off at that time are answered."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from support import evsnn, toy_events, write_events

from evsnn import DataError, Network, NetworkSettings, SettingsError, evaluate, open_events
from evsnn.events.core import EventSet
from evsnn.training.over_time import AnswerCurve, event_grid, over_time, time_grid, to_csv


def recordings(size=5, grid=100, n=23):
    """Recordings of different lengths with simultaneous events; one is empty, one has a single event."""
    rng = np.random.default_rng(3)
    toys = toy_events(rng, n=n, size=size)
    times, units, counts = [], [], []
    for index, sample in enumerate(toys):
        keep = {4: 0, 9: 1}.get(index, len(sample) - index)
        stamps = sample.times[:keep] // grid * grid
        order = np.lexsort((sample.units[:keep], stamps))
        times.append(stamps[order])
        units.append(sample.units[:keep][order])
        counts.append(keep)
    return replace(
        toys,
        times=np.concatenate(times),
        units=np.concatenate(units),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    ).check()


def cut_off(data, last_time):
    """Every recording up to and including a time of its own (None: nothing), by plain loops."""
    times, units, offsets = [], [], [0]
    for sample, last in zip(data, last_time, strict=True):
        for time, unit in zip(sample.times.tolist(), sample.units.tolist(), strict=True):
            if last is not None and time <= last:
                times.append(time)
                units.append(unit)
        offsets.append(len(times))
    return EventSet(
        np.array(times, np.uint32),
        np.array(units, np.uint32),
        np.array(offsets, np.int64),
        data.labels,
        data.shape,
        data.duration_us,
        data.classes,
    ).check()


PHYSICS = {"tau_ms": 2.0, "refractory_ms": 0.5, "kappa": -0.2, "clamp": 0.5}
NETS = {
    "one layer": lambda: Network.from_architecture("25-3", seed=1, settings=NetworkSettings(alpha=2.0)),
    "dense": lambda: Network.from_architecture(
        "25-20-3", seed=1, settings=NetworkSettings(alpha=(1.0, 2.0), **PHYSICS)
    ),
    "conv": lambda: Network.from_architecture(
        "6x6-8C3p1-P2-20-3",
        seed=1,
        settings=NetworkSettings(alpha=(1.0, 0.5, 1.0), **PHYSICS),
    ),
    "pool": lambda: Network.from_architecture("6x6-P2-3", seed=1, settings=NetworkSettings(alpha=0.5)),
}


def data_for(kind):
    return recordings(6 if kind in ("conv", "pool") else 5)


def expected_at(network, data, last_time):
    part = cut_off(data, last_time)
    result = evaluate(network, part, threads=1)
    return (
        result.totals.correct,
        len(part) - result.totals.silent,
        int(result.totals.events[0]),
        int(result.totals.operations.sum()),
    )


def found_at(curve, index):
    n = curve.samples
    return (
        int(curve.correct[index]),
        int(curve.spiking[index]),
        round(curve.input_events[index] * n),
        round(curve.synaptic_operations[index] * n),
    )


@pytest.mark.parametrize("kind", NETS)
def test_every_point_equals_the_recording_cut_off_there(kind, monkeypatch):
    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 7)
    network, data = NETS[kind](), data_for(kind)
    by_time, by_events = over_time(network, data, step_us=130, threads=1)
    assert by_time.at.tolist() == [*range(0, 5000, 130), 5000]
    seen = set()
    for index, time in enumerate(by_time.at.tolist()):
        expected = expected_at(network, data, [time] * len(data))
        assert found_at(by_time, index) == expected, time
        assert by_time.time_us[index] == time
        seen.add(expected)
    assert len(seen) > 20  # the points do differ
    assert by_time.spiking[-1] > 0

    for index, number in enumerate(by_events.at.tolist()):
        # The last event that counts, and all events at its time.
        last = [int(sample.times[: max(number, 0)][-1]) if len(sample) else None for sample in data]
        assert found_at(by_events, index) == expected_at(network, data, last), number
        mean = np.mean([0 if time is None else time for time in last])
        assert by_events.time_us[index] == pytest.approx(mean)
    assert found_at(by_events, -1) == found_at(by_time, -1)


def test_simultaneous_events_are_never_parted():
    data = recordings(grid=1000)
    network = NETS["dense"]()
    _, by_events = over_time(network, data, threads=1)
    groups = [np.flatnonzero(np.diff(sample.times.astype(int))) + 1 for sample in data]
    whole = [{0, len(sample), *ends.tolist()} for sample, ends in zip(data, groups, strict=True)]
    for index, number in enumerate(by_events.at.tolist()):
        reached = [min((end for end in ends if end >= number), default=max(ends)) for ends in whole]
        assert by_events.input_events[index] == pytest.approx(np.mean(reached))
        assert np.mean(reached) > min(number, 10)


def test_the_end_is_the_evaluation():
    network, data = NETS["dense"](), recordings()
    result = evaluate(network, data)
    for curve in over_time(network, data):
        assert curve.accuracy[-1] == result.accuracy
        assert curve.spiking_share[-1] == 1 - result.totals.means()["silent_samples"]
        assert curve.input_events[-1] == result.totals.means()["events_per_sample"][0]
        total = sum(result.totals.means()["synaptic_operations_per_sample"])
        assert curve.synaptic_operations[-1] == pytest.approx(total)


@pytest.mark.usefixtures("spread")
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_threads_change_nothing(kind):
    network, data = NETS[kind](), data_for(kind)
    texts = {to_csv(*over_time(network, data, threads=threads)) for threads in (1, 2, 3)}
    assert len(texts) == 1


def test_an_event_file_is_read_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 7)
    network, data = NETS["dense"](), recordings()
    path = write_events(tmp_path / "toys.h5", test=data)
    done = []
    with open_events(path) as file:
        lazy = over_time(network, file["test"], report=done.append)
    assert done == [7, 7, 7, 2]
    assert to_csv(*lazy) == to_csv(*over_time(network, data))


def test_before_any_output_spike_the_potential_answers():
    """No output spike and equal potentials: the lowest class; then the highest potential."""
    network, data = NETS["dense"](), recordings()
    late = replace(data, times=data.times + np.uint32(500), duration_us=5500)
    by_time, _ = over_time(network, late, step_us=10)
    assert by_time.spiking[0] == 0
    assert by_time.correct[0] == (data.labels == 0).sum()
    answered_without_spikes = by_time.correct[by_time.spiking == 0]
    assert len(set(answered_without_spikes.tolist())) > 1


# Grids, the settled point, files


def test_the_synapses_of_an_event_are_the_operations_of_the_simulation():
    shape = (2, 7, 5)
    for arch in ("7x5x2-3C3-3", "7x5x2-4C4p2-3", "7x5x2-P2-6-3", "7x5x2-6-3"):
        network = Network.from_architecture(arch, settings=NetworkSettings(alpha=1e6))
        n = int(np.prod(shape))
        single = EventSet(
            np.zeros(n, np.uint32),
            np.arange(n, dtype=np.uint32),
            np.arange(n + 1),
            np.zeros(n, np.uint16),
            shape,
            10,
            3,
        )
        [forward] = network.passes(single)
        assert network.layers[0].synapses.tolist() == forward.operations[0].tolist()


def test_time_grid():
    assert time_grid(50_000).tolist() == list(range(0, 50_001, 500))
    assert time_grid(315_121)[[1, -2, -1]].tolist() == [5000, 315_000, 315_121]
    assert time_grid(7).tolist() == list(range(8))
    assert time_grid(1, 5).tolist() == [0, 1]
    for duration in (1, 99, 100, 101, 999, 12_345, 2**32):
        grid = time_grid(duration)
        assert grid[-1] == duration
        assert len(grid) <= 101
        assert (np.diff(grid) > 0).all()
        assert str(grid[1]).rstrip("0") in ("1", "2", "5") or len(grid) == 2
        assert duration < 100 or len(grid) >= 40
    with pytest.raises(SettingsError, match="1 us"):
        time_grid(100, 0)
    with pytest.raises(SettingsError, match=r"more than 10000 points of a recording of 1000 ms"):
        time_grid(1_000_000, 10)


def test_event_grid():
    grid = event_grid(4000)
    assert (grid[0], grid[-1]) == (1, 4000)
    assert 50 <= len(grid) <= 80
    assert (np.diff(grid) > 0).all()
    assert event_grid(1).tolist() == [1]
    assert event_grid(0).tolist() == [0]


def curve_of(correct, samples=200):
    n = len(correct)
    zero = np.zeros(n)
    return AnswerCurve("time", np.arange(n), zero, samples, np.array(correct), np.zeros(n, int), zero, zero)


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        ([0, 50, 100, 180, 181], 3),
        ([0, 50, 100, 178, 181], 4),  # 1.5 points below
        ([0, 179, 100, 180, 181], 3),  # it must stay there
        ([0, 190, 185, 180, 181], 1),  # above is no lack
        ([181, 181], 0),
        ([0, 181], 1),
    ],
)
def test_settled(correct, expected):
    assert curve_of(correct).settled == expected


def test_no_samples_and_no_events():
    network, data = NETS["dense"](), recordings()
    with pytest.raises(DataError, match="no samples"):
        over_time(network, data.part(0, 0))
    hollow = replace(
        data, times=data.times[:0], units=data.units[:0], offsets=np.zeros(len(data) + 1, np.int64)
    )
    for curve in over_time(network, hollow):
        assert (curve.correct == (data.labels == 0).sum()).all()
        assert not curve.input_events.any()
        assert curve.settled == 0


def test_memory_is_bounded_by_the_block(monkeypatch):
    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 8)
    network = NETS["dense"]()

    def peak(n):
        data = toy_events(np.random.default_rng(0), n=n)
        over_time(network, data, step_us=20, threads=1)
        tracemalloc.start()
        try:
            over_time(network, data, step_us=20, threads=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(400) < 1.3 * peak(40)


# Command line


def test_the_files_of_the_command(small_run, small_events, tmp_path):
    out = tmp_path / "some" / "folder"
    common = ("evaluate", small_run, small_events)
    done = evsnn(*common, "--over-time", "--step-ms", 2.5, "--out", out, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    plain = json.loads(evsnn(*common, "--json").out)
    assert {name: value for name, value in result.items() if name != "over_time"} == plain
    assert sorted(path.name for path in out.iterdir()) == ["over-time.csv", "over-time.png"]
    assert (out / "over-time.png").read_bytes().startswith(b"\x89PNG\r\n")

    rows = list(csv.DictReader(io.StringIO((out / "over-time.csv").read_text())))
    assert list(rows[0]) == [
        "by",
        "at",
        "time_ms",
        "input_events",
        "synaptic_operations",
        "spiking_share",
        "accuracy",
    ]
    for by in ("time", "events"):
        table = result["over_time"][by]
        mine = [row for row in rows if row["by"] == by]
        for name, values in table.items():
            assert [float(row[name]) for row in mine] == values
            if name != "accuracy":
                assert (np.diff(values) >= 0).all(), name
        assert (np.diff(table["at"]) > 0).all()
        assert table["accuracy"][-1] == result["accuracy"]
        point = result["over_time"]["settled"][by]
        index = table["at"].index(point["at"])
        assert point == {name: values[index] for name, values in table.items()}
        assert min(table["accuracy"][index:]) >= result["accuracy"] - 0.01 - 1e-9
    assert result["over_time"]["time"]["at"] == [2.5 * step for step in range(21)]
    assert len(rows) == sum(len(result["over_time"][by]["at"]) for by in ("time", "events"))
    again = evsnn(*common, "--over-time", "--step-ms", 2.5, "--out", tmp_path / "again", "--threads", 3)
    assert again.code == 0, again.err
    for name in ("over-time.csv", "over-time.png"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_without_a_folder_the_files_lie_beside_the_model(small_run, small_events, tmp_path):
    (tmp_path / "model.h5").write_bytes((small_run / "model.h5").read_bytes())
    done = evsnn("evaluate", tmp_path / "model.h5", small_events, "--over-time")
    assert done.code == 0, done.err
    assert "\nwithin 1 point of it from " in done.out
    assert done.out.endswith(f"over time: {tmp_path / 'over-time.csv'}, {tmp_path / 'over-time.png'}\n")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.h5", "over-time.csv", "over-time.png"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--step-ms", "1"], 2, "belong to --over-time"),
        (["--out", "x"], 2, "belong to --over-time"),
        (["--over-time", "--step-ms", "0"], 1, "--step-ms must be above 0"),
        (["--over-time", "--step-ms", "nan"], 1, "--step-ms must be above 0"),
        (["--over-time", "--step-ms", "1e-9"], 1, "1 us (0.001 ms) or more"),
        (["--over-time", "--step-ms", "0.001"], 1, "more than 10000 points of a recording of 50 ms"),
    ],
)
def test_wrong_options(small_run, small_events, tmp_path, monkeypatch, options, code, words):
    monkeypatch.chdir(tmp_path)
    done = evsnn("evaluate", small_run, small_events, *options)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(small_run, small_events, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = evsnn("evaluate", small_run, small_events, "--over-time", "--out", tmp_path / "file" / "sub")
    assert done.code == 1
    assert f"cannot make the folder {tmp_path / 'file' / 'sub'}" in done.err
