"""Event streams: the binary format, what sockets lose, decisions, and the commands stream and send."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_soak import soak
from support import evsnn, evsnn_process, toy_events, write_events

from evsnn import DataError, Events, Network, NetworkSettings, SettingsError
from evsnn.checkpoint import save_model
from evsnn.streams import LiveSession, open_source, send
from evsnn.streams.address import Address
from evsnn.streams.decisions import Decision, DecisionMaker
from evsnn.streams.format import PIXELS, UNITS, Header, Packet
from evsnn.streams.latency import Latencies
from evsnn.streams.sequence import Sequence
from evsnn.streams.sources import ByteSource

PHYSICS = NetworkSettings(tau_ms=3.0, refractory_ms=0.2, kappa=-0.1, clamp=2.0, alpha=(1.0, 0.5))


def header_bytes(width=5, height=5, channels=1, *, layout=1, magic=b"EVST", version=1, zero=0, sequence=0):
    """A header as docs/streams.md says, byte by byte."""
    return magic + struct.pack("<HHIIIIQ", version, layout, width, height, channels, zero, sequence)


def pixel(time, x, y, p, kind=0):
    return struct.pack("<QHHHH", time, x, y, p, kind)


def unit(time, number, kind=0):
    return struct.pack("<QII", time, number, kind)


@pytest.fixture(scope="module")
def network():
    return Network.from_architecture("5x5x1-12-3", seed=4, settings=PHYSICS)


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.h5"
    save_model(path, network)
    return path


@pytest.fixture(scope="module")
def recordings():
    return toy_events(np.random.default_rng(0), n=6)


@pytest.fixture(scope="module")
def event_file(recordings, tmp_path_factory):
    return write_events(tmp_path_factory.mktemp("events") / "toy.h5", test=recordings)


def source_of(data, piece=None):
    """A source of bytes that come in pieces of some size."""
    left = memoryview(data)

    def read(view):
        nonlocal left
        n = min(len(view), len(left), piece or len(left))
        view[:n] = left[:n]
        left = left[n:]
        return n

    return ByteSource("test", read)


def read_all(source):
    shape = source.shape
    packets = [arrival.packet for arrival in source.arrivals()]
    return shape, packets


# The format


def test_a_stream_written_by_hand():
    data = header_bytes(width=6, height=4, channels=2) + pixel(7, 5, 3, 1) + pixel(2**61, 0, 1, 0)
    shape, [packet] = read_all(source_of(data))
    assert shape == (2, 4, 6)
    assert packet.times.tolist() == [7, 2**61]
    assert packet.units.tolist() == [(1 * 4 + 3) * 6 + 5, 6]
    assert packet.clock is None
    data = header_bytes(width=784, height=1, layout=0) + unit(3, 783) + unit(9, 0, kind=1)
    shape, [packet] = read_all(source_of(data))
    assert shape == (1, 1, 784)
    assert (packet.times.tolist(), packet.units.tolist()) == ([3, 9], [783, 0])
    assert packet.clock.tolist() == [False, True]


@given(
    st.sampled_from([(1, 5, 5), (2, 34, 34), (3, 1, 7)]),
    st.sampled_from([UNITS, PIXELS]),
    st.integers(0, 2**32),
    st.integers(1, 100),
)
def test_what_is_written_is_read(shape, layout, seed, piece):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 30))
    sent = Packet(
        rng.integers(0, 2**62, n), rng.integers(0, np.prod(shape), n).astype(np.uint32), rng.random(n) < 0.2
    )
    header = Header(shape, layout)
    found, packets = read_all(source_of(header.encode() + header.encode_packet(sent), piece))
    assert found == shape
    assert [time for packet in packets for time in packet.times] == sent.times.tolist()
    clock = [
        shown
        for packet in packets
        for shown in ([False] * len(packet.times) if packet.clock is None else packet.clock.tolist())
    ]
    assert clock == sent.clock.tolist()
    units = np.concatenate([np.empty(0, np.uint32), *(packet.units for packet in packets)])
    assert units[~sent.clock].tolist() == sent.units[~sent.clock].tolist()


GOOD = header_bytes() + pixel(1, 0, 0, 0)
MALFORMED = {
    "nothing": (b"", "no events: it ended before the header"),
    "short magic": (b"EV", "cut off inside the header, after 2 of 32 bytes"),
    "wrong magic": (
        header_bytes(magic=b"EVSX"),
        "not an event stream: it begins with b'EVSX' instead of b'EVST'",
    ),
    "text": (b"hello", "not an event stream: it begins with b'hell'"),
    "short header": (header_bytes()[:31], "cut off inside the header, after 31 of 32 bytes"),
    "version": (header_bytes(version=2), "version 2 of the format; this evsnn reads version 1"),
    "layout": (header_bytes(layout=2), "the header names layout 2 and 0, must be 0 or 1, and 0"),
    "not zero": (header_bytes(zero=1), "the header names layout 1 and 1, must be"),
    "no width": (header_bytes(width=0), "a stream cannot have a sensor of 0x5 pixels, 1 channels"),
    "huge": (header_bytes(width=2**32 - 1), "a stream cannot have a sensor of 4294967295x5 pixels"),
    "cut": (GOOD + b"1234567", "cut off inside record 1, after 7 of 16 bytes"),
    "x": (GOOD + pixel(1, 5, 0, 0), "record 1: x 5 is outside a sensor of 5x5 pixels, 1 channels"),
    "y": (GOOD + pixel(1, 0, 7, 0), "record 1: y 7 is outside a sensor of 5x5 pixels, 1 channels"),
    "polarity": (GOOD + pixel(1, 0, 0, 1), "record 1: polarity 1 is outside a sensor of 5x5 pixels"),
    "unit": (header_bytes(layout=0) + unit(1, 25), "record 0: unit 25 is outside a sensor of 5x5 pixels"),
    "kind": (GOOD + pixel(1, 0, 0, 0, kind=2), "record 1 is of kind 2, must be 0 or 1"),
    "time": (GOOD + pixel(2**62, 0, 0, 0), "record 1: time 4611686018427387904 us is beyond 2^62 - 1"),
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("piece", [None, 1, 37])
def test_malformed_bytes(name, piece):
    data, message = MALFORMED[name]
    with pytest.raises(DataError) as error:
        read_all(source_of(data, piece))
    assert str(error.value).startswith(f"test: {message}")
    assert "\n" not in str(error.value)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=300)
def test_any_bytes_are_read_or_refused(data, behind_a_header):
    try:
        _, packets = read_all(source_of(header_bytes() + data if behind_a_header else data))
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert sum(len(packet.times) for packet in packets) * 16 == len(data)


@pytest.mark.parametrize("shape", [(1, 0, 5), (1, 1, 1 << 17), (1 << 9, 1 << 12, 1 << 12)])
def test_a_shape_that_does_not_fit_the_format(shape):
    with pytest.raises(DataError, match="a stream cannot have a sensor of"):
        Header(shape)


# What a socket loses


@given(st.integers(0, 2**32), st.integers(0, 50))
def test_sequence(seed, first):
    """Datagrams lost, repeated and overtaking each other, against a set of all records that were used."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 30).tolist()
    starts = (first + np.concatenate([[0], np.cumsum(sizes)[:-1]])).tolist()
    order = np.argsort(np.arange(30) + rng.random(30) * rng.integers(1, 6))
    sent = [index for index in order.tolist() for _ in range(int(rng.choice([0, 1, 1, 1, 2])))]
    sequence, used, repeated = Sequence(), set(), 0
    for index in sent:
        records = set(range(starts[index], starts[index] + sizes[index]))
        # What was sent before the first datagram that came is not known to be missing.
        new = not records & used and (not used or starts[index] >= starts[sent[0]])
        assert sequence.accept(starts[index], sizes[index]) == new
        used |= records if new else set()
        repeated += 0 if new else sizes[index]
    assert sequence.repeated == repeated
    if used:
        assert sequence.lost == max(used) + 1 - starts[sent[0]] - len(used)


