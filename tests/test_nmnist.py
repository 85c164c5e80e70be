"""N-MNIST recordings: their bytes, the filters and the noise, where they lie, and what is wrong with them."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_files import GOOD, ONE, ORDER, check_order, folder, made, pack, recording, same_events
from reference.recording import is_recording, noise_events, philox, read_records, select, write_records
from scipy import stats

from evsnn.datasets import nmnist, nmnist_reader, recordings
from evsnn.datasets.division import divide
from evsnn.datasets.idx import read_labels
from evsnn.datasets.nmnist import RecordingSettings, convert_nmnist, parse_recording, read_recording
from evsnn.datasets.recordings import Recording, RecordingSource
from evsnn.errors import DataError, SettingsError
from evsnn.events import Events, open_events
from evsnn.events.core import TONIC_DTYPE

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "benchmarks" / "data"
SHAPE = (2, 34, 34)


@pytest.fixture(scope="module")
def converted(nmnist_archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("nmnist") / "all.h5"
    convert_nmnist(nmnist_archive, path, threads=2)
    return path


@pytest.fixture(scope="module")
def some(nmnist_archive):
    """Bytes of some real recordings, by number."""
    with zipfile.ZipFile(nmnist_archive) as file:
        members = {int(Path(name).stem): name for name in file.namelist() if name.endswith(".bin")}
        return {number: file.read(members[number]) for number in (1, 2, 17, 400, 799, 800)}


# The format


def test_five_bytes_an_event():
    # x 33, y 2, ON at 0x12345 us; then x 1, y 0, OFF, with all 23 bits of the time set.
    data = bytes([33, 2, 0x81, 0x23, 0x45, 1, 0, 0x7F, 0xFF, 0xFF])
    same_events(parse_recording(data), [0x12345, 0x7FFFFF], [(34 + 2) * 34 + 33, 1])


def test_markers_add_to_the_times_after_them():
    events = [(5, 1, 1, 0), (3, 99, 240, 1), (6, 1, 1, 0), (0, 0, 240, 0), (0, 0, 240, 0), (1, 2, 2, 1)]
    found = parse_recording(write_records(events))
    assert found.times.tolist() == [5, 6 + 8192, 1 + 3 * 8192]


def test_simultaneous_events_are_sorted_by_unit():
    events = [(7, 3, 0, 1), (7, 4, 0, 0), (7, 3, 0, 0), (7, 3, 0, 1), (9, 0, 0, 0)]
    on = 34 * 34 + 3
    same_events(parse_recording(write_records(events)), [7, 7, 7, 7, 9], [3, 4, on, on, 0])


@pytest.mark.parametrize("n", [40, 47, 48, 49, 50, 3000])
def test_many_simultaneous_events(n):
    rng = np.random.default_rng(n)
    events = [(5, 0, 0, 0), *((6, int(x), int(y), int(p)) for x, y, p in rng.integers(0, 2, (n, 3)))]
    same_events(parse_recording(write_records(events)), *select(events))


def test_simultaneous_events_without_end_take_no_square_of_time():
    descending = b"".join(bytes([x, y, 128, 0, 1]) for y in range(33, -1, -1) for x in range(33, -1, -1))
    found = parse_recording(descending * 300)
    assert len(found) == 300 * 34 * 34
    assert (np.diff(found.units.astype(np.int64)) >= 0).all()


def check_bytes(data):
    if is_recording(data):
        same_events(parse_recording(data), *select(read_records(data)))
    else:
        with pytest.raises(DataError, match=r"^recording: "):
            parse_recording(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_recording_or_an_error(data):
    check_bytes(data)


record = st.tuples(st.integers(0, 40), st.integers(0, 35), st.integers(0, 35), st.integers(0, 1))
marker = st.just((0, 0, 240, 0))


@given(st.lists(record | marker, max_size=12).map(sorted) | st.lists(record | marker, max_size=4))
def test_near_recordings_are_a_recording_or_an_error(events):
    check_bytes(write_records(events))


def test_real_recordings_as_the_bits_say(some):
    for data in some.values():
        same_events(parse_recording(data), *select(read_records(data)))


# Conversion of the real recordings


def test_all_800_recordings(converted):
    with open_events(converted) as file:
        file.verify()
        assert (file.splits, file.shape, file.classes) == (("train",), SHAPE, 10)
        train = file["train"].load()
        assert file.duration_us == int(train.times.max()) + 1 < 336_000
    assert len(train) == 800
    assert train.times.nbytes + train.units.nbytes == 8 * len(train.times)
    assert 4050 < len(train.times) / 800 < 4150
    ends = train.times[train.offsets[1:] - 1]
    assert 305_000 < ends.mean() < 311_000
    # Every pixel sees events of either polarity, ON and OFF about equally often.
    assert 0.4 < (train.units >= 34 * 34).mean() < 0.6
    labels = DATA / "mnist" / "train-labels-idx1-ubyte.gz"
    if labels.is_file():  # sample i is recording i + 1, which shows MNIST digit i
        assert train.labels.tolist() == read_labels(labels)[:800].tolist()


def test_the_file_holds_each_recording_at_its_number(converted, some, nmnist_archive):
    with open_events(converted) as file:
        for number, data in some.items():
            same_events(file["train"][number - 1], *select(read_records(data)))
        digest = hashlib.sha256(nmnist_archive.read_bytes()).hexdigest()
        assert file.source == {"nmnist-800.zip": digest}
        assert file.encoder == RecordingSettings().to_dict()
        assert file.seed is None


def test_tonic_arrays_both_ways(some):
    assert TONIC_DTYPE.names == ("x", "y", "t", "p")
    assert all(TONIC_DTYPE[name] == np.int64 for name in TONIC_DTYPE.names)
    for data in some.values():
        events = parse_recording(data)
        expected = sorted(read_records(data), key=lambda event: (event[0], event[3], event[2], event[1]))
        array = events.to_structured(SHAPE)
        assert array.dtype == TONIC_DTYPE
        assert array.tolist() == [(x, y, t, p) for t, x, y, p in expected]
        back = Events.from_structured(array, SHAPE)
        assert back.times.tobytes() == events.times.tobytes()
        assert back.units.tobytes() == events.units.tobytes()


# Filters


FILTERS = [
    {"refractory_ms": 5.0},
    {"refractory_ms": 0.001},
    {"start_ms": 100.0},
    {"stop_ms": 105.5},
    {"start_ms": 0.007, "stop_ms": 200.2},
    {"crop": True},
    {"first": 20},
    {"merge_polarity": True},
    {"refractory_ms": 20.0, "start_ms": 50.0, "stop_ms": 250.0, "crop": True, "first": 10},
    {"refractory_ms": 2.0, "crop": True, "merge_polarity": True, "start_ms": 1.0},
]


def expected(events, filters, noise=()):
    stop = filters.get("stop_ms")
    return select(
        events,
        refractory_us=round(filters.get("refractory_ms", 0) * 1000),
        start_us=round(filters.get("start_ms", 0) * 1000),
        stop_us=None if stop is None else round(stop * 1000),
        crop=filters.get("crop", False),
        first=filters.get("first", 0),
        merge=filters.get("merge_polarity", False),
        noise=noise,
    )


@pytest.mark.parametrize("filters", FILTERS, ids=",".join)
def test_filters_of_real_recordings(some, filters):
    chosen = RecordingSettings(**filters)
    for data in some.values():
        found = parse_recording(data, settings=chosen)
        same_events(found, *expected(read_records(data), filters))
        assert 0 < len(found) < len(data) // 5 or filters.keys() == {"merge_polarity"}
        assert found.units.max() < np.prod(chosen.shape)


flag = st.booleans()
few = st.tuples(st.integers(0, 90), st.integers(0, 4), st.integers(28, 33), st.integers(0, 1))


@settings(max_examples=150)
@given(
    st.lists(few, min_size=1, max_size=40).map(lambda events: sorted(events, key=lambda event: event[0])),
    st.fixed_dictionaries(
        {"crop": flag, "merge_polarity": flag, "first": st.integers(0, 5)},
        optional={
            "refractory_ms": st.sampled_from([0.0, 0.001, 0.01, 0.05]),
            "start_ms": st.sampled_from([0.0, 0.002, 0.03]),
            "stop_ms": st.sampled_from([0.04, 0.09, 9.0]),
        },
    ),
)
def test_filters_as_the_reference_has_them(events, filters):
    found = parse_recording(write_records(events), settings=RecordingSettings(**filters))
    same_events(found, *expected(events, filters))


def test_the_window_holds_its_start_and_not_its_stop():
    data = write_records([(t, 8, 8, 0) for t in (0, 19, 20, 21, 39, 40, 41)])
    found = parse_recording(data, settings=RecordingSettings(start_ms=0.02, stop_ms=0.04))
    assert found.times.tolist() == [0, 1, 19]


def test_the_refractory_filter_counts_from_the_last_event_kept():
    events = [(t, 8, 8, t % 2) for t in (0, 3, 6, 10, 13, 20)]
    assert parse_recording(
        write_records(events), settings=RecordingSettings(refractory_ms=0.01)
    ).times.tolist() == [0, 10, 20]


@pytest.mark.parametrize(
    ("filters", "shape", "duration"),
    [
        ({}, (2, 34, 34), None),
        ({"crop": True, "merge_polarity": True}, (1, 28, 28), None),
        ({"start_ms": 100, "stop_ms": 200.5}, (2, 34, 34), 100_500),
        ({"stop_ms": 0.001}, (2, 34, 34), 1),
    ],
)
def test_what_settings_say_of_the_file(filters, shape, duration):
    chosen = RecordingSettings(**filters)
    assert (chosen.shape, chosen.duration_us) == (shape, duration)
    assert chosen.to_dict().items() >= {"kind": "nmnist", **filters}.items()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"noise_hz": -1}, "noise_hz must lie in 0 to 10000, got -1"),
        ({"noise_hz": float("nan")}, "noise_hz must lie in 0 to 10000, got nan"),
        ({"noise_hz": 10001}, "noise_hz must lie in 0 to 10000, got 10001"),
        ({"refractory_ms": -0.1}, "refractory_ms must lie in 0 to "),
        ({"refractory_ms": "1"}, "refractory_ms must be a number, got '1'"),
        ({"start_ms": True}, "start_ms must be a number, got True"),
        ({"start_ms": float("inf")}, "start_ms must lie in 0 to "),
        ({"stop_ms": 0}, "stop_ms must lie at least a microsecond after start_ms, 0.0, got 0"),
        ({"start_ms": 5, "stop_ms": 5.0001}, "stop_ms must lie at least a microsecond after start_ms, 5"),
        ({"stop_ms": float("nan")}, "stop_ms must lie in 0 to "),
        ({"crop": 28}, "crop must be true or false, got 28"),
        ({"merge_polarity": None}, "merge_polarity must be true or false, got None"),
        ({"first": -1}, "first must be 0 or a number of events, got -1"),
        ({"first": 1.5}, "first must be 0 or a number of events, got 1.5"),
    ],
)
def test_settings_that_make_no_sense(bad, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        RecordingSettings(**bad)


# Noise


def test_the_references_random_numbers():
    # D. E. Shaw Research, Random123, file kat_vectors.
    assert philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


@pytest.mark.parametrize(
    ("rate", "filters"),
    [
        (3.0, {}),
        (200.0, {"merge_polarity": True}),
        (50.0, {"refractory_ms": 10.0, "crop": True, "start_ms": 30.0, "first": 500}),
    ],
)
def test_noise_as_the_reference_draws_it(rate, filters):
    seed, number = 2**40 + 3, 77
    events = [*made(np.random.default_rng(8), span=70_000, markers=1), (70_000, 1, 1, 0)]
    data = write_records(events)
    last = read_records(data)[-1][0]
    noise = noise_events(rate, last, seed=seed, number=number, stream=0)
    assert stats.poisson.cdf(len(noise), rate * 34 * 34 * last / 1e6) > 1e-4
    assert stats.poisson.sf(len(noise), rate * 34 * 34 * last / 1e6) > 1e-4
    chosen = RecordingSettings(noise_hz=rate, **filters)
    found = parse_recording(data, settings=chosen, seed=seed, number=number)
    same_events(found, *expected(read_records(data), filters, noise))


def test_noise_has_its_rate_everywhere():
    rate, last = 500.0, 500_000
    data = write_records([(last, 0, 0, 0)])
    found = parse_recording(data, settings=RecordingSettings(noise_hz=rate), seed=1)
    n = len(found) - 1
    assert n == pytest.approx(rate * 34 * 34 * last / 1e6, rel=5 / np.sqrt(n))
    assert found.times.max() == last
    per_unit = np.bincount(found.units, minlength=2 * 34 * 34)
    assert stats.chisquare(per_unit).pvalue > 1e-3
    assert per_unit.var() == pytest.approx(per_unit.mean(), rel=0.2)
    slots = np.histogram(found.times, 50, (0, last))[0]
    assert stats.chisquare(slots).pvalue > 1e-3
    assert (np.diff(found.times.astype(np.int64)) >= 0).all()


def test_noise_follows_from_seed_and_recording():
    data = write_records([(0, 0, 0, 0), (100_000, 5, 5, 1)])

    def drawn(seed, number, data=data):
        found = parse_recording(data, settings=RecordingSettings(noise_hz=5), seed=seed, number=number)
        return found.times.tolist(), found.units.tolist()

    assert drawn(0, 1) == drawn(0, 1)
    assert len({str(drawn(*counter)) for counter in ((0, 1), (1, 1), (0, 2), (2**32, 1))}) == 4
    # The noise of a shorter recording is the beginning of that of a longer one.
    longer = drawn(0, 1, write_records([(0, 0, 0, 0), (100_000, 5, 5, 1), (150_000, 5, 5, 1)]))
    n = len(drawn(0, 1)[0])
    assert (longer[0][:n], longer[1][:n]) == drawn(0, 1)


def test_each_recording_has_noise_of_its_own(tmp_path):
    data = write_records([(0, 0, 0, 0), (200_000, 5, 5, 1)])
    names = ["Train/1/1.bin", "Train/2/1.bin", "Train/1/2.bin", "Test/1/1.bin"]
    source = folder(tmp_path / "in", dict.fromkeys(names, data))
    convert_nmnist(source, tmp_path / "out.h5", RecordingSettings(noise_hz=10), seed=6)
    with open_events(tmp_path / "out.h5") as file:
        found = [(split, i) for split in ("train", "test") for i in range(len(file[split]))]
        noise = [file[split][i] for split, i in found]
        assert len({events.times.tobytes() for events in noise}) == 4
        # Streams: label, + 10 for a test recording.
        for events, number, stream in zip(noise, (1, 1, 2, 1), (1, 2, 1, 11), strict=True):
            drawn = noise_events(10, 200_000, seed=6, number=number, stream=stream)
            same_events(events, *select(read_records(data), noise=drawn))
        assert file.seed == 6


def test_noise_that_would_fill_the_memory_is_refused():
    # Few bytes, but more than an hour: 2^32 us would take thousands of millions of noise events.
    data = write_records([(0, 0, 240, 0)] * 400_000 + [(0, 1, 1, 0)])
    assert parse_recording(data).times.tolist() == [400_000 * 8192]
    with pytest.raises(DataError, match=r"3.28e.03 s with noise make 3.79e.08 events, more than"):
        parse_recording(data, settings=RecordingSettings(noise_hz=100))


# Bad recordings


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the recording is empty\n"),
        (write_records([(0, 0, 240, 0)] * 3), "the recording is empty, it holds overflow markers only"),
        (ONE[:-1], "4 bytes are no multiple of 5, the bytes of an event; is the file cut off?"),
        (ONE * 2 + b"x", "11 bytes are no multiple of 5"),
        (
            ONE + write_records([(2, 34, 5, 0)]),
            "event 1 (byte 5): pixel x 34, y 5 is outside the 34x34 of the sensor",
        ),
        (write_records([(2, 5, 34, 0)]), "event 0 (byte 0): pixel x 5, y 34 is outside the 34x34"),
        (write_records([(2, 5, 239, 0)]), "event 0 (byte 0): pixel x 5, y 239 is outside"),
        (write_records([(9, 1, 1, 0), (8, 1, 1, 0)]), "event 1 (byte 5): time runs back from 9 to 8 us"),
        (
            write_records([(9000, 1, 1, 0), (0, 0, 240, 0), (9, 1, 1, 0)]),
            "event 2 (byte 10): time runs back from 9000 to 8201 us",
        ),
        (
            write_records([(0, 0, 240, 0)] * 2**19 + [(0, 1, 1, 0)]),
            "event 524288 (byte 2621440): time 4294967296 us does not fit 32 bits",
        ),
    ],
)
def test_bad_recordings(tmp_path, data, message):
    with pytest.raises(DataError) as error:
        parse_recording(data, "some name")
    assert f"{error.value}\n".startswith(f"some name: {message}")
    message = message.rstrip()
    # The same from a file, and among good ones from a folder and from an archive.
    path = tmp_path / "bad.bin"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {message}')}"):
        read_recording(path)
    files = GOOD | {"Train/3/00002.bin": data}
    where = folder(tmp_path / "in", files)
    name = where / "Train" / "3" / "00002.bin"
    with pytest.raises(DataError, match=f"^{re.escape(f'{name}: {message}')}"):
        convert_nmnist(where, tmp_path / "out.h5")
    packed = pack(tmp_path / "in.zip", files, zipfile.ZIP_STORED)
    with pytest.raises(DataError, match=f"^{re.escape(f'{packed}: Train/3/00002.bin: {message}')}"):
        convert_nmnist(packed, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_the_first_bad_recording_is_named_whatever_the_threads(tmp_path):
    files = {f"Train/{i % 10}/{i}.bin": ONE for i in range(1, 60)}
    files |= {f"Train/{i % 10}/{i}.bin": b"" for i in (23, 24, 58)}
    source = pack(tmp_path / "in.zip", files)
    for threads in (1, 3, 8):
        with pytest.raises(DataError, match=r"Train/3/23.bin: the recording is empty"):
            convert_nmnist(source, tmp_path / "out.h5", threads=threads)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none.bin: No such file"):
        read_recording(tmp_path / "none.bin")
    with pytest.raises(DataError, match="not a file"):
        read_recording(tmp_path)
    os.mkfifo(tmp_path / "pipe.bin")
    with pytest.raises(DataError, match="not a file"):
        read_recording(tmp_path / "pipe.bin")


def test_a_file_far_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "MAX_BYTES", 1000)
    source = folder(tmp_path / "in", GOOD | {"Train/1/5.bin": ONE * 201})
    packed = pack(tmp_path / "in.zip", {"Train/1/5.bin": ONE * 201})
    for where, message in (
        (source, "1005 bytes are too many"),
        (packed, "claim to unpack to 1005, which no"),
    ):
        with pytest.raises(DataError, match=rf"5\.bin: .*{message}"):
            convert_nmnist(where, tmp_path / "out.h5")
    with pytest.raises(DataError, match=r"5.bin: more than the"):
        read_recording(source / "Train" / "1" / "5.bin")


# Where recordings lie


def converted_set(source, path, **options):
    result = convert_nmnist(source, path, **options)
    with open_events(path) as file:
        file.verify()
        return result, {name: file[name].load() for name in file.splits}, file.source


def test_a_folder_and_an_archive_give_the_same(tmp_path):
    source = folder(tmp_path / "in", GOOD | {"Train/readme.txt": b"x", "Train/3/._00002.bin": b"mac"})
    result, parts, sums = converted_set(source, tmp_path / "a.h5")
    check_order(parts)
    assert result.recordings == {"train": 4, "test": 2}
    assert result.events == {name: len(part.times) for name, part in parts.items()}
    assert (result.silent, result.skipped) == (0, [])
    # As `sha256sum Train/*/*.bin | sha256sum` has it.
    lines = {
        split: "".join(
            f"{hashlib.sha256(data).hexdigest()}  {name}\n"
            for name, data in sorted(GOOD.items())
            if name.startswith(split)
        )
        for split in ("Train", "Test")
    }
    assert sums == {
        f"{split}/*/*.bin": hashlib.sha256(text.encode()).hexdigest() for split, text in lines.items()
    }

    for name, kind in (("deflated.zip", zipfile.ZIP_DEFLATED), ("stored.zip", zipfile.ZIP_STORED)):
        packed = pack(tmp_path / name, GOOD | {"README": b"x"}, kind)
        _, parts, sums = converted_set(packed, tmp_path / f"{name}.h5")
        check_order(parts)
        assert sums == {name: hashlib.sha256(packed.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"N-MNIST/{name}",
        lambda name: f"./{name}",
        lambda name: name.replace("/", "\\"),
        lambda name: name.replace("Train", "train").replace("Test", "TEST").replace(".bin", ".BIN"),
    ],
)
def test_archives_of_other_archivers(tmp_path, rename):
    files = {rename(name): data for name, data in GOOD.items()}
    files |= {"__MACOSX/Train/3/00002.bin": b"?", "Train/.hidden/00002.bin": b"?", "Train/3/": b""}
    _, parts, _ = converted_set(pack(tmp_path / "in.zip", files), tmp_path / "out.h5")
    check_order(parts)


def test_the_two_archives_as_they_are_downloaded(tmp_path):
    for split in ("Train", "Test"):
        pack(tmp_path / f"{split}.zip", {n: data for n, data in GOOD.items() if n.startswith(split)})
    _, parts, sums = converted_set(tmp_path, tmp_path / "out.h5")
    check_order(parts)
    assert sums.keys() == {"Train.zip", "Test.zip"}
    # What was unpacked already is not read twice.
    folder(tmp_path, {name: data for name, data in GOOD.items() if name.startswith("Test")})
    _, parts, sums = converted_set(tmp_path, tmp_path / "out.h5", force=True)
    check_order(parts)
    assert sums.keys() == {"Train.zip", "Test/*/*.bin"}


def test_a_linked_folder_is_followed(tmp_path):
    folder(tmp_path / "elsewhere", GOOD)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Train").symlink_to(tmp_path / "elsewhere" / "Train")
    _, parts, _ = converted_set(tmp_path / "in", tmp_path / "out.h5")
    check_order(parts, order={"train": ORDER["train"]})


def test_equal_numbers_of_different_digits(tmp_path):
    files = {f"Train/{label}/{number}.bin": recording(label) for label in (5, 2) for number in (2, 10, 1)}
    _, parts, _ = converted_set(pack(tmp_path / "in.zip", files), tmp_path / "out.h5")
    assert parts["train"].labels.tolist() == [2, 5, 2, 5, 2, 5]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Train/x/1.bin": ONE}, "Train/x: the folder of a label is called 0 to 9, this one x (rec"),
        ({"Train/10/1.bin": ONE, "Train/10/2.bin": ONE}, "this one 10 (recordings in it: 2)"),
        ({"Train/\u0663/1.bin": ONE}, "Train/\u0663: the folder of a label is called 0 to 9"),
        ({"Train/3/one.bin": ONE}, "Train/3/one.bin: recordings are called by their number, such as 0"),
        ({"Train/3/1234567890.bin": ONE}, "Train/3/1234567890.bin: recordings are called by their number"),
        ({"Train/3/02.bin": ONE}, "02.bin: has the same number as "),
        ({"Train/1.bin": ONE}, "Train/1.bin: lies in no folder Train/<digit> or Test/<digit>"),
        ({"1.bin": ONE}, "1.bin: lies in no folder Train/<digit> or Test/<digit>"),
    ],
)
def test_files_that_cannot_be_placed(tmp_path, files, message):
    sources = folder(tmp_path / "in", GOOD | files), pack(tmp_path / "in.zip", GOOD | files)
    for source in sources:
        with pytest.raises(DataError, match=re.escape(message)) as error:
            convert_nmnist(source, tmp_path / "out.h5")
        assert str(error.value).startswith(str(source))
        result, parts, _ = converted_set(source, tmp_path / "out.h5", skip_bad=True, force=True)
        assert len(result.skipped) == 1
        assert message in result.skipped[0]
        taken = GOOD if "same number" not in message else {**GOOD, "Train/3/00002.bin": None}
        assert sum(len(part) for part in parts.values()) == len(taken)
        (tmp_path / "out.h5").unlink()


def test_what_is_no_file(tmp_path):
    source = folder(tmp_path / "in", GOOD)
    os.mkfifo(source / "Train" / "3" / "5.bin")
    (source / "Train" / "3" / "6.bin").mkdir()
    (source / "Train" / "3" / "7.bin").symlink_to(tmp_path / "nowhere")
    result, parts, _ = converted_set(source, tmp_path / "out.h5", skip_bad=True)
    check_order(parts)
    assert result.skipped == [f"{source}/Train/3/{number}.bin: not a file" for number in (5, 6, 7)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot read {path}: No such file or directory"),
        (lambda path: path.mkdir(), "{path}: holds neither a folder Train or Test nor Train.zip or Test.zip"),
        (lambda path: path.write_bytes(b""), "{path}: no zip archive, or a damaged one ("),
        (lambda path: path.write_bytes(b"PK\3\4 some"), "{path}: no zip archive, or a damaged one ("),
        (lambda path: pack(path, {}), "{path}: holds no recordings (looked for Train/<digit>/<number>.bin"),
        (lambda path: pack(path, {"a/b.txt": b"x"}), "{path}: holds no recordings (looked for"),
        (lambda path: (path / "Train" / "3").mkdir(parents=True), "{path}: holds no recordings (looked for"),
        (os.mkfifo, "{path}: not a file"),
    ],
)
def test_sources_without_recordings(tmp_path, make, message):
    path = tmp_path / "in"
    make(path)
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=f"^{re.escape(message.format(path=path))}"):
            convert_nmnist(path, tmp_path / "out.h5", skip_bad=skip_bad)
    assert not (tmp_path / "out.h5").exists()


def test_the_folder_of_one_split_is_told_from_the_whole(tmp_path):
    source = folder(tmp_path, GOOD) / "Train"
    with pytest.raises(DataError, match=r"Train: holds neither .*; name the folder it lies in"):
        convert_nmnist(source, tmp_path / "out.h5")


# Hostile and damaged archives


def with_member(name="Train/5/1.bin", data=ONE, **attributes):
    """A zip archive of good files and a last member with a changed directory entry."""

    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for good, content in GOOD.items():
                file.writestr(good, content)
            info = zipfile.ZipInfo(name)
            info.compress_type = attributes.pop("compress_type", zipfile.ZIP_DEFLATED)
            file.writestr(info, data)
            for attribute, value in attributes.items():  # reach the directory, written at the end
                setattr(info, attribute, value)
        return path

    return make


def damaged(offset, value):
    """The archive with a changed byte in the packed data of its last member."""

    def make(path):
        with_member(data=bytes(range(30)) * 5, compress_type=zipfile.ZIP_STORED)(path)
        with zipfile.ZipFile(path) as file:
            info = file.infolist()[-1]
        content = bytearray(path.read_bytes())
        content[info.header_offset + offset] = value
        path.write_bytes(content)
        return path

    return make


def with_nul(path):
    with_member("Train/5/1X.bin")(path)
    path.write_bytes(path.read_bytes().replace(b"1X.bin", b"1\0.bin"))
    return path


def twice(path):
    pack(path, GOOD)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("Train/3/00002.bin", ONE)
    return path


OUT = "its path leads out of the archive"
BAD_MEMBERS = {
    "parent": (with_member("../Train/5/1.bin"), f"../Train/5/1.bin: {OUT}"),
    "inner parent": (with_member("Train/5/../../../1.bin"), f"Train/5/../../../1.bin: {OUT}"),
    "parent, no recording": (with_member("../../etc/passwd"), f"../../etc/passwd: {OUT}"),
    "windows parent": (with_member("..\\Train\\5\\1.bin"), f"../Train/5/1.bin: {OUT}"),
    "absolute": (with_member("/Train/5/1.bin"), f"/Train/5/1.bin: {OUT}"),
    "drive": (with_member("C:/Train/5/1.bin"), f"C:/Train/5/1.bin: {OUT}"),
    "share": (with_member("\\\\host\\Train\\5\\1.bin"), f"//host/Train/5/1.bin: {OUT}"),
    "nul": (with_nul, f"Train/5/1\\x00.bin: {OUT}"),
    "control": (with_member("Train/5/\x1b[31m\n1.bin"), "Train/5/\\x1b[31m\\n1.bin: recordings are called"),
    "link": (with_member(external_attr=0o120777 << 16), "Train/5/1.bin: a link, or something else that is"),
    "device": (with_member(external_attr=0o020666 << 16), "Train/5/1.bin: not a file"),
    "encrypted": (with_member(flag_bits=1), "Train/5/1.bin: is encrypted, which evsnn does not read; unp"),
    "bzip2": (with_member(compress_type=zipfile.ZIP_BZIP2), "Train/5/1.bin: is packed in a way that evsnn"),
    "lzma": (with_member(compress_type=zipfile.ZIP_LZMA), "Train/5/1.bin: is packed in a way that evsnn"),
    "zip bomb": (with_member(data=bytes(5 << 20)), "bytes claim to unpack to 5242880, which no recording"),
    "claim": (with_member(file_size=(1 << 26) + 5), "bytes claim to unpack to 67108869, which no recording"),
    "claims little": (with_member(data=bytes(500), file_size=5), "Train/5/1.bin: cannot be read (Bad CRC-32"),
    "claims more": (with_member(file_size=50), "Train/5/1.bin: 5 bytes of 50; copy or download the archive"),
    "flipped bit": (damaged(60, 0x55), "Train/5/1.bin: cannot be read (Bad CRC-32 for file"),
    "other name": (damaged(31, 0x55), "Train/5/1.bin: cannot be read (File name in directory"),
    "no header": (damaged(0, 0), "Train/5/1.bin: cannot be read (Bad magic number for file header)"),
    "twice": (twice, "Train/3/00002.bin: has the same number as "),
}


@pytest.mark.parametrize("name", BAD_MEMBERS)
def test_bad_members(tmp_path, name):
    make, message = BAD_MEMBERS[name]
    source = make(tmp_path / "in.zip")
    with pytest.raises(DataError, match=re.escape(message)) as error:
        convert_nmnist(source, tmp_path / "out.h5")
    assert str(error.value).startswith(f"{source}: ")
    assert str(error.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["in.zip"]

    told = []
    result, parts, _ = converted_set(source, tmp_path / "out.h5", skip_bad=True, complain=told.append)
    check_order(parts)
    assert result.skipped == told == [str(error.value)]
    assert {path.name for path in tmp_path.iterdir()} == {"in.zip", "out.h5"}


def test_members_that_overlap(tmp_path):
    source = pack(
        tmp_path / "in.zip", {f"Train/1/{i}.bin": bytes(1000) for i in range(9)}, zipfile.ZIP_STORED
    )
    with zipfile.ZipFile(source, "a") as file:  # the directory once more, each entry at the first member
        for info in file.infolist():
            info.compress_size = info.file_size = 9000
        file.writestr("end", b"")
    with pytest.raises(DataError, match=r"in\.zip: its members overlap; refused as a zip bomb"):
        convert_nmnist(source, tmp_path / "out.h5", skip_bad=True)


def test_an_archive_that_ends_too_early(tmp_path):
    source = pack(tmp_path / "in.zip", GOOD)
    whole = source.read_bytes()
    for size in range(0, len(whole), 97):
        source.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"in\.zip"):
            convert_nmnist(source, tmp_path / "out.h5")


def problems_of(path):
    """What is wrong with an archive; anything but a DataError is a failure."""
    try:
        source = RecordingSource(path)
    except DataError as error:
        return [str(error)]
    problems = [str(problem) for problem in source.problems]
    with source:
        for one in [one for part in source.splits.values() for one in part]:
            try:
                parse_recording(one.read(), one.name)
            except DataError as error:
                problems.append(str(error))
    return problems


@settings(max_examples=80)
@given(st.data())
def test_an_archive_with_any_damage_is_a_recording_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    pack(path, {"Train/1/1.bin": recording(1), "Train/1/2.bin": ONE * 50})
    assert problems_of(path) == []
    content = bytearray(path.read_bytes())
    # The directory more often than the rest: that is where the traps are.
    anywhere = st.integers(0, len(content) - 1) | st.integers(content.index(b"PK\1\2"), len(content) - 1)
    for place in data.draw(st.lists(anywhere, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for problem in problems_of(path):
        assert str(path) in problem
        assert problem.isprintable()


def test_skipping_reports_in_order_and_goes_on(tmp_path):
    bad = {"Train/1/4.bin": b"", "Train/2/1.bin": ONE + b"x", "Test/9/7.bin": write_records([(0, 50, 0, 0)])}
    source = folder(tmp_path / "in", GOOD | bad | {"Train/?/1.bin": ONE})
    results = [
        converted_set(source, tmp_path / f"{threads}.h5", threads=threads, skip_bad=True)
        for threads in (1, 4)
    ]
    for result, parts, _ in results:
        check_order(parts)
        places = [line.removeprefix(f"{source}/").partition(":")[0] for line in result.skipped]
        assert places == ["Train/?", "Train/2/1.bin", "Train/1/4.bin", "Test/9/7.bin"]
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "4.h5").read_bytes()


def test_a_split_of_which_nothing_is_left(tmp_path):
    source = folder(tmp_path / "in", GOOD | {"Test/9/00001.bin": b"", "Test/3/00002.bin": b""})
    with pytest.raises(DataError, match="in: no recording of the split 'test' could be read"):
        convert_nmnist(source, tmp_path / "out.h5", skip_bad=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_recordings_without_an_event_left_are_counted(tmp_path):
    files = {f"Train/1/{i}.bin": write_records([(10 * i, 1, 1, 0), (10 * i + 1, 1, 1, 0)]) for i in range(6)}
    result, parts, _ = converted_set(
        folder(tmp_path / "in", files), tmp_path / "out.h5", settings=RecordingSettings(start_ms=0.03)
    )
    assert result.silent == 3
    assert np.diff(parts["train"].offsets).tolist() == [0, 0, 0, 2, 2, 2]


# Streams, threads, splits


def test_the_file_does_not_depend_on_threads_or_blocks(nmnist_archive, tmp_path, monkeypatch):
    chosen = RecordingSettings(noise_hz=2, refractory_ms=1, stop_ms=150)

    def made_with(name, threads, **bounds):
        for bound, value in bounds.items():
            monkeypatch.setattr(nmnist if bound.startswith("_BLOCK") else nmnist_reader, bound, value)
        seen = []
        convert_nmnist(
            nmnist_archive,
            tmp_path / name,
            chosen,
            limit=60,
            validation=7,
            threads=threads,
            begin=seen.append,
            report=seen.append,
        )
        assert seen[0] == 60 == sum(seen[1:])
        assert len(seen) >= (10 if bounds else 3)
        return (tmp_path / name).read_bytes()

    first = made_with("a.h5", 1)
    assert made_with("b.h5", 2) == first
    assert made_with("c.h5", 5, _BLOCK=7, _PIECE_EVENTS=12_000) == first
    assert made_with("d.h5", 2, _BLOCK_BYTES=100_000) == first


def test_room_that_was_too_little_is_made(monkeypatch):
    monkeypatch.setattr(nmnist_reader.RecordingReader, "_noise", lambda self, last_us: 0.0 * last_us)
    data = write_records([(0, 0, 0, 0), (90_000, 5, 5, 1)])
    found = parse_recording(data, settings=RecordingSettings(noise_hz=20), seed=4)
    noise = noise_events(20, 90_000, seed=4, number=0, stream=0)
    same_events(found, *select(read_records(data), noise=noise))


def test_recordings_are_read_in_parallel(tmp_path, monkeypatch):
    source = folder(tmp_path / "in", {f"Train/1/{i}.bin": ONE * 1000 for i in range(40)})
    both, read = threading.Barrier(2, timeout=20), recordings.read_file
    waited = set()

    def meeting(path, name):
        if threading.get_ident() not in waited:
            waited.add(threading.get_ident())
            both.wait()
        return read(path, name)

    monkeypatch.setattr(recordings, "read_file", meeting)
    convert_nmnist(source, tmp_path / "out.h5", threads=2)
    assert len(waited) == 2


def test_an_output_that_exists_stays(tmp_path):
    source = folder(tmp_path / "in", GOOD)
    (tmp_path / "out.h5").write_text("precious")
    with pytest.raises(DataError, match=r"out\.h5 exists; pass --force to replace it"):
        convert_nmnist(source, tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_text() == "precious"
    convert_nmnist(source, tmp_path / "out.h5", force=True)


def test_limit_takes_the_first_of_each_split(tmp_path):
    source = folder(tmp_path / "in", GOOD)
    _, parts, _ = converted_set(source, tmp_path / "out.h5", limit=1)
    check_order(parts, order={split: names[:1] for split, names in ORDER.items()})
    with pytest.raises(SettingsError, match="limit must be at least 1, got 0"):
        convert_nmnist(source, tmp_path / "out.h5", limit=0)


def listed(labels, split="train"):
    return [
        Recording(f"{i}.bin", f"{i}.bin", split, label, i, 5, lambda: ONE) for i, label in enumerate(labels)
    ]


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=80),
    st.integers(0, 79) | st.floats(0, 0.99),
    st.integers(0, 79) | st.floats(0, 0.99),
)
def test_held_out_splits_are_balanced(labels, test, validation):
    train = listed(labels)
    n = len(labels)
    wanted = {
        name: amount if isinstance(amount, int) else round(amount * n)
        for name, amount in (("test", test), ("validation", validation))
        if amount
    }
    if sum(wanted.values()) >= n or 0 in wanted.values():
        with pytest.raises(SettingsError, match=r"holds out \d+ of the \d+ training recordings there are"):
            divide({"train": train}, test, validation)
        return
    parts = divide({"train": train}, test, validation)
    assert list(parts) == [
        name for name in ("train", "validation", "test") if name in wanted or name == "train"
    ]
    assert sorted(one.number for part in parts.values() for one in part) == list(range(n))
    left = Counter(labels)
    for name in ("test", "validation"):
        if name not in wanted:
            continue
        held = parts[name]
        assert len(held) == wanted[name]
        total = sum(left.values())
        for label, count in Counter(one.label for one in held).items():
            assert abs(count - wanted[name] * left[label] / total) < 1
        left -= Counter(one.label for one in held)
    for part in parts.values():
        numbers = [one.number for one in part]
        assert numbers == sorted(numbers)
    for label in set(labels):
        numbers = [one.number for part in parts.values() for one in part if one.label == label]
        assert numbers == sorted(numbers)  # the last by number are held out


@pytest.mark.parametrize(
    ("splits", "test", "validation", "message"),
    [
        ({"train": listed([1, 2]), "test": listed([1], "test")}, 1, 0, "a test set of its own; drop --test"),
        ({"test": listed([1], "test")}, 0, 1, "no training recordings, from which --validation is taken"),
        ({"train": listed([1, 2])}, -1, 0, "test -1 holds out -1 of the 2 training recordings there are"),
        ({"train": listed([1, 2])}, 0, 2, "validation 2 holds out 2 of the 2 training"),
        ({"train": listed([1, 2])}, 1, 1, "validation 1 holds out 1 of the 1 training"),
        ({"train": listed([1, 2])}, 0.1, 0, "test 0.1 holds out 0 of the 2"),
        (
            {"train": listed([1, 2])},
            1.0,
            0,
            "test must be a number of recordings or a share below 1, got 1.0",
        ),
        ({"train": listed([1, 2])}, float("nan"), 0, "test must be a number of recordings or a share"),
        ({"train": listed([1, 2])}, 0, True, "validation must be a number of recordings or a share"),
    ],
)
def test_what_cannot_be_held_out(splits, test, validation, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        divide(splits, test, validation)


def test_held_out_splits_of_the_real_recordings(nmnist_archive, tmp_path):
    result, parts, _ = converted_set(nmnist_archive, tmp_path / "out.h5", test=0.25, validation=100)
    assert result.recordings == {"train": 500, "validation": 100, "test": 200}
    whole = sum((np.bincount(part.labels, minlength=10) for part in parts.values()), np.zeros(10, int))
    for name, size in result.recordings.items():
        assert (abs(np.bincount(parts[name].labels, minlength=10) - whole * size / 800) < 2).all()


def test_a_source_with_test_recordings_only(tmp_path):
    files = {name: data for name, data in GOOD.items() if name.startswith("Test")}
    _, parts, _ = converted_set(folder(tmp_path / "in", files), tmp_path / "out.h5")
    check_order(parts, order={"test": ORDER["test"]})
