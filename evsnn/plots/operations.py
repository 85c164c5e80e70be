"""Accuracy against operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evsnn.plots.style import BLUE, GREY, VERMILLION, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Mapping[str, Sequence[float]]


def draw_operations(
    by_events: Curve,
    by_margin: Curve,
    dense_macs: float,
    baseline: Mapping[str, float] | None,
    title: str,
) -> Figure:
    """Draw the accuracy of a spiking network over the operations that it has spent.

    Parameters
    ----------
    by_events, by_margin : mapping of str to sequence of float
        The columns ``synaptic_operations`` and ``accuracy`` (0 to 1), read out after more and more events,
        and stopped at larger and larger margins.
    dense_macs : float
        Multiply-accumulates of the conventional network of the same shape.
    baseline : mapping of str to float, or None
        ``accuracy``, ``macs`` and ``effective_macs`` of a conventional network.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(7.2, 4.6, title)
    axes = figure.subplots()
    for curve, colour, dash, label in (
        (by_events, BLUE, "--", "spiking, read out after n events"),
        (by_margin, BLUE, "-", "spiking, early answer"),
    ):
        spent = np.asarray(curve["synaptic_operations"], float)
        shown = spent > 0
        reached = 100 * np.asarray(curve["accuracy"], float)
        axes.plot(spent[shown], reached[shown], color=colour, linestyle=dash, label=label)
    axes.axvline(dense_macs, color=GREY, linewidth=0.8, linestyle=":", label="dense MACs of this shape")
    if baseline is not None:
        accuracy = 100 * baseline["accuracy"]
        axes.axhline(accuracy, color=VERMILLION, linewidth=0.6, zorder=0)
        for name, marker, fill, label in (
            ("macs", "s", VERMILLION, "conventional, MACs"),
            ("effective_macs", "s", "white", "conventional, MACs of inputs other than 0"),
        ):
            axes.plot(
                [baseline[name]],
                [accuracy],
                linestyle="none",
                marker=marker,
                markerfacecolor=fill,
                markeredgecolor=VERMILLION,
                label=label,
            )
    axes.set(
        xlabel="operations a sample (SOPs: an addition; MACs: also a multiplication)",
        ylabel="accuracy (%)",
        xscale="log",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    return figure
