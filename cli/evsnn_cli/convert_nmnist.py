"""``evsnn convert-nmnist``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from evsnn_cli.console import counted, force_option, json_option, print_json, progress, threads_option

#: Lines about files left out that are printed one by one; the rest is counted.
_MOST_LINES = 20


def _amount(text: str) -> float:
    """Read a number of recordings, such as 100 (an int), or a share of them, such as 0.2 (a float)."""
    try:
        amount = int(text) if text.isdecimal() else float(text)
    except ValueError:
        amount = -1.0
    if isinstance(amount, float) and not 0.0 <= amount < 1.0:
        raise click.BadParameter(f"{text!r} is neither a number of recordings nor a share below 1.")
    return amount


@click.command("convert-nmnist")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("nmnist.h5"),
    show_default=True,
    help="Event file to write.",
)
@click.option(
    "--start", type=float, default=0.0, show_default=True, help="Start of the time window in milliseconds."
)
@click.option(
    "--stop",
    type=float,
    default=None,
    show_default="end of the recording",
    help="End of the time window in milliseconds.",
)
@click.option(
    "--first",
    type=click.IntRange(1),
    default=None,
    show_default="all",
    help="Keep only the first N events of each recording, after all other filters.",
)
@click.option(
    "--merge-polarity/--no-merge-polarity",
    default=False,
    show_default=True,
    help="One channel for both polarities.",
)
@click.option(
    "--crop/--no-crop", default=False, show_default=True, help="Keep the middle 28x28 of the 34x34 pixels."
)
@click.option(
    "--refractory",
    type=float,
    default=0.0,
    show_default=True,
    help="Drop events that follow the last kept one of their pixel in less than this many milliseconds.",
)
@click.option(
    "--noise",
    type=float,
    default=0.0,
    show_default=True,
    help="Random events that each pixel adds in a second.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the noise.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=None,
    show_default="all",
    help="Convert only the first N recordings of Train and of Test.",
)
@click.option(
    "--test",
    type=_amount,
    metavar="N|SHARE",
    default="0",
    show_default=True,
    help="Training recordings that become the split 'test' if there is none: a number, or a share below 1.",
)
@click.option(
    "--validation",
    type=_amount,
    metavar="N|SHARE",
    default="0",
    show_default=True,
    help="Training recordings that become the split 'validation': a number, or a share below 1.",
)
@click.option(
    "--skip-bad/--no-skip-bad",
    default=False,
    show_default=True,
    help="Report wrong files and go on without them.",
)
@threads_option
@force_option
@json_option
def convert_nmnist(
    source: Path,
    output: Path,
    start: float,
    stop: float | None,
    first: int | None,
    merge_polarity: bool,
    crop: bool,
    refractory: float,
    noise: float,
    seed: int,
    limit: int | None,
    test: float,
    validation: float,
    skip_bad: bool,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Turn N-MNIST recordings into an event file.

    SOURCE is a folder with Train/<digit>/*.bin and Test/<digit>/*.bin, or with Train.zip and Test.zip, or a
    zip archive of such folders, which is read in place. Samples are ordered by the number of the recording.
    The held-out splits take from every digit its share, the last recordings of it by number.
    """
    from evsnn.datasets import nmnist
    from evsnn.errors import DataError

    settings = nmnist.RecordingSettings(
        noise_hz=noise,
        refractory_ms=refractory,
        start_ms=start,
        stop_ms=stop,
        crop=crop,
        first=first or 0,
        merge_polarity=merge_polarity,
    )
    if output.exists() and not force:
        raise DataError(f"{output} exists; pass --force to replace it")
    lines = 0

    def complain(problem: str) -> None:
        nonlocal lines
        lines += 1
        if lines <= _MOST_LINES:
            bar.write(f"Warning: left out: {problem}", file=sys.stderr)

    begin = time.perf_counter()
    with progress(0, "converting", "recordings") as bar:
        result = nmnist.convert_nmnist(
            source,
            output,
            settings,
            seed=seed,
            test=test,
            validation=validation,
            limit=limit,
            skip_bad=skip_bad,
            force=force,
            threads=threads,
            begin=bar.reset,
            report=bar.update,
            complain=complain,
        )
    seconds = time.perf_counter() - begin
    if lines > _MOST_LINES:
        click.echo(f"Warning: left out: {lines - _MOST_LINES} more files", err=True)
    if result.silent:
        click.echo(f"Warning: no event was left of {result.silent} recordings", err=True)
    total = sum(result.recordings.values())
    if as_json:
        print_json(
            {
                "file": str(output),
                "recordings": result.recordings,
                "events": result.events,
                "silent": result.silent,
                "skipped": result.skipped,
                "seconds": seconds,
            }
        )
        return
    parts = ", ".join(f"{count} {name}" for name, count in result.recordings.items())
    each = counted(sum(result.events.values()) / total)
    click.echo(f"{output}: {total} recordings ({parts}), {each} events each, in {seconds:.1f} s")
