"""Settings of learning: loss, gradients, regularisers, optimiser, schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evsnn.errors import SettingsError

LOSSES = ("cross-entropy", "mse")
ACTIVITIES = ("counts", "trace")
OPTIMISERS = ("adam", "sgd")
SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class LearningSettings:
    """How a network learns (docs/model.md, S7 to S11).

    Parameters
    ----------
    loss : {"cross-entropy", "mse"}
    activity : {"counts", "trace"}
        Measure of a neuron's activity over a presentation.
    normalise : bool
        Error normalisation of the paper; off: the exact derivative of the surrogate.
    optimizer : {"adam", "sgd"}
    lr : float
        Learning rate of the weights.
    threshold_lr : float
        Learning rate of the thresholds, as a share of ``lr``; 0 keeps them fixed.
    schedule : {"constant", "linear", "cosine"}
        Course of the learning rate; linear and cosine end at 0.
    batch_size : int
    momentum : float
        Of ``sgd``.
    beta1, beta2, epsilon : float
        Of ``adam``. With a small epsilon hidden layers fired ever more late in training
        (benchmarks/RESULTS.md).
    sparsity : float
        Strength of the penalty of synaptic operations: added to the loss is ``sparsity`` times the
        operations that the spikes of hidden layers cause, over the dense network's
        multiply-accumulates; 0 for none.
    weight_decay : float
        Decoupled: weights shrink by ``lr * weight_decay`` a step.
    norm_strength, norm_steepness : float
        lambda and beta of the paper's regulariser lambda/2 exp(beta (|w|^2 - 1)); 0 switches it off.
    max_norm : float
        Largest norm of a neuron's weights; 0 for none.
    threshold_balance : float
        rho of the paper's threshold regularisation; 0 switches it off.
    threshold_floor : float
        Lowest threshold, as a share of its initial value.

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    loss: str = "cross-entropy"
    activity: str = "counts"
    normalise: bool = True
    optimizer: str = "adam"
    lr: float = 2e-3
    threshold_lr: float = 0.0
    schedule: str = "linear"
    batch_size: int = 100
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-3
    sparsity: float = 0.0
    weight_decay: float = 0.1
    norm_strength: float = 0.0
    norm_steepness: float = 10.0
    max_norm: float = 0.0
    threshold_balance: float = 0.0
    threshold_floor: float = 0.1

    def __post_init__(self) -> None:
        for name, choices in (
            ("loss", LOSSES),
            ("activity", ACTIVITIES),
            ("optimizer", OPTIMISERS),
            ("schedule", SCHEDULES),
        ):
            if getattr(self, name) not in choices:
                raise SettingsError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for name, low, high in (
            ("lr", 1e-9, 10.0),
            ("threshold_lr", 0.0, 100.0),
            ("momentum", 0.0, 0.9999),
            ("beta1", 0.0, 0.9999),
            ("beta2", 0.0, 0.999999),
            ("epsilon", 1e-12, 1.0),
            ("sparsity", 0.0, 1e4),
            ("weight_decay", 0.0, 100.0),
            ("norm_strength", 0.0, 100.0),
            ("norm_steepness", 0.0, 100.0),
            ("max_norm", 0.0, 1e6),
            ("threshold_balance", 0.0, 1.0),
            ("threshold_floor", 1e-3, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SettingsError(f"{name} must be a number, got {value!r}")
            if not (math.isfinite(value) and low <= value <= high):
                raise SettingsError(f"{name} must lie in {low:g} to {high:g}, got {value}")
        if not isinstance(self.normalise, bool):
            raise SettingsError(f"normalise must be true or false, got {self.normalise!r}")
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int):
            raise SettingsError(f"batch_size must be a whole number, got {self.batch_size!r}")
        if not 1 <= self.batch_size <= 1_000_000:
            raise SettingsError(f"batch_size must lie in 1 to 1000000, got {self.batch_size}")
        if self.lr * self.weight_decay >= 1.0:
            raise SettingsError(
                f"lr * weight_decay must stay below 1, got {self.lr * self.weight_decay:g}: "
                "weights would change sign"
            )
