"""Operations counted one by one, while plain loops simulate a network neuron by neuron.

Nothing is derived: whenever a line below decays, adds, compares or inhibits, it says so. A layer is given as
the list of synapses of each input.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .convolution import fields


@dataclass
class Neurons:
    """Neurons with their synapses: ``synapses[input] = [(neuron, weight), ...]``; groups are WTA groups."""

    synapses: dict[int, list[tuple[int, float]]]
    thresholds: list[float]
    group_of: list[int]
    #: Whether an event at the layer moves every neuron's clock, or only those of the groups it reaches.
    all_decay: bool
    counter: Counter = field(default_factory=Counter)


def dense(weight, threshold):
    """All inputs reach all neurons, which are one WTA group."""
    synapses = {k: [(i, float(w)) for i, w in enumerate(row)] for k, row in enumerate(weight)}
    return Neurons(synapses, [float(v) for v in threshold], [0] * len(threshold), True)


def conv(weight, threshold, in_shape, kernel, stride=1, padding=0):
    """The maps of a place are a WTA group."""
    places = fields(tuple(in_shape), kernel, stride, padding)
    maps = len(threshold)
    synapses = defaultdict(list)
    for place, (_, _, reached) in enumerate(places):
        for unit, row in reached:
            for m in range(maps):
                synapses[unit].append((m * len(places) + place, float(weight[row][m])))
    thresholds = [float(threshold[m]) for m in range(maps) for _ in places]
    groups = [place for _ in range(maps) for place in range(len(places))]
    return Neurons(synapses, thresholds, groups, False)


def simulate(events, layer, *, tau_us, refractory_us=0, kappa=0.0, clamp=1.0):
    """Output events of one layer for input events [(time, unit), ...]; counts go to ``layer.counter``."""
    n = len(layer.thresholds)
    potential, updated, fired_at = [0.0] * n, [0] * n, [None] * n
    members = defaultdict(list)
    for i, group in enumerate(layer.group_of):
        members[group].append(i)
    count, out = layer.counter, []
    for time in sorted({t for t, _ in events}):
        units = sorted(unit for t, unit in events if t == time)
        groups = {layer.group_of[i] for unit in units for i, _ in layer.synapses.get(unit, [])}
        touched = range(n) if layer.all_decay else sorted(i for group in groups for i in members[group])
        for i in touched:
            potential[i] *= math.exp(-(time - updated[i]) / tau_us)
            updated[i] = time
            count["membrane_updates"] += 1
        for unit in units:
            count["input_events"] += 1
            for i, weight in layer.synapses.get(unit, []):
                since = math.inf if fired_at[i] is None else time - fired_at[i]
                received = weight
                if since < refractory_us:
                    received = (since / refractory_us) ** 2 * weight
                    count["refractory_multiplications"] += 1
                potential[i] += received
                count["synaptic_operations"] += 1
                count["weight_bytes"] += 4  # a float32
        winners = defaultdict(list)
        for i in touched:
            potential[i] = max(potential[i], -clamp * layer.thresholds[i])
            count["threshold_comparisons"] += 1
            if potential[i] >= layer.thresholds[i]:
                winners[layer.group_of[i]].append(i)
        for group, fired in winners.items():
            for i in fired:
                potential[i] -= layer.thresholds[i]
                fired_at[i] = time
                count["spikes"] += 1
                out.append((time, i))
            if kappa == 0:
                continue
            for i in members[group]:
                others = len(fired) - (i in fired)
                if others:
                    changed = potential[i] + others * kappa * layer.thresholds[i]
                    potential[i] = max(changed, -clamp * layer.thresholds[i])
                    count["inhibitions"] += 1
    count["active_neurons"] += len({i for _, i in out})
    return sorted(out)


def synapses_in_use(layer, inputs, neurons):
    """Synapses from one of some inputs to one of some neurons, one by one."""
    return sum(i in neurons for k in inputs for i, _ in layer.synapses.get(k, []))
