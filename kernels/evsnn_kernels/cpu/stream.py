"""Memory traffic without a neuron model: what a machine can do at most, to compare kernels with.

The loops read what the simulation reads, in the same order, and add it up; they decay nothing, compare
nothing and emit nothing.
"""

from __future__ import annotations

import numpy as np

from evsnn_kernels.cpu.vector import load, load_64, prefetch_64, store, store_64
from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.layout import F32, I64, LANES, U32, Scalar
from evsnn_kernels.spec.convolution import first_place, last_place, offset


@cpu_kernel
def dense_rows(
    units: U32, start: I64, count: I64, weight: F32, out_total: F32, first: Scalar, last: Scalar
) -> None:
    """Add the weight row of every event to the sums of its sample, row after row.

    Parameters
    ----------
    units, start, count
        Input queue.
    weight : float32 (n_in, padded(n))
    out_total : float32 (n_samples, padded(n))
    """
    width = weight.shape[1]
    rows = weight.reshape(-1)
    for s in range(first, last):
        sums = out_total[s]
        for e in range(start[s], start[s] + count[s]):
            row = np.int64(units[e]) * width
            for i in range(0, width, LANES):
                store(sums, i, load(sums, i) + load(rows, row + i))


@cpu_kernel
def dense_rows_ahead(
    units: U32, start: I64, count: I64, weight: F32, out_total: F32, first: Scalar, last: Scalar
) -> None:
    """As :func:`dense_rows`, where a row comes into the cache two events before it is added."""
    width = weight.shape[1]
    rows = weight.reshape(-1)
    whole = width // 64 * 64
    for s in range(first, last):
        sums = out_total[s]
        stop = start[s] + count[s]
        for e in range(start[s], stop):
            row = np.int64(units[e]) * width
            coming = np.int64(units[min(e + 2, stop - 1)]) * width
            for i in range(0, whole, 64):
                prefetch_64(rows, coming + i)
                # A fixed number of steps, which the compiler unrolls.
                for lane in range(0, 64, LANES):
                    store(sums, i + lane, load(sums, i + lane) + load(rows, row + i + lane))
            for i in range(whole, width, LANES):
                store(sums, i, load(sums, i) + load(rows, row + i))


@cpu_kernel
def dense_tiles(
    units: U32, start: I64, count: I64, weight: F32, out_total: F32, first: Scalar, last: Scalar
) -> None:
    """As :func:`dense_rows`, tile by tile: the sums of some neurons stay in registers through a sample."""
    width = weight.shape[1]
    rows = weight.reshape(-1)
    sums = out_total.reshape(-1)
    base = 0
    while base + 64 <= width:
        for s in range(first, last):
            v = load_64(sums, s * width + base)
            for e in range(start[s], start[s] + count[s]):
                v = v + load_64(rows, np.int64(units[e]) * width + base)
            store_64(sums, s * width + base, v)
        base += 64
    while base < width:
        for s in range(first, last):
            w = load(sums, s * width + base)
            for e in range(start[s], start[s] + count[s]):
                w = w + load(rows, np.int64(units[e]) * width + base)
            store(sums, s * width + base, w)
        base += LANES


@cpu_kernel
def conv_rows(
    units: U32,
    start: I64,
    count: I64,
    weight: F32,
    height: Scalar,
    width: Scalar,
    kernel: Scalar,
    stride: Scalar,
    padding: Scalar,
    out_height: Scalar,
    out_width: Scalar,
    out_total: F32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Add the weights of every event at every place it reaches; arguments as in ``conv.forward``."""
    padded = weight.shape[1]
    channels = weight.shape[0] // (kernel * kernel)
    rows = weight.reshape(-1)
    for s in range(first, last):
        sums = out_total[s]
        for e in range(start[s], start[s] + count[s]):
            unit = np.int64(units[e])
            x = unit % width
            y = unit // width % height
            channel = unit // (width * height)
            x_first = first_place(x, kernel, padding, stride)
            x_last = last_place(x, padding, stride, out_width)
            y_last = last_place(y, padding, stride, out_height)
            for oy in range(first_place(y, kernel, padding, stride), y_last + 1):
                for ox in range(x_first, x_last + 1):
                    entry = offset(y, oy, padding, stride) * kernel + offset(x, ox, padding, stride)
                    row = (entry * channels + channel) * padded
                    base = (oy * out_width + ox) * padded
                    for m in range(0, padded, LANES):
                        store(sums, base + m, load(sums, base + m) + load(rows, row + m))


@cpu_kernel
def copy_events(
    times: U32,
    units: U32,
    start: I64,
    count: I64,
    out_times: U32,
    out_units: U32,
    first: Scalar,
    last: Scalar,
) -> None:
    """Copy the events of every sample to where they lie in the input: what a relay does at least."""
    for s in range(first, last):
        for e in range(start[s], start[s] + count[s]):
            out_times[e] = times[e]
            out_units[e] = units[e]


@cpu_kernel
def triad(a: F32, b: F32, out: F32, first: Scalar, last: Scalar) -> None:
    """``out = a + 3 b``, row by row: McCalpin's measure of memory bandwidth (STREAM, 1995).

    Parameters
    ----------
    a, b, out : float32 (n_rows, n)
    """
    for k in range(first, last):
        for i in range(out.shape[1]):
            out[k, i] = a[k, i] + np.float32(3.0) * b[k, i]


@cpu_kernel
def arithmetic(out: F32, repeats: Scalar, first: Scalar, last: Scalar) -> None:
    """Multiply and add row by row, each short enough for the first-level cache.

    Says how much another thread can give at all: two processors of a virtual machine may be one core.

    Parameters
    ----------
    out : float32 (n_rows, n)
    repeats : int64
    """
    for k in range(first, last):
        for _ in range(repeats):
            for i in range(out.shape[1]):
                out[k, i] = out[k, i] * np.float32(0.999) + np.float32(0.1)
