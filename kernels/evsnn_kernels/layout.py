"""Array orders, types and codes, documented once for all backends.

Arrays
------
weight : float32 (n_in, n_out)
    C order, ``weight[pre, post]``: an input event reads one contiguous row.
queue : times uint32 (capacity,), units uint32 (capacity,), start int64 (n_samples,), count int64 (n_samples,)
    Sample s owns ``times[start[s] : start[s] + count[s]]``, sorted by (time, unit). A queue that is
    written has ``slot`` int64 (n_samples + 1,): sample s may fill ``slot[s] : slot[s + 1]``. ``count``
    is always the number of events that occurred; where it exceeds the slot, only the first ones were
    stored and the caller repeats the sample with a larger slot.
potential : float32 (n_samples, n)
    Membrane potential divided by the neuron's threshold, so that every threshold is 1. A dense
    layer keeps ``n = padded(neurons)`` of them, a convolution ``padded(maps)`` at every place; those beyond
    belong to no neuron, and never reach a threshold.
last_update : int64 (n_samples,), last_spike : int64 (n_samples, n)
    Microseconds. ``last_spike`` has n = 0 where there is no refractory period.
decay_high, decay_low : float32
    ``D(dt) = decay_high[min(dt >> 10, last)] * decay_low[dt & 1023]``, dt in microseconds.
activity, error, delta : float32 (n_samples, n)
    See docs/model.md, clauses S6 to S8.

Every kernel takes its arguments grouped by role, in this order: events, parameters, state, outputs,
counters, and last the range ``first, last`` of samples, rows or columns it works on.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from evsnn_kernels import portable

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
U16: TypeAlias = npt.NDArray[np.uint16]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]

#: A NumPy scalar inside a kernel; the backend that compiles it fixes its exact type.
Scalar: TypeAlias = Any

#: float32 values that kernels handle at once; neurons and maps are stored in whole groups of them.
LANES: Final = 8
#: Bytes that a processor moves together.
CACHE_LINE: Final = 64

#: Bits of a time difference resolved by the fine decay table.
DECAY_LOW_BITS: Final = 10
DECAY_LOW_SIZE: Final = 1 << DECAY_LOW_BITS

#: Entries of the coarse table that cover every difference of two 32-bit times.
_LARGEST_TABLE: Final = (1 << 32 >> DECAY_LOW_BITS) + 1

#: ``last_spike`` of a neuron that has not fired: far enough back for any refractory period.
NEVER: Final = -(1 << 62)

# What a random number is for: the fourth word of its counter.
PURPOSE_WEIGHTS: Final = 1
PURPOSE_SHUFFLE: Final = 2
PURPOSE_ENCODE: Final = 3
PURPOSE_AUGMENT: Final = 4
PURPOSE_NOISE: Final = 5
PURPOSE_SACCADE: Final = 6
PURPOSE_PIXEL: Final = 7
PURPOSE_SACCADE_NOISE: Final = 8
PURPOSE_SACCADE_THRESHOLD: Final = 9
PURPOSE_RECORDING: Final = 10

# Encoders.
ENCODE_STRATIFIED: Final = 0
ENCODE_POISSON: Final = 1
ENCODE_LATENCY: Final = 2

# Activity of a neuron over a presentation.
ACTIVITY_COUNTS: Final = 0
ACTIVITY_TRACE: Final = 1

# Losses.
LOSS_CROSS_ENTROPY: Final = 0
LOSS_MSE: Final = 1


def decay_tables(tau_us: float) -> tuple[F32, F32]:
    """Build the two tables whose product is exp(-dt / tau) (docs/model.md, S2).

    Parameters
    ----------
    tau_us : float
        Time constant in microseconds; ``inf`` for no decay.

    Returns
    -------
    decay_high, decay_low : ndarray of float32
        The coarse table ends in 0 where the factor falls below 1e-30, so that potentials reach zero
        instead of becoming denormal; without decay it is the single entry 1. A time constant of minutes
        has a table for all 32-bit times instead.
    """
    low = portable.exp(-np.arange(DECAY_LOW_SIZE) / tau_us).astype(np.float32)
    if np.isinf(tau_us):
        return np.ones(1, np.float32), low
    size = int(np.ceil(69.1 * tau_us / DECAY_LOW_SIZE)) + 2
    steps = np.arange(min(size, _LARGEST_TABLE)) * DECAY_LOW_SIZE
    high = portable.exp(-steps / tau_us).astype(np.float32)
    if size <= _LARGEST_TABLE:
        high[-1] = 0.0
    return high, low


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Array of any content that begins at a cache line, so that fewer vectors lie in two of them."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + CACHE_LINE, np.uint8)
    begin = -room.ctypes.data % CACHE_LINE
    return room[begin : begin + size].view(dtype).reshape(shape)


def padded(n: int) -> int:
    """Round a number of values up to whole groups of ``LANES``."""
    return -(-n // LANES) * LANES
