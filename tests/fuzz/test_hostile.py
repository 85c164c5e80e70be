"""Files made to harm: bombs, links that lead out, claims of terabytes, text that steers a terminal."""

import ast
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from support import evsnn

from evsnn import checkpoint
from evsnn.datasets.idx import read_images
from evsnn.encoders.settings import encoder_settings
from evsnn.errors import DataError, EvsnnError, SettingsError
from evsnn.events import EventWriter, open_events
from evsnn.hdf5 import fletcher32
from evsnn.network.architecture import parse_architecture
from evsnn.training.config import RunConfig
from evsnn.training.run import read_metrics, read_result

from . import seeds
from .images import blocks, lookup3

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def events(tmp_path):
    """An event file to be forged."""
    path = tmp_path / "events.h5"
    path.write_bytes(seeds.event_files()[0])
    return path


@pytest.fixture
def model(tmp_path):
    """A model to be forged."""
    path = tmp_path / "model.h5"
    path.write_bytes(seeds.models()[1])
    return path


def forge(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def verify(path):
    with open_events(path) as file:
        file.verify()


def refused(path, read=verify):
    """Read a file that must be refused with one line; return the line."""
    with pytest.raises(EvsnnError) as caught:
        read(path)
    text = str(caught.value)
    assert text.isprintable()
    assert str(path) in text
    return text


def put_chunk(raw, *, mask=0, checksum=True):
    """Replace the times of the seed by one chunk of these bytes, as they lie on the disk."""

    def change(file):
        del file["train/times"]
        data = file["train"].create_dataset(
            "times",
            (6,),
            np.uint32,
            maxshape=(None,),
            chunks=(6,),
            shuffle=True,
            compression="gzip",
            fletcher32=True,
        )
        ending = struct.pack("<I", fletcher32(raw)) if checksum else b""
        data.id.write_direct_chunk((0,), raw + ending, filter_mask=mask)

    return change


# --- chunks of HDF5


@given(arrays_of.arrays(np.uint8, st.integers(0, 300)))
def test_the_checksum_is_that_of_hdf5(values):
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("x", data=np.append(values, 1), chunks=(len(values) + 1,), fletcher32=True)
        raw = data.id.read_direct_chunk((0,))[1]
    assert raw[-4:] == struct.pack("<I", fletcher32(raw[:-4]))


@pytest.mark.parametrize("byte", [0, 255])
def test_the_checksum_of_many_equal_bytes(byte):
    content = np.full(3_000_001, byte, np.uint8)
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("x", data=content, chunks=content.shape, fletcher32=True)
        raw = data.id.read_direct_chunk((0,))[1]
    assert raw[-4:] == struct.pack("<I", fletcher32(raw[:-4]))


def test_a_chunk_that_is_right_is_read(events):
    values = np.array([5, 9, 0, 0, 7, 8], np.uint32)
    shuffled = values.view(np.uint8).reshape(-1, 4).T.tobytes()
    with open_events(forge(events, put_chunk(zlib.compress(shuffled)))) as file:
        assert file["train"].load().times.tolist() == values.tolist()


def test_a_small_bomb_in_a_chunk(events):
    forge(events, put_chunk(zlib.compress(bytes(20_000), 9)))
    assert "'times' has a chunk that does not unpack to its 24 bytes" in refused(events)


@pytest.mark.parametrize("megabytes", [1, 100])
def test_a_bomb_in_a_chunk_takes_no_memory(events, megabytes):
    forge(events, put_chunk(zlib.compress(bytes(megabytes << 20), 9)))
    tracemalloc.start()
    text = refused(events)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "'times' lacks a chunk (or one takes more than its values can)" in text
    assert peak < 3 << 20


@pytest.mark.parametrize("size", [0, 1, 23, 25])
def test_a_chunk_of_another_size_shows_nothing_of_the_memory(events, size):
    assert "does not unpack to its 24 bytes" in refused(forge(events, put_chunk(zlib.compress(bytes(size)))))


@pytest.mark.parametrize(
    "raw", [b"", b"\x78", zlib.compress(bytes(24))[:-1], zlib.compress(bytes(24))[:-4] + b"abcd"]
)
def test_a_chunk_that_ends_early_or_wrong(events, raw):
    assert "'times'" in refused(forge(events, put_chunk(raw)))


@pytest.mark.parametrize("mask", [1, 2, 4, 7])
def test_a_chunk_that_leaves_out_a_filter(events, mask):
    change = put_chunk(bytes(24), mask=mask, checksum=not mask & 4)
    assert "'times' has a chunk without checksum" in refused(forge(events, change))


def test_a_chunk_too_short_for_a_checksum(events):
    text = refused(forge(events, put_chunk(b"abc", checksum=False)))
    assert "checksum of data set 'times' failed" in text


def unusual(*filters):
    def change(file):
        del file["train/times"]
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((6,))
        for code, values in filters:
            creation.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
        space = h5py.h5s.create_simple((6,))
        h5py.h5d.create(file["train"].id, b"times", h5py.h5t.NATIVE_UINT32, space, creation)

    return change


@pytest.mark.parametrize(
    "filters",
    [
        [(3, ()), (1, (1,))],  # the checksum first
        [(1, (1,)), (2, (4,)), (3, ())],
        [(3, ()), (3, ())],
        [(1, (1,)), (1, (1,)), (3, ())],
        [(32001, ()), (3, ())],  # a filter from a plugin, which would be loaded
        [(6, (0, 1)), (3, ())],
    ],
)
def test_filters_that_are_not_ours_are_never_called(events, filters):
    assert "packed in a way that evsnn does not read" in refused(forge(events, unusual(*filters)))


def test_values_shuffled_by_another_size(events):
    # HDF5 itself would not write it: the filter's size, at the end of its entry in the list of filters.
    image = bytearray(events.read_bytes())
    entry = struct.pack("<HHHI", h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FLAG_OPTIONAL, 1, 4)
    places = blocks(bytes(image))
    image[:] = image.replace(entry, entry[:-4] + struct.pack("<I", 2))
    for start, end in places:
        image[end : end + 4] = struct.pack("<I", lookup3(bytes(image[start:end])))
    events.write_bytes(image)
    assert "is not shuffled by the size of its values" in refused(events)


def test_chunks_that_cut_every_axis_are_read(tmp_path):
    path = tmp_path / "images.h5"
    images = np.arange(5 * 7 * 9, dtype=np.uint8).reshape(5, 7, 9)
    with EventWriter(path, shape=(1, 7, 9), duration_us=10, classes=2) as writer:
        writer.begin_split("train", with_images=True)
        writer.append([], [], [0] * 5, [0] * 5, images)

    def change(file):
        del file["train/images"]
        file["train"].create_dataset(
            "images", data=images, chunks=(2, 3, 4), compression="gzip", fletcher32=True
        )

    with open_events(forge(path, change)) as file:
        file.verify()
        for low in range(6):
            for high in range(low, 6):
                np.testing.assert_array_equal(file["train"].load(low, high).images, images[low:high])


# --- indices of chunks


@pytest.mark.parametrize("shape", [(1 << 40, 0), (1 << 32, 1 << 32)])
def test_shapes_whose_count_runs_over(model, shape):
    def change(file):
        del file["layer0/weight"]
        options = {"maxshape": (None, None), "chunks": (1 << 10, 1 << 10), "fletcher32": True}
        file["layer0"].create_dataset("weight", shape, "f4", **options)

    tracemalloc.start()
    assert "layer0" in refused(forge(model, change), checkpoint.load)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


def lie(path, signature, offset, value):
    """Change the headers of chunk indices, and make their checksums right again."""
    image = bytearray(path.read_bytes())
    headers = [place for place in blocks(bytes(image)) if image[place[0] : place[0] + 4] == signature]
    assert headers
    for start, end in headers:
        image[start + offset : start + offset + len(value)] = value
        image[end : end + 4] = struct.pack("<I", lookup3(bytes(image[start:end])))
    path.write_bytes(image)


@pytest.mark.parametrize("offset", [7, 8, 9, 10, 11])
@pytest.mark.parametrize("value", [b"\0", b"\xff"])
def test_an_extensible_array_of_unheard_of_size(events, offset, value):
    """HDF5 reserves and fills up to 137 GB for the first of them."""
    lie(events, b"EAHD", offset, value)
    assert "has an impossible header" in refused(events)


def test_a_layout_without_dimensions(events):
    """HDF5 divides by zero."""
    image = bytearray(events.read_bytes())
    places = blocks(bytes(image))
    layout, forged = b"\x04\x02\x00\x02\x01\x04", b"\x04\x02\x00\x00\x04\x04"
    assert layout in image
    image[:] = image.replace(layout, forged)
    for start, end in places:
        image[end : end + 4] = struct.pack("<I", lookup3(bytes(image[start:end])))
    events.write_bytes(image)
    assert "has an impossible header" in is_refused_at_once(events)


def test_the_entries_of_an_index_are_not_counted(events):
    """HDF5 would, to 2^64: this test would never end."""
    lie(events, b"EAHD", 44, struct.pack("<Q", 1 << 60))  # the highest entry in use
    lie(events, b"EAIB", 14, b"\xff" * 8)  # where the first chunk lies: nowhere
    assert "lacks a chunk" in refused(events)


@pytest.mark.parametrize(("offset", "value"), [(7, b"\0"), (7, b"\x40"), (8, struct.pack("<Q", 1 << 40))])
def test_a_fixed_array_of_unheard_of_size(events, offset, value):
    with h5py.File(events, "r+", libver=("v110", "v110")) as file:
        values = file["train/times"][:]
        del file["train/times"]
        file["train"].create_dataset("times", data=values, chunks=(4,), compression="gzip", fletcher32=True)
    verify(events)
    lie(events, b"FAHD", offset, value)
    assert "has an impossible header" in refused(events)


# --- places outside the file


def is_refused_at_once(path, command="info", *options):
    """Run a command on a file in a process that would wait for ever for a named pipe; return its line."""
    done = subprocess.run(
        [sys.executable, "-m", "evsnn", command, str(path), *options],
        capture_output=True, text=True, timeout=100, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_sources_of_a_virtual_data_set_are_not_even_opened(events, tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")

    def change(file):
        del file["train/times"]
        layout = h5py.VirtualLayout(shape=(6,), maxshape=(None,), dtype=np.uint32)
        source = h5py.VirtualSource(str(tmp_path / "pipe.h5"), "x", shape=(6,), maxshape=(None,))
        layout[0 : h5py.h5s.UNLIMITED] = source[0 : h5py.h5s.UNLIMITED]
        file["train"].create_virtual_dataset("times", layout)

    assert "keeps its values outside the file" in is_refused_at_once(forge(events, change))


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (read_images, checkpoint.load, open_events, RunConfig.from_toml, read_result):
        assert "not a file" in refused(tmp_path / "pipe", read)
    assert checkpoint.is_model(tmp_path / "pipe") is False
    with pytest.raises(DataError, match="not a file"):
        read_metrics(tmp_path / "pipe", 1)


@pytest.mark.parametrize(
    "link",
    [h5py.SoftLink("/layer0"), h5py.SoftLink("/nowhere"), h5py.ExternalLink("other.h5", "/layer0")],
    ids=["soft", "dangling", "external"],
)
@pytest.mark.parametrize("name", ["link", "deep/link"])
def test_a_model_does_not_follow_links_on_the_way(model, link, name):
    (model.parent / "other.h5").write_bytes(model.read_bytes())

    def change(file):
        file[name] = link
        file.attrs["arrays"] = json.dumps([*json.loads(file.attrs["arrays"]), f"{name}/weight"])

    assert "'link' is a link to another place" in refused(forge(model, change), checkpoint.load)


def names(*some):
    return lambda file: file.attrs.__setitem__("arrays", json.dumps(some))


@pytest.mark.parametrize(
    ("some", "words"),
    [
        (["../layer0/weight"], "must hold names such as"),
        (["/layer0/weight"], "must hold names such as"),
        (["./layer0/weight"], "must hold names such as"),
        (["layer0//weight"], "must hold names such as"),
        ([3], "must hold names such as"),
        (["layer0/weight"] * 1000, "names an array twice"),
        (["layer9/weight"], "layer9/weight is missing"),
        (["layer0/weight/x"], "layer0/weight/x is missing"),
        (["layer0"], "'layer0' must be a data set"),
    ],
)
def test_names_of_arrays(model, some, words):
    assert words in refused(forge(model, names(*some)), checkpoint.load)


def test_one_array_under_many_names_is_no_more_than_the_file(model):
    def change(file):
        weight = np.zeros((128, 128), np.float32)
        file.create_dataset("copy0/weight", data=weight, chunks=weight.shape, fletcher32=True)
        for i in range(1, 50):
            file[f"copy{i}/weight"] = file["copy0/weight"]
        copies = [f"copy{i}/weight" for i in range(50)]
        file.attrs["arrays"] = json.dumps([*json.loads(file.attrs["arrays"]), *copies])

    assert "claim more values than the file can hold" in refused(forge(model, change), checkpoint.load)


def test_packed_models_are_no_bombs(model):
    def change(file):
        del file["layer0/weight"]
        file.create_dataset(
            "layer0/weight", data=np.zeros((1 << 10, 1 << 10), np.float32), chunks=(1 << 10, 1 << 10),
            compression="gzip", fletcher32=True,
        )  # fmt: skip

    assert "claim more values than the file can hold" in refused(forge(model, change), checkpoint.load)


def test_weights_too_large_for_their_thresholds(model):
    def change(file):
        file["layer0/threshold"][:] = 1e-44

    assert "layer 1 has weights too large for its thresholds" in refused(
        forge(model, change), checkpoint.load
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 3), ("version", [1, 1]), ("version", "1"), ("version", 1.0), ("seed", -1), ("seed", 0.5),
        ("settings", "[]"), ("settings", '{"tau": 1}'), ("settings", '{"tau_ms": "x"}'),
        ("settings", "[" * 100_000),
        ("settings", '{"tau_ms": 1' + "0" * 400 + "}"), ("architecture", 5), ("architecture", "9-" * 10**4),
        ("arrays", "{}"), ("arrays", "["), ("info", "[]"), ("info", "{"), ("info", h5py.Empty("f4")),
        ("arrays", np.void(b"opaque")), ("version", np.array([(1, 2)], "i4,f4")),
    ],
)  # fmt: skip
def test_attributes_of_a_model(model, name, value):
    def change(file):
        del file.attrs[name]
        file.attrs[name] = value

    refused(forge(model, change), checkpoint.load)


@pytest.mark.parametrize(
    "value",
    [
        {"duration_ms": 10**400}, {"rate": [1]}, {"rate": None}, {"kind": []},
        {"kind": "saccade", "duration_ms": "x"}, {"kind": "saccade", "camera": 10**300},
        {"kind": "saccade", "lag_ms": 1e9}, {"resolution_us": 10**4000},
        {"kind": "saccade", "duration_ms": float("nan")},
    ],
)  # fmt: skip
def test_encoders_that_a_file_may_name(value):
    with pytest.raises(SettingsError):
        encoder_settings(value)


# --- text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 20_000, "not valid TOML"),
        ("a." * 20_000 + "a = 1", None),
        ("epochs = " + "9" * 5000, "not valid TOML"),
        ("epochs = 0x" + "f" * 5000, "does not fit 64 bits"),
        ("network = {tau_ms = 0x" + "f" * 5000 + "}", "does not fit 64 bits"),
        ("[a.b.c.d.e.f.g.h.i]", "too deep"),
        ("# " + "x" * (1 << 19), "larger than the 256 KiB"),
        ('arch = "1-1C1p' + "9" * 5000 + '-1"', "padding must be smaller"),
        ('arch = "' + "1-" * 100_000 + '1"', "at most 20000 and 1000 are read"),
        ('"\\u001b[31m" = 1', "unknown setting"),
        ("\ufeffepochs = 1", "not valid TOML"),
    ],
)
def test_configurations(tmp_path, text, words):
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    line = refused(path, RunConfig.from_toml)
    assert words is None or words in line


