"""``evsnn plot``: which pictures of which files, under which names, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from evsnn_cli import plot as command
from support import evsnn, toy_events, write_events

from evsnn import Network, NetworkSettings, evaluate, load_model, open_events, pictures, plots, save_model
from evsnn.pictures import PictureSettings, pictures_of

PNG = b"\x89PNG\r\n"


def drawn(done):
    """Pictures that a command says it has written, by kind."""
    assert done.code == 0, done.err
    return dict(line.split(": ", 1) for line in done.out.splitlines())


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def conv_model(tmp_path_factory):
    """A convolutional model that lies alone in its folder."""
    path = tmp_path_factory.mktemp("models") / "conv.h5"
    settings = NetworkSettings(alpha=(1.0, 0.5, 1.0))
    save_model(path, Network.from_architecture("5x5-4C3-P2-6-3", settings=settings))
    return path


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "toys.h5"
    return write_events(path, train=toy_events(np.random.default_rng(0), 9))


def test_the_command_knows_the_kinds_and_formats():
    assert set(command.KINDS) == set(pictures.KINDS)
    assert command.FORMATS == plots.FORMATS


# Which pictures


def test_an_event_file(small_events, tmp_path):
    found = drawn(evsnn("plot", small_events, "--sample", 3, "--out", tmp_path))
    expected = {kind: f"small-test-3-{kind}.png" for kind in ("raster", "frames", "surface")}
    assert found == {kind: str(tmp_path / name) for kind, name in expected.items()}
    assert names(tmp_path) == sorted(expected.values())
    for name in expected.values():
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_a_run_folder(small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    before = names(run)
    found = drawn(evsnn("plot", run))
    expected = {
        "curves": "curves.png",
        "weights": "weights-layer1.png",
        "spikes": "test-0-spikes.png",
        "membrane": "test-0-membrane-layer2.png",
        "confusion": "test-confusion.png",
    }
    assert found == {kind: str(run / name) for kind, name in expected.items()}
    assert names(run) == sorted({*before, *expected.values()})
    # The curves that training draws are the same picture.
    assert (run / "curves.png").read_bytes() == (small_run / "curves.png").read_bytes()


def test_a_model_with_and_without_data(small_run, small_events, tmp_path):
    model = tmp_path / "alone.h5"
    shutil.copy(small_run / "model.h5", model)
    assert drawn(evsnn("plot", model)) == {"weights": str(tmp_path / "alone-weights-layer1.png")}
    found = drawn(evsnn("plot", model, "--data", small_events, "--split", "validation", "--sample", 11))
    assert list(found) == ["weights", "spikes", "membrane", "confusion"]
    assert found["membrane"] == str(tmp_path / "alone-validation-11-membrane-layer2.png")
    assert found["confusion"] == str(tmp_path / "alone-validation-confusion.png")
    checkpoint = drawn(evsnn("plot", small_run / "checkpoint.h5", "--what", "weights", "--out", tmp_path))
    assert checkpoint == {"weights": str(tmp_path / "checkpoint-weights-layer1.png")}


def test_several_run_folders(small_run, tmp_path, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(small_run, other)
    twin = tmp_path / "more" / "other"
    shutil.copytree(small_run, twin)
    monkeypatch.chdir(tmp_path)
    assert drawn(evsnn("plot", small_run, other, twin)) == {"curves": "curves.png"}
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)
    [picture] = pictures_of([small_run, other, twin], PictureSettings())
    labels = [text.get_text() for text in picture.draw().legends[0].texts]
    assert labels == ["small", str(other), str(twin)]


def test_a_file_or_a_folder(small_events, tmp_path):
    one = ("plot", small_events, "--what", "raster")
    assert drawn(evsnn(*one, "--out", tmp_path / "new" / "a.svg")) == {
        "raster": str(tmp_path / "new" / "a.svg")
    }
    assert (tmp_path / "new" / "a.svg").read_bytes().startswith(b"<?xml")
    assert drawn(evsnn(*one, "--out", tmp_path / "A.PDF"))["raster"] == str(tmp_path / "A.PDF")
    assert (tmp_path / "A.PDF").read_bytes().startswith(b"%PDF")
    found = drawn(evsnn(*one, "--out", tmp_path / "folder", "--format", "svg"))
    assert found["raster"] == str(tmp_path / "folder" / "small-test-0-raster.svg")
    (tmp_path / "odd.png").mkdir()
    assert drawn(evsnn(*one, "--out", tmp_path / "odd.png"))["raster"].endswith("raster.png")
    # The same picture again is the same file, in place of the other.
    before = (tmp_path / "new" / "a.svg").read_bytes()
    drawn(evsnn(*one, "--out", tmp_path / "new" / "a.svg"))
    assert (tmp_path / "new" / "a.svg").read_bytes() == before


def test_json(small_events, tmp_path):
    done = evsnn("plot", small_events, "--what", "frames", "--what", "raster", "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "pictures": [
            {"what": kind, "file": str(tmp_path / f"small-test-0-{kind}.png")}
            for kind in ("raster", "frames")
        ]
    }


def test_a_flat_input_has_a_raster_only(tmp_path):
    toys = toy_events(np.random.default_rng(0), 4)
    flat = write_events(tmp_path / "flat.h5", test=type(toys)(**vars(toys) | {"shape": (25, 1, 1)}))
    assert list(drawn(evsnn("plot", flat))) == ["raster"]


def test_the_first_split_where_there_is_no_test(toys, tmp_path):
    found = drawn(evsnn("plot", toys, "--what", "raster", "--out", tmp_path))
    assert found["raster"].endswith("toys-train-0-raster.png")


def test_samples_without_events(tmp_path):
    toys = toy_events(np.random.default_rng(0), 4)
    silent = type(toys)(
        **vars(toys) | {"times": toys.times[:0], "units": toys.units[:0], "offsets": np.zeros(5, np.int64)}
    )
    path = write_events(tmp_path / "silent.h5", test=silent)
    model = tmp_path / "model.h5"
    save_model(model, Network.from_architecture("5x5-4C3-P2-6-3", settings=NetworkSettings()))
    assert len(drawn(evsnn("plot", path, "--out", tmp_path / "out"))) == 3
    assert len(drawn(evsnn("plot", model, "--data", path, "--out", tmp_path / "out"))) == 4


# What they show


def figure_of(path, kind, **settings):
    [picture] = pictures_of([path], PictureSettings(what=(kind,), **settings))
    return picture.draw()


def test_the_sample_asked_for(small_events):
    figure = figure_of(small_events, "raster", sample=7, split="train")
    with open_events(small_events) as file:
        events, label = file["train"][7], file["train"].labels[7]
    line = figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), events.times / 1000)
    np.testing.assert_array_equal(line.get_ydata(), events.units % 28)
    assert figure.get_suptitle() == f"small.h5, train sample 7, label {label}"


def test_the_surface_is_taken_when_asked(small_events):
    figure = figure_of(small_events, "surface", tau_ms=3.0, end_ms=20.0)
    with open_events(small_events) as file:
        events = file["test"][0]
    expected = np.zeros(784)
    for time, unit in zip(events.times.tolist(), events.units.tolist(), strict=True):
        if time <= 20_000:  # a later event replaces an earlier one
            expected[unit] = np.exp((time - 20_000) / 3000)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), expected.reshape(28, 28))


def test_spikes_and_answer(small_run, small_events):
    network = load_model(small_run / "model.h5")
    with open_events(small_events) as file:
        record = network.run(file["test"][5])
        label = file["test"].labels[5]
    figure = figure_of(small_run / "model.h5", "spikes", data=str(small_events), sample=5)
    for axes, spikes in zip(figure.axes[1:], record.spikes, strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), spikes.times / 1000)
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), spikes.units)
    assert figure.get_suptitle() == f"test sample 5, label {label}, predicted {record.prediction}"


def test_membrane_of_chosen_and_of_busy_neurons(small_run, small_events):
    given = {"data": str(small_events), "layer": 1}
    figure = figure_of(small_run / "model.h5", "membrane", neurons=(4, 2), **given)
    assert [axes.get_ylabel() for axes in figure.axes] == ["4", "2"]
    network = load_model(small_run / "model.h5")
    with open_events(small_events) as file:
        record = network.run(file["test"][0], record="membrane")
    [line] = [line for line in figure.axes[1].lines if line.get_label().startswith("potential")]
    for time, value in zip(record.group_times / 1000, record.membrane[0][:, 2], strict=True):
        assert value in line.get_ydata()[line.get_xdata() == time]
    counts = np.bincount(record.spikes[0].units, minlength=16)
    busy = [int(axes.get_ylabel()) for axes in figure_of(small_run / "model.h5", "membrane", **given).axes]
    assert busy == sorted(busy)
    assert len(busy) == 8
    assert min(counts[busy]) >= max(np.delete(counts, busy))


def mosaic(figure):
    return np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)


def test_weights(small_run, conv_model, tmp_path):
    network = load_model(small_run / "model.h5")
    # The architecture is flat; that the input is an image, the data say.
    fields = mosaic(figure_of(small_run, "weights", neurons=(3,)))
    np.testing.assert_array_equal(fields, network.layers[0].weight[:, 3].reshape(28, 28))
    shutil.copy(small_run / "model.h5", tmp_path)
    matrix = mosaic(figure_of(tmp_path / "model.h5", "weights", neurons=(3, 1)))
    np.testing.assert_array_equal(matrix, network.layers[0].weight[:, [3, 1]].T)
    matrix = mosaic(figure_of(small_run, "weights", layer=2))
    np.testing.assert_array_equal(matrix, network.layers[1].weight.T)

    conv = load_model(conv_model).layers[0]
    kernels = mosaic(figure_of(conv_model, "weights", neurons=(2, 0)))
    for index, chosen in enumerate((2, 0)):
        for ky in range(3):
            for kx in range(3):
                assert kernels[ky, 4 * index + kx] == conv.weight[ky * 3 + kx, chosen]


def test_weights_of_an_image_do_not_need_the_data(toys, tmp_path):
    data = tmp_path / "gone.h5"
    shutil.copy(toys, data)
    for arch, run in (("5x5-4-3", "image"), ("25-4-3", "flat")):
        done = evsnn("train", data, "--arch", arch, "--epochs", 1, "--out", tmp_path / run)
        assert done.code == 0, done.err
    data.unlink()
    assert len(mosaic(figure_of(tmp_path / "image", "weights", neurons=(1,)))) == 5
    refused(tmp_path / "image", "--what", "spikes", words=["gone.h5"])
    refused(tmp_path / "flat", "--what", "weights", words=["gone.h5"])


def test_confusion(small_run, small_events):
    with open_events(small_events) as file:
        result = evaluate(load_model(small_run / "model.h5"), file["train"])
    figure = figure_of(small_run, "confusion", data=str(small_events), split="train")
    texts = {text.get_position()[::-1]: int(text.get_text()) for text in figure.axes[0].texts}
    assert texts == {
        (label, answer): count for (label, answer), count in np.ndenumerate(result.confusion) if count
    }
    assert f"{100 * result.accuracy:.2f} % of 48 samples (train)" in figure.get_suptitle()


def test_curves(small_run):
    lines = [json.loads(line) for line in (small_run / "metrics.jsonl").read_text().splitlines()]
    loss = figure_of(small_run, "curves").axes[0].lines[0]
    assert list(loss.get_xdata()) == [1, 2]
    assert list(loss.get_ydata()) == [line["loss"] for line in lines]


# What it refuses


def refused(*arguments, code=1, words=()):
    done = evsnn("plot", *arguments)
    assert (done.code, done.out) == (code, ""), done
    [line] = [line for line in done.err.splitlines() if line.startswith("Error:")]
    assert "Traceback" not in done.err
    assert "please report it" not in done.err
    for word in words:
        assert str(word) in line, line
    if code == 1:
        assert done.err == line + "\n"


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        ("events", ["--sample", 60], ["small.h5", "no sample 60", "'test' has 60"]),
        ("events", ["--what", "weights"], ["an event file, has no weights", "raster, frames, surface"]),
        ("toys", ["--split", "test"], ["no split 'test'"]),
        ("events", ["--windows", 0], ["windows must lie in 1 to 64"]),
        ("events", ["--tau", 0], ["--tau must be a number of milliseconds above 0"]),
        ("events", ["--tau", "nan"], ["--tau must be a number of milliseconds above 0"]),
        ("events", ["--end", "inf"], ["--end must be a number of milliseconds above 0"]),
        ("run", ["--what", "raster"], ["a run folder, has no raster", "curves, weights"]),
        ("run", ["--layer", 3], ["no layer 3 in 784-16-10", "1, 2"]),
        ("run", ["--sample", 5000], ["the MNIST subset", "no sample 5000", "'test' has 1000"]),
        ("run", ["--split", "validation"], ["the splits train, test, not 'validation'"]),
        ("run", ["--what", "membrane", "--neurons", "3,10"], ["neurons 0 to 9, not 10"]),
        ("run", ["--what", "membrane", "--layer", 1, "--neurons", "0-40"], ["41 neurons", "32 do"]),
        ("run", ["--what", "weights", "--neurons", "16"], ["neurons 0 to 15, not 16"]),
        ("run", ["--data", "toys"], ["784 inputs", "toys.h5", "25 (5x5x1)"]),
        ("run", ["--what", "confusion", "--data", "toys"], ["784 inputs", "25 (5x5x1)"]),
        ("run", ["--data", "missing.h5"], ["missing.h5"]),
        ("conv", ["--what", "spikes"], ["conv.h5: spikes needs samples; pass --data FILE"]),
        ("conv", ["--what", "weights", "--what", "confusion"], ["confusion needs samples"]),
        ("conv", ["--what", "curves"], ["a model, has no curves"]),
        ("conv", ["--layer", 2], ["layer 2 of 5x5-4C3-P2-6-3 only pools", "1, 3, 4"]),
        ("conv", ["--neurons", "4"], ["maps 0 to 3, not 4"]),
        ("conv", ["--data", "toys", "--layer", 2], ["only pools"]),
        ("missing.h5", [], ["missing.h5: no such file or folder"]),
        (".", [], ["not a run folder"]),
    ],
)
def test_bad_input(small_events, small_run, conv_model, toys, tmp_path, monkeypatch, file, options, words):
    monkeypatch.chdir(tmp_path)
    files = {"events": small_events, "run": small_run, "conv": conv_model, "toys": toys}
    options = [files.get(option, option) for option in options]
    refused(files.get(file, file), *options, "--out", tmp_path / "out", words=words)
    assert not any(tmp_path.iterdir())


def test_several_files_must_be_run_folders(small_run, small_events, tmp_path):
    out = ("--out", tmp_path / "out")
    refused(small_run, small_events, *out, words=[small_events, "not a run folder"])
    refused(small_run, tmp_path / "missing", *out, words=["missing: no such file or folder"])
    refused(small_run, small_run, "--what", "weights", *out, words=["2 run folders, has no weights"])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--what", "portrait"],
        ["--sample", "-1"],
        ["--layer", "0"],
        ["--neurons", "1,x"],
        ["--neurons", "5-3"],
        ["--neurons", "0-99999"],
        ["--neurons", ""],
        ["--format", "gif"],
        ["--out", "a.png", "--format", "svg"],
    ],
)
def test_wrong_usage(small_events, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    refused(small_events, *options, code=2)
    assert not any(tmp_path.iterdir())


def test_no_file_is_wrong_usage():
    refused(code=2)


def test_places_that_cannot_be_written(small_events, tmp_path):
    refused(
        small_events, "--out", tmp_path / "all.png", words=["3 pictures (raster, frames, surface)", "--what"]
    )
    (tmp_path / "file").write_text("mine")
    refused(small_events, "--out", tmp_path / "file", words=["cannot make the folder", "file"])
    # An event file is no picture: its name is a folder's at most, so it is never written over.
    refused(small_events, "--what", "raster", "--out", small_events, words=["cannot make the folder"])
    assert names(tmp_path) == ["file"]


def test_a_run_without_an_epoch_or_a_checkpoint(small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "metrics.jsonl").unlink()
    refused(run, "--what", "curves", words=[run, "no epoch is done yet"])
    (run / "checkpoint.h5").unlink()
    refused(run, "--what", "curves", words=["checkpoint.h5"])
    (run / "model.h5").write_bytes(b"text")
    refused(run, "--what", "weights", words=["model.h5"])


def test_drawing_leaves_no_global_figures(small_events, tmp_path):
    program = (
        "import sys\n"
        "from evsnn_cli.main import cli\n"
        f"cli.main(['plot', {str(small_events)!r}, '--out', {str(tmp_path)!r}], standalone_mode=False)\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
