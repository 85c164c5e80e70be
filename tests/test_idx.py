"""IDX files: read, damaged, forged, and found by their names."""

import gzip
import hashlib
import io
import os
import re
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evsnn.datasets import ImageSet, find_idx_folder, load_idx_folder, read_images, read_labels, read_pair
from evsnn.datasets import idx as idx_module
from evsnn.errors import DataError, SettingsError

once_a_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def idx(array, code=0x08):
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([3, 0, 9, 1], np.uint8)
IMAGE_FILE, LABEL_FILE = idx(IMAGES), idx(LABELS)


def put(path, content):
    path.write_bytes(content)
    return path


def refused(path, read=read_images):
    with pytest.raises(DataError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6)),
    st.booleans(),
    st.integers(1, 9),
)
@once_a_file
def test_round_trip(tmp_path, images, packed, level):
    labels = images[:, 0, 0].copy()
    for read, array in ((read_images, images), (read_labels, labels)):
        content = gzip.compress(idx(array), level) if packed else idx(array)
        # The name says the opposite of the content, which is what counts.
        found = read(put(tmp_path / ("file" if packed else "file.gz"), content))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, array)


def test_gzip_in_several_members(tmp_path):
    content = gzip.compress(IMAGE_FILE[:20]) + gzip.compress(IMAGE_FILE[20:])
    np.testing.assert_array_equal(read_images(put(tmp_path / "a.gz", content)), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\0\0", "not an IDX file"),
        (b"hello, world", "not an IDX file"),
        (b"\0\0\x07\x03" + IMAGE_FILE[4:], "not an IDX file"),
        (b"\1\0\x08\x03" + IMAGE_FILE[4:], "not an IDX file"),
        (idx(IMAGES, 0x0D), "holds float32, only IDX files of unsigned bytes are read"),
        (idx(IMAGES, 0x0C), "holds int32"),
        (LABEL_FILE, "has 1 dimension, images have 3; are images and labels mixed up?"),
        (idx(IMAGES[0]), "has 2 dimensions, images have 3"),
        (IMAGE_FILE[:14], "truncated: it ends inside its header"),
        (IMAGE_FILE[:-1], "truncated: 23 bytes of 24"),
        (IMAGE_FILE[:16], "truncated: 0 bytes of 24"),
        (IMAGE_FILE + b"\0", "longer than the 24 bytes its header promises"),
        (idx(IMAGES[:0]), "holds no images, its header says 0x2x3"),
        (idx(IMAGES[:, :0]), "holds no images"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**20, 2**10, 2**10), f"claims {2**40} bytes, more than the 2 GiB"),
        (
            struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
            "more than the 2 GiB that are read",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_refused(tmp_path, content, message, packed):
    path = put(tmp_path / "images", gzip.compress(content) if packed else content)
    assert message in refused(path)


def test_labels_refuse_images(tmp_path):
    text = refused(put(tmp_path / "labels", IMAGE_FILE), read_labels)
    assert "has 3 dimensions, labels have 1; are images and labels mixed up?" in text


def test_not_there(tmp_path):
    assert "No such file or directory" in refused(tmp_path / "none")
    assert "not a file" in refused(tmp_path)
    assert "truncated: 0 bytes" in refused(put(tmp_path / "short", IMAGE_FILE[:16]))
    with pytest.raises(DataError, match="cannot read"):
        read_images("a\0b")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs a device")
def test_a_device_is_not_read():
    with pytest.raises(DataError, match="not a file"):
        read_images("/dev/zero")


def test_damaged_gzip(tmp_path):
    packed = gzip.compress(IMAGE_FILE)
    path = tmp_path / "a.gz"
    for cut in (3, 12, len(packed) - 8, len(packed) - 1):
        assert "truncated gzip file" in refused(put(path, packed[:cut]))
    assert "damaged gzip file" in refused(put(path, packed + b"more"))
    assert "damaged gzip file" in refused(put(path, packed[:2] + b"\xff" + packed[3:]))
    assert "damaged gzip file (CRC check failed" in refused(
        put(path, packed[:-8] + b"\0\0\0\0" + packed[-4:])
    )
    assert "damaged gzip file" in refused(put(path, packed[:10] + b"\xff" * 8 + packed[18:]))


@given(st.binary(max_size=64), st.sampled_from([b"", b"\0\0\x08\x03", b"\0\0\x08\x01", b"\x1f\x8b\x08\0"]))
@once_a_file
def test_random_bytes(tmp_path, content, start):
    path = put(tmp_path / "random", start + content)
    for read in (read_images, read_labels):
        with suppress(DataError):
            assert idx(read(path)) == path.read_bytes()


@given(st.integers(0, 10**6), st.integers(0, 7))
@once_a_file
def test_no_flipped_bit_of_a_packed_file_goes_unnoticed(tmp_path, place, bit):
    content = bytearray(gzip.compress(IMAGE_FILE, mtime=0))
    content[place % len(content)] ^= 1 << bit
    with suppress(DataError):
        np.testing.assert_array_equal(read_images(put(tmp_path / "flipped", content)), IMAGES)


def bomb(header):
    """Pack a header and 50 MB of zeros into 50 kB."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return packer.compress(header) + b"".join(packer.compress(zeros) for _ in range(50)) + packer.flush()


def test_a_bomb_takes_no_memory(tmp_path):
    small = struct.pack(">HBB3I", 0, 8, 3, 10, 28, 28)
    tiny_claim = put(tmp_path / "bomb", bomb(small))
    huge_claim = put(tmp_path / "claim", gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2000, 1000, 1000)))
    no_idx = put(tmp_path / "zeros", bomb(b"\1"))
    for path, message in (
        (tiny_claim, "longer than the 7840 bytes its header promises"),
        (huge_claim, "truncated: 0 bytes of 2000000000"),
        (no_idx, "not an IDX file"),
    ):
        tracemalloc.start()
        assert message in refused(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5_000_000


def test_the_limit_holds_for_what_is_there_too(tmp_path, monkeypatch):
    monkeypatch.setattr(idx_module, "MAX_PAYLOAD", 23)
    assert "claims 24 bytes" in refused(put(tmp_path / "images", IMAGE_FILE))


# --- pairs


@pytest.fixture
def pair(tmp_path):
    return put(tmp_path / "images.gz", gzip.compress(IMAGE_FILE, mtime=0)), put(
        tmp_path / "labels", LABEL_FILE
    )


def test_pair(pair):
    digits = read_pair(*pair)
    assert isinstance(digits, ImageSet)
    assert len(digits) == 4
    assert digits.shape == (1, 2, 3)
    assert digits.classes == 10
    assert digits.labels.dtype == np.uint16
    assert digits.labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(digits.images, IMAGES)
    assert digits.source == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pair}


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_limit(pair, limit):
    digits = read_pair(*pair, limit=limit)
    assert len(digits) == min(limit, 4)
    np.testing.assert_array_equal(digits.images, IMAGES[:limit])
    with pytest.raises(SettingsError, match="limit must be at least 1, got 0"):
        read_pair(*pair, limit=0)


def test_classes(pair):
    images, labels = pair
    put(labels, idx(np.array([0, 1, 2, 1], np.uint8)))
    assert read_pair(images, labels).classes == 10
    put(labels, idx(np.array([1, 26, 2, 3], np.uint8)))
    # All labels count, whatever is kept: the number of classes does not depend on the limit.
    assert read_pair(images, labels, limit=1).classes == 27
    assert read_pair(images, labels, classes=47).classes == 47
    with pytest.raises(
        DataError, match="labels out of range: image 1 has label 26, labels must lie below the 26"
    ):
        read_pair(images, labels, classes=26)


def test_counts_differ(pair):
    images, labels = pair
    put(labels, idx(LABELS[:3]))
    with pytest.raises(DataError, match=re.escape(f"{images} holds 4 images, but {labels} holds 3 labels")):
        read_pair(images, labels)


def test_image_set():
    digits = ImageSet(IMAGES, LABELS.astype(np.uint16), 10, {"a": "b"})
    part = digits.part(1, 3)
    assert np.shares_memory(part.images, IMAGES)
    assert (part.labels.tolist(), part.classes, part.source) == ([0, 9], 10, {"a": "b"})
    with pytest.raises(SettingsError, match="images 1 to 5 asked for, the set holds 4"):
        digits.part(1, 5)
    for images, labels, message in (
        (IMAGES.astype(float), digits.labels, "images must be uint8"),
        (IMAGES[0], digits.labels, "images must be uint8 (n, H, W)"),
        (IMAGES, LABELS, "labels must be uint16"),
        (IMAGES[1:], digits.labels, "3 images but 4 labels"),
        (IMAGES, digits.labels + np.uint16(1), "labels out of range: image 2 has label 10"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            ImageSet(images, labels, 10)


# --- folders


def fill(folder, names):
    for name in names:
        content = IMAGE_FILE if "images" in name.lower() else LABEL_FILE
        put(folder / name, gzip.compress(content) if name.endswith(".gz") else content)


MNIST = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


@pytest.mark.parametrize(
    "names",
    [
        MNIST,
        [f"{name}.gz" for name in MNIST],
        [name.replace("-idx", ".idx") for name in MNIST],
        [f"emnist-letters-{name}.gz".replace("t10k", "test") for name in MNIST],
        [name.upper() for name in MNIST],
    ],
    ids=["raw", "packed", "dotted", "emnist", "upper case"],
)
def test_usual_names(tmp_path, names):
    fill(tmp_path, [*names, "README.md"])
    (tmp_path / "emnist-mnist-train-images-idx3-ubyte").mkdir()  # a folder of such a name is no file
    found = find_idx_folder(str(tmp_path))
    assert found == {
        "train": (tmp_path / names[0], tmp_path / names[1]),
        "test": (tmp_path / names[2], tmp_path / names[3]),
    }
    sets = load_idx_folder(tmp_path, limit=2)
    assert [len(digits) for digits in sets.values()] == [2, 2]


def test_the_packed_file_is_preferred(tmp_path):
    fill(tmp_path, [*MNIST, f"{MNIST[0]}.gz", MNIST[0].replace("-idx", ".idx")])
    assert find_idx_folder(tmp_path)["train"][0].name == f"{MNIST[0]}.gz"


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        DataError, match=re.escape(f"{tmp_path}: missing train-images-idx3-ubyte[.gz], train-labels")
    ):
        find_idx_folder(tmp_path)
    fill(tmp_path, MNIST[:3])
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: missing t10k-labels-idx1-ubyte[.gz]") + "$"):
        find_idx_folder(tmp_path)
    with pytest.raises(DataError, match=r"cannot read the folder .*nowhere: No such file"):
        find_idx_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot read the folder"):
        find_idx_folder(tmp_path / MNIST[0])


def test_missing_emnist_files_are_named_like_the_others(tmp_path):
    fill(tmp_path, ["emnist-letters-train-images-idx3-ubyte.gz", "emnist-letters-train-labels-idx1-ubyte.gz"])
    with pytest.raises(
        DataError, match=r"missing emnist-letters-test-images-idx3-ubyte\[\.gz\], emnist-letters-test-l"
    ):
        find_idx_folder(tmp_path)


def test_several_sets_in_one_folder(tmp_path):
    fill(tmp_path, [f"emnist-{name}-train-images-idx3-ubyte.gz" for name in ("letters", "digits")])
    with pytest.raises(
        DataError, match=r"more than one set \('emnist-digits', 'emnist-letters'\); put the one"
    ):
        find_idx_folder(tmp_path)


def test_splits_that_do_not_fit(tmp_path):
    fill(tmp_path, MNIST)
    put(tmp_path / MNIST[2], idx(np.zeros((4, 5, 5), np.uint8)))
    with pytest.raises(DataError, match="images of different sizes for training and test: 2x3 and 5x5"):
        load_idx_folder(tmp_path)
    put(tmp_path / MNIST[2], IMAGE_FILE)
    put(tmp_path / MNIST[3], idx(np.array([1, 2, 3, 30], np.uint8)))
    with pytest.raises(
        DataError, match="labels out of range: image 3 has label 30, labels must lie below the 10"
    ):
        load_idx_folder(tmp_path)


def test_reading_stops_soon_after_what_was_promised(tmp_path, monkeypatch):
    """The stream is asked for one byte more than the header promises, and no more."""
    asked = []

    class Counting(io.BytesIO):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    monkeypatch.setattr(idx_module.gzip, "GzipFile", lambda fileobj: Counting(IMAGE_FILE + bytes(1000)))
    assert "longer than" in refused(put(tmp_path / "a.gz", gzip.compress(IMAGE_FILE)))
    assert sum(asked) == len(IMAGE_FILE) + 1
