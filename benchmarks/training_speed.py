"""Training speed on MNIST beside this machine's own streaming limit, measured in the same process.

For every number of threads: samples a second of each part of a training step (784-800-10, stratified
events, batch 100), synaptic operations (SOPs) a second of the forward kernel, and of a loop that only adds
the same weight rows in the same order, without a neuron model. Interleaved repeats, medians.

    python benchmarks/training_speed.py --json benchmarks/results/training_speed.json
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import click
import numpy as np
from evsnn_kernels.jit import cpu_kernel

from evsnn.datasets.mnist import load_idx_folder
from evsnn.encoders import AugmentSettings, Encoder, EncoderSettings
from evsnn.environment import describe_environment
from evsnn.learning import LearningSettings, Optimiser, backpropagate
from evsnn.network import Network, Simulator
from evsnn.parallel import Workers, available_threads
from evsnn.training.presets import preset

MNIST = Path(__file__).parent / "data" / "mnist"


@cpu_kernel
def stream_rows(units, start, count, weight, total, first, last):
    """Add the weight row of every event: the memory traffic of a forward pass and nothing else."""
    for s in range(first, last):
        row_sum = total[s]
        for e in range(start[s], start[s] + count[s]):
            row = weight[units[e]]
            for i in range(weight.shape[1]):
                row_sum[i] += row[i]


class Step:
    """One training step, its parts timed."""

    PARTS = ("encode", "forward", "backward", "update")

    def __init__(self, images, labels, threads, rate, batch, warm_steps):
        config = preset("default")
        self.images, self.labels, self.batch = images, labels, batch
        self.workers = Workers(threads)
        settings = EncoderSettings(rate=rate)
        self.duration_us = settings.duration_us
        self.network = Network.from_architecture("28x28-800-10", seed=1, settings=config.network)
        self.encoder = Encoder(settings, 1, self.workers, AugmentSettings())
        self.simulator = Simulator(self.network, self.workers)
        self.learning = LearningSettings(batch_size=batch)
        self.optimiser = Optimiser(self.network, self.learning, self.workers)
        self.at = 0
        # Speed depends on how much the network fires: measure a trained one.
        for _ in range(warm_steps):
            self.run()

    def run(self):
        samples = np.arange(self.at, self.at + self.batch) % len(self.images)
        self.at += self.batch
        stamps = [time.perf_counter()]
        queue = self.encoder.draw(self.images, samples, self.at // len(self.images))
        stamps.append(time.perf_counter())
        forward = self.simulator.forward(queue, self.duration_us)
        stamps.append(time.perf_counter())
        _, gradients = backpropagate(self.network, forward, self.labels[samples], self.learning, self.workers)
        stamps.append(time.perf_counter())
        self.optimiser.step(gradients, forward.activities, 0.5)
        stamps.append(time.perf_counter())
        return np.diff(stamps), forward

    def first_layer(self, repeats=5):
        """Seconds of the first layer's forward pass and of streaming the same rows, medians."""
        samples = np.arange(self.batch)
        queue = self.encoder.draw(self.images, samples, 0)
        layer = self.network.layers[0]
        buffer = self.simulator._buffers[0]
        total = np.zeros((self.batch, layer.n_out), np.float32)
        rows = (queue.units, queue.start, queue.count, layer._scaled, total)
        forward, stream, spikes = [], [], 0.0
        for _ in range(repeats):
            state = layer.new_state(self.batch)
            begin = time.perf_counter()
            out = layer.forward(queue, state, buffer, self.workers)
            forward.append(time.perf_counter() - begin)
            spikes = float(out.count.mean())
            begin = time.perf_counter()
            self.workers.run(stream_rows, self.batch, *rows)
            stream.append(time.perf_counter() - begin)
        operations = int(queue.count.sum()) * layer.n_out
        return operations, statistics.median(forward), statistics.median(stream), spikes


@click.command()
@click.option("--rate", default=5.0, show_default=True, help="Events of a full-intensity pixel.")
@click.option("--batch", default=100, show_default=True)
@click.option("--steps", default=60, show_default=True, help="Timed steps of each repeat.")
@click.option("--repeats", default=7, show_default=True)
@click.option("--warm-steps", default=1000, show_default=True, help="Training steps before measuring.")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(rate, batch, steps, repeats, warm_steps, out):
    """Measure and print."""
    train = load_idx_folder(MNIST)["train"]
    counts = list(range(1, available_threads() + 1))
    runs = {n: Step(train.images, train.labels, n, rate, batch, warm_steps) for n in counts}
    for run in runs.values():
        run.first_layer(1)
    parts = {n: [] for n in counts}
    layers = {n: [] for n in counts}
    operations = {}
    for _ in range(repeats):
        for n, run in runs.items():
            seconds = np.zeros(len(Step.PARTS))
            for _ in range(steps):
                step, forward = run.run()
                seconds += step
            parts[n].append(seconds / (steps * batch))
            layers[n].append(run.first_layer())
            operations[n] = float(forward.operations.sum(axis=0).mean())
    results = []
    for n in counts:
        medians = np.median(parts[n], axis=0)
        whole = statistics.median(float(p.sum()) for p in parts[n])
        ratios = [stream / forward for _, forward, stream, _ in layers[n]]
        result = {
            "threads": n,
            "microseconds_a_sample": {
                name: round(1e6 * float(value), 2) for name, value in zip(Step.PARTS, medians, strict=True)
            },
            "samples_per_second": round(1 / whole),
            "seconds_for_50000": round(50_000 * whole, 2),
            "synaptic_operations_per_sample": round(operations[n]),
            "first_layer_gsops": round(
                statistics.median(ops / forward for ops, forward, _, _ in layers[n]) / 1e9, 2
            ),
            "streaming_gsops": round(
                statistics.median(ops / stream for ops, _, stream, _ in layers[n]) / 1e9, 2
            ),
            "share_of_streaming_limit": round(statistics.median(ratios), 3),
            "hidden_spikes_per_sample": round(layers[n][-1][3], 1),
        }
        results.append(result)
        click.echo(json.dumps(result))
    if len(results) > 1:
        gains = [float(a.sum() / b.sum()) for a, b in zip(parts[counts[0]], parts[counts[-1]], strict=True)]
        click.echo(f"{counts[-1]} threads against 1: {statistics.median(gains):.2f} times as fast")
    if out is not None:
        environment = describe_environment(counts[-1])
        out.write_text(json.dumps({"results": results, "environment": environment}, indent=2) + "\n")


if __name__ == "__main__":
    main()
