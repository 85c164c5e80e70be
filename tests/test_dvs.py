"""Recordings of event cameras: a file written by hand, those that another library writes, damaged ones."""

from __future__ import annotations

import json
import struct
import sys

import numpy as np
import pytest
from support import evsnn

from evsnn import DataError, Network, NetworkSettings
from evsnn.checkpoint import save_model
from evsnn.streams.recordings import open_recording
from evsnn.streams.send import recorded_events

WIDTH, HEIGHT = 6, 4
EVENTS = [(100, 5, 3, 1), (130, 0, 1, 0), (130, 2, 2, 1), (7000, 2, 0, 1)]


@pytest.fixture
def faery():
    return pytest.importorskip("faery", reason="faery, of the extra dvs, is not installed")


def evt2(events, size=f"% geometry {WIDTH}x{HEIGHT}\n"):
    """Prophesee's EVT2: words of 32 bits, 0x8 with the high bits of the time, 0x0 OFF and 0x1 ON with six."""
    words, high = [], None
    for time, x, y, polarity in events:
        if time >> 6 != high:
            high = time >> 6
            words.append(0x8 << 28 | high)
        words.append(polarity << 28 | (time & 63) << 22 | x << 11 | y)
    return f"% evt 2.0\n{size}% end\n".encode() + struct.pack(f"<{len(words)}I", *words)


def all_of(recording):
    parts = list(recording.packets())
    return tuple(np.concatenate(column).tolist() for column in zip(*parts, strict=True))


def expected():
    return [time for time, *_ in EVENTS], [(p * HEIGHT + y) * WIDTH + x for _, x, y, p in EVENTS]


def test_a_recording_written_by_hand(tmp_path, faery):
    path = tmp_path / "some.raw"
    path.write_bytes(evt2(EVENTS))
    recording = open_recording(path)
    assert recording.shape == (2, HEIGHT, WIDTH)
    assert all_of(recording) == expected()
    shape, parts = recorded_events(path)
    assert shape == recording.shape
    assert [time for times, _ in parts for time in times.tolist()] == expected()[0]


@pytest.mark.parametrize(
    ("name", "version"),
    [("a.raw", "evt2"), ("a.raw", "evt3"), ("a.aedat4", None), ("a.es", None), ("a.dat", "dat2")],
)
def test_recordings_of_other_formats(tmp_path, faery, name, version):
    path = tmp_path / name
    events = np.array([(t, x, y, p) for t, x, y, p in EVENTS], faery.EVENTS_DTYPE)
    stream = faery.events_stream_from_array(events, (WIDTH, HEIGHT))
    stream.to_file(path, version=version, zero_t0=False)
    recording = open_recording(path)
    assert recording.shape == (2, HEIGHT, WIDTH)
    assert all_of(recording) == expected()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.aedat4", b"#!AER-DAT4.0\r\nxx", "not a recording that faery reads: "),
        ("a.es", b"Event Stream\x00", "not a recording that faery reads: "),
        ("a.dat", b"junk", "not a recording that faery reads: "),
        ("a.raw", b"", "not a recording: its header does not say how large the sensor is"),
        ("a.raw", evt2(EVENTS, size=""), "not a recording: its header does not say how large the sensor is"),
        ("a.raw", evt2([(1, 6, 0, 1)]), ""),
    ],
)
def test_damaged_recordings(tmp_path, faery, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        all_of(open_recording(path))
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_a_recording_that_is_not_there(tmp_path, faery):
    with pytest.raises(DataError, match=r"cannot read .*none\.raw: no such file"):
        open_recording(tmp_path / "none.raw")


def test_without_faery(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faery", None)
    with pytest.raises(
        DataError, match=r"a\.raw: recordings of event cameras need the library faery: pip in"
    ):
        open_recording(tmp_path / "a.raw")


def test_a_network_on_a_recording(tmp_path, faery):
    network = Network.from_architecture(f"{HEIGHT}x{WIDTH}x2-8-3", settings=NetworkSettings(alpha=(0.5, 0.5)))
    save_model(tmp_path / "model.h5", network)
    (tmp_path / "some.raw").write_bytes(evt2(EVENTS))
    done = evsnn("stream", tmp_path / "model.h5", tmp_path / "some.raw", "--json", "--window-ms", 0)
    assert done.code == 0
    [line] = done.out.splitlines()
    assert json.loads(line)["time_us"] == 20_100
    assert json.loads(done.err)["events"]["acted"] == len(EVENTS)
