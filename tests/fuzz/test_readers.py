"""Readers against inputs that Hypothesis makes: good ones altered, and ones that know the format."""

import gzip
import io
import json
import struct
import warnings
import zipfile

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from evsnn.errors import DataError
from evsnn.training.config import RunConfig

from . import seeds
from .images import altered, blocks, lookup3
from .targets import TARGETS, Fault, Target

EXAMPLES = 120
EXAMPLES_OF_HDF5 = 40

edges = st.sampled_from([0, 1, 2, 3, 9, 127, 128, 255, 256, 65535, 1 << 24, 1 << 31, (1 << 32) - 1])


@st.composite
def mutated(draw, inputs):
    """One of some inputs, altered here and there."""
    data = bytearray(draw(st.sampled_from(inputs)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["set", "insert", "delete", "copy", "cut"]))
        some = draw(st.binary(min_size=1, max_size=8))
        if kind == "set":
            data[at : at + len(some)] = some
        elif kind == "insert":
            data[at:at] = some
        elif kind == "delete":
            del data[at : at + len(some)]
        elif kind == "copy":
            data[at:at] = data[: draw(st.integers(0, len(data)))][-64:]
        else:
            del data[at:]
    return bytes(data)


@st.composite
def idx_files(draw):
    sizes = draw(st.lists(edges, min_size=0, max_size=4))
    kind = draw(st.sampled_from([8, 8, 8, 9, 0x0D, 0]))
    content = struct.pack(f">HBB{len(sizes)}I", 0, kind, draw(st.integers(0, 4)), *sizes)
    content += draw(st.binary(max_size=40))
    if draw(st.booleans()):
        content = gzip.compress(content, mtime=0) + draw(st.sampled_from([b"", b"\0\0", b"x"]))
    return content


@st.composite
def recordings(draw):
    content, time = b"", 0
    for _ in range(draw(st.integers(0, 12))):
        x, y = draw(st.integers(0, 35)), draw(st.sampled_from([0, 1, 33, 34, 240, 255]))
        time = min(max(time + draw(st.integers(-1, 1 << 21)), 0), (1 << 23) - 1)
        content += bytes([x, y]) + (draw(st.booleans()) << 23 | time).to_bytes(3, "big")
    return content


NAMES = (
    *("Train/3/00001.bin", "Train/3/1.bin", "Test/9/7.bin", "Train/3/", "Train/10/1.bin", "x" * 300 + ".bin"),
    *("../Train/3/1.bin", "/Train/0/2.bin", "C:\\Train\\3\\1.bin"),
    *("a/Train/4/\x1b[2J.bin", "Train/4/\u202e1.bin"),
)


