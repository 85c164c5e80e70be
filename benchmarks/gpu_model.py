"""How fast the CUDA backend should be on a card that nobody here has: a prediction to be proved wrong.

Digits are learned on the CPU, and every kernel call of an epoch is recorded. For each call the model asks how
long the card would take if one thing alone limited it, and takes the longest:

- latency: the longest chain of operations of a block that wait for each other, times the waves of blocks;
- issue: instructions of all warps at one a cycle and scheduler;
- memory: bytes through the second-level cache, where weights and queues of a batch stay.

Instructions come from the machine code (``benchmarks/results/gpu_resources.json``), work from the recorded
arrays. The host prepares launches meanwhile; a batch takes as long as the slower of the two, and one wait.

    python benchmarks/gpu_model.py --json benchmarks/results/gpu_model.json
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from gpu_resources import occupancy

from evsnn.backends import CpuBackend
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.mnist import load_idx_folder
from evsnn.datasets.sampling import FreshEvents
from evsnn.environment import describe_environment
from evsnn.network import Network
from evsnn.training.presets import preset
from evsnn.training.trainer import Trainer

HERE = Path(__file__).parent
TARGET = "sm_90"


@dataclass(frozen=True)
class Card:
    """An H100 SXM. The first two figures are NVIDIA's; the others are assumptions, rounded from published
    measurements (arXiv:2402.13499; numba-cuda pull request 288 for launches), and options of the command.
    """

    multiprocessors: int = 132
    schedulers: int = 4
    clock_ghz: float = 1.7
    cache_tb_s: float = 5.5
    cache_latency: int = 270  # cycles, second level
    shared_latency: int = 30
    barrier: int = 40
    operation: int = 4  # cycles until the next one may use the result
    launch_gap_us: float = 2.0  # between two kernels of a stream
    host_launch_us: float = 6.6
    host_array_us: float = 4.0
    host_batch_us: float = 300.0  # Python between the launches: order, labels, sums


@dataclass(frozen=True)
class Work:
    """What one launch has to do."""

    chain: float  # cycles of the longest block
    instructions: float  # of warps
    bytes: float


class Machine:
    """Instructions of the innermost loops of every kernel."""

    def __init__(self, path: Path) -> None:
        table = json.loads(path.read_text())
        self.kernels = {row["kernel"]: row for row in table["kernels"] if row["target"] == TARGET}
        self._loops = {row["kernel"]: row["loops"] for row in table["loops"] if row["target"] == TARGET}

    def instructions_a_load(self, kernel: str) -> float:
        """Of the tightest loop that loads from global memory and computes."""
        loops = [loop for loop in self._loops[kernel] if loop["global_loads"]]
        return min(loop["instructions"] / loop["global_loads"] for loop in loops)

    def instructions_a_float(self, kernel: str) -> float:
        """Of the tightest loop that adds up floats."""
        return min(loop["instructions"] / loop["float_operations"] for loop in self._loops[kernel])


def warps(n):
    return math.ceil(n / 32)


def dense_forward(a, card, machine, threads):
    events, longest = int(a["count"].sum()), int(a["count"].max(initial=0))
    n_out = a["weight"].shape[1]
    # Four loads are under way at once, then four events wait for each other.
    event = card.cache_latency / 4 + 8 * card.operation
    runs = longest / (1 if a["kappa"] < 0 else 32)
    chain = longest * math.ceil(n_out / threads) * event + runs * (card.barrier + 4 * card.shared_latency)
    spikes = int(a["out_count"].sum())
    per_event = machine.instructions_a_load("dense.forward")
    return Work(chain, events * warps(n_out) * per_event + 100 * spikes, 4 * (events * n_out + 2 * spikes))


def conv_forward(a, card, machine, threads):
    events, longest = int(a["count"].sum()), int(a["count"].max(initial=0))
    padded = a["weight"].shape[1]
    across = math.ceil(int(a["kernel"]) / int(a["stride"]))
    window = min(across, int(a["out_height"])) * min(across, int(a["out_width"]))
    # A place is looked up (two loads, one after the other) while the event before is taken.
    rounds = math.ceil(window * padded / threads)
    event = card.barrier + max(rounds * card.cache_latency + 10 * card.operation, 2 * card.cache_latency)
    fired = min(longest, int(a["out_count"].max(initial=0)))
    chain = longest * event + fired * (2 * card.barrier + 10 * card.shared_latency)
    taken = events * window * warps(padded)
    spikes = int(a["out_count"].sum())
    instructions = taken * 2 * machine.instructions_a_load("conv.forward") + 150 * events * warps(window)
    return Work(chain, instructions + 300 * spikes, 4 * (3 * events * window * padded + 2 * spikes))


def dense_weight_gradient(a, card, machine, threads):
    active = np.count_nonzero(a["activity"], axis=0)
    n_samples, n_out = a["delta"].shape
    terms = float(active.sum()) * n_out
    column = card.cache_latency / 4 + 2 * card.operation
    chain = 4 * card.cache_latency + active.max() * math.ceil(n_out / threads) * column
    instructions = terms / 32 * machine.instructions_a_load("gradient.weight_gradient")
    listing = len(active) * warps(n_samples) * 100
    return Work(chain, instructions + listing, 4 * (terms + active.size * n_out))


def dense_propagate(a, card, machine, threads):
    active = np.count_nonzero(a["activity"], axis=1)
    n_out = a["weight"].shape[1]
    terms = float(active.sum()) * n_out
    tiles = math.ceil(active.max() / 64) * math.ceil(n_out / 32)
    fetch = 64 * 32 / threads / 4 * card.cache_latency
    chain = tiles * (2 * card.barrier + fetch + 32 * card.operation)
    products = terms / 32 * machine.instructions_a_load("backward.propagate")
    sums = terms / 32 * machine.instructions_a_float("backward.propagate")
    return Work(chain, products + sums, 4 * terms + a["activity"].nbytes + a["out_error"].nbytes)


def conv_pairs(a):
    """Active inputs times the places with an error that each of them meets, roughly."""
    active = np.count_nonzero(a["activity"], axis=1)
    share = a["active_places"].mean(axis=1)
    window = math.ceil(int(a["kernel"]) / int(a["stride"])) ** 2
    return active * share * window


def conv_weight_gradient(a, card, machine, threads):
    rows, maps = a["out_gradient"].shape
    kernel = int(a["kernel"]) ** 2
    pairs = float(conv_pairs(a).sum())
    terms = pairs * maps
    # A block lists those of the active inputs of its channel that meet an error, fetches products, adds up.
    looked = np.count_nonzero(a["activity"]) * kernel / rows
    listed = pairs / rows
    chain = (
        math.ceil(looked / threads) * (3 * card.cache_latency + 16 * card.shared_latency)
        + listed * maps / threads / 4 * card.cache_latency
        + listed * (card.operation + card.shared_latency / 16)
    )
    name = "conv.weight_gradient"
    instructions = terms / 32 * (machine.instructions_a_load(name) + machine.instructions_a_float(name))
    listing = looked * rows / 32 * 100
    return Work(chain, instructions + listing, 4 * terms + 12 * looked * rows)


def conv_propagate(a, card, machine, threads):
    pairs = conv_pairs(a)
    maps = a["weight"].shape[0]
    terms = float(pairs.sum()) * maps
    places = a["active_places"].sum(axis=1)
    listed = np.count_nonzero(a["delta"]) / len(a["delta"])
    chain = places.max() * (card.barrier + 2 * card.shared_latency) + listed * card.cache_latency / 4
    return Work(chain, terms / 32 * machine.instructions_a_load("conv.propagate"), 4 * terms)


def encode(a, card, machine, threads):
    events, longest = int(a["out_count"].sum()), int(a["out_count"].max(initial=0))
    pixels = a["images"][0].size
    # A random number is about 80 instructions; a sort of n has log2(n)^2 / 2 steps with a barrier each.
    steps = math.log2(max(longest, 2)) ** 2 / 2
    draw = 80 * card.operation
    chain = math.ceil(pixels / threads) * 2 * draw + steps * (card.barrier + 2 * card.cache_latency)
    instructions = warps(len(a["out_count"]) * pixels + events) * 200 + events * steps
    return Work(chain, instructions, 16 * events * steps + a["images"].nbytes)


def streamed(a, card, machine, threads):
    """Whatever has no model of its own: every array is read or written once, 20 instructions a number."""
    numbers = sum(value.size for value in a.values() if isinstance(value, np.ndarray))
    size = sum(value.nbytes for value in a.values() if isinstance(value, np.ndarray))
    return Work(5 * card.cache_latency, warps(numbers) * 20, size)


MODELS = {
    "dense.forward": dense_forward,
    "conv.forward": conv_forward,
    "gradient.weight_gradient": dense_weight_gradient,
    "backward.propagate": dense_propagate,
    "conv.weight_gradient": conv_weight_gradient,
    "conv.propagate": conv_propagate,
    "encode.encode": encode,
}


def predict(kernel, size, arguments, card, machine) -> dict:
    """Microseconds of one launch, and what limits it."""
    module = kernel.__module__.rpartition(".")[2]
    name = f"{module}.{kernel.__name__}"
    twin = getattr(importlib.import_module(f"evsnn_kernels.cuda.{module}"), kernel.__name__)
    call = (*arguments, 0, size)
    named = dict(zip(inspect.signature(kernel.py_func).parameters, call, strict=True))
    threads, shared = twin.threads(*call), twin.shared_bytes(*call)
    work = MODELS.get(name, streamed)(named, card, machine, threads)
    row = machine.kernels[name]
    used = occupancy((9, 0), threads, row["registers"], row["shared_static"] + shared)
    resident = max(1, int(used * 64 / warps(threads)))
    waves = math.ceil(math.prod(twin.blocks(size, *call)) / (resident * card.multiprocessors))
    cycles = 1e3 * card.clock_ghz  # a microsecond
    limits = {
        "latency": waves * work.chain / cycles,
        "issue": work.instructions / (card.multiprocessors * card.schedulers * cycles),
        "memory": work.bytes / (1e6 * card.cache_tb_s),
    }
    limit = max(limits, key=limits.__getitem__)
    arrays = sum(isinstance(value, np.ndarray) for value in call)
    return {
        "kernel": name,
        "device_us": card.launch_gap_us + limits[limit],
        "limit": limit if limits[limit] > card.launch_gap_us else "launch",
        "host_us": card.host_launch_us + card.host_array_us * arrays,
    }


def record(arch, batch_size, samples, warm_epochs, card, machine) -> tuple[list, dict]:
    """Predictions for all launches of a training epoch, and what the epoch was like."""
    images = load_idx_folder(HERE / "data" / "mnist")["train"].part(0, samples)
    config = preset("default", arch)
    learning = type(config.learning)(
        **(asdict(config.learning) | {"batch_size": batch_size, "schedule": "constant"})
    )
    launches = []

    class Recorder(CpuBackend):
        draws_ahead = False
        listening = False

        def run(self, kernel, size, *arguments, **options):
            super().run(kernel, size, *arguments, **options)
            if self.listening:
                launches.append(predict(kernel, size, arguments, card, machine))

    with Recorder() as backend:
        data = encode_images(images, config.encoder, 0, backend)
        network = Network.from_architecture(arch, seed=0, settings=config.network)
        source = FreshEvents(data, config.encoder, config.augment, 0, backend)
        trainer = Trainer(network, source, learning, epochs=1, seed=0, backend=backend)
        for _ in range(warm_epochs):
            trainer.run_epoch()
        backend.listening = True
        totals = trainer.run_epoch()
    return launches, totals.means() | {"batches": trainer.batches}


def summary(launches, batches) -> list[dict]:
    """A row a kernel, means of a batch, the slowest first."""
    kernels = defaultdict(list)
    for launch in launches:
        kernels[launch["kernel"]].append(launch)
    rows = [
        {
            "kernel": name,
            "launches": round(len(calls) / batches, 1),
            "device_us": round(sum(call["device_us"] for call in calls) / batches, 1),
            "host_us": round(sum(call["host_us"] for call in calls) / batches, 1),
            "limit": statistics.mode(call["limit"] for call in calls),
        }
        for name, calls in kernels.items()
    ]
    return sorted(rows, key=lambda row: -row["device_us"])


@click.command()
@click.option("--arch", multiple=True, default=("28x28-800-10", "28x28-20C5-P2-50C5-P2-200-10"))
@click.option("--batch-size", multiple=True, type=int, default=(100, 1000), show_default=True)
@click.option("--samples", default=4000, show_default=True)
@click.option("--warm-epochs", default=2, show_default=True, help="Epochs of training before recording.")
@click.option("--clock-ghz", default=Card.clock_ghz, show_default=True)
@click.option("--cache-tb-s", default=Card.cache_tb_s, show_default=True)
@click.option("--host-array-us", default=Card.host_array_us, show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path))
def main(arch, batch_size, samples, warm_epochs, target, **figures):
    """Predict training speed on an H100 and what limits it."""
    card = Card(**figures)
    machine = Machine(HERE / "results" / "gpu_resources.json")
    results = []
    for architecture in arch:
        for size in batch_size:
            launches, about = record(architecture, size, samples, warm_epochs, card, machine)
            rows = summary(launches, about["batches"])
            device = sum(row["device_us"] for row in rows)
            host = card.host_batch_us + sum(row["host_us"] for row in rows)
            result = {
                "architecture": architecture,
                "batch_size": size,
                "events_per_sample": [round(n, 1) for n in about["events_per_sample"]],
                "device_us_a_batch": round(device),
                "host_us_a_batch": round(host),
                "limit": "device" if device > host else "host",
                "samples_per_second": round(1e6 * size / max(device, host), -2),
                "samples_per_second_of_the_device_alone": round(1e6 * size / device, -2),
                "kernels": rows,
            }
            results.append(result)
            click.echo(
                f"{architecture}, batch {size}: device {device:.0f} us, host {host:.0f} us a batch: "
                f"{result['samples_per_second']:.0f} samples/s, limited by the {result['limit']}"
            )
            for row in rows[:8]:
                click.echo("   " + "  ".join(f"{name} {value}" for name, value in row.items()))
    if target is not None:
        about = {"card": asdict(card), "machine": describe_environment(1)}
        target.write_text(json.dumps(about | {"predictions": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
