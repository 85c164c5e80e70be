"""HDF5 files from others, read without trust, and a sink for our own that survives a full disk."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, EvsnnError
from evsnn.headers import header_lies

DAMAGED = "the file is damaged, copy or make it again"
# What a reader accepts from a file it did not write: without limits, few bytes can promise terabytes.
_MAX_CHUNK_BYTES = 1 << 26
_MAX_DEFLATE_RATIO = 1100  # deflate cannot do better than 1032 to 1
_MIN_BYTES_A_CHUNK = 8  # no entry of a chunk index is smaller
# In the order in which they are applied.
_FILTERS = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32)

_FALLING = np.arange(1 << 17, 0, -1, dtype=np.float64)


class StoredArray:
    """A data set of a file from others: checked before any of its values is read, then read chunk by chunk.

    HDF5 only finds the stored bytes of a chunk here; they are unpacked by this class. HDF5 itself (2.0.0 at
    least) lets a chunk of a few kilobytes unpack to gigabytes, and where one unpacks to less than a chunk
    holds it hands out whatever lay in memory behind it.

    Parameters
    ----------
    data : h5py.Dataset
    where : str
        Named in messages.
    file_size : int
        Bytes of the file, which no claim may exceed.

    Raises
    ------
    DataError
        If it is packed in a way that the format does not allow, or claims more than its file holds.
    """

    def __init__(self, data: h5py.Dataset, where: str, file_size: int) -> None:
        what = f"data set {data.name.rpartition('/')[2]!r}"
        self._where, self._what = where, what
        self._data = data
        self.shape: tuple[int, ...] = data.shape
        # HDF5's own count of the values may have run over.
        size = math.prod(self.shape)
        self.nbytes: int = size * data.dtype.itemsize
        creation = data.id.get_create_plist()
        filters = [creation.get_filter(i) for i in range(creation.get_nfilters())]
        self._filters = [code for code, *_ in filters]
        if creation.get_layout() != h5py.h5d.CHUNKED or h5py.h5z.FILTER_FLETCHER32 not in self._filters:
            raise DataError(f"{where}: {what} has no Fletcher32 checksum")
        if self._filters != [code for code in _FILTERS if code in self._filters]:
            raise DataError(
                f"{where}: {what} is packed in a way that evsnn does not read; use gzip, then Fletcher32"
            )
        for code, _, values, _ in filters:
            if code == h5py.h5z.FILTER_SHUFFLE and values[:1] != (data.dtype.itemsize,):
                raise DataError(f"{where}: {what} is not shuffled by the size of its values; {DAMAGED}")
        self._chunk_bytes = math.prod(data.chunks) * data.dtype.itemsize
        if self._chunk_bytes > _MAX_CHUNK_BYTES:
            raise DataError(f"{where}: {what} has chunks of more than {_MAX_CHUNK_BYTES >> 20} MiB")
        # No chunk is stored in more: deflate and Fletcher32 add less than that to values that do not pack.
        self._most_stored = self._chunk_bytes + self._chunk_bytes // 256 + 64
        self._grid = [-(-rows // chunk) for rows, chunk in zip(self.shape, data.chunks, strict=True)]
        self._last: tuple[tuple[int, ...], npt.NDArray[Any]] | None = None
        # HDF5 is not asked which chunks there are: it believes what the index says of its own length, and
        # counts to 2^64. A chunk that is missing shows when it is read.
        least = max(math.prod(self._grid) * _MIN_BYTES_A_CHUNK, self.nbytes // _MAX_DEFLATE_RATIO)
        if least > file_size:
            raise DataError(f"{where}: {what} claims {size} values, more than the file can hold; {DAMAGED}")

    def read(self, low: int, high: int) -> npt.NDArray[Any]:
        """Read rows ``low`` to ``high - 1``.

        Raises
        ------
        DataError
            If a checksum fails or a chunk does not unpack to its size.
        """
        with reading(self._where, self._what):
            rows = self._data.chunks[0]
            values = np.empty((high - low, *self.shape[1:]), self._data.dtype.newbyteorder("="))
            if values.size == 0:
                return values
            bounds = [(low, high), *((0, size) for size in self.shape[1:])]
            for index in itertools.product(
                range(low // rows, -(-high // rows)), *(range(count) for count in self._grid[1:])
            ):
                origin = tuple(i * size for i, size in zip(index, self._data.chunks, strict=True))
                inside, outside = [], []
                for begin, size, (first, last) in zip(origin, self._data.chunks, bounds, strict=True):
                    start, stop = max(begin, first), min(begin + size, last)
                    inside.append(slice(start - begin, stop - begin))
                    outside.append(slice(start - first, stop - first))
                values[tuple(outside)] = self._chunk(origin)[tuple(inside)]
            return values

    def _chunk(self, origin: tuple[int, ...]) -> npt.NDArray[Any]:
        # Samples are read one by one, and many of them lie in one chunk.
        last = self._last
        if last is not None and last[0] == origin:
            return last[1]
        try:
            # Into memory of ours: HDF5 would reserve what the index says of the chunk.
            skipped, packed = self._data.id.read_direct_chunk(origin, out=bytearray(self._most_stored))
        except Exception as error:
            # Of a chunk that is missing HDF5 may name any size.
            why = "or one takes more than its values can" if "out buffer" in str(error) else reason(error)
            raise DataError(f"{self._where}: {self._what} lacks a chunk ({why}); {DAMAGED}") from error
        if skipped:
            raise DataError(f"{self._where}: {self._what} has a chunk without checksum; {DAMAGED}")
        plain = self._unpack(bytes(packed))
        if len(plain) != self._chunk_bytes:
            raise DataError(
                f"{self._where}: {self._what} has a chunk that does not unpack to its "
                f"{self._chunk_bytes} bytes; {DAMAGED}"
            )
        chunk = np.frombuffer(plain, self._data.dtype).reshape(self._data.chunks)
        self._last = origin, chunk
        return chunk

    def _unpack(self, packed: bytes) -> bytes:
        """Undo the filters; at most one byte more than a chunk holds is ever made."""
        content = packed[:-4]
        if struct.pack("<I", fletcher32(content)) != packed[-4:]:
            raise DataError(f"{self._where}: the checksum of {self._what} failed; {DAMAGED}")
        if h5py.h5z.FILTER_DEFLATE in self._filters:
            unpacking = zlib.decompressobj()
            content = unpacking.decompress(content, self._chunk_bytes + 1)
            if not unpacking.eof:
                return b""
        if h5py.h5z.FILTER_SHUFFLE in self._filters and len(content) == self._chunk_bytes:
            # The first bytes of all values, then all second bytes, and so on.
            planes = np.frombuffer(content, np.uint8).reshape(self._data.dtype.itemsize, -1)
            values = np.empty(planes.shape[::-1], np.uint8)
            for i, plane in enumerate(planes):
                values[:, i] = plane
            content = values.tobytes()
        return content


def fletcher32(data: bytes) -> int:
    """HDF5's Fletcher checksum: sums of big-endian 16-bit words modulo 65535, 0 only where all are 0."""
    words = np.frombuffer(data + bytes(len(data) % 2), ">u2").astype(np.float64)
    first = second = 0
    # Pieces whose sums a float64 holds exactly. (A dot product would wake the threads of a BLAS each time.)
    for low in range(0, len(words), len(_FALLING)):
        piece = words[low : low + len(_FALLING)]
        second += len(piece) * first + int((piece * _FALLING[-len(piece) :]).sum())
        first += int(piece.sum())
    return ((second - 1) % 0xFFFF + 1 if second else 0) << 16 | ((first - 1) % 0xFFFF + 1 if first else 0)


