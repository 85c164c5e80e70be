"""A network on a live source of events: state is kept from packet to packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout

from evsnn.backends import CpuBackend
from evsnn.events.queue import HostQueue
from evsnn.events.reorder import END_OF_TIME, EventOrder, OrderSettings
from evsnn.layers.base import LayerState
from evsnn.network.simulation import Simulator, predicted_classes

if TYPE_CHECKING:
    from evsnn.network.network import Network

#: Kernels count time in 32 bits from an origin, which moves on when they are used up.
_SPAN = 1 << 32

#: Events simulated at a time: what a layer needs for them stays in the cache, whatever the size of a packet.
_SLICE = 1 << 14


@dataclass(frozen=True, eq=False)
class StreamSpikes:
    """Events of the output layer.

    Parameters
    ----------
    times : ndarray of int64, shape (n,)
        Microseconds, on the clock of the input, non-decreasing.
    units : ndarray of uint32, shape (n,)
        Output neurons.
    """

    times: npt.NDArray[np.int64]
    units: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class StreamCounters:
    """What came in and what became of it: ``received = acted + late + held``.

    Parameters
    ----------
    received : int
        Events that were pushed.
    acted : int
        Events that the network has seen.
    late : int
        Events dropped because they came too late.
    held : int
        Events that wait until their time group is complete.
    reordered : int
        Events that came behind a newer one, but in time: they were put in their place.
    duplicates : int
        Events with time and unit of another; they all act, as in a file.
    spikes : int
        Events of the output layer.
    """

    received: int
    acted: int
    late: int
    held: int
    reordered: int
    duplicates: int
    spikes: int


class Stream:
    """Simulates a network on events as they come; from rest, as :meth:`Network.run` does on all at once.

    All events of a time act together (docs/model.md, S1). So those of the newest time are held until a later
    one comes, or :meth:`advance` or :meth:`flush` says that none of this time will: then they act. With
    ``reorder_us`` events are held so much longer. Nothing else depends on the cut into packets: the spikes of
    all calls together are, bit for bit, those of the recording in one piece.

    Parameters
    ----------
    network : Network
        Its weights are taken as they are now.
    order : OrderSettings
        What becomes of events out of order.

    Notes
    -----
    Times may be any from 0 to 2^62 - 1 microseconds, such as those of the Unix epoch, and a stream may run
    for years. Membrane potentials depend on differences of times only; with a time constant above a minute,
    the decay over a single pause of more than 71 minutes ends at that of 71 minutes.

    Memory: the state of the layers, the events held and the largest packet; none of it grows with time.
    """

    def __init__(self, network: Network, order: OrderSettings | None = None) -> None:
        self._order = EventOrder(order or OrderSettings(), network.n_inputs)
        self._layers = network.layers
        self._n_classes = network.n_classes
        self._backend = CpuBackend(1)
        self._simulator = Simulator(self._layers, self._backend)
        self._states: list[LayerState] = []
        self.reset()

    def reset(self) -> None:
        """Return to rest; times may start anew, events held are forgotten, counters are 0."""
        self._order.clear()
        self._states = [layer.new_state(1, self._backend) for layer in self._layers]
        self._origin: int | None = None
        self._acted = 0
        self._first = self._last = 0
        self._counts = np.zeros(self._n_classes, np.int64)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Output spikes since the start, shape (n_out,)."""
        return self._counts.copy()

    @property
    def potential(self) -> npt.NDArray[np.float32]:
        """Residual membrane potential of the output neurons over their threshold, shape (n_out,)."""
        [potential] = self._backend.fetch(self._states[-1].potential)
        row: npt.NDArray[np.float32] = self._layers[-1].membranes(potential)[0]
        return row.copy()

    @property
    def prediction(self) -> int:
        """Class with most output spikes since the start, ties by residual potential."""
        return self.predict(self._counts)

    @property
    def open_from(self) -> int:
        """Time in microseconds up to which, exclusively, nothing will come any more."""
        return self._order.open_from

    @property
    def next_time(self) -> int | None:
        """Time of the first event that has not acted, None if there is none."""
        return self._order.next_time

    @property
    def counters(self) -> StreamCounters:
        """What came in so far and what became of it."""
        order = self._order
        return StreamCounters(
            received=order.received,
            acted=self._acted,
            late=order.late,
            held=order.held,
            reordered=order.reordered,
            duplicates=order.duplicates,
            spikes=int(self._counts.sum()),
        )

    @property
    def elapsed_us(self) -> int:
        """Microseconds from the first event that acted to the last one."""
        return self._last - self._first

    def predict(self, counts: npt.NDArray[np.int64]) -> int:
        """Class with most of ``counts``, shape (n_out,), ties by the present residual potential (S9)."""
        return int(predicted_classes(counts[None], self.potential[None])[0])

    def push(self, times: npt.ArrayLike, units: npt.ArrayLike) -> StreamSpikes:
        """Take a packet of events; return the output spikes that are certain now.

        Parameters
        ----------
        times : array-like of int, shape (n,)
            Microseconds from any start, the same for all packets.
        units : array-like of int, shape (n,)
            Input index, ``(c*H + y)*W + x``.

        Raises
        ------
        DataError
            If a value is no integer or out of range, or an event is refused by :class:`OrderSettings`; the
            stream is then as it was before.
        """
        self.accept(times, units)
        return self.run()

    def advance(self, now: int) -> StreamSpikes:
        """Learn that the sensor's clock shows ``now`` microseconds; return the spikes that are certain now.

        It is what an event at ``now`` would tell: with ``reorder_us`` 0, events before ``now`` are complete.

        Raises
        ------
        DataError
            If ``now`` is no time.
        """
        self.accept_clock(now)
        return self.run()

    def flush(self) -> StreamSpikes:
        """Let all events held act, as at the end of a recording; return their spikes.

        Events of their times that come later are late.
        """
        self.accept_end()
        return self.run()

    def accept(
        self, times: npt.ArrayLike, units: npt.ArrayLike, clock: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """Take a packet as :meth:`push`, but leave it to :meth:`run` to simulate it.

        Parameters
        ----------
        times, units : array-like of int, shape (n,)
        clock : ndarray of bool, shape (n,), optional
            Where True there is no event, but a time for :meth:`advance`, between the events around it.
        """
        self._order.accept(times, units, clock)

    def accept_clock(self, now: int) -> None:
        """Learn the sensor's time as :meth:`advance`, but leave it to :meth:`run` to simulate."""
        self._order.advance(now)

    def accept_end(self) -> None:
        """Let all events held go as :meth:`flush`, but leave it to :meth:`run` to simulate them."""
        self._order.flush()

    def run(self, until: int = END_OF_TIME) -> StreamSpikes:
        """Simulate what is complete, but only times below ``until``; return its output spikes.

        So that the state can be looked at after a certain time: it is the same in whatever packets the events
        came.
        """
        parts = []
        limit = min(until, self._order.open_from)
        while (time := self._order.next_time) is not None and time < limit:
            parts += self._simulate(*self._order.take(limit, _SLICE))
        if len(parts) == 1:
            return parts[0]
        return StreamSpikes(
            np.concatenate([np.empty(0, np.int64), *(part.times for part in parts)]),
            np.concatenate([np.empty(0, np.uint32), *(part.units for part in parts)]),
        )

    def _simulate(self, times: npt.NDArray[np.int64], units: npt.NDArray[np.uint32]) -> list[StreamSpikes]:
        parts = []
        self._last = int(times[-1])
        while len(times):
            origin = self._origin_for(int(times[0]))
            n = int(times.searchsorted(origin + _SPAN))
            queue = HostQueue((times[:n] - origin).astype(np.uint32), units[:n], np.array([0]), np.array([n]))
            spike_times, spike_units = self._simulator.advance(queue, self._states)[-1].sample(0)
            if len(spike_units):
                self._counts += np.bincount(spike_units, minlength=self._n_classes)
            self._acted += n
            parts.append(StreamSpikes(spike_times.astype(np.int64) + origin, spike_units))
            times, units = times[n:], units[n:]
        return parts

    def _origin_for(self, time: int) -> int:
        """Origin from which 32 bits reach ``time``; if it moves, so do the times that states hold."""
        if self._origin is not None and time - self._origin >= _SPAN:
            for state in self._states:
                last_update, last_spike = self._backend.fetch(state.last_update, state.last_spike)
                last_update -= time - self._origin
                np.maximum(last_spike - (time - self._origin), layout.NEVER, out=last_spike)
            self._origin = time
        elif self._origin is None:
            # At rest every potential is 0, at whatever time.
            self._origin = self._first = time
        return self._origin
