"""What every CUDA kernel needs on a card: registers, shared memory, spills, stack, occupancy. No card needed.

Tiny networks are trained on the CPU; whatever types, and sizes of shared memory, the kernels get there, their
CUDA twins are compiled for, to PTX and on to machine code. With a disassembler, that code is read, too:
accesses to local memory, fused operations where the kernel divides nothing, and the innermost loops.

    pip install evsnn[cuda12] nvidia-cuda-nvdisasm
    python benchmarks/gpu_resources.py --by-default --json benchmarks/results/gpu_resources.json --code sass
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import evsnn_kernels.cpu
import evsnn_kernels.cuda
import machine_code
import numba
import numpy as np
from click.testing import CliRunner
from evsnn_cli.main import cli
from evsnn_kernels.cpu import queue

from evsnn.backends import CpuBackend
from evsnn.environment import describe_environment, package_version

TARGETS = ((8, 0), (9, 0))

#: Shared memory of a multiprocessor in bytes (CUDA C Programming Guide, compute capabilities).
SHARED = {(8, 0): 164 * 1024, (9, 0): 228 * 1024}

#: Kernels that prepare files, on the host, and those that measure what a processor can do at all.
HOST_ONLY = ("recording", "stream")

#: Commands that between them call every kernel.
RUNS = (
    "train --arch 28x28-4C5-P2-4C3-10 --set network.refractory_ms=1",
    "train --arch 784-40-10 --optimizer sgd --kappa -0.1 --set learning.loss=mse"
    " --set learning.activity=trace --set learning.max_norm=2 --set learning.norm_strength=0.01"
    " --set learning.threshold_balance=0.001",
    "convert-mnist --embedded --encoder saccade -o saccade.h5",
    "train saccade.h5 --arch 34x34x2-4C5-10 --augment --set augment_events.shift=2"
    " --set augment_events.always=true --no-fresh",
)
SMALL = "--limit 20 --threads 1"


def exercise() -> dict:
    """Arguments with which the library calls each kernel, largest last."""
    calls = {}
    plain = CpuBackend.run

    def run(self, kernel, size, *arguments, **options):
        name = f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}"
        calls.setdefault(name, []).append((*arguments, 0, size))
        plain(self, kernel, size, *arguments, **options)

    CpuBackend.run = run
    try:
        for number, command in enumerate(RUNS):
            more = f"--epochs 1 --out run{number}" if command.startswith("train") else ""
            result = CliRunner().invoke(cli, f"{command} {SMALL} {more}".split())
            if result.exit_code:
                raise SystemExit(f"evsnn {command}: {result.output}{result.exception}")
        # Only a device needs to be told later that a queue was too small.
        slot, count = np.arange(0, 101, 10), np.full(10, 3)
        CpuBackend(1).run(queue.admit, 10, slot, count, np.empty(10, np.int64), np.zeros(1, np.int64))
    finally:
        CpuBackend.run = plain
    return calls


def signatures(function) -> list:
    """Types for which a CPU kernel was called; a device array can always be written."""
    found = []
    for signature in function.signatures:
        types = tuple(t.copy(readonly=False) if isinstance(t, numba.types.Array) else t for t in signature)
        if types not in found:
            found.append(types)
    return found


def occupancy(cc, threads, registers, shared) -> float:
    """Share of a multiprocessor's 64 warps that are resident."""
    warps = -(-threads // 32)
    by_registers = 65536 // (-(-registers * 32 // 256) * 256 * warps)
    by_shared = SHARED[cc] // (-(-(shared + 1024) // 128) * 128)
    return min(32, 64 // warps, by_registers, by_shared) * warps / 64


def twins():
    """Every CPU kernel that was called, with its name and CUDA twin; None where there is none."""
    for module in pkgutil.iter_modules(evsnn_kernels.cpu.__path__):
        cpu = importlib.import_module(f"evsnn_kernels.cpu.{module.name}")
        for name, function in vars(cpu).items():
            if not hasattr(function, "signatures") or function.__module__ != cpu.__name__:
                continue
            try:
                twin = getattr(importlib.import_module(f"evsnn_kernels.cuda.{module.name}"), name)
            except (ImportError, AttributeError):
                twin = None
            yield f"{module.name}.{name}", function, twin


def read_code(ptx, cubin) -> tuple[dict, dict, str]:
    """Columns of the table that the machine code fills, its loops, and its text."""
    sass = machine_code.disassemble(cubin)
    code = machine_code.read(sass)
    # Division and square root are made of fused operations, and round correctly all the same.
    divides = re.search(r"(div|sqrt|rcp)\.rn", ptx)
    columns = {
        "local": code.count(machine_code.LOCAL),
        "fused": 0 if divides else code.count(machine_code.FUSED),
    }
    loops = [
        {
            "instructions": loop.instructions,
            "float_operations": loop.float_operations,
            "global_loads": loop.global_loads,
            "operations": loop.operations,
        }
        for loop in code.arithmetic_loops()
    ]
    return columns, {"loops": loops}, sass


def measure(launch, calls, folder, by_default) -> tuple[list, list, list]:
    """Rows of the table, kernels without a row and why, and the loops of each kernel."""
    rows, missing, loops = [], [], []
    reads_code = machine_code.find_nvdisasm() is not None
    for name, function, twin in twins():
        if name.partition(".")[0] in HOST_ONLY:
            continue
        if twin is None or not signatures(function):
            missing.append(f"{name}: {'no twin' if twin is None else 'not called'}")
            continue
        arguments = calls.get(name, [()])
        threads = max(twin.threads(*a) for a in arguments)
        dynamic = max(twin.shared_bytes(*a) if a else 0 for a in arguments)
        for types in signatures(function):
            for cc in TARGETS:
                try:
                    ptx = twin.ptx(types, cc)
                except launch.FloatPolicyError as error:
                    missing.append(f"{name}: {error}")
                    break
                found = launch.assemble(ptx, cc)
                row = {
                    "kernel": name,
                    "target": f"sm_{cc[0]}{cc[1]}",
                    "threads": threads,
                    "registers": found.registers,
                    "shared_static": found.shared_bytes,
                    "shared_dynamic": dynamic,
                    "stack": found.stack_bytes,
                    "spills": found.spill_bytes,
                    "code_bytes": len(found.cubin),
                }
                if by_default:
                    row["fused_by_default"] = twin.ptx(types, cc, exact=False).count("fma.rn.f")
                shared = found.shared_bytes + dynamic
                row["occupancy"] = occupancy(cc, threads, found.registers, shared)
                sass = ""
                if reads_code:
                    columns, about, sass = read_code(ptx, found.cubin)
                    row |= columns
                    loops.append({"kernel": name, "target": row["target"]} | about)
                rows.append(row)
                if folder:
                    stem = f"{name}.{row['target']}"
                    (folder / f"{stem}.ptx").write_text(ptx)
                    (folder / f"{stem}.cubin").write_bytes(found.cubin)
                    (folder / f"{stem}.sass").write_text(sass)
    return rows, missing, loops


@click.command()
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the table there, too.")
@click.option(
    "--by-default/--no-by-default",
    default=False,
    show_default=True,
    help="Also compile as numba.cuda does by itself, and count the fused operations that this would have.",
)
@click.option(
    "--code", type=click.Path(path_type=Path), help="Folder for PTX, cubin and SASS of every kernel."
)
def main(target, by_default, code) -> None:
    """Print registers, shared memory, spills, stack and occupancy of every CUDA kernel."""
    try:
        from evsnn_kernels.cuda import launch

        ready = launch.find_ptxas() is not None
    except ImportError:
        ready = False
    if not ready:
        sys.exit("gpu_resources: no CUDA assembler; pip install evsnn[cuda12] (no card is needed)")
    target = target.resolve() if target else None
    if code:
        code.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        calls = exercise()
    try:
        rows, missing, loops = measure(launch, calls, code, by_default)
    except subprocess.CalledProcessError as error:
        sys.exit(f"gpu_resources: {error.cmd[0]} refuses the kernel: {error.stderr.strip().splitlines()[0]}")
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in rows[0]}
    for row in (dict(zip(widths, widths, strict=True)), *rows):
        click.echo("  ".join(f"{row[name]:>{width}}" for name, width in widths.items()))
    for line in missing:
        click.echo(f"missing: {line}")
    if target:
        about = describe_environment(1) | {"numba-cuda": package_version("numba-cuda")}
        result = {"command": " ".join(["python", *sys.argv]), "machine": about}
        result |= {"kernels": rows, "missing": missing, "loops": loops}
        target.write_text(json.dumps(result, indent=1) + "\n")
    if missing or any(row.get(name) for row in rows for name in ("spills", "stack", "local", "fused")):
        sys.exit(1)


if __name__ == "__main__":
    main()
