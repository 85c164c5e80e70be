"""``evsnn train``."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

import click

from evsnn_cli.console import (
    backend_option,
    chosen_backend,
    counted,
    device_option,
    force_option,
    json_option,
    print_json,
    progress,
    threads_option,
)

if TYPE_CHECKING:
    from tqdm import tqdm

    from evsnn.backends import Backend
    from evsnn.network import Network
    from evsnn.training.config import RunConfig
    from evsnn.training.data import RunData
    from evsnn.training.folds import CrossValidation
    from evsnn.training.run import Run
    from evsnn.training.trainer import Totals


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--preset",
    type=click.Choice(["default", "paper"]),
    default="default",
    show_default=True,
    help="Settings that suit the kind of network and data, or those of Lee et al. (2016).",
)
@click.option("--arch", help="Architecture, such as 784-800-10.", show_default="HxWxC-800-classes")
@click.option(
    "--epochs", type=int, show_default="by network and data", help="Passes over the training samples."
)
@click.option("--batch-size", type=int, show_default="by network and data", help="Samples a gradient step.")
@click.option("--optimizer", type=click.Choice(["sgd", "adam"]), show_default="adam", help="Optimiser.")
@click.option(
    "--lr", type=float, show_default="by network and data", help="Learning rate; its schedule ends at 0."
)
@click.option(
    "--alpha",
    help="Initial thresholds in units of sqrt(3/fan-in), a list per layer.",
    show_default="16,15; 4,8,... with convolutions",
)
@click.option(
    "--clamp", help="Lower clamp of the membrane, in thresholds, a list per layer.", show_default="8"
)
@click.option(
    "--kappa",
    help="Lateral inhibition, -1 to 0, a list per layer.",
    show_default="0; -0.1 in convolutions",
)
@click.option(
    "--sparsity",
    type=float,
    help="Penalty of the synaptic operations that spikes cause.",
    show_default="by network and data",
)
@click.option(
    "--rate",
    type=float,
    show_default="5",
    help="Events of a full-intensity pixel (MNIST subset in the package).",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    show_default="none",
    help="Any other setting of config.toml, such as learning.weight_decay=0.1.",
)
@backend_option
@device_option
@threads_option
@click.option("--seed", type=int, show_default="0", help="Seed of weights, order and spikes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    show_default="runs/<date>-<architecture>",
    help="Run folder to write.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    show_default="a new run",
    help="Go on with the run in this folder.",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(0.0),
    default=10.0,
    show_default=True,
    help="Write a checkpoint after so many minutes, beside those after every epoch; 0: after every batch.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    show_default="the preset",
    help="TOML file of settings, such as the config.toml of a run.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    show_default="all",
    help="Use only the first N samples of every split.",
)
@click.option(
    "--validation",
    type=int,
    show_default="the file's own split, else a sixth",
    help="Hold out the last N training samples.",
)
@click.option(
    "--fresh/--no-fresh", default=None, show_default="fresh", help="Draw new spikes from images every epoch."
)
@click.option(
    "--augment/--no-augment",
    default=None,
    show_default="augment",
    help="Distort training samples anew every epoch: [augment] of images, [augment_events] of recordings.",
)
@click.option(
    "--folds",
    type=int,
    show_default="no cross-validation",
    help="Cross-validation over the training samples in this many parts; 0 for none.",
)
@force_option
@json_option
@click.pass_context
def train(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - one of each option's type
    """Train a network on the event file DATA.

    Without DATA, on the subset of MNIST that the package ships. Ctrl-C, SIGTERM and SIGHUP stop after the
    running batch, keep what was learned and leave a checkpoint to --resume from.

    With --folds K, each K-th of the training samples is classified by a network that learned the others; a
    validation or test split of DATA is not touched.
    """
    from evsnn.training.folds import CrossValidation, is_cross_validation
    from evsnn.training.run import Run

    if options["resume"] is not None:
        _refuse_with_resume(context)
    backend, where = chosen_backend(options["backend"], options["threads"], options["device"])
    with backend:
        if options["resume"] is not None:
            run = _resumed(options["resume"], backend, options["checkpoint_minutes"])
        else:
            config = _configuration(options)
            folder = options["out"] or new_folder(config.arch.strip() or "train")
            kind = CrossValidation if is_cross_validation(config) else Run
            run = kind.create(
                folder,
                config,
                backend=backend,
                force=options["force"],
                checkpoint_minutes=options["checkpoint_minutes"],
            )
        with _Stopper() as stopper, RunPrinter(run.config.epochs, where) as printer:
            result = run.train(printer, stopper.requested)
    result["run_folder"] = str(run.folder)
    if options["as_json"]:
        print_json(result)
    elif "folds" in result:
        _print_folds(result)
    else:
        _print_result(result)
    if result["interrupted"]:
        click.echo(f"Interrupted; go on with: evsnn train --resume {run.folder}", err=True)
        context.exit(128 + stopper.signal)


def _resumed(folder: Path, backend: Backend, minutes: float) -> Run | CrossValidation:
    from evsnn.training.config import RunConfig
    from evsnn.training.folds import CrossValidation, is_cross_validation
    from evsnn.training.run import CONFIG, Run
    from evsnn.training.state import has_checkpoint

    # The folder of a cross-validation has no checkpoint of its own; those of its folds do.
    is_run = has_checkpoint(folder) or not (folder / CONFIG).is_file()
    if not is_run and is_cross_validation(RunConfig.from_toml(folder / CONFIG)):
        return CrossValidation.resume(folder, backend=backend, checkpoint_minutes=minutes)
    return Run.resume(folder, backend=backend, checkpoint_minutes=minutes)


def _refuse_with_resume(context: click.Context) -> None:
    from click.core import ParameterSource

    allowed = {"resume", "threads", "backend", "device", "checkpoint_minutes", "as_json"}
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)
        if given and name not in allowed:
            raise click.UsageError(f"--resume goes on with the settings of its run; drop {parameter.opts[0]}")


def _configuration(options: dict[str, Any]) -> RunConfig:
    from evsnn.network.architecture import parse_architecture
    from evsnn.training.config import RunConfig
    from evsnn.training.data import holds_recordings
    from evsnn.training.presets import preset

    if options["arch"] is not None:
        parse_architecture(options["arch"])  # in a configuration, an empty one stands for the default
    written = RunConfig() if options["config"] is None else RunConfig.from_toml(options["config"])
    arch = written.arch if options["arch"] is None else options["arch"]
    path = written.data.path if options["data"] is None else str(options["data"])
    config = preset(options["preset"], arch, recordings=holds_recordings(path))
    if options["config"] is not None:
        config = RunConfig.from_toml(options["config"], config)
    values: dict[str, Any] = {}
    for name in ("arch", "epochs", "seed"):
        if options[name] is not None:
            values[name] = options[name]
    for section, name, option in (
        ("data", "limit", "limit"),
        ("data", "validation", "validation"),
        ("data", "fresh", "fresh"),
        ("data", "augment", "augment"),
        ("data", "folds", "folds"),
        ("encoder", "rate", "rate"),
        ("learning", "batch_size", "batch_size"),
        ("learning", "optimizer", "optimizer"),
        ("learning", "lr", "lr"),
        ("learning", "sparsity", "sparsity"),
    ):
        if options[option] is not None:
            values.setdefault(section, {})[name] = options[option]
    for name in ("alpha", "clamp", "kappa"):
        if options[name] is not None:
            values.setdefault("network", {})[name] = _numbers(name, options[name])
    if options["data"] is not None:
        values.setdefault("data", {})["path"] = str(options["data"].resolve())
    for setting in options["settings"]:
        section, name, value = _setting(setting)
        named = values.setdefault(section, {})
        if not isinstance(named, dict):
            raise click.BadParameter(
                f"{section!r} is a setting, not a section of settings", param_hint="--set"
            )
        named[name] = value
    return RunConfig.from_dict(values, config)


def _numbers(name: str, text: str) -> float | list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a number, nor numbers with commas between", param_hint=f"--{name}"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _setting(text: str) -> tuple[str, str, Any]:
    import tomllib

    place, equals, value = text.partition("=")
    section, dot, name = place.strip().partition(".")
    if not (equals and dot and section and name):
        raise click.BadParameter(f"{text!r} is not SECTION.NAME=VALUE", param_hint="--set")
    try:
        return section, name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return section, name, value.strip()


def new_folder(arch: str) -> Path:
    """Name of a new run folder under ``runs``."""
    from datetime import datetime

    stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    folder = Path("runs") / f"{stamp}-{arch}"
    number = 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{stamp}-{arch}-{number}"
    return folder


class _Stopper:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a request to stop after the running batch.

    The second one stops at once.
    """

    def __init__(self) -> None:
        #: The signal that came; SIGINT until then.
        self.signal = int(signal.SIGINT)
        self._asked = False
        self._before: dict[int, Any] = {}

    def requested(self) -> bool:
        return self._asked

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            # What nohup ignores stays ignored.
            if number is not None and (name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self.signal = number
        for other in self._before:
            # The handler of Ctrl-C lets Python clean up.
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_DFL)
        # Not through sys.stderr: the signal may have come while the progress bar was writing there.
        with suppress(OSError):
            os.write(2, b"\nStopping after this batch; Ctrl-C again to stop at once.\n")


