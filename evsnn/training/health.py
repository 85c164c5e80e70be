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
#: Norm of a neuron's weights, 1 at the start and 2 after good training, that only grows without end.
LARGEST_WEIGHT_NORM = 10.0


def health_warnings(means: Mapping[str, Any], sizes: tuple[int, ...], loss: str) -> list[str]:
    """Return a line for each layer that is silent, saturated or diverging: what, how much, and the remedy.

    What stands before the first comma is the same in every epoch.

    Parameters
    ----------
    means : mapping
        Means a sample over an epoch, as ``Totals.means`` returns them, and ``weight_norms``.
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
    for index, norm in enumerate(means["weight_norms"]):
        if norm > LARGEST_WEIGHT_NORM:
            lines.append(
                f"the weights of layer {index + 1} ({sizes[index]} neurons) grow without end, their norm is "
                f"{norm:.0f} (1 at the start): lower --lr, or set learning.weight_decay or learning.max_norm"
            )
    for index, size in enumerate(sizes[:-1]):
        layer = f"layer {index + 1} ({size} neurons)"
        if events[index + 1] < FEWEST_EVENTS:
            lines.append(
                f"{layer} is silent, {events[index + 1]:.2f} events a sample: "
                "lower its --alpha (initial threshold) or give more input events; "
                "lower --lr if it fired in earlier epochs"
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
