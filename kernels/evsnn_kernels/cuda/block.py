"""What the threads of a block do together: counting, and sorting a queue.

No function here waits for the other threads; the kernels do, between two calls. (The simulator of Numba
knows the threads of a kernel only in the kernel's own file.)
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import cuda

from evsnn_kernels.jit import cuda_part
from evsnn_kernels.layout import I32, U32, Scalar

#: Threads that a block may have on any device.
MAX_THREADS: Final = 1024


@cuda_part
def summed(partial: I32, n: Scalar) -> Scalar:
    """Sum of the first ``n`` counts: of all threads, or of those before thread n."""
    total = np.int64(0)
    for t in range(n):
        total += np.int64(partial[t])
    return total


@cuda_part
def bits_below(words: U32, n: Scalar) -> Scalar:
    """Bits set among the first ``n``, 32 of them to a word."""
    whole = n >> 5
    found = np.int64(0)
    for w in range(whole):
        found += cuda.popc(words[w])
    if n & 31:
        found += cuda.popc(np.uint32(words[whole] & np.uint32((1 << (n & 31)) - 1)))
    return found


@cuda_part
def queue_key(times: U32, units: U32, at: Scalar) -> Scalar:
    """Time and unit of an event as one number that orders a queue."""
    return (np.uint64(times[at]) << np.uint64(32)) | np.uint64(units[at])


@cuda_part
def sort_step(
    times: U32,
    units: U32,
    slot: Scalar,
    n: Scalar,
    size: Scalar,
    gap: Scalar,
    thread: Scalar,
    threads: Scalar,
) -> None:
    """One thread's share of one step of a bitonic sort of the ``n`` events from ``slot`` on.

    K. E. Batcher 1968, "Sorting networks and their applications", in the form whose exchanges all put the
    smaller event first: events that are missing to a power of two are then larger than any and never move.
    ``size`` = 2, 4, ... below 2 n is the length of the runs that the step belongs to, and ``gap`` = size / 2,
    size / 4, ..., 1 the distance of the events it compares; the first step of a size compares mirror images.
    """
    pairs = ((n + size - 1) // size) * (size >> 1)
    for pair in range(thread, pairs, threads):
        within = pair & (gap - 1)
        low = ((pair - within) << 1) + within
        high = low ^ (size - 1) if 2 * gap == size else low + gap
        if high < n:
            a = slot + low
            b = slot + high
            if queue_key(times, units, a) > queue_key(times, units, b):
                time = times[a]
                unit = units[a]
                times[a] = times[b]
                units[a] = units[b]
                times[b] = time
                units[b] = unit


@cuda_part
def narrowed(
    low: Scalar, high: Scalar, bound: Scalar, below: Scalar, capacity: Scalar
) -> tuple[Scalar, Scalar, Scalar]:
    """Search for the key before which ``capacity`` events of an overflowing sample lie, at the most.

    ``below`` events have keys below ``bound``. ``low`` has no more than ``capacity`` events below it,
    ``high`` has more. Returns the new ``low``, ``high`` and the next bound to count for; where that is
    ``low`` and had been counted, ``low`` is the key of the first event that is not stored.
    """
    if below <= capacity:
        low = bound
    else:
        high = bound
    if high - low > np.uint64(1):
        return low, high, low + ((high - low) >> np.uint64(1))
    return low, high, low
