"""``evsnn stream``."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evsnn_cli.console import counted, half_weights_option, microseconds

if TYPE_CHECKING:
    from evsnn.streams import Decision, LiveReport


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", required=False, type=click.Path(allow_dash=True), default="-")
@click.option(
    "--listen",
    default=None,
    show_default="read SOURCE",
    help="Listen at tcp://127.0.0.1:PORT or udp://127.0.0.1:PORT instead; port 0 takes a free one.",
)
@click.option(
    "--window-ms",
    type=float,
    default=100.0,
    show_default=True,
    help="Sensor time in which output spikes count; 0: since the start.",
)
@click.option(
    "--step-ms", type=float, default=20.0, show_default=True, help="Sensor time between two decisions."
)
@click.option(
    "--reorder-us",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Hold events so many microseconds, for others that come late.",
)
@click.option(
    "--late",
    type=click.Choice(["drop", "refuse"]),
    default="drop",
    show_default=True,
    help="What becomes of events that come later still: dropped and counted, or the end.",
)
@click.option(
    "--report-s",
    type=click.FloatRange(0.1),
    default=None,
    show_default="at the end, and on SIGUSR1",
    help="Also print counters and latencies every so many seconds, on stderr.",
)
@half_weights_option
@click.option(
    "--json/--no-json",
    "as_json",
    default=False,
    show_default=True,
    help="Print every decision as a JSON object on a line of its own, and so the counters on stderr.",
)
def stream(
    model: Path,
    source: str,
    listen: str | None,
    window_ms: float,
    step_ms: float,
    reorder_us: int,
    late: str,
    report_s: float | None,
    half_weights: bool,
    as_json: bool,
) -> None:
    """Answer with MODEL, a model.h5 or its run folder, while events come.

    SOURCE is stdin (-), a stored stream, or the recording of an event camera (.raw, .aedat4, .es, .dat; with
    pip install 'evsnn[dvs]'). `evsnn send` makes a stream of recorded events; docs/streams.md has the format.
    Prints a decision every --step-ms of the sensor's time in which events came, from the output spikes of the
    last --window-ms. Counters and latencies go to stderr.
    """
    from evsnn.checkpoint import load_model
    from evsnn.events.reorder import OrderSettings
    from evsnn.streams import LiveSession, open_source
    from evsnn.training.run import MODEL

    if listen is not None and source != "-":
        raise click.UsageError("give SOURCE or --listen, not both")
    times = {
        "window_us": microseconds("--window-ms", window_ms, 0),
        "step_us": microseconds("--step-ms", step_ms),
    }
    network = load_model(model / MODEL if model.is_dir() else model)
    network.use_half_weights(half_weights)
    opened = open_source(
        source if listen is None else listen,
        listen=listen is not None,
        tell=lambda address: click.echo(f"listening at {address}", err=True),
    )
    with opened:
        session = LiveSession(network, opened, order=OrderSettings(reorder_us, late), **times)

        def report() -> None:
            click.echo(_report(session.report(), as_json), err=True)

        try:
            with _on_signals(report, report_s):
                for decision in session.decisions():
                    click.echo(_line(decision, as_json))
        finally:
            report()


@contextmanager
def _on_signals(report: Callable[[], None], every: float | None) -> Iterator[None]:
    """Report on SIGUSR1, and every so many seconds; end in order on SIGTERM and SIGHUP."""

    def asked(_number: int, _frame: object) -> None:
        report()

    before = {}
    for name, action in (("SIGUSR1", asked), ("SIGALRM", asked), ("SIGTERM", _end), ("SIGHUP", _end)):
        number = getattr(signal, name, None)  # Windows has few of them
        # A hangup is ignored where nohup started the program.
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):
            before[number] = signal.signal(number, action)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, every or 0.0, every or 0.0)
    try:
        yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> None:
    raise click.exceptions.Exit(128 + number)


def _line(decision: Decision, as_json: bool) -> str:
    if as_json:
        return json.dumps(
            {
                "time_us": decision.time_us,
                "class": decision.label,
                "spikes": decision.spikes,
                "total": decision.total,
            }
        )
    return (
        f"{decision.time_us / 1e6:.6f} s  class {decision.label}  "
        f"{decision.spikes} of {decision.total} spikes"
    )


def _report(report: LiveReport, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(report))
    events, latency = report.events, report.latency_ms
    return (
        f"{events.received} events ({counted(events.received / max(report.wall_seconds, 1e-9))}/s), "
        f"{report.sensor_seconds:.3f} s of the sensor in {report.wall_seconds:.3f} s: "
        f"{events.acted} acted, {events.held} held, {events.late} late, {events.reordered} out of order, "
        f"{events.duplicates} double; {report.lost} lost, {report.repeated} repeated, "
        f"{report.foreign} foreign datagrams\n"
        f"{report.decisions} decisions, {events.spikes} output spikes; latency of {report.reads} reads "
        f"p50 {latency['p50']:.3g}, p95 {latency['p95']:.3g}, p99 {latency['p99']:.3g}, "
        f"max {latency['max']:.3g} ms"
    )
