"""Queues of events between layers; their layout is that of :mod:`evsnn_kernels.layout`."""

from __future__ import annotations

from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import I64, Scalar


@cpu_kernel
def admit(slot: I64, count: I64, out_admitted: I64, overflow: I64, first: Scalar, last: Scalar) -> None:
    """Number of events of samples first:last that found room in their slots.

    Until it is known whether a batch must be repeated with larger slots, the kernels after the one that
    wrote the queue read only these.

    Parameters
    ----------
    slot : int64 (n_samples + 1,)
    count : int64 (n_samples,)
        Events that occurred.
    out_admitted : int64 (n_samples,)
        Events that were stored.
    overflow : int64 (1,)
        Set to 1 if a slot was too small, else left as it is.
    """
    for s in range(first, last):
        room = slot[s + 1] - slot[s]
        out_admitted[s] = min(count[s], room)
        if count[s] > room:
            overflow[0] = 1
