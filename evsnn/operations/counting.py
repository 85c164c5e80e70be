"""Operations of every layer and sample, from the queues that its simulation read and wrote.

What a layer does at a time group follows from the events of its input and output queue, so nothing is counted
in the kernels but the synaptic operations. Definitions: docs/operations.md, O1 to O10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.errors import DataError
from evsnn.events.core import EventSet
from evsnn.events.file import EventSplit
from evsnn.events.queue import HostQueue
from evsnn.layers.base import Layer, SpikingLayer
from evsnn.layers.conv import Conv2d
from evsnn.network.network import Network, queues_of
from evsnn.network.simulation import Simulator, predicted_classes

Int64 = npt.NDArray[np.int64]

#: Bytes of a weight.
WEIGHT_BYTES = 4
#: Kernel entries of events that are looked at in one piece; bounds the memory of a convolution.
_PIECE = 1 << 22
#: More than the sum of a time and a refractory period: keys of (place, time) sort by place, then by time.
_TIMES = 1 << 34


@dataclass(frozen=True, eq=False)
class LayerOperations:
    """Operations of one layer, each of shape (n_samples,) (docs/operations.md).

    Parameters
    ----------
    input_events, spikes : ndarray of int64
        Events that came in, and events that the neurons emitted (O2; 0 for pooling, which has no neurons).
    synaptic_operations : ndarray of int64
        Additions of a weight to a membrane potential (O1).
    weight_bytes : ndarray of int64
        Bytes of weights that they read (O8).
    membrane_updates : ndarray of int64
        Decays of a membrane potential, a multiplication each (O3).
    threshold_comparisons : ndarray of int64
        Comparisons of a membrane potential with its threshold (O4).
    refractory_multiplications : ndarray of int64
        Weights that were made smaller because their neuron had just fired (O5).
    inhibitions : ndarray of int64
        Additions of lateral inhibition to a membrane potential (O6).
    active_neurons : ndarray of int64
        Neurons that fired at least once (O9).
    gradient_operations, error_operations : ndarray of int64
        Multiply-accumulates of backpropagation, if the sample is learned (O10).
    """

    input_events: Int64
    spikes: Int64
    synaptic_operations: Int64
    weight_bytes: Int64
    membrane_updates: Int64
    threshold_comparisons: Int64
    refractory_multiplications: Int64
    inhibitions: Int64
    active_neurons: Int64
    gradient_operations: Int64
    error_operations: Int64

    @property
    def multiplications(self) -> Int64:
        """Multiplications of the forward pass: decays and refractory weights (O7)."""
        return self.membrane_updates + self.refractory_multiplications

    @property
    def additions(self) -> Int64:
        """Additions of the forward pass: synaptic operations, resets and inhibition (O7)."""
        return self.synaptic_operations + self.spikes + self.inhibitions


@dataclass(frozen=True, eq=False)
class OperationCounts:
    """What a network spent on a data set.

    Parameters
    ----------
    network : Network
    layers : list of LayerOperations
        One for each layer, pooling included.
    predictions : ndarray of int64, shape (n_samples,)
    correct : int
        Samples whose prediction is their label.
    """

    network: Network
    layers: list[LayerOperations]
    predictions: Int64
    correct: int

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.predictions)

    @property
    def accuracy(self) -> float:
        """Share of samples whose prediction is their label."""
        return self.correct / self.samples

    def rows(self) -> list[dict[str, Any]]:
        """Means a sample of every layer, then of all (``total``), beside the conventional network's."""
        names = [*COUNTS, *_SUMS]
        rows: list[dict[str, Any]] = []
        tokens = self.network.architecture.text.split("-")[1:]
        for index, (token, layer, own) in enumerate(
            zip(tokens, self.network.layers, self.layers, strict=True)
        ):
            neurons = layer.n_out if isinstance(layer, SpikingLayer) else 0
            rows.append(
                {"layer": token}
                | {name: float(getattr(own, name).mean()) for name in names}
                | {
                    "activity_sparsity": 1.0 - float(own.active_neurons.mean()) / neurons if neurons else 0.0,
                    "neurons": neurons,
                    "parameters": layer.parameters if isinstance(layer, SpikingLayer) else 0,
                    "dense_macs": layer.dense_macs,
                    "dense_backward_macs": (1 + (index > 0)) * layer.dense_macs,
                }
            )
        total: dict[str, Any] = {"layer": "total"}
        for name in rows[0]:
            if name not in total:
                total[name] = sum(row[name] for row in rows)
        total["input_events"] = rows[0]["input_events"]
        total["activity_sparsity"] = 1.0 - total["active_neurons"] / total["neurons"]
        return [*rows, total]


