"""The binary format of event streams: a header, then records of 16 bytes (docs/streams.md)."""

from __future__ import annotations

import struct
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
    """Records that came together.

    Parameters
    ----------
    times : ndarray of int64, shape (n,)
        Microseconds.
    units : ndarray of uint32, shape (n,)
        Input index, ``(c*H + y)*W + x``; of no meaning for a record of the clock.
    clock : ndarray of bool, shape (n,), or None
        Records that are no events, but show the sensor's clock; None: there are none.
    """

    times: npt.NDArray[np.int64]
    units: npt.NDArray[np.uint32]
    clock: npt.NDArray[np.bool_] | None = None


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
        records = np.zeros(len(packet.times), _RECORDS[self.layout])
        records["time"] = packet.times
        if self.layout == UNITS:
            records["unit"] = packet.units
        else:
            _, height, width = self.shape
            records["x"] = packet.units % width
            records["y"] = packet.units // width % height
            records["polarity"] = packet.units // (width * height)
        if packet.clock is not None:
            records["kind"] = np.where(packet.clock, CLOCK, EVENT)
        return records.tobytes()

    def decode_packet(self, data: memoryview, where: str, first: int) -> Packet:
        """Read whole records.

        Parameters
        ----------
        data : memoryview
            Its length is a multiple of 16; nothing that is returned points into it.
        where : str
            Named in messages.
        first : int
            Number of the first record, for messages.

        Raises
        ------
        DataError
            Naming the record.
        """
        records = np.frombuffer(data, _RECORDS[self.layout])
        kinds = records["kind"]
        clock = kinds != EVENT
        shown = bool(clock.any())
        if shown and (kinds > CLOCK).any():
            bad = int(np.argmax(kinds > CLOCK))
            raise DataError(f"{where}: record {first + bad} is of kind {kinds[bad]}, must be 0 or 1")
        late = records["time"] >= END_OF_TIME
        if late.any():
            bad = int(np.argmax(late))
            raise DataError(
                f"{where}: record {first + bad}: time {records['time'][bad]} us is beyond 2^62 - 1"
            )
        channels, height, width = self.shape
        if self.layout == UNITS:
            sizes = {"unit": channels * height * width}
        else:
            sizes = {"x": width, "y": height, "polarity": channels}
        for name, size in sizes.items():
            outside = records[name] >= size
            if shown:
                outside &= ~clock
            if outside.any():
                bad = int(np.argmax(outside))
                raise DataError(
                    f"{where}: record {first + bad}: {name} {records[name][bad]} is outside a sensor of "
                    f"{width}x{height} pixels, {channels} channels"
                )
        if self.layout == UNITS:
            units = records["unit"].astype(np.uint32)
        else:
            x, y, p = (records[name].astype(np.uint32) for name in ("x", "y", "polarity"))
            units = (p * np.uint32(height) + y) * np.uint32(width) + x
        return Packet(records["time"].astype(np.int64), units, clock if shown else None)
