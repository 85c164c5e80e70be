"""IDX files, the format of MNIST and of the sets made after it, raw or packed with gzip.

The format: two zero bytes, a type code (only 0x08, unsigned bytes, is read here), the number of dimensions,
each dimension as a big-endian 32-bit number, then the values. See http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from evsnn.datasets.images import ImageSet
from evsnn.errors import DataError, EvsnnError, SettingsError
from evsnn.hdf5 import readable_size

MAX_PAYLOAD = 1 << 31

_UINT8 = 0x08
_OTHER_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20

# train-images-idx3-ubyte.gz (MNIST, Fashion-MNIST, KMNIST), train-images.idx3-ubyte (as some archives unpack
# it), emnist-letters-test-labels-idx1-ubyte.gz (EMNIST).
_NAME = re.compile(
    r"(?P<set>.*?)[-_.]?(?P<split>train|t10k|test)"
    r"[-_.](?P<kind>images|labels)[-_.]idx[13][-_.]ubyte(?P<gz>\.gz)?",
    re.IGNORECASE,
)
_SPLIT_OF = {"train": "train", "t10k": "test", "test": "test"}


def read_images(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read an IDX file of images.

    Parameters
    ----------
    path : path-like
        The file; whether it is packed with gzip is seen from its content.

    Returns
    -------
    ndarray of uint8, shape (n, H, W)

    Raises
    ------
    DataError
        If the file is missing, damaged, truncated, longer than its header says, or holds something else.
    """
    return _read(Path(path), 3, "images")


