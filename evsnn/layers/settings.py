"""Settings of the neurons of one layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evsnn.errors import SettingsError


@dataclass(frozen=True)
class NeuronSettings:
    """Physics of a layer's neurons (docs/model.md, S1 to S7).

    Parameters
    ----------
    tau_ms : float
        Membrane time constant in milliseconds; ``inf`` for a neuron without leak.
    refractory_ms : float
        Refractory period in milliseconds, in which input counts less; 0 for none.
    kappa : float
        Lateral inhibition inside a winner-take-all group, -1 to 0; 0 for none.
    sigma : float
        Share of the inhibition that backpropagation takes into account, 0 to 1.
    clamp : float
        Lower clamp of the membrane potential, in thresholds below zero; ``inf`` for none.
    alpha : float
        Initial threshold in units of sqrt(3 / fan-in) times the weight of an input event (1 but for layers
        behind pooling).

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    tau_ms: float = 100.0
    refractory_ms: float = 0.0
    kappa: float = 0.0
    sigma: float = 0.0
    clamp: float = 1.0
    alpha: float = 16.0

    def __post_init__(self) -> None:
        for name, low, high, infinite in (
            ("tau_ms", 1e-3, 1e6, True),
            ("refractory_ms", 0.0, 1e6, False),
            ("kappa", -1.0, 0.0, False),
            ("sigma", 0.0, 1.0, False),
            ("clamp", 0.0, 1e6, True),
            ("alpha", 1e-3, 1e6, False),
        ):
            value = getattr(self, name)
            if math.isnan(value) or not (low <= value <= high or (infinite and value == math.inf)):
                end = " or inf" if infinite else ""
                raise SettingsError(f"{name} must lie in {low:g} to {high:g}{end}, got {value}")
        if 0 < self.refractory_ms < 1e-3:
            raise SettingsError(
                f"refractory_ms must be 0 or at least 0.001 (one microsecond), got {self.refractory_ms}"
            )
        if self.sigma * self.kappa == -1.0:
            raise SettingsError("sigma = 1 with kappa = -1 makes the inhibition singular; lower one of them")

    @property
    def tau_us(self) -> float:
        """Membrane time constant in microseconds."""
        return self.tau_ms * 1000.0

    @property
    def refractory_us(self) -> int:
        """Refractory period in whole microseconds."""
        return round(self.refractory_ms * 1000.0)
