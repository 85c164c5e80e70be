"""What the fuzzers call: one function for each reader, from bytes to accepted, refused or a fault.

A reader may accept its input, and then everything its format promises must hold of what it returned; or it
may refuse it with one line. All else is a fault: other exceptions, warnings, several lines, a message without
the name of the file, memory that no file of this size needs.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import re
import shutil
import struct
import tempfile
from atexit import register
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from evsnn import checkpoint
from evsnn.datasets import idx
from evsnn.datasets.nmnist import parse_recording
from evsnn.datasets.recordings import RecordingSource
from evsnn.encoders.settings import encoder_settings
from evsnn.errors import DataError, SettingsError
from evsnn.events import open_events
from evsnn.network.architecture import LARGEST, parse_architecture
from evsnn.training.config import RunConfig
from evsnn.training.run import parse_metrics

from . import seeds
from .images import altered

#: Longest message that is still one line to read.
LONGEST_MESSAGE = 1005


class Fault(AssertionError):  # noqa: N818 - what a fuzzer looks for
    """A reader broke its promise."""


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Parameters
    ----------
    name : str
    read : callable
        Reads the content of a file, given its name for messages, raises DataError or SettingsError, or checks
        what it got.
    seeds : callable
        Inputs to begin with.
    build : callable
        Makes the content of the file from an input.
    tokens : sequence of bytes
        What belongs into such inputs.
    """

    name: str
    read: Callable[[bytes, Path], None]
    seeds: Callable[[], Sequence[bytes]]
    build: Callable[[bytes], bytes] = bytes
    tokens: Sequence[bytes] = ()

    def __call__(self, data: bytes) -> bool:
        """Read one input; whether it was accepted. Raises whatever is a fault."""
        path = _scratch() / f"{self.name}.input"
        try:
            self.read(self.build(data), path)
        except (DataError, SettingsError) as error:
            check_message(str(error), path)
            return False
        return True


