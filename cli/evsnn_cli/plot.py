"""``evsnn plot``."""

from __future__ import annotations

import math
from pathlib import Path

import click

from evsnn_cli.console import json_option, print_json, threads_option

#: Kinds and formats of pictures, as evsnn.pictures and evsnn.plots know them; a test holds them equal.
KINDS = ("raster", "frames", "surface", "curves", "weights", "spikes", "membrane", "confusion")
FORMATS = ("png", "svg", "pdf")


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Read a list of numbers and ranges: 0,3,8-11."""
    if text is None:
        return ()
    numbers: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not (low.isdecimal() and (high.isdecimal() or not dash)) or len(low) > 9 or len(high) > 9:
            raise click.BadParameter(f"{part!r} is neither a number nor a range such as 8-11.")
        first, last = int(low), int(high or low)
        if not first <= last < first + 1000:
            raise click.BadParameter(f"{part!r} is no range of at most 1000 numbers.")
        numbers += range(first, last + 1)
    return tuple(numbers)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--what",
    type=click.Choice(KINDS),
    multiple=True,
    show_default="all that apply",
    help="Picture to draw; may be given several times.",
)
@click.option("--sample", type=click.IntRange(0), default=0, show_default=True, help="Number of the sample.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default=None,
    show_default="test, else the first there is",
    help="Part of the data.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=None,
    show_default="the data set that the run folder names",
    help="Event file for the pictures of a model.",
)
@click.option(
    "--layer",
    type=click.IntRange(1),
    default=None,
    show_default="weights: first, membrane: last",
    help="Layer, counted from 1 with pooling layers.",
)
@click.option(
    "--neurons",
    callback=_numbers,
    metavar="LIST",
    default=None,
    show_default="weights: first 64, membrane: 8 that fire most",
    help="Neurons (in weights, maps of a convolution) such as 0,3,8-11.",
)
@click.option("--windows", type=int, default=8, show_default=True, help="Windows of time in frames.")
@click.option(
    "--tau",
    type=float,
    default=None,
    show_default="a fifth of the duration",
    help="Time constant of the time surface in milliseconds.",
)
@click.option(
    "--end",
    type=float,
    default=None,
    show_default="last event",
    help="Time of the time surface in milliseconds.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=None,
    show_default="beside FILE, in a run folder, several: here",
    help="Folder, or file of a single picture.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default=None,
    show_default="suffix of --out, else png",
    help="File format of the pictures.",
)
@threads_option
@json_option
def plot(
    files: tuple[Path, ...],
    what: tuple[str, ...],
    sample: int,
    split: str | None,
    data: Path | None,
    layer: int | None,
    neurons: tuple[int, ...],
    windows: int,
    tau: float | None,
    end: float | None,
    out: Path | None,
    kind: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Draw pictures of FILE: an event file, a model or a run folder.

    Events of one sample: raster, frames (counts in windows of time), surface (time surface). A model: weights
    and, with data, spikes of every layer, membrane potentials of one layer, confusion matrix. A run folder:
    also its learning curves; several run folders: their curves over each other. Pictures of the same name are
    replaced.
    """
    from evsnn.errors import DataError, SettingsError
    from evsnn.files import make_folder, write_atomically
    from evsnn.pictures import PictureSettings, pictures_of
    from evsnn.plots import render

    for name, value in (("tau", tau), ("end", end)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise SettingsError(f"--{name} must be a number of milliseconds above 0, got {value:g}")
    suffix = "" if out is None else out.suffix.lower().removeprefix(".")
    single = out is not None and suffix in FORMATS and not out.is_dir()
    if single and kind not in (None, suffix):
        raise click.UsageError(f"--out {out} and --format {kind} name different formats")
    settings = PictureSettings(
        what=what,
        sample=sample,
        split=split or "",
        data="" if data is None else str(data),
        layer=layer or 0,
        neurons=neurons,
        windows=windows,
        tau_ms=tau or 0.0,
        end_ms=end or 0.0,
    )
    pictures = pictures_of(files, settings, threads=threads)
    if single and len(pictures) > 1:
        kinds = ", ".join(picture.kind for picture in pictures)
        raise DataError(f"{len(pictures)} pictures ({kinds}) do not fit into {out}; choose one with --what")
    if out is None:
        folder = Path() if len(files) > 1 else files[0] if files[0].is_dir() else files[0].parent
    else:
        folder = out.parent if single else out
    make_folder(folder)
    form = kind or (suffix if single else "png")
    written = []
    for picture in pictures:
        path = out if single and out is not None else folder / f"{picture.name}.{form}"
        write_atomically(path, render(picture.draw(), form))
        written.append({"what": picture.kind, "file": str(path)})
        if not as_json:
            click.echo(f"{picture.kind}: {path}")
    if as_json:
        print_json({"pictures": written})
