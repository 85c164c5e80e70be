"""Fully connected layer, event by event (docs/model.md, S1 to S6)."""

from __future__ import annotations

from typing import Final

import numpy as np

from evsnn_kernels.cpu.tiles import by_tiles
from evsnn_kernels.cpu.vector import load, lowest_bit, store, value_at
from evsnn_kernels.jit import cpu_kernel, cpu_part
from evsnn_kernels.layout import F32, I64, LANES, U16, U32, U64, Scalar
from evsnn_kernels.spec.neuron import (
    clamped,
    decay_factor,
    decayed,
    inhibition,
    reaches,
    received,
    refractory_weight,
    reset,
)

#: Neurons that share a word of the bit mask of those at threshold.
WORD: Final = 64


@cpu_part
def _update(
    units: U32,
    rows: F32 | U16,
    potential: F32,
    factor: Scalar,
    floor: Scalar,
    begin: Scalar,
    end: Scalar,
    words: U64,
) -> None:
    """Decay, receive the events begin:end of one time group, clamp; mark who reaches threshold."""
    width = potential.shape[0]
    for number in range(begin, end - 1):
        row = np.int64(units[number]) * width
        for i in range(0, width, LANES):
            store(potential, i, received(decayed(load(potential, i), factor), load(rows, row + i)))
        factor = np.float32(1.0)
    row = np.int64(units[end - 1]) * width
    whole = width // WORD
    for word in range(whole):
        mask = np.uint64(0)
        # A fixed number of steps, which the compiler unrolls.
        for number in range(WORD // LANES):
            lane = number * LANES
            i = word * WORD + lane
            v = clamped(received(decayed(load(potential, i), factor), load(rows, row + i)), floor)
            store(potential, i, v)
            mask |= reaches(v) << np.uint64(lane)
        words[word] = mask
    if whole < words.shape[0]:
        mask = np.uint64(0)
        for i in range(whole * WORD, width, LANES):
            v = clamped(received(decayed(load(potential, i), factor), load(rows, row + i)), floor)
            store(potential, i, v)
            mask |= reaches(v) << np.uint64(i - whole * WORD)
        words[whole] = mask


@cpu_part
def _mark(potential: F32, words: U64) -> None:
    """Mark who is at threshold: neuron i is bit ``i % WORD`` of its word."""
    for word in range(words.shape[0]):
        mask = np.uint64(0)
        for i in range(word * WORD, min((word + 1) * WORD, potential.shape[0]), LANES):
            mask |= reaches(load(potential, i)) << np.uint64(i % WORD)
        words[word] = mask


@cpu_part
def _collect(words: U64, potential: F32, fired: U32) -> Scalar:
    """Write the neurons marked to ``fired`` in ascending order, reset them, return their number."""
    found = 0
    for word in range(words.shape[0]):
        mask = words[word]
        while mask != np.uint64(0):
            i = word * WORD + lowest_bit(mask)
            mask = mask & (mask - np.uint64(1))
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
    for i in range(0, potential.shape[0], LANES):
        store(potential, i, clamped(received(load(potential, i), change), floor))
    change = inhibition(found - 1, kappa)
    for j in range(found):
        potential[fired[j]] = clamped(received(kept[j], change), floor)


@cpu_kernel
def forward(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    weight: F32 | U16,
    decay_high: F32,
    decay_low: F32,
    floor: Scalar,
    kappa: Scalar,
    refractory: Scalar,
    neurons: Scalar,
    potential: F32,
    last_update: I64,
    last_spike: I64,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    out_operations: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Turn the input queue of samples first:last into their output queue.

    Parameters
    ----------
    times, units, start, count
        Input queue.
    weight : float32 (n_in, padded(n_out))
        Weights divided by the threshold of the receiving neuron, 0 beyond the neurons. Of uint16, the bits
        of float16 values; the arithmetic is that of float32 all the same.
    decay_high, decay_low : float32
        Decay tables.
    floor : float32
        Lower clamp in units of the threshold, -c; ``-inf`` for none.
    kappa : float32
        Lateral inhibition in [-1, 0]; 0 for none.
    refractory : int64
        Refractory period in microseconds; 0 for none.
    neurons : int64
        Neurons of the layer, n_out.
    potential : float32 (n_samples, padded(n_out))
        State. What lies beyond the neurons never reaches a threshold.
    last_update, last_spike : int64
        State.
    out_times, out_units, out_slot, out_count
        Output queue. All events of a sample are counted; if its slot is too small for them, what is stored
        there does not matter.
    out_operations : int64 (n_samples,)
        Synaptic operations: events times neurons.
    """
    n_out = weight.shape[1]
    rows = weight.reshape(-1)
    if kappa == np.float32(0.0) and refractory == 0:
        # Neurons that do not act on each other need not take turns.
        by_tiles(
            times,
            units,
            start,
            count,
            rows,
            decay_high,
            decay_low,
            floor,
            potential,
            last_update,
            out_times,
            out_units,
            out_slot,
            out_count,
            first,
            last,
        )
        for s in range(first, last):
            out_operations[s] = count[s] * neurons
        return
    words = np.empty((n_out + WORD - 1) // WORD, np.uint64)
    fired = np.empty(n_out, np.uint32)
    kept = np.empty(n_out, np.float32)
    recent = np.empty(n_out, np.uint32)
    for s in range(first, last):
        out_operations[s] = count[s] * neurons
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        v = potential[s]
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
                        x = received(x, dynamic * value_at(rows, np.int64(units[e]) * n_out + i))
                    kept[still] = clamped(x, floor)
                    recent[still] = i
                    still += 1
            n_recent = still
            _update(units, rows, v, factor, floor, begin, end, words)
            if n_recent > 0:
                for j in range(n_recent):
                    v[recent[j]] = kept[j]
                _mark(v, words)
            found = _collect(words, v, fired)
            if found > 0:
                if kappa < 0.0:
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
