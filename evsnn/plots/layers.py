"""Pictures of what the layers do during one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evsnn.plots.style import BLUE, GREY, VERMILLION, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UInt32 = npt.NDArray[np.uint32]

_DECAY_POINTS = 12


@dataclass(frozen=True, eq=False)
class Spikes:
    """Events of one layer.

    Parameters
    ----------
    name : str
    size : int
        Number of units.
    times, units : ndarray of uint32, shape (n,)
        Microseconds and unit.
    """

    name: str
    size: int
    times: UInt32
    units: UInt32


@dataclass(frozen=True, eq=False)
class Trace:
    """Membrane potential of one neuron.

    Parameters
    ----------
    name : str
    times : ndarray of uint32, shape (n,)
        Microseconds at which the potential was updated.
    potential : ndarray of float32, shape (n,)
        Over threshold, after the update.
    spikes : ndarray of uint32, shape (n_spikes,)
    """

    name: str
    times: UInt32
    potential: npt.NDArray[np.float32]
    spikes: UInt32


def draw_spikes(layers: Sequence[Spikes], duration_us: int, title: str, mark: Mapping[int, str]) -> Figure:
    """Draw a spike raster of every layer, the input on top.

    Parameters
    ----------
    layers : sequence of Spikes
    duration_us : int
        End of the axis of time.
    title : str
    mark : mapping of int to str
        Units of the last layer that are named at the right edge, such as the label.

    Returns
    -------
    matplotlib.figure.Figure
    """
    heights = [1.0 if layer.size <= 20 else 1.5 for layer in layers]
    figure = new_figure(9, 1.0 + 1.15 * sum(heights), title)
    panels = figure.subplots(len(layers), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, layer in zip(panels, layers, strict=True):
        few = layer.size <= 20
        axes.plot(
            layer.times / 1000,
            layer.units,
            linestyle="none",
            marker="|" if few else ".",
            markersize=6 if few else 4 if len(layer.times) < 2000 else 2.5,
            markeredgewidth=1 if few else 0,
            color=BLUE,
        )
        axes.set(
            ylabel=f"{layer.name}\n({layer.size})",
            ylim=(-0.5 - 0.02 * layer.size, layer.size - 0.5 + 0.02 * layer.size),
            xlim=(0, duration_us / 1000),
        )
        axes.set_title(f"{len(layer.times)} events", loc="right", fontsize="small", pad=3)
        axes.yaxis.get_major_locator().set_params(integer=True)
    for unit, text in mark.items():
        panels[-1].axhline(unit, color=VERMILLION, linewidth=0.8, alpha=0.5, zorder=0)
        panels[-1].text(
            1.005,
            unit,
            text,
            transform=panels[-1].get_yaxis_transform(),
            va="center",
            color=VERMILLION,
            fontsize="small",
        )
    panels[-1].set_xlabel("time (ms)")
    figure.align_ylabels(panels)
    return figure


def draw_membrane(traces: Sequence[Trace], tau_us: float, duration_us: int, title: str) -> Figure:
    """Draw the membrane potential of some neurons, a panel each, with the threshold and the spikes.

    Parameters
    ----------
    traces : sequence of Trace
        At least one.
    tau_us : float
        Time constant of the decay that is drawn between updates; ``inf`` for none.
    duration_us : int
        End of the axis of time.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - slow to import

    figure = new_figure(9, max(1.2 + 0.9 * len(traces), 2.8), title)
    panels = figure.subplots(len(traces), 1, sharex=True, squeeze=False)[:, 0]
    for axes, trace in zip(panels, traces, strict=True):
        axes.axhline(1.0, color=VERMILLION, linewidth=0.8, linestyle="--", label="threshold")
        times, values = decaying(trace.times, trace.potential, tau_us, duration_us)
        axes.plot(times / 1000, values, color=BLUE, linewidth=0.8, label="potential after each time of input")
        axes.plot(
            trace.spikes / 1000,
            np.ones(len(trace.spikes)),
            linestyle="none",
            marker="^",
            markersize=5,
            markeredgewidth=0,
            color=VERMILLION,
            label="spike",
        )
        axes.axhline(0.0, color=GREY, linewidth=0.5, zorder=0)
        axes.set(xlim=(0, duration_us / 1000))
        axes.set_ylabel(trace.name, rotation=0, ha="right", va="center")
        low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
        axes.set_ylim(low - 0.08 * (high - low), high + 0.15 * (high - low))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    panels[-1].set_xlabel("time (ms)")
    figure.align_ylabels(panels)
    figure.supylabel("membrane potential / threshold", fontsize="medium")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def decaying(
    times: UInt32, potential: npt.NDArray[np.float32], tau_us: float, duration_us: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Points of a line: rest, jumps at ``times``, exponential decay between them and up to the end.

    Returns
    -------
    times, potential : ndarray of float64
        Microseconds, and over threshold.
    """
    start = np.concatenate([[0.0], times.astype(np.float64)])
    level = np.concatenate([[0.0], potential.astype(np.float64)])
    gap = np.diff(start, append=max(float(duration_us), start[-1]))
    share = np.linspace(0.0, 1.0, _DECAY_POINTS)
    after = gap[:, None] * share
    line = level[:, None] * np.exp(-after / tau_us)
    return (start[:, None] + after).ravel(), line.ravel()
