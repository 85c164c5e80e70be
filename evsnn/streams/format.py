"""The binary format of event streams: a header, then records of 16 bytes (docs/streams.md)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError
from evsnn.events.reorder import END_OF_TIME

Shape = tuple[int, int, int]

MAGIC = b"EVST"
VERSION = 1

#: Little-endian: magic, version, layout of records, width, height, channels, 0, number of the first record.
_HEADER = struct.Struct("<4sHHIIIIQ")
HEADER_SIZE = _HEADER.size
RECORD_SIZE = 16

UNITS, PIXELS = 0, 1
EVENT, CLOCK = 0, 1

_RECORDS = {
    UNITS: np.dtype([("time", "<u8"), ("unit", "<u4"), ("kind", "<u4")]),
    PIXELS: np.dtype([("time", "<u8"), ("x", "<u2"), ("y", "<u2"), ("polarity", "<u2"), ("kind", "<u2")]),
}


@dataclass(frozen=True, eq=False)
class Packet:
    """Events that came together, and what the sensor's clock shows after them.

    Parameters
    ----------
    times : ndarray of int64, shape (n,)
        Microseconds.
    units : ndarray of uint32, shape (n,)
        Input index, ``(c*H + y)*W + x``.
    now : int, optional
        The sensor's clock.
    """

    times: npt.NDArray[np.int64]
    units: npt.NDArray[np.uint32]
    now: int | None = None


@dataclass(frozen=True)
class Header:
    """What a stream, or a datagram, begins with.

    Parameters
    ----------
    shape : (C, H, W)
        Of the sensor.
    layout : {UNITS, PIXELS}
        How records name a pixel: by its unit, or by x, y and polarity.
    sequence : int
        Records sent before this header: 0 in a stream of bytes.

    Raises
    ------
    DataError
        If the shape does not fit the format.
    """

    shape: Shape
    layout: int = PIXELS
    sequence: int = 0

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        limit = 1 << 16 if self.layout == PIXELS else 1 << 32
        if not (min(self.shape) >= 1 and max(self.shape) <= limit and channels * height * width <= 1 << 32):
            raise DataError(f"a stream cannot have a sensor of {width}x{height} pixels, {channels} channels")

    def encode(self) -> bytes:
        """Return the header's 32 bytes."""
        channels, height, width = self.shape
        return _HEADER.pack(
            MAGIC, VERSION, self.layout, width, height, channels, 0, self.sequence & (1 << 64) - 1
        )

    @classmethod
    def decode(cls, data: bytes, where: str) -> Header:
        """Read a header.

        Parameters
        ----------
        data : bytes
            At least the header, or less if there was no more.
        where : str
            Named in messages.

        Raises
        ------
        DataError
            If this is none, or of a version that is not known.
        """
        if not data:
            raise DataError(f"{where}: no events: it ended before the header")
        if data[:4] != MAGIC[: len(data)]:
            raise DataError(
                f"{where}: not an event stream: it begins with {data[:4]!r} instead of {MAGIC!r} "
                "(docs/streams.md has the format; evsnn send writes it)"
            )
        if len(data) < HEADER_SIZE:
            raise DataError(f"{where}: cut off inside the header, after {len(data)} of {HEADER_SIZE} bytes")
        _, version, layout, width, height, channels, zero, sequence = _HEADER.unpack_from(data)
        if version != VERSION:
            raise DataError(f"{where}: version {version} of the format; this evsnn reads version {VERSION}")
        if layout not in _RECORDS or zero:
            raise DataError(f"{where}: the header names layout {layout} and {zero}, must be 0 or 1, and 0")
        try:
            return cls((channels, height, width), layout, sequence)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def encode_packet(self, packet: Packet) -> bytes:
        """Return the records of a packet whose events lie on the sensor."""
        n = len(packet.times)
        records = np.zeros(n + (packet.now is not None), _RECORDS[self.layout])
        records["time"][:n] = packet.times
        if self.layout == UNITS:
            records["unit"][:n] = packet.units
        else:
            _, height, width = self.shape
            records["x"][:n] = packet.units % width
            records["y"][:n] = packet.units // width % height
            records["polarity"][:n] = packet.units // (width * height)
        if packet.now is not None:
            records[n]["time"] = packet.now
            records[n]["kind"] = CLOCK
        return records.tobytes()

    def decode_packets(self, data: memoryview, where: str, first: int) -> Iterator[Packet]:
        """Read whole records.

        Parameters
        ----------
        data : memoryview
            Its length is a multiple of 16; nothing that is returned points into it.
        where : str
            Named in messages.
        first : int
            Number of the first record, for messages.

        Yields
        ------
        Packet
            One, and one more for every record of the clock but the last.

        Raises
        ------
        DataError
            Naming the record.
        """
        records = np.frombuffer(data, _RECORDS[self.layout])
        kinds = records["kind"]
        marks = np.flatnonzero(kinds)
        if len(marks) and int(kinds.max()) > CLOCK:
            bad = int(np.argmax(kinds > CLOCK))
            raise DataError(f"{where}: record {first + bad} is of kind {kinds[bad]}, must be 0 or 1")
        late = records["time"] >= END_OF_TIME
        if late.any():
            bad = int(np.argmax(late))
            raise DataError(
                f"{where}: record {first + bad}: time {records['time'][bad]} us is beyond 2^62 - 1"
            )
        times = records["time"].astype(np.int64)
        units = self._units(records, marks, where, first)
        begin = 0
        for mark in marks.tolist():
            yield Packet(times[begin:mark], units[begin:mark], int(times[mark]))
            begin = mark + 1
        if begin < len(records):
            yield Packet(times[begin:], units[begin:])

    def _units(
        self, records: npt.NDArray[np.void], marks: npt.NDArray[np.int64], where: str, first: int
    ) -> npt.NDArray[np.uint32]:
        channels, height, width = self.shape
        if self.layout == UNITS:
            sizes = {"unit": channels * height * width}
        else:
            sizes = {"x": width, "y": height, "polarity": channels}
        for name, size in sizes.items():
            outside = records[name] >= size
            outside[marks] = False
            if outside.any():
                bad = int(np.argmax(outside))
                raise DataError(
                    f"{where}: record {first + bad}: {name} {records[name][bad]} is outside a sensor of "
                    f"{width}x{height} pixels, {channels} channels"
                )
        if self.layout == UNITS:
            return records["unit"].astype(np.uint32)
        x, y, p = (records[name].astype(np.uint32) for name in ("x", "y", "polarity"))
        units: npt.NDArray[np.uint32] = (p * np.uint32(height) + y) * np.uint32(width) + x
        return units
