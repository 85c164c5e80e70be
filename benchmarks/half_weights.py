"""Dense layers simulated with 2-byte weights beside 4-byte ones: accuracy, and time in turns on one thread.

python benchmarks/half_weights.py runs/a/model.h5 nmnist.h5 --split train
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import click

from evsnn import evaluate
from evsnn.checkpoint import load_model
from evsnn.environment import describe_environment
from evsnn.events import open_events


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--timed", default=200, show_default=True, help="Samples that are timed.")
@click.option("--repeats", default=9, show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), default=None)
def main(model: Path, data: Path, split: str, timed: int, repeats: int, target: Path | None) -> None:
    with open_events(data) as file:
        samples = file[split].load()
        few = file[split].load(0, min(timed, len(samples)))
    networks = {"float32": load_model(model), "float16": load_model(model)}
    networks["float16"].use_half_weights()
    result = {"architecture": networks["float32"].architecture.text, "samples": len(samples)}
    predictions = {}
    for name, network in networks.items():
        found = evaluate(network, samples, threads=1)
        predictions[name] = found.predictions
        result[name] = {"wrong": round(len(samples) * (1 - found.accuracy)), "accuracy": found.accuracy}
    result["other_answers"] = int((predictions["float16"] != predictions["float32"]).sum())
    seconds = {name: [] for name in networks}
    for _ in range(repeats):
        for name, network in networks.items():
            begun = time.perf_counter()
            network.predict(few, threads=1)
            seconds[name].append(time.perf_counter() - begun)
    for name, times in seconds.items():
        result[name]["microseconds_a_sample"] = 1e6 * statistics.median(times) / len(few)
    result["times_as_fast"] = statistics.median(
        a / b for a, b in zip(seconds["float32"], seconds["float16"], strict=True)
    )
    result["environment"] = describe_environment(1)
    print(json.dumps(result, indent=1))
    if target:
        target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
