"""``evsnn info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evsnn_cli.console import json_option, print_json


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--system/--no-system",
    default=False,
    show_default=True,
    help="Describe this installation and machine instead of FILE.",
)
@json_option
def info(file: Path | None, system: bool, as_json: bool) -> None:
    """Say what FILE holds, and whether it is intact.

    FILE is an event file, a model or a run folder. Everything in it is read and its checksums are checked.

    With --system instead of FILE, say which versions compute here and on what, and whether --backend cuda
    would work; where it would not, what is missing.
    """
    if system == (file is not None):
        raise click.UsageError("Name either FILE or --system.")
    summary = _file(file) if file is not None else _system()
    if as_json:
        print_json(summary)
    elif file is not None:
        _print(summary)
    else:
        _print(_system_lines(summary))


def _file(path: Path) -> dict[str, Any]:
    from evsnn import checkpoint
    from evsnn.errors import DataError

    if path.is_dir():
        summary = _run_folder(path)
    elif not path.exists():
        raise DataError(f"{path}: no such file or folder")
    else:
        summary = _model(path) if checkpoint.is_model(path) else _event_file(path)
    return summary | {"intact": True}


def _system() -> dict[str, Any]:
    from evsnn.backends import available_threads
    from evsnn.backends.system import find_cuda
    from evsnn.environment import describe_environment, kernel_cache

    def text(version: tuple[int, int]) -> str:
        return f"{version[0]}.{version[1]}"

    about = describe_environment(available_threads())
    cuda = find_cuda()
    return {
        **{name: about[name] for name in ("evsnn", "python", "numpy", "numba", "llvmlite", "system", "cpu")},
        "threads": about["threads"],
        "kernel_cache": kernel_cache(),
        "cuda": {
            "target": cuda.target,
            "driver": cuda.driver and text(cuda.driver),
            "toolkit": cuda.toolkit
            and {
                "version": text(cuda.toolkit.version),
                "origin": cuda.toolkit.origin,
                "path": cuda.toolkit.path,
            },
            "cards": [
                {
                    "index": card.index,
                    "name": card.name,
                    "compute_capability": text(card.compute_capability),
                    "memory_bytes": card.memory_bytes,
                    "free_bytes": card.free_bytes,
                    "problem": cuda.problem_with(card.index),
                }
                for card in cuda.cards
            ],
            "usable": cuda.problem_with(0) is None,
            "problem": cuda.problem_with(0),
        },
    }


def _system_lines(summary: dict[str, Any]) -> dict[str, Any]:
    """What --system says, as text: a label and a line each."""
    from evsnn.backends.system import SIMULATOR

    cuda = summary["cuda"]
    none = "not looked for" if cuda["target"] == SIMULATOR else "none"
    lines = {name: value for name, value in summary.items() if name not in {"kernel_cache", "cuda"}}
    lines["kernel cache"] = summary["kernel_cache"] or "none: every process compiles anew"
    lines["CUDA target"] = cuda["target"]
    lines["CUDA driver"] = cuda["driver"] or none
    toolkit = cuda["toolkit"]
    lines["CUDA toolkit"] = "{version} ({origin}: {path})".format(**toolkit) if toolkit else none
    lines["CUDA cards"] = len(cuda["cards"]) or none
    for card in cuda["cards"]:
        parts = [card["name"], f"compute capability {card['compute_capability']}", _gib(card["memory_bytes"])]
        if card["free_bytes"] is not None:
            parts.append(f"{_gib(card['free_bytes'])} free")
        # A problem of all cards, or of the card that is the default, is the last line.
        own = f"; {card['problem']}" if card["problem"] not in {None, cuda["problem"]} else ""
        lines[f"CUDA card {card['index']}"] = ", ".join(parts) + own
    lines["--backend cuda"] = "should work" if cuda["usable"] else f"does not work: {cuda['problem']}"
    return lines


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


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
    from evsnn.training.run import CONFIG, METRICS, MODEL, RESULT, read_metrics, read_result
    from evsnn.training.state import CHECKPOINT

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
        summary["result"] = read_result(path / RESULT)
    return summary


def _print(summary: dict[str, Any], indent: int = 0) -> None:
    from evsnn.errors import printable

    for name, value in summary.items():
        label = " " * indent + printable(str(name)).replace("_", " ")
        if isinstance(value, dict):
            click.echo(f"{label}:")
            _print(value, indent + 2)
        else:
            shown = "yes" if value is True else "no" if value is False else value
            click.echo(f"{label}: {printable(str(shown))}")
