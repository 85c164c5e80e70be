"""Where a stream comes from: stdin, a file, TCP or UDP."""

from __future__ import annotations

import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from evsnn.errors import DataError, SettingsError
from evsnn.streams.address import Address
from evsnn.streams.format import HEADER_SIZE, MAGIC, RECORD_SIZE, Header, Packet, Shape
from evsnn.streams.recordings import is_recording, open_recording
from evsnn.streams.sequence import Sequence

#: Most bytes that are read at a time. Behind a fast sensor more come at once, which then cost less an event.
_READ = 1 << 18

#: Largest datagram, and how many of them are read at a time at most.
_DATAGRAM = 1 << 16
_DATAGRAMS = 64


@dataclass(frozen=True, eq=False)
class Arrival:
    """A packet that has come.

    Parameters
    ----------
    read_at : float
        When it was read, on the clock of :func:`time.perf_counter`.
    packet : Packet
    """

    read_at: float
    packet: Packet


class Source(ABC):
    """A source of packets; it reads no more than was asked for, so a sensor that is too fast has to wait.

    Parameters
    ----------
    where : str
        Named in messages.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        #: Datagrams of others than the first sender; they are ignored.
        self.foreign = 0
        self._open = ExitStack()

    @property
    def lost(self) -> int:
        """Records that have not come."""
        return 0

    @property
    def repeated(self) -> int:
        """Records that came more than once, or far too late; they are not used."""
        return 0

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Shape (C, H, W) of the sensor; waits for the beginning of the stream.

        Raises
        ------
        DataError
            If what comes is no stream.
        """

    @abstractmethod
    def arrivals(self) -> Iterator[Arrival]:
        """Wait for packets, until the stream ends.

        Raises
        ------
        DataError
            If a record is not what the format promises, or the stream ends inside one.
        """

    def close(self) -> None:
        """Read no more."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_source(
    source: str | Path = "-",
    *,
    listen: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Source:
    """Open a source of events.

    Parameters
    ----------
    source : str or Path
        ``-`` for stdin, or a file: a stored stream, or the recording of an event camera. With ``listen`` an
        address, ``tcp://HOST:PORT`` or ``udp://HOST:PORT``.
    listen : bool
        Whether to listen at an address. One sender is served; the stream ends when its connection does, with
        UDP at a datagram without records.
    tell : callable, optional
        Told the address that is listened at, once senders can be started.

    Raises
    ------
    DataError
        If it cannot be opened.
    SettingsError
        If the address is none.
    """
    if listen:
        address = Address.parse(str(source))
        opened = address.listen()
        host, port = opened.getsockname()[:2]
        actual = Address(address.protocol, host, port)
        if tell is not None:
            tell(str(actual))
        return TcpSource(str(actual), opened) if address.protocol == "tcp" else UdpSource(str(actual), opened)
    if str(source) == "-":
        if sys.stdin.isatty():
            raise DataError("stdin is a terminal; pipe a stream into it, name a file, or --listen")
        return ByteSource("stdin", lambda view: os.readv(sys.stdin.fileno(), [view]))
    path = Path(source)
    if "://" in str(source):
        raise SettingsError(f"{source} is an address, not a file; give it with --listen")
    if is_recording(path):
        return RecordingSource(path)
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    found = ByteSource(str(path), file.readinto)
    found._open.callback(file.close)
    return found


class ByteSource(Source):
    """A stream of bytes: the header, then records.

    Parameters
    ----------
    where : str
        Named in messages.
    read : callable
        Waits for bytes, puts them into a memoryview and returns their number, 0 at the end.
    """

    def __init__(self, where: str, read: Callable[[memoryview], int]) -> None:
        super().__init__(where)
        self._read = read
        self._buffer = memoryview(bytearray(_READ))
        self._filled = 0
        self._header: Header | None = None

    @property
    def shape(self) -> Shape:
        """Shape (C, H, W) of the sensor; waits for the header."""
        return self._wait().shape

    def _wait(self) -> Header:
        if self._header is None:
            while self._filled < HEADER_SIZE:
                n = self._read(self._buffer[self._filled : HEADER_SIZE])
                if not n:
                    break
                self._filled += n
                # What is no stream may never send as much as a header.
                if self._filled >= len(MAGIC) and bytes(self._buffer[: len(MAGIC)]) != MAGIC:
                    break
            self._header = Header.decode(bytes(self._buffer[: self._filled]), self.where)
            self._filled = 0
        return self._header

    def arrivals(self) -> Iterator[Arrival]:
        """Wait for packets, until the stream ends; see :meth:`Source.arrivals`."""
        header, buffer, records = self._wait(), self._buffer, 0
        while n := self._read(buffer[self._filled :]):
            read_at = time.perf_counter()
            self._filled += n
            whole = self._filled - self._filled % RECORD_SIZE
            if whole:
                yield Arrival(read_at, header.decode_packet(buffer[:whole], self.where, records))
            records += whole // RECORD_SIZE
            rest = self._filled - whole
            buffer[:rest] = bytes(buffer[whole : self._filled])
            self._filled = rest
        if self._filled:
            raise DataError(
                f"{self.where}: cut off inside record {records}, after {self._filled} of {RECORD_SIZE} bytes"
            )


class TcpSource(ByteSource):
    """The stream of bytes of the first sender that connects.

    Parameters
    ----------
    where : str
        Named in messages.
    listening : socket
    """

    def __init__(self, where: str, listening: socket.socket) -> None:
        super().__init__(where, self._receive)
        self._open.enter_context(listening)
        self._listening = listening
        self._sender: socket.socket | None = None

    def _receive(self, view: memoryview) -> int:
        if self._sender is None:
            self._sender, _ = self._listening.accept()
            self._open.enter_context(self._sender)
            self._listening.close()  # others are refused instead of kept waiting
        try:
            return self._sender.recv_into(view)
        except ConnectionError as error:
            raise DataError(f"{self.where}: the sender is gone: {error.strerror or error}") from None


class UdpSource(Source):
    """Datagrams, each with a header of its own, of the first sender.

    Parameters
    ----------
    where : str
        Named in messages.
    receiving : socket
    """

    def __init__(self, where: str, receiving: socket.socket) -> None:
        super().__init__(where)
        self._open.enter_context(receiving)
        self._socket = receiving
        self._buffer = memoryview(bytearray(_DATAGRAM * _DATAGRAMS))
        self._filled = 0
        self._ended = False
        self._sender: object = None
        self._header: Header | None = None
        self._sequence = Sequence()

    @property
    def lost(self) -> int:
        """Records that have not come."""
        return self._sequence.lost

    @property
    def repeated(self) -> int:
        """Records that came more than once, or far too late; they are not used."""
        return self._sequence.repeated

    @property
    def shape(self) -> Shape:
        """Shape (C, H, W) of the sensor; waits for the first datagram."""
        while self._header is None:
            self._take(0)
        return self._header.shape

    def arrivals(self) -> Iterator[Arrival]:
        """Wait for packets, until a datagram without records; see :meth:`Source.arrivals`."""
        records = 0
        while True:
            while not self._filled and not self._ended:
                self._take(0)
            if not self._filled:
                return
            read_at = time.perf_counter()
            # Under load many datagrams wait, and are simulated together.
            for _ in range(_DATAGRAMS - 1):
                if self._ended or not self._take(socket.MSG_DONTWAIT):
                    break
            assert self._header is not None
            yield Arrival(
                read_at, self._header.decode_packet(self._buffer[: self._filled], self.where, records)
            )
            records += self._filled // RECORD_SIZE
            self._filled = 0

    def _take(self, flags: int) -> bool:
        """Receive one datagram; return whether there was any."""
        room = self._buffer[self._filled : self._filled + _DATAGRAM]
        try:
            n, sender = self._socket.recvfrom_into(room, 0, flags)
        except BlockingIOError:
            return False
        if self._sender not in (None, sender):
            self.foreign += 1
            return True
        header = Header.decode(bytes(room[:HEADER_SIZE][:n]), self.where)
        count, rest = divmod(n - HEADER_SIZE, RECORD_SIZE)
        if rest:
            raise DataError(
                f"{self.where}: a datagram of {n} bytes is cut off inside a record; it must hold a header of "
                f"{HEADER_SIZE} bytes and records of {RECORD_SIZE}"
            )
        if self._header is None:
            self._header, self._sender = header, sender
        elif (header.shape, header.layout) != (self._header.shape, self._header.layout):
            raise DataError(f"{self.where}: shape or layout changed from one datagram to the next")
        self._ended = not count
        if self._sequence.accept(header.sequence, count):
            self._buffer[self._filled : self._filled + n - HEADER_SIZE] = bytes(room[HEADER_SIZE:n])
            self._filled += n - HEADER_SIZE
        return True


class RecordingSource(Source):
    """The recording of an event camera.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._recording = open_recording(path)

    @property
    def shape(self) -> Shape:
        """Shape (C, H, W) of the sensor."""
        return self._recording.shape

    def arrivals(self) -> Iterator[Arrival]:
        """Read packets; see :meth:`Source.arrivals`."""
        for times, units in self._recording.packets():
            yield Arrival(time.perf_counter(), Packet(times, units.astype(np.uint32)))
