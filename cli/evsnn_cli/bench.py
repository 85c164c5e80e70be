"""``evsnn bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evsnn_cli.console import json_option, threads_option


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--ops/--no-ops", default=False, show_default=True, help="Count operations and answer early; see below."
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="test",
    show_default=True,
    help="Part of DATA to count on.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=None, show_default="all", help="Use only its first N samples."
)
@click.option(
    "--grid-ms",
    type=float,
    default=1.0,
    show_default=True,
    help="Step of the time grid for NeuroBench's metrics, in milliseconds.",
)
@click.option(
    "--margin",
    default="auto",
    show_default=True,
    help="Lead in spikes at which the answer is given; auto chooses it on validation samples.",
)
@click.option(
    "--margin-loss",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of validation samples that an automatic margin may lose.",
)
@click.option(
    "--energy",
    default=None,
    show_default="no energy",
    help="Table of pJ an operation: horowitz-45nm, or a TOML file.",
)
@click.option(
    "--baseline",
    type=click.Choice(["cnn"]),
    default=None,
    show_default="none",
    help="Compare with a conventional network on frames of event counts (needs torch).",
)
@click.option(
    "--baseline-arch", default=None, show_default="that of MODEL", help="Architecture of the baseline."
)
@click.option(
    "--baseline-epochs",
    type=click.IntRange(1),
    default=None,
    show_default="10 on images, 40 on recordings",
    help="Passes over the training samples for the baseline.",
)
@click.option(
    "--baseline-model",
    type=click.Path(path_type=Path),
    default=None,
    show_default="trained anew, not kept",
    help="Load the baseline from this file; if it is not there, train it and write it.",
)
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(path_type=Path),
    default=None,
    show_default="not written",
    help="File for the table of counts.",
)
@click.option(
    "--png",
    "png_path",
    type=click.Path(path_type=Path),
    default=None,
    show_default="not drawn",
    help="File for the picture of accuracy against operations.",
)
@threads_option
@json_option
def bench(ops: bool, **options: Any) -> None:  # noqa: ANN401 - one of each option's type
    """Measure MODEL, a model.h5 or its run folder.

    --ops prints what a sample costs, layer by layer: synaptic operations, membrane updates, threshold
    comparisons, spikes, bytes of weights, backward operations, beside the dense network of the same shape;
    NeuroBench's metrics; and accuracy and operations of an early answer. docs/operations.md defines each.

    Without MODEL, the latest run under runs/; if there is none, a network is trained on the MNIST subset of
    the package first. Without DATA, the data set that the model's run folder names, else that subset.
    """
    if not ops:
        raise click.UsageError("say what to measure: --ops")
    from evsnn_cli.bench_ops import run_ops

    run_ops(**options)
