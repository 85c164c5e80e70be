"""HDF5 files altered from within: edits of a good file whose inner checksums are made right again.

A flipped bit in a file of the HDF5 1.10 format only ever shows that checksums work. What an attacker does is
to write what he likes and a checksum that fits. So an input of the fuzzers is no file but a script of edits;
:func:`altered` carries it out and repairs the checksum of every block that was touched.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

_SIGNATURES = (
    *(b"OHDR", b"OCHK", b"FRHP", b"FHIB", b"FHDB", b"BTHD", b"BTLF", b"BTIN"),
    *(b"FAHD", b"FADB", b"EAHD", b"EAIB", b"EADB", b"EASB", b"FSHD", b"FSSE", b"SMTB", b"SMLI"),
)
_SUPERBLOCK = b"\x89HDF\r\n\x1a\n"
_LONGEST_BLOCK = 1200
_MASK = 0xFFFFFFFF
#: Numbers at the edges of what sizes, addresses and counts can be.
_EDGES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, _MASK, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash lookup3 (hashlittle, initial value 0), the checksum of HDF5's inner blocks."""

    def turn(value: int, by: int) -> int:
        return (value << by | value >> 32 - by) & _MASK

    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    words = struct.unpack(f"<{-(-len(data) // 4)}I", data + bytes(-len(data) % 4)) or (0,)
    words += (0,) * (-len(words) % 3)
    for at in range(0, len(words), 3):
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        if at + 3 < len(words):
            a = (a - c) & _MASK ^ turn(c, 4)
            c = (c + b) & _MASK
            b = (b - a) & _MASK ^ turn(a, 6)
            a = (a + c) & _MASK
            c = (c - b) & _MASK ^ turn(b, 8)
            b = (b + a) & _MASK
            a = (a - c) & _MASK ^ turn(c, 16)
            c = (c + b) & _MASK
            b = (b - a) & _MASK ^ turn(a, 19)
            a = (a + c) & _MASK
            c = (c - b) & _MASK ^ turn(b, 4)
            b = (b + a) & _MASK
    if not data:
        return c
    c = ((c ^ b) - turn(b, 14)) & _MASK
    a = ((a ^ c) - turn(c, 11)) & _MASK
    b = ((b ^ a) - turn(a, 25)) & _MASK
    c = ((c ^ b) - turn(b, 16)) & _MASK
    a = ((a ^ c) - turn(c, 4)) & _MASK
    b = ((b ^ a) - turn(a, 14)) & _MASK
    return ((c ^ b) - turn(b, 24)) & _MASK


@lru_cache
def blocks(image: bytes) -> tuple[tuple[int, int], ...]:
    """Where the checksummed blocks of a file begin, and where the checksum at their end lies."""
    found = []
    for signature in (_SUPERBLOCK, *_SIGNATURES):
        start = image.find(signature)
        while start >= 0:
            for end in range(start + 8, min(start + _LONGEST_BLOCK, len(image) - 3)):
                if image[end : end + 4] == struct.pack("<I", lookup3(image[start:end])):
                    found.append((start, end))
                    break
            start = image.find(signature, start + 1)
    return tuple(found)


def altered(script: bytes, images: Sequence[bytes]) -> bytes:
    """Carry out a script: its first byte picks a file, its second says how, the rest are edits.

    An edit is a position (2 bytes, little endian), a byte that says what to do, and what that needs.
    """
    if len(script) < 2:
        return images[0]
    original = images[script[0] % len(images)]
    image, at = bytearray(original), 2
    touched = []
    while at + 4 <= len(script):
        place = int.from_bytes(script[at : at + 2], "little") % len(image)
        kind, size = script[at + 2] >> 6, 1 + (script[at + 2] & 7)
        if kind == 0:
            new = script[at + 3 : at + 3 + size]
            at += 3 + len(new)
        elif kind == 1:
            new = bytes([(image[place] + script[at + 3]) & 0xFF])
            at += 4
        elif kind == 2:
            width = (1, 2, 4, 8)[size & 3]
            new = struct.pack("<Q", _EDGES[script[at + 3] % len(_EDGES)])[:width]
            at += 4
        else:
            source = int.from_bytes(script[at + 3 : at + 5], "little") % len(image)
            new = bytes(image[source : source + 4 * size])
            at += 5
        new = new[: len(image) - place]
        image[place : place + len(new)] = new
        touched.append((place, place + len(new)))
    if script[1] & 15:  # now and then checksums stay wrong
        for start, end in blocks(original):
            if any(start < high and low < end for low, high in touched):
                image[end : end + 4] = struct.pack("<I", lookup3(bytes(image[start:end])))
    if script[1] >> 4 == 15:
        del image[len(image) * script[1] % 251 :]
    return bytes(image)
