"""Fully connected layer, event by event (docs/model.md, S1 to S6)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.cpu.vector import MASK_LANES, lowest_bit, threshold_mask
from evsnn_kernels.jit import cpu_kernel, cpu_part
from evsnn_kernels.layout import F32, I64, U32, Scalar
from evsnn_kernels.spec.neuron import (
    clamped,
    decay_factor,
    decayed,
    fires,
    inhibition,
    received,
    refractory_weight,
    reset,
)


@cpu_part
def _update(
    units: U32, weight: F32, potential: F32, factor: Scalar, floor: Scalar, begin: Scalar, end: Scalar
) -> Scalar:
    """Decay, receive the events begin:end of one time group, clamp; return how many neurons fire."""
    n_out = potential.shape[0]
    count = np.int32(0)
    unit = units[begin]
    if end == begin + 1:
        for i in range(n_out):
            v = clamped(received(decayed(potential[i], factor), weight[unit, i]), floor)
            potential[i] = v
            # An int32 counter is what lets LLVM vectorise a threshold test without fastmath.
            count = np.int32(count + fires(v))
        return count
    for i in range(n_out):
        potential[i] = received(decayed(potential[i], factor), weight[unit, i])
    for e in range(begin + 1, end - 1):
        unit = units[e]
        for i in range(n_out):
            potential[i] = received(potential[i], weight[unit, i])
    unit = units[end - 1]
    for i in range(n_out):
        v = clamped(received(potential[i], weight[unit, i]), floor)
        potential[i] = v
        count = np.int32(count + fires(v))
    return count


@cpu_part
def _collect(potential: F32, fired: U32) -> Scalar:
    """Write the neurons at threshold to ``fired`` in ascending order, reset them, return their number."""
    n_out = potential.shape[0]
    found = 0
    block = 0
    while block + MASK_LANES <= n_out:
        mask = threshold_mask(potential, block)
        while mask != np.uint64(0):
            i = block + lowest_bit(mask)
            mask = mask & (mask - np.uint64(1))
            potential[i] = reset(potential[i])
            fired[found] = i
            found += 1
        block += MASK_LANES
    for i in range(block, n_out):
        if fires(potential[i]) != 0:
            potential[i] = reset(potential[i])
            fired[found] = i
            found += 1
    return found


@cpu_part
def _inhibit(potential: F32, fired: U32, found: Scalar, kappa: Scalar, floor: Scalar, kept: F32) -> None:
    """Inhibit every neuron by the others that fired; those that fired are inhibited by one less."""
    for j in range(found):
        kept[j] = potential[fired[j]]
    change = inhibition(found, kappa)
    for i in range(potential.shape[0]):
        potential[i] = clamped(received(potential[i], change), floor)
    change = inhibition(found - 1, kappa)
    for j in range(found):
        potential[fired[j]] = clamped(received(kept[j], change), floor)


@cpu_kernel
def forward(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    weight: F32,
    decay_high: F32,
    decay_low: F32,
    floor: Scalar,
    kappa: Scalar,
    refractory: Scalar,
    potential: F32,
    last_update: I64,
    last_spike: I64,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Turn the input queue of samples first:last into their output queue.

    Parameters
    ----------
    times, units, start, count
        Input queue.
    weight : float32 (n_in, n_out)
        Weights divided by the threshold of the receiving neuron.
    decay_high, decay_low : float32
        Decay tables.
    floor : float32
        Lower clamp in units of the threshold, -c; ``-inf`` for none.
    kappa : float32
        Lateral inhibition in [-1, 0]; 0 for none.
    refractory : int64
        Refractory period in microseconds; 0 for none.
    potential, last_update, last_spike
        State, read and updated.
    out_times, out_units, out_slot, out_count
        Output queue.
    """
    n_out = weight.shape[1]
    fired = np.empty(n_out, np.uint32)
    kept = np.empty(n_out, np.float32)
    recent = np.empty(n_out, np.uint32)
    for s in range(first, last):
        v = potential[s]
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = 0
        n_recent = 0
        if refractory > 0:
            for i in range(n_out):
                if last_update[s] - last_spike[s, i] < refractory:
                    recent[n_recent] = i
                    n_recent += 1
        begin = start[s]
        stop = begin + count[s]
        while begin < stop:
            stamp = times[begin]
            end = begin + 1
            while end < stop and times[end] == stamp:
                end += 1
            time = np.int64(stamp)
            factor = decay_factor(time - last_update[s], decay_high, decay_low)
            last_update[s] = time

            still = 0
            for j in range(n_recent):
                i = recent[j]
                since = time - last_spike[s, i]
                if since < refractory:
                    dynamic = refractory_weight(since, refractory)
                    x = decayed(v[i], factor)
                    for e in range(begin, end):
                        x = received(x, dynamic * weight[units[e], i])
                    kept[still] = clamped(x, floor)
                    recent[still] = i
                    still += 1
            n_recent = still
            n_fired = _update(units, weight, v, factor, floor, begin, end)
            for j in range(n_recent):
                v[recent[j]] = kept[j]

            if n_fired > 0 or n_recent > 0:
                found = _collect(v, fired)
                if kappa < 0.0 and found > 0:
                    _inhibit(v, fired, found, kappa, floor, kept)
                for j in range(found):
                    if produced < capacity:
                        out_times[slot + produced] = stamp
                        out_units[slot + produced] = fired[j]
                    produced += 1
                if refractory > 0:
                    for j in range(found):
                        i = fired[j]
                        if time - last_spike[s, i] >= refractory:
                            recent[n_recent] = i
                            n_recent += 1
                        last_spike[s, i] = time
            begin = end
        out_count[s] = produced
