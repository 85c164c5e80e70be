"""The events that all peers see, written once: binned to time steps, at most one for each step and unit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from common import STEP_US, StoredEvents, shuffled_batches
from with_evsnn import EvsnnPeer

from evsnn import open_events
from evsnn.backends import CpuBackend
from evsnn.datasets.division import deal
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import load_idx_folder
from evsnn.datasets.nmnist import RecordingSettings, convert_nmnist
from evsnn.encoders import EncoderSettings
from evsnn.events.core import EventSet

DATA = Path(__file__).resolve().parent.parent / "data"
#: Recordings of which every fifth is held out.
FOLDS = 5
#: Samples that are binned at a time.
BLOCK = 2000
#: Steps of training behind the weights that simulators get.
STEPS = 150


@dataclass(frozen=True)
class Workload:
    """What is learned.

    Parameters
    ----------
    n_steps : int
        Time steps of a millisecond; later events are dropped.
    rate : float
        Events of a pixel of full intensity; 0 for recordings.
    """

    n_steps: int
    rate: float


WORKLOADS = {
    "mnist-25": Workload(25, 25.0),
    "mnist-100": Workload(100, 20.0),
    "nmnist-300": Workload(300, 0.0),
}


def bin_events(data: EventSet, n_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, units and offsets of the events before the last step, each step and unit of a sample once."""
    blocks = [
        _bin_block(data.part(low, min(low + BLOCK, len(data))), n_steps) for low in range(0, len(data), BLOCK)
    ]
    steps, units, counts = (np.concatenate(part) for part in zip(*blocks, strict=True))
    offsets = np.zeros(len(data) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return steps, units, offsets


def _bin_block(data: EventSet, n_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sample = np.repeat(np.arange(len(data)), np.diff(data.offsets))
    step = data.times.astype(np.int64) // STEP_US
    key = (sample * n_steps + step) * data.n_inputs + data.units
    key = np.sort(key[step < n_steps])  # np.unique takes a hundred times as long
    key = key[np.diff(key, prepend=-1) > 0]
    row, unit = np.divmod(key, data.n_inputs)
    sample, step = np.divmod(row, n_steps)
    return step.astype(np.uint16), unit.astype(np.uint16), np.bincount(sample, minlength=len(data))


def export(name: str, cache: Path, train: int, validation: int) -> Path:
    """Write the events of a workload, and weights of a network that learned some of them; return the folder.

    What is there already is not written again.

    Parameters
    ----------
    name : str
    cache : Path
    train, validation : int
        Digits of MNIST to learn from and, from the end of the training set, to measure accuracy on. Of the
        800 recordings every fifth is held out, whatever these say.
    """
    workload = WORKLOADS[name]
    folder = cache / "events" / (f"{name}-{train}-{validation}" if workload.rate else name)
    if (folder / "weights.npz").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    splits = _digits(workload, train, validation) if workload.rate else _recordings(folder)
    about = {"n_steps": workload.n_steps, "n_inputs": splits["train"].n_inputs}
    for split, data in splits.items():
        arrays = dict(zip(("steps", "units", "offsets"), bin_events(data, workload.n_steps), strict=True))
        for array, values in (arrays | {"labels": data.labels}).items():
            np.save(folder / f"{split}-{array}.npy", values)
        about[split] = {"samples": len(data), "events_per_sample": len(arrays["steps"]) / len(data)}
    (folder / "about.json").write_text(json.dumps(about))
    events = StoredEvents.read(folder, "train")
    peer = EvsnnPeer(events.n_inputs, events.n_steps, seed=0)
    for samples in islice(shuffled_batches(len(events), 0), STEPS):
        peer.train(peer.place(events, samples), events.labels[samples], 1.0)
    first, second = peer.scaled()
    np.savez(folder / "weights.npz", first=first, second=second)
    return folder


def _digits(workload: Workload, train: int, validation: int) -> dict[str, EventSet]:
    images = load_idx_folder(DATA / "mnist")["train"]
    settings = EncoderSettings(rate=workload.rate, duration_ms=float(workload.n_steps), resolution_us=STEP_US)
    n = len(images)
    parts = {
        "train": images.part(0, min(train, n - validation)),
        "validation": images.part(n - validation, n),
    }
    with CpuBackend(1) as backend:
        return {name: encode_images(part, settings, 0, backend) for name, part in parts.items()}


def _recordings(folder: Path) -> dict[str, EventSet]:
    path = folder / "recordings.h5"
    convert_nmnist(DATA / "nmnist-800.zip", path, RecordingSettings(), force=True)
    with open_events(path) as file:
        data = file["train"].load()
    held_out = deal(data.labels, FOLDS) == FOLDS - 1
    return {
        "train": data.select(np.flatnonzero(~held_out)),
        "validation": data.select(np.flatnonzero(held_out)),
    }