class RunPrinter:
    """Shows a run on stderr: one bar for all epochs, a line an epoch."""

    def __init__(self, epochs: int, where: str) -> None:
        self._epochs = epochs
        self._where = where
        self._stack = ExitStack()
        self._fold = ""
        self._bar: tqdm[Any] | None = None
        self._seen = 0
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def fold_started(self, fold: int, folds: int) -> None:
        """A fold begins: its own bar."""
        self._stack.close()
        self._fold = f"fold {fold}/{folds}"
        self._seen = 0

    def fold_done(self, fold: int, folds: int, errors: int, samples: int) -> None:
        """Print the accuracy of a fold."""
        assert self._bar is not None
        accuracy = f"{100 * (1 - errors / samples):.2f} % ({errors} of {samples} wrong)"
        self._bar.write(f"fold {fold}/{folds}  accuracy {accuracy}", file=sys.stderr)

    def started(self, network: Network, data: RunData, epoch: int) -> None:
        """Print what is trained on what; begin the bar."""
        held_out = 0 if data.validation is None else len(data.validation)
        test = 0 if data.test is None else len(data.test)
        click.echo(
            f"{network.architecture.text}, {counted(network.parameters)} parameters, on {data.name}: "
            + (
                f"{self._fold}, {len(data.train)} training, {test} held out"
                if self._fold
                else f"{len(data.train)} training, {held_out} validation, {test} test samples"
            ),
            err=True,
        )
        if self._where:
            click.echo(self._where, err=True)
            self._where = ""  # once, not for every fold
        total, done = self._epochs * len(data.train), epoch * len(data.train)
        self._bar = self._stack.enter_context(progress(total, self._fold or "training", "samples", done))

    def batch(self, totals: Totals) -> None:
        """Move the bar."""
        assert self._bar is not None
        self._bar.update(totals.samples - self._seen)
        self._seen = totals.samples

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Print the line of an epoch."""
        assert self._bar is not None
        self._seen = 0
        accuracy = metrics["validation_accuracy"]
        held_out = "" if accuracy is None else f"  validation {100 * accuracy:.2f} %"
        events = " > ".join(counted(count) for count in metrics["events_per_sample"])
        active = ", ".join(f"{100 * share:.0f} %" for share in metrics["active_share"])
        operations = counted(sum(metrics["synaptic_operations_per_sample"]))
        self._bar.write(
            f"epoch {metrics['epoch']:>{len(str(self._epochs))}}/{self._epochs}  loss {metrics['loss']:.4f}  "
            f"train {100 * metrics['train_accuracy']:.2f} %{held_out}  events {events}  SOPs {operations}  "
            f"active {active}  {metrics['samples_per_second']:.0f} samples/s",
            file=sys.stderr,
        )

    def warning(self, line: str) -> None:
        """Print a warning, each kind once."""
        assert self._bar is not None
        kind = line.split(",", maxsplit=1)[0]
        if kind not in self._warned:
            self._warned.add(kind)
            self._bar.write(f"Warning: {line}", file=sys.stderr)


def _print_folds(result: dict[str, Any]) -> None:
    folds = zip(result["fold_accuracies"], result["fold_errors"], result["fold_samples"], strict=True)
    for fold, (accuracy, errors, samples) in enumerate(folds, start=1):
        click.echo(f"fold {fold}: {100 * accuracy:.2f} % ({errors} of {samples} wrong)")
    if result["mean_accuracy"] is not None:
        spread = result["std_accuracy"]
        deviation = "" if spread is None else f", standard deviation {100 * spread:.2f}"
        click.echo(
            f"mean {100 * result['mean_accuracy']:.2f} %{deviation} "
            f"({result['errors']} of {result['samples']} wrong)"
        )
    click.echo(f"run folder {result['run_folder']}")


def _print_result(result: dict[str, Any]) -> None:
    if result["test_accuracy"] is not None:
        click.echo(f"test accuracy {100 * result['test_accuracy']:.2f} %")
    if result["validation_accuracy"] is not None:
        click.echo(
            f"validation accuracy {100 * result['validation_accuracy']:.2f} % (epoch {result['best_epoch']})"
        )
    if result["synaptic_operations_per_sample"] is not None:
        click.echo(
            f"{counted(result['synaptic_operations_per_sample'])} synaptic operations a sample "
            f"(dense network: {counted(result['dense_macs_per_sample'])} multiply-accumulates)"
        )
    if result["samples_per_second"] is not None:
        click.echo(
            f"{result['samples_per_second']:.0f} samples/s in {result['train_seconds']:.1f} s of training"
        )
    click.echo(f"run folder {result['run_folder']}")
