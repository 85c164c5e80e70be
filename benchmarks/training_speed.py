"""Training speed on MNIST beside this machine's own streaming limit, measured in the same process.

Measures 784-800-10 with stratified events, batch 100:

- whole training epochs over a part of MNIST, with 1 and with N threads, interleaved;
- beside it, what N threads give on arithmetic that shares no memory (two processors may be one core);
- the parts of a training step, one thread;
- the forward kernel of the first layer, in synaptic operations (SOPs) a second, beside a loop that adds the
  same weight rows in the same order without a neuron model, one thread.

    python benchmarks/training_speed.py --json benchmarks/results/training_speed.json
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from evsnn_kernels.jit import cpu_kernel

from evsnn.backends import CpuBackend, available_threads
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import load_idx_folder
from evsnn.datasets.sampling import FreshEvents
from evsnn.encoders import EncoderSettings
from evsnn.environment import describe_environment
from evsnn.learning import Optimiser, backpropagate
from evsnn.network import Network, Simulator
from evsnn.training.presets import preset
from evsnn.training.trainer import Trainer

MNIST = Path(__file__).parent / "data" / "mnist"
PARTS = ("encode", "forward", "backward", "update")


@cpu_kernel
def stream_rows(units, start, count, weight, total, first, last):
    """Add the weight row of every event: the memory traffic of a forward pass and nothing else."""
    for s in range(first, last):
        for e in range(start[s], start[s] + count[s]):
            unit = units[e]
            for i in range(weight.shape[1]):
                total[s, i] += weight[unit, i]


@cpu_kernel
def arithmetic(values, first, last):
    """Multiply and add inside the first-level cache: how much a second thread can give at all."""
    for s in range(first, last):
        for _ in range(20_000):
            for i in range(values.shape[1]):
                values[s, i] = values[s, i] * np.float32(0.999) + np.float32(0.1)


def arithmetic_speedup(threads):
    """How many times as fast N threads are as one on arithmetic that shares no memory."""
    values = np.ones((4 * threads, 2048), np.float32)
    seconds = {}
    for n in (1, threads):
        with CpuBackend(n) as backend:
            backend.run(arithmetic, len(values), values)
            begin = time.perf_counter()
            backend.run(arithmetic, len(values), values)
            seconds[n] = time.perf_counter() - begin
    return seconds[1] / seconds[threads]


class Bench:
    """A network in training on one number of threads."""

    def __init__(self, data, rate, threads):
        config = preset("default")
        self.learning = config.learning
        self.backend = CpuBackend(threads)
        encoder = EncoderSettings(rate=rate)
        self.duration_us = encoder.duration_us
        self.data = data
        self.network = Network.from_architecture("28x28-800-10", seed=1, settings=config.network)
        self.source = FreshEvents(data, encoder, config.augment, 1, self.backend)
        learning = replace(config.learning, schedule="constant")
        self.trainer = Trainer(self.network, self.source, learning, epochs=1, seed=1, backend=self.backend)
        self.simulator = Simulator(self.network.layers, self.backend)
        self.optimiser = Optimiser(self.network, self.simulator.placed, self.learning)

    def epoch(self):
        """Seconds a sample of one training epoch, and its sums."""
        begin = time.perf_counter()
        totals = self.trainer.run_epoch()
        return (time.perf_counter() - begin) / len(self.data), totals

    def parts(self, steps):
        """Seconds a sample of each part of a training step, one after the other."""
        size = self.learning.batch_size
        seconds = np.zeros(len(PARTS))
        for step in range(steps):
            samples = np.arange(step * size, (step + 1) * size) % len(self.data)
            stamps = [time.perf_counter()]
            queue = self.source.batch(samples, step)
            stamps.append(time.perf_counter())
            forward = self.simulator.forward(queue, self.duration_us)
            stamps.append(time.perf_counter())
            labels = self.data.labels[samples]
            _, gradients = backpropagate(self.network, self.simulator.placed, forward, labels, self.learning)
            stamps.append(time.perf_counter())
            self.optimiser.step(gradients, forward.activities, 0.0)
            stamps.append(time.perf_counter())
            seconds += np.diff(stamps)
        return seconds / (steps * size)

    def first_layer(self, batches=20):
        """SOPs a second of the first layer's forward pass, of streaming the same rows, and the ratio."""
        size = self.learning.batch_size
        layer, placed = self.network.layers[0], self.simulator.placed[0]
        operations = forward = stream = spikes = 0.0
        for batch in range(batches):
            samples = np.arange(batch * size, (batch + 1) * size) % len(self.data)
            queue = self.source.batch(samples, batch)
            state = layer.new_state(size, self.backend)
            total = np.zeros((size, layer.n_out), np.float32)
            begin = time.perf_counter()
            out = layer.forward(queue, state, placed)
            middle = time.perf_counter()
            self.backend.run(stream_rows, size, queue.units, queue.start, queue.count, placed.scaled, total)
            end = time.perf_counter()
            forward += middle - begin
            stream += end - middle
            operations += float(queue.count.sum()) * layer.n_out
            spikes += float(out.count.mean())
        return operations / forward, operations / stream, stream / forward, spikes / batches


@click.command()
@click.option("--rate", default=5.0, show_default=True, help="Events of a full-intensity pixel.")
@click.option("--samples", default=20_000, show_default=True, help="Digits of a timed epoch.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--warm-epochs", default=5, show_default=True, help="Epochs of training before measuring.")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(rate, samples, repeats, warm_epochs, out):
    """Measure and print."""
    images = load_idx_folder(MNIST)["train"].part(0, samples)
    with CpuBackend() as backend:
        data = encode_images(images, EncoderSettings(rate=rate), 0, backend)
    counts = sorted({1, available_threads()})
    benches = {n: Bench(data, rate, n) for n in counts}
    # Speed depends on how much the network fires: measure one that has learned.
    for _ in range(warm_epochs):
        for bench in benches.values():
            bench.epoch()
    one = benches[1]
    one.first_layer(1)
    one.parts(2)
    whole = {n: [] for n in counts}
    parts, layer, limit = [], [], []
    for _ in range(repeats):
        for n, bench in benches.items():
            seconds, totals = bench.epoch()
            whole[n].append(seconds)
        parts.append(one.parts(50))
        layer.append(one.first_layer())
        limit.append(arithmetic_speedup(counts[-1]))
    means = totals.means()
    medians = np.median(parts, axis=0)
    ratios = [a / b for a, b in zip(whole[1], whole[counts[-1]], strict=True)]
    result = {
        "samples_per_second": {n: round(1 / statistics.median(whole[n])) for n in counts},
        "seconds_for_50000": {n: round(50_000 * statistics.median(whole[n]), 2) for n in counts},
        "speedup": round(statistics.median(ratios), 2),
        "arithmetic_speedup": round(statistics.median(limit), 2),
        "microseconds_a_sample_one_thread": {
            name: round(1e6 * float(value), 1) for name, value in zip(PARTS, medians, strict=True)
        },
        "events_per_sample": [round(count, 1) for count in means["events_per_sample"]],
        "synaptic_operations_per_sample": round(sum(means["synaptic_operations_per_sample"])),
        "first_layer_gsops": round(statistics.median(row[0] for row in layer) / 1e9, 2),
        "streaming_gsops": round(statistics.median(row[1] for row in layer) / 1e9, 2),
        "share_of_streaming_limit": round(statistics.median(row[2] for row in layer), 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "repeats": repeats,
        "environment": describe_environment(counts[-1]),
    }
    click.echo(json.dumps(result, indent=2))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
