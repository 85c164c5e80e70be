"""``evsnn bench``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from evsnn_cli.bench_ops import ops_options, run_ops
from evsnn_cli.bench_speed import run_speed, speed_options
from evsnn_cli.console import json_option, threads_option

_MEASURES: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "--ops": (ops_options, run_ops),
    "--speed": (speed_options, run_speed),
}


def _own(options: Any) -> dict[str, click.Option]:  # noqa: ANN401 - a decorator
    """Options that only one of the measures has, by the name of their value."""
    parameters = click.command(options(lambda: None)).params
    return {str(option.name): option for option in parameters if isinstance(option, click.Option)}


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--ops/--no-ops", default=False, show_default=True, help="Count operations.")
@click.option("--speed/--no-speed", default=False, show_default=True, help="Measure speed on this machine.")
@ops_options
@speed_options
@threads_option
@json_option
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - one of each option's type
    """Measure MODEL, a model.h5 or its run folder.

    --ops prints what a sample costs, layer by layer: synaptic operations, membrane updates, threshold
    comparisons, spikes, bytes of weights, backward operations, beside the dense network of the same shape;
    NeuroBench's metrics; and accuracy and operations of an early answer. docs/operations.md defines each.
    Without MODEL, it takes the latest run under runs/; if there is none, a network is trained on the MNIST
    subset of the package first. Without DATA, the data set that the run folder names, else that subset.

    --speed prints events, synaptic operations and samples a second of every layer, forward, backward and
    update, beside what this machine can do at all, and the highest rate of a live sensor that it keeps up
    with. Without MODEL, it trains a dense and a convolutional network on that subset, and measures them and
    their training.
    """
    chosen = [name for name in _MEASURES if options.pop(name[2:])]
    if len(chosen) != 1:
        raise click.UsageError("Say what to measure, --ops or --speed.")
    for name, (own, _) in _MEASURES.items():
        for value, option in _own(own).items():
            if name != chosen[0]:
                del options[value]
                if context.get_parameter_source(value) is ParameterSource.COMMANDLINE:
                    raise click.UsageError(f"{option.opts[0]} belongs to {name}.")
    _MEASURES[chosen[0]][1](**options)
