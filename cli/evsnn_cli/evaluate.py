"""``evsnn evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evsnn_cli.console import (
    backend_option,
    chosen_backend,
    counted,
    device_option,
    half_weights_option,
    json_option,
    print_json,
    progress,
    threads_option,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from evsnn.events.core import EventSet
    from evsnn.network.network import Network


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="test",
    show_default=True,
    help="Part of DATA to classify.",
)
@click.option(
    "--over-time/--no-over-time",
    default=False,
    show_default=True,
    help="Also answer while the recordings run: write over-time.csv and over-time.png.",
)
@click.option(
    "--step-ms",
    type=float,
    default=None,
    show_default="1, 2 or 5 times a power of 10, at most 100 steps",
    help="Step of --over-time in milliseconds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    show_default="beside MODEL",
    help="Folder for the files of --over-time.",
)
@half_weights_option
@backend_option
@device_option
@threads_option
@json_option
def evaluate(
    model: Path,
    data: Path | None,
    split: str,
    over_time: bool,
    step_ms: float | None,
    out: Path | None,
    half_weights: bool,
    backend: str,
    device: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Classify DATA with MODEL, a model.h5 or its run folder.

    Prints accuracy, confusion matrix, events and synaptic operations a sample. Without DATA, the data set
    that the model's run folder names, else the MNIST subset of the package. With --over-time, also the
    accuracy as a function of time and of the number of input events since the start, computed on the CPU.
    """
    from evsnn import checkpoint
    from evsnn.errors import DataError
    from evsnn.training.config import RunConfig
    from evsnn.training.data import load_split
    from evsnn.training.evaluation import evaluate as classify
    from evsnn.training.run import CONFIG, MODEL

    if not over_time and (step_ms is not None or out is not None):
        raise click.UsageError("--step-ms and --out belong to --over-time")
    step_us = None if step_ms is None else _microseconds(step_ms)
    path = model / MODEL if model.is_dir() else model
    network = checkpoint.load_model(path)
    network.use_half_weights(half_weights)
    beside = path.parent / CONFIG
    config = RunConfig.from_toml(beside) if data is None and beside.is_file() else RunConfig()
    where = str(data) if data is not None else config.data.path
    opened, place = chosen_backend(backend, threads, device)
    with opened:
        samples = load_split(where, split, config.encoder, config.seed, opened.host)
        if not len(samples):
            raise DataError(f"{where}: split {split!r} has no samples to classify")
        click.echo(place, err=True)
        with progress(len(samples), "evaluating", "samples") as bar:
            result = classify(network, samples, backend=opened, report=bar.update)
    means = result.totals.means()
    summary: dict[str, Any] = {
        "accuracy": result.accuracy,
        "samples": len(samples),
        "split": split,
        "events_per_sample": means["events_per_sample"],
        "synaptic_operations_per_sample": sum(means["synaptic_operations_per_sample"]),
        "dense_macs_per_sample": network.dense_macs,
        "active_share": means["active_share"],
        "silent_samples": means["silent_samples"],
        "confusion": result.confusion.tolist(),
    }
    curves = None
    if over_time:
        curves = _over_time(network, samples, step_us, split, out or path.parent, threads)
        summary["over_time"] = curves
    if as_json:
        print_json(summary)
        return
    click.echo(f"accuracy {100 * result.accuracy:.2f} % of {len(samples)} samples ({split})")
    click.echo("events a sample " + " > ".join(counted(count) for count in summary["events_per_sample"]))
    click.echo(
        f"{counted(summary['synaptic_operations_per_sample'])} synaptic operations a sample "
        f"(dense network: {counted(network.dense_macs)} multiply-accumulates)"
    )
    click.echo(_table(result.confusion))
    if curves is not None:
        point = curves["settled"]["time"]
        click.echo(
            f"within 1 point of it from {point['time_ms']:g} ms on: {counted(point['input_events'])} input "
            f"events and {counted(point['synaptic_operations'])} synaptic operations a sample"
        )
        click.echo(f"over time: {curves['csv']}, {curves['picture']}")


def _microseconds(step_ms: float) -> int:
    from evsnn.errors import SettingsError

    if not (math.isfinite(step_ms) and step_ms > 0):
        raise SettingsError(f"--step-ms must be above 0, got {step_ms:g}")
    return round(step_ms * 1000)


def _over_time(
    network: Network, samples: EventSet, step_us: int | None, split: str, folder: Path, threads: int | None
) -> dict[str, Any]:
    """Write the files of --over-time; return what --json holds about them."""
    from evsnn.files import make_folder, write_atomically
    from evsnn.plots import draw_answers, render
    from evsnn.training.over_time import over_time, to_csv

    with progress(len(samples), "over time", "samples") as bar:
        curves = over_time(network, samples, step_us=step_us, threads=threads, report=bar.update)
    settled = [curve.settled for curve in curves]
    columns = [curve.columns() for curve in curves]
    title = f"{network.architecture.text}, {len(samples)} samples ({split})"
    picture = render(draw_answers(columns[0], columns[1], (settled[0], settled[1]), title))
    make_folder(folder)
    write_atomically(folder / "over-time.csv", to_csv(*curves).encode())
    write_atomically(folder / "over-time.png", picture)
    result: dict[str, Any] = {"csv": str(folder / "over-time.csv"), "picture": str(folder / "over-time.png")}
    result["settled"] = {}
    for curve, table, point in zip(curves, columns, settled, strict=True):
        del table["by"]
        result[curve.by] = table
        result["settled"][curve.by] = {name: values[point] for name, values in table.items()}
    return result


def _table(confusion: npt.NDArray[np.int64]) -> str:
    size = max(len(str(int(confusion.max()))), len(str(len(confusion) - 1))) + 1
    head = "label \\ predicted" + "".join(f"{index:>{size}}" for index in range(len(confusion)))
    rows = [
        f"{index:>17}" + "".join(f"{int(count) or '.':>{size}}" for count in row)
        for index, row in enumerate(confusion)
    ]
    return "\n".join([head, *rows])
