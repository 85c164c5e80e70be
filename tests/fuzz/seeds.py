"""Small good files of every kind, made in code: where the fuzzers begin."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest

from evsnn import checkpoint
from evsnn.encoders import EncoderSettings
from evsnn.events import EventWriter
from evsnn.events import writer as writer_module
from evsnn.network import Network
from evsnn.training.config import RunConfig

ARCHITECTURES = ("784-800-10", "34x34x2-800-10", "28x28-20C5-P2-50C5-P2-200-10", "8x8x2-4C3p1-P2-3", "1-1")
_EVENT = struct.pack(">BBI", 3, 4, 0x80000005)


def idx() -> list[bytes]:
    images = struct.pack(">HBBIII", 0, 8, 3, 2, 2, 3) + bytes(range(12))
    labels = struct.pack(">HBBI", 0, 8, 1, 3) + b"\0\1\2"
    return [images, labels, *(gzip.compress(data, mtime=0) for data in (images, labels))]


def recordings() -> list[bytes]:
    def event(x: int, y: int, polarity: int, time: int) -> bytes:
        return bytes([x, y]) + (polarity << 23 | time).to_bytes(3, "big")

    return [
        event(1, 2, 0, 5),
        event(33, 33, 1, 5) + event(0, 0, 0, 5) + event(7, 9, 1, (1 << 23) - 1),
        event(1, 1, 1, 3) + event(5, 240, 1, 0) + event(1, 1, 0, 2) + event(2, 1, 0, 2),
    ]


def archives() -> list[bytes]:
    made = []
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", kind) as archive:
            for name, data in zip(("Train/3/00001.bin", "Test/0/2.bin"), recordings(), strict=False):
                archive.writestr(zipfile.ZipInfo(name), data, kind)
        made.append(file.getvalue())
    return made


@cache
def event_files() -> tuple[bytes, ...]:
    """An event file in the format of HDF5 1.10, and the same in the oldest, which has no inner checksums."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # Few events shall fill several chunks.
        patch.setattr(writer_module, "_EVENT_CHUNK", 4)
        patch.setattr(writer_module, "_SAMPLE_CHUNK", 4)
        path = Path(folder) / "seed.h5"
        encoder = EncoderSettings().to_dict()
        with EventWriter(
            path, shape=(1, 2, 3), duration_us=900, classes=4, source={"a": "0"}, encoder=encoder, seed=1
        ) as writer:
            writer.begin_split("train", with_images=True)
            images = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
            writer.append([5, 9, 0, 0, 7, 8], [0, 5, 1, 2, 3, 3], [2, 4], [1, 3], images)
            writer.begin_split("test")
            writer.append([900], [4], [1], [2])
        return path.read_bytes(), _oldest(path)


@cache
def models() -> tuple[bytes, ...]:
    """A model, a checkpoint, and the model in HDF5's oldest format."""
    with tempfile.TemporaryDirectory() as folder:
        made = []
        network = Network.from_architecture("4x4-2C3-P2-3", seed=1)
        moments = {
            f"layer{index}/weight_moment0": np.zeros_like(layer.weight)
            for index, layer in enumerate(network.spiking_layers)
        }
        path = Path(folder) / "seed.h5"
        for arrays in (moments, {}):
            checkpoint.save(path, checkpoint.Checkpoint(network, {"epoch": 1}, arrays))
            made.append(path.read_bytes())
        return *made, _oldest(path)


def _oldest(path: Path) -> bytes:
    target = path.with_suffix(".old")
    with h5py.File(path) as source, h5py.File(target, "w", libver="earliest") as file:
        for name in source:
            source.copy(name, file)
        for name, value in source.attrs.items():
            file.attrs[name] = value
    return target.read_bytes()


def configurations() -> list[bytes]:
    texts = [RunConfig().to_toml(), 'arch = "784-10"\nepochs = 3\n', "[learning]\nlr = 1e-3\n", ""]
    return [text.encode() for text in texts]


def architectures() -> list[bytes]:
    return [text.encode() for text in ARCHITECTURES]


def metrics() -> list[bytes]:
    line = {"loss": 0.5, "train_accuracy": 0.9, "validation_accuracy": None, "seconds": 1.5}
    line |= {"events_per_sample": [10.0, 3.0], "active_share": [0.5], "synaptic_operations_per_sample": [7.0]}
    lines = [json.dumps({"epoch": epoch, **line}) + "\n" for epoch in (1, 2)]
    return ["".join(lines).encode(), lines[0].encode()]
