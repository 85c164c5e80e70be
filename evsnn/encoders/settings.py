"""Settings of the encoders that turn images into events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from evsnn.errors import SettingsError

KINDS = ("stratified", "poisson", "latency")


@dataclass(frozen=True)
class EncoderSettings:
    """How an image becomes events (docs/model.md, S12).

    Parameters
    ----------
    kind : {"stratified", "poisson", "latency"}
        ``stratified``: evenly spread random times; ``poisson``: a Poisson process; ``latency``: one event
        a pixel, brighter is earlier.
    rate : float
        Events that a pixel of full intensity emits during the presentation (not used by ``latency``).
    duration_ms : float
        Length of the presentation in milliseconds.
    resolution_us : int
        Event times are multiples of this many microseconds.

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    kind: str = "stratified"
    rate: float = 5.0
    duration_ms: float = 50.0
    resolution_us: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"encoder must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for name, types in (("rate", (int, float)), ("duration_ms", (int, float)), ("resolution_us", (int,))):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, types):
                raise SettingsError(f"{name} must be a number, got {value!r}")
        if not (math.isfinite(self.rate) and 0.0 < self.rate <= 1e4):
            raise SettingsError(f"rate must lie above 0 and up to 10000 events, got {self.rate}")
        if not (math.isfinite(self.duration_ms) and 0.001 <= self.duration_ms <= 1e6):
            raise SettingsError(f"duration_ms must lie in 0.001 to 1000000, got {self.duration_ms}")
        if not 1 <= self.resolution_us <= self.duration_us:
            raise SettingsError(
                f"resolution_us must lie in 1 to the duration, {self.duration_us}, got {self.resolution_us}"
            )

    @property
    def duration_us(self) -> int:
        """Length of the presentation in whole microseconds."""
        return round(self.duration_ms * 1000.0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as event files and configurations store them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderSettings:
        """Build settings from plain values; unknown names are an error."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SettingsError(
                f"unknown encoder setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        return cls(**values)


@dataclass(frozen=True)
class AugmentSettings:
    """Random distortion of each image, anew every epoch (docs/model.md, S13); 0 switches a part off.

    Parameters
    ----------
    shift : float
        Largest shift in pixels, each axis.
    shear : float
        Largest off-diagonal entry of the linear map: rotation and shear.
    scale : float
        Largest relative change of size, each axis.
    elastic : float
        Largest displacement in pixels of the nodes of a 5 x 5 elastic grid.

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    shift: float = 1.0
    shear: float = 0.1
    scale: float = 0.07
    elastic: float = 1.0

    def __post_init__(self) -> None:
        for name, high in (("shift", 100.0), ("shear", 1.0), ("scale", 0.9), ("elastic", 100.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 <= value <= high):
                raise SettingsError(f"{name} must lie in 0 to {high:g}, got {value}")

    @property
    def enabled(self) -> bool:
        """Whether any distortion is on."""
        return any((self.shift, self.shear, self.scale, self.elastic))
