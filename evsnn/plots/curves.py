"""Learning curves of one run, or of several over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evsnn.plots.style import BLUE, COLOURS, VERMILLION, literal, new_figure, render

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]


def plot_curves(history: History, title: str) -> bytes:
    """PNG file of the curves of one run, as a run folder keeps it; see :func:`draw_curves`."""
    return render(draw_curves({"": history}, title))


def draw_curves(runs: Mapping[str, History], title: str) -> Figure:
    """Draw loss, error rates and spikes over the epochs of one or several runs.

    Parameters
    ----------
    runs : mapping of str to sequence of mapping
        Metrics of every epoch, as in ``metrics.jsonl``, by the name of the run.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        One run: its layers apart. Several: a colour each, and the spikes of all layers together.
    """
    figure = new_figure(11, 3.6, title)
    loss, error, spikes = figure.subplots(1, 3)
    errors: list[float] = []
    counts: list[float] = []
    several = len(runs) > 1
    for index, (name, history) in enumerate(runs.items()):
        colour = COLOURS[index % len(COLOURS)]
        dash = ("-", "--", ":", "-.")[index // len(COLOURS) % 4]
        epochs = [line["epoch"] for line in history]
        drawn = {"marker": ".", "color": colour if several else BLUE, "linestyle": dash}
        loss.plot(epochs, [line["loss"] for line in history], **drawn)

        train = [100 * (1 - line["train_accuracy"]) for line in history]
        held_out = [line["validation_accuracy"] for line in history]
        errors += train
        thin = {"linewidth": 0.8, "alpha": 0.6} if several else {}
        error.plot(epochs, train, label="training", **drawn | thin)
        if all(share is not None for share in held_out):
            rates = [100 * (1 - share) for share in held_out]
            errors += rates
            other = drawn if several else drawn | {"color": VERMILLION}
            error.plot(epochs, rates, label="validation", **other)

        events = [line["events_per_sample"] for line in history]
        if several:
            series = {name: tuple(sum(line[1:]) for line in events)}
        else:
            layers = ["input", *(f"layer {number}" for number in range(1, len(events[0])))]
            series = dict(zip(layers, zip(*events, strict=True), strict=True))
        for number, (label, values) in enumerate(series.items()):
            counts += values
            spikes.plot(
                epochs, values, label=label, **drawn | ({} if several else {"color": COLOURS[number % 7]})
            )

    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    error.set(xlabel="epoch", ylabel="error rate (%)", yscale="log" if min(errors) > 0 else "linear")
    spikes.set(
        xlabel="epoch",
        ylabel="spikes a sample, all layers" if several else "events a sample",
        yscale="log" if min(counts) > 0 else "linear",
    )
    if several:
        error.set_title("thin: training, bold: validation", fontsize="medium")
        names = [literal(name) for name in runs]
        figure.legend(loss.lines, names, loc="outside lower center", ncols=min(len(runs), 4))
    else:
        error.legend()
        spikes.legend()
    for axes in (loss, error, spikes):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.get_yscale() == "log":
            _plain_numbers(axes.yaxis)
    return figure


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis with 20 instead of 2x10^1."""
    from matplotlib.ticker import FuncFormatter, LogLocator  # noqa: PLC0415 - slow to import

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
