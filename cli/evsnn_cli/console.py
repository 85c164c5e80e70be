"""What all commands share: how they print, show progress and fail."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm

    from evsnn.backends import Backend

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

threads_option = click.option(
    "--threads",
    type=click.IntRange(1),
    default=None,
    show_default="all processors",
    help="Threads; results do not depend on them.",
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; results do not depend on it. auto takes a CUDA device if there is one.",
)
device_option = click.option(
    "--device",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of the CUDA device.",
)
half_weights_option = click.option(
    "--half-weights/--no-half-weights",
    default=False,
    show_default=True,
    help="Simulate dense layers with float16 weights: faster where they exceed the cache; CPU only.",
)
json_option = click.option(
    "--json/--no-json",
    "as_json",
    default=False,
    show_default=True,
    help="Print the result as one JSON object on stdout.",
)
force_option = click.option(
    "--force/--no-force", default=False, show_default=True, help="Replace what is there."
)


def report_error(error: Exception) -> int:
    """Print an error as one line on stderr and return the exit code."""
    from evsnn.errors import EvsnnError

    if isinstance(error, BrokenPipeError):
        # The reader of a pipe has gone; Python would complain once more when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, EvsnnError):
        line = str(error)
    elif isinstance(error, MemoryError):
        line = f"out of memory ({error}): lower --batch-size or --limit, or take a smaller --arch"
    elif isinstance(error, OSError):
        line = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    else:
        line = f"{type(error).__name__}: {error} (evsnn --debug ... shows where; please report it)"
    click.echo("Error: " + " ".join(line.split()), err=True)
    return 1


def chosen_backend(name: str, threads: int | None, device: int) -> tuple[Backend, str]:
    """Open the backend of the options; return it with a line that says what it is."""
    from evsnn.backends import open_backend

    reasons: list[str] = []
    backend = open_backend(name, threads=threads, device=device, tell=reasons.append)
    if backend.device is not None:
        return backend, f"On CUDA device {device}, {backend.device}"
    because = f": {reasons[0].partition(';')[0]}" if reasons else ""  # `info --system` has the remedy
    threads_text = "1 thread" if backend.host.threads == 1 else f"{backend.host.threads} threads"
    return backend, f"On the CPU, {threads_text}{because}"


def print_json(result: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """Print one JSON object on stdout; numbers that JSON does not have become text: inf, -inf, nan."""
    click.echo(json.dumps(_strict(result), allow_nan=False))


def _strict(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, dict):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


@contextmanager
def progress(total: int, what: str, unit: str, done: int = 0) -> Iterator[tqdm[Any]]:
    """Show a progress bar on stderr; where that is no terminal, a line now and then.

    What was ``done`` before counts for the bar, not for its speed.
    """
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    with tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=f" {unit}",
        file=sys.stderr,
        mininterval=10.0 if quiet else 0.2,
        dynamic_ncols=True,
        smoothing=0.05,
    ) as bar:
        yield bar


def microseconds(option: str, milliseconds: float, least: int = 1) -> int:
    """Whole microseconds of an option in milliseconds.

    Raises
    ------
    SettingsError
        If there are fewer than ``least``, or more than a year of them.
    """
    from evsnn.errors import SettingsError

    if not (math.isfinite(milliseconds) and least <= round(milliseconds * 1e3) <= 1 << 45):
        raise SettingsError(f"{option} must be {least / 1e3:g} or more, got {milliseconds:g}")
    return round(milliseconds * 1e3)


def counted(number: float) -> str:
    """A count with three or four digits: 512, 41.7k, 1.05M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            scale = 1e3 if unit == "k" else limit
            return f"{number / scale:.4g}{unit}"
    return f"{number:.4g}"
