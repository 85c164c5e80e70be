"""What this machine can do at most: streaming weights without a neuron model, memory bandwidth, threads."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import numpy.typing as npt
from evsnn_kernels.cpu import stream

from evsnn.backends import CpuBackend
from evsnn.events.queue import HostQueue
from evsnn.layers.base import Layer, Placement, SpikingLayer
from evsnn.layers.conv import Conv2d

#: Bytes of each array of :func:`memory_bandwidth`: more than caches hold.
_ARRAY_BYTES = 1 << 27
_ROWS = 64


def stream_weights(
    layer: Layer, queue: HostQueue, placed: Placement, backend: CpuBackend
) -> tuple[float, float]:
    """Seconds of adding up the weights of all events, or of copying the events of a layer without neurons.

    Parameters
    ----------
    layer : Layer
    queue : HostQueue
        What it reads.
    placed : Placement
        Where it is, on ``backend``.
    backend : CpuBackend

    Returns
    -------
    row_after_row, shortest : float
        Every weight row when its event comes, as an event-by-event simulation reads it; and the fastest way
        known here. They differ for dense layers only: rows can be announced to the processor before their
        events, or sums stay in registers through a sample.
    """
    if not isinstance(layer, SpikingLayer):
        copies = np.empty_like(queue.times), np.empty_like(queue.units)
        begin = time.perf_counter()
        backend.run(
            stream.copy_events, len(queue), queue.times, queue.units, queue.start, queue.count, *copies
        )
        seconds = time.perf_counter() - begin
        return seconds, seconds
    potential = cast(npt.NDArray[np.float32], layer.new_state(len(queue), backend).potential)
    events = queue.units, queue.start, queue.count, placed.scaled
    if isinstance(layer, Conv2d):
        begin = time.perf_counter()
        backend.run(stream.conv_rows, len(queue), *events, *layer.geometry, *layer.out_shape[1:], potential)
        seconds = time.perf_counter() - begin
        return seconds, seconds
    times = []
    for kernel in (stream.dense_rows, stream.dense_rows_ahead, stream.dense_tiles):
        begin = time.perf_counter()
        backend.run(kernel, len(queue), *events, potential)
        times.append(time.perf_counter() - begin)
    return times[0], min(times)


class Bandwidth:
    """Measures memory bandwidth; the arrays are made once.

    Parameters
    ----------
    array_bytes : int
        Of each of the three arrays.
    """

    def __init__(self, array_bytes: int = _ARRAY_BYTES) -> None:
        shape = _ROWS, max(array_bytes // (4 * _ROWS), 1)
        self._arrays = [np.ones(shape, np.float32) for _ in range(3)]

    def measure(self, backend: CpuBackend) -> float:
        """Bytes a second that ``a + 3 b`` reads and writes."""
        begin = time.perf_counter()
        backend.run(stream.triad, _ROWS, *self._arrays)
        return 3 * self._arrays[0].nbytes / (time.perf_counter() - begin)


def memory_bandwidth(backend: CpuBackend, *, repeats: int = 3, array_bytes: int = _ARRAY_BYTES) -> float:
    """Median memory bandwidth in bytes a second; the first of the measurements is not counted.

    Parameters
    ----------
    backend : CpuBackend
    repeats : int
    array_bytes : int
        Of each of three arrays.
    """
    bandwidth = Bandwidth(array_bytes)
    return float(np.median([bandwidth.measure(backend) for _ in range(repeats + 1)][1:]))


def arithmetic_speedup(threads: int, *, repeats: int = 20_000) -> float:
    """How many times as fast some threads are as one on arithmetic that shares no memory.

    Parameters
    ----------
    threads : int
    repeats : int
        Passes over each of the rows of 2,048 numbers.
    """
    values = np.ones((4 * threads, 2048), np.float32)
    seconds = {}
    for n in (1, threads):
        with CpuBackend(n) as backend:
            backend.run(stream.arithmetic, len(values), values, 1)
            begin = time.perf_counter()
            backend.run(stream.arithmetic, len(values), values, repeats)
            seconds[n] = time.perf_counter() - begin
    return seconds[1] / seconds[threads]
