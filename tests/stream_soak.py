"""Soak test of a live stream: a synthetic camera for as long as asked; memory and latency over time.

    python tests/stream_soak.py --rate 1e6 --seconds 3600 --json benchmarks/results/stream_soak.json

A bar moves over the sensor, in noise. Packets of the binary format go through all of `evsnn stream`
but the socket, as fast as they are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evsnn import Network
from evsnn.environment import describe_environment
from evsnn.events.reorder import OrderSettings
from evsnn.streams import LiveSession
from evsnn.streams.format import Header, Packet
from evsnn.streams.sources import ByteSource

SIDE = 34


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Camera(ByteSource):
    """A stream of bytes from a camera that sees a bar move, with a share of noise and of events out of order.

    ``each`` is called after every packet, with the seconds on the sensor's clock.
    """

    def __init__(self, rate: float, seconds: float, packet_us: int, jitter_us: int, each) -> None:
        super().__init__("camera", self._next)
        self._header = Header((2, SIDE, SIDE))
        self._rng = np.random.default_rng(0)
        self._per_packet = round(rate * packet_us / 1e6)
        self._packet_us, self._jitter_us, self._end = packet_us, jitter_us, round(seconds * 1e6)
        self._now = 1_790_000_000_000_000  # microseconds of the Unix epoch
        self._begin = self._now
        self._each = each

    def _next(self, view: memoryview) -> int:
        self._each((self._now - self._begin) / 1e6)
        if self._now - self._begin >= self._end:
            return 0
        n, rng = self._per_packet, self._rng
        times = self._now + np.sort(rng.integers(0, self._packet_us, n))
        times -= rng.integers(0, self._jitter_us + 1, n) * (rng.random(n) < 0.01)
        units = rng.integers(0, 2 * SIDE * SIDE, n)
        column = (self._now - self._begin) // 20_000 % SIDE
        bar = rng.random(n) < 0.7
        units[bar] += column - units[bar] % SIDE
        data = self._header.encode_packet(Packet(times, units.astype(np.uint32)))
        self._now += self._packet_us
        view[: len(data)] = data
        return len(data)


def soak(rate: float, seconds: float, packet_us: int, arch: str, samples: int = 100, memory=resident_bytes):
    """Run the camera; return what came of it, and memory over the time of the sensor."""
    network = Network.from_architecture(arch, seed=0)
    trace: list[tuple[float, float, int]] = []
    begun = time.perf_counter()

    def each(now: float) -> None:
        if now >= len(trace) * seconds / samples:
            trace.append((now, time.perf_counter() - begun, memory()))

    with Camera(rate, seconds, packet_us, 200, each) as camera:
        session = LiveSession(
            network, camera, window_us=100_000, step_us=20_000, order=OrderSettings(reorder_us=100)
        )
        for _ in session.decisions():
            pass
    return session.report(), trace


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=1e6, help="events a second (default: 1e6)")
    parser.add_argument("--seconds", type=float, default=60.0, help="on the sensor's clock (default: 60)")
    parser.add_argument("--packet-ms", type=float, default=4.0, help="sensor time of a packet (default: 4)")
    parser.add_argument("--arch", default=f"{SIDE}x{SIDE}x2-200-10")
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    packet_us = round(1e3 * options.packet_ms)
    report, trace = soak(options.rate, options.seconds, packet_us, options.arch)
    settled = [memory for now, _, memory in trace if now >= options.seconds / 10]
    result = {
        "command": "python tests/stream_soak.py " + " ".join(sys.argv[1:]),
        "report": asdict(report),
        "events_per_second": report.events.received / report.wall_seconds,
        "resident_mib_after_a_tenth": settled[0] / 2**20,
        "resident_mib_at_the_end": settled[-1] / 2**20,
        "resident_mib_most": max(settled) / 2**20,
        "trace": {
            "sensor_s": [round(now, 3) for now, _, _ in trace],
            "wall_s": [round(wall, 1) for _, wall, _ in trace],
            "resident_mib": [round(memory / 2**20, 2) for _, _, memory in trace],
        },
        "environment": describe_environment(1),
    }
    print(json.dumps({name: value for name, value in result.items() if name != "trace"}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
