"""How close simulated saccade recordings come to the real ones of N-MNIST.

Recording number `id` of benchmarks/data/nmnist-800.zip shows MNIST training digit `id - 1`. The encoder
`saccade` records the same digits, and events are compared recording by recording. Settings and path were
chosen on recordings 1 to 400; the table is about 401 to 800. (The cuts between the saccades, how
much pixels differ, and the pixel that fires all the time were seen on all of them.)

    python benchmarks/saccade_calibration.py --json benchmarks/results/saccade_calibration.json
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from evsnn.backends import CpuBackend
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import load_idx_folder
from evsnn.datasets.nmnist import convert_nmnist
from evsnn.encoders import SaccadeSettings
from evsnn.environment import describe_environment
from evsnn.events import open_events

DATA = Path(__file__).parent / "data"
SIDE = 34
#: A sensor pixel of the real camera that fires all the time, (y, x): 15 events a recording.
HOT = (30, 18)
#: The mean rate is lowest here, in ms: the cuts between the three saccades.
CUTS_MS = (95, 220)
BIN_MS = 10
POLARITIES = ("off", "on")


class Recordings:
    """Events of a set of recordings, and what is counted about them."""

    def __init__(self, events):
        self.n = len(events)
        self.time = events.times.astype(np.int64)
        self.recording = np.repeat(np.arange(self.n), np.diff(events.offsets))
        self.unit = events.units.astype(np.int64)
        self.polarity = self.unit // SIDE**2
        saccade = np.digitize(self.time, 1000 * np.array(CUTS_MS))
        cell = ((saccade * self.n + self.recording) * 2 + self.polarity) * SIDE**2 + self.unit % SIDE**2
        size = 3 * self.n * 2 * SIDE**2
        self.counts = np.bincount(cell, minlength=size).reshape(3, self.n, 2, SIDE, SIDE)

    def counts_without_hot_pixel(self):
        """Events of each saccade, recording, polarity and pixel."""
        counts = self.counts.copy()
        counts[..., HOT[0], HOT[1]] = 0
        return counts

    def histogram(self):
        """Mean events of a recording in bins of time, for each polarity."""
        bins = np.minimum(self.time // (1000 * BIN_MS), 32)
        return np.bincount(self.polarity * 33 + bins, minlength=66).reshape(2, 33) / self.n

    def intervals_ms(self):
        """Quartiles of the time between successive events of one pixel, either polarity."""
        pixel = self.recording * SIDE**2 + self.unit % SIDE**2
        order = np.lexsort((self.time, pixel))
        step, same = np.diff(self.time[order]), np.diff(pixel[order]) == 0
        return np.percentile(step[same] / 1000, (5, 25, 50, 75))

    def summary(self):
        """Figures of these recordings alone."""
        per_saccade = self.counts.sum(axis=(2, 3, 4))
        per_recording = per_saccade.sum(axis=0)
        corner = self.counts.sum(axis=0)[:, :, :4, :4].mean(axis=(0, 2, 3))
        return {
            "events": per_recording.mean(),
            "events_sd": per_recording.std(),
            "events_per_saccade": per_saccade.mean(axis=1),
            "events_per_saccade_sd": per_saccade.std(axis=1),
            "on_share": self.polarity.mean(),
            "events_in_active_pixel": self.counts.sum() / (self.counts.sum(axis=0) > 0).sum(),
            "interval_ms_percentiles_5_25_50_75": self.intervals_ms(),
            "corner_events_off_on": corner,
        }


def correlation(a, b):
    """Pearson's correlation of two arrays."""
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def compared(real, simulated):
    """Figures of real and simulated recordings of the same digits together."""
    a, b = real.counts_without_hot_pixel(), simulated.counts_without_hot_pixel()
    pixel = {}
    for q, name in enumerate(POLARITIES):
        pixel[name] = np.mean([correlation(a[:, i, q].sum(0), b[:, i, q].sum(0)) for i in range(real.n)])
        pixel[f"{name}_by_saccade"] = [
            np.mean([correlation(a[k, i, q], b[k, i, q]) for i in range(real.n)]) for k in range(3)
        ]
        pixel[f"{name}_mean_image"] = correlation(a[:, :, q].sum(0).mean(0), b[:, :, q].sum(0).mean(0))
        # Beside it: the same recordings, each with the simulation of another digit.
        pixel[f"{name}_other_digit"] = np.mean(
            [correlation(a[:, i, q].sum(0), b[:, i - 1, q].sum(0)) for i in range(real.n)]
        )
    real_time, simulated_time = real.histogram(), simulated.histogram()
    return {
        "pixel_correlation": pixel,
        "events_correlation": correlation(a.sum((0, 2, 3, 4)), b.sum((0, 2, 3, 4))),
        "time_correlation": correlation(real_time, simulated_time),
        "time_distance": np.abs(real_time - simulated_time).sum() / real_time.sum(),
        "time_histogram_10ms_off_on": {"real": real_time, "simulated": simulated_time},
    }


def plain(value):
    """Numbers and lists that JSON can hold, rounded to four digits."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    return float(f"{value:.4g}")


def load(first, last, settings, seed):
    """Recordings ``first`` to ``last`` (numbers, from 1), real and simulated."""
    with tempfile.TemporaryDirectory() as folder:
        convert_nmnist(DATA / "nmnist-800.zip", Path(folder) / "real.h5", threads=1)
        with open_events(Path(folder) / "real.h5") as file:
            real = file["train"].load(first - 1, last)
    digits = load_idx_folder(DATA / "mnist", 800)["train"].part(first - 1, last)
    assert (digits.labels == real.labels).all()
    with CpuBackend(1) as backend:
        simulated = encode_images(digits, settings, seed, backend)
    return Recordings(real), Recordings(simulated)


@click.command()
@click.option("--first", default=401, show_default=True, help="First recording compared.")
@click.option("--last", default=800, show_default=True, help="Last recording compared.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(first, last, seed, out):
    """Compare and print."""
    settings = SaccadeSettings()
    real, simulated = load(first, last, settings, seed)
    even = load(first, last, replace(settings, mismatch=0.0), seed)[1]
    # What two simulations of the same digit share bounds what one of them can share with a real recording.
    again = load(first, last, settings, seed + 1)[1]
    elsewhere = load(first, last, replace(settings, camera=2), seed + 1)[1]
    result = {
        "recordings": [first, last],
        "real": plain(real.summary()),
        "simulated": plain(simulated.summary()),
        "compared": plain(compared(real, simulated)),
        "pixel_correlation_with_real_without_mismatch": plain(compared(real, even)["pixel_correlation"]),
        "pixel_correlation_of_two_simulations": {
            "same_camera": plain(compared(simulated, again)["pixel_correlation"]),
            "another_camera": plain(compared(simulated, elsewhere)["pixel_correlation"]),
        },
        "settings": settings.to_dict(),
        "seed": seed,
        "environment": describe_environment(1),
    }
    shown = {name: value for name, value in result.items() if name not in {"settings", "environment"}}
    click.echo(json.dumps(shown, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
