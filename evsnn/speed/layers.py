"""Forward pass, backward pass and update of each layer, beside streaming its weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.datasets.encoding import pack
from evsnn.events.core import EventSet
from evsnn.events.queue import HostQueue
from evsnn.layers.base import Placement, SpikingLayer
from evsnn.learning.backprop import Gradient
from evsnn.learning.optimiser import Optimiser
from evsnn.learning.settings import LearningSettings
from evsnn.network.architecture import Architecture
from evsnn.network.network import Network
from evsnn.network.simulation import Simulator
from evsnn.speed.limits import Bandwidth, stream_weights

Int64 = npt.NDArray[np.int64]

#: What one parameter costs an update at least: gradient, two moments and weight read, moments, weight and
#: the copy over the threshold written.
_ADAM_BYTES = 8 * 4
_SGD_BYTES = 6 * 4


@dataclass(eq=False)
class LayerSpeed:
    """Speed of one layer with one number of threads.

    Parameters
    ----------
    layer : str
        Its token in the architecture.
    kind : {"dense", "conv", "pool"}
    threads, samples : int
        Samples of the batch.
    events, spikes, operations : int
        Input events, output events and synaptic operations (S15) of the batch.
    gradient_operations : int
        Multiply-adds of the backward pass at most: the fan-out of every active input, for the gradient and,
        where there is a layer with neurons below, once more for its error.
    update_bytes : int
        Memory that an update reads and writes.
    bandwidth : float
        Memory bandwidth with these threads, bytes a second.
    forward, backward, update, rows, limit : list of float
        Seconds of each repeat; ``rows`` streams the weights row after row, ``limit`` in the fastest way.
    """

    layer: str
    kind: str
    threads: int
    samples: int
    events: int
    spikes: int
    operations: int
    gradient_operations: int
    update_bytes: int
    bandwidth: float = 0.0
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Medians over the repeats, as rates; None where there is nothing to measure."""
        spiking = self.kind != "pool"

        def rate(amount: float, seconds: list[float]) -> float | None:
            return amount / statistics.median(seconds) if seconds and amount else None

        def share(limit: list[float], seconds: list[float]) -> float:
            return statistics.median(a / b for a, b in zip(limit, seconds, strict=True))

        update = rate(self.update_bytes, self.update)
        return {
            "layer": self.layer,
            "kind": self.kind,
            "threads": self.threads,
            "samples": self.samples,
            "events_per_sample": self.events / self.samples,
            "spikes_per_sample": self.spikes / self.samples,
            "synaptic_operations_per_sample": self.operations / self.samples,
            "forward": {
                "samples_per_second": rate(self.samples, self.forward),
                "events_per_second": rate(self.events, self.forward),
                "operations_per_second": rate(self.operations, self.forward),
                "streaming_operations_per_second": rate(self.operations, self.limit),
                "row_streaming_operations_per_second": rate(self.operations, self.rows),
                "share_of_streaming": share(self.limit, self.forward),
                "share_of_row_streaming": share(self.rows, self.forward),
            },
            "backward": {
                "samples_per_second": rate(self.samples, self.backward),
                "events_per_second": rate(self.events, self.backward),
                "operations_per_second": rate(self.gradient_operations, self.backward),
            },
            "update": {
                "updates_per_second": rate(1, self.update),
                "samples_per_second": rate(self.samples, self.update),
                "bytes_per_second": update,
                "share_of_bandwidth": update / self.bandwidth if update and self.bandwidth else None,
            }
            if spiking
            else None,
        }