def test_the_end_shows_what_was_lost_last():
    sequence = Sequence()
    assert sequence.accept(0, 10)
    assert sequence.accept(15, 0)
    assert sequence.lost == 5
    assert sequence.accept(15, 0)
    assert (sequence.lost, sequence.repeated) == (5, 0)


# Decisions


def decided(network, times, units, cuts, window, step):
    stream = network.stream()
    maker = DecisionMaker(stream, window, step)
    found = []
    for part_times, part_units in zip(np.split(times, cuts), np.split(units, cuts), strict=True):
        stream.accept(part_times, part_units)
        found += maker.decide()
    return found + list(maker.finish())


def expected_decisions(network, times, units, window, step):
    """Each decision from a run of the recording cut off at its time."""
    found = []
    for end in sorted({int(time) - int(time - times[0]) % step + step for time in times}):
        before = times < end
        record = network.run(Events.from_arrays(times[before], units[before]))
        spikes = record.spikes[-1]
        counts = np.bincount(spikes.units[spikes.times.astype(np.int64) >= end - window], minlength=3)
        if not window:
            counts = record.counts
        best = max(range(3), key=lambda c: (counts[c], record.potential[c], -c))
        found.append(Decision(end, best, int(counts[best]), int(counts.sum())))
    return found


@given(
    st.integers(0, 2**32),
    st.integers(0, 60),
    st.sampled_from([0, 1, 300, 5000]),
    st.sampled_from([1, 250, 1000, 9000]),
    st.lists(st.integers(0, 60), max_size=8),
)
@settings(max_examples=60)
def test_decisions(seed, n, window, step, cuts):
    network = Network.from_architecture("5x5x1-12-3", seed=4, settings=PHYSICS)
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 3000, n)) + 5
    units = rng.integers(0, 25, n)
    found = decided(network, times, units, sorted(cut for cut in cuts if cut <= n), window, step)
    assert found == expected_decisions(network, times, units, window, step)


