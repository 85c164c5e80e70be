"""What has to be seen on a real card, in one command. Nobody here has one: please send the JSON back.

1. The twin tests run on the card (``tests/cuda``): kernels, memory, streams.
2. Networks learn on the CPU and on the card; models and checkpoints must hold the same bits. The first batch
   whose loss differs is not known then, but the layer is.
3. Speed of training and of classification on both, in the same run, batch by batch size.

    pip install 'evsnn[cuda12,test]'        # or cuda13, by the driver
    python benchmarks/gpu_acceptance.py --json acceptance.json

About ten minutes on a card with 16 CPU cores. ``--quick`` takes part of the digits and one epoch. Under
``NUMBA_ENABLE_CUDASIM=1`` a tiny run shows that the script itself works.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

import click
import h5py
import numpy as np
from click.testing import CliRunner
from evsnn_cli.main import cli

from evsnn.backends.system import find_cuda
from evsnn.environment import describe_environment

HERE = Path(__file__).resolve().parent
DENSE = "784-800-10"
CONV = "28x28-20C5-P2-50C5-P2-200-10"
RECORDINGS = "34x34x2-12C5-P2-64C5-P2-10"
#: Inhibition, refractory period, traces, squared error and regularisers: what the default leaves out.
PAPER = "--preset paper"


def command(*words) -> str:
    """Run an evsnn command in this process, where kernels are compiled once."""
    done = CliRunner().invoke(cli, [str(word) for word in words])
    if done.exit_code:
        error = "".join(traceback.format_exception(*done.exc_info)) if done.exc_info else ""
        raise RuntimeError(f"evsnn {' '.join(map(str, words))}: {done.output}{error}")
    return done.stdout


def differences(one: Path, other: Path) -> list[str]:
    """Arrays of two model files whose bits differ, with how many of their values do."""
    found = []
    with h5py.File(one) as a, h5py.File(other) as b:
        names = []
        a.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            x, y = a[name][()], b[name][()]
            if x.tobytes() != y.tobytes():
                found.append(f"{name}: {int((x != y).sum())} of {x.size} values")
    return found


def suite() -> dict:
    """Twin tests on the card, or in the simulator if that is what runs here."""
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    environment = os.environ | ({} if simulated else {"EVSNN_TEST_CARD": "1"})
    tests = HERE.parent / "tests" / "cuda"
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rfEs",
        "--tb=short",
        str(tests),
    ]
    begin = time.perf_counter()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    result = {"exit_code": done.returncode, "seconds": round(time.perf_counter() - begin), **counts}
    if done.returncode:
        result["output"] = done.stdout[-20_000:] + done.stderr[-2_000:]
    return result


def compare(name, data, options, epochs, folder) -> dict:
    """Learn on both, compare the bits, classify with both."""
    results, models = {}, {}
    for backend in ("cpu", "cuda"):
        out = folder / f"{name}-{backend}"
        words = ["train", *data, *options.split(), "--epochs", epochs, "--backend", backend, "--out", out]
        command(*words)
        models[backend] = out
        trained = json.loads((out / "result.json").read_text())
        begin = time.perf_counter()
        answer = json.loads(command("evaluate", out, *data, "--backend", backend, "--json"))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        results[backend] = {
            "test_accuracy": trained["test_accuracy"],
            # The first epoch compiles.
            "training_samples_per_second": round(lines[-1]["samples_per_second"], 1),
            "seconds_an_epoch": [round(line["seconds"], 2) for line in lines],
            "evaluate_seconds": round(time.perf_counter() - begin, 2),
            "evaluate_accuracy": answer["accuracy"],
            "loss": [line["loss"] for line in lines],
        }
    files = ("model.h5", "checkpoint.h5")
    found = {file: differences(models["cpu"] / file, models["cuda"] / file) for file in files}
    speeds = [results[backend]["training_samples_per_second"] for backend in ("cuda", "cpu")]
    return {
        "command": " ".join(map(str, words[:-4])),
        "same_bits": not any(found.values()),
        "differences": found,
        "training_speedup": round(speeds[0] / max(speeds[1], 1e-9), 2),
        **results,
    }


def memory_speed(megabytes=256, repeats=5) -> dict:
    """GB/s from pinned memory to the card and inside it: what the figures above are to be judged by."""
    from numba import cuda

    source = cuda.pinned_array(megabytes << 18, np.float32)
    source[:] = 1
    target, other = cuda.device_array_like(source), cuda.device_array_like(source)
    seconds = {"upload": [], "copy": []}
    for _ in range(repeats):
        for name, move in (
            ("upload", lambda: target.copy_to_device(source)),
            ("copy", lambda: other.copy_to_device(target)),
        ):
            cuda.synchronize()
            begin = time.perf_counter()
            move()
            cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    moved = {"upload": source.nbytes, "copy": 2 * source.nbytes}
    return {f"{name}_gb_s": round(moved[name] / min(times) / 1e9, 1) for name, times in seconds.items()}


@click.command()
@click.option("--quick/--full", default=False, show_default=True, help="Part of the digits, one epoch.")
@click.option("--suite/--no-suite", "with_suite", default=True, show_default=True)
@click.option("--limit", type=int, help="Digits to learn from, for a run that shows the script works.")
@click.option(
    "--json", "target", type=click.Path(path_type=Path), default="acceptance.json", show_default=True
)
def main(quick, with_suite, limit, target):
    """Compare a card with the CPU, bit by bit, and time both."""
    cuda = find_cuda()
    if cuda.problem is not None:
        sys.exit(f"gpu_acceptance: {cuda.problem}")
    target = target.resolve()
    about = asdict(cuda) | {"environment": describe_environment(os.cpu_count() or 1)}
    result = {"command": " ".join(sys.argv), "system": about, "comparisons": {}, "failures": []}
    simulated = cuda.simulated

    def save():
        target.write_text(json.dumps(result, indent=1, default=str) + "\n")

    def attempt(name, work):
        begin = time.perf_counter()
        try:
            value = work()
        except Exception:  # whatever happens on a card, the rest is still worth knowing
            result["failures"].append({"step": name, "error": traceback.format_exc()[-8000:]})
            value = None
        click.echo(
            f"{name}: {'FAILED' if value is None else 'done'}, {time.perf_counter() - begin:.0f} s", err=True
        )
        save()
        return value

    if not simulated:
        result["memory"] = attempt("memory", memory_speed)
    epochs = 1 if quick or limit else 3
    less = f" --limit {limit or 10_000}" if quick or limit else ""
    small = "--limit 20" if limit else ""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        digits, recordings = folder / "mnist.h5", folder / "nmnist.h5"
        mnist = ["convert-mnist", HERE / "data" / "mnist", "--validation", 10_000, "-o", digits]
        archive = ["convert-nmnist", HERE / "data" / "nmnist-800.zip", "-o", recordings]
        if limit:
            mnist = ["convert-mnist", "--embedded", "-o", digits, "--limit", 2 * limit, "--rate", 1]
            archive += ["--limit", 20, "--stop", 5, "--validation", 4, "--test", 4]
        else:
            archive += ["--validation", 100, "--test", 100]
        attempt("convert-mnist", lambda: command(*mnist))
        attempt("convert-nmnist", lambda: command(*archive))
        plan = {
            "dense": (digits, f"--arch {DENSE}{less}", epochs),
            "dense, batch 1000": (digits, f"--arch {DENSE} --batch-size 1000{less}", epochs),
            "paper": (digits, f"--arch {DENSE} {PAPER}{less or ' --limit 20000'}", 1),
            "conv": (digits, f"--arch {CONV}{less}", 1 if quick or limit else 2),
            "conv, batch 500": (digits, f"--arch {CONV} --batch-size 500{less}", 1 if quick or limit else 2),
            "recordings": (recordings, f"--arch {RECORDINGS} {small}", 2 if not limit else 1),
        }
        if limit:
            plan = {
                "dense": (digits, f"--arch 784-16-10{less} --alpha 4,2", 1),
                "recordings": (recordings, "--arch 34x34x2-2C5-P2-10 --no-augment", 1),
            }
        for step, (data, options, n) in plan.items():
            slug = re.sub(r"\W+", "-", step)
            found = attempt(step, lambda a=slug, b=data, c=options, d=n: compare(a, [b], c, d, folder))
            if found is not None:
                result["comparisons"][step] = found
                save()
    if with_suite:
        result["suite"] = attempt("suite", suite)
        save()
    comparisons = result["comparisons"]
    for step, found in comparisons.items():
        line = f"{step}: {'same bits' if found['same_bits'] else 'DIFFERENT: ' + str(found['differences'])}"
        speeds = [found[backend]["training_samples_per_second"] for backend in ("cuda", "cpu")]
        click.echo(f"{line}; {speeds[0]} samples/s on CUDA, {speeds[1]} on the CPU")
    ran = result.get("suite")
    if ran:
        click.echo(
            "suite: " + ", ".join(f"{ran.get(name, 0)} {name}" for name in ("passed", "failed", "skipped"))
        )
    click.echo(f"written to {target}")
    good = len(comparisons) == len(plan) and all(found["same_bits"] for found in comparisons.values())
    if result["failures"] or not good or (ran and ran["exit_code"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
