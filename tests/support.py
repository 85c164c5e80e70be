"""Helpers of several tests; nothing here computes what is tested."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from evsnn_cli.main import main

from evsnn.backends import CpuBackend
from evsnn.checkpoint import load_model
from evsnn.events.core import EventSet
from evsnn.events.queue import HostQueue
from evsnn.events.writer import EventWriter
from evsnn.layers import Dense, Layer, LayerState, NeuronSettings, SpikingLayer
from evsnn.learning import Gradient, LearningSettings, backpropagate, losses
from evsnn.network import Network, Pass

#: Options of `evsnn train` that make a run take a moment.
SMALL = ("--arch", "784-16-10", "--limit", "60", "--alpha", "4,3", "--batch-size", "10")


def queue_of(samples: list[tuple[np.ndarray, np.ndarray]]) -> HostQueue:
    """One queue of several samples, each given by times and units, with gaps between the slots."""
    gap = 3
    total = sum(len(times) + gap for times, _ in samples)
    times = np.full(total, 2**32 - 1, np.uint32)
    units = np.full(total, 2**31, np.uint32)
    start, count, at = [], [], gap
    for sample_times, sample_units in samples:
        n = len(sample_times)
        times[at : at + n], units[at : at + n] = sample_times, sample_units
        start.append(at)
        count.append(n)
        at += n + gap
    return HostQueue(times, units, np.array(start, np.int64), np.array(count, np.int64))


def sorted_events(rng: np.random.Generator, n: int, n_in: int, span: int) -> tuple[np.ndarray, np.ndarray]:
    """Random events in queue order; a small ``span`` gives many simultaneous ones."""
    times = rng.integers(0, span, n)
    units = rng.integers(0, n_in, n)
    order = np.lexsort((units, times))
    return times[order].astype(np.uint32), units[order].astype(np.uint32)


def run_layer(
    weight: np.ndarray,
    threshold: np.ndarray,
    neuron: NeuronSettings,
    samples: list[tuple[np.ndarray, np.ndarray]],
    threads: int = 1,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Output events of every sample and the residual potentials."""
    layer = Dense(weight.astype(np.float32), threshold.astype(np.float32), neuron)
    return simulate(layer, samples, threads)[:2]


def simulate(
    layer: Layer,
    samples: list[tuple[np.ndarray, np.ndarray]],
    threads: int = 1,
    state: LayerState | None = None,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """Output events of every sample, residual potentials, and synaptic operations; at first at rest."""
    operations = np.full(len(samples), -1, np.int64)
    with CpuBackend(threads) as backend:
        state = state or layer.new_state(len(samples), backend)
        out = layer.forward(queue_of(samples), state, layer.place(backend), operations=operations)
        events = [out.fetch(backend).sample(s) for s in range(len(samples))]
    return events, layer.membranes(state.potential), operations


def scaled(layer: SpikingLayer) -> np.ndarray:
    """Weights over thresholds, as the layer's kernel reads them."""
    return layer.place(CpuBackend(1)).scaled[:, : layer.weight.shape[1]]


def learn(
    network: Network, forward: Pass, labels: np.ndarray, settings: LearningSettings, threads: int = 1
) -> tuple[np.ndarray, list[Gradient]]:
    """Loss of every sample, and the gradients of all layers."""
    with CpuBackend(threads) as backend:
        placed = [layer.place(backend) for layer in network.layers]
        fit, gradients = backpropagate(network, placed, forward, labels, settings)
    return losses(fit, settings), gradients


def toy_events(rng: np.random.Generator, n: int = 40, classes: int = 3, size: int = 5) -> EventSet:
    """A learnable set of recordings without images: class c excites its own part of the input."""
    shape = (1, size, size)
    labels = (np.arange(n) % classes).astype(np.uint16)
    times, units, offsets = [], [], [0]
    for label in labels:
        favoured = rng.integers(0, size * size // classes, 30) + label * (size * size // classes)
        stray = rng.integers(0, size * size, 10)
        chosen = np.concatenate([favoured, stray])
        stamps = rng.integers(0, 5000, len(chosen))
        order = np.lexsort((chosen, stamps))
        times.append(stamps[order])
        units.append(chosen[order])
        offsets.append(offsets[-1] + len(chosen))
    return EventSet(
        np.concatenate(times).astype(np.uint32),
        np.concatenate(units).astype(np.uint32),
        np.array(offsets, np.int64),
        labels,
        shape,
        5000,
        classes,
    ).check()


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code and the two streams."""

    code: int
    out: str
    err: str


def evsnn(*arguments: object) -> Outcome:
    """Run the command line in this process, with everything it does about errors."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return Outcome(exit_.value.code, out.getvalue(), err.getvalue())


def evsnn_process(*arguments: object, before: str = "", timeout: float = 300, **options) -> Outcome:
    """Run the command line as a process of its own, after the Python statements ``before``."""
    command = [sys.executable, "-m", "evsnn"]
    if before:
        command = [sys.executable, "-c", f"{before}\nfrom evsnn_cli.main import main\nmain()"]
    done = subprocess.run(
        [*command, *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def weights(path: Path) -> list[np.ndarray]:
    """All parameters of a model file."""
    return [array for layer in load_model(path).spiking_layers for array in (layer.weight, layer.threshold)]


def same_bits(left: Path, right: Path) -> bool:
    """Whether two model files hold the same parameters, bit for bit."""
    pairs = zip(weights(left), weights(right), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def write_events(path: Path, **splits: EventSet) -> Path:
    """Write sets of recordings into an event file."""
    some = next(iter(splits.values()))
    with EventWriter(
        path, shape=some.shape, duration_us=some.duration_us, classes=some.classes, force=True
    ) as writer:
        for name, part in splits.items():
            writer.begin_split(name)
            writer.append(part.times, part.units, np.diff(part.offsets), part.labels)
    return path
