"""The highest rate of events that a network keeps up with on a live sensor, and its latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.events.queue import HostQueue
from evsnn.layers.base import Layer, Shape
from evsnn.network.simulation import Simulator

Float64 = npt.NDArray[np.float64]

#: Share of the sensor's columns that the edge covers, and seconds in which it crosses all of them.
_EDGE_SHARE = 1 / 20
_CROSSING_S = 1.0
#: The search ends when the rate is known to this factor.
_PRECISION = 1.1
#: How often a rate is tried before it counts as missed.
_TRIES = 3
_LOWEST = 1e3


def moving_edge(shape: Shape, rate: float, packet_us: int, index: int, seed: int = 0) -> HostQueue:
    """One packet of events of an edge that moves over the sensor again and again.

    Parameters
    ----------
    shape : (C, H, W)
        Of the sensor; the channels are the polarities.
    rate : float
        Events a second.
    packet_us : int
        Length of a packet; this one begins at ``index * packet_us``.
    index : int
    seed : int

    Returns
    -------
    HostQueue
        Of one sample, sorted by time and unit. Pixels are random inside a band of a twentieth of the
        columns.
    """
    channels, height, width = shape
    random = np.random.default_rng((seed, index))
    n = random.poisson(rate * packet_us * 1e-6)
    times = np.sort(random.integers(0, packet_us, n)) + index * packet_us
    band = max(round(width * _EDGE_SHARE), 1)
    left = (times * 1e-6 / _CROSSING_S % 1.0 * (width - band + 1)).astype(np.int64)
    x = left + random.integers(0, band, n)
    y = random.integers(0, height, n)
    units = (random.integers(0, channels, n) * height + y) * width + x
    order = np.lexsort((units, times))
    return HostQueue(
        times.astype(np.uint32), units[order].astype(np.uint32), np.zeros(1, np.int64), np.array([n])
    )


def latencies(service: Float64, interval: float) -> Float64:
    """Seconds from the end of each packet to its answer, if packet i is complete at ``(i + 1) interval``.

    A packet that is complete while an earlier one is computed waits for it.

    Parameters
    ----------
    service : ndarray of float64, shape (n_packets,)
        Seconds that each takes to compute.
    interval : float
        Seconds between packets.
    """
    result = np.empty(len(service))
    wait = 0.0
    for index, seconds in enumerate(service):
        result[index] = wait + seconds
        wait = max(result[index] - interval, 0.0)
    return result


@dataclass(frozen=True)
class LiveTrial:
    """One rate that was tried.

    Parameters
    ----------
    events_per_second : float
    packets, events, spikes : int
        Measured packets, their events, and the events of all layers.
    load : float
        Share of the time in which the network was busy; above 1 it falls ever more behind.
    p50_ms, p95_ms, p99_ms, worst_ms : float
        Latency of packets, from the end of a packet to its answer.
    """

    events_per_second: float
    packets: int
    events: int
    spikes: int
    load: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float


@dataclass(frozen=True)
class LiveSpeed:
    """What a network sustains.

    Parameters
    ----------
    name : str
    packet_ms : float
    sustained : LiveTrial or None
        Highest rate at which 99 of 100 packets are answered before the next one is complete; None if the
        lowest that was tried is too high.
    trials : list of LiveTrial
        In the order of the rates.
    """

    name: str
    packet_ms: float
    sustained: LiveTrial | None
    trials: list[LiveTrial]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def _try(
    layers: Sequence[Layer], backend: CpuBackend, rate: float, packet_us: int, packets: int
) -> LiveTrial:
    simulator = Simulator(layers, backend)
    states = [layer.new_state(1, backend) for layer in layers]
    warm = packets // 4
    service = np.empty(packets)
    events = spikes = 0
    for index in range(-warm, packets):
        queue = moving_edge(layers[0].in_shape, rate, packet_us, index + warm)
        begin = time.perf_counter()
        out = simulator.advance(queue, states)
        seconds = time.perf_counter() - begin
        if index >= 0:
            service[index] = seconds
            events += int(queue.count.sum())
            spikes += sum(int(part.count.sum()) for part in out)
    interval = packet_us * 1e-6
    milliseconds = 1e3 * latencies(service, interval)
    p50, p95, p99 = (float(value) for value in np.percentile(milliseconds, [50, 95, 99]))
    return LiveTrial(
        rate,
        packets,
        events,
        spikes,
        float(service.sum() / (packets * interval)),
        p50,
        p95,
        p99,
        float(milliseconds.max()),
    )


def measure_live(
    name: str,
    layers: Sequence[Layer],
    *,
    packet_us: int = 1000,
    packets: int = 400,
    highest: float = 1e8,
    report: Callable[[str], None] | None = None,
) -> LiveSpeed:
    """Search for the highest rate of events that layers keep up with, on one thread; state is kept.

    Packets are computed one after the other as fast as they can be, and their latency is reckoned as if they
    came in real time. Each rate begins from rest, with a quarter as many packets before that are not counted.
    A rate counts as missed if it is missed three times in a row: others may use the machine, too.

    Parameters
    ----------
    name : str
    layers : sequence of Layer
        The input of the first is the sensor.
    packet_us : int
        Events are handed over in packets of this length.
    packets : int
        For each rate.
    highest : float
        Rate above which nothing is tried.
    report : callable, optional
        Told of every rate in a line.
    """
    trials: dict[float, LiveTrial] = {}

    def keeps_up(rate: float) -> bool:
        for _ in range(_TRIES):
            trial = trials[rate] = _try(layers, backend, rate, packet_us, packets)
            if trial.p99_ms <= packet_us * 1e-3:
                break
        if report is not None:
            report(f"{rate:.3g} events/s: p99 {trial.p99_ms:.3g} ms")
        return trial.p99_ms <= packet_us * 1e-3

    with CpuBackend(1) as backend:
        low, high = 0.0, _LOWEST
        _try(layers, backend, _LOWEST, packet_us, packets=8)  # kernels are compiled
        while high <= highest and keeps_up(high):
            low, high = high, 4.0 * high
        while low and high <= highest and high / low > _PRECISION:
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if keeps_up(middle) else (low, middle)
    return LiveSpeed(name, packet_us * 1e-3, trials.get(low), [trials[rate] for rate in sorted(trials)])
