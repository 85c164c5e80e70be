"""Recordings of event cameras, through the library faery (the extra ``dvs``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError
from evsnn.streams.format import Shape

#: Formats that faery reads: iniVation, Prophesee EVT2, EVT2.1 and EVT3, event stream, Prophesee DAT.
SUFFIXES = (".aedat4", ".raw", ".es", ".dat")

_LIMIT = 1 << 16


def is_recording(path: Path) -> bool:
    """Whether the name of a file is that of a recording."""
    return path.suffix.lower() in SUFFIXES


class Recording:
    """The events of a recording, read in pieces.

    Parameters
    ----------
    path : Path
    stream : faery.FiniteEventsStream
    """

    def __init__(self, path: Path, stream: Any) -> None:  # noqa: ANN401 - faery may not be installed
        self._path = path
        self._stream = stream
        width, height = stream.dimensions()
        #: (2, H, W): OFF is channel 0, ON is channel 1.
        self.shape: Shape = (2, int(height), int(width))

    def packets(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Times and units, in the order of the file.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        _, height, width = self.shape
        pieces = iter(self._stream)
        while True:
            try:
                events = next(pieces)
            except StopIteration:
                return
            except Exception as error:
                raise _damaged(self._path, error) from None
            x, y, p = (events[name].astype(np.int64) for name in ("x", "y", "on"))
            for begin in range(0, len(events), _LIMIT):
                part = slice(begin, begin + _LIMIT)
                if (x[part] >= width).any() or (y[part] >= height).any():
                    raise DataError(f"{self._path}: events outside its sensor of {width}x{height} pixels")
                yield events["t"][part].astype(np.int64), ((p * height + y) * width + x)[part]


def open_recording(path: Path) -> Recording:
    """Open the recording of an event camera.

    Raises
    ------
    DataError
        If faery is not installed, or the file is none.
    """
    try:
        import faery  # noqa: PLC0415 - an extra
    except ImportError:
        raise DataError(
            f"{path}: recordings of event cameras need the library faery: pip install 'evsnn[dvs]'"
        ) from None
    if not path.is_file():
        raise DataError(f"cannot read {path}: no such file")
    try:
        recording = Recording(path, faery.events_stream_from_file(path, dimensions_fallback=(0, 0)))
    except Exception as error:
        raise _damaged(path, error) from None
    if min(recording.shape) < 1:
        raise DataError(f"{path}: not a recording: its header does not say how large the sensor is")
    return recording


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: not a recording that faery reads: {reason}")
