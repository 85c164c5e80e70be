"""``evsnn bench``."""

from __future__ import annotations

from pathlib import Path

import click

from evsnn_cli.bench_speed import speed_options
from evsnn_cli.console import json_option, threads_option


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--speed/--no-speed", default=False, show_default=True, help="Measure how fast this machine is."
)
@speed_options
@threads_option
@json_option
def bench(
    model: Path | None,
    data: Path | None,
    speed: bool,
    repeats: int,
    samples: int,
    packet_ms: float,
    live: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure a network: how fast it is (--speed)."""
    from evsnn_cli.bench_speed import bench_speed

    if not speed:
        raise click.UsageError("Say what to measure: --speed.")
    bench_speed(
        model,
        data,
        repeats=repeats,
        samples=samples,
        packet_ms=packet_ms,
        live=live,
        threads=threads,
        as_json=as_json,
    )
