"""``evsnn evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evsnn_cli.console import counted, json_option, print_json, progress, threads_option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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
@threads_option
@json_option
def evaluate(model: Path, data: Path | None, split: str, threads: int | None, as_json: bool) -> None:
    """Classify DATA with MODEL, a model.h5 or its run folder.

    Prints accuracy, confusion matrix, events and synaptic operations a sample. Without DATA, the data set
    that the model's run folder names, else the MNIST subset of the package.
    """
    from evsnn import checkpoint
    from evsnn.errors import DataError
    from evsnn.training.config import RunConfig
    from evsnn.training.data import load_split
    from evsnn.training.evaluation import evaluate as classify
    from evsnn.training.run import CONFIG, MODEL

    path = model / MODEL if model.is_dir() else model
    network = checkpoint.load_model(path)
    beside = path.parent / CONFIG
    config = RunConfig.from_toml(beside) if data is None and beside.is_file() else RunConfig()
    where = str(data) if data is not None else config.data.path
    samples = load_split(where, split, config.encoder, config.seed, threads)
    if not len(samples):
        raise DataError(f"{where}: split {split!r} has no samples to classify")
    with progress(len(samples), "evaluating", "samples") as bar:
        result = classify(network, samples, threads=threads, report=bar.update)
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


def _table(confusion: npt.NDArray[np.int64]) -> str:
    size = max(len(str(int(confusion.max()))), len(str(len(confusion) - 1))) + 1
    head = "label \\ predicted" + "".join(f"{index:>{size}}" for index in range(len(confusion)))
    rows = [
        f"{index:>17}" + "".join(f"{int(count) or '.':>{size}}" for count in row)
        for index, row in enumerate(confusion)
    ]
    return "\n".join([head, *rows])