def test_a_decision_comes_as_soon_as_it_can(network):
    stream = network.stream()
    maker = DecisionMaker(stream, 0, 10)
    stream.accept([100, 109], [1, 2])
    assert list(maker.decide()) == []
    stream.accept_clock(109)
    assert list(maker.decide()) == []
    stream.accept_clock(110)
    assert [decision.time_us for decision in maker.decide()] == [110]
    assert list(maker.decide()) == list(maker.finish()) == []


def test_silence_brings_no_decisions(network):
    times = np.array([100, 10**15])
    found = decided(network, times, np.array([1, 2]), [], 1000, 10)
    assert [decision.time_us for decision in found] == [110, 10**15 - (10**15 - 100) % 10 + 10]


def test_wrong_times_of_decisions(network):
    with pytest.raises(SettingsError, match="the step at least 1 us, got 5 and 0"):
        DecisionMaker(network.stream(), 5, 0)


def test_latencies():
    latencies = Latencies()
    assert latencies.milliseconds() == {"p50": 0, "p95": 0, "p99": 0, "max": 0}
    values = np.random.default_rng(0).lognormal(-7, 1.5, 5000)
    for value in values:
        latencies.add(value)
    for share in (1, 50, 95, 99):
        exact = np.sort(values)[int(np.ceil(len(values) * share / 100)) - 1]
        assert exact <= latencies.percentile(share) <= 1.012 * exact
    assert latencies.percentile(100) == values.max()


# A session


def stream_of(times, units, shape=(1, 5, 5)):
    header = Header(shape)
    return header.encode() + header.encode_packet(Packet(np.asarray(times), np.asarray(units, np.uint32)))


