"""Event files: written, read back, damaged, forged, and written to a full disk."""

import gc
import os
import re
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evsnn import hdf5 as hdf5_module
from evsnn.errors import DataError, EvsnnError, SettingsError
from evsnn.events import EventFile, EventSplit, EventWriter, open_events
from evsnn.events import file as file_module
from evsnn.events import writer as writer_module

SHAPE = (1, 2, 3)
SETTINGS = {"shape": SHAPE, "duration_us": 1000, "classes": 4}
TRAIN = {"times": [5, 9, 0, 0, 7], "units": [0, 5, 1, 2, 3], "counts": [2, 0, 3], "labels": [1, 0, 3]}
TEST = {"times": [1000], "units": [4], "counts": [1], "labels": [2]}
IMAGES = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)

once_a_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path, *, images=True, **changes):
    with EventWriter(path, **{**SETTINGS, **changes}) as writer:
        writer.begin_split("train", with_images=images)
        writer.append(**TRAIN, images=IMAGES if images else None)
        writer.begin_split("test")
        writer.append(**TEST)
    return path


def steps(path, act, **changes):
    """Write a file by calling ``act(writer)``."""
    with EventWriter(path, **{**SETTINGS, **changes}) as writer:
        act(writer)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("events") / "good.h5"
    return write(path, source={"a.gz": "00ff"}, encoder={"rate": 0.5, "kind": "poisson"}, seed=2**64 - 1)


def forge(path, good, change):
    """Copy a good file and let ``change`` alter it with h5py."""
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace(file, name, values, **options):
    """Put other values under a name of a file, stored as the format wants it unless told otherwise."""
    if name in file:
        del file[name]
    values = np.asarray(values)
    stored = {"chunks": tuple(max(n, 1) for n in values.shape), "fletcher32": True, "compression": "gzip"}
    return file.create_dataset(name, data=values, **{**stored, **options})


def one_line(error, path):
    text = str(error.value if hasattr(error, "value") else error)
    assert "\n" not in text
    assert path.name in text
    return text


def refused(path):
    """Open and verify a file that must be refused; return the message."""
    with pytest.raises(DataError) as caught, open_events(path) as file:
        file.verify()
    return one_line(caught, path)


# --- reading what was written


def test_round_trip(good):
    with open_events(good) as file:
        assert isinstance(file, EventFile)
        assert file.path == good
        assert file.splits == file.keys() == ("train", "test")
        assert list(file) == ["train", "test"]
        assert len(file) == 2
        assert "train" in file
        assert "validation" not in file
        assert (file.shape, file.duration_us, file.classes) == (SHAPE, 1000, 4)
        assert (file.source, file.seed) == ({"a.gz": "00ff"}, 2**64 - 1)
        assert file.encoder == {"rate": 0.5, "kind": "poisson"}
        assert "train: 3 samples" in repr(file)
        assert "3 samples, 5 events" in repr(file["train"])
        file.verify()

        train = file["train"]
        assert isinstance(train, EventSplit)
        assert (len(train), train.n_events, train.n_inputs) == (3, 5, 6)
        assert (train.shape, train.duration_us, train.classes) == (SHAPE, 1000, 4)
        assert train.encoder == file.encoder
        assert train.labels.tolist() == [1, 0, 3]
        assert train.labels.dtype == np.uint16
        assert not train.labels.flags.writeable
        assert [events.times.tolist() for events in train] == [[5, 9], [], [0, 0, 7]]
        assert train[-1].units.tolist() == [1, 2, 3]
        assert train[np.int64(0)].units.dtype == np.uint32
        assert train.has_images
        assert not file["test"].has_images
        with pytest.raises(IndexError, match="sample 3 of 3"):
            train[3]

        data = train.load()
        assert data.times.nbytes + data.units.nbytes == 8 * 5
        np.testing.assert_array_equal(data.images, IMAGES)
        assert data.encoder == file.encoder
        part = train.load(1, 3)
        assert part.offsets.tolist() == [0, 0, 3]
        np.testing.assert_array_equal(part.images, IMAGES[1:])
        assert len(train.load(3)) == 0
        for start, stop in ((-1, 2), (2, 1), (0, 4)):
            with pytest.raises(
                SettingsError, match=f"samples {start} to {stop} asked for, the split holds 3"
            ):
                train.load(start, stop)
        assert file["test"].load().images is None
    data.check()
    assert data[2].times.tolist() == [0, 0, 7]


