"""Labelled images in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, SettingsError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Grey images with their labels.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, H, W)
        Grey levels, 0 to 255.
    labels : ndarray of uint16, shape (n,)
        Class index of each image.
    classes : int
        Number of classes; every label lies below it.
    source : mapping of str to str
        SHA-256 of each file the images came from, by file name.

    Raises
    ------
    DataError
        If images and labels do not belong together, or a label is out of range.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint16]
    classes: int
    source: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.images.dtype != np.uint8:
            raise DataError(f"images must be uint8 (n, H, W), got {self.images.dtype} {self.images.shape}")
        if self.labels.ndim != 1 or self.labels.dtype != np.uint16:
            raise DataError(f"labels must be uint16 (n,), got {self.labels.dtype} {self.labels.shape}")
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")
        if len(self.labels) and int(self.labels.max()) >= self.classes:
            bad = int(np.argmax(self.labels >= self.classes))
            raise DataError(
                f"labels out of range: image {bad} has label {self.labels[bad]}, "
                f"labels must lie below the {self.classes} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image as an input, (1, H, W)."""
        _, height, width = self.images.shape
        return 1, height, width

    def part(self, start: int, stop: int) -> ImageSet:
        """Return images ``start`` to ``stop - 1`` as a view.

        Raises
        ------
        SettingsError
            If the set does not hold them.
        """
        if not 0 <= start <= stop <= len(self):
            raise SettingsError(f"images {start} to {stop} asked for, the set holds {len(self)}")
        return replace(self, images=self.images[start:stop], labels=self.labels[start:stop])