def test_a_session(network, recordings):
    events = recordings[0]
    session = LiveSession(
        network, source_of(stream_of(events.times, events.units), 100), window_us=0, step_us=10**6
    )
    [decision] = session.decisions()
    record = network.run(events)
    assert (decision.label, decision.total) == (record.prediction, int(record.counts.sum()))
    report = session.report()
    assert report.events.received == report.events.acted == len(events)
    assert report.decisions == 1
    assert report.sensor_seconds == (int(events.times[-1]) - int(events.times[0])) / 1e6
    assert report.reads == -(-(len(events) * 16) // 100)
    assert 0 < report.latency_ms["p50"] <= report.latency_ms["max"]


def test_a_sensor_that_does_not_fit(network):
    session = LiveSession(network, source_of(header_bytes(width=6)), window_us=0, step_us=1)
    with pytest.raises(DataError, match=r"has 25 inputs \(5x5x1\), test has 30 \(5x6x1\); start the arch"):
        list(session.decisions())


# Addresses


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:7", "udp://[::1]:65535", "udp://localhost:0"])
def test_addresses(text):
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "127.0.0.1:7", "tcp://:7", "tcp://127.0.0.1", "http://a:1", "tcp://a:70000", "tcp://[::1:7"]
)
def test_wrong_addresses(text):
    with pytest.raises(SettingsError, match="is no address; give tcp://HOST:PORT or udp://HOST:PORT"):
        Address.parse(text)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DataError, match=f"cannot connect to tcp://127.0.0.1:{port}: .*; start the receiver"):
        send([([1], [2])], (1, 5, 5), f"tcp://127.0.0.1:{port}")


def test_an_address_in_use():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(DataError, match=r"cannot listen on tcp://127.0.0.1:.*in use"),
    ):
        open_source(f"tcp://127.0.0.1:{server.getsockname()[1]}", listen=True)


# Sockets


def listening(protocol):
    told = []
    return open_source(f"{protocol}://127.0.0.1:0", listen=True, tell=told.append), told[0]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("packet_us", [100, 3000])
def test_over_a_socket(network, recordings, protocol, packet_us):
    """What a sensor sends through a socket becomes what the recording is."""
    events = recordings[1]
    source, address = listening(protocol)
    with source:
        sender = threading.Thread(
            target=send,
            args=([(events.times, events.units)], (1, 5, 5), address),
            kwargs={"speed": 0, "packet_us": packet_us},
        )
        sender.start()
        session = LiveSession(network, source, window_us=0, step_us=10**6)
        [decision] = session.decisions()
        sender.join()
    record = network.run(events)
    assert (decision.label, decision.total) == (record.prediction, int(record.counts.sum()))
    report = session.report()
    assert (report.events.acted, report.lost, report.repeated, report.foreign) == (len(events), 0, 0, 0)


def test_datagrams_lost_repeated_and_of_others(network):
    source, address = listening("udp")
    there = Address.parse(address)
    header = Header((1, 5, 5))

    def datagram(sequence, *times):
        records = header.encode_packet(Packet(np.array(times), np.zeros(len(times), np.uint32)))
        return replace(header, sequence=sequence).encode() + records

    with source, there.connect() as sender, there.connect() as stranger:
        for data in (datagram(100, 10, 11), datagram(105, 30), datagram(103, 20), datagram(105, 30)):
            sender.send(data)
        stranger.send(b"hello")
        sender.send(datagram(110))
        session = LiveSession(network, source, window_us=0, step_us=10**6, order=None)
        list(session.decisions())
    report = session.report()
    # 102, 104 and 106 to 109 never came; 20 came after 30.
    assert (report.lost, report.repeated, report.foreign) == (6, 1, 1)
    assert (report.events.received, report.events.late, report.events.acted) == (4, 1, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not an event stream: it begins with b'hell'"),
        (
            header_bytes() + b"123",
            "a datagram of 35 bytes is cut off inside a record; it must hold a header of",
        ),
        (header_bytes(width=4) + pixel(1, 0, 0, 0), "shape or layout changed from one datagram to the next"),
        (header_bytes(sequence=1) + pixel(1, 9, 0, 0), "record 1: x 9 is outside a sensor of 5x5 pixels"),
    ],
)
def test_a_malformed_datagram(data, message):
    source, address = listening("udp")
    with source, Address.parse(address).connect() as sender:
        sender.send(GOOD)
        assert source.shape == (1, 5, 5)
        sender.send(data)
        with pytest.raises(DataError) as error:
            for _ in source.arrivals():
                pass
    assert str(error.value).startswith(f"{address}: {message}")


def test_datagrams_are_read_together_but_not_without_end():
    source, address = listening("udp")
    with source, Address.parse(address).connect() as sender:
        for number in range(150):
            sender.send(header_bytes(sequence=number) + pixel(number, 0, 0, 0))
        sender.send(header_bytes(sequence=150))
        assert source.shape == (1, 5, 5)
        sizes = [len(arrival.packet.times) for arrival in source.arrivals()]
    assert sum(sizes) == 150
    assert max(sizes) == 64