@st.composite
def archives(draw):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=5)):
            member = zipfile.ZipInfo(name)
            member.external_attr = draw(st.sampled_from([0, 0o100644, 0o120777, 0o010644])) << 16
            member.compress_type = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            with warnings.catch_warnings(action="ignore"):  # of names that are there already
                archive.writestr(member, draw(recordings()))
    return file.getvalue()


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(1 << 63, 1 << 400), st.floats(), st.text(max_size=6),
    st.lists(st.one_of(st.floats(), st.integers(-1, 1 << 70), st.text(max_size=2)), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
_plain = RunConfig().to_dict()
settings_of_runs = st.fixed_dictionaries(
    {},
    optional={
        name: st.one_of(
            values,
            *(
                [st.fixed_dictionaries({}, optional=dict.fromkeys(value, values))]
                if isinstance(value, dict)
                else []
            ),
        )
        for name, value in _plain.items()
    },
)


def _toml(config):
    def real(item):
        if isinstance(item, dict):
            return {name: real(value) for name, value in item.items() if value is not None}
        return item

    return tomli_w.dumps(real(config)).encode("utf-8", "surrogatepass")


_numbers = st.one_of(edges, st.integers(0, 40)).map(str)
tokens = st.one_of(
    _numbers,
    st.builds("{}x{}".format, _numbers, _numbers),
    st.builds("{}x{}x{}".format, _numbers, _numbers, _numbers),
    st.builds("{}C{}".format, _numbers, _numbers),
    st.builds("{}C{}p{}".format, _numbers, _numbers, st.one_of(_numbers, st.just("9" * 5000))),
    st.builds("P{}".format, _numbers),
    st.sampled_from(["", " ", "P", "C", "x", "\n", "-", "\u0661", "1e3", "+1"]),
)

_line = {
    "epoch": 1, "loss": 0.5, "train_accuracy": 0.9, "validation_accuracy": None, "seconds": 1.5,
    "events_per_sample": [10.0, 3.0],
}  # fmt: skip


@st.composite
def metrics(draw):
    lines = []
    for epoch in range(1, draw(st.integers(1, 3)) + 1):
        line = {**_line, "epoch": epoch}
        for name in draw(st.sets(st.sampled_from(list(_line)), max_size=2)):
            line[name] = draw(values)
        lines.append(json.dumps(line))
    return "\n".join(lines).encode()


scripts = st.builds(
    lambda file, how, edits: bytes([file, how]) + b"".join(edits),
    st.integers(0, 2),
    st.integers(0, 255),
    st.lists(st.binary(min_size=4, max_size=11), max_size=6),
)

STRUCTURED = {
    "idx": idx_files(),
    "recording": recordings(),
    "archive": archives(),
    "events": scripts,
    "model": scripts,
    "toml": settings_of_runs.map(_toml),
    "architecture": st.lists(tokens, max_size=8).map(lambda some: "-".join(some).encode()),
    "metrics": metrics(),
}


def test_every_target_has_a_structure():
    assert STRUCTURED.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_accepted(name):
    target = TARGETS[name]
    assert sum(target(data) for data in target.seeds()) >= max(len(target.seeds()) - 1, 1)


@pytest.mark.parametrize("name", TARGETS)
def test_anything_is_accepted_in_order_or_refused_in_one_line(name):
    target = TARGETS[name]
    packed = name in {"events", "model"}

    @settings(max_examples=EXAMPLES_OF_HDF5 if packed else EXAMPLES)
    @given(st.one_of(STRUCTURED[name], mutated(target.seeds())))
    def check(data):
        target(data)

    check()


# --- the fuzzers themselves


def test_checksums_of_hdf5_are_those_of_lookup3():
    # Examples of Bob Jenkins' lookup3.c, driver5.
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


@pytest.mark.parametrize("make", [seeds.event_files, seeds.models])
def test_edits_reach_what_lies_behind_the_checksums(make):
    """An altered version of the superblock's neighbour is not refused for its checksum."""
    image = make()[0]
    (start, end), *_ = [block for block in blocks(image) if image[block[0] : block[0] + 4] == b"OHDR"]
    place = end - 1
    script = bytes([0, 1]) + place.to_bytes(2, "little") + bytes([0, image[place] ^ 1])
    changed = altered(script, make())
    assert changed != image
    assert changed[end : end + 4] == struct.pack("<I", lookup3(changed[start:end]))
    wrong = altered(bytes([0, 0]) + script[2:], make())
    assert wrong[end : end + 4] == image[end : end + 4]


def failing(error):
    def read(content, path):
        raise error(path)

    return Target("planted", read, list)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda path: ZeroDivisionError("division by zero"), "division by zero"),
        (lambda path: DataError("nameless"), "does not name the file"),
        (lambda path: DataError(f"{path}: does not fit into memory"), "memory for a mere claim"),
        (lambda path: Fault("accepted, but wrong"), "accepted, but wrong"),
    ],
)
def test_planted_faults_are_seen(error, words):
    with pytest.raises((Fault, ZeroDivisionError), match=words):
        failing(error)(b"")
    assert failing(lambda path: DataError(f"{path}: fine"))(b"") is False
