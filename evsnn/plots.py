"""Pictures, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def plot_curves(history: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Draw loss, error rates and spikes over the epochs of a run.

    Parameters
    ----------
    history : sequence of mapping
        Metrics of every epoch, as in ``metrics.jsonl``.
    title : str

    Returns
    -------
    bytes
        A PNG file.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    epochs = [line["epoch"] for line in history]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, error, spikes = figure.subplots(1, 3)
    figure.suptitle(title)

    loss.plot(epochs, [line["loss"] for line in history], marker=".", color="tab:blue")
    loss.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))

    train = [100 * (1 - line["train_accuracy"]) for line in history]
    error.plot(epochs, train, marker=".", label="training", color="tab:blue")
    if all(line["validation_accuracy"] is not None for line in history):
        held_out = [100 * (1 - line["validation_accuracy"]) for line in history]
        error.plot(epochs, held_out, marker=".", label="validation", color="tab:orange")
    error.set(xlabel="epoch", ylabel="error rate (%)", yscale="log" if min(train) > 0 else "linear")
    error.legend()

    for index in range(len(history[0]["events_per_sample"])):
        name = "input" if index == 0 else f"layer {index}"
        counts = [line["events_per_sample"][index] for line in history]
        spikes.plot(epochs, counts, marker=".", label=name)
    lowest = min(min(line["events_per_sample"]) for line in history)
    spikes.set(xlabel="epoch", ylabel="events a sample", yscale="log" if lowest > 0 else "linear")
    spikes.legend()
    for axes in (loss, error, spikes):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)

    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()
