"""What every oracle of a spiking layer returns."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Result:
    """Output events and final state of one layer for one sample.

    Attributes
    ----------
    times, units : ndarray of int64
        Output events, sorted by (time, index).
    potential : ndarray
        Potential right after the last time group; it is not decayed any further, because section 1 moves
        a neuron only at input events. In the unit of the weights, or of the thresholds when normalised.
    margin : float
        Smallest ``|V - V_th| / V_th`` met at any threshold test, infinite if there was none. A comparison
        against other arithmetic is meaningful only while this exceeds the rounding error.
    history : list of (int, ndarray)
        Time and potential after each time group; empty unless asked for.
    """

    times: NDArray[np.int64]
    units: NDArray[np.int64]
    potential: NDArray[np.floating]
    margin: float
    history: list[tuple[int, NDArray[np.floating]]] = field(default_factory=list)
