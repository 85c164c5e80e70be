"""Settings of the encoders that turn images into events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from evsnn.errors import SettingsError

KINDS = ("stratified", "poisson", "latency")
SACCADE = "saccade"

#: Steps that the path of a saccade recording is cut into.
STEPS = 160
#: Pixels by which the sensor is larger than the image, on each side.
MARGIN = 3


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
        if self.kind == SACCADE:
            raise SettingsError(
                "encoder 'saccade' makes event files: evsnn convert-mnist --encoder saccade "
                "(in Python: SaccadeSettings)"
            )
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

    def event_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (C, H, W) of the events of an image."""
        return 1, height, width

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as event files and configurations store them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderSettings:
        """Build settings from plain values; unknown names are an error."""
        _refuse_unknown(cls, values)
        return cls(**values)


@dataclass(frozen=True)
class SaccadeSettings:
    """An event camera that watches an image in three saccades (docs/model.md, S20).

    The defaults are calibrated on recordings of N-MNIST. The sensor has 3 pixels more than the image on each
    side, and two channels: OFF (0) and ON (1).

    Parameters
    ----------
    duration_ms : float
        Length of the whole path; a recording is up to ``lag_ms`` shorter. It is rounded to 160 equal steps
        of whole microseconds.
    amplitude : float
        Size of the triangle that the image moves along; 1 for that of N-MNIST, with sides of
        5.4 to 6.5 pixels.
    lag_ms : float
        The recording begins at a random time up to this long after the path.
    wander : float
        Random displacement of the whole recording, each axis, in pixels.
    blur : float
        Standard deviation of the optics' blur in pixels.
    black_level : float
        Luminance of the darkest grey level, as a share of the range between the darkest and the brightest.
    bandwidth_ms : float
        Time constant of the photoreceptor's low pass; 0 for none.
    threshold_on, threshold_off : float
        Change of the log luminance (natural logarithm) that makes an event.
    mismatch : float
        Standard deviation of the thresholds of the pixels, as a share.
    jitter : float
        Standard deviation of a pixel's threshold from event to event, as a share.
    refractory_ms : float
        Time after an event for which a pixel is held.
    noise_on_hz, noise_off_hz : float
        Background events of a pixel in a second.
    camera : int
        Which camera: decides how its pixels differ. 0 takes a new one for every recording.
    resolution_us : int
        Event times are multiples of this many microseconds.
    kind : str
        ``saccade``.

    Raises
    ------
    SettingsError
        Naming the setting and its range.
    """

    duration_ms: float = 320.0
    amplitude: float = 1.0
    lag_ms: float = 5.0
    wander: float = 0.22
    blur: float = 0.51
    black_level: float = 0.25
    bandwidth_ms: float = 2.0
    threshold_on: float = 0.217
    threshold_off: float = 0.215
    mismatch: float = 0.14
    jitter: float = 0.04
    refractory_ms: float = 0.3
    noise_on_hz: float = 0.36
    noise_off_hz: float = 0.02
    camera: int = 1
    resolution_us: int = 1
    kind: str = SACCADE

    def __post_init__(self) -> None:
        if self.kind != SACCADE:
            raise SettingsError(f"encoder of saccade settings must be {SACCADE!r}, got {self.kind!r}")
        for name, low, high in (
            ("duration_ms", 1.0, 1e5),
            ("amplitude", 0.0, 10.0),
            ("lag_ms", 0.0, 5e4),
            ("wander", 0.0, 10.0),
            ("blur", 0.0, 5.0),
            ("black_level", 1e-3, 1e3),
            ("bandwidth_ms", 0.0, 1e4),
            ("threshold_on", 0.01, 100.0),
            ("threshold_off", 0.01, 100.0),
            ("mismatch", 0.0, 0.35),
            ("jitter", 0.0, 0.35),
            ("refractory_ms", 0.0, 1e5),
            ("noise_on_hz", 0.0, 1e3),
            ("noise_off_hz", 0.0, 1e3),
            ("camera", 0, (1 << 32) - 1),
            ("resolution_us", 1, 1_000_000),
        ):
            value = getattr(self, name)
            whole = isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise SettingsError(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
            if not (math.isfinite(value) and low <= value <= high):
                raise SettingsError(f"{name} must lie in {low:g} to {high:g}, got {value}")
        if self.lag_ms > self.duration_ms / 2:
            raise SettingsError(f"lag_ms must lie in 0 to {self.duration_ms / 2:g}, got {self.lag_ms}")
        if (self.noise_on_hz + self.noise_off_hz) * self.duration_us > 1e9:
            raise SettingsError("noise_on_hz and noise_off_hz must make less than 1000 events a recording")

    @property
    def step_us(self) -> int:
        """Length of a step of the path in microseconds."""
        return round(self.duration_ms * 1000.0 / STEPS)

    @property
    def duration_us(self) -> int:
        """Length of the path in microseconds; no event is later."""
        return STEPS * self.step_us

    def event_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (C, H, W) of the events of an image."""
        return 2, height + 2 * MARGIN, width + 2 * MARGIN

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as event files store them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SaccadeSettings:
        """Build settings from plain values; unknown names are an error."""
        _refuse_unknown(cls, values)
        return cls(**values)


def encoder_settings(values: Mapping[str, Any]) -> EncoderSettings | SaccadeSettings:
    """Build the settings of an encoder of any kind from the plain values that an event file stores.

    Raises
    ------
    SettingsError
        If a setting is unknown or out of range.
    """
    for name, value in values.items():
        # A whole number of any size is JSON; no setting is one, and floating point cannot compare them.
        if not isinstance(value, int | float | str) or (isinstance(value, int) and abs(value) >= 1 << 63):
            raise SettingsError(
                f"encoder setting {name!r} of the data set is neither a word nor a number of a size that "
                "makes sense; make the event file again, or train with --no-fresh"
            )
    if values.get("kind") == SACCADE:
        return SaccadeSettings.from_dict(values)
    return EncoderSettings.from_dict(values)


def _refuse_unknown(kind: type[EncoderSettings | SaccadeSettings], values: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise SettingsError(f"unknown encoder setting {unknown[0]!r}; known are {', '.join(sorted(known))}")


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
