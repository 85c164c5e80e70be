"""Settings of a network: one value for all layers, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from evsnn.errors import SettingsError
from evsnn.layers.settings import NeuronSettings

PerLayer = float | Sequence[float]


@dataclass(frozen=True)
class NetworkSettings:
    """Neuron settings of every layer; each is a number for all layers or a sequence, one for each layer.

    Parameters
    ----------
    tau_ms, refractory_ms, kappa, sigma, clamp, alpha : float or sequence of float
        See :class:`evsnn.layers.NeuronSettings`.
    """

    tau_ms: PerLayer = 100.0
    refractory_ms: PerLayer = 0.0
    kappa: PerLayer = 0.0
    sigma: PerLayer = 0.0
    clamp: PerLayer = 8.0
    alpha: PerLayer = (16.0, 15.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                numbers = tuple(self._number(field.name, item) for item in value)
                object.__setattr__(self, field.name, numbers)
            else:
                object.__setattr__(self, field.name, self._number(field.name, value))

    @staticmethod
    def _number(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"{name} must be a number or a list of numbers, got {value!r}")
        return float(value)

    def neurons(self, n_layers: int) -> list[NeuronSettings]:
        """Settings of each of ``n_layers`` layers.

        A sequence of two serves any depth: the first value for all hidden layers, the second for the output.

        Raises
        ------
        SettingsError
            If a sequence fits neither, or a value is out of range.
        """
        columns: dict[str, list[float]] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, tuple):
                columns[field.name] = [value] * n_layers
            elif len(value) == n_layers:
                columns[field.name] = list(value)
            elif len(value) == 2:
                columns[field.name] = [value[0]] * (n_layers - 1) + [value[1]]
            else:
                raise SettingsError(
                    f"{field.name} has {len(value)} values for {n_layers} layers; "
                    "give one, two (hidden, output), or one for each layer"
                )
        return [
            NeuronSettings(**{name: column[index] for name, column in columns.items()})
            for index in range(n_layers)
        ]
