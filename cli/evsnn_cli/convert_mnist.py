"""``evsnn convert-mnist``."""

from __future__ import annotations

import time
from pathlib import Path

import click
from click.core import ParameterSource

from evsnn_cli.console import counted, force_option, json_option, print_json, progress, threads_option


@click.command("convert-mnist")
@click.argument("source", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("mnist.h5"),
    show_default=True,
    help="Event file to write.",
)
@click.option(
    "--embedded/--no-embedded", default=False, show_default=True, help="Take the subset in the package."
)
@click.option(
    "--encoder",
    type=click.Choice(["stratified", "poisson", "latency", "saccade"]),
    default="stratified",
    show_default=True,
    help="How intensity becomes events.",
)
@click.option(
    "--rate",
    type=float,
    default=5.0,
    show_default=True,
    help="Events of a full-intensity pixel; not for saccade.",
)
@click.option(
    "--duration",
    type=float,
    default=50.0,
    show_default="50, with saccade 320",
    help="Presentation in milliseconds; for saccade, of all three saccades.",
)
@click.option(
    "--resolution", type=int, default=1, show_default=True, help="Grid of the event times in microseconds."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random events.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    show_default="all",
    help="Convert only the first N images of every split.",
)
@click.option(
    "--validation",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Last N training images that become the split 'validation'.",
)
@threads_option
@force_option
@json_option
def convert_mnist(
    source: Path | None,
    output: Path,
    embedded: bool,
    encoder: str,
    rate: float,
    duration: float,
    resolution: int,
    seed: int,
    limit: int | None,
    validation: int,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Turn MNIST-format images into events.

    SOURCE is a folder of IDX files, raw or .gz (MNIST, Fashion-MNIST, KMNIST, ...). Without SOURCE, the full
    MNIST is downloaded once and cached; --embedded takes the subset that the package ships. The images are
    kept in the file, so that training can draw fresh events every epoch. The encoder saccade simulates an
    event camera (as in N-MNIST): images of 28x28 pixels become recordings of 34x34 pixels, OFF and ON.
    """
    from evsnn.datasets import ImageSet, download_mnist, embedded_mnist, load_idx_folder
    from evsnn.datasets.encoding import convert_images
    from evsnn.encoders.settings import EncoderSettings, SaccadeSettings
    from evsnn.errors import DataError, SettingsError

    if source is not None and embedded:
        raise click.UsageError("give SOURCE or --embedded, not both")
    given = click.get_current_context().get_parameter_source
    settings: EncoderSettings | SaccadeSettings
    if encoder == "saccade":
        if given("rate") is ParameterSource.COMMANDLINE:
            raise SettingsError(
                "the encoder saccade has no --rate: contrast decides how many events there are; leave it out"
            )
        if given("duration") is not ParameterSource.COMMANDLINE:
            duration = SaccadeSettings().duration_ms
        settings = SaccadeSettings(duration_ms=duration, resolution_us=resolution)
    else:
        settings = EncoderSettings(encoder, rate, duration, resolution)
    if output.exists() and not force:
        raise DataError(f"{output} exists; pass --force to replace it")
    splits: dict[str, ImageSet]
    if embedded:
        splits = {
            name: part.part(0, min(limit or len(part), len(part))) for name, part in embedded_mnist().items()
        }
    else:
        splits = load_idx_folder(source if source is not None else download_mnist(progress=True), limit)
    begin = time.perf_counter()
    total = sum(len(part) for part in splits.values())
    with progress(total, "converting", "images") as bar:
        events = convert_images(
            splits,
            output,
            settings,
            seed=seed,
            validation=validation,
            force=force,
            threads=threads,
            report=bar.update,
        )
    seconds = time.perf_counter() - begin
    if as_json:
        print_json({"file": str(output), "images": total, "events": events, "seconds": seconds})
        return
    per_image = sum(events.values()) / max(total, 1)
    click.echo(f"{output}: {total} images, {counted(per_image)} events each, in {seconds:.1f} s")
