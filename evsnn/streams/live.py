"""A network that answers while a source sends events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from evsnn.events.reorder import OrderSettings
from evsnn.network.network import Network
from evsnn.network.stream import Stream, StreamCounters
from evsnn.streams.decisions import Decision, DecisionMaker
from evsnn.streams.latency import Latencies
from evsnn.streams.sources import Source


@dataclass(frozen=True)
class LiveReport:
    """How a session has gone so far.

    Parameters
    ----------
    events : StreamCounters
    lost, repeated, foreign : int
        Records that UDP lost, that it brought twice, and datagrams of other senders.
    decisions : int
    sensor_seconds : float
        Time from the first event to the last, on the sensor's clock.
    wall_seconds : float
        Time from the arrival of the first packet to the end of the last one's work.
    reads : int
        Number of times that packets arrived.
    latency_ms : dict
        p50, p95, p99 and max, in milliseconds: from the moment in which packets were read until the decisions
        that they made possible had been used.
    """

    events: StreamCounters
    lost: int
    repeated: int
    foreign: int
    decisions: int
    sensor_seconds: float
    wall_seconds: float
    reads: int
    latency_ms: dict[str, float]


class LiveSession:
    """Runs a network on a source, from rest.

    Parameters
    ----------
    network : Network
    source : Source
    window_us, step_us : int
        See :class:`DecisionMaker`.
    order : OrderSettings
        What becomes of events out of order.
    """

    def __init__(
        self,
        network: Network,
        source: Source,
        *,
        window_us: int,
        step_us: int,
        order: OrderSettings | None = None,
    ) -> None:
        self._network = network
        self._source = source
        self._stream = Stream(network, order)
        self._maker = DecisionMaker(self._stream, window_us, step_us)
        self._latencies = Latencies()
        self._decisions = 0
        self._begun: float | None = None
        self._done = 0.0
        self._warm_up()

    def decisions(self) -> Iterator[Decision]:
        """Decide until the source ends.

        Raises
        ------
        DataError
            If the sensor does not fit the network, or something that comes is wrong; what came before it has
            acted.
        """
        self._network.check_shape(self._source.shape, self._source.where)
        for arrival in self._source.arrivals():
            if self._begun is None:
                self._begun = arrival.read_at
            packet = arrival.packet
            self._stream.accept(packet.times, packet.units, packet.clock)
            for decision in self._maker.decide():
                self._decisions += 1
                yield decision
            self._done = time.perf_counter()
            self._latencies.add(self._done - arrival.read_at)
        for decision in self._maker.finish():
            self._decisions += 1
            yield decision

    def report(self) -> LiveReport:
        """Say how it has gone so far."""
        source, stream = self._source, self._stream
        return LiveReport(
            events=stream.counters,
            lost=source.lost,
            repeated=source.repeated,
            foreign=source.foreign,
            decisions=self._decisions,
            sensor_seconds=stream.elapsed_us / 1e6,
            wall_seconds=0.0 if self._begun is None else max(self._done - self._begun, 0.0),
            reads=self._latencies.count,
            latency_ms=self._latencies.milliseconds(),
        )

    def _warm_up(self) -> None:
        """Load or compile the kernels now, and not while a sensor waits."""
        Stream(self._network).push([0, 1, 2], [0, 0, 0])
