"""Headers inside HDF5 files that the HDF5 library trusts too far: found before it reads them.

The library (2.0.0 at least) reserves and fills up to 137 GB for a forged index of chunks, and divides by zero
for a forged layout of chunks. The bytes are described in the HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import h5py

# What HDF5 gives every extensible array, the index of chunks of a data set that can grow (VII.C): bits of a
# number of chunks, entries of the index block, least entries of a data block, least blocks of a super block,
# bits of the entries of a page. Nothing in h5py changes them.
_EXTENSIBLE = bytes((32, 4, 16, 4, 10))
_FIXED_PAGE_BITS = 10  # the same for a fixed array, the index of a data set that cannot grow (VII.D)
_LEAST_ENTRY = 8  # bytes
_LAYOUT, _CONTINUATION = 8, 16  # types of messages (IV.A.2)
_LONGEST_HEADER = 1 << 20


class _Gate(io.FileIO):
    """A file as HDF5 may see it: blocks that hold a header to beware of come to it as zeros.

    The library reads a block from its beginning, and an object header before it believes anything in it.
    """

    lies = False

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - anything with the buffer protocol
        """Fill a buffer from the file."""
        position = self.tell()
        count = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        try:
            bad = self._is_to_beware_of(position, bytes(view[:32]))
        except Exception:  # it leads nowhere
            bad = True
        if bad:
            self.lies = True
            view[:] = bytes(len(view))
        return count

    def _is_to_beware_of(self, position: int, head: bytes) -> bool:
        size = os.fstat(self.fileno()).st_size
        # The superblock, which the library first asks for the signature alone.
        if position == 0 and len(head) == 32:
            # Sizes of addresses and lengths, and the address that all others are relative to (II).
            sizes, base = (head[13:15], head[24:32]) if head[8] < 2 else (head[9:11], head[12:20])
            return sizes != b"\x08\x08" or any(base)
        if head[:4] == b"EAHD":
            return head[7:12] != _EXTENSIBLE
        if head[:4] == b"FAHD":
            return head[7] != _FIXED_PAGE_BITS or _number(head[8:16]) * _LEAST_ENTRY > size
        return any(self._bad_layouts(position, head))

    def _bad_layouts(self, position: int, head: bytes) -> Iterator[bool]:
        """Whether each layout of chunks in an object header is one to beware of; none in other blocks."""
        if head[:4] == b"OHDR":
            flags = head[5]
            begin = position + 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1)
            width = 1 << (flags & 3)
            parts = [(begin + width, _number(os.pread(self.fileno(), width, begin)))]
            type_bytes, before_data, frame = 1, 6 if flags & 4 else 4, 4
        elif head[:2] == b"\x01\x00":
            parts = [(position + 16, _number(head[8:12]))]
            type_bytes, before_data, frame = 2, 8, 0
        else:
            return
        left = _LONGEST_HEADER
        while parts:
            begin, length = parts.pop()
            left -= max(length, 1)
            if left < 0:
                # A block of values may look like a header of the old kind, and be longer.
                yield type_bytes == 1
                return
            block = os.pread(self.fileno(), length, begin)
            at = 0
            while at + before_data <= len(block):
                kind = _number(block[at : at + type_bytes])
                end = at + before_data + _number(block[at + type_bytes : at + type_bytes + 2])
                data = block[at + before_data : end]
                if kind == _CONTINUATION:
                    parts.append((_number(data[:8]) + frame, _number(data[8:16]) - 2 * frame))
                elif kind == _LAYOUT and data[:1] >= b"\x04" and data[1:2] == b"\x02":
                    # One dimension more than the data set has, and bytes for the size of each of them.
                    # (All that evsnn reads has three at most, and chunks whose sizes fit 32 bits.)
                    yield not 2 <= data[3] <= 4 or not 1 <= data[4] <= 4
                at = end


def header_lies(data_file: str, name: str) -> bool:
    """Whether a data set, not opened yet, has a header that HDF5 must not see.

    Parameters
    ----------
    data_file : str
        Path of the file.
    name : str
        Path of the data set inside it.
    """
    with _Gate(data_file) as gate:
        # A chunk is looked up, which without room for it is not read. What else is wrong shows when it is.
        with suppress(Exception), h5py.File(gate, "r") as file:
            data = file[name]
            # To ask a virtual data set for its shape opens other files.
            if data.id.get_create_plist().get_layout() == h5py.h5d.CHUNKED:
                data.id.read_direct_chunk((0,) * data.ndim, out=bytearray())
        return gate.lies


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
