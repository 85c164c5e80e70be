"""Does training on simulated saccade recordings help on real ones of N-MNIST?

34x34x2-800-10, settings of the preset `default` but for batches of 10 and a learning rate of 1e-3. The 800
real recordings make five folds: fold f tests on those whose index divided by 5 leaves f (160), the other 640
are for training. The simulated recordings show MNIST training digits from index 800 on, none of which is in
the real ones. Epochs are fixed beforehand; nothing is chosen by the tested recordings.

- real: the 640 real recordings as they are;
- simulated: simulated recordings only, drawn anew every epoch from distorted digits;
- frozen: simulated recordings only, the same in every epoch, without distortion;
- mixed: the frozen simulated and the real ones together;
- tuned: the network of `simulated`, trained further on the 640 real ones;
- on twins: tested on simulated recordings of the digits that the real ones show.

    python benchmarks/saccade_transfer.py --folds 5 --json benchmarks/results/saccade_transfer.json
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

from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import load_idx_folder
from evsnn.datasets.nmnist import convert_nmnist
from evsnn.encoders import SaccadeSettings
from evsnn.environment import describe_environment
from evsnn.events import EventSet, open_events
from evsnn.network import Network
from evsnn.parallel import Workers
from evsnn.training import evaluate, fit, preset

DATA = Path(__file__).parent / "data"
REAL = 800
FOLDS = 5


def chosen(data, samples):
    """Some samples of a set, without images."""
    starts, counts = data.offsets[samples], np.diff(data.offsets)[samples]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return replace(
        data,
        times=data.times[index],
        units=data.units[index],
        offsets=offsets,
        labels=data.labels[samples],
        images=None,
    )


def together(a, b):
    """Two sets of recordings as one, without images."""
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

    def __init__(self, simulated, threads):
        config = preset("default")
        self.network = config.network
        self.learning = replace(config.learning, batch_size=10, lr=1e-3)
        self.simulated = simulated
        self.threads = threads
        self.results = {}

    def trained(self, data, epochs, seed, *, network=None, lr=None, fresh=False):
        """A network trained on a set; a given one is trained further."""
        if network is None:
            network = Network.from_architecture("34x34x2-800-10", seed=seed, settings=self.network)
        learning = self.learning if lr is None else replace(self.learning, lr=lr)
        fit(network, data, epochs=epochs, learning=learning, fresh=fresh, seed=seed, threads=self.threads)
        return network

    def record(self, name, fold, network, test, seconds):
        """Keep the accuracy of a network on the recordings of a fold."""
        found = evaluate(network, test, threads=self.threads)
        row = {"fold": fold, "accuracy": round(found.accuracy, 4), "seconds": round(seconds, 1)}
        self.results.setdefault(name, []).append(row)
        click.echo(f"{name}: {row}")


@click.command()
@click.option("--digits", default=2000, show_default=True, help="Simulated digits.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of training with simulated recordings.")
@click.option("--real-epochs", default=30, show_default=True, help="Epochs of training on real ones alone.")
@click.option("--tuning-epochs", default=10, show_default=True)
@click.option("--tuning-lr", default=5e-4, show_default=True)
@click.option("--camera", default=0, show_default=True, help="0: every recording by a camera of its own.")
@click.option("--folds", default=1, show_default=True, type=click.IntRange(1, FOLDS))
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(digits, epochs, real_epochs, tuning_epochs, tuning_lr, camera, folds, threads, out):
    """Train, test and print."""
    real = real_recordings()
    images = load_idx_folder(DATA / "mnist", REAL + digits)["train"]
    with Workers(threads) as workers:
        settings = SaccadeSettings(camera=camera)
        simulated = encode_images(images.part(REAL, REAL + digits), settings, 0, workers)
        twins = encode_images(images.part(0, REAL), settings, 1, workers)
    bench = Bench(simulated, threads)
    # Networks that see no real recording serve every fold.
    blind = {}
    for name in ("frozen", "simulated"):
        begin = time.perf_counter()
        network = bench.trained(simulated, epochs, 0, fresh=name == "simulated")
        blind[name] = network, time.perf_counter() - begin
    for fold in range(folds):
        rest = np.arange(len(real)) % FOLDS
        test, train = chosen(real, np.flatnonzero(rest == fold)), chosen(real, np.flatnonzero(rest != fold))
        for name, (network, seconds) in blind.items():
            bench.record(name, fold, network, test, seconds)
            bench.record(
                f"{name}, on twins", fold, network, chosen(twins, np.flatnonzero(rest == fold)), seconds
            )
        begin = time.perf_counter()
        network = bench.trained(train, real_epochs, fold)
        bench.record("real", fold, network, test, time.perf_counter() - begin)
        begin = time.perf_counter()
        network = bench.trained(together(simulated, train), epochs, fold)
        bench.record("mixed", fold, network, test, time.perf_counter() - begin)
        begin = time.perf_counter()
        network = bench.trained(
            train, tuning_epochs, fold, network=copy.deepcopy(blind["simulated"][0]), lr=tuning_lr
        )
        bench.record("tuned", fold, network, test, time.perf_counter() - begin)
    result = {
        "accuracy": {
            name: round(float(np.mean([row["accuracy"] for row in rows])), 4)
            for name, rows in bench.results.items()
        },
        "tested": 160 * folds,
        "folds": bench.results,
        "digits": digits,
        "epochs": {"simulated, frozen, mixed": epochs, "real": real_epochs, "tuned": tuning_epochs},
        "tuning_lr": tuning_lr,
        "learning": {"batch_size": bench.learning.batch_size, "lr": bench.learning.lr},
        "encoder": dict(simulated.encoder),
        "environment": describe_environment(threads),
    }
    click.echo(json.dumps({name: result[name] for name in ("accuracy", "tested")}, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
