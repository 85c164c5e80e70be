"""Pictures of learned weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evsnn.plots.style import channel_styles, diverging, limit_of, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float32 = npt.NDArray[np.float32]
_GAP = 1  # pixels between two images of one neuron; twice that between neurons with large images


def draw_receptive_fields(fields: Float32, neurons: Sequence[int], title: str) -> Figure:
    """Draw the incoming weights of neurons as images, OFF left of ON where there are two channels.

    Parameters
    ----------
    fields : ndarray of float32, shape (n, C, H, W)
        Weights of each neuron.
    neurons : sequence of int, length n
        Their numbers.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    n, channels, height, width = fields.shape
    tile = (height, channels * width + (channels - 1) * _GAP)
    columns = _columns(n, tile[0] / tile[1])
    rows = -(-n // columns)
    mosaic, corners = _mosaic(fields, rows, columns)
    figure, axes = _mosaic_figure(mosaic, title)
    axes.set_yticks(
        [corners[row * columns][0] + height / 2 - 0.5 for row in range(rows)],
        [str(neurons[row * columns]) for row in range(rows)],
    )
    axes.set_xticks(
        [corners[column][1] + tile[1] / 2 - 0.5 for column in range(columns)],
        [f"+{column}" for column in range(columns)] if _consecutive(neurons) else [""] * columns,
    )
    axes.set_ylabel("neuron (the first of each row)")
    if channels > 1:
        names = ", ".join(name for name, _ in channel_styles(channels))
        axes.set_xlabel(f"each neuron from left to right: {names}")
    return figure


def draw_filters(filters: Float32, maps: Sequence[int], title: str) -> Figure:
    """Draw the kernels of a convolution, a column for each map, a row for each input channel.

    Parameters
    ----------
    filters : ndarray of float32, shape (n, C, k, k)
        Kernels of each map.
    maps : sequence of int, length n
        Their numbers.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    n, channels, size, _ = filters.shape
    cells = filters.transpose(1, 0, 2, 3).reshape(channels * n, 1, size, size)
    mosaic, corners = _mosaic(cells, channels, n)
    figure, axes = _mosaic_figure(mosaic, title)
    every = max(1, n // 16)
    axes.set_xticks(
        [corners[index][1] + size / 2 - 0.5 for index in range(0, n, every)],
        [str(number) for number in maps[::every]],
    )
    styles = channel_styles(channels)
    every = max(1, channels // 16)
    axes.set_yticks(
        [corners[index * n][0] + size / 2 - 0.5 for index in range(0, channels, every)],
        [styles[index][0] if channels == 2 else str(index) for index in range(0, channels, every)],
    )
    axes.set(xlabel="map", ylabel="polarity" if channels == 2 else "input channel")
    return figure


def draw_matrix(weight: Float32, neurons: Sequence[int], title: str) -> Figure:
    """Draw weights as a matrix, a row for each neuron, a column for each input.

    Parameters
    ----------
    weight : ndarray of float32, shape (n_in, n)
    neurons : sequence of int, length n
        Their numbers.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    n_in, n = weight.shape
    figure = new_figure(9, min(1.6 + 0.22 * n, 7), title)
    axes = figure.subplots()
    limit = limit_of(weight)
    image = axes.imshow(
        weight.T, cmap=diverging(), vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    every = max(1, n // 16)
    axes.set_yticks(range(0, n, every), [str(number) for number in neurons[::every]])
    axes.set(xlabel=f"input ({n_in})", ylabel="neuron")
    figure.colorbar(image, ax=axes, label="weight", extend=_beyond(weight, limit), extendfrac=0.03)
    return figure


def _columns(n: int, slimness: float) -> int:
    """Columns of a grid of n tiles (height / width ``slimness``) about as wide as high, with few gaps."""
    ideal = max(1, min(n, round(math.sqrt(1.3 * n * slimness))))
    near = range(max(1, ideal * 3 // 4), min(n, ideal * 4 // 3) + 1)
    return min(near, key=lambda columns: (-n % columns, abs(columns - ideal), -columns))


def _mosaic(
    images: Float32, rows: int, columns: int
) -> tuple[npt.NDArray[np.float64], list[tuple[int, int]]]:
    """Images (n, C, H, W) row after row on one canvas of NaN, and the upper left corner of each."""
    n, channels, height, width = images.shape
    gap = _GAP if height < 16 else 2 * _GAP
    step = (height + gap, channels * width + (channels - 1) * _GAP + gap)
    canvas = np.full((rows * step[0] - gap, columns * step[1] - gap), np.nan)
    corners = [(index // columns * step[0], index % columns * step[1]) for index in range(n)]
    for (top, left), channel_images in zip(corners, images, strict=True):
        for channel, image in enumerate(channel_images):
            at = left + channel * (width + _GAP)
            canvas[top : top + height, at : at + width] = image
    return canvas, corners


def _mosaic_figure(mosaic: npt.NDArray[np.float64], title: str) -> tuple[Figure, Axes]:
    rows, columns = mosaic.shape
    inch = min(7.5 / columns, 6.5 / rows, 0.12)
    figure = new_figure(max(columns * inch, 4.5) + 2.1, max(rows * inch, 1.0) + 1.0, title)
    axes = figure.subplots()
    limit = limit_of(mosaic)
    image = axes.imshow(mosaic, cmap=diverging(), vmin=-limit, vmax=limit, interpolation="nearest")
    axes.tick_params(length=0, labelsize="small")
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(image, ax=axes, label="weight", extend=_beyond(mosaic, limit), extendfrac=0.03)
    return figure, axes


def _beyond(values: npt.NDArray[Any], limit: float) -> str:
    low, high = bool(np.nanmin(values) < -limit), bool(np.nanmax(values) > limit)
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        low, high
    ]


def _consecutive(numbers: Sequence[int]) -> bool:
    return all(number == numbers[0] + index for index, number in enumerate(numbers))
