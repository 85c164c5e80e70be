"""``evsnn send``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from evsnn_cli.console import microseconds


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", required=False, default="-")
@click.option(
    "--speed",
    type=click.FloatRange(0.0),
    default=1.0,
    show_default=True,
    help="Speed of the sensor: 1 is real time, 10 ten times faster; 0: as fast as it is taken.",
)
@click.option(
    "--packet-ms", type=float, default=1.0, show_default=True, help="Sensor time that a packet covers."
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="test",
    show_default=True,
    help="Part of an event file.",
)
@click.option(
    "--sample", type=click.IntRange(0), default=0, show_default=True, help="First sample of an event file."
)
@click.option(
    "--count", type=click.IntRange(1), default=1, show_default=True, help="Samples, one after the other."
)
@click.option(
    "--gap-ms", type=float, default=0.0, show_default=True, help="Pause between two samples, in sensor time."
)
def send(
    source: Path,
    target: str,
    speed: float,
    packet_ms: float,
    split: str,
    sample: int,
    count: int,
    gap_ms: float,
) -> None:
    """Send the events of SOURCE to TARGET as a live sensor would.

    SOURCE is an event file, or the recording of an event camera (.raw, .aedat4, .es, .dat; with pip install
    'evsnn[dvs]'). TARGET is - for stdout, or an address of `evsnn stream --listen`: tcp://127.0.0.1:PORT or
    udp://127.0.0.1:PORT.
    """
    from evsnn.streams.send import recorded_events
    from evsnn.streams.send import send as deliver

    packet_us, gap_us = microseconds("--packet-ms", packet_ms), microseconds("--gap-ms", gap_ms, 0)
    shape, parts = recorded_events(source, split=split, sample=sample, count=count, gap_us=gap_us)
    report = asdict(deliver(parts, shape, target, speed=speed, packet_us=packet_us))
    click.echo(
        "sent {events} events in {packets} packets, {sensor_seconds:.3f} s of the sensor in "
        "{wall_seconds:.3f} s".format(**report),
        err=True,
    )
