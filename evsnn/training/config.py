"""The full description of a training run, as a TOML file keeps it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from evsnn.encoders.settings import AugmentSettings, EncoderSettings
from evsnn.errors import DataError, SettingsError
from evsnn.events.augment import EventAugmentSettings
from evsnn.files import read_limited
from evsnn.learning.settings import LearningSettings
from evsnn.network.architecture import parse_architecture
from evsnn.network.settings import NetworkSettings

T = TypeVar("T")

#: ``validation`` value that stands for the file's own validation split, else a sixth of the training set.
AUTOMATIC = -1

_MAX_BYTES = 1 << 18
_MAX_DEPTH = 8


@dataclass(frozen=True)
class DataSettings:
    """What is learned.

    Parameters
    ----------
    path : str
        Event file; empty for the MNIST subset of the package.
    limit : int
        Use only the first samples of every split; 0 for all.
    validation : int
        Last samples of the training split that are held out; -1 for the file's own validation split, else
        a sixth of the training set; 0 for none.
    fresh : bool
        Draw new spikes every epoch where the data set has images.
    augment : bool
        Distort training samples anew every epoch: images by ``[augment]``, recordings by
        ``[augment_events]``.
    folds : int
        Parts that the training split is dealt into for cross-validation; 0 for none.
    fold : int
        Part, from 1, that is held out and classified at the end of the run, while the other parts are
        learned; 0 for every part in turn.
    """

    path: str = ""
    limit: int = 0
    validation: int = AUTOMATIC
    fresh: bool = True
    augment: bool = True
    folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.path, str):
            raise SettingsError(f"data path must be text, got {self.path!r}")
        for name, low in (("limit", 0), ("validation", AUTOMATIC), ("folds", 0), ("fold", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise SettingsError(f"{name} must be a whole number of {low} or more, got {value!r}")
        for name in ("fresh", "augment"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if self.folds == 1:
            raise SettingsError("folds must be 2 or more, or 0 for a run without cross-validation; got 1")
        if self.fold > self.folds:
            raise SettingsError(f"fold must lie in 0 to the number of folds, {self.folds}, got {self.fold}")
        if self.folds and self.validation > 0:
            raise SettingsError(
                f"folds hold out a part of the training set each, and choose no epoch by it: "
                f"drop validation {self.validation}"
            )


@dataclass(frozen=True)
class RunConfig:
    """Everything a training run depends on, but the number of threads, which changes no result.

    Parameters
    ----------
    arch : str
        Architecture; empty for one hidden layer of 800 neurons between the data's inputs and classes.
    epochs : int
    seed : int
        Of weights, order and spikes.
    data : DataSettings
    encoder : EncoderSettings
        Of the package's MNIST subset; event files bring their own.
    augment : AugmentSettings
        Of images.
    augment_events : EventAugmentSettings
        Of recordings.
    network : NetworkSettings
    learning : LearningSettings
    """

    arch: str = ""
    epochs: int = 40
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    augment_events: EventAugmentSettings = field(default_factory=EventAugmentSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)

    def __post_init__(self) -> None:
        if not isinstance(self.arch, str):
            raise SettingsError(f"arch must be text, got {self.arch!r}")
        for name, low, high in (("epochs", 1, 1_000_000), ("seed", 0, (1 << 63) - 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise SettingsError(f"{name} must be a whole number in {low} to {high}, got {value!r}")
        if self.arch:
            self.network.neurons(parse_architecture(self.arch).n_spiking)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, nested by section."""
        return asdict(self)

    def to_toml(self) -> str:
        """Return the text of ``config.toml``."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: RunConfig | None = None) -> RunConfig:
        """Build a configuration from plain values laid over ``base`` (default: all defaults).

        Raises
        ------
        SettingsError
            Naming an unknown section or setting, or a value out of range.
        """
        merged = (base or cls()).to_dict()
        for name, value in values.items():
            if name not in merged:
                raise SettingsError(f"unknown setting {name!r}; known are {', '.join(merged)}")
            if isinstance(merged[name], dict):
                if not isinstance(value, Mapping):
                    raise SettingsError(f"[{name}] must be a section with settings, got {value!r}")
                for key, item in value.items():
                    if key not in merged[name]:
                        raise SettingsError(
                            f"unknown setting {key!r} in [{name}]; known are {', '.join(merged[name])}"
                        )
                    merged[name][key] = item
            else:
                merged[name] = value
        sections = {
            "data": DataSettings,
            "encoder": EncoderSettings,
            "augment": AugmentSettings,
            "augment_events": EventAugmentSettings,
            "network": NetworkSettings,
            "learning": LearningSettings,
        }
        for name, section in sections.items():
            merged[name] = _section(name, section, merged[name])
        return cls(**merged)

    @classmethod
    def from_toml(cls, path: Path, base: RunConfig | None = None) -> RunConfig:
        """Read ``config.toml``.

        Raises
        ------
        SettingsError
            Naming the file and what is wrong in it.
        """
        try:
            text = read_limited(path, _MAX_BYTES)
        except DataError as error:
            raise SettingsError(str(error)) from error
        return cls.from_text(text, str(path), base)

    @classmethod
    def from_text(cls, text: bytes, where: str, base: RunConfig | None = None) -> RunConfig:
        """Read the content of a ``config.toml``; ``where`` is named in messages.

        Raises
        ------
        SettingsError
            Naming what is wrong in it.
        """
        try:
            values = tomllib.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{where}: not valid TOML: {error}") from error
        try:
            _refuse_extremes(values, _MAX_DEPTH)
            return cls.from_dict(values, base)
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error


def _refuse_extremes(value: object, depth: int) -> None:
    """Refuse what Python can hold but not print: integers without end, and nesting without end."""
    if depth == 0:
        raise SettingsError("sections lie inside sections too deep")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise SettingsError("holds a whole number that does not fit 64 bits")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_extremes(item, depth - 1)


def _section(name: str, kind: type[T], values: Mapping[str, Any]) -> T:
    if kind is not NetworkSettings:  # whose values may be lists; it looks at them itself
        _check_types(name, kind, values)
    try:
        return kind(**values)
    except OverflowError as error:
        raise SettingsError(f"[{name}] holds a number that is too large") from error


def _check_types(name: str, kind: type[Any], values: Mapping[str, Any]) -> None:
    """Name a value of the wrong type before any arithmetic is tried on it."""
    defaults = kind()
    for item in fields(kind):
        default = getattr(defaults, item.name)
        value = values[item.name]
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise SettingsError(f"[{name}] {item.name} must be true or false, got {value!r}")
            continue
        numeric = isinstance(default, int | float)
        if numeric and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise SettingsError(f"[{name}] {item.name} must be a number, got {value!r}")
        if isinstance(default, int) and not isinstance(value, int):
            raise SettingsError(f"[{name}] {item.name} must be a whole number, got {value!r}")
        if isinstance(default, str) and not isinstance(value, str):
            raise SettingsError(f"[{name}] {item.name} must be text, got {value!r}")