def test_many_layers_take_no_square_of_time():
    assert len(parse_architecture("1" + "-1" * 1000).layers) == 1000
    for text in ("1" + "-1" * 1001, "1" * 20_001, "-" * 10**6):
        with pytest.raises(SettingsError, match="at most 20000 and 1000 are read"):
            parse_architecture(text)


GOOD = {
    "epoch": 1, "loss": 0.5, "train_accuracy": 0.9, "validation_accuracy": None, "seconds": 1.0,
    "events_per_sample": [10.0, 3.0],
}  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        GOOD | {"loss": "low"}, GOOD | {"loss": float("nan")}, GOOD | {"loss": float("inf")},
        GOOD | {"loss": True}, GOOD | {"seconds": None}, GOOD | {"validation_accuracy": [1]},
        GOOD | {"events_per_sample": 3},
        GOOD | {"events_per_sample": [1]}, GOOD | {"events_per_sample": ["a", "b"]}, GOOD | {"epoch": "1"},
        GOOD | {"epoch": 0}, GOOD | {"epoch": 1.5}, GOOD | {"loss": 10**400}, [], 3, None,
    ],
)  # fmt: skip
def test_metrics(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(line))
    assert "line 1: not the metrics of an epoch" in refused(path, lambda path: read_metrics(path, 1))


