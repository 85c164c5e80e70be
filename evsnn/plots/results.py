"""Pictures of what a network answers on a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from evsnn.plots.style import BLUE, GREY, VERMILLION, new_figure, shade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: With more classes than this, the numbers do not fit into the cells.
_MOST_NUMBERS = 20


def draw_confusion(confusion: npt.NDArray[np.int64], title: str) -> Figure:
    """Draw a confusion matrix; colour is the share of a label's samples that went wrong.

    Parameters
    ----------
    confusion : ndarray of int64, shape (n, n)
        ``confusion[label, prediction]``.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        The diagonal is not coloured: one scale for hits and errors would hide the errors.
    """
    n = len(confusion)
    share = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    wrong = share.copy()
    np.fill_diagonal(wrong, np.nan)
    largest = float(np.nanmax(wrong)) if n > 1 else 0.0
    size = min(max(0.42 * n, 3.0), 8.0)
    figure = new_figure(size + 1.6, size + 0.9, title)
    axes = figure.subplots()
    colours = shade(VERMILLION, "errors").with_extremes(bad="0.9")
    image = axes.imshow(wrong, cmap=colours, vmin=0, vmax=largest or 1.0, interpolation="nearest")
    if n <= _MOST_NUMBERS:
        for label, row in enumerate(confusion):
            for prediction, count in enumerate(row):
                if count:
                    dark = label != prediction and share[label, prediction] > 0.45 * largest
                    axes.text(
                        prediction,
                        label,
                        str(int(count)),
                        ha="center",
                        va="center",
                        fontsize="small",
                        color="white" if dark else "black",
                    )
        axes.set(xticks=range(n), yticks=range(n))
    axes.set(xlabel="predicted class", ylabel="label")
    figure.colorbar(image, ax=axes, label="share of the label's samples (%)", shrink=0.85)
    return figure


def draw_answers(
    by_time: Mapping[str, Sequence[float]],
    by_events: Mapping[str, Sequence[float]],
    settled: tuple[int, int],
    title: str,
) -> Figure:
    """Draw accuracy and cost over the time, and over the number of events, since the start.

    Parameters
    ----------
    by_time, by_events : mapping of str to sequence of float
        The columns ``at`` (milliseconds, or a number of events), ``accuracy`` and ``spiking_share`` (0 to 1)
        and ``synaptic_operations`` (mean so far).
    settled : (int, int)
        Point of each curve from which on the accuracy stays within 1 point of the final one.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(9.5, 5.2, title)
    panels = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=(2, 1))
    for column, (curve, point) in enumerate(zip((by_time, by_events), settled, strict=True)):
        answer, cost = panels[:, column]
        at = curve["at"]
        accuracy = 100 * np.asarray(curve["accuracy"])
        spiking = 100 * np.asarray(curve["spiking_share"])
        unit = "ms" if column == 0 else "events"
        answer.plot(at, accuracy, color=BLUE, label="accuracy")
        answer.plot(at, spiking, color=VERMILLION, linestyle="--", label="samples with an output spike")
        answer.axhline(accuracy[-1], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        answer.plot([at[point]], [accuracy[point]], linestyle="none", marker="o", color=BLUE)
        answer.set(ylim=(0, 103))
        answer.set_title(
            f"within 1 point of the final {accuracy[-1]:.1f} % from {at[point]:g} {unit} on",
            fontsize="medium",
        )
        cost.plot(at, np.asarray(curve["synaptic_operations"]) / 1000, color=BLUE)
        cost.set(ylim=(0, None))
        for axes in (answer, cost):
            axes.grid(alpha=0.3)
    panels[0, 0].legend(loc="lower right", fontsize="small")
    panels[0, 0].set_ylabel("share of samples (%)")
    panels[1, 0].set_ylabel("synaptic operations\na sample so far (1000)")
    panels[1, 0].set(xlabel="time since the start (ms)", xlim=(0, None))
    panels[1, 1].set(xlabel="input events since the start", xscale="log")
    return figure
