"""What pictures show is what they were given: figures are inspected, not pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evsnn import plots
from evsnn.plots.layers import Spikes, Trace, decaying
from evsnn.plots.style import BLUE, COLOURS, OFF, ON, limit_of, shade

SHAPE = (2, 4, 5)


def some_events(n=60, shape=SHAPE, span=9000):
    rng = np.random.default_rng(2)
    times = np.sort(rng.integers(0, span, n)).astype(np.uint32)
    units = rng.integers(0, math.prod(shape), n).astype(np.uint32)
    return times, units


def parts(unit, shape=SHAPE):
    """Channel, y and x of a unit, by definition."""
    _, height, width = shape
    for c in range(shape[0]):
        for y in range(height):
            for x in range(width):
                if (c * height + y) * width + x == unit:
                    return c, y, x
    raise AssertionError


def named(axes, label):
    [line] = [line for line in axes.lines if line.get_label() == label]
    return line


def pixels(figure):
    """Images of a figure in reading order, colour bars left out."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_raster():
    times, units = some_events()
    figure = plots.draw_raster(times, units, SHAPE, 10_000, "title")
    x_axes, y_axes = figure.axes
    for channel, (name, colour) in enumerate([("OFF", OFF), ("ON", ON)]):
        mine = [(t / 1000, *parts(u)) for t, u in zip(times, units, strict=True) if parts(u)[0] == channel]
        for axes, position in ((x_axes, 3), (y_axes, 2)):
            line = named(axes, name)
            assert line.get_color() == colour
            np.testing.assert_array_equal(line.get_xdata(), [row[0] for row in mine])
            np.testing.assert_array_equal(line.get_ydata(), [row[position] for row in mine])
    assert x_axes.get_xlim() == (0, 10)
    assert x_axes.get_ylim() == (-0.5, 4.5)
    assert y_axes.get_ylim() == (3.5, -0.5)  # as in an image
    assert figure.get_suptitle() == "title"


def test_raster_of_a_flat_input():
    times, units = some_events(shape=(1, 1, 30))
    [axes] = plots.draw_raster(times, units, (1, 1, 30), 10_000, "").axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), units)
    assert axes.get_ylabel() == "unit"


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_frames(channels):
    shape = (channels, 4, 5)
    times, units = some_events(300, shape, 10_001)
    times[-1] = 10_000  # at the end of the duration: in the last window
    figure = plots.draw_frames(times, units, shape, 10_000, 4, "")
    rows = channels if channels < 3 else 1
    expected = np.zeros((rows, 4, 4, 5), int)
    for time, unit in zip(times.tolist(), units.tolist(), strict=True):
        c, y, x = parts(unit, shape)
        expected[c if channels < 3 else 0, min(time // 2500, 3), y, x] += 1
    np.testing.assert_array_equal(pixels(figure), expected.reshape(-1, 4, 5))
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert {image.get_clim() for image in images} == {(0, expected.max())}
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles == ["0 to 2.5", "2.5 to 5", "5 to 7.5", "7.5 to 10"]


def test_many_frames_fill_several_lines():
    times, units = some_events(300)
    figure = plots.draw_frames(times, units, SHAPE, 9000, 11, "")
    images = np.array([image for image in pixels(figure) if image.shape == (4, 5)])
    off, on = (
        images[[*range(first, first + 8), *rest]] for first, rest in ((0, (16, 17, 18)), (8, (19, 20, 21)))
    )
    expected = np.zeros((2, 11, 4, 5), int)
    for time, unit in zip(times.tolist(), units.tolist(), strict=True):
        c, y, x = parts(unit)
        expected[c, time * 11 // 9000, y, x] += 1
    np.testing.assert_array_equal([off, on], expected)
    plots.render(figure)


@pytest.mark.parametrize("end", [9000, 4000])
def test_surface(end):
    times, units = some_events()
    figure = plots.draw_surface(times, units, SHAPE, end, 1500.0, "")
    expected = np.zeros(SHAPE)
    for time, unit in zip(times.tolist(), units.tolist(), strict=True):
        if time <= end:  # a later event of a pixel replaces an earlier one
            expected[parts(unit)] = math.exp((time - end) / 1500.0)
    np.testing.assert_allclose(pixels(figure)[:2], expected, rtol=1e-12)
    assert (expected == 0).any()
    assert [axes.get_title() for axes in figure.axes[:2]] == ["OFF", "ON"]


def test_spikes():
    times, units = some_events()
    layers = [Spikes("input", 40, times, units), Spikes("layer 1", 10, times[:9], units[:9] % 10)]
    figure = plots.draw_spikes(layers, 10_000, "", {3: "label", 7: "answer"})
    for axes, layer in zip(figure.axes, layers, strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), layer.times / 1000)
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), layer.units)
        assert axes.get_title(loc="right") == f"{len(layer.times)} events"
        assert axes.get_ylabel() == f"{layer.name}\n({layer.size})"
    assert {(text.get_text(), text.get_position()[1]) for text in figure.axes[1].texts} == {
        ("label", 3),
        ("answer", 7),
    }


