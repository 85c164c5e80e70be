"""Activity of every unit over one presentation (docs/model.md, S7)."""

from __future__ import annotations

import numpy as np

from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import ACTIVITY_COUNTS, F32, I64, U32, Scalar
from evsnn_kernels.spec.neuron import decay_factor


@cpu_kernel
def activity(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    decay_high: F32,
    decay_low: F32,
    kind: Scalar,
    end_time: Scalar,
    scale: Scalar,
    out_activity: F32,
    out_active: I64,
    first: Scalar,
    last: Scalar,
) -> None:
    """Sum spike counts, or traces exp((t - end_time) / tau), of samples first:last, times ``scale``.

    Parameters
    ----------
    times, units, start, count
        Queue of the events to sum.
    decay_high, decay_low : float32
        Decay tables of the trace.
    kind : int64
        ``ACTIVITY_COUNTS`` or ``ACTIVITY_TRACE``.
    end_time : int64
        End of the presentation in microseconds; later events count in full.
    scale : float32
        Weight of an event.
    out_activity : float32 (n_samples, n)
        Overwritten.
    out_active : int64 (n_samples,)
        Units whose activity is not 0.
    """
    for s in range(first, last):
        for i in range(out_activity.shape[1]):
            out_activity[s, i] = np.float32(0.0)
        for e in range(start[s], start[s] + count[s]):
            if kind == ACTIVITY_COUNTS:
                out_activity[s, units[e]] += np.float32(1.0)
            else:
                left = max(end_time - np.int64(times[e]), np.int64(0))
                out_activity[s, units[e]] += decay_factor(left, decay_high, decay_low)
        active = 0
        for i in range(out_activity.shape[1]):
            out_activity[s, i] *= scale
            if out_activity[s, i] != np.float32(0.0):
                active += 1
        out_active[s] = active