def test_the_file_is_what_the_format_says(good):
    with h5py.File(good) as file:
        assert file.attrs["format"] == b"evsnn-events"
        assert file.attrs["version"] == 1
        assert file.attrs["shape"].tolist() == [1, 2, 3]
        dtypes = {"times": "u4", "units": "u4", "offsets": "i8", "labels": "u2", "images": "u1"}
        assert {name: data.dtype.str[1:] for name, data in file["train"].items()} == dtypes
        for data in file["train"].values():
            assert (data.compression, data.compression_opts) == ("gzip", 1)
            assert data.shuffle
            assert data.fletcher32
        assert file["train/times"].chunks == (1 << 16,)


def test_a_split_outlives_the_name_of_its_file(good):
    assert open_events(good)["test"][0].times.tolist() == [1000]


def test_closed_file(good):
    with open_events(good) as file:
        train = file["train"]
        labels = train.labels
    assert labels.tolist() == [1, 0, 3]
    with pytest.raises(DataError, match="split train: the file was closed"):
        train[0]
    file.close()


@pytest.mark.parametrize(
    ("name", "remedy"), [("validation", "; make one with `evsnn convert-mnist --validation N`"), ("dev", "")]
)
def test_missing_split(good, name, remedy):
    with open_events(good) as file, pytest.raises(DataError) as caught:
        file[name]
    assert one_line(caught, good) == f"{good}: no split '{name}', the file holds train, test{remedy}"


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 5)), max_size=8), max_size=8), st.data()
)
@once_a_file
def test_round_trip_of_anything(tmp_path, samples, data):
    samples = [sorted(sample) for sample in samples]
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(samples), max_size=len(samples)))
    cut = data.draw(st.integers(0, len(samples)))
    path = tmp_path / "any.h5"
    with (
        pytest.MonkeyPatch.context() as patch,
        EventWriter(path, **SETTINGS, force=True) as writer,
    ):
        # Small chunks, so that a few events fill several.
        patch.setattr(writer_module, "_EVENT_CHUNK", 4)
        patch.setattr(writer_module, "_SAMPLE_CHUNK", 2)
        writer.begin_split("train")
        for some, numbers in ((samples[:cut], labels[:cut]), (samples[cut:], labels[cut:])):
            flat = [event for sample in some for event in sample]
            writer.append(
                [t for t, _ in flat], [u for _, u in flat], [len(sample) for sample in some], numbers
            )
    with open_events(path) as file:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file_module, "_VERIFY_EVENTS", 3)
            file.verify()
        train = file["train"]
        assert train.labels.tolist() == labels
        loaded = train.load()
        for i, sample in enumerate(samples):
            for events in (train[i], loaded[i]):
                assert list(zip(events.times.tolist(), events.units.tolist(), strict=True)) == sample


def test_verify_needs_bounded_memory(tmp_path):
    n = 3_000_000
    with EventWriter(tmp_path / "long.h5", **SETTINGS) as writer:
        writer.begin_split("train")
        for _ in range(6):
            zeros = np.zeros(n // 6, np.uint32)
            writer.append(zeros, zeros, [len(zeros)], [0])
    with open_events(tmp_path / "long.h5") as file:
        tracemalloc.start()
        file.verify()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 * n


def test_verify_sees_time_run_back_across_its_pieces(good, tmp_path, monkeypatch):
    def change(file):
        replace(file, "train/times", np.array([5, 9, 7, 1, 1], np.uint32))

    path = forge(tmp_path / "back.h5", good, change)
    for piece in (1, 2, 3, 4, 100):
        monkeypatch.setattr(file_module, "_VERIFY_EVENTS", piece)
        assert "split train: sample 2, event 1: time runs back from 7 to 1 us" in refused(path)


# --- writing


def test_the_same_input_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "a.h5").read_bytes() == write(tmp_path / "b.h5").read_bytes()


def test_defaults(tmp_path):
    path = write(tmp_path / "plain.h5", images=False, duration_us=None)
    with open_events(path) as file:
        assert file.duration_us == 1001
        assert (file.source, file.encoder, file.seed) == ({}, {}, None)
        assert not file["train"].has_images


def test_a_split_may_be_empty(tmp_path):
    path = tmp_path / "empty.h5"
    with EventWriter(path, shape=SHAPE, duration_us=None, classes=2) as writer:
        writer.begin_split("train", with_images=True)
    with open_events(path) as file:
        file.verify()
        assert file.duration_us == 1
        assert len(file["train"].load()) == 0