def test_membrane():
    times = np.array([1000, 1500, 4000], np.uint32)
    potential = np.array([0.5, -2.0, 0.25], np.float32)
    silent = Trace("8", times[:0], potential[:0], times[:0])
    figure = plots.draw_membrane(
        [Trace("7", times, potential, times[2:]), silent], 2000.0, 6000, "neurons of layer 2"
    )
    axes, empty = figure.axes
    line = named(axes, "potential after each time of input")
    drawn_times, drawn = line.get_xdata() * 1000, line.get_ydata()
    for time, value in zip(times, potential, strict=True):
        assert value in drawn[drawn_times == time]
    for time, value in zip(drawn_times, drawn, strict=True):
        if (drawn_times == time).sum() != 1:  # two points: a jump
            continue
        last = np.searchsorted(times, time, side="right") - 1
        expected = 0 if last < 0 else potential[last] * math.exp(-(time - times[last]) / 2000)
        assert value == pytest.approx(expected)
    assert (drawn_times[0], drawn_times[-1]) == (0, 6000)
    assert named(axes, "threshold").get_ydata() == [1, 1]
    spikes = named(axes, "spike")
    assert (list(spikes.get_xdata()), list(spikes.get_ydata())) == ([4], [1])
    assert axes.get_ylim()[0] < -2
    assert set(named(empty, "potential after each time of input").get_ydata()) == {0}


def test_without_leak_a_potential_stays():
    _, line = decaying(np.array([10], np.uint32), np.array([0.75], np.float32), np.inf, 100)
    assert set(line) == {0.0, 0.75}


def test_curves_of_one_run():
    history = [
        {
            "epoch": epoch,
            "loss": 1 / epoch,
            "train_accuracy": 0.5 + 0.1 * epoch,
            "validation_accuracy": 0.4 + 0.1 * epoch,
            "events_per_sample": [100.0, 10.0 * epoch, 5.0],
        }
        for epoch in (1, 2, 3)
    ]
    loss, error, spikes = plots.draw_curves({"a": history}, "").axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1, 1 / 2, 1 / 3])
    np.testing.assert_allclose(named(error, "training").get_ydata(), [40, 30, 20])
    np.testing.assert_allclose(named(error, "validation").get_ydata(), [50, 40, 30])
    np.testing.assert_allclose(named(spikes, "input").get_ydata(), [100, 100, 100])
    np.testing.assert_allclose(named(spikes, "layer 1").get_ydata(), [10, 20, 30])
    assert (error.get_yscale(), spikes.get_yscale()) == ("log", "log")

    other = [
        line | {"validation_accuracy": None, "train_accuracy": 1.0, "events_per_sample": [9.0, 0.0, 0.0]}
        for line in history
    ]
    _, error, spikes = plots.draw_curves({"a": other}, "").axes
    assert [line.get_label() for line in error.lines] == ["training"]
    assert (error.get_yscale(), spikes.get_yscale()) == ("linear", "linear")

    figure = plots.draw_curves({"a": history, "_b$1$": other}, "")
    loss, error, spikes = figure.axes
    assert [line.get_color() for line in loss.lines] == list(COLOURS[:2])
    assert len(error.lines) == 3
    np.testing.assert_allclose(named(spikes, "a").get_ydata(), [15, 25, 35])
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", r"_b\$1\$"]
    plots.render(figure)


