"""Bad input on the command line: one line that says what is wrong and where, and nothing half done."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import sys

import h5py
import numpy as np
import pytest
from support import SMALL, evsnn, evsnn_process, toy_events, weights, write_events

from evsnn.datasets import load_idx_folder

TINY = ("--arch", "784-8-10", "--limit", "12", "--epochs", "1")


def refused(*arguments, words=(), code=1, run=evsnn, **options):
    """Run a command that must fail as promised; return its error line."""
    done = run(*arguments, **options)
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "please report it" not in done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("Error:")]
    if code == 1:
        assert done.err.endswith(f"{line}\n")
    for word in words:
        assert str(word) in line, f"{word!r} is not in: {line}"
    return line


# MNIST-format files


def idx(values):
    values = np.asarray(values, np.uint8)
    return struct.pack(f">I{values.ndim}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()


IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
GOOD = {
    "train-images-idx3-ubyte": idx(IMAGES),
    "train-labels-idx1-ubyte": idx([0, 1, 2, 0, 1, 2]),
    "t10k-images-idx3-ubyte": idx(IMAGES[:3]),
    "t10k-labels-idx1-ubyte": idx([2, 1, 0]),
}


def folder_with(path, **changes):
    """A folder of four good files but for the changes; None leaves a file out."""
    path.mkdir()
    for name, data in (GOOD | {name.replace("_", "-"): data for name, data in changes.items()}).items():
        if data is not None:
            (path / name).write_bytes(data)
    return path


def test_the_good_files_are_good(tmp_path):
    source = folder_with(tmp_path / "idx")
    assert evsnn("convert-mnist", source, "-o", tmp_path / "out.h5").code == 0
    assert evsnn("info", tmp_path / "out.h5").code == 0
    assert len(load_idx_folder(source)["train"]) == 6


PACKED = gzip.compress(GOOD["train-images-idx3-ubyte"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images_idx3_ubyte": None}, ["train-images"]),
        ({"t10k_labels_idx1_ubyte": None}, ["t10k-labels"]),
        ({"train_images_idx3_ubyte": b""}, ["train-images-idx3-ubyte"]),
        ({"train_images_idx3_ubyte": GOOD["train-images-idx3-ubyte"][:-1]}, ["train-images-idx3-ubyte"]),
        ({"train_images_idx3_ubyte": GOOD["train-images-idx3-ubyte"][:9]}, ["train-images-idx3-ubyte"]),
        ({"train_images_idx3_ubyte": GOOD["train-images-idx3-ubyte"] + b"x"}, ["train-images-idx3-ubyte"]),
        ({"train_images_idx3_ubyte": b"garbage" * 40}, ["train-images-idx3-ubyte"]),
        ({"train_images_idx3_ubyte": idx([0, 1, 2, 0, 1, 2])}, ["train-images-idx3-ubyte"]),
        ({"train_labels_idx1_ubyte": idx(IMAGES)}, ["train-labels-idx1-ubyte"]),
        ({"train_labels_idx1_ubyte": idx([0, 1, 2, 0, 1])}, ["6", "5"]),
        ({"t10k_labels_idx1_ubyte": idx([2, 1, 10])}, ["t10k-labels-idx1-ubyte", "10"]),
        ({"t10k_images_idx3_ubyte": idx(IMAGES[:3, :3])}, ["t10k-images-idx3-ubyte"]),
        ({"train_images_idx3_ubyte": None, "train_images_idx3_ubyte.gz": PACKED[:-9]}, [".gz"]),
        ({"train_images_idx3_ubyte": None, "train_images_idx3_ubyte.gz": b"not packed"}, [".gz"]),
        ({"train_images_idx3_ubyte": None, "train_images_idx3_ubyte.gz": b""}, [".gz"]),
    ],
)
def test_bad_idx_files(tmp_path, changes, words):
    source = folder_with(tmp_path / "idx", **changes)
    refused("convert-mnist", source, "-o", tmp_path / "out.h5", words=words)
    assert [path.name for path in tmp_path.iterdir()] == ["idx"]


def test_no_folder(tmp_path):
    refused("convert-mnist", tmp_path / "missing", "-o", tmp_path / "out.h5", words=["missing"])
    (tmp_path / "file").write_text("text")
    refused("convert-mnist", tmp_path / "file", "-o", tmp_path / "out.h5", words=["file"])
    refused(
        "convert-mnist", tmp_path / "file", "--embedded", words=["SOURCE or --embedded, not both"], code=2
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rate", "nan"], ["rate", "nan"]),
        (["--rate", "inf"], ["rate", "inf"]),
        (["--rate", "0"], ["rate"]),
        (["--rate", "-1"], ["rate", "-1"]),
        (["--duration", "0"], ["duration"]),
        (["--duration", "nan"], ["duration"]),
        (["--duration", "1e99"], ["duration"]),
        (["--resolution", "0"], ["resolution"]),
        (["--resolution", "99999999"], ["resolution"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--seed", str(2**64)], ["seed"]),
        (["--validation", "12"], ["validation", "11"]),
    ],
)
def test_bad_settings_of_a_conversion(tmp_path, options, words):
    out = tmp_path / "out.h5"
    refused("convert-mnist", "--embedded", "--limit", 12, "-o", out, *options, words=words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--limit", "0"],
        ["--limit", "-3"],
        ["--validation", "-1"],
        ["--threads", "0"],
        ["--encoder", "morse"],
        ["--duration", "long"],
        ["--nonsense"],
        ["one", "two"],
    ],
)
def test_wrong_usage_of_a_conversion(options):
    refused("convert-mnist", *options, code=2)


# Event files


def change_dataset(name, change):
    """A damage: other values in a data set, with a checksum of their own."""

    def damage(path):
        with h5py.File(path, "r+") as file:
            values = file[name][()]
            change(values)
            file[name][...] = values

    return damage


def set_to(index, value):
    def change(values):
        values[index] = value

    return change


def flip_in(name):
    """A damage: one bit in the stored values of a data set."""

    def damage(path):
        with h5py.File(path, "r") as file:
            place = file[name].id.get_chunk_info(0).byte_offset + 20
        data = bytearray(path.read_bytes())
        data[place] ^= 0x10
        path.write_bytes(data)

    return damage


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def somebody_elses(path):
    path.unlink()
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)


def without_test(path):
    with h5py.File(path, "r+") as file:
        del file["test"]


DAMAGES = {
    "empty": (lambda path: path.write_bytes(b""), ["not an HDF5 file"]),
    "text": (lambda path: path.write_text("a,b,c\n" * 99), ["not an HDF5 file"]),
    "truncated": (cut, ["truncated"]),
    "flipped": (flip_in("train/times"), ["split train", "checksum", "'times'"]),
    "foreign": (somebody_elses, ["no event file"]),
    "unsorted": (change_dataset("train/times", set_to(3, 50_000)), ["split train", "sample 0"]),
    "late": (change_dataset("train/times", set_to(-1, 60_000)), ["split train", "sample 47"]),
    "unit": (change_dataset("train/units", set_to(0, 784)), ["split train", "sample 0", "784"]),
    "offsets": (change_dataset("train/offsets", set_to(2, 0)), ["split train", "sample 1"]),
    "first offset": (change_dataset("train/offsets", set_to(0, 1)), ["split train", "offsets"]),
    "label": (change_dataset("train/labels", set_to(5, 10)), ["split train", "sample 5", "10"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_event_files(small_events, small_run, tmp_path, damage):
    spoil, words = DAMAGES[damage]
    path = tmp_path / "events.h5"
    shutil.copy(small_events, path)
    spoil(path)
    refused("info", path, words=[path, *words])
    refused("train", path, "--arch", "784-8-10", "--out", tmp_path / "run", words=[path, *words])
    refused("evaluate", small_run, path, "--split", "train", words=[path, *words])
    assert [item.name for item in tmp_path.iterdir()] == ["events.h5"]


def test_files_that_are_not_there(tmp_path, small_run):
    missing = tmp_path / "missing.h5"
    refused("train", missing, words=[missing])
    refused("info", missing, words=[missing])
    refused("evaluate", missing, words=[missing, "run folder"])
    refused("evaluate", small_run, missing, words=[missing])
    refused("evaluate", tmp_path, words=[tmp_path / "model.h5"])
    refused("info", tmp_path, words=[tmp_path, "not a run folder"])
    refused("train", tmp_path, words=[tmp_path])
    assert not any(tmp_path.iterdir())


def test_splits_that_are_not_there(small_events, small_run, tmp_path):
    rng = np.random.default_rng(0)
    path = write_events(tmp_path / "test.h5", test=toy_events(rng, 6))
    refused("train", path, words=[path, "no split 'train' with samples"])
    refused("evaluate", small_run, path, "--split", "validation", words=[path, "validation", "test"])
    refused("evaluate", small_run, "--split", "validation", words=["validation", "train, test"])

    toys = toy_events(rng, 6)
    path = write_events(tmp_path / "hollow.h5", train=toys.part(0, 0), test=toys.part(0, 0))
    refused("train", path, words=[path, "no split 'train' with samples"])
    assert evsnn("info", path).code == 0
    path = write_events(tmp_path / "untested.h5", train=toys, test=toys.part(0, 0))
    run = tmp_path / "run"
    done = evsnn("train", path, "--arch", "25-8-3", "--epochs", 1, "--out", run, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["test_accuracy"] is None
    refused("evaluate", run, words=[path, "'test' has no samples"])


def test_samples_without_events_are_legal(tmp_path):
    toys = toy_events(np.random.default_rng(0), 9)
    silent = write_events(
        tmp_path / "silent.h5",
        train=type(toys)(
            times=toys.times[:0],
            units=toys.units[:0],
            offsets=np.zeros(10, np.int64),
            labels=toys.labels,
            shape=toys.shape,
            duration_us=toys.duration_us,
            classes=toys.classes,
        ),
        test=toys,
    )
    done = evsnn("train", silent, "--arch", "25-8-3", "--epochs", 2, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "Warning: the input is nearly empty" in done.err
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run" / "model.h5"))
    shown = evsnn("evaluate", tmp_path / "run", "--split", "train", "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["events_per_sample"] == [0.0, 0.0, 0.0]


# Architectures


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("784-x-10", ["784-x-10", "'x'", "token 2"]),
        ("784-10-10.5", ["'10.5'", "token 3"]),
        ("784--10", ["''", "token 2"]),
        ("784-800-", ["''", "token 3"]),
        ("784", ["'784'", "at least one layer"]),
        ("", ["''", "at least one layer"]),
        ("  ", ["at least one layer"]),
        ("0-10", ["'0'"]),
        ("784-0", ["'0'"]),
        ("784-+5", ["'+5'"]),
        ("784-20C5-10", ["'20C5'", "token 2", "does not fit its input of 1x784x1"]),
        ("28x28-20C5p5-P2-10", ["'20C5p5'", "token 2", "padding"]),
        ("28x28-P29-10", ["'P29'", "28x28x1"]),
        ("28x28-20C5-P2", ["'P2'", "number of classes"]),
        ("28x28x-10", ["'28x28x'"]),
        ("28x28x1x1-10", ["'28x28x1x1'"]),
        ("784-99999999999-10", ["'99999999999'"]),
        ("9999x9999x9999-10", ["'9999x9999x9999'"]),
        ("784-../../10", ["'../../10'"]),
        ("784-१०", ["'१०'"]),
        ("20x20-16-10", ["20x20-16-10", "400 inputs", "784 (28x28x1)"]),
        ("28x14x2-16-10", ["784 inputs (28x14x2)", "784 (28x28x1)"]),
        ("784-16-9", ["9 outputs", "10 classes"]),
    ],
)
def test_bad_architectures(tmp_path, monkeypatch, arch, words):
    monkeypatch.chdir(tmp_path)
    refused("train", "--limit", 12, f"--arch={arch}", words=words)
    assert not any(tmp_path.iterdir())


def test_an_architecture_that_does_not_fit_a_file(small_run, tmp_path):
    toys = toy_events(np.random.default_rng(0), 6)
    path = write_events(tmp_path / "toys.h5", train=toys, test=toys)
    refused("train", path, "--arch", "784-8-3", words=["784 inputs", "toys.h5", "25 (5x5x1)"])
    refused("evaluate", small_run, path, words=["784 inputs", "25 (5x5x1)"])


# Settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lr", "nan"], ["lr", "nan"]),
        (["--lr", "inf"], ["lr"]),
        (["--lr", "-1"], ["lr", "-1"]),
        (["--lr", "0"], ["lr"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["--epochs", str(10**30)], ["epochs"]),
        (["--batch-size", "0"], ["batch_size", "0"]),
        (["--alpha", "1,2,3,4,5"], ["alpha", "5 values for 2 layers"]),
        (["--alpha", "0"], ["alpha"]),
        (["--alpha", "inf"], ["alpha"]),
        (["--clamp", "nan"], ["clamp", "nan"]),
        (["--clamp", "-1"], ["clamp", "-1"]),
        (["--kappa", "0.5"], ["kappa", "0.5"]),
        (["--kappa", "-0.2,-2"], ["kappa", "-2"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--seed", str(2**63)], ["seed"]),
        (["--rate", "nan"], ["rate", "nan"]),
        (["--validation", "10000000"], ["--validation", "10000000", "12"]),
        (["--validation", "12"], ["--validation", "12"]),
        (["--validation", "-5"], ["validation", "-5"]),
        (["--config", "missing.toml"], ["missing.toml"]),
        (["--resume", "missing"], ["missing", "checkpoint.h5"]),
        (["--set", "learning.colour=1"], ["'colour'", "[learning]"]),
        (["--set", "foo.bar=1"], ["'foo'"]),
        (["--set", "learning.lr=fast"], ["lr", "'fast'"]),
        (["--set", "learning.lr="], ["lr", "''"]),
        (["--set", "learning.lr=true"], ["lr", "True"]),
        (["--set", "learning.lr=[1, 2]"], ["lr"]),
        (["--set", f"learning.lr=1{'0' * 400}"], ["[learning]", "too large"]),
        (["--set", f"network.clamp=1{'0' * 400}"], ["[network]", "too large"]),
        (["--set", f"encoder.rate=1{'0' * 400}"], ["[encoder]", "too large"]),
        (["--set", "learning.batch_size=1.5"], ["batch_size", "1.5"]),
        (["--set", "learning.normalise=1"], ["normalise"]),
        (["--set", "learning.loss=hinge"], ["loss", "'hinge'"]),
        (["--set", "learning.weight_decay=5e3"], ["weight_decay"]),
        (["--set", "network.clamp=deep"], ["clamp", "'deep'"]),
        (["--set", "network.clamp=[1, true]"], ["clamp", "True"]),
        (["--set", "network.clamp=[]"], ["clamp", "0 values"]),
        (["--set", "network.sigma=1", "--kappa", "-1"], ["sigma", "singular"]),
        (["--set", "network.tau_ms=0"], ["tau_ms"]),
        (["--set", "network.tau_ms=nan"], ["tau_ms"]),
        (["--set", "encoder.kind=morse"], ["encoder", "'morse'"]),
        (["--set", "augment.shift=-1"], ["shift", "-1"]),
        (["--set", "augment.shift=far"], ["[augment]", "shift", "'far'"]),
        (["--set", "augment.shift=true"], ["[augment]", "shift", "True"]),
        (["--set", "augment_events.shift=-1"], ["shift", "-1"]),
        (["--set", "augment_events.rotation=91"], ["rotation", "90", "91"]),
        (["--set", "augment_events.jitter_us=0.5"], ["[augment_events]", "jitter_us", "0.5"]),
        (["--set", "augment_events.always=1"], ["[augment_events]", "always", "true or false"]),
        (["--set", "augment_events.mirror=1"], ["'mirror'", "[augment_events]"]),
        (["--set", "data.augment=1"], ["augment", "true or false"]),
        (["--set", "data.path=5"], ["path", "5"]),
        (["--set", "data.fresh=often"], ["fresh", "true or false", "'often'"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_settings(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    first = () if "--resume" in options else TINY
    refused("train", *first, *options, words=words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--alpha", "abc"], ["--alpha", "'abc'"]),
        (["--alpha", ""], ["--alpha", "''"]),
        (["--clamp", "1,,2"], ["--clamp", "'1,,2'"]),
        (["--set", "nonsense"], ["--set", "'nonsense'", "SECTION.NAME=VALUE"]),
        (["--set", "arch=784-10"], ["--set", "SECTION.NAME=VALUE"]),
        (["--set", ".lr=1"], ["--set", "SECTION.NAME=VALUE"]),
        (["--set", "seed.x=1", "--seed", "3"], ["--set", "'seed'"]),
        (["--limit", "0"], ["--limit"]),
        (["--limit", "-1"], ["--limit"]),
        (["--threads", "0"], ["--threads"]),
        (["--preset", "best"], ["--preset", "'best'"]),
        (["--optimizer", "magic"], ["--optimizer"]),
        (["--lr", "fast"], ["--lr", "'fast'"]),
        (["--colour", "red"], ["--colour"]),
        (["a.h5", "b.h5"], ["b.h5"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_wrong_usage_of_training(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    refused("train", *options, words=words, code=2)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["fly"], ["evaluate"], ["info"], ["evaluate", "m", "--split", "all"]])
def test_wrong_usage_of_other_commands(arguments):
    refused(*arguments, code=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"epochs = ", ["TOML"]),
        (b"\xff\xfe\x00", ["TOML"]),
        (b"\x00" * 100, ["TOML"]),
        (b"[lerning]\nlr = 1.0\n", ["'lerning'"]),
        (b"speed = 9\n", ["'speed'"]),
        (b"[learning]\nspeed = 9\n", ["'speed'", "[learning]"]),
        (b"[learning]\nlr = '0.1'\n", ["lr", "'0.1'"]),
        (b"epochs = true\n", ["epochs", "True"]),
        (b"epochs = 1.0\n", ["epochs", "1.0"]),
        (b"seed = '1'\n", ["seed", "'1'"]),
        (b"arch = 784\n", ["arch", "784"]),
        (b"arch = '784-x'\n", ["'x'"]),
        (b"learning = 3\n", ["[learning]", "3"]),
        (b"[[learning]]\nlr = 0.1\n", ["[learning]"]),
        (b"[epochs]\nn = 3\n", ["epochs"]),
        (b"[data]\nlimit = -1\n", ["limit", "-1"]),
        (b"[learning]\nlr = 2020-01-01\n", ["lr"]),
    ],
)
def test_bad_configurations(tmp_path, text, words):
    path = tmp_path / "some.toml"
    path.write_bytes(text)
    refused("train", "--limit", 12, "--config", path, "--out", tmp_path / "run", words=[path, *words])
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_is_a_folder(tmp_path):
    refused("train", *TINY, "--config", tmp_path, words=[tmp_path])


# Places that cannot be written


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("text")
    below = tmp_path / "file" / "deep" / "down"
    refused("train", *TINY, "--out", below, words=["cannot make the folder", tmp_path / "file"])
    refused("train", *TINY, "--out", tmp_path / "file", words=[tmp_path / "file", "is a file"])
    refused("train", *TINY, "--out", tmp_path / "file", "--force", words=["is a file"])
    refused("train", "--resume", tmp_path / "file", words=[tmp_path / "file"])
    refused("convert-mnist", "--embedded", "-o", below, words=["cannot write", below])
    refused("convert-mnist", "--embedded", "--force", "-o", tmp_path, words=[tmp_path, "folder"])
    assert (tmp_path / "file").read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


needs_limits = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits on file sizes")


def with_full_disk(size):
    return f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


@needs_limits
@pytest.mark.parametrize("name", ["config.toml", "checkpoint.h5"])
def test_full_disk_while_training(tmp_path, small_run, name):
    # The fixture has compiled all kernels, which therefore are not written here.
    size = (small_run / name).stat().st_size * 3 // 4
    line = refused(
        *("train", "--config", small_run / "config.toml", "--out", tmp_path / "run"),
        words=["cannot write", tmp_path / "run" / name],
        run=evsnn_process,
        before=with_full_disk(size),
    )
    assert "large" in line
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    assert not (tmp_path / "run" / name).exists()


@needs_limits
def test_full_disk_while_converting(tmp_path):
    out = tmp_path / "out.h5"
    refused(
        *("convert-mnist", "--embedded", "--limit", 40, "-o", out),
        words=["cannot write", out],
        run=evsnn_process,
        before=with_full_disk(5000),
    )
    assert not any(tmp_path.iterdir())


# Models and run folders


@pytest.fixture
def run(small_run, tmp_path):
    """A run folder to spoil."""
    return shutil.copytree(small_run, tmp_path / "run")


def change_model(name, value):
    def damage(path):
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            if name in file.attrs:
                file.attrs[name] = value
            elif value is None:
                del file[name]
            else:
                kept = file[name][()]
                del file[name]
                values = value(kept)
                file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)

    return damage


def with_nan(array):
    array.flat[7] = np.nan
    return array


MODEL_DAMAGES = {
    "empty": (lambda path: path.write_bytes(b""), []),
    "text": (lambda path: path.write_text("weights"), []),
    "truncated": (cut, ["truncated"]),
    "flipped": (flip_in("layer0/weight"), ["layer0", "checksum", "'weight'"]),
    "foreign": (somebody_elses, ["not an evsnn model"]),
    "missing": (change_model("layer0/weight", None), ["layer0", "'weight' is missing"]),
    "missing layer": (change_model("layer1", None), ["layer1/"]),
    "shape": (change_model("layer1/weight", lambda array: array[:, :-1]), ["layer1/weight", "(16, 10)"]),
    "type": (change_model("layer1/weight", lambda array: array.astype(np.float64)), ["float64"]),
    "nan": (change_model("layer0/weight", with_nan), ["layer0/weight", "not finite"]),
    "threshold": (change_model("layer0/threshold", lambda array: -array), ["layer 1", "not positive"]),
    "version": (change_model("version", 2), ["version 2", "version 1"]),
    "version text": (change_model("version", "one"), []),
    "architecture": (change_model("architecture", "784-x-10"), ["784-x-10"]),
    "architecture and weights": (change_model("architecture", "784-17-10"), ["layer0/weight", "(784, 17)"]),
    "settings": (change_model("settings", "{"), []),
    "settings list": (change_model("settings", "[1]"), []),
    "settings value": (change_model("settings", '{"alpha": [1, 2, 3]}'), ["alpha"]),
    "arrays": (change_model("arrays", "5"), []),
    "info": (change_model("info", "[]"), []),
}


@pytest.mark.parametrize("damage", MODEL_DAMAGES)
def test_bad_models(run, damage):
    spoil, words = MODEL_DAMAGES[damage]
    for name in ("model.h5", "checkpoint.h5", "checkpoint-previous.h5"):
        spoil(run / name)
    refused("evaluate", run, words=[run / "model.h5", *words])
    refused("evaluate", run / "checkpoint.h5", words=[run / "checkpoint.h5", *words])
    refused("train", "--resume", run, words=[run / "checkpoint.h5", *words])
    if damage != "foreign":  # which `info` takes for a bad event file
        refused("info", run, words=[run / "model.h5", *words])


def test_an_event_file_is_no_model_and_a_model_no_event_file(run, small_events):
    refused("evaluate", small_events, words=[small_events, "not an evsnn model"])
    refused("train", run / "model.h5", *TINY, words=[run / "model.h5", "evsnn-model"])


def test_a_checkpoint_without_the_state_of_the_optimiser(run):
    (run / "checkpoint-previous.h5").unlink()
    change_model("layer0/weight_moment1", None)(run / "checkpoint.h5")
    refused("train", "--resume", run, words=[run / "checkpoint.h5", "layer0", "'weight_moment1' is missing"])


def test_a_model_is_no_checkpoint(run):
    (run / "checkpoint-previous.h5").unlink()
    shutil.copy(run / "model.h5", run / "checkpoint.h5")
    refused("train", "--resume", run, words=[run, "checkpoint.h5"])


def test_a_run_folder_that_lacks_a_file(run, tmp_path):
    (run / "config.toml").rename(tmp_path / "config.toml")
    refused("train", "--resume", run, words=[run / "config.toml"])
    refused("info", run, words=[run, "config.toml"])
    (tmp_path / "config.toml").rename(run / "config.toml")
    (run / "checkpoint.h5").unlink()
    (run / "checkpoint-previous.h5").unlink()
    refused("train", "--resume", run, words=[run, "checkpoint.h5"])
    (run / "model.h5").unlink()
    refused("evaluate", run, words=[run / "model.h5"])


def test_a_configuration_that_was_edited(run):
    config = run / "config.toml"
    config.write_text(config.read_text().replace("epochs = 2", "epochs = 3"))
    refused("train", "--resume", run, words=[config, "checkpoint.h5"])
    config.write_text("epochs = ")
    refused("train", "--resume", run, words=[config, "TOML"])
    refused("info", run, words=[config, "TOML"])
    refused("evaluate", run, words=[config, "TOML"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["ends before epoch 2"]),
        ("{first}\n", ["ends before epoch 2"]),
        ("{first}\nnonsense\n", ["line 2"]),
        ("nonsense\n{second}\n", ["line 1"]),
        ("[1]\n{second}\n", ["line 1"]),
        ('{{"epoch": 1}}\n{second}\n', ["line 1"]),
        ("\n{first}\n{second}\n", ["line 1"]),
        ("\udcff\n", ["line 1"]),
    ],
)
def test_bad_metrics(run, text, words):
    path = run / "metrics.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(text.format(first=first, second=second), encoding="utf-8", errors="surrogateescape")
    refused("info", run, words=[path, *words])
    # The remedy that the message names: the metrics are in the checkpoint, too.
    assert evsnn("train", "--resume", run).code == 0
    assert path.read_text() == f"{first}\n{second}\n"
    assert evsnn("info", run).code == 0


def test_a_bad_result(run):
    (run / "result.json").write_text("{")
    refused("info", run, words=[run / "result.json", "JSON"])


def test_training_that_diverges_says_so(tmp_path):
    options = ("--set", "learning.norm_strength=100", "--set", "learning.norm_steepness=100", "--lr", "10")
    line = refused(
        *("train", *SMALL, "--epochs", 3, "--optimizer", "sgd", "--out", tmp_path / "run", *options),
        *("--set", "learning.weight_decay=0", "--set", "learning.momentum=0.9"),
    )
    assert "not finite" in line
    assert os.path.exists(tmp_path / "run" / "config.toml")
