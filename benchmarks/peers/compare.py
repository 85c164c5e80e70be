"""The same network, the same events, one core: evsnn beside other simulators of spiking networks.

784-800-10 on MNIST and 2312-800-10 on N-MNIST, soft reset, batch 100, Adam. Every peer has an environment of
its own, made here, and every measurement is a process of its own on one core: training and simulation in
samples a second, peak memory, and accuracy reached against seconds of training. Repeats go round all
peers; medians and, round by round, ratios to evsnn are written. A peer that cannot be installed or fails is
reported with its error.

    python benchmarks/peers/compare.py --json benchmarks/results/peers.json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path

import click
from environments import PEERS, NotInstalledError, make_environment, python_of
from export import WORKLOADS, export
from tables import tables

from evsnn.environment import describe_environment
from evsnn.files import write_atomically

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "evsnn-peers"
#: What is compared: simulators that do not learn take part in ``infer`` of this workload only.
SIMULATION = "mnist-100"
#: Digits that are written where only throughput is measured.
THROUGHPUT_SAMPLES = 4000
MEASURES = (
    "samples_per_second",
    "samples_per_processor_second",
    "peak_memory_mb",
    "memory_before_mb",
    "events_per_sample",
)


def call(name, cache, events, task, timeout, *options):
    """Run one measurement of a peer; return its result, or ``{"error": line}``."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    environment = os.environ | threads
    environment.pop("PYTHONPATH", None)
    if not PEERS[name].installs:
        environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / part) for part in ("", "kernels", "cli"))
    command = [str(python_of(name, cache)), str(HERE / PEERS[name].script), str(events), task, *options]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {timeout:g} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(rounds):
    """Medians of a task, from a list of ``{peer: result}``; ratios are those of evsnn to the peer."""
    names = list(dict.fromkeys(name for results in rounds for name in results))
    table = {}
    for name in names:
        results = [results[name] for results in rounds if name in results]
        good = [result for result in results if "error" not in result]
        if not good:
            table[name] = {"error": results[-1]["error"]}
            continue
        row = {measure: statistics.median(result[measure] for result in good) for measure in MEASURES}
        row["repeats"] = len(good)
        row["all_samples_per_processor_second"] = [
            round(result["samples_per_processor_second"], 1) for result in good
        ]
        pairs = [
            (results["evsnn"], results[name])
            for results in rounds
            if all("error" not in results.get(one, {"error": ""}) for one in ("evsnn", name))
        ]
        for measure in ("samples_per_second", "samples_per_processor_second"):
            if pairs and name != "evsnn":
                ratios = [ours[measure] / theirs[measure] for ours, theirs in pairs]
                row[f"evsnn_over_it_{measure}"] = statistics.median(ratios)
        if good[-1]["about"]:
            row["about"] = good[-1]["about"]
        table[name] = row
    return table


def seconds_to(curve, goal):
    """Processor seconds to the first point of a curve that reaches an accuracy; None if none does."""
    return next((point["processor_seconds"] for point in curve if point["accuracy"] >= goal), None)


def chosen(text, known, what):
    """Names of a list separated by commas."""
    names = [name for name in text.split(",") if name]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise click.UsageError(f"{what} {', '.join(wrong)} unknown; known are {', '.join(known)}")
    return names


@click.command(help=__doc__)
@click.option("--peers", default=",".join(PEERS), show_default=True)
@click.option("--workloads", default=",".join(WORKLOADS), show_default=True)
@click.option("--tasks", default="train,infer,accuracy", show_default=True)
@click.option("--repeats", default=3, show_default=True, help="Rounds of training and simulation.")
@click.option("--seconds", default=5.0, show_default=True, help="Of a measurement, at least one batch.")
@click.option("--accuracy-seconds", default=120.0, show_default=True, help="Of training, processor time.")
@click.option("--accuracy-workloads", default="mnist-25,nmnist-300", show_default=True)
@click.option("--goal", default=0.98, show_default=True, help="Accuracy at which training on MNIST stops.")
@click.option("--train-samples", default=50_000, show_default=True, help="Digits to learn from.")
@click.option("--validation-samples", default=5_000, show_default=True, help="Digits to measure accuracy on.")
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds of a measurement at most.")
@click.option("--cache", type=click.Path(path_type=Path), default=CACHE, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Written again after every measurement.")
def main(
    peers,
    workloads,
    tasks,
    repeats,
    seconds,
    accuracy_seconds,
    accuracy_workloads,
    goal,
    train_samples,
    validation_samples,
    timeout,
    cache,
    out,
):
    """Measure and print."""
    tasks = chosen(tasks, ("train", "infer", "accuracy"), "tasks")
    accuracy_workloads = chosen(accuracy_workloads, tuple(WORKLOADS), "workloads")
    cache = cache.resolve()
    result = {
        "settings": {"repeats": repeats, "seconds": seconds, "accuracy_seconds": accuracy_seconds},
        "environment": describe_environment(1),
        "peers": {},
        "workloads": {},
    }
    ready = []
    for name in chosen(peers, tuple(PEERS), "peers"):
        click.echo(f"{name}: making its environment", err=True)
        try:
            result["peers"][name] = make_environment(name, cache)
            ready.append(name)
        except NotInstalledError as error:
            result["peers"][name] = {"error": str(error)}
            click.echo(f"{name} does not install: {error}", err=True)

    def save():
        result["load_average"] = os.getloadavg()
        if out is not None:
            write_atomically(out, (json.dumps(result, indent=2) + "\n").encode())

    for workload in chosen(workloads, tuple(WORKLOADS), "workloads"):
        learned = "accuracy" in tasks and workload in accuracy_workloads
        n = train_samples if learned else min(train_samples, THROUGHPUT_SAMPLES)
        events = export(workload, cache, n, validation_samples)
        about = result["workloads"][workload] = json.loads((events / "about.json").read_text())
        for task in ("train", "infer"):
            if task not in tasks:
                continue
            taking_part = [
                name for name in ready if PEERS[name].learns or (task == "infer" and workload == SIMULATION)
            ]
            rounds = []
            for turn in range(repeats):
                rounds.append({})
                shift = turn % max(len(taking_part), 1)
                for name in taking_part[shift:] + taking_part[:shift]:
                    limit = ("--seconds", str(seconds), "--limit", str(PEERS[name].samples))
                    got = rounds[-1][name] = call(name, cache, events, task, timeout, *limit)
                    said = got.get("error") or f"{got['samples_per_processor_second']:.0f} samples a second"
                    click.echo(f"{workload} {task} {turn + 1}/{repeats} {name}: {said}", err=True)
                    about[task] = summary(rounds)
                    save()
        if learned:
            about["accuracy"] = {}
            for name in ready:
                if not PEERS[name].learns:
                    continue
                limit = ["--seconds", str(accuracy_seconds)]
                if WORKLOADS[workload].rate:
                    limit += ["--goal", str(goal)]
                got = call(name, cache, events, "accuracy", timeout, *limit)
                if "curve" in got:
                    got["best"] = max(point["accuracy"] for point in got["curve"])
                    got["processor_seconds_to"] = {
                        str(level): seconds_to(got["curve"], level) for level in (0.9, 0.95, 0.97, 0.98)
                    }
                about["accuracy"][name] = got
                said = got.get("error") or f"{got['best']:.4f} {got['processor_seconds_to']}"
                click.echo(f"{workload} accuracy {name}: {said}", err=True)
                save()
    click.echo(tables(result))


if __name__ == "__main__":
    main()
