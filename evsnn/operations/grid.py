"""The metrics of NeuroBench, computed from an event-driven simulation on a time grid.

Definitions: J. Yik et al., The neurobench framework for benchmarking neuromorphic computing algorithms and
systems, Nat. Commun. 16:1545 (2025), and NeuroBench 2.3 where that leaves something open
(docs/operations.md, O11 to O16). NeuroBench watches PyTorch modules that are called once a time step; here
the events of a step are what a call would see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from evsnn_kernels import layout

from evsnn.backends import CpuBackend
from evsnn.errors import DataError, SettingsError
from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit
from evsnn.events.queue import HostQueue
from evsnn.layers.base import Layer, LayerState, SpikingLayer
from evsnn.layers.conv import Conv2d
from evsnn.network.network import Network, queues_of
from evsnn.network.simulation import Simulator, predicted_classes

Int64 = npt.NDArray[np.int64]

#: More steps than this are taken for a typing error.
MOST_STEPS = 100_000


@dataclass(frozen=True)
class GridMetrics:
    """NeuroBench's metrics; the operations are means a sample.

    Parameters
    ----------
    step_us : int
        Length of a step; times of events were rounded down to multiples of it.
    steps : int
        Steps of a sample, T.
    accuracy : float
        Of the network on the grid.
    effective_acs, effective_macs, dense : float
        Synaptic operations: with inputs of 0 and 1 only, with others, and of all inputs and weights (O12).
    activation_sparsity : float
        Share of neurons and steps without a spike (O13).
    membrane_updates : float
        Membrane potentials that a step changed; at the first step all (O14).
    footprint : int
        Bytes of weights and thresholds (O15).
    connection_sparsity : float
        Share of weights that are 0 (O16).
    """

    step_us: int
    steps: int
    accuracy: float
    effective_acs: float
    effective_macs: float
    dense: float
    activation_sparsity: float
    membrane_updates: float
    footprint: int
    connection_sparsity: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def grid_metrics(
    network: Network,
    data: EventSet | EventSplit,
    *,
    step_us: int = 1000,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> GridMetrics:
    """Run a network on a time grid and compute NeuroBench's metrics.

    Parameters
    ----------
    network : Network
    data : EventSet or EventSplit
        Times are rounded down to the grid first.
    step_us : int
        Length of a step in microseconds.
    threads : int, optional
        Default: all processors. The result does not depend on it.
    report : callable, optional
        Called with the number of samples done.

    Raises
    ------
    DataError
        If the data do not fit the network, or there are no samples.
    SettingsError
        If the step makes no sense.
    """
    network.check_fits(data)
    if not len(data):
        raise DataError("there are no samples to count the operations of")
    if step_us < 1:
        raise SettingsError(f"the step of the grid must be 1 us (0.001 ms) or more, got {step_us} us")
    steps: int = data.duration_us // step_us + 1  # an event may lie at the very end
    if steps > MOST_STEPS:
        raise SettingsError(f"a step of {step_us} us makes {steps} steps a sample, more than {MOST_STEPS}")
    sums = _Sums()
    answers = []
    with CpuBackend(threads) as backend:
        simulator = Simulator(network.layers, backend)
        fan_out = [
            _fan_out(layer, placed.scaled)
            for layer, placed in zip(network.layers, simulator.placed, strict=True)
        ]
        for queue in queues_of(data):
            answers.append(_run(simulator, fan_out, _on_grid(queue, step_us), step_us, steps, sums))
            if report is not None:
                report(len(queue))
    spiking = network.spiking_layers
    neurons = sum(layer.n_out for layer in spiking)
    weights = sum(layer.weight.size for layer in spiking)
    n = len(data)
    return GridMetrics(
        step_us=step_us,
        steps=steps,
        accuracy=float((np.concatenate(answers) == data.labels).mean()),
        effective_acs=sums.acs / n,
        effective_macs=sums.macs / n,
        dense=float(steps * sum(int(layer.synapses.sum()) for layer in spiking)),
        activation_sparsity=1.0 - sums.spikes / (n * steps * neurons),
        membrane_updates=sums.updates / n,
        footprint=sum(layer.weight.nbytes + layer.threshold.nbytes for layer in spiking),
        connection_sparsity=sum(int((layer.weight == 0).sum()) for layer in spiking) / weights,
    )


@dataclass(eq=False)
class _Sums:
    """Sums over samples, layers and steps."""

    acs: int = 0
    macs: int = 0
    spikes: int = 0
    updates: int = 0


def _on_grid(queue: HostQueue, step_us: int) -> HostQueue:
    """Round times down to the grid, and sort the events of a step by unit."""
    sample, times, units = queue.flat()
    times = times // step_us * step_us
    order = np.lexsort((units, times, sample))
    return HostQueue(
        times[order].astype(np.uint32),
        units[order].astype(np.uint32),
        np.cumsum(queue.count) - queue.count,
        queue.count.copy(),
    )


def _fan_out(layer: Layer, scaled: Any) -> Int64:  # noqa: ANN401 - an array of the CPU
    """Weights other than 0 that each input reaches, shape (n_in,)."""
    if not isinstance(layer, SpikingLayer):
        return np.zeros(layer.n_in, np.int64)
    nonzero = (np.asarray(scaled)[:, : layer.weight.shape[1]] != 0).sum(axis=1)
    result: Int64 = nonzero.astype(np.int64)
    if not isinstance(layer, Conv2d):
        return result
    channels = layer.in_shape[0]
    by_entry = nonzero.reshape(-1, channels)  # (kernel * kernel, C)
    result = ((layer.targets >= 0) @ by_entry).T.ravel().astype(np.int64)
    return result


def _run(
    simulator: Simulator, fan_out: list[Int64], queue: HostQueue, step_us: int, steps: int, sums: _Sums
) -> Int64:
    """Run a block of samples step by step; add up; return the predictions."""
    backend, n = simulator.backend, len(queue)
    states = [layer.new_state(n, backend) for layer in simulator.layers]
    membranes = [np.zeros((n, layer.n_out), np.float32) for layer in simulator.layers]
    counts = np.zeros((n, simulator.layers[-1].n_out), np.int64)
    edges = _edges(queue, step_us, steps)
    for step in range(steps):
        now = step * step_us
        part = HostQueue(
            queue.times, queue.units, queue.start + edges[:, step], edges[:, step + 1] - edges[:, step]
        )
        for index, layer in enumerate(simulator.layers):
            out = layer.forward(part, states[index], simulator.placed[index]).fetch(backend)
            if isinstance(layer, SpikingLayer):
                _add_operations(part, fan_out[index], sums)
                sums.spikes += int(out.count.sum())
                changed, membranes[index] = _step_membranes(
                    layer, states[index], membranes[index], now, step_us
                )
                sums.updates += membranes[index].size if step == 0 else changed
            part = out
        counts += part.unit_counts(counts.shape[1])
    potential = simulator.layers[-1].membranes(*backend.fetch(states[-1].potential))
    return predicted_classes(counts, potential)


def _edges(queue: HostQueue, step_us: int, steps: int) -> Int64:
    """Events of each sample before each step, shape (n_samples, steps + 1)."""
    sample, times, _ = queue.flat()
    counts = np.bincount(sample * steps + times // step_us, minlength=len(queue) * steps)
    edges = np.zeros((len(queue), steps + 1), np.int64)
    np.cumsum(counts.reshape(-1, steps), axis=1, out=edges[:, 1:])
    return edges


def _add_operations(part: HostQueue, fan_out: Int64, sums: _Sums) -> None:
    """Operations of one call: an input that had events counts once, whatever their number (O12)."""
    sample, _, units = part.flat()
    unit, events = np.unique(sample * len(fan_out) + units, return_counts=True)
    of_sample = unit // len(fan_out)
    operations = np.bincount(of_sample, weights=fan_out[unit % len(fan_out)], minlength=len(part))
    several = np.zeros(len(part), bool)
    several[of_sample[events > 1]] = True
    sums.macs += int(operations[several].sum())
    sums.acs += int(operations[~several].sum())


def _step_membranes(
    layer: SpikingLayer,
    state: LayerState,
    before: npt.NDArray[np.float32],
    now: int,
    step_us: int,
) -> tuple[int, npt.NDArray[np.float32]]:
    """Membrane potentials at the end of a step, and how many of them it changed.

    A neuron that no event reaches decays when the next one comes; a clock would decay it now.
    """
    high, low = layout.decay_tables(layer.neuron.tau_us)
    factor = (
        high[min(step_us >> layout.DECAY_LOW_BITS, len(high) - 1)]
        * low[step_us & (layout.DECAY_LOW_SIZE - 1)]
    )
    after = before * factor
    updated = np.asarray(state.last_update).reshape(len(before), -1)
    moved = np.tile(updated == now, (1, layer.n_out // updated.shape[1]))
    potential = layer.membranes(np.asarray(state.potential))
    after[moved] = potential[moved]
    return int((after != before).sum()), after
