"""Neurons that do not act on each other, tile by tile: membrane potentials stay in registers.

Without lateral inhibition and refractory period a neuron needs to know nothing of the others. So some of
them, a tile, go through all events of a sample before the next ones do: a membrane potential is loaded and
stored once a sample instead of once an event, and the tile's weights stay in the cache from sample to
sample. The arithmetic of each neuron is that of :mod:`evsnn_kernels.cpu.dense`, operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from evsnn_kernels.cpu.vector import (
    count_bits,
    highest,
    load,
    load_16,
    load_32,
    load_64,
    lowest_bit,
    may_reach,
    prefetch,
    prefetch_16,
    prefetch_32,
    prefetch_64,
    store,
    store_16,
    store_32,
    store_64,
    where,
)
from evsnn_kernels.jit import cpu_part, cpu_routine, has_cpu_feature
from evsnn_kernels.layout import F32, I64, U16, U32, U64, Scalar
from evsnn_kernels.spec.neuron import THRESHOLD, clamped, decay_factor, decayed, reaches, received, reset

#: Notes beyond those of a sample's slot, where one may be written that does not count.
_SPARE: Final = 2
#: Events between a row of weights being announced to the processor and its use.
_AHEAD: Final = 24


@cpu_part
def _note(
    note_event: U32, note_base: U32, note_mask: U64, at: Scalar, event: Scalar, base: Scalar, mask: Scalar
) -> Scalar:
    """Note at ``at`` who fired at an event, if anybody did; return where the next note goes."""
    note_event[at] = event
    note_base[at] = base
    note_mask[at] = mask
    return at + np.uint64(mask != np.uint64(0))


def _passes(
    load: Callable[..., Any],
    store: Callable[..., Any],
    prefetch: Callable[..., Any],
    step: int,
    pair: bool = False,
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
        note_event: U32,
        note_base: U32,
        note_mask: U64,
        note_slot: I64,
        noted: I64,
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
                begin = offset[s - first]
                at = np.uint64(noted[s - first])
                full = np.uint64(note_slot[s - first + 1] - _SPARE)
                found = 0
                v = load(membranes, row)
                if pair:
                    w = load(membranes, row + step)
                for e in range(begin, offset[s - first + 1]):
                    prefetch(rows, (code[e + np.uint64(_AHEAD)] >> 1) + base)
                    if pair:
                        prefetch(rows, (code[e + np.uint64(_AHEAD)] >> 1) + base + step)
                    weight = (code[e] >> 1) + base
                    v = received(decayed(v, factor[e]), load(rows, weight))
                    if pair:
                        w = received(decayed(w, factor[e]), load(rows, weight + step))
                    if code[e] & 1:
                        v = clamped(v, floor)
                        if pair:
                            w = clamped(w, floor)
                        if may_reach(highest(v, w) if pair else v, THRESHOLD):
                            mask = reaches(v)
                            v = where(mask, reset(v), v)
                            at = _note(note_event, note_base, note_mask, at, e - begin, base, mask)
                            found += count_bits(mask)
                            if pair:
                                mask = reaches(w)
                                w = where(mask, reset(w), w)
                                at = _note(note_event, note_base, note_mask, at, e - begin, base + step, mask)
                                found += count_bits(mask)
                            at = min(at, full)
                store(membranes, row, v)
                if pair:
                    store(membranes, row + step, w)
                noted[s - first] = np.int64(at)
                out_count[s] += found
            base += neurons
        return base

    return cpu_routine(run)


_ACCESS = {
    8: (load, store, prefetch),
    16: (load_16, store_16, prefetch_16),
    32: (load_32, store_32, prefetch_32),
    64: (load_64, store_64, prefetch_64),
}
# Two vectors have to fit into half of the registers: 32 of 16 floats (AVX-512), 16 of 8 (AVX2) or of 4.
_WIDEST = 64 if has_cpu_feature("avx512f") else 32 if has_cpu_feature("avx2") else 16
_passes_of_pairs = _passes(*_ACCESS[_WIDEST], _WIDEST, pair=True)
# What pairs leave over is less than two of them: one pass for every size below.
_passes_64, _passes_32, _passes_16, _passes_8 = (_passes(*_ACCESS[step], step) for step in (64, 32, 16, 8))
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

    Their membrane potentials stay in registers meanwhile. The parameters are those of the layer's kernel.
    """
    width = potential.shape[1]
    offset = np.zeros(last - first + 1, np.uint64)
    most = 0
    for s in range(first, last):
        offset[s - first + 1] = offset[s - first] + np.uint64(count[s])
        most = max(most, count[s])
        out_count[s] = 0
    # Of every event: its row of weights, times 2, plus 1 for the last one of a time; and the decay before it.
    # Beyond the last one the first row is announced for nothing.
    code = np.zeros(offset[last - first] + np.uint64(_AHEAD), np.int64)
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
    # A note says which of some neurons fired at an event, so there are no more of them than spikes.
    note_slot = np.empty(last - first + 1, np.int64)
    for s in range(first, last + 1):
        note_slot[s - first] = out_slot[s] - out_slot[first] + _SPARE * (s - first)
    room = note_slot[last - first]
    noted = note_slot[: last - first].copy()
    note_event = np.empty(room, np.uint32)
    note_base = np.empty(room, np.uint32)
    note_mask = np.empty(room, np.uint64)
    samples = (
        code,
        factor,
        offset,
        rows,
        floor,
        potential,
        note_event,
        note_base,
        note_mask,
        note_slot,
        noted,
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
        if count[s] > 0:
            last_update[s] = times[start[s] + count[s] - 1]
        if out_count[s] <= out_slot[s + 1] - out_slot[s]:
            for e in range(1, count[s] + 1):
                place[e] = 0
            begin, end = note_slot[s - first], noted[s - first]
            for note in range(begin, end):
                place[np.uint64(note_event[note]) + np.uint64(1)] += count_bits(note_mask[note])
            place[0] = out_slot[s]
            for e in range(count[s]):
                place[e + 1] += place[e]
            for note in range(begin, end):
                event = np.int64(note_event[note])
                mask = note_mask[note]
                to = place[event]
                while mask != np.uint64(0):
                    out_times[to] = times[start[s] + event]
                    out_units[to] = note_base[note] + lowest_bit(mask)
                    mask = mask & (mask - np.uint64(1))
                    to += 1
                place[event] = to
