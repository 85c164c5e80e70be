"""Layout of an event file.

One group a split (``train``, ``validation``, ``test``) holds the data sets ``times`` and ``units`` (uint32,
one value an event), ``offsets`` (int64, samples + 1), ``labels`` (uint16, one a sample) and, where the events
were drawn from images, ``images`` (uint8, samples x H x W, smaller than the input by an equal margin all
around where a camera saw them). The attributes of the file say what it is:
``format``, ``version``, ``shape``, ``duration_us``, ``classes``, ``source``, ``encoder`` and ``seed``.

Every data set is cut into chunks and carries a Fletcher32 checksum over what is stored: values may be
shuffled, then packed with gzip, and come under the checksum last. The files are written in the HDF5 1.10
format, whose inner structures are checksummed as well, so that a flipped bit is found wherever it matters.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FORMAT = "evsnn-events"
VERSION = 1
SPLITS = ("train", "validation", "test")
COLUMNS: dict[str, tuple[type[np.generic], int]] = {
    "times": (np.uint32, 1),
    "units": (np.uint32, 1),
    "offsets": (np.int64, 1),
    "labels": (np.uint16, 1),
    "images": (np.uint8, 3),
}


def shape_fits(shape: tuple[Any, ...]) -> bool:
    """Whether a shape is three positive numbers (C, H, W) whose product fits 32 bits."""
    return (
        len(shape) == 3
        and all(isinstance(size, int | np.integer) and size > 0 for size in shape)
        and math.prod(int(size) for size in shape) <= 1 << 32
    )


def image_chunk(shape: tuple[int, int, int]) -> int:
    """Images of a (C, H, W) input that make a chunk of about 256 KiB."""
    return max(1, (1 << 18) // (shape[1] * shape[2]))
