"""Event-driven oracle: a dense layer of section 1, one sample, one time group after another."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .result import Result

__all__ = ["Result", "activity", "predict", "simulate_dense", "simulate_network"]


def decay_factor(
    dt: int, tau_us: float, decay_tables: tuple[ArrayLike, ArrayLike] | None, dtype: DTypeLike
) -> np.floating:
    """Return D(dt) of section 1, rule 1, either from the portable tables or from the exponential."""
    scalar = np.dtype(dtype).type
    if decay_tables is None:
        return scalar(math.exp(-dt / tau_us))
    hi, lo = (np.asarray(table, dtype) for table in decay_tables)
    # beyond the table's end its last entry stands for every longer gap
    return scalar(hi[min(dt >> 10, len(hi) - 1)]) * scalar(lo[dt & 1023])


def simulate_dense(
    times: ArrayLike,
    units: ArrayLike,
    weight: ArrayLike,
    threshold: ArrayLike,
    *,
    tau_us: float,
    refractory_us: int = 0,
    kappa: float = 0.0,
    clamp: float = 1.0,
    dtype: DTypeLike = np.float64,
    decay_tables: tuple[ArrayLike, ArrayLike] | None = None,
    normalised: bool = False,
    record: bool = False,
) -> Result:
    """Simulate one dense layer by the five rules of section 1.

    Every operation is a separate array operation in `dtype`, so each one is rounded on its own and nothing
    can be contracted to a fused multiply-add: in float32 with `normalised` the result is defined to the bit.

    Parameters
    ----------
    times, units : array_like of int
        Input events in microseconds (not negative) and input indices, in any order. An input that occurs
        twice in a time group is received twice.
    weight : array_like, shape (n_in, n_out)
    threshold : array_like, shape (n_out,)
        Positive.
    tau_us : float
        Membrane time constant; infinite: no decay.
    refractory_us : int
        T_ref; 0: off.
    kappa : float
        Lateral inhibition in [-1, 0] within the layer, which is one winner-take-all group; 0: off.
    clamp : float
        c of rule 3, the lower bound is ``-c V_th``; infinite: off.
    dtype : dtype
        Type in which all arithmetic is done.
    decay_tables : (hi, lo), optional
        ``D(dt) = hi[dt >> 10] * lo[dt & 1023]`` instead of the exponential.
    normalised : bool
        Divide the weights by V_th first and work with a threshold of 1.
    record : bool
        Keep the potential after every time group.

    Returns
    -------
    Result
    """
    scalar = np.dtype(dtype).type
    times = np.asarray(times, np.int64)
    units = np.asarray(units, np.int64)
    w = np.asarray(weight, dtype)
    v_th = np.asarray(threshold, dtype)
    if times.size and times.min() < 0:
        raise ValueError("event times count from 0")
    if np.any(v_th <= 0):
        raise ValueError("thresholds must be positive")
    if normalised:
        w = w / v_th
        v_th = np.ones_like(v_th)
    lower = -scalar(clamp) * v_th

    # section 1 receives in ascending input index; a stable sort keeps repeated inputs apart
    order = np.lexsort((units, times))
    times, units = times[order], units[order]

    n_out = v_th.size
    v = np.zeros(n_out, dtype)
    has_spiked = np.zeros(n_out, bool)
    last_spike = np.zeros(n_out, np.int64)
    out_times: list[int] = []
    out_units: list[int] = []
    history: list[tuple[int, NDArray[np.floating]]] = []
    margin = math.inf
    previous = 0

    for t in np.unique(times):
        # 1. decay
        v = v * decay_factor(int(t - previous), tau_us, decay_tables, dtype)
        previous = t

        # 2. receive
        w_dyn = np.ones(n_out, dtype)
        if refractory_us > 0:
            dt = t - last_spike
            ratio = dt.astype(dtype) / scalar(refractory_us)
            w_dyn = np.where(has_spiked & (dt < refractory_us), ratio * ratio, w_dyn)
        for k in units[times == t]:
            # the product with w_dyn = 1 is exact, so neurons at rest receive w itself
            v = v + w_dyn * w[k]

        # 3. clamp: once for the whole group, or the order of simultaneous events would matter
        v = np.maximum(v, lower)

        # 4. fire
        if n_out:
            margin = min(margin, float(np.min(np.abs(v - v_th) / v_th)))
        fired = v >= v_th
        v = np.where(fired, v - v_th, v)
        last_spike[fired] = t
        has_spiked |= fired
        for i in np.flatnonzero(fired):
            out_times.append(int(t))
            out_units.append(int(i))

        # 5. inhibit
        others = np.count_nonzero(fired) - fired.astype(np.int64)
        if kappa != 0.0:
            inhibition = others.astype(dtype) * scalar(kappa) * v_th
            v = np.where(others > 0, np.maximum(v + inhibition, lower), v)

        if record:
            history.append((int(t), v.copy()))

    return Result(np.array(out_times, np.int64), np.array(out_units, np.int64), v, margin, history)


def simulate_network(
    times: ArrayLike,
    units: ArrayLike,
    weights: Sequence[ArrayLike],
    thresholds: Sequence[ArrayLike],
    **settings: Any,
) -> list[Result]:
    """Chain dense layers: the output events of one are the input of the next (section 1).

    Parameters
    ----------
    times, units : array_like of int
        Events of the network's input.
    weights, thresholds : sequence of array_like
        One entry for each layer.
    **settings
        Keywords of `simulate_dense`. A list holds one value for each layer, anything else (a pair of decay
        tables is a tuple) is shared.

    Returns
    -------
    list of Result
        One for each layer.
    """
    results: list[Result] = []
    for layer, (weight, threshold) in enumerate(zip(weights, thresholds, strict=True)):
        own = {name: value[layer] if isinstance(value, list) else value for name, value in settings.items()}
        results.append(simulate_dense(times, units, weight, threshold, **own))
        times, units = results[-1].times, results[-1].units
    return results


def activity(
    times: ArrayLike,
    units: ArrayLike,
    n: int,
    mode: str = "counts",
    T: float = 0.0,
    tau: float = math.inf,
) -> NDArray[np.float64]:
    """Return the activity of `n` units over one presentation (section 2).

    ``"counts"``: number of events; ``"trace"``: sum over the events of ``exp((t_p - T) / tau)``, with `T` the
    end of the presentation, in the unit of `times`.
    """
    if mode not in ("counts", "trace"):
        raise ValueError(f"unknown activity {mode!r}")
    result = np.zeros(n)
    for t, unit in zip(np.asarray(times), np.asarray(units), strict=True):
        result[unit] += 1.0 if mode == "counts" else math.exp((float(t) - T) / tau)
    return result


def predict(counts: ArrayLike, residual: ArrayLike) -> int:
    """Return the class: most spikes, ties by residual potential, then the lowest index (section 3).

    `residual` is compared as it is given; a caller who wants it relative to the thresholds divides it first.
    """
    counts, residual = np.asarray(counts), np.asarray(residual)
    best = 0
    for i in range(1, len(counts)):
        if (counts[i], residual[i]) > (counts[best], residual[best]):
            best = i
    return best