def test_a_sender_that_is_gone(network):
    source, address = listening("tcp")
    with source:
        sender = Address.parse(address).connect()
        sender.sendall(GOOD + b"12345")
        sender.close()
        session = LiveSession(network, source, window_us=0, step_us=10**6)
        with pytest.raises(DataError, match="cut off inside record 1, after 5 of 16 bytes"):
            list(session.decisions())
    assert session.report().events.received == 1


def test_a_second_sender_is_refused(network):
    source, address = listening("tcp")
    with source, Address.parse(address).connect() as sender:
        sender.sendall(GOOD)
        assert source.shape == (1, 5, 5)
        with pytest.raises(DataError, match="cannot connect"):
            Address.parse(address).connect()


def test_a_fast_sender_waits(network):
    """TCP takes no more than its buffers hold while nobody reads."""
    source, address = listening("tcp")
    with source, Address.parse(address).connect() as sender:
        sender.sendall(header_bytes())
        assert source.shape == (1, 5, 5)
        sender.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sender.sendall(bytes(1 << 30))
        assert len(next(source.arrivals()).packet.times) <= 1 << 14


# The commands


def test_a_recording_through_a_pipe(model, network, event_file, recordings):
    """evsnn send | evsnn stream."""
    sent = subprocess.run(
        [
            sys.executable,
            "-m",
            "evsnn",
            "send",
            event_file,
            "--count",
            "2",
            "--gap-ms",
            "3",
            "--speed",
            "100",
        ],
        capture_output=True,
        check=True,
    )
    assert sent.stderr.decode().startswith("sent 80 events in ")
    streamed = subprocess.run(
        [sys.executable, "-m", "evsnn", "stream", model, "--json", "--window-ms", "0", "--step-ms", "8"],
        input=sent.stdout,
        capture_output=True,
        check=True,
    )
    lines = [json.loads(line) for line in streamed.stdout.splitlines()]
    both = Events.from_arrays(
        np.concatenate([recordings[0].times, recordings[1].times + 8000]),
        np.concatenate([recordings[0].units, recordings[1].units]),
    )
    record = network.run(both)
    assert set(lines[-1]) == {"time_us", "class", "spikes", "total"}
    assert lines[-1]["class"] == record.prediction
    assert lines[-1]["total"] == record.counts.sum()
    report = json.loads(streamed.stderr)
    assert report["events"]["acted"] == 80
    assert report["decisions"] == len(lines)
    assert list(report["latency_ms"]) == ["p50", "p95", "p99", "max"]


def test_a_stored_stream(model, tmp_path):
    path = tmp_path / "some.evst"
    path.write_bytes(stream_of([100, 30_000, 30_000], [1, 2, 3]))
    done = evsnn("stream", model, path)
    assert done.code == 0
    assert [line.split("  ")[0] for line in done.out.splitlines()] == ["0.020100 s", "0.040100 s"]
    assert done.err.startswith("3 events (")
    assert "3 acted, 0 held, 0 late, 0 out of order, 0 double; 0 lost, 0 repeated" in done.err
    assert "latency of 1 reads p50 " in done.err


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_streams_end_in_one_line(model, tmp_path, name):
    data, message = MALFORMED[name]
    path = tmp_path / "bad.evst"
    path.write_bytes(data)
    done = evsnn("stream", model, path)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(f"Error: {path}: {message}")
    assert "Traceback" not in done.err


