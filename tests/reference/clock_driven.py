"""Clock-driven oracle: the dense layer of section 1 on a time grid, with dense arrays and matrix products."""

import math

import numpy as np
from numpy.typing import ArrayLike

from .result import Result

__all__ = ["rasterise", "simulate_dense_clocked"]


def rasterise(times: ArrayLike, units: ArrayLike, n_in: int, step_us: int) -> np.ndarray:
    """Return the number of events for each time step and input; the grid ends with the last event."""
    times = np.asarray(times, np.int64)
    units = np.asarray(units, np.int64)
    if np.any(times % step_us):
        raise ValueError("event times must lie on the grid")
    steps = int(times.max()) // step_us + 1 if times.size else 0
    flat = np.bincount(times // step_us * n_in + units, minlength=steps * n_in)
    return flat.reshape(steps, n_in)


def simulate_dense_clocked(
    times: ArrayLike,
    units: ArrayLike,
    weight: ArrayLike,
    threshold: ArrayLike,
    *,
    step_us: int,
    tau_us: float,
    refractory_us: int = 0,
    kappa: float = 0.0,
    clamp: float = 1.0,
    record: bool = False,
) -> Result:
    """Simulate one dense layer with a global clock, in float64.

    Every neuron decays at every step. Rules 2 to 5 of section 1 act only at steps with input: a neuron that
    still holds a full threshold after a soft reset waits for the next input event, as section 1 has it.

    Parameters
    ----------
    times, units : array_like of int
        Input events; times are multiples of `step_us`.
    weight : array_like, shape (n_in, n_out)
    threshold : array_like, shape (n_out,)
    step_us : int
        Grid spacing in microseconds.
    tau_us, refractory_us, kappa, clamp, record
        As section 1 names them; history holds the steps with input only.

    Returns
    -------
    Result
    """
    weight = np.asarray(weight, np.float64)
    threshold = np.asarray(threshold, np.float64)
    n_in, n_out = weight.shape
    raster = rasterise(times, units, n_in, step_us)
    steps = raster.shape[0]

    drive = raster.astype(np.float64) @ weight
    has_input = raster.sum(axis=1) > 0
    leak = math.exp(-step_us / tau_us)
    floor = -clamp * threshold
    everyone_else = np.ones((n_out, n_out)) - np.eye(n_out)

    potential = np.zeros(n_out)
    since_spike = np.full(n_out, np.inf)
    spikes = np.zeros((steps, n_out), dtype=bool)
    distance = np.full((steps, n_out), np.inf)
    history: list[tuple[int, np.ndarray]] = []

    for step in range(steps):
        potential *= leak
        since_spike += step_us
        if not has_input[step]:
            continue

        # w_dyn is the same for all inputs of a neuron, so it scales the whole drive
        fraction = since_spike / refractory_us if refractory_us else np.full(n_out, np.inf)
        gain = np.minimum(fraction, 1.0) ** 2
        potential += gain * drive[step]
        np.clip(potential, floor, None, out=potential)

        distance[step] = np.abs(potential / threshold - 1.0)
        spikes[step] = potential >= threshold
        potential -= spikes[step] * threshold
        since_spike[spikes[step]] = 0.0

        rivals = everyone_else @ spikes[step]
        inhibited = (rivals > 0) & (kappa != 0)
        potential += kappa * rivals * threshold
        potential[inhibited] = np.maximum(potential, floor)[inhibited]
        if record:
            history.append((step * step_us, potential.copy()))

    step_of, unit_of = np.nonzero(spikes)
    return Result(
        times=step_of.astype(np.int64) * step_us,
        units=unit_of.astype(np.int64),
        potential=potential,
        margin=float(distance.min(initial=np.inf)),
        history=history,
    )
