"""Physics that suits an architecture."""

from __future__ import annotations

from evsnn.network.architecture import Architecture
from evsnn.network.settings import NetworkSettings


def suited_settings(architecture: Architecture) -> NetworkSettings:
    """Settings of a network where the user gives none (benchmarks/RESULTS.md says how they were found).

    Dense networks have the defaults of :class:`NetworkSettings`. With convolutions thresholds are lower,
    because a neuron sees fewer inputs, lowest in the first layer, or many of its maps stay silent for good;
    and the maps of one place inhibit each other weakly.
    """
    kinds = [plan.kind for plan in architecture.layers if plan.kind != "pool"]
    if "conv" not in kinds:
        return NetworkSettings()
    return NetworkSettings(
        kappa=tuple(-0.1 if kind == "conv" else 0.0 for kind in kinds),
        alpha=(4.0, *(8.0 for _ in kinds[1:])),
    )
