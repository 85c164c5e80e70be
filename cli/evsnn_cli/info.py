"""``evsnn info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from evsnn_cli.console import json_option, print_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def info(file: Path, as_json: bool) -> None:
    """Say what FILE holds, and whether it is intact.

    FILE is an event file, a model or a run folder. Everything in it is read and its checksums are checked.
    """
    from evsnn import checkpoint
    from evsnn.errors import DataError

    if file.is_dir():
        summary = _run_folder(file)
    elif not file.exists():
        raise DataError(f"{file}: no such file or folder")
    else:
        summary = _model(file) if checkpoint.is_model(file) else _event_file(file)
    summary["intact"] = True
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _event_file(path: Path) -> dict[str, Any]:
    from evsnn import open_events

    with open_events(path) as file:
        file.verify()
        channels, height, width = file.shape
        return {
            "kind": "event file",
            "file": str(path),
            "shape": f"{height}x{width}x{channels} (HxWxC)",
            "classes": file.classes,
            "duration_us": file.duration_us,
            "splits": {
                name: {
                    "samples": len(file[name]),
                    "events": file[name].n_events,
                    "events_per_sample": round(file[name].n_events / max(len(file[name]), 1), 1),
                    "images": file[name].has_images,
                }
                for name in file.splits
            },
            "encoder": dict(file.encoder),
            "seed": file.seed,
            "source": dict(file.source),
        }


def _model(path: Path) -> dict[str, Any]:
    from evsnn import checkpoint

    loaded = checkpoint.load(path)
    network = loaded.network
    return {
        "kind": "checkpoint" if loaded.arrays else "model",
        "file": str(path),
        "architecture": network.architecture.text,
        "parameters": network.parameters,
        "dense_macs_per_sample": network.dense_macs,
        "epoch": loaded.info.get("epoch"),
        "settings": dict(vars(network.settings)),
    }


def _run_folder(path: Path) -> dict[str, Any]:
    from evsnn.errors import DataError
    from evsnn.training.config import RunConfig
    from evsnn.training.run import CHECKPOINT, CONFIG, METRICS, MODEL, RESULT, read_metrics

    if not (path / CONFIG).is_file():
        raise DataError(f"{path}: not a run folder, it holds no {CONFIG}")
    RunConfig.from_toml(path / CONFIG)
    summary: dict[str, Any] = {"kind": "run folder", "folder": str(path)}
    for name in (MODEL, CHECKPOINT):
        if (path / name).exists():
            summary[name] = _model(path / name)
    if CHECKPOINT in summary:
        read_metrics(path / METRICS, summary[CHECKPOINT]["epoch"])
    if (path / RESULT).exists():
        try:
            summary["result"] = json.loads((path / RESULT).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path / RESULT}: not valid JSON: {error}") from error
    return summary


def _print(summary: dict[str, Any], indent: int = 0) -> None:
    for name, value in summary.items():
        label = " " * indent + name.replace("_", " ")
        if isinstance(value, dict):
            click.echo(f"{label}:")
            _print(value, indent + 2)
        else:
            shown = "yes" if value is True else "no" if value is False else value
            click.echo(f"{label}: {shown}")