@cache
def _scratch() -> Path:
    """A folder of this process, in memory where there is such a place."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="evsnn-fuzz-", dir=memory if memory.is_dir() else None))
    register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def check_message(text: str, path: Path | None = None) -> None:
    """Check that a message is one line of bounded length that names the file."""
    if not text.isprintable():
        raise Fault(f"not one printable line: {text[:200]!r}")
    if len(text) > LONGEST_MESSAGE:
        raise Fault(f"a message of {len(text)} characters: {text[:200]!r}")
    if path is not None and str(path) not in text:
        raise Fault(f"does not name the file: {text[:200]!r}")
    # Inputs are small: where memory runs out, something was allocated for a mere claim. (HDF5 reserves a
    # block of metadata as it is claimed, but looks where the file ends before it touches that memory.)
    if "on disk image buffer" not in text and re.search("fit into memory|memory alloc|out of memory", text):
        raise Fault(f"memory for a mere claim: {text[:200]!r}")


def hold(truth: object, promise: str) -> None:
    """Raise a fault unless what a reader accepted keeps a promise."""
    if not truth:
        raise Fault(f"accepted, but {promise}")


def read_idx(content: bytes, path: Path) -> None:
    """Images or labels; what is accepted must be the very bytes behind the header."""
    refused = None
    for ndim, what in ((3, "images"), (1, "labels")):
        try:
            values = idx.parse(io.BytesIO(content), path, ndim, what)
        except DataError as error:
            check_message(str(error), path)
            refused = error
            continue
        hold(values.dtype == np.uint8 and values.ndim == ndim and values.size, "shape or type is wrong")
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        header = struct.pack(f">HBB{ndim}I", 0, 8, ndim, *values.shape)
        hold(content == header + values.tobytes(), "the values are not those of the file")
        return
    assert refused is not None
    raise refused


def read_recording(content: bytes, path: Path) -> None:
    """A recording of N-MNIST; times and units are compared with the bits."""
    events = parse_recording(content, str(path))
    expected, shift = [], 0
    for at in range(0, len(content), 5):
        x, y = content[at : at + 2]
        if y == 240:
            shift += 1 << 13
            continue
        word = int.from_bytes(content[at + 2 : at + 5], "big")
        expected.append((shift + (word & 0x7FFFFF), ((word >> 23) * 34 + y) * 34 + x))
    got = list(zip(events.times.tolist(), events.units.tolist(), strict=True))
    hold(got == sorted(expected), "events differ from the bits")
    hold(all(unit < 2 * 34 * 34 for _, unit in got), "a unit lies outside the sensor")


def read_archive(content: bytes, path: Path) -> None:
    """A zip archive of recordings, every member of it read."""
    path.write_bytes(content)
    with RecordingSource(path) as source:
        for problem in source.problems:
            check_message(str(problem), path)
        hold(source.splits or source.problems, "there is nothing in it")
        for split, recordings in source.splits.items():
            keys = [(one.number, one.label) for one in recordings]
            hold(keys == sorted(set(keys)), "recordings are out of order or double")
            for one in recordings:
                hold(one.split == split and 0 <= one.label <= 9, "label or split is wrong")
                hold(".." not in one.path.split("/") and not one.path.startswith("/"), "a path leads out")
                try:
                    content = one.read()
                except DataError as error:
                    check_message(str(error), path)
                    continue
                hold(len(content) == one.size, "a recording has another size")
        if source.problems:
            raise source.problems[0]


def read_events(content: bytes, path: Path) -> None:
    """An event file, verified, loaded, and its samples read one by one."""
    path.write_bytes(content)
    with open_events(path) as file:
        file.verify()
        hold(0 < math.prod(file.shape) <= 1 << 32, "the shape is no shape")
        try:
            encoder_settings(file.encoder)
        except SettingsError as error:
            check_message(str(error))
        for name in file:
            split = file[name]
            data = split.load()
            hold(len(data.times) * 8 < 1 << 24, "there are more events than this file holds")
            offsets, labels = data.offsets.tolist(), data.labels.tolist()
            hold(offsets == sorted(offsets) and offsets[0] == 0, "offsets run backwards")
            hold(offsets[-1] == len(data.times) == len(data.units), "offsets do not end with the events")
            hold(len(offsets) == len(labels) + 1, "there is no offset for every sample")
            hold(all(label < file.classes for label in labels), "a label is no class")
            for sample, events in zip(split, data, strict=True):
                times = events.times.tolist()
                hold(times == sorted(times), "times run backwards")
                hold(all(time <= file.duration_us for time in times), "a time is past the duration")
                hold(all(unit < data.n_inputs for unit in events.units.tolist()), "a unit is outside")
                hold(np.array_equal(sample.times, events.times), "a sample differs from the loaded set")
                hold(np.array_equal(sample.units, events.units), "a sample differs from the loaded set")


def read_model(content: bytes, path: Path) -> None:
    """A model or checkpoint."""
    path.write_bytes(content)
    state = checkpoint.load(path)
    if not checkpoint.is_model(path):
        raise Fault("a model that was loaded is not recognised as one")
    network = state.network
    plans = network.architecture.layers
    hold([layer.out_shape for layer in network.layers] == [plan.out_shape for plan in plans], "wrong layers")
    for layer in network.spiking_layers:
        hold(np.isfinite(layer.weight).all(), "a weight is not finite")
        hold(
            np.isfinite(layer.threshold).all() and (layer.threshold > 0).all(), "a threshold is not positive"
        )
        with np.errstate(all="ignore"):
            hold(np.isfinite(layer.weight / layer.threshold).all(), "weight over threshold is not finite")
    hold(all(np.isfinite(array).all() for array in state.arrays.values()), "optimiser state is not finite")
    hold(sum(array.nbytes for array in state.arrays.values()) <= len(content), "arrays out of nothing")
    hold(0 <= network.seed < 1 << 64, "the seed is no seed")
    json.dumps(dict(state.info))


def read_toml(content: bytes, path: Path) -> None:
    """A configuration; what is accepted must survive being written and read again."""
    config = RunConfig.from_text(content, str(path))
    hold(RunConfig.from_text(config.to_toml().encode(), "again") == config, "it reads differently as written")
    for section in (config.learning, config.augment, config.augment_events, config.encoder):
        for field in fields(section):
            value = getattr(section, field.name)
            hold(not isinstance(value, float) or math.isfinite(value), f"{field.name} is not finite")


def read_architecture(content: bytes, path: Path) -> None:
    """An architecture string; the settings error names no file, because there is none."""
    text = content.decode("utf-8", "replace")
    try:
        plan = parse_architecture(text)
    except SettingsError as error:
        check_message(str(error))
        raise SettingsError(f"{path}: refused") from error
    hold(parse_architecture(plan.text) == plan, "its own text reads differently")
    shape = plan.shape
    for layer in plan.layers:
        hold(layer.in_shape == shape, "a layer does not fit the one before")
        shape = layer.out_shape
        hold(all(size > 0 for size in shape) and math.prod(shape) <= LARGEST, "a layer has no sane size")
        hold(layer.kind in {"dense", "conv", "pool"}, "a layer is of no kind")
    hold(plan.layers[-1].kind == "dense", "the last layer has no classes")
    tokens = re.sub(r"\s", "", text).split("-")
    hold(len(tokens) == len(plan.layers) + 1, "tokens were lost")


def read_metrics(content: bytes, path: Path) -> None:
    """Metrics of two epochs."""
    history = parse_metrics(content.splitlines(keepends=True), str(path), 2)
    hold(history and history[-1]["epoch"] == 2, "the last epoch is another")
    epochs = [line["epoch"] for line in history]
    hold(epochs == sorted(set(epochs)), "epochs do not count up")
    layers = {len(line["events_per_sample"]) for line in history}
    hold(len(layers) == 1 and min(layers) > 1, "layers come and go")
    for line in history:
        numbers = [line["loss"], line["train_accuracy"], line["seconds"], *line["events_per_sample"]]
        numbers += [line["validation_accuracy"]] * (line["validation_accuracy"] is not None)
        hold(all(type(value) in (int, float) for value in numbers), "a number is none")
        hold(all(math.isfinite(value) for value in numbers), "a number is not finite")


def _scripts(files: Callable[[], Sequence[bytes]]) -> Callable[[], list[bytes]]:
    """Scripts of edits that change nothing, one for each file."""
    return lambda: [bytes([i, 1]) for i in range(len(files()))]


_TOML_TOKENS = [
    line.partition(" = ")[0].encode() + (b"" if line.startswith("[") else b" = ")
    for line in RunConfig().to_toml().splitlines()
    if line.startswith("[") or " = " in line
]

TARGETS = {
    target.name: target
    for target in (
        Target("idx", read_idx, seeds.idx, tokens=(b"\0\0\x08\x03", b"\0\0\x08\x01", b"\x1f\x8b\x08")),
        Target("recording", read_recording, seeds.recordings, tokens=(b"\x05\xf0\0\0\0",)),
        Target(
            "archive",
            read_archive,
            seeds.archives,
            tokens=(b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"Train/", b"../", b".bin"),
        ),
        Target(
            "events",
            read_events,
            _scripts(seeds.event_files),
            lambda script: altered(script, seeds.event_files()),
        ),
        Target("model", read_model, _scripts(seeds.models), lambda script: altered(script, seeds.models())),
        Target("toml", read_toml, seeds.configurations, tokens=_TOML_TOKENS),
        Target(
            "architecture",
            read_architecture,
            seeds.architectures,
            tokens=(b"28x28", b"-20C5", b"C5p2", b"-P2", b"-10", b"x2-"),
        ),
        Target(
            "metrics",
            read_metrics,
            seeds.metrics,
            tokens=(b'"epoch": ', b"NaN", b"Infinity", b"null", b"1e999", b"[[", b"\n{"),
        ),
    )
}


def process_memory() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
