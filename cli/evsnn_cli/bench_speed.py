"""``evsnn bench --speed``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evsnn_cli.console import counted, print_json, progress

if TYPE_CHECKING:
    from evsnn.events.core import EventSet
    from evsnn.network.network import Network

F = TypeVar("F", bound=Callable[..., Any])

#: Measured where no MODEL is named; and, on a live sensor, always.
ARCHITECTURES = ("28x28-800-10", "28x28-20C5-P2-50C5-P2-200-10")
LIVE = ("34x34x2-800-10", "480x640x2-8C5-P4")

_OPTIONS = (
    click.option(
        "--repeats",
        type=click.IntRange(1),
        default=7,
        show_default=True,
        help="Turns of --speed; medians are reported.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(1),
        default=100,
        show_default=True,
        help="Samples of the batch that --speed measures layers on.",
    ),
    click.option(
        "--packet-ms",
        type=click.FloatRange(0.01, 1000.0),
        default=1.0,
        show_default=True,
        help="Length of the packets of the live sensor of --speed.",
    ),
    click.option(
        "--live/--no-live",
        default=True,
        show_default=True,
        help="With --speed, search for the rates of a live sensor that networks keep up with.",
    ),
)


def speed_options(command: F) -> F:
    """Give a command the options of :func:`run_speed`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_speed(
    model: Path | None,
    data: Path | None,
    *,
    repeats: int,
    samples: int,
    packet_ms: float,
    live: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure layers and, without MODEL, training; then what networks sustain on a live sensor."""
    from evsnn.backends import CpuBackend, available_threads
    from evsnn.backends.system import find_cuda
    from evsnn.environment import describe_environment
    from evsnn.learning import LearningSettings
    from evsnn.speed import arithmetic_speedup, measure_layers, memory_bandwidth

    most = threads or available_threads()
    counts = list(range(1, most + 1))
    cuda = find_cuda().problem_with(0)
    result: dict[str, Any] = {
        "backend": "cpu",
        "cuda": "not measured: only the CPU is" if cuda is None else f"not measured: {cuda}",
        "bytes_per_second": {},
        "arithmetic_speedup": arithmetic_speedup(most) if most > 1 else 1.0,
        "training": [],
        "networks": [],
        "live": [],
        "environment": describe_environment(most),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    for n in counts:
        with CpuBackend(n) as backend:
            result["bytes_per_second"][str(n)] = memory_bandwidth(backend)
    for network, part, learning, training in _subjects(model, data, samples, counts, repeats):
        result["training"] += training
        with progress(repeats, network.architecture.text, "turns") as bar:
            layers = measure_layers(
                network,
                part,
                learning or LearningSettings(),
                threads=counts,
                repeats=repeats,
                report=bar.update,
            )
        result["networks"].append(
            {
                "architecture": network.architecture.text,
                "layers": [layer.to_dict() for layer in layers],
            }
        )
    if live:
        result["live"] = _live(round(1000 * packet_ms))
    if as_json:
        print_json(result)
        return
    _print(result)


def _subjects(
    model: Path | None, data: Path | None, samples: int, counts: list[int], repeats: int
) -> list[tuple[Network, EventSet, Any, list[dict[str, Any]]]]:
    """Networks that have learned, a batch for each, how they learn, and how fast they did."""
    from evsnn import open_events
    from evsnn.backends import CpuBackend
    from evsnn.checkpoint import load_model
    from evsnn.encoders import EncoderSettings
    from evsnn.speed import measure_training
    from evsnn.training.data import load_split
    from evsnn.training.presets import preset

    if model is not None and data is not None:
        with open_events(data) as file:
            batch = file["test"].load(0, min(samples, len(file["test"])))
        return [(load_model(model / "model.h5" if model.is_dir() else model), batch, None, [])]
    with CpuBackend(1) as backend:
        digits = load_split("", "train", EncoderSettings(), 0, backend)
    if model is not None:
        batch = digits.part(0, min(samples, len(digits)))
        return [(load_model(model / "model.h5" if model.is_dir() else model), batch, None, [])]
    subjects = []
    for arch in ARCHITECTURES:
        config = preset("default", arch)
        # A convolution takes ten times as long and has as much to show for a part of the digits.
        part = digits if arch == ARCHITECTURES[0] else digits.part(0, min(1000, len(digits)))
        with progress(2 + repeats, f"training {arch}", "epochs") as bar:
            speeds, network = measure_training(
                config, part, threads=counts, repeats=repeats, report=bar.update
            )
        batch = digits.part(0, min(samples, len(digits)))
        subjects.append((network, batch, config.learning, [speed.to_dict() for speed in speeds]))
    return subjects


def _live(packet_us: int) -> list[dict[str, Any]]:
    from evsnn.network import Network
    from evsnn.speed import measure_live

    speeds = []
    for name in LIVE:
        front_end = name.endswith("P4")  # an architecture string ends in classes
        layers = Network.from_architecture(f"{name}-10" if front_end else name).layers
        click.echo(f"live sensor, {name}", err=True)
        speeds.append(measure_live(name, layers[:-1] if front_end else layers, packet_us=packet_us).to_dict())
    return speeds


def _print(result: dict[str, Any]) -> None:
    bandwidth = ", ".join(
        f"{float(value) / 1e9:.1f} GB/s with {n}" for n, value in result["bytes_per_second"].items()
    )
    click.echo(f"{result['environment']['cpu']}; CUDA {result['cuda']}")
    click.echo(
        f"memory bandwidth by threads: {bandwidth}; arithmetic {result['arithmetic_speedup']:.2f} times"
    )
    for training in result["training"]:
        parts = ", ".join(
            f"{name} {value:.1f}" for name, value in training["microseconds_per_sample"].items()
        )
        click.echo(
            f"training {training['architecture']}, {training['threads']} threads: "
            f"{training['samples_per_second']:.0f} samples/s, "
            f"{counted(training['events_per_second'])} events/s, "
            f"{counted(training['operations_per_second'])} SOP/s (us a sample: {parts})"
        )
    for network in result["networks"]:
        click.echo(f"\n{network['architecture']}")
        click.echo(
            f"{'layer':>6} {'threads':>7} | {'forward samples/s':>17} {'events/s':>9} {'SOP/s':>9} "
            f"{'of limit':>8} | {'backward samples/s':>18} {'ops/s':>9} | {'updates/s':>9} {'bandwidth':>9}"
        )
        for layer in network["layers"]:
            click.echo(_row(layer))
    for live in result["live"]:
        click.echo("\n" + _live_line(live))


def _row(layer: dict[str, Any]) -> str:
    forward, backward, update = layer["forward"], layer["backward"], layer["update"] or {}

    def text(value: float | None) -> str:
        return "" if value is None else counted(value)

    def percent(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    return (
        f"{layer['layer']:>6} {layer['threads']:>7} | {text(forward['samples_per_second']):>17} "
        f"{text(forward['events_per_second']):>9} {text(forward['operations_per_second']):>9} "
        f"{percent(forward['share_of_streaming']):>8} | {text(backward['samples_per_second']):>18} "
        f"{text(backward['operations_per_second']):>9} | {text(update.get('updates_per_second')):>9} "
        f"{percent(update.get('share_of_bandwidth')):>9}"
    )


def _live_line(live: dict[str, Any]) -> str:
    best = live["sustained"]
    head = f"live sensor, {live['name']}, packets of {live['packet_ms']:g} ms: "
    if best is None:
        first = live["trials"][0]
        return head + (
            f"does not keep up with {counted(first['events_per_second'])} events/s "
            f"(p99 latency {first['p99_ms']:.2f} ms)"
        )
    return head + (
        f"{counted(best['events_per_second'])} events/s; latency p50 {best['p50_ms']:.2f}, "
        f"p95 {best['p95_ms']:.2f}, p99 {best['p99_ms']:.2f}, worst {best['worst_ms']:.2f} ms"
    )
