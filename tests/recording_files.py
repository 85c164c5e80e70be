"""Made-up N-MNIST recordings in folders and archives; nothing here computes what is tested."""

from __future__ import annotations

import zipfile

import numpy as np
from reference.recording import read_records, select, write_records


def made(rng, n=60, span=300_000, markers=0):
    """Events (t, x, y, p) of a made-up recording, few pixels, some of them simultaneous."""
    times = np.sort(rng.integers(0, span, n) // 7 * 7)
    events = [(int(t), *(int(v) for v in rng.integers(0, 34, 2)), int(rng.integers(2))) for t in times]
    for _ in range(markers):
        events.insert(int(rng.integers(len(events))), (0, 5, 240, 1))
    return events


def recording(seed, **options):
    """Bytes of a made-up recording."""
    return write_records(made(np.random.default_rng(seed), **options))


#: A recording of one event.
ONE = write_records([(1, 1, 1, 0)])

#: Recordings by their path.
GOOD = {
    "Train/3/00002.bin": recording(1),
    "Train/0/00001.bin": recording(2),
    "Train/3/00010.bin": recording(3, n=31),
    "Train/7/00003.bin": recording(4, n=200),
    "Test/9/00001.bin": recording(5),
    "Test/3/00002.bin": recording(6, n=7),
}


#: In which order the samples of GOOD lie in the splits.
ORDER = {
    "train": ["Train/0/00001.bin", "Train/3/00002.bin", "Train/7/00003.bin", "Train/3/00010.bin"],
    "test": ["Test/9/00001.bin", "Test/3/00002.bin"],
}


def folder(path, files):
    """Write recordings into a folder."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def pack(path, files, kind=zipfile.ZIP_DEFLATED):
    """Write recordings into a zip archive."""
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def same_events(events, times, units):
    """Compare events with what the reference gives."""
    assert events.times.dtype == events.units.dtype == np.uint32
    assert events.times.tolist() == times
    assert events.units.tolist() == units


def check_order(parts, files=GOOD, order=ORDER):
    """Compare the splits of an event file with the recordings they were made from."""
    assert parts.keys() == order.keys()
    for split, names in order.items():
        assert parts[split].labels.tolist() == [int(name.split("/")[-2]) for name in names]
        for events, name in zip(parts[split], names, strict=True):
            same_events(events, *select(read_records(files[name])))
