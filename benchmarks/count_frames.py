"""Conventional networks on count frames of recordings: the folds and the distortion of ``evsnn train``.

A frame counts the events of every pixel and polarity over the whole recording. Torch is needed
(``pip install 'evsnn[torch]'``); one thread, Adam, learning rate falling linearly to 0, cross-entropy.

    evsnn convert-nmnist benchmarks/data/nmnist-800.zip -o nmnist.h5
    python benchmarks/count_frames.py nmnist.h5 --json benchmarks/results/count_frames.json
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import click
import torch

from evsnn import open_events
from evsnn.backends import CpuBackend
from evsnn.environment import describe_environment
from evsnn.training.config import DataSettings, RunConfig
from evsnn.training.conventional import (
    ConventionalNetwork,
    ConventionalSettings,
    frame_source,
    train_conventional,
)
from evsnn.training.data import RunData, fold_data
from evsnn.training.presets import preset

#: A conventional network is as good as its shape: the second and the last are smaller ones to compare with.
ARCHITECTURES = (
    "34x34x2-800-10",
    "34x34x2-200-10",
    "34x34x2-12C5-P2-64C5-P2-10",
    "34x34x2-6C5-P2-16C5-P2-10",
)


def fold_result(arch, whole, folds, fold, augment, settings):
    """Result on the held-out samples after the last epoch."""
    data = fold_data(whole, folds, fold)
    config = preset("default", arch, recordings=True)
    config = RunConfig.from_dict({"data": asdict(DataSettings(augment=augment))}, config)
    network = ConventionalNetwork.from_architecture(arch, settings.seed)
    with CpuBackend(1) as backend:
        train_conventional(network, frame_source(config, data, backend), settings)
    return network.evaluate(data.test)


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.option("--arch", "architectures", multiple=True, default=ARCHITECTURES, show_default=True)
@click.option("--distorted", type=click.Choice(["both", "yes", "no"]), default="both", show_default=True)
@click.option("--folds", default=5, show_default=True)
@click.option("--epochs", default=40, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--batch", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(path, architectures, distorted, folds, epochs, lr, batch, seed, out):
    """Cross-validate and print."""
    torch.set_num_threads(1)
    with open_events(path) as file:
        whole = RunData(Path(path).name, file["train"].load(), None, None)
    settings = ConventionalSettings(epochs, batch, lr, seed)
    rows = []
    for arch in architectures:
        for augment in {"both": (False, True), "yes": (True,), "no": (False,)}[distorted]:
            begin = time.perf_counter()
            results = [
                fold_result(arch, whole, folds, fold, augment, settings) for fold in range(1, folds + 1)
            ]
            accuracies = [result.accuracy for result in results]
            n = len(whole.train)
            row = {
                "network": arch,
                "recordings": "distorted" if augment else "plain",
                "accuracies": [round(value, 5) for value in accuracies],
                "mean": round(statistics.mean(accuracies), 5),
                "standard_deviation": round(statistics.stdev(accuracies), 5),
                "errors": sum(result.samples - result.correct for result in results),
                "samples": n,
                "macs": results[0].macs,
                "effective_macs": round(sum(r.effective_macs * r.samples for r in results) / n, 1),
                "seconds": round(time.perf_counter() - begin, 1),
            }
            rows.append(row)
            click.echo(
                f"{arch} {row['recordings']}: mean {100 * row['mean']:.2f} %, standard deviation "
                f"{100 * row['standard_deviation']:.2f}, {row['errors']} of {n} wrong, {row['macs']} MACs, "
                f"{row['effective_macs']} of inputs other than 0"
            )
    result = {
        "rows": rows,
        "settings": {"folds": folds} | asdict(settings),
        "torch": torch.__version__,
        "environment": describe_environment(1),
    }
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
