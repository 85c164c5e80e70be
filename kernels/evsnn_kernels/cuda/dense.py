"""Fully connected layer, event by event (docs/model.md, S1 to S6): one block a sample."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import cuda, float32, uint32

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

#: Events that a block stages in shared memory at once, and one time more: that of the next event.
_CHUNK: Final = 256
_CHUNK_AND_NEXT: Final = _CHUNK + 1

#: Neurons whose membrane potentials fit into shared memory; those of a larger layer stay in global memory.
_MOST_SHARED: Final = 8192


def _threads(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    """A thread a neuron, in whole warps: a barrier after every time group costs by the warp."""
    n_out: int = args[4].shape[1]
    return min(256, -(-n_out // 32) * 32)


def _shared_bytes(*args: Any) -> int:  # noqa: ANN401 - the kernel's arguments
    n_out: int = args[4].shape[1]
    return 4 * (3 * (-(-n_out // 32)) + (n_out if n_out <= _MOST_SHARED else 0))


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

    A thread owns every ``blockDim``-th neuron. Within a time group it takes all events one neuron after
    the other; then the neurons that reach their threshold set a bit each, and a barrier makes the bits known
    to all: their number is what lateral inhibition needs, the bits below give a neuron's place among
    the spikes. Three sets of bits take turns, being set, read and cleared, so that one barrier is enough.
    """
    staged_times = cuda.shared.array(_CHUNK_AND_NEXT, np.uint32)
    staged_units = cuda.shared.array(_CHUNK, np.uint32)
    n_fired = cuda.shared.array(3, np.int32)
    fired = cuda.shared.array(0, uint32)
    shared = cuda.shared.array(0, float32)
    thread = cuda.threadIdx.x
    threads = cuda.blockDim.x
    s = first + cuda.blockIdx.x
    if s < last:
        n_out = weight.shape[1]
        words = (n_out + 31) >> 5
        v = potential[s]
        base = 0
        if n_out <= _MOST_SHARED:
            v = shared
            base = 3 * words
            for i in range(thread, n_out, threads):
                v[base + i] = potential[s, i]
        for w in range(thread, 3 * words, threads):
            fired[w] = np.uint32(0)
        if thread == 0:
            for t in range(3):
                n_fired[t] = np.int32(0)
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = np.int64(0)
        updated = last_update[s]
        turn = 0
        dirty = False
        opening = True
        factor = np.float32(1.0)
        chunk = start[s]
        stop = chunk + count[s]
        while chunk < stop:
            loaded = min(stop - chunk, np.int64(_CHUNK))
            more = chunk + loaded < stop
            cuda.syncthreads()
            for e in range(thread, loaded, threads):
                staged_times[e] = times[chunk + e]
                staged_units[e] = units[chunk + e]
            if thread == 0 and more:
                staged_times[loaded] = times[chunk + loaded]
            cuda.syncthreads()
            begin = np.int64(0)
            while begin < loaded:
                stamp = staged_times[begin]
                end = begin + 1
                while end < loaded and staged_times[end] == stamp:
                    end += 1
                closing = end < loaded or not more or staged_times[loaded] != stamp
                if opening:
                    factor = decay_factor(np.int64(stamp) - updated, decay_high, decay_low)
                    updated = np.int64(stamp)
                for i in range(thread, n_out, threads):
                    x = v[base + i]
                    if opening:
                        x = decayed(x, factor)
                    since = refractory
                    if refractory > 0:
                        since = updated - last_spike[s, i]
                    if since < refractory:
                        dynamic = refractory_weight(since, refractory)
                        for e in range(begin, end):
                            x = received(x, dynamic * weight[staged_units[e], i])
                    else:
                        for e in range(begin, end):
                            x = received(x, weight[staged_units[e], i])
                    if closing:
                        x = clamped(x, floor)
                        if reaches(x):
                            cuda.atomic.or_(fired, turn * words + (i >> 5), np.uint32(1 << (i & 31)))
                            cuda.atomic.add(n_fired, turn, np.int32(1))
                    v[base + i] = x
                if closing:
                    cuda.syncthreads()
                    found = n_fired[turn]
                    if found > 0:
                        others = inhibition(found, kappa)
                        others_of_fired = inhibition(found - 1, kappa)
                        for i in range(thread, n_out, threads):
                            bit = i & 31
                            word = fired[turn * words + (i >> 5)]
                            if (word >> bit) & 1:
                                x = reset(v[base + i])
                                if kappa < 0.0:
                                    x = clamped(received(x, others_of_fired), floor)
                                v[base + i] = x
                                at = produced + cuda.popc(np.uint32(word & ((1 << bit) - 1)))
                                for w in range(i >> 5):
                                    at += cuda.popc(fired[turn * words + w])
                                if at < capacity:
                                    out_times[slot + at] = stamp
                                    out_units[slot + at] = i
                                if refractory > 0:
                                    last_spike[s, i] = updated
                            elif kappa < 0.0:
                                v[base + i] = clamped(received(v[base + i], others), floor)
                        produced += found
                    if dirty:
                        cleared = (turn + 2) % 3
                        for w in range(thread, words, threads):
                            fired[cleared * words + w] = np.uint32(0)
                        if thread == 0:
                            n_fired[cleared] = np.int32(0)
                    dirty = found > 0
                    turn = (turn + 1) % 3
                opening = closing
                begin = end
            chunk += loaded
        if n_out <= _MOST_SHARED:
            for i in range(thread, n_out, threads):
                potential[s, i] = v[base + i]
        # Every thread has read the state: it was before a barrier, or there are no events.
        if thread == 0:
            last_update[s] = updated
            out_count[s] = produced
            out_operations[s] = count[s] * neurons
