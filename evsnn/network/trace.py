"""Membrane potentials of chosen neurons over the course of one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from evsnn.backends import CpuBackend
from evsnn.errors import SettingsError
from evsnn.events.core import Events
from evsnn.events.queue import HostQueue
from evsnn.layers.base import SpikingLayer
from evsnn.network.network import Network
from evsnn.network.simulation import Simulator


@dataclass(frozen=True, eq=False)
class MembraneTrace:
    """Membrane potential of one neuron whenever its layer's input moved it.

    Between two times the potential decays with the layer's time constant (docs/model.md, S2).

    Parameters
    ----------
    neuron : int
        Index in the layer, channel first for a convolution.
    times : ndarray of uint32, shape (n,)
        Microseconds: the times of the layer's input events; in a convolution, of those that reach the
        neuron's place.
    potential : ndarray of float32, shape (n,)
        Over the threshold, after the events of that time: decayed, received, clamped, reset and inhibited.
    spikes : ndarray of uint32, shape (n_spikes,)
        When the neuron fired; a subset of ``times``.
    """

    neuron: int
    times: npt.NDArray[np.uint32]
    potential: npt.NDArray[np.float32]
    spikes: npt.NDArray[np.uint32]


def spiking_layer(network: Network, layer: int) -> SpikingLayer:
    """Layer number ``layer`` of a network, counted from 1 with pooling layers.

    Raises
    ------
    SettingsError
        If there is no such layer, or it has no neurons; the message names those that have.
    """
    known = [index for index, each in enumerate(network.layers, 1) if isinstance(each, SpikingLayer)]
    choice = f"layers with neurons: {', '.join(str(index) for index in known)}"
    if not 1 <= layer <= len(network.layers):
        raise SettingsError(f"there is no layer {layer} in {network.architecture.text}; {choice}")
    found = network.layers[layer - 1]
    if not isinstance(found, SpikingLayer):
        raise SettingsError(f"layer {layer} of {network.architecture.text} only pools; {choice}")
    return found


def trace_membrane(
    network: Network, events: Events, layer: int, neurons: Sequence[int]
) -> list[MembraneTrace]:
    """Follow the membrane potentials of some neurons of a layer through one sample, from rest.

    Memory goes with the number of times and neurons asked for, not with the size of the layer.

    Parameters
    ----------
    network : Network
    events : Events
    layer : int
        Counted from 1, with pooling layers.
    neurons : sequence of int

    Returns
    -------
    list of MembraneTrace
        In the order of ``neurons``.

    Raises
    ------
    DataError
        If a unit is outside the network's input.
    SettingsError
        If there is no such layer or neuron.
    """
    chosen = spiking_layer(network, layer)
    for neuron in neurons:
        if not 0 <= neuron < chosen.n_out:
            raise SettingsError(
                f"layer {layer} of {network.architecture.text} has the neurons 0 to {chosen.n_out - 1}, "
                f"not {neuron}"
            )
    network.check_units(events)
    columns = np.array([chosen.state_columns(neuron) for neuron in neurons], np.int64).reshape(-1, 2)
    place = {neuron: index for index, neuron in enumerate(neurons)}
    spikes: list[list[int]] = [[] for _ in neurons]
    with CpuBackend(1) as backend:
        whole = HostQueue(events.times, events.units, np.array([0]), np.array([len(events)]))
        simulator = Simulator(network.layers[:layer], backend)
        times, units = simulator.inputs(whole)[-1].sample(0)
        stamps, starts = np.unique(times, return_index=True)
        potential = np.empty((len(stamps), len(neurons)), np.float32)
        moved = np.empty((len(stamps), len(neurons)), bool)
        state, placed = chosen.new_state(1, backend), simulator.placed[-1]
        for row, (low, high) in enumerate(pairwise([*starts, len(times)])):
            group = HostQueue(times, units, np.array([low]), np.array([high - low]))
            out = chosen.forward(group, state, placed).fetch(backend)
            for unit in out.sample(0)[1].tolist():
                if unit in place:
                    spikes[place[unit]].append(int(stamps[row]))
            membrane, last_update, _ = backend.fetch(*state.arrays())
            potential[row] = membrane[0, columns[:, 0]]
            moved[row] = last_update.reshape(1, -1)[0, columns[:, 1]] == stamps[row]
    return [
        MembraneTrace(
            neuron,
            stamps[moved[:, index]],
            potential[moved[:, index], index],
            np.array(spikes[place[neuron]], np.uint32),
        )
        for index, neuron in enumerate(neurons)
    ]
