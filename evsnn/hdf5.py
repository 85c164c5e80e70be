"""HDF5 files from others, read without trust, and a sink for our own that survives a full disk."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, EvsnnError

DAMAGED = "the file is damaged, copy or make it again"
# What a reader accepts from a file it did not write: without limits, few bytes can promise terabytes.
_MAX_CHUNK_BYTES = 1 << 26
_MAX_DEFLATE_RATIO = 1100  # deflate cannot do better than 1032 to 1
_MIN_BYTES_A_CHUNK = 8  # no entry of a chunk index is smaller
_FILTERS = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32}


def open_dataset(
    group: h5py.Group, name: str, kind: tuple[type[np.generic], int], where: str, file_size: int
) -> h5py.Dataset:
    """Open a data set and refuse whatever the format does not allow, before any of its values is read.

    Parameters
    ----------
    group : h5py.Group
    name : str
    kind : (type, int)
        Type of the values and number of dimensions.
    where : str
        Named in messages.
    file_size : int
        Bytes of the file, which no claim may exceed.

    Raises
    ------
    DataError
        If it is missing, of another kind, without checksum, linked from elsewhere or larger than its file.
    """
    what = f"data set {name!r}"
    with reading(where, what):
        if group.get(name, getlink=True) is None:
            raise DataError(f"{where}: {what} is missing")
        refuse_links(group, name, where)
        data = group[name]
        if not isinstance(data, h5py.Dataset):
            raise DataError(f"{where}: {name!r} must be a data set")
        dtype, ndim = kind
        if data.dtype.newbyteorder("=") != np.dtype(dtype) or data.ndim != ndim:
            raise DataError(
                f"{where}: {what} must be {np.dtype(dtype)} in {ndim} dimension{'s' * (ndim > 1)}, "
                f"found {data.dtype} in {data.ndim}"
            )
        creation = data.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise DataError(f"{where}: {what} keeps its values outside the file, which evsnn does not follow")
        filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
        if creation.get_layout() != h5py.h5d.CHUNKED or h5py.h5z.FILTER_FLETCHER32 not in filters:
            raise DataError(f"{where}: {what} has no Fletcher32 checksum")
        if not set(filters) <= _FILTERS or len(set(filters)) < len(filters):
            raise DataError(f"{where}: {what} is packed in a way that evsnn does not read; use gzip")
        claims = DataError(
            f"{where}: {what} claims {data.size} values, more than the file can hold; {DAMAGED}"
        )
        if math.prod(data.chunks) * data.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise DataError(f"{where}: {what} has chunks of more than {_MAX_CHUNK_BYTES >> 20} MiB")
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True))
        if chunks * _MIN_BYTES_A_CHUNK > file_size:
            raise claims
        if (stored := data.id.get_num_chunks()) != chunks:
            raise DataError(f"{where}: {what} has {stored} of its {chunks} chunks; {DAMAGED}")
        stored_bytes = data.id.get_storage_size()
        if stored_bytes > file_size or data.nbytes > stored_bytes * _MAX_DEFLATE_RATIO:
            raise claims
        return data


def refuse_links(group: h5py.Group, name: str, where: str) -> None:
    """Refuse an entry that is a soft or external link."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"{where}: {name!r} is a link to another place, which evsnn does not follow")


@contextmanager
def reading(where: str, what: str) -> Iterator[None]:
    """Turn whatever h5py raises on a damaged or hostile file into one line."""
    try:
        yield
    except EvsnnError:
        raise
    except MemoryError as error:
        raise DataError(f"{where}: {what} does not fit into memory; load fewer samples at a time") from error
    except Exception as error:
        why = reason(error)
        if "checksum" in why or "filter returned failure" in why:
            raise DataError(f"{where}: the checksum of {what} failed; {DAMAGED}") from error
        raise DataError(f"{where}: cannot read {what} ({why}); {DAMAGED}") from error


def reason(error: Exception) -> str:
    """Say in a few words what went wrong: the system's words, else the innermost reason that HDF5 gives."""
    text = " ".join(str(error).split()).strip("'\"")
    if isinstance(error, OSError) and error.strerror and error.strerror in text and "(" not in error.strerror:
        return error.strerror
    inner = re.search(r"\((.*)\)$", text)
    return (inner.group(1) if inner else text)[:200] or type(error).__name__


def readable_size(path: Path) -> int:
    """Size of a file in bytes; a DataError if it cannot be read."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DataError(f"{path}: not a file")
        with path.open("rb"):
            return size
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from error


def decoded(value: object) -> str:
    """Text of an attribute, however HDF5 stored it; empty if it is no text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def fixed_text(text: str) -> npt.NDArray[np.bytes_]:
    """Text for an attribute, of fixed length: no checksum covers what HDF5 keeps as variable length."""
    data = text.encode()
    return np.array(data, dtype=h5py.string_dtype("utf-8", len(data)))


class Sink(io.RawIOBase):
    """The file HDF5 writes to, which never fails in its face.

    HDF5 cannot close a file after a write that failed: it keeps the file open, and a second close or the end
    of the program crashes. So the first error is kept for the caller, who asks after every step, and what
    HDF5 writes from then on, a few blocks until the caller gives up, is kept in memory to be read back.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = io.FileIO(path, "x+")
        self._position = 0
        self._kept: list[tuple[int, bytes]] = []
        self.error: BaseException | None = None

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def writable(self) -> bool:
        """Whether it can be written: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can seek: yes."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; return it."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            ends = [start + len(data) for start, data in self._kept]
            offset += max([self._file.seek(0, os.SEEK_END), *ends])
        self._position = offset
        return offset

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - anything with the buffer protocol
        """Fill a buffer; bytes beyond the end are 0."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._file.seek(self._position)
        self._file.readinto(view)
        for start, data in self._kept:
            low, high = max(start, self._position), min(start + len(data), self._position + len(view))
            if low < high:
                view[low - self._position : high - self._position] = data[low - start : high - start]
        self._position += len(view)
        return len(view)

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - anything with the buffer protocol
        """Write all of a buffer, or keep it in memory after an error."""
        view = memoryview(data).cast("B")
        try:
            if self.error is None:
                self._file.seek(self._position)
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:]) or 0
        except BaseException as error:  # an interrupt, too, must not pass through HDF5
            self.error = error
        if self.error is not None:
            self._kept.append((self._position, bytes(view)))
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file to a size."""
        size = self._position if size is None else size
        try:
            if self.error is None:
                self._file.truncate(size)
        except BaseException as error:
            self.error = error
        return size

    def finish(self) -> None:
        """Bring everything to the disk and close; errors are raised."""
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        """Close without flushing to disk."""
        if not self.closed:
            self._file.close()
        super().close()
