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


def chosen(text, known, what):
    """Names of a list separated by commas."""
    names = [name for name in text.split(",") if name]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise click.UsageError(f"{what} {', '.join(wrong)} unknown; known are {', '.join(known)}")
    return names


class Comparison:
    """Runs peers and keeps what they measured; the result is written after every measurement.

    Parameters
    ----------
    settings : dict
        The options of the command.
    cache : Path
        Environments and events.
    out : Path or None
        JSON file.
    """

    def __init__(self, settings, cache, out):
        self.settings = settings
        self.cache = cache
        self.out = out
        self.folders = {}
        self.rounds = {}
        self.result = {
            "settings": settings,
            "environment": describe_environment(1),
            "peers": {},
            "workloads": {},
        }

    def install(self, names):
        """Make environments; return the peers that have one."""
        ready = []
        for name in names:
            click.echo(f"{name}: making its environment", err=True)
            try:
                self.result["peers"][name] = make_environment(name, self.cache)
                ready.append(name)
            except NotInstalledError as error:
                self.result["peers"][name] = {"error": str(error)}
                click.echo(f"{name} does not install: {error}", err=True)
        return ready

    def export(self, workload, train, validation):
        """Write the events of a workload."""
        folder = self.folders[workload] = export(workload, self.cache, train, validation)
        self.result["workloads"][workload] = {"events": json.loads((folder / "about.json").read_text())}

    def measure(self, workload, task, names, turn):
        """One round of training or simulation, each time beginning with another peer."""
        rounds = self.rounds.setdefault((workload, task), [])
        rounds.append({})
        shift = turn % max(len(names), 1)
        for name in names[shift:] + names[:shift]:
            got = self._call(
                name,
                workload,
                task,
                ("--seconds", str(self.settings["seconds"]), "--limit", str(PEERS[name].samples)),
            )
            rounds[-1][name] = got
            self.result["workloads"][workload][task] = summary(rounds)
            said = got.get("error") or f"{got['samples_per_processor_second']:.0f} samples a second"
            self._note(f"{workload} {task}, round {turn + 1}, {name}: {said}")

    def learn(self, workload, name):
        """Accuracy against seconds."""
        options = ["--seconds", str(self.settings["accuracy_seconds"])]
        if WORKLOADS[workload].rate:
            options += ["--goal", str(self.settings["goal"])]
        got = self._call(name, workload, "accuracy", options)
        said = got.get("error")
        if said is None:
            last = got["curve"][-1]
            said = f"{last['accuracy']:.2%} after {last['processor_seconds']:.1f} s"
        self.result["workloads"][workload].setdefault("accuracy", {})[name] = got
        self._note(f"{workload} accuracy, {name}: {said}")

    def _call(self, name, workload, task, options):
        return call(name, self.cache, self.folders[workload], task, self.settings["timeout"], *options)

    def _note(self, line):
        click.echo(line, err=True)
        self.result["load_average"] = os.getloadavg()
        if self.out is not None:
            write_atomically(self.out, (json.dumps(self.result, indent=2) + "\n").encode())


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
@click.option("--cache", type=click.Path(path_type=Path), default=CACHE, show_default="the user's cache")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Written again after every measurement.")
def main(
    peers, workloads, tasks, accuracy_workloads, train_samples, validation_samples, cache, out, **settings
):
    """Measure and print."""
    tasks = chosen(tasks, ("train", "infer", "accuracy"), "tasks")
    workloads = chosen(workloads, tuple(WORKLOADS), "workloads")
    learned = chosen(accuracy_workloads, tuple(WORKLOADS), "workloads") if "accuracy" in tasks else []
    comparison = Comparison(settings, cache.resolve(), out)
    ready = comparison.install(chosen(peers, tuple(PEERS), "peers"))
    for workload in workloads:
        train = train_samples if workload in learned else min(train_samples, THROUGHPUT_SAMPLES)
        comparison.export(workload, train, validation_samples)
    learning = [name for name in ready if PEERS[name].learns]
    for turn in range(settings["repeats"]):
        for workload in workloads:
            if "train" in tasks:
                comparison.measure(workload, "train", learning, turn)
            if "infer" in tasks:
                comparison.measure(workload, "infer", ready if workload == SIMULATION else learning, turn)
    for workload in workloads:
        if workload in learned:
            for name in learning:
                comparison.learn(workload, name)
    click.echo(tables(comparison.result))


if __name__ == "__main__":
    main()