class _Bench:
    """One layer with its input and errors, ready to be measured over and over."""

    def __init__(
        self,
        network: Network,
        index: int,
        placed: Placement,
        queue: HostQueue,
        activities: tuple[Any, Any],
        learning: LearningSettings,
        backend: CpuBackend,
    ) -> None:
        self.layer = network.layers[index]
        self.index = index
        self.placed = placed
        self.queue = queue
        self.activities = activities
        self.learning = learning
        self.backend = backend
        self.passes_error = any(isinstance(layer, SpikingLayer) for layer in network.layers[:index])
        self.is_output = index == len(network.layers) - 1
        n = len(queue)
        self.error = np.random.default_rng(index).standard_normal((n, self.layer.n_out), np.float32)
        self.optimiser: Optimiser | None = None
        plan = network.architecture.layers[index]
        token = network.architecture.text.split("-")[index + 1]
        parameters = 0
        if isinstance(self.layer, SpikingLayer):
            alone = Network(
                Architecture(token, self.layer.in_shape, (plan,)),
                [self.layer],
                network.settings,
                network.seed,
            )
            self.optimiser = Optimiser(alone, [placed], learning)
            parameters = self.layer.parameters
        operations = np.empty(n, np.int64)
        out = self.forward(operations)
        [count] = backend.fetch(out.count)
        active = cast(npt.NDArray[np.float32], activities[0]) != 0
        gradient = int((active @ self.layer.synapses).sum())
        self.speed = LayerSpeed(
            token,
            plan.kind,
            backend.threads,
            n,
            int(queue.count.sum()),
            int(count.sum()),
            int(operations.sum()),
            gradient * (1 + self.passes_error),
            parameters * (_ADAM_BYTES if learning.optimizer == "adam" else _SGD_BYTES),
        )
        self.gradient = self.backward()

    def forward(self, operations: Int64) -> Any:  # noqa: ANN401 - a queue of the backend
        state = self.layer.new_state(len(self.queue), self.backend)
        return self.layer.forward(self.queue, state, self.placed, operations=operations)

    def backward(self) -> Gradient | None:
        inputs, outputs = self.activities
        normalise = self.learning.normalise
        if not isinstance(self.layer, SpikingLayer):
            if self.passes_error:
                self.layer.propagate(inputs, self.error, normalise=normalise, placed=self.placed)
            return None
        delta, threshold_delta = self.layer.deltas(
            outputs,
            self.error,
            normalise=normalise,
            is_output=self.is_output,
            spike_cost=0.0,
            placed=self.placed,
        )
        gradient = self.layer.gradients(
            inputs, delta, threshold_delta, normalise=normalise, placed=self.placed
        )
        if self.passes_error:
            self.layer.propagate(inputs, delta, normalise=normalise, placed=self.placed)
        return Gradient(*gradient)

    def measure(self) -> None:
        """Measure each part once."""
        operations = np.empty(len(self.queue), np.int64)
        self.speed.forward.append(_seconds(lambda: self.forward(operations)))
        rows, limit = stream_weights(self.layer, self.queue, self.placed, self.backend)
        self.speed.rows.append(rows)
        self.speed.limit.append(limit)
        if self.optimiser is not None or self.passes_error:
            self.speed.backward.append(_seconds(self.backward))
        if self.optimiser is not None and self.gradient is not None:
            optimiser, gradients = self.optimiser, [self.gradient]
            # At a learning rate of 0 everything is computed and nothing learned.
            self.speed.update.append(_seconds(lambda: optimiser.step(gradients, self.activities, 0.0)))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _compact(queue: HostQueue) -> HostQueue:
    """Copy a queue out of the memory that the next simulation writes to."""
    count = queue.count.copy()
    return HostQueue(*pack(queue), np.cumsum(count) - count, count)


def measure_layers(
    network: Network,
    data: EventSet,
    learning: LearningSettings,
    *,
    threads: Sequence[int] = (1,),
    repeats: int = 7,
    bandwidth_bytes: int = 1 << 27,
    report: Callable[[int], None] | None = None,
) -> list[LayerSpeed]:
    """Measure every layer on one batch; the network is not changed.

    Layers, numbers of threads and what is measured take turns, so that what disturbs the machine disturbs
    all of them. One turn before the first is not counted.

    Parameters
    ----------
    network : Network
        Speed depends on its activity: measure one that has learned.
    data : EventSet
        The batch.
    learning : LearningSettings
    threads : sequence of int
        Numbers of threads to measure with.
    repeats : int
    bandwidth_bytes : int
        Of each array that memory bandwidth is measured with.
    report : callable, optional
        Called with the number of repeats done.

    Returns
    -------
    list of LayerSpeed
        For each number of threads every layer in order.

    Raises
    ------
    DataError
        If the data do not fit the network.
    """
    network.check_fits(data)
    batch = HostQueue(data.times, data.units, data.offsets[:-1], np.diff(data.offsets))
    memory = Bandwidth(bandwidth_bytes)
    with ExitStack() as stack:
        benches: list[list[_Bench]] = []
        for n in threads:
            backend = stack.enter_context(CpuBackend(n))
            benches.append(_prepare(network, batch, data.duration_us, learning, backend))
        bandwidths: list[list[float]] = [[] for _ in threads]
        for repeat in range(repeats + 1):
            for place, row in enumerate(benches):
                if repeat == 1:
                    _forget(row)
                for bench in row:
                    bench.measure()
                measured = memory.measure(row[0].backend)
                if repeat:
                    bandwidths[place].append(measured)
            if repeat and report is not None:
                report(1)
    for row, values in zip(benches, bandwidths, strict=True):
        for bench in row:
            bench.speed.bandwidth = statistics.median(values)
    return [bench.speed for row in benches for bench in row]


def _prepare(
    network: Network, batch: HostQueue, duration_us: int, learning: LearningSettings, backend: CpuBackend
) -> list[_Bench]:
    simulator = Simulator(network.layers, backend, learning.activity)
    simulator.outcome(batch, duration_us)  # queues find their sizes
    activities = simulator.forward(batch, duration_us).activities
    queues = [_compact(queue) for queue in simulator.inputs(batch)]
    return [
        _Bench(
            network,
            index,
            placed,
            queues[index],
            (activities[index], activities[index + 1]),
            learning,
            backend,
        )
        for index, placed in enumerate(simulator.placed)
    ]


def _forget(row: list[_Bench]) -> None:
    """Drop the turn that compiled kernels and sized queues."""
    for bench in row:
        for seconds in (
            bench.speed.forward,
            bench.speed.backward,
            bench.speed.update,
            bench.speed.rows,
            bench.speed.limit,
        ):
            seconds.clear()
