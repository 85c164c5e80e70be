"""Events of a set where kernels reach them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evsnn.backends.base import Backend, Part
from evsnn.backends.stage import Stage
from evsnn.events.core import EventSet

Int64 = npt.NDArray[np.int64]


def event_stage(data: EventSet, backend: Backend) -> Stage[Int64]:
    """Stage times and units of a set; about a chunk the host knows the offsets of its samples."""

    def gather(samples: Int64 | None) -> Part[Int64]:
        part = data if samples is None else data.select(samples)
        return part.offsets, (part.times, part.units)

    return Stage(backend, 8 * np.diff(data.offsets), gather)
