"""Tables of the saccade encoder, computed once on the host (docs/model.md, S20)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from evsnn_kernels import portable

from evsnn.encoders.poisson import poisson_table
from evsnn.encoders.settings import MARGIN, STEPS, SaccadeSettings

Float32 = npt.NDArray[np.float32]

#: Path of the image on the sensor of N-MNIST: displacement (y, x) in pixels at 33 equally spaced times, read
#: off recordings 1 to 120. Three saccades along a triangle, with the slow drift between them.
PATH = (
    (-1.72, -2.50),
    (-1.66, -2.52),
    (-1.31, -2.59),
    (-0.66, -2.64),
    (0.33, -2.64),
    (1.60, -2.53),
    (2.73, -2.10),
    (3.45, -1.42),
    (3.68, -1.03),
    (3.70, -0.94),
    (3.61, -0.83),
    (3.49, -0.66),
    (3.46, -0.43),
    (3.31, -0.09),
    (2.56, 0.62),
    (1.43, 1.26),
    (0.20, 1.53),
    (-0.88, 1.86),
    (-1.53, 2.25),
    (-1.69, 2.46),
    (-1.65, 2.63),
    (-1.59, 2.86),
    (-1.61, 2.97),
    (-1.64, 2.91),
    (-1.64, 2.13),
    (-1.58, 1.11),
    (-1.62, 0.06),
    (-1.70, -0.99),
    (-1.81, -1.74),
    (-1.87, -2.24),
    (-1.84, -2.48),
    (-1.82, -2.50),
    (-1.81, -2.50),
)


@dataclass(frozen=True, eq=False)
class SaccadeTables:
    """Arrays and numbers that the kernel reads.

    Parameters
    ----------
    path : ndarray of float32, shape (STEPS + 1, 2)
        Displacement (y, x) of the image in pixels at the ends of all steps.
    reach : int
        Pixels around the image that path, margin and blur bring into play.
    taps : ndarray of float32, shape (2 r + 1,)
        Blur of the optics along one axis.
    log_luminance : ndarray of float32, shape (256,)
        Logarithm of the luminance of every grey level; the digit is dark on a bright screen.
    share : float32
        What the photoreceptor covers in a step of the way to its input.
    noise : ndarray of uint32, shape (n,)
        Cumulative probabilities of 0, 1, ... noise events of a pixel, times 2^32.
    on_share : int
        Share of the noise events that are ON, times 2^32.
    """

    path: Float32
    reach: int
    taps: Float32
    log_luminance: Float32
    share: np.float32
    noise: npt.NDArray[np.uint32]
    on_share: int


def saccade_tables(settings: SaccadeSettings) -> SaccadeTables:
    """Compute the tables for some settings."""
    path = saccade_path(settings.amplitude)
    taps = blur_taps(settings.blur)
    furthest = float(np.abs(path).max()) + settings.wander
    share = 1.0
    if settings.bandwidth_ms > 0.0:
        share = 1.0 - float(portable.exp(-settings.step_us / (1000.0 * settings.bandwidth_ms)))
    noise_hz = settings.noise_on_hz + settings.noise_off_hz
    return SaccadeTables(
        path,
        max(MARGIN + math.ceil(furthest) + 1, len(taps) // 2),
        taps,
        portable.log(1.0 + settings.black_level - np.arange(256) / 255.0).astype(np.float32),
        np.float32(share),
        # The row of full intensity is that of the mean itself.
        poisson_table(noise_hz * settings.duration_us * 1e-6)[255] if noise_hz else np.empty(0, np.uint32),
        round(settings.noise_on_hz / noise_hz * 2.0**32) if noise_hz else 0,
    )


def saccade_path(amplitude: float = 1.0) -> Float32:
    """Path of the image, a Catmull-Rom spline through ``PATH``, scaled about its mean.

    Returns
    -------
    ndarray of float32, shape (STEPS + 1, 2)
        Displacement (y, x) in pixels at the ends of all steps.
    """
    knots = np.array(PATH)
    centre = knots.mean(axis=0)
    knots = centre + amplitude * (knots - centre)
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    at = np.arange(STEPS + 1) * (len(knots) - 1) / STEPS
    low = np.minimum(at.astype(np.int64), len(knots) - 2)
    u = (at - low)[:, None]
    a, b, c, d = (padded[low + k] for k in range(4))
    curve = b + 0.5 * u * (c - a + u * (2.0 * a - 5.0 * b + 4.0 * c - d + u * (3.0 * (b - c) + d - a)))
    return np.ascontiguousarray(curve.astype(np.float32))


def blur_taps(sigma: float) -> Float32:
    """Gaussian of three standard deviations to each side, of sum 1, shape (2 r + 1,)."""
    radius = math.ceil(3.0 * sigma)
    if radius == 0:
        return np.ones(1, np.float32)
    weights = portable.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps: Float32 = (weights / math.fsum(weights)).astype(np.float32)
    return taps
