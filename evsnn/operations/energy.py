"""Energy as counts times a table of picojoules an operation, whose source is always named."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evsnn.errors import SettingsError

#: What a table may price, and the counts that it is multiplied with.
PRICES = {
    "addition": "additions",
    "multiplication": "multiplications",
    "comparison": "threshold_comparisons",
    "weight_byte": "weight_bytes",
}


@dataclass(frozen=True)
class EnergyTable:
    """Energy of each kind of operation.

    Parameters
    ----------
    source : str
        Where the values come from; shown with every result.
    picojoules : mapping of str to float
        By the names of ``PRICES``; what is not there is not counted. ``addition`` and ``multiplication`` must
        be, so that the conventional network has a price.
    """

    source: str
    picojoules: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source.strip():
            raise SettingsError("an energy table must name its source: source = '...'")
        for name, value in self.picojoules.items():
            if name not in PRICES:
                raise SettingsError(f"unknown operation {name!r}; known are {', '.join(PRICES)}")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (math.isfinite(value) and value >= 0):
                raise SettingsError(f"{name} must be a number of picojoules, 0 or more, got {value!r}")
        for name in ("addition", "multiplication"):
            if name not in self.picojoules:
                raise SettingsError(f"an energy table needs {name} = picojoules of one {name}")

    def of_counts(self, counts: Mapping[str, float]) -> float:
        """Picojoules of what was counted, by the names of a row of ``OperationCounts``."""
        return sum(value * float(counts[PRICES[name]]) for name, value in self.picojoules.items())

    def of_macs(self, macs: float) -> float:
        """Picojoules of a conventional network: an addition, a multiplication and a weight for each MAC."""
        prices = self.picojoules
        each = prices["addition"] + prices["multiplication"] + 4 * prices.get("weight_byte", 0.0)
        return macs * each

    @property
    def left_out(self) -> list[str]:
        """Operations that are counted but have no price here."""
        return [name for name in PRICES if name not in self.picojoules]


#: Tables that can be picked by name.
TABLES = {
    "horowitz-45nm": EnergyTable(
        "M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014: 45 nm, 0.9 V, "
        "32-bit floating point; arithmetic alone, no memory",
        {"addition": 0.9, "multiplication": 3.7},
    ),
}


def energy_table(choice: str) -> EnergyTable:
    """Return a table by its name, or read one from a TOML file.

    The file holds ``source = "..."`` and ``addition``, ``multiplication`` and, if wanted, ``comparison`` and
    ``weight_byte`` in picojoules.

    Raises
    ------
    SettingsError
        If there is no such table or file, or it is not what it should be; with the file's name.
    """
    if choice in TABLES:
        return TABLES[choice]
    path = Path(choice)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"no energy table {choice!r}: neither a file nor one of {', '.join(TABLES)}"
        ) from error
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    try:
        return EnergyTable(values.pop("source", ""), values)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
