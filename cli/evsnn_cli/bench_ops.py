"""``evsnn bench --ops``: what a sample costs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evsnn_cli.console import counted, print_json, progress

if TYPE_CHECKING:
    from evsnn.backends import CpuBackend
    from evsnn.events.core import EventSet
    from evsnn.network import Network
    from evsnn.operations import EnergyTable
    from evsnn.training.config import RunConfig
    from evsnn.training.conventional import ConventionalNetwork, ConventionalResult
    from evsnn.training.over_time import AnswerCurve

F = TypeVar("F", bound=Callable[..., Any])

#: Columns of the printed table: count, head.
_COLUMNS = (
    ("input_events", "events"),
    ("synaptic_operations", "SOPs"),
    ("membrane_updates", "updates"),
    ("threshold_comparisons", "compares"),
    ("spikes", "spikes"),
    ("inhibitions", "inhibits"),
    ("multiplications", "mults"),
    ("weight_bytes", "w bytes"),
    ("gradient_operations", "gradient"),
    ("error_operations", "error"),
    ("dense_macs", "dense MACs"),
)


@dataclass(frozen=True)
class _Subject:
    """What is measured: a network, and the splits and configuration of its run."""

    network: Network
    config: RunConfig
    path: Path
    name: str
    parts: dict[str, EventSet]

    def part(self, split: str) -> EventSet:
        """One of the splits that have samples."""
        from evsnn.errors import DataError

        if split not in self.parts:
            there = ", ".join(self.parts) or "none"
            raise DataError(f"{self.name}: there are no {split} samples; splits with samples: {there}")
        self.network.check_fits(self.parts[split], self.name)
        return self.parts[split]


_OPTIONS = (
    click.option(
        "--split",
        type=click.Choice(["train", "validation", "test"]),
        default="test",
        show_default=True,
        help="Part of DATA to count on.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(1),
        default=None,
        show_default="all",
        help="Use only its first N samples.",
    ),
    click.option(
        "--grid-ms",
        type=float,
        default=1.0,
        show_default=True,
        help="Step of the time grid for NeuroBench's metrics, in milliseconds.",
    ),
    click.option(
        "--margin",
        default="auto",
        show_default=True,
        help="Lead in spikes at which the answer is given; auto chooses it on validation samples.",
    ),
    click.option(
        "--margin-loss",
        type=click.FloatRange(0, 1),
        default=0.0,
        show_default=True,
        help="Share of validation samples that an automatic margin may lose.",
    ),
    click.option(
        "--energy",
        default=None,
        show_default="no energy",
        help="Table of pJ an operation: horowitz-45nm, or a TOML file.",
    ),
    click.option(
        "--baseline",
        type=click.Choice(["cnn"]),
        default=None,
        show_default="none",
        help="Compare with a conventional network on frames of event counts (needs torch).",
    ),
    click.option(
        "--baseline-arch", default=None, show_default="that of MODEL", help="Architecture of the baseline."
    ),
    click.option(
        "--baseline-epochs",
        type=click.IntRange(1),
        default=None,
        show_default="10 on images, 40 on recordings",
        help="Passes over the training samples for the baseline.",
    ),
    click.option(
        "--baseline-model",
        type=click.Path(path_type=Path),
        default=None,
        show_default="trained anew, not kept",
        help="Load the baseline from this file; if it is not there, train it and write it.",
    ),
    click.option(
        "--csv",
        "csv_path",
        type=click.Path(path_type=Path),
        default=None,
        show_default="not written",
        help="File for the table of counts.",
    ),
    click.option(
        "--png",
        "png_path",
        type=click.Path(path_type=Path),
        default=None,
        show_default="not drawn",
        help="File for the picture of accuracy against operations.",
    ),
)


def ops_options(command: F) -> F:
    """Give a command the options of :func:`run_ops`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run_ops(
    *,
    model: Path | None,
    data: Path | None,
    split: str,
    limit: int | None,
    grid_ms: float,
    margin: str,
    margin_loss: float,
    energy: str | None,
    baseline: str | None,
    baseline_arch: str | None,
    baseline_epochs: int | None,
    baseline_model: Path | None,
    csv_path: Path | None,
    png_path: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Count, compare, print."""
    from evsnn.backends import CpuBackend
    from evsnn.environment import describe_environment
    from evsnn.files import write_atomically
    from evsnn.operations import count_operations, energy_table, grid_metrics
    from evsnn.training.early_answer import MARGINS, early_answers
    from evsnn.training.over_time import over_time

    if baseline is None and any(
        option is not None for option in (baseline_arch, baseline_epochs, baseline_model)
    ):
        raise click.UsageError("--baseline-arch, --baseline-epochs and --baseline-model belong to --baseline")
    fixed = None if margin == "auto" else _margin(margin)
    step_us = _microseconds(grid_ms)
    table = None if energy is None else energy_table(energy)
    with CpuBackend(threads) as backend:
        subject = _subject(model, data, backend)
        network = subject.network
        samples = subject.part(split)
        samples = samples.part(0, min(limit or len(samples), len(samples)))
        n = len(samples)
        with progress(4 * n, "counting", "samples") as bar:
            counts = count_operations(network, samples, threads=threads, report=bar.update)
            grid = grid_metrics(network, samples, step_us=step_us, threads=threads, report=bar.update)
            _, by_events = over_time(network, samples, threads=threads, report=bar.update)
            margins = sorted({*MARGINS, *([] if fixed is None else [fixed])})
            by_margin = early_answers(network, samples, margins, threads=threads, report=bar.update)
        chosen, how = _chosen(subject, by_margin, fixed, margin_loss, threads)
        conventional = None
        if baseline is not None:
            conventional = _conventional(
                subject, samples, baseline_arch, baseline_epochs, baseline_model, backend
            )
        environment = describe_environment(backend.threads)
    rows = counts.rows()
    result: dict[str, Any] = {
        "model": str(subject.path),
        "architecture": network.architecture.text,
        "data": subject.config.data.path or "MNIST subset of the package",
        "split": split,
        "samples": n,
        "accuracy": counts.accuracy,
        "layers": rows,
        "neurobench": grid.to_dict(),
        "over_events": _points(by_events),
        "over_margins": _points(by_margin),
        "early_answer": None if chosen is None else _point(by_margin, chosen) | {"chosen": how},
        "energy": None if table is None else _energy(table, rows),
        "baseline": None if conventional is None else _comparison(conventional, [by_events, by_margin]),
        "environment": environment,
    }
    if csv_path is not None:
        write_atomically(csv_path, _csv(rows).encode())
    if png_path is not None:
        write_atomically(png_path, _picture(result))
    if as_json:
        print_json(result)
    else:
        _print(result, how)
        for path in (csv_path, png_path):
            if path is not None:
                click.echo(f"written: {path}")


# What is measured


def _subject(model: Path | None, data: Path | None, backend: CpuBackend) -> _Subject:
    from evsnn import checkpoint, open_events
    from evsnn.training.config import DataSettings, RunConfig
    from evsnn.training.data import load_data
    from evsnn.training.run import CONFIG, MODEL

    if model is None:
        model = _latest_run() or _trained(backend)
    path = model / MODEL if model.is_dir() else model
    network = checkpoint.load_model(path)
    beside = path.parent / CONFIG
    config = RunConfig.from_toml(beside) if beside.is_file() else RunConfig()
    if data is None:
        own = load_data(config, backend)
        splits = {"train": own.train, "validation": own.validation, "test": own.test}
        return _Subject(network, config, path, own.name, {k: v for k, v in splits.items() if v is not None})
    # Whether a part of another file was learned is not known: only its own validation samples are held out.
    config = replace(config, data=DataSettings(path=str(data)))
    with open_events(data) as file:
        parts = {split: file[split].load() for split in file.splits if len(file[split])}
    return _Subject(network, config, path, data.name, parts)


def _latest_run() -> Path | None:
    """Run folder under ``runs`` whose model was written last."""
    from evsnn.training.run import MODEL

    models = sorted(Path("runs").glob(f"*/{MODEL}"), key=lambda path: (path.stat().st_mtime_ns, path))
    if not models:
        return None
    click.echo(f"No MODEL given: measuring the latest run, {models[-1].parent}", err=True)
    return models[-1].parent


def _trained(backend: CpuBackend) -> Path:
    """Train the default network on the subset in the package."""
    from evsnn.training.presets import preset
    from evsnn.training.run import Run
    from evsnn_cli.train import RunPrinter, new_folder

    folder = new_folder("train")
    click.echo(f"No MODEL given and no run under runs/: training the default first, into {folder}", err=True)
    config = preset("default")
    with RunPrinter(config.epochs, "") as printer:
        Run.create(folder, config, backend=backend).train(printer)
    return folder


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise click.BadParameter(f"{text!r} is neither auto nor a number above 0", param_hint="--margin")
    return value


def _microseconds(step_ms: float) -> int:
    from evsnn.errors import SettingsError

    if not (math.isfinite(step_ms) and step_ms > 0):
        raise SettingsError(f"--grid-ms must be above 0, got {step_ms:g}")
    return round(step_ms * 1000)


def _chosen(
    subject: _Subject,
    by_margin: AnswerCurve,
    fixed: float | None,
    loss: float,
    threads: int | None,
) -> tuple[int | None, str]:
    """Point of the margin that is used, and how it was chosen; none without validation samples."""
    from evsnn.training.early_answer import choose_margin, early_answers

    if fixed is not None:
        return by_margin.at.tolist().index(fixed), "given"
    validation = subject.parts.get("validation")
    if validation is None:
        return None, "not chosen: there are no validation samples; name one with --margin"
    with progress(len(validation), "choosing the margin", "samples") as bar:
        curve = early_answers(
            subject.network, validation, by_margin.at.tolist(), threads=threads, report=bar.update
        )
    return choose_margin(curve, loss), f"on {len(validation)} validation samples"


def _conventional(
    subject: _Subject,
    samples: EventSet,
    arch: str | None,
    epochs: int | None,
    path: Path | None,
    backend: CpuBackend,
) -> ConventionalResult:
    """Load or train the conventional network and classify the same samples."""
    from evsnn.errors import SettingsError
    from evsnn.training.conventional import ConventionalNetwork

    if path is not None and path.exists():
        network = ConventionalNetwork.load(path)
        if arch is not None and network.architecture.text != arch:
            raise SettingsError(f"{path} holds {network.architecture.text}, --baseline-arch says {arch}")
        click.echo(f"Baseline {network.architecture.text} from {path}", err=True)
    else:
        network = _train_conventional(subject, arch, epochs, backend)
        if path is not None:
            network.save(path)
    network.check_fits(samples)
    with progress(len(samples), "baseline", "samples") as bar:
        return network.evaluate(samples, bar.update)


def _train_conventional(
    subject: _Subject, arch: str | None, epochs: int | None, backend: CpuBackend
) -> ConventionalNetwork:
    from evsnn.training.conventional import (
        ConventionalNetwork,
        frame_source,
        suited_conventional,
        train_conventional,
    )
    from evsnn.training.data import RunData

    train = subject.part("train")
    settings = suited_conventional(recordings=train.images is None)
    settings = replace(settings, epochs=epochs or settings.epochs, seed=subject.config.seed)
    text = arch or subject.network.architecture.text
    network = ConventionalNetwork.from_architecture(text, settings.seed)
    network.check_fits(train)
    click.echo(f"Training the baseline {text} on frames of {len(train)} samples", err=True)
    with progress(settings.epochs * len(train), "baseline", "samples") as bar:
        source = frame_source(subject.config, RunData(subject.name, train, None, None), backend)
        train_conventional(network, source, settings, bar.update)
    return network


# What comes out


def _points(curve: AnswerCurve) -> dict[str, list[Any]]:
    columns = curve.columns()
    del columns["by"]
    return columns


def _point(curve: AnswerCurve, index: int) -> dict[str, Any]:
    return {name: values[index] for name, values in _points(curve).items()}


def _energy(table: EnergyTable, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "source": table.source,
        "picojoules": dict(table.picojoules),
        "not_counted": table.left_out,
        "spiking_nanojoules": [table.of_counts(row) / 1000 for row in rows],
        "dense_nanojoules": [table.of_macs(row["dense_macs"]) / 1000 for row in rows],
    }


def _comparison(conventional: ConventionalResult, curves: list[AnswerCurve]) -> dict[str, Any]:
    from dataclasses import asdict

    from evsnn.training.comparison import equal_accuracy

    point = equal_accuracy(curves, conventional.accuracy, conventional.macs, conventional.effective_macs)
    return asdict(conventional) | {
        "accuracy": conventional.accuracy,
        "equal_accuracy": None if point is None else asdict(point),
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _picture(result: dict[str, Any]) -> bytes:
    from evsnn.plots import draw_operations, render

    title = f"{result['architecture']}, {result['samples']} samples ({result['split']})"
    dense = result["layers"][-1]["dense_macs"]
    return render(
        draw_operations(result["over_events"], result["over_margins"], dense, result["baseline"], title)
    )


def _print(result: dict[str, Any], how: str) -> None:
    rows, grid = result["layers"], result["neurobench"]
    total = rows[-1]
    click.echo(
        f"{result['architecture']}: accuracy {100 * result['accuracy']:.2f} % of {result['samples']} samples "
        f"({result['split']}); operations a sample:"
    )
    table = [["layer", *(head for _, head in _COLUMNS), "silent"]]
    table += [
        [
            row["layer"],
            *(counted(row[name]) for name, _ in _COLUMNS),
            f"{100 * row['activity_sparsity']:.0f} %",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join([line[0].ljust(widths[0]), *others]) if first else "")
    share = total["synaptic_operations"] / total["dense_macs"]
    click.echo(
        f"{counted(total['synaptic_operations'])} synaptic operations (additions) against "
        f"{counted(total['dense_macs'])} multiply-accumulates of the dense network: {share:.3f} of them"
    )
    if result["early_answer"] is not None:
        point = result["early_answer"]
        click.echo(
            f"early answer at a lead of {point['at']:g} ({how}): accuracy {100 * point['accuracy']:.2f} %, "
            f"{counted(point['input_events'])} events, {counted(point['synaptic_operations'])} synaptic "
            f"operations, {point['synaptic_operations'] / total['dense_macs']:.3f} of the dense network's"
        )
    else:
        click.echo(f"early answer: margin {how}")
    click.echo(
        f"NeuroBench, on a grid of {grid['step_us'] / 1000:g} ms ({grid['steps']} steps, accuracy "
        f"{100 * grid['accuracy']:.2f} %): effective ACs {counted(grid['effective_acs'])}, effective MACs "
        f"{counted(grid['effective_macs'])}, dense {counted(grid['dense'])}, activation sparsity "
        f"{grid['activation_sparsity']:.4f}, membrane updates {counted(grid['membrane_updates'])}, footprint "
        f"{grid['footprint']} bytes, connection sparsity {grid['connection_sparsity']:.4f}"
    )
    if result["energy"] is not None:
        energy = result["energy"]
        prices = ", ".join(f"{name} {value:g} pJ" for name, value in energy["picojoules"].items())
        own, dense = energy["spiking_nanojoules"][-1], energy["dense_nanojoules"][-1]
        click.echo(
            f"energy of these operations at {prices}: {own:.4g} nJ, dense network {dense:.4g} nJ "
            f"(source: {energy['source']}; not counted: {', '.join(energy['not_counted']) or 'nothing'})"
        )
    if result["baseline"] is not None:
        _print_baseline(result["baseline"])


def _print_baseline(baseline: dict[str, Any]) -> None:
    click.echo(
        f"conventional {baseline['architecture']} on frames of event counts: accuracy "
        f"{100 * baseline['accuracy']:.2f} %, {counted(baseline['macs'])} multiply-accumulates "
        f"({counted(baseline['effective_macs'])} of inputs other than 0)"
    )
    point = baseline["equal_accuracy"]
    if point is None:
        click.echo("equal accuracy: the spiking network does not reach it")
        return
    where = f"{point['at']:g} events" if point["by"] == "events" else f"a lead of {point['at']:g}"
    click.echo(
        f"equal accuracy from {where} on ({100 * point['accuracy']:.2f} %): "
        f"{counted(point['synaptic_operations'])} synaptic operations, {point['ratio']:.2f} times fewer "
        f"({point['effective_ratio']:.2f} times fewer than those of inputs other than 0)"
    )