def open_dataset(
    group: h5py.Group, name: str, kind: tuple[type[np.generic], int], where: str, file_size: int
) -> StoredArray:
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
        if header_lies(group.file.filename, f"{group.name}/{name}"):
            raise DataError(f"{where}: {what} has an impossible header; {DAMAGED}")
        data = group[name]
        if not isinstance(data, h5py.Dataset):
            raise DataError(f"{where}: {name!r} must be a data set")
        # First of all: to ask a virtual data set for its shape opens the files it is made of.
        creation = data.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise DataError(f"{where}: {what} keeps its values outside the file, which evsnn does not follow")
        dtype, ndim = kind
        if data.dtype.newbyteorder("=") != np.dtype(dtype) or data.ndim != ndim:
            raise DataError(
                f"{where}: {what} must be {np.dtype(dtype)} in {ndim} dimension{'s' * (ndim > 1)}, "
                f"found {data.dtype} in {data.ndim}"
            )
        return StoredArray(data, where, file_size)


def read_attribute(file: h5py.File, name: str, file_size: int, absent: str | None = None) -> Any:  # noqa: ANN401 - whatever an attribute holds
    """Read an attribute of a file, whatever it is.

    Parameters
    ----------
    file : h5py.File
    name : str
    file_size : int
        Bytes of the file, which the attribute may not exceed.
    absent : str, optional
        What to say where there is no such attribute.

    Raises
    ------
    DataError
        If it is missing, cannot be read or claims more than its file holds.
    """
    where = file.filename
    with reading(where, f"attribute {name!r}"):
        if name not in file.attrs:
            raise DataError(f"{where}: {absent or f'the attribute {name!r} is missing'}")
        if h5py.h5a.open(file.id, name.encode()).get_storage_size() > file_size:
            raise DataError(f"{where}: attribute {name!r} claims more bytes than the file has")
        return file.attrs[name]


def read_integer(file: h5py.File, name: str, file_size: int, low: int, high: int) -> int:
    """Read an attribute that is an integer of ``low`` to ``high``; errors as :func:`read_attribute`."""
    value = np.asarray(read_attribute(file, name, file_size))
    if value.size != 1 or value.dtype.kind not in "iu" or not low <= int(value.item()) <= high:
        raise DataError(f"{file.filename}: attribute {name!r} must be an integer of {low} to {high}")
    return int(value.item())


def read_json(
    file: h5py.File, name: str, file_size: int, kind: type[dict[str, Any]] | type[list[Any]]
) -> Any:  # noqa: ANN401 - whatever an attribute holds
    """Read an attribute that is a JSON object (dict) or list; errors as :func:`read_attribute`."""
    try:
        value = json.loads(decoded(read_attribute(file, name, file_size)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.filename}: attribute {name!r} is no JSON") from error
    if not isinstance(value, kind):
        raise DataError(
            f"{file.filename}: attribute {name!r} must be a JSON {'object' if kind is dict else 'list'}"
        )
    return value


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


def why_not_open(error: Exception) -> str:
    """Say why HDF5 does not open a file that begins like one of its own."""
    why = reason(error)
    if cut := re.search(r"truncated file: eof = (\d+).* stored_eof = (\d+)", why):
        return f"truncated: {cut.group(1)} bytes of {cut.group(2)}; {DAMAGED}"
    if "checksum" in why:
        return f"the checksum of its header failed; {DAMAGED}"
    return f"HDF5 cannot open it ({why}); {DAMAGED}"


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