def read_labels(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Read an IDX file of labels.

    Parameters
    ----------
    path : path-like
        The file; whether it is packed with gzip is seen from its content.

    Returns
    -------
    ndarray of uint8, shape (n,)

    Raises
    ------
    DataError
        As :func:`read_images`.
    """
    return _read(Path(path), 1, "labels")


def read_pair(
    images: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    limit: int | None = None,
    classes: int | None = None,
) -> ImageSet:
    """Read images and their labels.

    Parameters
    ----------
    images, labels : path-like
        The two IDX files.
    limit : int, optional
        Keep only the first so many.
    classes : int, optional
        Number of classes. By default the largest label of the whole file + 1, and at least 10: a few digits
        out of MNIST still belong to ten classes, and EMNIST Letters, whose labels run from 1 to 26, gets 27,
        of which the first stays unused.

    Returns
    -------
    ImageSet
        With the SHA-256 of both files as they lie on the disk.

    Raises
    ------
    DataError
        If a file cannot be read, their counts differ, or a label is not below ``classes``.
    SettingsError
        If ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise SettingsError(f"limit must be at least 1, got {limit}")
    images, labels = Path(images), Path(labels)
    pixels, numbers = read_images(images), read_labels(labels)
    if len(pixels) != len(numbers):
        raise DataError(f"{images} holds {len(pixels)} images, but {labels} holds {len(numbers)} labels")
    if classes is None:
        classes = max(10, int(numbers.max()) + 1)
    if int(numbers.max()) >= classes:
        bad = int(np.argmax(numbers >= classes))
        raise DataError(
            f"{labels}: labels out of range: image {bad} has label {numbers[bad]}, "
            f"labels must lie below the {classes} classes"
        )
    if limit is not None and limit < len(pixels):
        pixels, numbers = pixels[:limit].copy(), numbers[:limit]
    return ImageSet(
        images=pixels,
        labels=numbers.astype(np.uint16),
        classes=classes,
        source={file.name: _sha256(file) for file in (images, labels)},
    )


def find_idx_folder(folder: str | os.PathLike[str]) -> dict[str, tuple[Path, Path]]:
    """Find the IDX files of a folder by their usual names.

    Known are ``train-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte`` and so on (MNIST, Fashion-MNIST,
    KMNIST), with a dot for the second dash (``train-images.idx3-ubyte``), and with a name in front and
    ``test`` for ``t10k`` (``emnist-letters-test-images-idx3-ubyte``), each with or without ``.gz``. Where a
    file is there in both ways the packed one is taken, because gzip carries a checksum.

    Parameters
    ----------
    folder : path-like

    Returns
    -------
    dict of str to (Path, Path)
        For ``train`` and ``test``, the file of images and the file of labels.

    Raises
    ------
    DataError
        If the folder cannot be read, a file is missing, or the folder holds more than one set.
    """
    folder = Path(folder)
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the folder {folder}: {_why(error)}") from error
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for name in names:
        if match := _NAME.fullmatch(name):
            role = _SPLIT_OF[match["split"].lower()], match["kind"].lower()
            files = found.setdefault(match["set"].lower(), {})
            if role not in files or match["gz"]:
                files[role] = folder / name
    if len(found) > 1:
        sets = ", ".join(repr(name) for name in sorted(found))
        raise DataError(
            f"{folder}: holds more than one set ({sets}); put the one you want into a folder of its own"
        )
    (prefix, files), *_ = found.items() or [("", {})]
    front = f"{prefix}-" if prefix else ""
    missing = [
        f"{front}{'train' if split == 'train' else 'test' if prefix else 't10k'}-{kind}-idx{dims}-ubyte[.gz]"
        for split in ("train", "test")
        for kind, dims in (("images", 3), ("labels", 1))
        if (split, kind) not in files
    ]
    if missing:
        raise DataError(f"{folder}: missing {', '.join(missing)}")
    return {split: (files[split, "images"], files[split, "labels"]) for split in ("train", "test")}


def read_folder(pairs: Mapping[str, tuple[Path, Path]], limit: int | None = None) -> dict[str, ImageSet]:
    """Read the splits that :func:`find_idx_folder` found; the training labels decide the number of classes.

    Parameters
    ----------
    pairs : mapping of str to (Path, Path)
        Files of images and labels of ``train`` and of every other split.
    limit : int, optional
        Keep only the first so many of every split.

    Raises
    ------
    DataError
        As :func:`read_pair`, and if the splits have images of different sizes.
    """
    train = read_pair(*pairs["train"], limit=limit)
    sets = {"train": train}
    for split, (images, labels) in pairs.items():
        if split != "train":
            sets[split] = read_pair(images, labels, limit=limit, classes=train.classes)
            if sets[split].shape != train.shape:
                sizes = " and ".join("x".join(map(str, s.shape[1:])) for s in (train, sets[split]))
                raise DataError(f"{images}: images of different sizes for training and {split}: {sizes}")
    return sets


def _read(path: Path, ndim: int, what: str) -> npt.NDArray[np.uint8]:
    readable_size(path)  # opening a named pipe would wait for somebody to write to it
    with _naming(path), path.open("rb") as raw:
        return parse(raw, path, ndim, what)


def parse(raw: BinaryIO, path: Path, ndim: int, what: str) -> npt.NDArray[np.uint8]:
    """Read the content of an IDX file, packed with gzip or not.

    Parameters
    ----------
    raw : binary file
        At its beginning.
    path : Path
        Named in messages.
    ndim : int
        Number of dimensions: 3 for images, 1 for labels.
    what : str
        The plural of what it holds, for messages.

    Raises
    ------
    DataError
        As :func:`read_images`.
    """
    with _naming(path):
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as stream:
                return _parse(cast("BinaryIO", stream), path, ndim, what)
        return _parse(raw, path, ndim, what)


def _parse(stream: BinaryIO, path: Path, ndim: int, what: str) -> npt.NDArray[np.uint8]:
    header = stream.read(4)
    if not header:
        raise DataError(f"{path}: the file is empty")
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in {_UINT8, *_OTHER_TYPES}:
        raise DataError(f"{path}: not an IDX file (raw or gzip)")
    if header[2] != _UINT8:
        raise DataError(f"{path}: holds {_OTHER_TYPES[header[2]]}, only IDX files of unsigned bytes are read")
    if header[3] != ndim:
        dimensions = "1 dimension" if header[3] == 1 else f"{header[3]} dimensions"
        raise DataError(f"{path}: has {dimensions}, {what} have {ndim}; are images and labels mixed up?")
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise DataError(f"{path}: truncated: it ends inside its header")
    shape = struct.unpack(f">{ndim}I", sizes)
    if 0 in shape:
        raise DataError(f"{path}: holds no {what}, its header says {'x'.join(map(str, shape))}")
    promised = math.prod(shape)
    if promised > MAX_PAYLOAD:
        raise DataError(
            f"{path}: its header claims {promised} bytes, more than the {MAX_PAYLOAD >> 30} GiB that are read"
        )
    # Memory grows with what is read, whatever the header claims. One byte more than promised is asked for, to
    # see that nothing follows; and at its end a gzip stream checks its own sum.
    payload = bytearray()
    while piece := stream.read(min(_PIECE, promised + 1 - len(payload))):
        payload += piece
    if len(payload) < promised:
        raise DataError(f"{path}: truncated: {len(payload)} bytes of {promised}")
    if len(payload) > promised:
        raise DataError(f"{path}: longer than the {promised} bytes its header promises")
    return np.frombuffer(payload, np.uint8).reshape(shape)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever reading raises into one line with the name of the file."""
    try:
        yield
    except EvsnnError:
        raise
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({_why(error)}); copy or download it again") from error
    except EOFError as error:
        raise DataError(f"{path}: truncated gzip file; copy or download it again") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {_why(error)}") from error


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _sha256(path: Path) -> str:
    with _naming(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
