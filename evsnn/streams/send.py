"""Sends recorded events as a live sensor would."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from evsnn.errors import DataError, SettingsError
from evsnn.events.file import open_events
from evsnn.streams.address import Address
from evsnn.streams.format import HEADER_SIZE, PIXELS, RECORD_SIZE, UNITS, Header, Packet, Shape
from evsnn.streams.recordings import is_recording, open_recording

Part = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]

#: Records of a datagram that fits an Ethernet frame.
_PER_DATAGRAM = (1472 - HEADER_SIZE) // RECORD_SIZE

#: Datagrams that say the end, since some may be lost.
_ENDS = 3


@dataclass(frozen=True)
class SendReport:
    """What was sent.

    Parameters
    ----------
    events : int
    packets : int
    sensor_seconds, wall_seconds : float
        Length on the sensor's clock, and time it took.
    """

    events: int
    packets: int
    sensor_seconds: float
    wall_seconds: float


def recorded_events(
    path: Path, *, split: str = "test", sample: int = 0, count: int = 1, gap_us: int = 0
) -> tuple[Shape, Iterator[Part]]:
    """Open a file whose events are to be sent.

    Parameters
    ----------
    path : Path
        An event file, or the recording of an event camera.
    split : str
    sample, count : int
        Of an event file: the first sample, and how many of them, one after the other.
    gap_us : int
        Microseconds between the duration of a sample and the next one.

    Returns
    -------
    shape : (C, H, W)
    parts : iterator of (times, units)

    Raises
    ------
    DataError
        If there is no such file, split or sample.
    """
    if is_recording(path):
        recording = open_recording(path)
        return recording.shape, ((times, units.astype(np.uint32)) for times, units in recording.packets())
    file = open_events(path)
    samples = file[split]
    if not 0 <= sample < sample + count <= len(samples):
        raise DataError(
            f"{path}: samples {sample} to {sample + count - 1} asked for, "
            f"split {split!r} holds {len(samples)}"
        )

    def parts() -> Iterator[Part]:
        with file:
            for index in range(count):
                events = samples[sample + index]
                yield events.times.astype(np.int64) + index * (samples.duration_us + gap_us), events.units

    return samples.shape, parts()


def send(
    parts: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]],
    shape: Shape,
    target: str = "-",
    *,
    speed: float = 1.0,
    packet_us: int = 1000,
) -> SendReport:
    """Send events as a sensor would: a packet for each stretch of time, when it is over.

    After every packet goes a record of the clock, so the receiver need not wait for the next event.

    Parameters
    ----------
    parts : iterable of (times, units)
        Microseconds and input indices.
    shape : (C, H, W)
    target : str
        ``-`` for stdout, ``tcp://HOST:PORT`` or ``udp://HOST:PORT``.
    speed : float
        1 is real time, 10 ten times faster; 0: as fast as the receiver takes it.
    packet_us : int
        Length of a packet in microseconds.

    Raises
    ------
    DataError
        If nobody receives.
    SettingsError
        If a setting or the address makes no sense.
    """
    if not 0 <= speed < np.inf or packet_us < 1:
        raise SettingsError(f"speed must be 0 or more and packets at least 1 us, got {speed} and {packet_us}")
    header = Header(shape, PIXELS if max(shape) <= 1 << 16 else UNITS)
    events = packets = 0
    first: int | None = None
    last = 0
    with ExitStack() as stack:
        write, end = _writer(header, target, stack)
        begun = time.perf_counter()
        for packet in _cut(parts, packet_us):
            last = int(packet.times[-1])
            if first is None:
                first = last - packet_us
            if speed:
                time.sleep(max(0.0, begun + (last - first) / (1e6 * speed) - time.perf_counter()))
            write(packet)
            events += len(packet.times) - 1
            packets += 1
        end()
        wall = time.perf_counter() - begun
    return SendReport(events, packets, (last - (first or 0)) / 1e6, wall)


def _cut(parts: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]], packet_us: int) -> Iterator[Packet]:
    """Packets that end at multiples of ``packet_us`` after the first event, with the clock; none is empty."""
    held: list[Part] = []
    end: int | None = None
    for given_times, given_units in parts:
        times, units = np.asarray(given_times, np.int64), np.asarray(given_units, np.uint32)
        if not len(times):
            continue
        newest = np.maximum.accumulate(times)
        begin = 0
        if end is None:
            end = int(times[0]) + packet_us
        while begin < len(times):
            stop = int(np.searchsorted(newest, end))
            if stop > begin:
                held.append((times[begin:stop], units[begin:stop]))
            if stop == len(times):
                break
            if held:
                yield _packet(held, end)
                held = []
            begin = stop
            end += (int(newest[begin]) - end) // packet_us * packet_us + packet_us
    if held and end is not None:
        yield _packet(held, end)


def _packet(held: list[Part], now: int) -> Packet:
    times = np.concatenate([*(times for times, _ in held), [now]])
    units = np.concatenate([*(units for _, units in held), np.zeros(1, np.uint32)])
    return Packet(times, units, np.arange(len(times)) == len(times) - 1)


def _writer(
    header: Header, target: str, stack: ExitStack
) -> tuple[Callable[[Packet], None], Callable[[], None]]:
    """Return what sends a packet, and what says the end."""
    if target == "-":
        if sys.stdout.isatty():
            raise DataError("stdout is a terminal; pipe it into a receiver or a file, or name an address")
        out = sys.stdout.buffer

        def put(data: bytes) -> None:
            out.write(data)
            out.flush()

        put(header.encode())
        return lambda packet: put(header.encode_packet(packet)), lambda: None
    address = Address.parse(target)
    connected = stack.enter_context(address.connect())

    def deliver(send: Callable[[bytes], object], data: bytes) -> None:
        try:
            send(data)
        except ConnectionError as error:
            raise DataError(f"{address}: the receiver is gone: {error.strerror or error}") from None

    if address.protocol == "tcp":
        deliver(connected.sendall, header.encode())
        return lambda packet: deliver(connected.sendall, header.encode_packet(packet)), lambda: None
    sent = 0

    def datagrams(packet: Packet) -> None:
        nonlocal sent
        data = memoryview(header.encode_packet(packet))
        size = _PER_DATAGRAM * RECORD_SIZE
        for begin in range(0, len(data), size):
            piece = data[begin : begin + size]
            deliver(connected.send, replace(header, sequence=sent).encode() + bytes(piece))
            sent += len(piece) // RECORD_SIZE

    def end() -> None:
        for _ in range(_ENDS):
            deliver(connected.send, replace(header, sequence=sent).encode())

    return datagrams, end
