"""Signs that a layer has fallen silent or fires without restraint, with the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: A hidden layer with fewer events a sample than this cannot tell classes apart.
FEWEST_EVENTS = 1.0
#: Above this share of active neurons a hidden layer says the same for every sample.
LARGEST_ACTIVE_SHARE = 0.95
#: Share of samples without any output spike that is worth a word.
LARGEST_SILENT_SHARE = 0.1
#: Events a neuron and sample that only a runaway layer emits.
MOST_EVENTS_A_NEURON = 10.0


def health_warnings(means: Mapping[str, Any], sizes: tuple[int, ...], loss: str) -> list[str]:
    """Return one line for each layer that is silent or saturated: what, by how much, and the remedy.

    What stands before the first comma is the same in every epoch.

    Parameters
    ----------
    means : mapping
        Means a sample over an epoch, as ``Totals.means`` returns them.
    sizes : tuple of int
        Neurons of each layer.
    loss : str
        As in ``LearningSettings``.
    """
    lines = []
    events = means["events_per_sample"]
    if events[0] < FEWEST_EVENTS:
        lines.append(
            f"the input is nearly empty, {events[0]:.2f} events a sample: convert with a higher --rate"
        )
    for index, size in enumerate(sizes[:-1]):
        layer = f"layer {index + 1} ({size} neurons)"
        if events[index + 1] < FEWEST_EVENTS:
            lines.append(
                f"{layer} is silent, {events[index + 1]:.2f} events a sample: "
                f"lower its --alpha (initial threshold) or give more input events"
            )
        elif means["active_share"][index] > LARGEST_ACTIVE_SHARE or (
            events[index + 1] > MOST_EVENTS_A_NEURON * size
        ):
            lines.append(
                f"{layer} is saturated, {means['active_share'][index]:.0%} of its neurons fire, "
                f"{events[index + 1]:.0f} events a sample: raise its --alpha (initial threshold) or --clamp"
            )
    if means["silent_samples"] > LARGEST_SILENT_SHARE:
        other = "" if loss == "cross-entropy" else ", or use the cross-entropy loss"
        lines.append(
            f"samples end without an output spike, {means['silent_samples']:.0%} of them: "
            f"lower the last --alpha{other}"
        )
    return lines