@pytest.mark.parametrize(
    "lines",
    [
        [GOOD, GOOD],
        [GOOD | {"epoch": 3}, GOOD | {"epoch": 2}],
        [GOOD, GOOD | {"epoch": 2, "events_per_sample": [1, 2, 3]}],
    ],
)  # fmt: skip
def test_lines_that_do_not_follow_each_other(tmp_path, lines):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "line 2: not the metrics" in refused(path, lambda path: read_metrics(path, 2))


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", "\xff", "9" * 5000])
def test_results_and_deep_metrics(tmp_path, text):
    path = tmp_path / "some.json"
    path.write_text(text, encoding="latin-1")
    refused(path, read_result)
    refused(path, lambda path: read_metrics(path, 1))


def test_messages_do_not_steer_the_terminal(tmp_path):
    name = "evil\x1b[2J\n\u202e.h5"
    (tmp_path / name).write_bytes(b"no HDF5")
    done = evsnn("info", tmp_path / name)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert done.err.rstrip("\n").isprintable()
    assert len(str(DataError("x" * 10**6))) < 1100


def test_text_of_a_file_does_not_steer_the_terminal(tmp_path):
    path = tmp_path / "events.h5"
    with EventWriter(
        path,
        shape=(1, 1, 1),
        duration_us=1,
        classes=1,
        source={"\x1b[2Ja": "\x1b[31m"},
        encoder={"kind": "\x07\n"},
    ) as writer:
        writer.begin_split("train")
    done = evsnn("info", path)
    assert done.code == 0
    assert all(line.isprintable() for line in done.out.split("\n"))


# --- nothing is executed

FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def sources():
    return [path for folder in ("evsnn", "cli", "kernels") for path in (ROOT / folder).rglob("*.py")]


def test_nothing_is_unpickled_or_executed():
    assert len(sources()) > 80
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = {alias.name.partition(".")[0] for alias in node.names} | {
                    (getattr(node, "module", None) or "").partition(".")[0]
                }
                assert not modules & FORBIDDEN_MODULES, path
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in FORBIDDEN_CALLS, path
                assert not called.endswith((".load_module", ".fromfile", "np.load", "numpy.load")), path
            elif isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
