"""What a socket lost, from the record numbers in its datagrams."""

from __future__ import annotations

from collections import deque


class Sequence:
    """Follows the numbers of the records that come, and counts those that do not.

    Attributes
    ----------
    lost : int
        Records between the first and the last one that have not come.
    repeated : int
        Records that came once more, or so late that their gap is forgotten; they are not to be used.
    """

    #: Gaps that are remembered, for datagrams that overtook each other.
    _GAPS = 256

    def __init__(self) -> None:
        self.lost = 0
        self.repeated = 0
        self._next: int | None = None
        self._gaps: deque[tuple[int, int]] = deque(maxlen=self._GAPS)

    def accept(self, first: int, count: int) -> bool:
        """Say whether the records ``first`` to ``first + count - 1`` are new."""
        end = first + count
        if self._next is None or first >= self._next:
            if self._next is not None and first > self._next:
                self.lost += first - self._next
                self._gaps.append((self._next, first))
            self._next = end
            return True
        for gap in self._gaps:
            low, high = gap
            if low <= first and end <= high and count:
                self._gaps.remove(gap)
                self._gaps.extend(part for part in ((low, first), (end, high)) if part[0] < part[1])
                self.lost -= count
                return True
        self.repeated += count
        return False
