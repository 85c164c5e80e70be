"""Average pooling as a relay of events: no neurons, no threshold (docs/model.md, S19)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import F32, I64, U32, Scalar


@cpu_kernel
def forward(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    height: Scalar,
    width: Scalar,
    size: Scalar,
    out_times: U32,
    out_units: U32,
    out_slot: I64,
    out_count: I64,
    out_operations: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Send each event of samples first:last from (c, y, x) to (c, y // size, x // size).

    Parameters
    ----------
    times, units, start, count
        Input queue.
    height, width, size : int64
        Input size and pooling size; rows and columns that fill no whole window have no target.
    out_times, out_units, out_slot, out_count
        Output queue, sorted by (time, unit).
    out_operations : int64 (n_samples,)
        0: a relay costs no synaptic operation.
    """
    out_height = np.uint32(height // size)
    out_width = np.uint32(width // size)
    rows, columns, window = np.uint32(height), np.uint32(width), np.uint32(size)
    for s in range(first, last):
        slot = out_slot[s]
        capacity = out_slot[s + 1] - slot
        produced = 0
        for e in range(start[s], start[s] + count[s]):
            # Divisions are what this kernel spends its time on; they are fastest without a sign.
            row = units[e] // columns
            channel = row // rows
            x = (units[e] - row * columns) // window
            y = (row - channel * rows) // window
            if x >= out_width or y >= out_height:
                continue
            if produced < capacity:
                relayed = np.uint32((channel * out_height + y) * out_width + x)
                at = slot + produced
                while at > slot and out_times[at - 1] == times[e] and out_units[at - 1] > relayed:
                    out_times[at] = out_times[at - 1]
                    out_units[at] = out_units[at - 1]
                    at -= 1
                out_times[at] = times[e]
                out_units[at] = relayed
            produced += 1
        out_count[s] = produced
        out_operations[s] = 0


@cpu_kernel
def propagate(
    activity: F32,
    height: Scalar,
    width: Scalar,
    size: Scalar,
    gain: Scalar,
    error: F32,
    out_error: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Error of the active inputs of a pooling layer: gain times the error of their window.

    Parameters
    ----------
    activity : float32 (n_samples, channels * height * width)
    height, width, size : int64
    gain : float32
        Weight of a relayed event, 1 / size^2.
    error : float32 (n_samples, channels * (height // size) * (width // size))
    out_error : float32, as activity
    """
    out_height = height // size
    out_width = width // size
    channels = activity.shape[1] // (height * width)
    for s in range(first, last):
        for channel in range(channels):
            for y in range(height):
                values = out_error[s, (channel * height + y) * width : (channel * height + y + 1) * width]
                sums = activity[s, (channel * height + y) * width : (channel * height + y + 1) * width]
                oy = y // size
                reached = out_width * size if oy < out_height else 0
                for ox in range(reached // size):
                    value = gain * error[s, (channel * out_height + oy) * out_width + ox]
                    for x in range(ox * size, (ox + 1) * size):
                        values[x] = value if sums[x] > np.float32(0.0) else np.float32(0.0)
                for x in range(reached, width):
                    values[x] = np.float32(0.0)
