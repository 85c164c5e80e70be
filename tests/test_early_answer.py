"""The early answer equals that of recordings cut off where the lead first reaches the margin."""

from __future__ import annotations

import numpy as np
import pytest
from test_over_time import NETS, cut_off, data_for, recordings

from evsnn import DataError, SettingsError, evaluate, open_events
from evsnn.training.comparison import equal_accuracy
from evsnn.training.early_answer import MARGINS, choose_margin, early_answers, leads
from evsnn.training.over_time import AnswerCurve, over_time, to_csv

INF = float("inf")


def lead_of(counts, potential):
    """Worth of the answer less that of the best other output, by plain loops."""
    answer = 0
    for i in range(1, len(counts)):
        if (counts[i], potential[i]) > (counts[answer], potential[answer]):
            answer = i
    worth = [float(count) + float(value) for count, value in zip(counts, potential, strict=True)]
    return worth[answer] - max(value for i, value in enumerate(worth) if i != answer)


def stop_of(network, sample, margin):
    """Time of the answer of one sample, whose prefixes are simulated one by one; None without events."""
    if not len(sample):
        return None
    record = network.run(sample)
    last_input = record.spikes[-2].times if len(network.layers) > 1 else sample.times
    for time in sorted(set(last_input.tolist())):
        prefix = network.run(
            type(sample)(sample.times[sample.times <= time], sample.units[sample.times <= time])
        )
        if lead_of(prefix.counts, prefix.potential) >= margin:
            return time
    return int(sample.times[-1])


@pytest.mark.parametrize("kind", NETS)
def test_every_margin_equals_the_recordings_cut_off_there(kind, monkeypatch):
    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 7)
    network, data = NETS[kind](), data_for(kind).part(0, 12)
    margins = [0.1, 0.5, 1.5, 4.0, INF]
    curve = early_answers(network, data, margins, threads=1)
    assert curve.by == "margin"
    assert curve.at.tolist() == margins
    spent = set()
    for index, margin in enumerate(margins):
        stops = [stop_of(network, sample, margin) for sample in data]
        result = evaluate(network, cut_off(data, stops), threads=1)
        assert curve.correct[index] == result.totals.correct, margin
        assert curve.spiking[index] == len(data) - result.totals.silent
        operations = round(curve.synaptic_operations[index] * len(data))
        assert operations == int(result.totals.operations.sum())
        assert round(curve.input_events[index] * len(data)) == int(result.totals.events[0])
        assert curve.time_us[index] == pytest.approx(np.mean([stop or 0 for stop in stops]))
        spent.add(operations)
    assert len(spent) > 2  # the margins do differ


def test_an_infinite_margin_reads_all():
    network, data = NETS["dense"](), recordings()
    curve = early_answers(network, data)
    _, by_events = over_time(network, data)
    assert curve.at[-1] == INF
    for name in ("correct", "spiking", "input_events", "synaptic_operations"):
        assert getattr(curve, name)[-1] == getattr(by_events, name)[-1], name
    for name in ("input_events", "synaptic_operations", "time_us"):
        assert (np.diff(getattr(curve, name)) >= 0).all(), name


def test_leads():
    counts = np.array([[2, 2, 0], [0, 0, 0], [3, 1, 2], [1, 0, 0]])
    potential = np.array(
        [[0.25, 0.5, 0.9], [-0.5, -1.0, -0.75], [0.0, 0.0, 0.5], [-2.0, 0.5, 0.0]], np.float32
    )
    assert leads(counts, potential).tolist() == [0.25, 0.25, 0.5, -1.5]
    assert leads(counts[:, :1], potential[:, :1]).tolist() == [INF] * 4


@pytest.mark.usefixtures("spread")
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_threads_change_nothing(kind):
    network, data = NETS[kind](), data_for(kind)
    assert len({to_csv(early_answers(network, data, threads=threads)) for threads in (1, 2, 3)}) == 1


def test_an_event_file_is_read_block_by_block(tmp_path, monkeypatch):
    from support import write_events

    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 7)
    network, data = NETS["dense"](), recordings()
    done = []
    with open_events(write_events(tmp_path / "toys.h5", test=data)) as file:
        lazy = early_answers(network, file["test"], report=done.append)
    assert done == [7, 7, 7, 2]
    assert to_csv(lazy) == to_csv(early_answers(network, data))


def test_wrong_margins_and_no_samples():
    network, data = NETS["dense"](), recordings()
    for margins in ([], [0.0], [2.0, 1.0], [1.0, 1.0], [float("nan")]):
        with pytest.raises(SettingsError, match="above 0 in ascending order"):
            early_answers(network, data, margins)
    with pytest.raises(DataError, match="no samples"):
        early_answers(network, data.part(0, 0))
    assert list(MARGINS) == sorted(MARGINS)


def curve_of(correct, operations=None, samples=200):
    n = len(correct)
    zero = np.zeros(n)
    spent = np.arange(1.0, n + 1) if operations is None else np.array(operations, float)
    at = np.arange(1.0, n + 1)
    return AnswerCurve("margin", at, zero, samples, np.array(correct), zero.astype(int), zero, spent)


@pytest.mark.parametrize(
    ("correct", "loss", "expected"),
    [
        ([0, 150, 180, 180], 0.0, 2),
        ([0, 181, 179, 180], 0.0, 3),  # it must not fall again
        ([0, 179, 179, 180], 0.005, 1),  # one of 200
        ([0, 178, 179, 180], 0.005, 2),
        ([180, 180], 0.0, 0),
    ],
)
def test_the_cheapest_margin_that_is_safe(correct, loss, expected):
    assert choose_margin(curve_of(correct), loss) == expected


def test_equal_accuracy():
    slow = curve_of([100, 150, 160, 170], [10, 20, 30, 40])
    fast = curve_of([165, 150, 165, 168], [1, 2, 3, 4])
    point = equal_accuracy([slow, fast], 160 / 200, macs=300, effective_macs=60)
    assert (point.at, point.accuracy, point.synaptic_operations) == (3, 165 / 200, 3)
    assert (point.ratio, point.effective_ratio) == (100, 20)
    assert equal_accuracy([slow, fast], 170 / 200, 300, 60).synaptic_operations == 40
    assert equal_accuracy([slow, fast], 171 / 200, 300, 60) is None
    # An accuracy of other samples: 0.8025 of 200 is 161 right.
    assert equal_accuracy([curve_of([160, 161], [1, 2])], 0.8025, 300, 60).synaptic_operations == 2
