"""Does training on simulated saccade recordings help on real ones of N-MNIST?

The settings of ``evsnn train`` for recordings: learned in distorted windows, classified whole. The 800 real
recordings make the five folds of ``evsnn train --folds 5``. The simulated recordings show MNIST training
digits from index 800 on, none of which is in the real ones. Epochs are fixed beforehand; nothing is chosen by
the tested recordings.

- real: the 640 real recordings;
- simulated: simulated recordings only, for as many steps;
- mixed: the simulated and the real ones together, for as many steps;
- tuned: the network of `simulated`, trained further on the 640 real ones;
- on twins: the network of `simulated`, tested on simulated recordings of the digits that the real ones show.

    python benchmarks/saccade_transfer.py --json benchmarks/results/saccade_transfer.json
"""

from __future__ import annotations

import copy
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from evsnn.backends import CpuBackend
from evsnn.datasets.division import deal
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import load_idx_folder
from evsnn.datasets.nmnist import convert_nmnist
from evsnn.encoders import SaccadeSettings
from evsnn.environment import describe_environment
from evsnn.events import EventSet, open_events
from evsnn.network import Network
from evsnn.training import evaluate, fit, preset

DATA = Path(__file__).parent / "data"
REAL = 800
FOLDS = 5


def together(a, b):
    """Two sets of recordings as one."""
    return EventSet(
        np.concatenate([a.times, b.times]),
        np.concatenate([a.units, b.units]),
        np.concatenate([a.offsets, a.offsets[-1] + b.offsets[1:]]),
        np.concatenate([a.labels, b.labels]),
        a.shape,
        max(a.duration_us, b.duration_us),
        a.classes,
    )


def real_recordings():
    """The 800 real recordings, in the order of their digits."""
    with tempfile.TemporaryDirectory() as folder:
        convert_nmnist(DATA / "nmnist-800.zip", Path(folder) / "real.h5", threads=1)
        with open_events(Path(folder) / "real.h5") as file:
            return file["train"].load()


class Bench:
    """Networks trained in one way and another, and what they reach."""

    def __init__(self, arch, threads):
        self.config = preset("default", arch, recordings=True)
        self.threads = threads
        self.results = {}

    def trained(self, data, epochs, *, network=None, lr=None):
        """A network trained on a set; a given one is trained further."""
        config = self.config
        if network is None:
            network = Network.from_architecture(config.arch, seed=0, settings=config.network)
        fit(
            network,
            data,
            epochs=epochs,
            learning=config.learning if lr is None else replace(config.learning, lr=lr),
            event_augmentation=config.augment_events,
            threads=self.threads,
        )
        return network

    def record(self, name, fold, network, test, seconds):
        """Keep the errors of a network on the recordings of a fold."""
        found = evaluate(network, test, threads=self.threads)
        wrong = round((1 - found.accuracy) * len(test))
        row = {"fold": fold + 1, "errors": wrong, "samples": len(test), "seconds": round(seconds, 1)}
        self.results.setdefault(name, []).append(row)
        click.echo(f"{name}: {row}")


@click.command()
@click.option("--arch", default="34x34x2-800-10", show_default=True)
@click.option("--digits", default=10_000, show_default=True, help="Simulated digits.")
@click.option("--epochs", default=100, show_default=True, help="Epochs of the 640 real recordings.")
@click.option("--tuning-epochs", default=20, show_default=True)
@click.option("--camera", default=0, show_default=True, help="0: every recording by a camera of its own.")
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(arch, digits, epochs, tuning_epochs, camera, threads, out):
    """Train, test and print."""
    real = real_recordings()
    images = load_idx_folder(DATA / "mnist", REAL + digits)["train"]
    with CpuBackend(threads) as backend:
        settings = SaccadeSettings(camera=camera)
        parts = images.part(REAL, REAL + digits), images.part(0, REAL)
        simulated, twins = (
            replace(encode_images(part, settings, seed, backend), images=None)
            for seed, part in enumerate(parts)
        )
    bench = Bench(arch, threads)
    fold_of = deal(real.labels, FOLDS)
    steps = epochs * (REAL - REAL // FOLDS)
    begin = time.perf_counter()
    # Having seen no real recording, it serves every fold.
    blind = bench.trained(simulated, max(1, round(steps / digits)))
    seconds = time.perf_counter() - begin
    for fold in range(FOLDS):
        test = real.select(np.flatnonzero(fold_of == fold))
        train = real.select(np.flatnonzero(fold_of != fold))
        bench.record("simulated", fold, blind, test, seconds)
        bench.record("on twins", fold, blind, twins.select(np.flatnonzero(fold_of == fold)), seconds)
        for name, data in (("real", train), ("mixed", together(simulated, train))):
            begin = time.perf_counter()
            network = bench.trained(data, max(1, round(steps / len(data))))
            bench.record(name, fold, network, test, time.perf_counter() - begin)
        begin = time.perf_counter()
        lr = bench.config.learning.lr / 4
        network = bench.trained(train, tuning_epochs, network=copy.deepcopy(blind), lr=lr)
        bench.record("tuned", fold, network, test, time.perf_counter() - begin)
    result = {
        "errors": {name: sum(row["errors"] for row in rows) for name, rows in bench.results.items()},
        "tested": REAL,
        "folds": bench.results,
        "digits": digits,
        "epochs": {"real": epochs, "tuned": tuning_epochs},
        "config": bench.config.to_dict(),
        "encoder": dict(simulated.encoder),
        "environment": describe_environment(threads),
    }
    click.echo(json.dumps({name: result[name] for name in ("errors", "tested")}, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