#: What is counted a layer and sample, and what follows from it.
COUNTS = tuple(entry.name for entry in fields(LayerOperations))
_SUMS = ("multiplications", "additions")


def count_operations(
    network: Network,
    data: EventSet | EventSplit,
    *,
    threads: int | None = None,
    report: Callable[[int], None] | None = None,
) -> OperationCounts:
    """Simulate every sample of a data set from rest and count what that took.

    Parameters
    ----------
    network : Network
    data : EventSet or EventSplit
    threads : int, optional
        Default: all processors. The result does not depend on it.
    report : callable, optional
        Called with the number of samples done.

    Raises
    ------
    DataError
        If the data do not fit the network, or there are no samples.
    """
    network.check_fits(data)
    if not len(data):
        raise DataError("there are no samples to count the operations of")
    blocks: list[list[LayerOperations]] = []
    predictions = []
    with CpuBackend(threads) as backend:
        simulator = Simulator(network.layers, backend)
        for queue in queues_of(data):
            counted, answers = _count_block(simulator, queue)
            blocks.append(counted)
            predictions.append(answers)
            if report is not None:
                report(len(queue))
    joined = [
        LayerOperations(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in COUNTS})
        for parts in zip(*blocks, strict=True)
    ]
    answers = np.concatenate(predictions)
    return OperationCounts(network, joined, answers, int((answers == data.labels).sum()))


def _count_block(simulator: Simulator, queue: HostQueue) -> tuple[list[LayerOperations], Int64]:
    """Operations of every layer, and the predictions, for one block of samples."""
    backend, last = simulator.backend, len(simulator.layers) - 1
    active = queue.unit_counts(simulator.layers[0].n_in) > 0
    counted = []
    for index, (layer, placed) in enumerate(zip(simulator.layers, simulator.placed, strict=True)):
        state = layer.new_state(len(queue), backend)
        operations = backend.empty((len(queue),), np.int64)
        out = layer.forward(queue, state, placed, operations=operations).fetch(backend)
        [spent] = backend.fetch(operations)
        counts = out.unit_counts(layer.n_out)
        counted.append(
            _count_layer(
                layer,
                queue,
                out,
                spent.copy(),
                active,
                counts > 0,
                is_first=index == 0,
                is_last=index == last,
            )
        )
        queue, active = out, counts > 0
    return counted, predicted_classes(counts, layer.membranes(*backend.fetch(state.potential)))


def _count_layer(
    layer: Layer,
    queue: HostQueue,
    out: HostQueue,
    operations: Int64,
    active_inputs: npt.NDArray[np.bool_],
    active: npt.NDArray[np.bool_],
    *,
    is_first: bool,
    is_last: bool,
) -> LayerOperations:
    """Operations of one layer from its queues, and from the units that had events."""
    nothing = np.zeros(len(queue), np.int64)
    if not isinstance(layer, SpikingLayer):
        values = dict.fromkeys(COUNTS, nothing)
        return LayerOperations(**values | {"input_events": queue.count.copy()})
    places, members = _groups_of(layer)
    updates = _membrane_updates(layer, queue)
    # The residual potential of a silent output neuron carries its error (S8).
    learning = np.ones_like(active) if is_last else active
    pairs = _pairs(layer, active_inputs, learning)
    kappa, refractory = layer.neuron.kappa, layer.neuron.refractory_us
    return LayerOperations(
        input_events=queue.count.copy(),
        spikes=out.count.copy(),
        synaptic_operations=operations,
        weight_bytes=operations * WEIGHT_BYTES,
        membrane_updates=updates,
        threshold_comparisons=updates,
        refractory_multiplications=_refractory(layer, queue, out, refractory) if refractory > 0 else nothing,
        inhibitions=_inhibitions(out, places, members) if kappa < 0 else nothing,
        active_neurons=active.sum(axis=1),
        gradient_operations=pairs,
        error_operations=nothing if is_first else pairs,
    )


def _groups_of(layer: SpikingLayer) -> tuple[int, int]:
    """WTA groups of a layer, and the neurons of each."""
    return (layer.places, layer.maps) if isinstance(layer, Conv2d) else (1, layer.n_out)


def _group_numbers(sample: Int64, times: Int64) -> Int64:
    """Number of the time group of each event, counted through all samples."""
    if not len(times):
        return np.zeros(0, np.int64)
    new = (sample[1:] != sample[:-1]) | (times[1:] != times[:-1])
    return np.concatenate([[0], np.cumsum(new)]).astype(np.int64)


