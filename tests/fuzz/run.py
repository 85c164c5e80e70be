"""Fuzz the readers, guided by coverage (atheris): python tests/fuzz/run.py TARGET... --seconds N.

Each target runs in a process of its own, whose memory is bounded; a process that crashes or hangs is recorded
with its input and replaced. Inputs that are faults are kept in the folder that --out names, one for each
place in the code. The exit code is 1 if there were any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "kernels"), str(ROOT / "cli")]

#: What is instrumented: our readers and the parsers written in Python behind them.
GUIDED = (
    "evsnn.datasets.idx",
    "evsnn.datasets.recordings",
    "evsnn.encoders.settings",
    "evsnn.events.augment",
    "evsnn.events.core",
    "evsnn.events.file",
    "evsnn.hdf5",
    "evsnn.checkpoint",
    "evsnn.learning.settings",
    "evsnn.layers.settings",
    "evsnn.network.architecture",
    "evsnn.network.settings",
    "evsnn.network.build",
    "evsnn.training.config",
    "evsnn.training.run",
    "gzip",
    "zipfile",
    "tomllib",
    "json",
)
LONGEST_INPUT = 4096
#: What reading one input of a few kilobytes may add to the largest memory so far.
MOST_MEMORY_KB = 64 << 10
_COUNTS = struct.Struct("<5Q")
_FRESH = (0, 0, 0, 0, 0)


class Board:
    """Memory that a fuzzing process shares with the one that watches it, and leaves behind when it dies."""

    def __init__(self, path: Path) -> None:
        size = _COUNTS.size + LONGEST_INPUT
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)

    @property
    def counts(self) -> tuple[int, ...]:
        """Inputs tried, accepted, refused, faults; bytes of the input that is being read."""
        return _COUNTS.unpack_from(self._memory)

    @counts.setter
    def counts(self, values: tuple[int, ...]) -> None:
        _COUNTS.pack_into(self._memory, 0, *values)

    @property
    def current(self) -> bytes:
        """The input that is being read."""
        return self._memory[_COUNTS.size : _COUNTS.size + self.counts[4]]

    @current.setter
    def current(self, data: bytes) -> None:
        self._memory[_COUNTS.size : _COUNTS.size + len(data)] = data


def record(folder: Path, target: str, data: bytes, what: str, where: str) -> None:
    """Keep an input that is a fault, once for each place."""
    digest = hashlib.sha256(where.encode()).hexdigest()[:10]
    path = folder / f"{target}-{digest}"
    if not path.exists():
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(f"{where}\n{what}\n", encoding="utf-8")
        print(f"{target}: FAULT {where}: {path}", flush=True)


def fuzz(name: str, seconds: int, folder: Path, seed: int, memory_mb: int) -> None:
    """Fuzz one target in this process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=list(GUIDED)):
        from fuzz.targets import TARGETS, process_memory

        target = TARGETS[name]
    warnings.simplefilter("error")
    corpus = folder / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    for data in target.seeds():
        target(data)  # compiles kernels before memory and time are bounded
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    dictionary = folder / f"{name}.dict"
    dictionary.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in target.tokens)
    )
    resource.setrlimit(resource.RLIMIT_AS, (process_memory() + (memory_mb << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    board = Board(folder / f"{name}.board")
    tried, accepted, refused, faults, _ = board.counts
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def try_one(data: bytes) -> None:
        nonlocal tried, accepted, refused, faults, peak_kb
        tried += 1
        board.current = data
        board.counts = tried, accepted, refused, faults, len(data)
        try:
            if target(data):
                accepted += 1
            else:
                refused += 1
        except Exception as error:
            faults += 1
            place = next(
                (
                    frame
                    for frame in reversed(traceback.extract_tb(error.__traceback__))
                    if "/evsnn/" in frame.filename
                ),
                None,
            )
            at = f"{Path(place.filename).name}:{place.lineno}" if place else str(error)[:60]
            record(folder, name, data, traceback.format_exc(), f"{type(error).__name__} at {at}")
        now_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if now_kb > peak_kb + MOST_MEMORY_KB:
            faults += 1
            record(folder, name, data, f"{now_kb - peak_kb} KiB more", "memory")
        peak_kb = max(peak_kb, now_kb)
        board.counts = tried, accepted, refused, faults, len(data)

    atheris.Setup(
        [
            "fuzz",
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST_INPUT}",
            f"-seed={seed}",
            *([f"-dict={dictionary}"] if target.tokens else []),
            "-len_control=20",
            "-rss_limit_mb=0",
            "-timeout=1000000",
            "-verbosity=0",
            str(corpus),
        ],
        try_one,
    )
    atheris.Fuzz()


def watch(name: str, options: argparse.Namespace) -> dict[str, float | int | str]:
    """Fuzz one target in processes that may crash; return what was counted."""
    folder: Path = options.out
    board_path = folder / f"{name}.board"
    board_path.unlink(missing_ok=True)
    board = Board(board_path)
    board.counts = _FRESH
    begin = time.monotonic()
    spent = 0.0  # seconds in which inputs were tried, without the start of processes
    attempt = 0
    while (left := options.seconds - spent) >= 1 and attempt < 1000:
        command = [sys.executable, __file__, name, "--child", "--seconds", str(round(left))]
        command += [
            "--out",
            str(folder),
            "--seed",
            str(options.seed + attempt),
            "--memory",
            str(options.memory),
        ]
        attempt += 1
        before = board.counts
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stderr=log)
            started, moved, at = None, time.monotonic(), before[0]
            hung = False
            while process.poll() is None:
                time.sleep(0.2)
                now = time.monotonic()
                if board.counts[0] != at:
                    started = started or now
                    at, moved = board.counts[0], now
                elif started is not None and now - moved > options.patience:
                    hung = True
                    process.kill()
                    process.wait()
        spent += time.monotonic() - started if started else 0.0
        if hung or process.returncode < 0:
            why = "hang" if hung else f"died of {signal.Signals(-process.returncode).name}"
            tried, accepted, refused, faults, size = board.counts
            record(
                folder,
                name,
                board.current,
                f"{why}\n",
                f"{why} on {hashlib.sha256(board.current).hexdigest()[:8]}",
            )
            board.counts = tried, accepted, refused, faults + 1, size
        elif started is None or process.returncode:
            print(f"{name}: the fuzzer ended with {process.returncode}; see {folder / name}.log", flush=True)
            board.counts = *board.counts[:3], board.counts[3] + 1, 0
            break
    tried, accepted, refused, faults, _ = board.counts
    rate = tried / spent if spent else 0.0
    print(
        f"{name}: {tried} inputs, {accepted} accepted, {refused} refused, {faults} faults, "
        f"{rate:.0f} a second, {attempt} processes, {time.monotonic() - begin:.0f} s",
        flush=True,
    )
    return {"target": name, "inputs": tried, "accepted": accepted, "refused": refused, "faults": faults,
            "per_second": round(rate, 1), "processes": attempt}  # fmt: skip


def main() -> int:
    """Run the targets one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="name of a target, or all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="folder for faults and corpus")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default 1)")
    parser.add_argument(
        "--memory", type=int, default=512, help="MiB beyond what the readers need (default 512)"
    )
    parser.add_argument("--patience", type=float, default=20.0, help="seconds after which an input hangs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.resolve()
    if options.child:
        fuzz(options.targets[0], options.seconds, options.out, options.seed, options.memory)
        return 0
    from fuzz.targets import TARGETS

    names = list(TARGETS) if options.targets == ["all"] else options.targets
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    results = [watch(name, options) for name in names]
    total = sum(int(result["inputs"]) for result in results)
    faults = sum(int(result["faults"]) for result in results)
    print(f"{total} inputs, {faults} faults", flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    summary = {"command": " ".join(sys.argv), "machine": machine, "targets": results}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
