"""Accuracy against operations of the folds that ``evsnn train --folds`` left, early answer included.

    evsnn convert-nmnist benchmarks/data/nmnist-800.zip -o nmnist.h5
    evsnn train nmnist.h5 --arch 34x34x2-200-10 --folds 5 --out runs/n200
    python benchmarks/fold_operations.py runs/n200 --conventional benchmarks/results/count_frames.json \
        --network 34x34x2-12C5-P2-64C5-P2-10 --json benchmarks/results/operations_nmnist_200.json

Margins are never chosen on the samples they are judged on: the margin of a fold is the smallest that is safe
on all other folds, which their own networks did not learn. "Safe" means as accurate as reading all, or as
accurate as the conventional network there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from evsnn import Network, load_model
from evsnn.backends import CpuBackend
from evsnn.environment import describe_environment
from evsnn.operations import count_operations
from evsnn.training.config import RunConfig
from evsnn.training.data import fold_data, load_training
from evsnn.training.early_answer import MARGINS, early_answers
from evsnn.training.run import CONFIG, MODEL


def on_grid(data, step_us):
    """Recordings with their times rounded down: events of one time share a decay and a threshold test."""
    times = (data.times // step_us * step_us).astype(np.uint32)
    order = np.lexsort((data.units, times, np.repeat(np.arange(len(data)), np.diff(data.offsets))))
    return replace(data, times=times[order], units=data.units[order])


def first_safe(correct, needed):
    """First margin from which on at least ``needed`` samples are right; the last one if none is."""
    below = np.flatnonzero(correct < needed)
    return min(int(below[-1]) + 1 if below.size else 0, len(correct) - 1)


def judged(curves, needed_elsewhere):
    """Accuracy and operations when each fold's margin is chosen on the others."""
    correct = operations = events = time = samples = 0.0
    margins = []
    for fold, curve in enumerate(curves):
        others = [other for number, other in enumerate(curves) if number != fold]
        point = first_safe(sum(other.correct for other in others), needed_elsewhere(fold, others))
        margins.append(float(curve.at[point]))
        correct += int(curve.correct[point])
        operations += float(curve.synaptic_operations[point]) * curve.samples
        events += float(curve.input_events[point]) * curve.samples
        time += float(curve.time_us[point]) * curve.samples
        samples += curve.samples
    return {
        "margins": [str(margin) if margin == np.inf else margin for margin in margins],
        "accuracy": round(correct / samples, 5),
        "errors": int(samples - correct),
        "input_events": round(events / samples, 1),
        "time_ms": round(time / samples / 1000, 1),
        "synaptic_operations": round(operations / samples, 1),
    }


def pooled(curves):
    """Curve over all folds; curves by margin only, which have the same points."""
    n = sum(curve.samples for curve in curves)
    return {
        "margin": [str(value) if value == np.inf else value for value in curves[0].at.tolist()],
        "accuracy": [round(value, 5) for value in (sum(c.correct for c in curves) / n).tolist()],
        "synaptic_operations": [
            round(value, 1) for value in (sum(c.synaptic_operations * c.samples for c in curves) / n).tolist()
        ],
    }


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--conventional", type=click.Path(exists=True, path_type=Path))
@click.option("--network", default="34x34x2-12C5-P2-64C5-P2-10", show_default=True)
@click.option("--grid-us", default=1, show_default=True, help="Round times down to multiples of this.")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(folder, conventional, network, grid_us, out):
    """Judge every fold and print."""
    config = RunConfig.from_toml(folder / CONFIG)
    curves, counts = [], []
    with CpuBackend(1) as backend:
        data = load_training(config, backend)
        for fold in range(1, config.data.folds + 1):
            part = on_grid(fold_data(data, config.data.folds, fold).test, grid_us)
            net = load_model(folder / f"fold-{fold}" / MODEL)
            curves.append(early_answers(net, part, MARGINS, threads=1))
            counts.append(count_operations(net, part, threads=1))
    n = sum(curve.samples for curve in curves)
    result = {
        "architecture": net.architecture.text,
        "samples": n,
        "sparsity": config.learning.sparsity,
        "dense_macs": net.dense_macs,
        "grid_us": grid_us,
        "read_all": {
            "accuracy": round(sum(count.correct for count in counts) / n, 5),
            "errors": n - sum(count.correct for count in counts),
        }
        | {
            name: round(sum(count.rows()[-1][name] * count.samples for count in counts) / n, 1)
            for name in ("input_events", "synaptic_operations", "membrane_updates", "spikes")
        },
        "early_answer": judged(curves, lambda fold, others: sum(int(c.correct[-1]) for c in others)),
        "over_margins": pooled(curves),
    }
    if conventional is not None:
        rows = json.loads(conventional.read_text())["rows"]
        macs = Network.from_architecture(network).dense_macs
        rival = next(row for row in rows if row["network"] == network and row["recordings"] == "distorted")

        def needed(fold, others):
            shares = [share for number, share in enumerate(rival["accuracies"]) if number != fold]
            sizes = [other.samples for other in others]
            return sum(round(share * size) for share, size in zip(shares, sizes, strict=True))

        effective = rival.get("effective_macs")  # not in files of earlier versions
        result["conventional"] = {
            "network": network,
            "accuracy": rival["mean"],
            "errors": rival["errors"],
            "macs": macs,
            "effective_macs": effective,
        }
        result["equal_accuracy"] = None  # unless all folds together get there
        if sum(int(curve.correct[-1]) for curve in curves) >= n - rival["errors"]:
            equal = judged(curves, needed)
            spent = equal["synaptic_operations"]
            result["equal_accuracy"] = equal | {
                "ratio": round(macs / spent, 2),
                "effective_ratio": None if effective is None else round(effective / spent, 2),
            }
    for name in ("read_all", "early_answer", "conventional", "equal_accuracy"):
        click.echo(f"{name}: {result.get(name)}")
    if out is not None:
        out.write_text(json.dumps(result | {"environment": describe_environment(1)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