def _membrane_updates(layer: SpikingLayer, queue: HostQueue) -> Int64:
    """Neurons that each time group reaches: all of a dense layer, the maps of the places it touches (O3)."""
    sample, times, units = queue.flat()
    group = _group_numbers(sample, times)
    if not isinstance(layer, Conv2d):
        first = np.flatnonzero(np.diff(group, prepend=-1))
        return np.bincount(sample[first], minlength=len(queue)) * layer.n_out
    touched = np.zeros(len(queue), np.int64)
    targets = layer.targets
    _, height, width = layer.in_shape
    for low, high in _pieces(group, max(targets.shape[1], layer.places)):
        reached = targets[units[low:high] % (height * width)]
        event, entry = np.nonzero(reached >= 0)
        first_group = group[low]
        seen = np.zeros((group[high - 1] - first_group + 1, layer.places), bool)
        seen[group[low:high][event] - first_group, reached[event, entry]] = True
        starts = low + np.flatnonzero(np.diff(group[low:high], prepend=-1))
        np.add.at(touched, sample[starts], seen.sum(axis=1))
    return touched * layer.maps


def _pieces(group: Int64, weight: int) -> list[tuple[int, int]]:
    """Ranges of events of at most a piece's size that part no time group."""
    ranges, low = [], 0
    size = max(_PIECE // weight, 1)
    while low < len(group):
        high = min(low + size, len(group))
        if high < len(group):
            begin = int(np.searchsorted(group, group[high], side="left"))
            high = begin if begin > low else int(np.searchsorted(group, group[high], side="right"))
        ranges.append((low, high))
        low = high
    return ranges


def _refractory(layer: SpikingLayer, queue: HostQueue, out: HostQueue, refractory: int) -> Int64:
    """Synaptic operations at neurons that fired less than the refractory period before (O5)."""
    places, _ = _groups_of(layer)
    arrivals = _arrivals(layer, queue)
    sample, times, units = out.flat()
    order = np.lexsort((times, units, sample))
    sample, times, units = sample[order], times[order], units[order]
    # An event at the time of the neuron's next spike still meets the old one.
    until = times + refractory - 1
    same = (sample[1:] == sample[:-1]) & (units[1:] == units[:-1])
    until[:-1] = np.where(same, np.minimum(until[:-1], times[1:]), until[:-1])
    base = (sample * places + units % places) * _TIMES
    met = np.searchsorted(arrivals, base + until, side="right")
    met -= np.searchsorted(arrivals, base + times, side="right")
    return np.bincount(sample, weights=met, minlength=len(queue)).astype(np.int64)


def _arrivals(layer: SpikingLayer, queue: HostQueue) -> Int64:
    """Sorted keys (sample, place, time) of all arrivals of an input event at a place."""
    sample, times, units = queue.flat()
    if not isinstance(layer, Conv2d):
        return sample * _TIMES + times
    reached = layer.targets[units % (layer.in_shape[1] * layer.in_shape[2])]
    event, entry = np.nonzero(reached >= 0)
    return np.sort((sample[event] * layer.places + reached[event, entry]) * _TIMES + times[event])


def _inhibitions(out: HostQueue, places: int, members: int) -> Int64:
    """Neurons inhibited: all of a WTA group in which two or more fired, else all but the one (O6)."""
    sample, times, units = out.flat()
    key, fired = np.unique((sample * places + units % places) * _TIMES + times, return_counts=True)
    inhibited = np.where(fired > 1, members, members - 1)
    return np.bincount(key // _TIMES // places, weights=inhibited, minlength=len(out)).astype(np.int64)


def _pairs(layer: SpikingLayer, active_inputs: npt.NDArray[np.bool_], active: npt.NDArray[np.bool_]) -> Int64:
    """Synapses between an active input and an active neuron (O10)."""
    if not isinstance(layer, Conv2d):
        dense: Int64 = active_inputs.sum(axis=1) * active.sum(axis=1)
        return dense
    n = len(active)
    inputs = active_inputs.reshape(n, layer.in_shape[0], -1).sum(axis=1)
    neurons = active.reshape(n, layer.maps, -1).sum(axis=1)
    pairs = np.zeros(n, np.int64)
    for reached in layer.targets.T:
        exists = reached >= 0
        pairs += (inputs[:, exists] * neurons[:, reached[exists]]).sum(axis=1)
    return pairs
