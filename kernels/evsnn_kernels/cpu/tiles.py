"""Neurons that do not act on each other, tile by tile: membrane potentials stay in registers.

Without lateral inhibition and refractory period a neuron needs to know nothing of the others. So some of
them, a tile, go through all events of a sample before the next ones do: a membrane potential is loaded and
stored once a sample instead of once an event, and the tile's weights stay in the cache from sample to
sample. The arithmetic of each neuron is that of :mod:`evsnn_kernels.cpu.dense`, operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from evsnn_kernels.cpu.vector import (
    highest,
    load,
    load_16,
    load_32,
    load_64,
    lowest_bit,
    may_reach,
    store,
    store_16,
    store_32,
    store_64,
    where,
)
from evsnn_kernels.jit import cpu_part, cpu_routine, has_cpu_feature
from evsnn_kernels.layout import F32, I64, U16, U32, U64, Scalar
from evsnn_kernels.spec.neuron import THRESHOLD, clamped, decay_factor, decayed, reaches, received, reset


def _passes(
    load: Callable[..., Any], store: Callable[..., Any], step: int, pair: bool = False
) -> Callable[..., Any]:
    """Make the part of :func:`by_tiles` for ``step`` neurons at a time, or for a pair of as many.

    Of two vectors side by side one runs while the other waits for its last operation.
    """
    neurons = 2 * step if pair else step

    def run(
        code: I64,
        factor: F32,
        offset: U64,
        rows: F32 | U16,
        floor: Scalar,
        potential: F32,
        hit_event: U64,
        hit_mask: U64,
        hit_upper: U64,
        out_event: U64,
        out_units: U32,
        out_slot: I64,
        out_count: I64,
        first: Scalar,
        last: Scalar,
        base: Scalar,
    ) -> Scalar:
        width = potential.shape[1]
        membranes = potential.reshape(-1)
        # The weights of one tile stay in the cache for all samples.
        while base + neurons <= width:
            for s in range(first, last):
                row = s * width + base
                slot = out_slot[s] - out_slot[first]
                capacity = out_slot[s + 1] - out_slot[s]
                produced = out_count[s]
                hits = np.uint64(0)
                v = load(membranes, row)
                if pair:
                    w = load(membranes, row + step)
                for e in range(offset[s - first], offset[s - first + 1]):
                    at = (code[e] >> 1) + base
                    v = received(decayed(v, factor[e]), load(rows, at))
                    if pair:
                        w = received(decayed(w, factor[e]), load(rows, at + step))
                    if code[e] & 1:
                        v = clamped(v, floor)
                        if pair:
                            w = clamped(w, floor)
                        if may_reach(highest(v, w) if pair else v, THRESHOLD):
                            mask = reaches(v)
                            upper = reaches(w) if pair else np.uint64(0)
                            v = where(mask, reset(v), v)
                            if pair:
                                w = where(upper, reset(w), w)
                            hit_event[hits] = e
                            hit_mask[hits] = mask
                            hit_upper[hits] = upper
                            hits += np.uint64((mask | upper) != np.uint64(0))
                store(membranes, row, v)
                if pair:
                    store(membranes, row + step, w)
                for hit in range(hits):
                    mask = hit_mask[hit]
                    upper = hit_upper[hit]
                    shift = 0
                    while mask | upper != np.uint64(0):
                        if mask == np.uint64(0):
                            mask = upper
                            upper = np.uint64(0)
                            shift = step
                        i = shift + lowest_bit(mask)
                        mask = mask & (mask - np.uint64(1))
                        if produced < capacity:
                            out_event[slot + produced] = hit_event[hit]
                            out_units[slot + produced] = base + i
                        produced += 1
                out_count[s] = produced
            base += neurons
        return base

    return cpu_routine(run)


_LOAD_STORE = {8: (load, store), 16: (load_16, store_16), 32: (load_32, store_32), 64: (load_64, store_64)}
# Two vectors have to fit into half of the registers: 32 of 16 floats (AVX-512), 16 of 8 (AVX2) or of 4.
_WIDEST = 64 if has_cpu_feature("avx512f") else 32 if has_cpu_feature("avx2") else 16
_passes_of_pairs = _passes(*_LOAD_STORE[_WIDEST], _WIDEST, pair=True)
# What pairs leave over is less than two of them: one pass for every size below.
_passes_64, _passes_32, _passes_16, _passes_8 = (
    _passes(*_LOAD_STORE[step], step) for step in (64, 32, 16, 8)
)
_HAS_64, _HAS_32 = _WIDEST >= 64, _WIDEST >= 32


@cpu_part
def _prepare(
    times: U32,
    units: U32,
    width: Scalar,
    decay_high: F32,
    decay_low: F32,
    before: Scalar,
    code: I64,
    factor: F32,
) -> None:
    """Row of weights and decay of every event of a sample; see :func:`by_tiles`."""
    n = times.shape[0]
    for e in range(n):
        time = np.int64(times[e])
        # Between events of one time no time passes, which is a factor of 1.
        factor[e] = decay_factor(time - before, decay_high, decay_low)
        before = time
        code[e] = np.int64(units[e]) * width * 2
    for e in range(1, n):
        code[e - 1] += times[e] != times[e - 1]
    if n > 0:
        code[n - 1] += 1


@cpu_routine
def by_tiles(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    rows: F32 | U16,
    decay_high: F32,
    decay_low: F32,
    floor: Scalar,
    potential: F32,
    last_update: I64,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Simulate neurons that do not act on each other, some of them through all events before the next ones.

    Their membrane potentials stay in registers meanwhile. The events of a sample that has more of them than
    its slot holds are counted, but not the first ones. ``last_update`` is left to the caller.
    """
    width = potential.shape[1]
    offset = np.zeros(last - first + 1, np.uint64)
    most = 0
    for s in range(first, last):
        offset[s - first + 1] = offset[s - first] + np.uint64(count[s])
        most = max(most, count[s])
        out_count[s] = 0
    # Of every event: its row of weights, times 2, plus 1 for the last one of a time; and the decay before it.
    code = np.empty(offset[last - first], np.int64)
    factor = np.empty(offset[last - first], np.float32)
    for s in range(first, last):
        begin, n = start[s], count[s]
        at = np.int64(offset[s - first])
        _prepare(
            times[begin : begin + n],
            units[begin : begin + n],
            width,
            decay_high,
            decay_low,
            last_update[s],
            code[at : at + n],
            factor[at : at + n],
        )
    # What a pass notes of each time at which some neuron fired.
    hit_event = np.empty(most, np.uint64)
    hit_mask = np.empty(most, np.uint64)
    hit_upper = np.empty(most, np.uint64)
    room = out_slot[last] - out_slot[first]
    found_event = np.empty(room, np.uint64)
    found_unit = np.empty(room, np.uint32)
    samples = (
        code,
        factor,
        offset,
        rows,
        floor,
        potential,
        hit_event,
        hit_mask,
        hit_upper,
        found_event,
        found_unit,
        out_slot,
        out_count,
        first,
        last,
    )
    base = _passes_of_pairs(*samples, 0)
    if _HAS_64:
        base = _passes_64(*samples, base)
    if _HAS_32:
        base = _passes_32(*samples, base)
    _passes_8(*samples, _passes_16(*samples, base))
    # In the order of time; at one time, tiles have found the neurons in their order.
    place = np.empty(most + 1, np.int64)
    for s in range(first, last):
        found = out_count[s]
        if found <= out_slot[s + 1] - out_slot[s]:
            at = out_slot[s] - out_slot[first]
            before_first = offset[s - first]
            for e in range(count[s] + 1):
                place[e] = 0
            for j in range(at, at + found):
                place[found_event[j] - before_first + np.uint64(1)] += 1
            for e in range(count[s]):
                place[e + 1] += place[e]
            for j in range(at, at + found):
                e = found_event[j] - before_first
                to = out_slot[s] + place[e]
                out_times[to] = times[start[s] + np.int64(e)]
                out_units[to] = found_unit[j]
                place[e] += 1