def test_receptive_fields():
    fields = np.random.default_rng(0).normal(size=(7, 2, 3, 4)).astype(np.float32)
    figure = plots.draw_receptive_fields(fields, range(10, 17), "")
    axes = figure.axes[0]
    mosaic = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert np.sort(mosaic[~np.isnan(mosaic)]).tolist() == np.sort(fields.ravel().astype(float)).tolist()
    starts = dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True))
    columns = len(axes.get_xticks())
    for row, (middle, text) in enumerate(starts.items()):
        assert text == str(10 + row * columns)
        top = int(middle - 1)
        for channel in range(2):
            found = mosaic[top : top + 3, channel * 5 : channel * 5 + 4]
            np.testing.assert_array_equal(found, fields[row * columns, channel])
    low, high = axes.images[0].get_clim()
    assert low == -high
    assert "OFF, ON" in axes.get_xlabel()


def test_filters():
    filters = np.random.default_rng(0).normal(size=(4, 3, 5, 5)).astype(np.float32)
    axes = plots.draw_filters(filters, [0, 2, 4, 6], "").axes[0]
    mosaic = np.ma.filled(axes.images[0].get_array(), np.nan)
    for index in range(4):
        for channel in range(3):
            found = mosaic[channel * 6 : channel * 6 + 5, index * 6 : index * 6 + 5]
            np.testing.assert_array_equal(found, filters[index, channel])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "2", "4", "6"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("map", "input channel")


def test_matrix():
    weight = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    axes = plots.draw_matrix(weight, [5, 6, 7, 8], "").axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), weight.T)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["5", "6", "7", "8"]


def test_the_scale_of_weights():
    assert limit_of(np.zeros(5)) == 1.0
    values = np.append(np.linspace(-1, 1, 999), 50.0)
    assert 0.9 < limit_of(values) < 1.5  # one stray weight must not make all others pale
    assert limit_of(np.array([np.nan, -3.0, 3.0])) == 3.0


def test_confusion():
    confusion = np.array([[8, 2, 0], [1, 3, 0], [0, 0, 0]])
    axes = plots.draw_confusion(confusion, "").axes[0]
    drawn = axes.images[0].get_array()
    np.testing.assert_allclose(np.ma.filled(drawn, -1), [[-1, 20, 0], [25, -1, 0], [0, 0, -1]])
    texts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "8", (0, 1): "2", (1, 0): "1", (1, 1): "3"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "label")
    assert not plots.draw_confusion(np.eye(40, dtype=int), "").axes[0].texts


def test_answers():
    curve = {
        "at": [0, 10, 20],
        "accuracy": [0.1, 0.8, 0.805],
        "spiking_share": [0.0, 0.5, 1.0],
        "synaptic_operations": [0, 3000, 5000],
    }
    events = curve | {"at": [1, 5, 9]}
    figure = plots.draw_answers(curve, events, (1, 2), "")
    time, number, cost, _ = figure.axes
    np.testing.assert_allclose(named(time, "accuracy").get_ydata(), [10, 80, 80.5])
    np.testing.assert_allclose(named(number, "accuracy").get_xdata(), [1, 5, 9])
    np.testing.assert_allclose(named(time, "samples with an output spike").get_ydata(), [0, 50, 100])
    np.testing.assert_allclose(cost.lines[0].get_ydata(), [0, 3, 5])
    assert time.get_title() == "within 1 point of the final 80.5 % from 10 ms on"
    assert number.get_title() == "within 1 point of the final 80.5 % from 9 events on"


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG\r\n"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_same_picture_is_the_same_file(kind, start):
    times, units = some_events()
    layers = [Spikes("input", 40, times, units)]
    first, second = (
        plots.render(plots.draw_spikes(layers, 10_000, "dollars: $x_$, $", {1: "label"}), kind)
        for _ in range(2)
    )
    assert first.startswith(start)
    assert first == second
    assert plots.render(plots.draw_spikes(layers, 9_500, "", {}), kind) != first


@pytest.mark.parametrize("colour", COLOURS)
def test_more_is_always_darker(colour):
    red, green, blue, _ = shade(colour, "")(np.linspace(0, 1, 50)).T
    assert (np.diff(0.2126 * red + 0.7152 * green + 0.0722 * blue) < 0).all()


def test_colours_of_single_channels():
    times, units = some_events(shape=(1, 4, 5))
    figure = plots.draw_raster(times, units, (1, 4, 5), 10_000, "")
    assert figure.axes[0].lines[0].get_color() not in (OFF, ON, BLUE)  # there is no polarity
    assert not figure.legends
