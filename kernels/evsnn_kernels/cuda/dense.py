"""Fully connected layer, event by event (docs/model.md, S1 to S6): one block a sample."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import cuda, float32, uint32

from evsnn_kernels.cuda.block import MAX_THREADS
from evsnn_kernels.jit import cuda_kernel
from evsnn_kernels.layout import F32, I64, U32, Scalar
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

#: Events that a block stages in shared memory at once.
_CHUNK: Final = 256

#: Neurons whose membrane potentials fit into shared memory; those of a larger layer stay in global memory.
_MOST_SHARED: Final = 4096

#: Events that neurons without lateral inhibition take between two barriers, and the words of 32 bits that
#: mark their spikes, at most (more where one event needs more).
_RUN: Final = 32
_RUN_WORDS: Final = 1024


def _rows(n_out: int, kappa: float) -> int:
    """Rows of bits that mark spikes, a row an event; with inhibition no event is taken before the last."""
    return 1 if kappa < 0 else max(1, min(_RUN, _RUN_WORDS // -(-n_out // 32)))


def _threads(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    """As few neurons a thread as 1024 threads allow, in whole warps; several warps to stage events."""
    n_out: int = args[4].shape[1]
    share = -(-n_out // -(-n_out // MAX_THREADS))
    return max(128, -(-share // 32) * 32)


def _shared_bytes(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    n_out: int = args[4].shape[1]
    rows = _rows(n_out, float(args[8]))
    return 4 * (3 * rows * (-(-n_out // 32) + 1) + (n_out if n_out <= _MOST_SHARED else 0))


@cuda_kernel(threads=_threads, shared_bytes=_shared_bytes)
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
    """Turn the input queue of samples first:last into their output queue; see the CPU twin.

    A thread owns every ``blockDim``-th neuron, and takes the events of a run one neuron after the other;
    every event decays a potential by the time since the event before (D(0) is 1). Neurons that reach their
    threshold set a bit each, a barrier makes the bits known to all, and the number of bits before it gives
    a spike its place. Without lateral inhibition neurons know nothing of each other, so that a run
    has many events; with it, a run ends with its time group. Three sets of bits take turns, being set, read
    and cleared, so that one barrier is enough.
    """
    staged_times = cuda.shared.array(_CHUNK, np.uint32)
    staged_units = cuda.shared.array(_CHUNK, np.uint32)
    factors = cuda.shared.array(_CHUNK, np.float32)
    closing = cuda.shared.array(_CHUNK, np.uint32)
    # One piece of memory under two types; the parts do not overlap.
    fired = cuda.shared.array(0, uint32)
    shared = cuda.shared.array(0, float32)
    thread = np.uint32(cuda.threadIdx.x)
    threads = np.uint32(cuda.blockDim.x)
    s = first + cuda.blockIdx.x
    if s < last:
        n_out = np.uint32(weight.shape[1])
        words = np.uint32((n_out + 31) >> 5)
        rows = np.uint32(1)
        if not kappa < 0.0:
            rows = np.uint32(max(min(np.int64(_RUN), _RUN_WORDS // np.int64(words)), np.int64(1)))
        # After the bits of a set, how many there are in each row.
        size_of_set = np.uint32(rows * (words + 1))
        v = potential[s]
        base = np.uint32(0)
        if n_out <= _MOST_SHARED:
            v = shared
            base = np.uint32(3 * size_of_set)
            i = thread
            while i < n_out:
                v[base + i] = potential[s, i]
                i = np.uint32(i + threads)
        w = thread
        while w < 3 * size_of_set:
            fired[w] = np.uint32(0)
            w = np.uint32(w + threads)
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = np.int64(0)
        updated = last_update[s]
        turn = np.uint32(0)
        dirty = False
        chunk = start[s]
        stop = chunk + count[s]
        while chunk < stop:
            loaded = np.uint32(min(stop - chunk, np.int64(_CHUNK)))
            cuda.syncthreads()
            e = thread
            while e < loaded:
                at = chunk + np.int64(e)
                time = np.int64(times[at])
                before = updated
                if at > start[s]:
                    before = np.int64(times[at - 1])
                staged_times[e] = times[at]
                staged_units[e] = units[at]
                factors[e] = decay_factor(time - before, decay_high, decay_low)
                is_last = at + 1 == stop or np.int64(times[at + 1]) != time
                closing[e] = np.uint32(1) if is_last else np.uint32(0)
                e = np.uint32(e + threads)
            cuda.syncthreads()
            begin = np.uint32(0)
            while begin < loaded:
                # A spike at event e of the run is marked in row e - row_0.
                end = np.uint32(min(begin + rows, loaded))
                row_0 = begin
                if kappa < 0.0:
                    while end < loaded and closing[end - np.uint32(1)] == 0:
                        end = np.uint32(end + 1)
                    row_0 = np.uint32(end - 1)
                i = thread
                while i < n_out:
                    x = v[base + i]
                    mask = np.uint32(0)
                    e = begin
                    if refractory == 0:
                        while e < end:
                            x = received(decayed(x, factors[e]), weight[staged_units[e], i])
                            if closing[e] != 0:
                                x = clamped(x, floor)
                                if reaches(x):
                                    x = reset(x)
                                    mask = np.uint32(mask | np.uint32(1 << (e - row_0)))
                            e = np.uint32(e + 1)
                    else:
                        spiked = last_spike[s, i]
                        while e < end:
                            received_weight = weight[staged_units[e], i]
                            since = np.int64(staged_times[e]) - spiked
                            if since < refractory:
                                received_weight = refractory_weight(since, refractory) * received_weight
                            x = received(decayed(x, factors[e]), received_weight)
                            if closing[e] != 0:
                                x = clamped(x, floor)
                                if reaches(x):
                                    x = reset(x)
                                    mask = np.uint32(mask | np.uint32(1 << (e - row_0)))
                                    spiked = np.int64(staged_times[e])
                            e = np.uint32(e + 1)
                        if mask != 0:
                            last_spike[s, i] = spiked
                    v[base + i] = x
                    row = np.uint32(0)
                    while mask != 0:
                        if mask & np.uint32(1):
                            at_word = turn * size_of_set + row * words + (i >> np.uint32(5))
                            cuda.atomic.or_(fired, at_word, np.uint32(1 << (i & np.uint32(31))))
                            cuda.atomic.add(fired, turn * size_of_set + rows * words + row, np.uint32(1))
                        mask = np.uint32(mask >> np.uint32(1))
                        row = np.uint32(row + 1)
                    i = np.uint32(i + threads)
                cuda.syncthreads()
                bits = np.uint32(turn * size_of_set)
                counts = np.uint32(bits + rows * words)
                n_rows = np.uint32(end - row_0)
                found = np.int64(0)
                row = np.uint32(0)
                while row < n_rows:
                    found += np.int64(fired[counts + row])
                    row = np.uint32(row + 1)
                if found > 0:
                    q = thread
                    while q < n_rows * words:
                        word = fired[bits + q]
                        if word != 0:
                            row = np.uint32(q // words)
                            at = produced
                            before_row = np.uint32(0)
                            while before_row < row:
                                at += np.int64(fired[counts + before_row])
                                before_row = np.uint32(before_row + 1)
                            w = np.uint32(row * words)
                            while w < q:
                                at += np.int64(cuda.popc(fired[bits + w]))
                                w = np.uint32(w + 1)
                            i = np.uint32((q - row * words) << np.uint32(5))
                            while word != 0:
                                if word & np.uint32(1):
                                    if at < capacity:
                                        out_times[slot + at] = staged_times[row_0 + row]
                                        out_units[slot + at] = i
                                    at += 1
                                word = np.uint32(word >> np.uint32(1))
                                i = np.uint32(i + 1)
                        q = np.uint32(q + threads)
                    if kappa < 0.0:
                        others = inhibition(found, kappa)
                        others_of_fired = inhibition(found - 1, kappa)
                        i = thread
                        while i < n_out:
                            word = fired[bits + (i >> np.uint32(5))]
                            change = others
                            if (word >> (i & np.uint32(31))) & np.uint32(1):
                                change = others_of_fired
                            v[base + i] = clamped(received(v[base + i], change), floor)
                            i = np.uint32(i + threads)
                    produced += found
                if dirty:
                    cleared = np.uint32((turn + 2) % 3 * size_of_set)
                    w = thread
                    while w < size_of_set:
                        fired[cleared + w] = np.uint32(0)
                        w = np.uint32(w + threads)
                dirty = bool(found > 0)
                turn = np.uint32((turn + 1) % 3)
                begin = end
            chunk += np.int64(loaded)
        if n_out <= _MOST_SHARED:
            i = thread
            while i < n_out:
                potential[s, i] = v[base + i]
                i = np.uint32(i + threads)
        if thread == 0:
            if count[s] > 0:
                last_update[s] = np.int64(times[stop - 1])
            out_count[s] = produced
            out_operations[s] = count[s] * neurons
