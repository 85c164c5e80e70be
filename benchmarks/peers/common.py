"""What every peer's process does: read the stored events, run the peer, print what was measured.

Runs in the environments of the peers, so it needs NumPy alone. A peer is a class with

    ``Peer(task)``                      builds the network
    ``place(events, samples)``          puts a batch in the form that it reads; not timed
    ``train(batch, labels, rate)``      one step of training, at this share of its learning rate
    ``infer(batch)``                    predicted classes

and its file ends with ``main(Peer)``. A peer that is compiled for its input says ``one_batch = True`` and is
run on the first batch again and again; ``batch_size`` is that of its measurements.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN = 800
CLASSES = 10
BATCH = 100
#: Of every simulator: membrane time constant over a time step of one millisecond.
TAU_MS = 20.0
BETA = math.exp(-1.0 / TAU_MS)
STEP_US = 1000


@dataclass(frozen=True, eq=False)
class StoredEvents:
    """Events on a grid of time steps, at most one for each step and unit of a sample.

    Parameters
    ----------
    steps, units : ndarray of uint16, shape (n_events,)
        Sorted by step, then unit, in each sample.
    offsets : ndarray of int64, shape (n_samples + 1,)
    labels : ndarray of int64, shape (n_samples,)
    n_inputs, n_steps : int
    """

    steps: np.ndarray
    units: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    n_inputs: int
    n_steps: int

    @classmethod
    def read(cls, folder: Path, split: str) -> StoredEvents:
        """Open the arrays of a split; they are read from disk where they are used."""
        about = json.loads((folder / "about.json").read_text())
        arrays = [
            np.load(folder / f"{split}-{name}.npy", mmap_mode="r") for name in ("steps", "units", "offsets")
        ]
        labels = np.load(folder / f"{split}-labels.npy").astype(np.int64)
        return cls(*arrays, labels, about["n_inputs"], about["n_steps"])

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps and units of one sample."""
        low, high = self.offsets[index : index + 2]
        return np.asarray(self.steps[low:high]), np.asarray(self.units[low:high])

    def gather(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps, units and position in the batch of all events of some samples, sample by sample."""
        parts = [self.sample(int(index)) for index in samples]
        where = np.repeat(np.arange(len(parts)), [len(steps) for steps, _ in parts])
        return (
            np.concatenate([steps for steps, _ in parts]).astype(np.int64),
            np.concatenate([units for _, units in parts]).astype(np.int64),
            where,
        )

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """Binary frames of a batch: float32, shape (n_steps, n_samples, n_inputs)."""
        steps, units, where = self.gather(samples)
        frames = np.zeros((self.n_steps, len(samples), self.n_inputs), np.float32)
        frames[steps, where, units] = 1.0
        return frames

    def rows(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same frames as a sparse matrix in CSR form, of ``n_steps * n_samples`` rows.

        Returns
        -------
        pointer : ndarray of int64, shape (n_steps * n_samples + 1,)
        columns : ndarray of int64, shape (n_events,)
            Those of row ``step * n_samples + sample`` lie at ``pointer[row]:pointer[row + 1]``.
        """
        steps, units, where = self.gather(samples)
        row = steps * len(samples) + where
        order = np.argsort(row, kind="stable")
        pointer = np.zeros(self.n_steps * len(samples) + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=len(pointer) - 1), out=pointer[1:])
        return pointer, units[order]


class Peer:
    """What peers have in common."""

    batch_size = BATCH
    one_batch = False
    #: Steps before the clock starts.
    warm_steps = 1

    def __init__(self) -> None:
        #: What else is to be known of a measurement.
        self.about: dict[str, Any] = {}


def shuffled_batches(n: int, seed: int, size: int = BATCH) -> Iterator[np.ndarray]:
    """Batches of samples in random order, epoch after epoch; incomplete ones are left out."""
    if n < size:
        raise ValueError(f"a batch of {size} samples of {n}")
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(n)
        for low in range(0, n - n % size, size):
            yield order[low : low + size]


