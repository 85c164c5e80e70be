"""Make the subset of MNIST that the package ships, from the full set in benchmarks/data/mnist.

    python benchmarks/make_mnist_subset.py [SOURCE [OUTPUT]]

Taken are the first 500 images of each digit among the first 50,000 training images (the last 10,000 serve as
validation in the benchmarks and are never touched) and the first 100 of each digit among the test images, all
in their original order. Running it again gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evsnn.datasets.idx import find_idx_folder, read_pair

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "data" / "mnist"
OUTPUT = HERE.parent / "evsnn" / "datasets" / "mnist_subset"

CLASSES = 10
TRAIN_BELOW = 50_000
#: For each split: how its files begin, how many images may be chosen from, and how many of each digit are.
SPLITS = {"train": ("train", TRAIN_BELOW, 500), "test": ("t10k", None, 100)}

LICENSE = """\
# A subset of MNIST

The files in this folder are a part of the MNIST database of handwritten digits,
<http://yann.lecun.com/exdb/mnist/>, by Yann LeCun (Courant Institute, NYU), Corinna Cortes (Google Labs,
New York) and Christopher J.C. Burges (Microsoft Research, Redmond). Yann LeCun and Corinna Cortes hold the
copyright of MNIST, which is a derivative work from original NIST datasets. MNIST is made available under the
terms of the
[Creative Commons Attribution-Share Alike 3.0 license](https://creativecommons.org/licenses/by-sa/3.0/),
and so is this subset. The licence of the rest of the package does not apply to these files.

What was changed: images were selected, nothing else. Chosen are

- of the training images 0 to 49,999, the first 500 of each digit (5,000 in all; 50,000 to 59,999 are left out
  on purpose, to serve as a validation set),
- of the test images, the first 100 of each digit (1,000 in all),

in their original order, written in the original IDX format and packed with gzip, by
`benchmarks/make_mnist_subset.py`.

| file | bytes | SHA-256 | SHA-256 of the unpacked content |
| --- | --- | --- | --- |
"""


def first_of_each(labels: npt.NDArray[np.uint16], count: int) -> npt.NDArray[np.intp]:
    """Return the indices of the first ``count`` images of each digit, in ascending order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(CLASSES)]))


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    """Return an array of bytes in the IDX format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape) + array.tobytes()


def pack(data: bytes) -> bytes:
    """Pack with gzip, with neither name nor time in the header."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def main(source: Path = SOURCE, output: Path = OUTPUT) -> None:
    """Write the four files and their licence."""
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, pair in find_idx_folder(source).items():
        prefix, below, count = SPLITS[split]
        digits = read_pair(*pair, limit=below)
        chosen = first_of_each(digits.labels, count)
        assert len(chosen) == CLASSES * count
        for name, array in (
            (f"{prefix}-images-idx3-ubyte.gz", digits.images[chosen]),
            (f"{prefix}-labels-idx1-ubyte.gz", digits.labels[chosen].astype(np.uint8)),
        ):
            content = idx_bytes(array)
            packed = pack(content)
            (output / name).write_bytes(packed)
            sums = [hashlib.sha256(data).hexdigest() for data in (packed, content)]
            rows.append(f"| {name} | {len(packed):,} | {sums[0]} | {sums[1]} |\n")
    (output / "LICENSE.md").write_text(LICENSE + "".join(rows))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