def test_late_events_end_a_stream_if_asked(model, tmp_path):
    path = tmp_path / "late.evst"
    path.write_bytes(stream_of([100, 50], [1, 2]))
    assert "1 acted, 0 held, 1 late" in evsnn("stream", model, path).err
    assert "2 acted, 0 held, 0 late, 1 out of order" in evsnn("stream", model, path, "--reorder-us", 50).err
    done = evsnn("stream", model, path, "--late", "refuse")
    assert done.code == 1
    assert "time 50 us comes after 100 us" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--listen", "nowhere"], 1, "'nowhere' is no address; give tcp://HOST:PORT or udp://HOST:PORT"),
        (["tcp://127.0.0.1:7"], 1, "tcp://127.0.0.1:7 is an address, not a file; give it with --listen"),
        (["x.evst", "--listen", "tcp://127.0.0.1:0"], 2, "give SOURCE or --listen, not both"),
        (["missing.evst"], 1, "cannot read missing.evst: No such file or directory"),
        (["x.evst", "--step-ms", "0"], 1, "--step-ms must be 0.001 or more, got 0"),
        (["x.evst", "--window-ms", "nan"], 1, "--window-ms must be 0 or more, got nan"),
    ],
)
def test_wrong_arguments(model, arguments, code, message):
    done = evsnn("stream", model, *arguments)
    assert done.code == code
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "5", "--count", "2"], "samples 5 to 6 asked for, split 'test' holds 6"),
        (["--split", "train"], "no split 'train'"),
        (["--packet-ms", "0"], "--packet-ms must be 0.001 or more, got 0"),
        (["file:///x"], "'file:///x' is no address"),
    ],
)
def test_wrong_arguments_of_send(event_file, arguments, message):
    done = evsnn("send", event_file, *arguments)
    assert done.code == 1
    assert message in done.err


@pytest.fixture
def receiver(model):
    """`evsnn stream --listen` as a process of its own; its address."""
    started = []

    # A shell starts what it puts in the background with SIGINT ignored, nohup with SIGHUP.
    program = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "hasattr(signal, 'SIGHUP') and signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from evsnn_cli.main import main\n"
        "main()\n"
    )

    def start(protocol, *options):
        command = [
            sys.executable,
            "-c",
            program,
            "stream",
            str(model),
            "--listen",
            f"{protocol}://127.0.0.1:0",
        ]
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        line = process.stderr.readline()
        assert line.startswith("listening at ")
        return process, line.split()[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_commands_over_a_socket(receiver, event_file, recordings, protocol):
    process, address = receiver(protocol, "--json", "--step-ms", "1")
    done = evsnn_process("send", event_file, address, "--count", 6, "--speed", 3)
    assert done.code == 0, done.err
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    report = json.loads(err)
    assert report["events"]["acted"] + report["lost"] == len(recordings.times)
    assert len(out.splitlines()) == report["decisions"]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_requests_and_interruption(receiver, number, code):
    process, address = receiver("tcp")
    with Address.parse(address).connect() as sender:
        sender.sendall(GOOD + pixel(30_000, 0, 0, 0))
        assert process.stdout.readline().startswith("0.020001 s  class ")
        process.send_signal(signal.SIGUSR1)
        assert process.stderr.readline().startswith("2 events (")
        assert process.stderr.readline().startswith("1 decisions, ")
        process.send_signal(getattr(signal, number))
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "1 acted, 1 held" in err
    assert "latency of" in err
    assert (err.splitlines()[-1] == "Interrupted.") == (code == 130)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs POSIX signals")
def test_regular_reports(receiver):
    process, _ = receiver("udp", "--report-s", "0.2")
    for _ in range(2):
        assert process.stderr.readline().startswith("0 events (")
        assert process.stderr.readline().startswith("0 decisions, ")


def test_the_reader_of_send_is_gone(event_file):
    with subprocess.Popen(
        [sys.executable, "-m", "evsnn", "send", str(event_file), "--count", "6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 1
    assert "Traceback" not in err


# Soak


def test_memory_is_flat():
    """Three million events of a synthetic camera leave nothing behind; stream_soak.py has the long form."""
    tracemalloc.start()
    try:
        report, trace = soak(1e6, 3.0, 4000, "34x34x2-20-10", 20, lambda: tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert report.events.received == 3_000_000
    assert report.events.acted + report.events.late == 3_000_000
    assert min(report.events.late, report.events.reordered, report.events.spikes, report.decisions) > 100
    settled = [memory for now, _, memory in trace if now >= 0.5]
    assert len(settled) > 10
    # Growth of the trace itself: 6 kB. A float kept for each of the last 600 packets: 22 kB.
    assert max(settled[-5:]) - max(settled[:5]) < 14_000
