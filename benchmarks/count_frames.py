"""Conventional networks on count frames of recordings: the folds and the distortion of ``evsnn train``.

A frame counts the events of every pixel and polarity over the whole recording. Torch is needed
(``pip install torch``); one thread, Adam, learning rate falling linearly to 0, cross-entropy.

    evsnn convert-nmnist benchmarks/data/nmnist-800.zip -o nmnist.h5
    python benchmarks/count_frames.py nmnist.h5 --json benchmarks/results/count_frames.json
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from evsnn import open_events
from evsnn.backends import CpuBackend
from evsnn.datasets.division import deal
from evsnn.environment import describe_environment
from evsnn.events.augment import EventAugmenter, EventAugmentSettings
from evsnn.network import parse_architecture
from evsnn.training.presets import suited


def frames(queue, shape):
    """Counts of every unit, log(1 + n), shape (n_samples, C, H, W)."""
    counts = np.empty((len(queue), *shape), np.float32)
    for s in range(len(queue)):
        counts[s] = np.bincount(queue.sample(s)[1], minlength=np.prod(shape)).reshape(shape)
    return torch.from_numpy(np.log1p(counts))


def mlp(shape, classes):
    """C x H x W - 800 - classes."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(int(np.prod(shape)), 800), nn.ReLU(), nn.Linear(800, classes)
    )


def cnn(shape, classes):
    """12C5-P2-64C5-P2-classes, the shape of the spiking network."""
    side = ((shape[1] - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(shape[0], 12, 5),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(12, 64, 5),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * side * side, classes),
    )


def accuracy_of_fold(make, data, train, test, settings, epochs, lr, batch, seed):
    """Errors on the held-out samples after the last epoch."""
    torch.manual_seed(seed)
    net = make(data.shape, data.classes)
    labels = torch.from_numpy(data.labels.astype(np.int64))
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=lr)
    steps = epochs * -(-len(train) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    with CpuBackend(1) as backend:
        none = EventAugmentSettings.none()
        still = frames(
            EventAugmenter(data, none, seed, backend).draw(np.arange(len(data))).fetch(backend), data.shape
        )
        augmenter = EventAugmenter(data, settings, seed, backend)
        for epoch in range(epochs):
            order = rng.permutation(train)
            drawn = (
                frames(augmenter.draw(order, epoch).fetch(backend), data.shape)
                if settings.enabled
                else still[order]
            )
            for low in range(0, len(order), batch):
                optimiser.zero_grad()
                target = labels[order[low : low + batch]]
                loss = nn.functional.cross_entropy(net(drawn[low : low + batch]), target)
                loss.backward()
                optimiser.step()
                schedule.step()
    with torch.no_grad():
        return int((net(still[test]).argmax(dim=1) != labels[test]).sum())


@click.command()
@click.argument("path", type=click.Path(exists=True))
@click.option("--folds", default=5, show_default=True)
@click.option("--epochs", default=60, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--batch", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(path, folds, epochs, lr, batch, seed, out):
    """Cross-validate and print."""
    torch.set_num_threads(1)
    with open_events(path) as file:
        data = file["train"].load()
    fold = deal(data.labels, folds)
    rows = []
    for name, make, arch in (("MLP", mlp, "1-1"), ("CNN", cnn, "34x34x2-12C5-10")):
        # A frame is of the whole recording, in training as in the test.
        distorted = replace(suited(parse_architecture(arch), recordings=True).augment_events, window_ms=0.0)
        for kind, settings in (("plain", EventAugmentSettings.none()), ("distorted", distorted)):
            begin = time.perf_counter()
            wrong = [
                accuracy_of_fold(
                    make,
                    data,
                    np.flatnonzero(fold != k),
                    np.flatnonzero(fold == k),
                    settings,
                    epochs,
                    lr,
                    batch,
                    seed,
                )
                for k in range(folds)
            ]
            sizes = np.bincount(fold)
            accuracies = [1 - w / n for w, n in zip(wrong, sizes, strict=True)]
            row = {
                "network": name,
                "recordings": kind,
                "accuracies": [round(value, 5) for value in accuracies],
                "mean": round(statistics.mean(accuracies), 5),
                "standard_deviation": round(statistics.stdev(accuracies), 5),
                "errors": sum(wrong),
                "samples": len(data),
                "seconds": round(time.perf_counter() - begin, 1),
            }
            rows.append(row)
            click.echo(
                f"{name} {kind}: mean {100 * row['mean']:.2f} %, standard deviation "
                f"{100 * row['standard_deviation']:.2f}, {row['errors']} of {len(data)} wrong"
            )
    result = {
        "rows": rows,
        "settings": {"folds": folds, "epochs": epochs, "lr": lr, "batch": batch, "seed": seed},
        "torch": torch.__version__,
        "environment": describe_environment(1),
    }
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
