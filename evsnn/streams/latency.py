"""Percentiles of latencies, in memory that does not grow."""

from __future__ import annotations

import math

import numpy as np


class Latencies:
    """Counts latencies in classes that are 1 % wide; the largest is kept exactly."""

    _PER_OCTAVE = 64
    _OCTAVES = 40  # from 1 ns on

    def __init__(self) -> None:
        self._classes = np.zeros(self._PER_OCTAVE * self._OCTAVES, np.int64)
        self.count = 0
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        """Count one latency."""
        index = int(math.log2(max(seconds * 1e9, 1.0)) * self._PER_OCTAVE)
        self._classes[min(index, len(self._classes) - 1)] += 1
        self.count += 1
        self.largest = max(self.largest, seconds)

    def percentile(self, share: float) -> float:
        """Seconds below which ``share`` percent of the latencies lie, at most 1.1 % too long; 0 for none."""
        if not self.count:
            return 0.0
        wanted = max(1, math.ceil(self.count * share / 100))
        index = int(np.searchsorted(np.cumsum(self._classes), wanted))
        return min(1e-9 * math.exp2((index + 1) / self._PER_OCTAVE), self.largest)

    def milliseconds(self) -> dict[str, float]:
        """Percentiles 50, 95 and 99, and the largest, in milliseconds."""
        found = {f"p{share}": self.percentile(share) for share in (50, 95, 99)} | {"max": self.largest}
        return {name: round(1e3 * seconds, 4) for name, seconds in found.items()}