def memory_mb(field: str) -> float:
    """A figure of this process's memory in MiB: ``VmRSS`` now, ``VmHWM`` at most since it was cleared."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise ValueError(field)


def clear_peak() -> None:
    """Forget the largest memory so far."""
    Path("/proc/self/clear_refs").write_text("5")


@dataclass
class Clock:
    """Wall and processor time of what runs inside ``with clock:``, in this process and those it started."""

    wall: float = 0.0
    processor: float = 0.0

    def __enter__(self) -> Clock:
        self._begin = time.perf_counter(), self._used()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall += time.perf_counter() - self._begin[0]
        self.processor += self._used() - self._begin[1]

    @staticmethod
    def _used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime


def throughput(peer: Any, events: StoredEvents, seconds: float, learns: bool, limit: int) -> dict[str, Any]:
    """Samples a second of one step after the other for some seconds, after some that are not counted."""
    clock = Clock()
    done = n_events = 0
    before = memory_mb("VmRSS")
    clear_peak()
    batches = shuffled_batches(len(events), 0, min(peer.batch_size, limit))
    chosen = next(batches)
    batch = peer.place(events, chosen)
    for _ in range(peer.warm_steps):
        _step(peer, batch, events.labels[chosen], learns)
    while True:
        if not peer.one_batch:
            chosen = next(batches)
            batch = peer.place(events, chosen)
        with clock:
            _step(peer, batch, events.labels[chosen], learns)
        done += len(chosen)
        n_events += int((events.offsets[chosen + 1] - events.offsets[chosen]).sum())
        if clock.wall >= seconds or done >= limit:
            break
    return {
        "samples": done,
        "events_per_sample": n_events / done,
        "seconds": clock.wall,
        "processor_seconds": clock.processor,
        "samples_per_second": done / clock.wall,
        "samples_per_processor_second": done / clock.processor,
        "memory_before_mb": before,
        "peak_memory_mb": memory_mb("VmHWM"),
    }


def _step(peer: Any, batch: Any, labels: np.ndarray, learns: bool) -> None:
    if learns:
        peer.train(batch, labels, 1.0)
    else:
        peer.infer(batch)


def accuracy(peer: Any, held_out: StoredEvents) -> float:
    """Share of right answers."""
    right = 0
    for low in range(0, len(held_out), BATCH):
        samples = np.arange(low, min(low + BATCH, len(held_out)))
        right += int((peer.infer(peer.place(held_out, samples)) == held_out.labels[samples]).sum())
    return right / len(held_out)


def accuracy_over_time(
    peer: Any, events: StoredEvents, held_out: StoredEvents, seconds: float, goal: float, seed: int
) -> list[dict[str, float]]:
    """Train for some seconds of processor time; the clock stands still while accuracy is measured.

    The learning rate falls in a straight line to 0. Ends early when an accuracy of ``goal`` is reached.
    """
    clock = Clock()
    curve = []
    mark = max(seconds / 100, 0.5)
    done = 0
    for samples in shuffled_batches(len(events), seed):
        batch = peer.place(events, samples)
        rate = max(1.0 - clock.processor / seconds, 0.0) if seconds else 1.0
        with clock:
            peer.train(batch, events.labels[samples], rate)
        done += len(samples)
        over = clock.processor >= seconds
        if over or clock.processor >= mark:
            share = accuracy(peer, held_out)
            curve.append(
                {
                    "processor_seconds": clock.processor,
                    "seconds": clock.wall,
                    "samples": done,
                    "accuracy": share,
                }
            )
            mark = clock.processor * 1.25
            if over or share >= goal:
                return curve
    return curve


def run_on_one_core() -> None:
    """Keep this process, and all its threads, on one processor."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def main(make: Any) -> None:
    """Read the arguments, do the task, print the result as one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=Path, help="folder of stored events")
    parser.add_argument("task", choices=["train", "infer", "accuracy"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--limit", type=int, default=1_000_000, help="samples at most")
    parser.add_argument("--goal", type=float, default=2.0, help="accuracy at which to stop")
    parser.add_argument("--seed", type=int, default=0)
    task = parser.parse_args()
    run_on_one_core()
    events = StoredEvents.read(task.events, "train")
    peer = make(events, task)
    if task.task == "accuracy":
        held_out = StoredEvents.read(task.events, "validation")
        result: Any = {
            "curve": accuracy_over_time(peer, events, held_out, task.seconds, task.goal, task.seed)
        }
    else:
        result = throughput(peer, events, task.seconds, task.task == "train", task.limit)
    result["about"] = peer.about
    print(json.dumps(result))