def test_large_settings_and_a_source_of_many_files(tmp_path):
    source = {f"Train/{i:05}.bin": "0" * 64 for i in range(3000)}
    path = write(
        tmp_path / "many.h5", source=source, encoder={"rate": np.float32(0.5), "levels": [np.int64(3)]}
    )
    with open_events(path) as file:
        assert file.source == source
        assert file.encoder == {"rate": 0.5, "levels": [3]}


def test_only_complete_files_appear(tmp_path):
    path = tmp_path / "new.h5"
    with EventWriter(path, **SETTINGS) as writer:
        writer.begin_split("train")
        writer.append(**TRAIN)
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == [path]


class Stop(BaseException):
    pass


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, Stop])
def test_an_error_leaves_nothing_and_the_old_file_as_it_was(tmp_path, stop):
    path = tmp_path / "old.h5"
    path.write_bytes(b"precious")

    def act(writer):
        writer.begin_split("train")
        writer.append(**TRAIN)
        raise stop

    with pytest.raises(stop):
        steps(path, act, force=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"precious"


def test_force(tmp_path):
    path = write(tmp_path / "old.h5")
    with pytest.raises(DataError, match=re.escape("old.h5 exists; pass --force to replace it")):
        EventWriter(path, **SETTINGS)
    write(path, force=True, seed=5)
    with open_events(path) as file:
        assert file.seed == 5


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    path = tmp_path / "race.h5"

    def act(writer):
        writer.begin_split("train")
        path.write_bytes(b"precious")

    with pytest.raises(DataError, match="exists; pass --force"):
        steps(path, act)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"folder .*nowhere does not exist"):
        EventWriter(tmp_path / "nowhere" / "a.h5", **SETTINGS)
    with pytest.raises(DataError, match="it is a folder"):
        EventWriter(tmp_path, **SETTINGS, force=True)
    monkeypatch.setattr(
        hdf5_module.io, "FileIO", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with (
        pytest.raises(DataError, match=r"cannot write .*a\.h5: Permission denied$"),
        EventWriter(tmp_path / "a.h5", **SETTINGS),
    ):
        pass


def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("needs a user whom permissions bind")
        with pytest.raises(DataError, match=r"cannot write .*a\.h5: Permission denied$"):
            write(tmp_path / "a.h5")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"units": [0, 5, 1, 6, 3]},
            "split train: sample 5, event 1: unit 6 is outside the input of 6 units",
        ),
        ({"times": [9, 5, 0, 0, 7]}, "split train: sample 3, event 1: time runs back from 9 to 5 us"),
        ({"times": [5, 1001, 0, 0, 7]}, "sample 3, event 1: time 1001 us is past the duration of 1000 us"),
        ({"labels": [1, 0, 4]}, "split train: sample 5: label 4 is not below the 4 classes"),
        ({"labels": [1, 70000, 4]}, "sample 4: label 70000 is not below the 4 classes"),
        ({"labels": [1, -1, 0]}, "split train: labels must lie in 0 to 2^32 - 1, got -1 to 1"),
        ({"labels": [1, 0]}, "2 labels need 3 offsets, found 4"),
        ({"counts": [2, 0, 4]}, "offsets run from 0 to 6, must run from 0 to the number of events, 5"),
        ({"counts": [[2, 0, 3]]}, "counts must be a row of numbers, got shape (1, 3)"),
        ({"times": [0.5] * 5}, "split train: times must be integers, got float64"),
        ({"units": [1]}, "5 times but 1 units"),
        ({"images": None}, "the split was begun with images, this block comes without"),
        ({"images": IMAGES[:2]}, "images of shape (2, 2, 3) for 3 samples of shape (1, 2, 3)"),
        ({"images": IMAGES.astype(float)}, "images must be uint8, found float64"),
    ],
)
def test_bad_blocks(tmp_path, changes, message):
    path = tmp_path / "bad.h5"

    def act(writer):
        writer.begin_split("train", with_images=True)
        writer.append(**TRAIN, images=IMAGES)
        writer.append(**{**TRAIN, "images": IMAGES, **changes})

    with pytest.raises(DataError) as caught:
        steps(path, act)
    assert message in one_line(caught, path)
    assert list(tmp_path.iterdir()) == []


