"""Convolution and pooling by plain loops: what a conv layer is, written as what it is made of.

A place of a convolution is a small dense layer of its maps, which sees only the inputs under its kernel; so
the event-driven dense oracle simulates it, one place at a time.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from reference.event_driven import simulate_dense


@cache
def fields(in_shape, kernel, stride, padding) -> tuple[tuple[int, int, list[tuple[int, int]]], ...]:
    """(oy, ox, [(input unit, kernel row), ...]) of every place of a convolution."""
    channels, height, width = in_shape
    out_height = (height + 2 * padding - kernel) // stride + 1
    out_width = (width + 2 * padding - kernel) // stride + 1
    places = []
    for oy in range(out_height):
        for ox in range(out_width):
            reached = []
            for c in range(channels):
                for ky in range(kernel):
                    for kx in range(kernel):
                        y, x = oy * stride - padding + ky, ox * stride - padding + kx
                        if 0 <= y < height and 0 <= x < width:
                            reached.append(((c * height + y) * width + x, (ky * kernel + kx) * channels + c))
            places.append((oy, ox, reached))
    return tuple(places)


def convolution_matrix(weight, in_shape, kernel, stride=1, padding=0) -> NDArray[np.float64]:
    """The dense matrix (n_in, maps * places) of a convolution; outputs channel first."""
    weight = np.asarray(weight)
    all_fields = fields(tuple(in_shape), kernel, stride, padding)
    places, maps = len(all_fields), weight.shape[1]
    matrix = np.zeros((int(np.prod(in_shape)), maps * places), weight.dtype)
    for place, (_, _, reached) in enumerate(all_fields):
        for unit, row in reached:
            matrix[unit, np.arange(maps) * places + place] = weight[row]
    return matrix


def simulate_conv(times, units, weight, threshold, in_shape, kernel, stride=1, padding=0, **settings):
    """Output events (times, units), potentials (places, maps) and synaptic operations of one sample."""
    times, units = np.asarray(times), np.asarray(units)
    maps = np.asarray(weight).shape[1]
    all_fields = fields(tuple(in_shape), kernel, stride, padding)
    out, potentials, operations = [], [], 0
    for place, (_, _, reached) in enumerate(all_fields):
        local = np.zeros((int(np.prod(in_shape)), maps), np.asarray(weight).dtype)
        seen = np.zeros(len(local), bool)
        for unit, row in reached:
            local[unit] = weight[row]
            seen[unit] = True
        mine = seen[units] if len(units) else np.zeros(0, bool)
        operations += int(mine.sum()) * maps
        result = simulate_dense(times[mine], units[mine], local, threshold, **settings)
        potentials.append(result.potential)
        out += [
            (int(t), int(m) * len(all_fields) + place)
            for t, m in zip(result.times, result.units, strict=True)
        ]
    out.sort()
    return (
        np.array([t for t, _ in out], np.int64),
        np.array([u for _, u in out], np.int64),
        np.array(potentials),
        operations,
    )


def simulate_pool(times, units, in_shape, size):
    """Relayed events (times, units), sorted by (time, unit)."""
    _, height, width = in_shape
    out = []
    for t, unit in zip(times, units, strict=True):
        c, y, x = int(unit) // (height * width), int(unit) // width % height, int(unit) % width
        if y // size < height // size and x // size < width // size:
            out.append((int(t), (c * (height // size) + y // size) * (width // size) + x // size))
    out.sort()
    return np.array([t for t, _ in out], np.int64), np.array([u for _, u in out], np.int64)