def test_images_nobody_asked_for(tmp_path):
    def act(writer):
        writer.begin_split("train")
        writer.append(**TRAIN, images=IMAGES)

    with pytest.raises(DataError, match="begun without images, this block comes with"):
        steps(tmp_path / "a.h5", act)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (0, 2, 3)}, "shape must be three positive numbers"),
        ({"shape": (28, 28)}, "shape must be three positive numbers"),
        ({"shape": (1 << 20, 1 << 20, 2)}, "shape must be three positive numbers"),
        ({"classes": 0}, "classes must be an integer of 1 to 65536, got 0"),
        ({"duration_us": 0}, "duration_us must be an integer"),
        ({"duration_us": 0.5}, "duration_us must be an integer"),
        ({"seed": -1}, "seed must be an integer of 0 to"),
        ({"encoder": {"f": print}}, "encoder must hold plain values"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, changes, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        EventWriter(tmp_path / "a.h5", **{**SETTINGS, **changes})


def test_steps_in_the_wrong_order(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(SettingsError, match="with statement"):
        EventWriter(path, **SETTINGS).begin_split("train")
    with pytest.raises(SettingsError, match="no split was begun"), EventWriter(path, **SETTINGS):
        pass
    for names, message in (
        ([], "begin a split before"),
        (["dev"], "a split is called train, validation or test, not 'dev'"),
        (["train", "test", "train"], "split train was written before"),
    ):

        def act(writer, names=names):
            for name in names:
                writer.begin_split(name)
            writer.append(**TRAIN)

        with pytest.raises(SettingsError, match=message):
            steps(path, act)
    assert list(tmp_path.iterdir()) == []


# --- a disk that is full

FULL_DISK = """
    import resource, signal, sys
    import numpy as np
    from evsnn.errors import DataError
    from evsnn.events import EventWriter, open_events

    path, limit, blocks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rng = np.random.default_rng(0)
    settings = {"shape": (1, 256, 256), "duration_us": None, "classes": 2, "force": True}
    done = 0
    try:
        with EventWriter(path, **settings) as writer:
            writer.begin_split("train")
            for done in range(blocks):
                units = rng.integers(0, 1 << 16, 50_000)
                writer.append(np.sort(rng.integers(0, 1 << 32, 50_000)), units, [50_000], [0])
    except DataError as error:
        print(error)
    print("blocks", done + 1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
@pytest.mark.parametrize(
    ("limit", "blocks"),
    [
        pytest.param(0, 1, id="at the first byte"),
        pytest.param(300_000, 30, id="at an append"),
        pytest.param(100_000, 1, id="at the end of a split"),
    ],
)
def test_full_disk(tmp_path, limit, blocks):
    path = tmp_path / "full.h5"
    path.write_bytes(b"precious")
    root = Path(file_module.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FULL_DISK), path, str(limit), str(blocks)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
        check=False,
    )
    # A crash at the end of the program is what plain HDF5 does here.
    assert (done.returncode, done.stderr) == (0, "")
    message, blocks_done = done.stdout.splitlines()
    assert message == f"cannot write {path}: File too large"
    assert int(blocks_done.split()[1]) < max(blocks, 2), "the news must come early, not at the end"
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"precious"


def open_in_hdf5():
    gc.collect()  # files that other tests forgot to close
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_ALL)


class Broken:
    """A file that fails at the n-th call of one of its methods."""

    def __init__(self, file, method, after, error):
        self._file, self._method, self._left, self._error = file, method, after, error

    def __getattr__(self, name):
        if name == self._method:
            self._left -= 1
            if self._left < 0:
                raise self._error
        return getattr(self._file, name)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("method", ["write", "truncate", "fileno"])
@pytest.mark.parametrize("after", [0, 1, 3, 8])
def test_any_step_may_fail(tmp_path, monkeypatch, method, after, error):
    path = tmp_path / "a.h5"
    real = hdf5_module.io.FileIO
    monkeypatch.setattr(hdf5_module.io, "FileIO", lambda *args: Broken(real(*args), method, after, error))
    before = open_in_hdf5()
    message = None
    try:
        write(path)
    except DataError as caught:
        message = str(caught)
    if message is not None:
        assert message == f"cannot write {path}: {error.strerror}"
        assert list(tmp_path.iterdir()) == []
        assert open_in_hdf5() == before
    else:
        assert after > 0
        open_events(path).verify()


def test_what_was_written_after_a_failure_can_be_read_back(tmp_path, monkeypatch):
    """HDF5 reads its own structures back while it closes, and must find them."""
    real = hdf5_module.io.FileIO
    error = OSError(28, "No space left on device")
    monkeypatch.setattr(hdf5_module.io, "FileIO", lambda *args: Broken(real(*args), "write", 1, error))
    with hdf5_module.Sink(tmp_path / "sink") as sink:
        for place, data in ((0, b"abcdef"), (4, b"EFGH"), (20, b"xyz"), (1, b"BC")):
            sink.seek(place)
            assert sink.write(data) == len(data)
        assert sink.error is error
        assert sink.tell() == 3
        assert sink.seek(0, os.SEEK_END) == 23
        assert sink.seek(-23, os.SEEK_CUR) == 0
        buffer = bytearray(25)
        assert sink.readinto(buffer) == 25
    assert bytes(buffer) == b"aBCdEFGH" + bytes(12) + b"xyz" + bytes(2)


def test_an_interrupt_inside_hdf5_is_passed_on(tmp_path, monkeypatch):
    real = hdf5_module.io.FileIO
    monkeypatch.setattr(
        hdf5_module.io, "FileIO", lambda *args: Broken(real(*args), "write", 3, KeyboardInterrupt())
    )
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_survives_a_failed_rename(tmp_path, monkeypatch):
    path = tmp_path / "old.h5"
    path.write_bytes(b"precious")
    monkeypatch.setattr(
        writer_module.os,
        "replace",
        lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")),
    )
    with pytest.raises(DataError, match=r"cannot write .*old\.h5: Invalid cross-device link"):
        write(path, force=True)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"precious"


# --- files that are not what they should be


def test_not_there_not_a_file_not_hdf5(tmp_path):
    for name, content, message in (
        ("none.h5", None, "No such file or directory"),
        ("empty.h5", b"", "not an HDF5 file"),
        ("text.h5", b"hello" * 1000, "not an HDF5 file"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        assert message in refused(path)
    with pytest.raises(DataError, match="not a file"):
        open_events(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        open_events("a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refused(tmp_path / "pipe")


def attribute(name, value):
    def change(file):
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", None, "this HDF5 file is no event file"),
        ("format", "evsnn-model", "holds 'evsnn-model', an event file has format 'evsnn-events'"),
        ("format", 3, "an event file has format"),
        ("format", h5py.Empty("S1"), "cannot read attribute 'format'"),
        ("version", 2, "version 2 of the format, this evsnn reads 1; upgrade evsnn"),
        ("version", 0, "attribute 'version' must be an integer of 1"),
        ("version", None, "the attribute 'version' is missing"),
        ("shape", None, "the attribute 'shape' is missing"),
        ("shape", [1, 2], "attribute 'shape' must be three positive numbers"),
        ("shape", [1, 2, -3], "attribute 'shape' must be three positive numbers"),
        ("shape", [1.0, 2.0, 3.0], "attribute 'shape' must be three positive numbers"),
        ("shape", [1, 2**40, 2**40], "attribute 'shape' must be three positive numbers"),
        ("duration_us", "long", "attribute 'duration_us' must be an integer"),
        ("duration_us", 0, "attribute 'duration_us' must be an integer"),
        ("duration_us", 999, "split test: sample 0, event 0: time 1000 us is past the duration of 999 us"),
        ("classes", 70000, "attribute 'classes' must be an integer"),
        ("classes", [3, 3], "attribute 'classes' must be an integer"),
        ("classes", 3, "split train: sample 2: label 3 is not below the 3 classes"),
        ("source", "[1]", "attribute 'source' must be a JSON object"),
        ("source", '{"a": 1}', "attribute 'source' must map names to SHA-256 sums"),
        ("source", "[" * 100_000, "attribute 'source' is no JSON"),
        ("encoder", "{", "attribute 'encoder' is no JSON"),
        ("encoder", None, "the attribute 'encoder' is missing"),
        ("seed", -1, "attribute 'seed' must be an integer"),
    ],
)
def test_attributes(good, tmp_path, name, value, message):
    assert message in refused(forge(tmp_path / "forged.h5", good, attribute(name, value)))


def test_text_of_variable_length_is_read(good, tmp_path):
    path = forge(tmp_path / "text.h5", good, attribute("encoder", '{"name": "a"}'))
    with open_events(path) as file:
        assert file.encoder == {"name": "a"}


def dataset(name, values, **options):
    return lambda file: replace(file, f"train/{name}", values, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delitem__("train/units"), "split train: data set 'units' is missing"),
        (lambda file: [file.__delitem__(name) for name in ("train", "test")], "holds no split"),
        (dataset("times", np.zeros(5, np.int32)), "'times' must be uint32 in 1 dimension, found int32 in 1"),
        (dataset("times", np.zeros(5, np.float32)), "'times' must be uint32"),
        (
            dataset("labels", np.zeros((3, 1), np.uint16)),
            "'labels' must be uint16 in 1 dimension, found uint16 in 2",
        ),
        (dataset("images", np.zeros((3, 6), np.uint8)), "'images' must be uint8 in 3 dimensions"),
        (dataset("images", np.zeros((3, 3, 2), np.uint8)), "images of shape (3, 3, 2) for 3 samples"),
        (dataset("images", np.zeros((2, 2, 3), np.uint8)), "images of shape (2, 2, 3) for 3 samples"),
        (dataset("units", np.zeros(4, np.uint32)), "5 times but 4 units"),
        (dataset("offsets", np.zeros(3, np.int64)), "3 labels need 4 offsets, found 3"),
        (dataset("offsets", np.array([0, 2, 2, 4])), "offsets run from 0 to 4"),
        (dataset("offsets", np.array([0, 4, 2, 5])), "sample 1: its offsets run backwards"),
        (dataset("offsets", np.array([-1, 2, 2, 5])), "offsets run from -1 to 5"),
        (dataset("units", np.array([0, 5, 1, 6, 3], np.uint32)), "sample 2, event 1: unit 6 is outside"),
        (dataset("times", np.array([5, 4, 0, 0, 7], np.uint32)), "sample 0, event 1: time runs back"),
        (dataset("labels", np.array([0, 9, 0], np.uint16)), "sample 1: label 9 is not below the 4 classes"),
        (dataset("times", np.zeros(5, np.uint32), fletcher32=False), "'times' has no Fletcher32 checksum"),
        (
            dataset("times", np.zeros(5, np.uint32), chunks=None, fletcher32=None, compression=None),
            "'times' has no Fletcher32 checksum",
        ),
        (
            dataset("times", np.zeros(5, np.uint32), compression="lzf"),
            "packed in a way that evsnn does not read; use gzip",
        ),
        (
            lambda file: (file.__delitem__("train/times"), file["train"].create_group("times")),
            "'times' must be a data set",
        ),
        (
            lambda file: (file.__delitem__("train"), file.create_dataset("train", data=[1])),
            "split train: must be a group",
        ),
    ],
)
def test_splits_that_break_the_promises(good, tmp_path, change, message):
    assert message in refused(forge(tmp_path / "forged.h5", good, change))


@pytest.mark.parametrize("column", ["times", "units", "labels", "offsets"])
def test_reading_one_sample_and_loading_check_as_well(good, tmp_path, column):
    wrong = {"times": [9, 5, 0, 0, 7], "units": [0, 6, 1, 2, 3], "labels": [4, 0, 0], "offsets": [0, 6, 2, 5]}
    dtype = {"labels": np.uint16, "offsets": np.int64}.get(column, np.uint32)
    path = forge(tmp_path / "forged.h5", good, dataset(column, np.array(wrong[column], dtype)))
    with open_events(path) as file:
        with pytest.raises(DataError, match=r"split train: sample [01]"):
            file["train"].load()
        if column != "labels":
            with pytest.raises(DataError, match=r"split train: sample [01]"):
                file["train"][0]


def test_the_other_byte_order_is_read(good, tmp_path):
    path = forge(tmp_path / "big.h5", good, dataset("times", np.array([5, 9, 0, 0, 7], ">u4")))
    with open_events(path) as file:
        file.verify()
        assert file["train"][0].times.tolist() == [5, 9]
        assert file["train"].load().times.dtype == np.dtype("=u4")


@pytest.mark.parametrize("where", ["train", "train/times", "train/images"])
@pytest.mark.parametrize(
    "link",
    [h5py.SoftLink("/test/times"), h5py.SoftLink("/nowhere"), h5py.ExternalLink("other.h5", "/train")],
    ids=["soft", "dangling", "external"],
)
def test_links_are_not_followed(good, tmp_path, where, link):
    def change(file):
        del file[where]
        file[where] = link

    assert "is a link to another place" in refused(forge(tmp_path / "link.h5", good, change))


def test_virtual_and_external_storage(good, tmp_path):
    def virtual(file):
        del file["train/times"]
        layout = h5py.VirtualLayout(shape=(5,), dtype=np.uint32)
        layout[:] = h5py.VirtualSource(str(good), "train/times", shape=(5,))
        file["train"].create_virtual_dataset("times", layout)

    def external(file):
        replace(file, "train/times", np.zeros(5, np.uint32), chunks=None, fletcher32=None, compression=None,
                external=[(str(tmp_path / "outside.bin"), 0, h5py.h5f.UNLIMITED)])  # fmt: skip

    for change in (virtual, external):
        assert "keeps its values outside the file" in refused(forge(tmp_path / "forged.h5", good, change))


def test_claims_of_sizes_the_file_cannot_hold(good, tmp_path):
    huge = 10**15

    def hollow(file, length, chunk, stored=False):
        options = {"dtype": np.uint32, "chunks": (chunk,), "fletcher32": True, "compression": "gzip"}
        for name in ("times", "units"):
            del file[f"train/{name}"]
            data = file["train"].create_dataset(name, shape=(length,), maxshape=(None,), **options)
            if stored:
                data[-1] = 0
        if length < huge:
            replace(file, "train/offsets", np.array([0, 2, 2, length]))

    for length, chunk, stored, message in (
        (huge, 65536, False, f"'times' claims {huge} values, more than the file can hold"),
        (huge, 1 << 20, True, f"'times' claims {huge} values, more than the file can hold"),
        (400_000, 65536, False, "'times' lacks a chunk"),
        (400_000, 65536, True, "'times' lacks a chunk"),
        (huge, 1 << 28, False, "'times' has chunks of more than 64 MiB"),
    ):
        path = forge(
            tmp_path / "huge.h5", good, lambda file, a=length, b=chunk, c=stored: hollow(file, a, b, c)
        )
        tracemalloc.start()
        assert message in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()


def test_values_beyond_what_compression_can_do(good, monkeypatch):
    monkeypatch.setattr(hdf5_module, "_MAX_DEFLATE_RATIO", 1e-3)
    assert "claims 5 values, more than the file can hold" in refused(good)


# --- damage


@pytest.mark.parametrize("column", ["times", "units", "offsets", "labels", "images"])
def test_a_flipped_bit_in_the_values_is_named(good, tmp_path, column):
    with h5py.File(good) as file:
        chunk = file["train"][column].id.get_chunk_info(0)
    data = bytearray(good.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    path = tmp_path / "flipped.h5"
    path.write_bytes(data)
    assert f"split train: the checksum of data set '{column}' failed; the file is damaged" in refused(path)
    with pytest.raises(DataError, match="checksum"), open_events(path) as file:
        file["train"].load()


def read_all(path):
    with open_events(path) as file:
        file.verify()
        values = [
            file.splits,
            file.shape,
            file.duration_us,
            file.classes,
            file.source,
            file.encoder,
            file.seed,
        ]
        for name in file:
            data = file[name].load()
            arrays = (data.times, data.units, data.offsets, data.labels)
            values += [array.tobytes() for array in arrays]
            values.append(None if data.images is None else data.images.tobytes())
        return values


@given(st.data())
@settings(once_a_file, max_examples=150)
def test_no_flipped_bit_goes_unnoticed(good, tmp_path, data):
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "flipped.h5"
    path.write_bytes(content)
    try:
        values = read_all(path)
    except DataError as error:
        one_line(error, path)
    else:
        # Bits between the structures of the file are nobody's.
        assert values == read_all(good)


@given(st.data())
@settings(once_a_file, max_examples=30)
def test_truncated(good, tmp_path, data):
    content = good.read_bytes()
    path = tmp_path / "short.h5"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    text = refused(path)
    assert "truncated" in text or "not an HDF5 file" in text


@given(st.binary(max_size=200))
@settings(once_a_file, max_examples=30)
def test_garbage(tmp_path, content):
    path = tmp_path / "garbage.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + content)
    refused(path)


def test_no_memory_is_one_line(good, monkeypatch):
    def none_left(*_, **__):
        raise MemoryError

    monkeypatch.setattr(hdf5_module.np, "empty", none_left)
    with open_events(good) as file, pytest.raises(EvsnnError, match="'offsets' does not fit into memory"):
        file["train"].load()
