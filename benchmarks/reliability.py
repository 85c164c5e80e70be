"""What it costs to be careful: checking parameters after every step, a checkpoint, a fingerprint of the data.

Processor time of one thread, the least of many: other work on the machine does not count.

    python benchmarks/reliability.py --json benchmarks/results/reliability.json
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from evsnn import Network
from evsnn.backends import CpuBackend
from evsnn.checkpoint import Checkpoint, save
from evsnn.datasets import embedded_mnist
from evsnn.datasets.encoding import encode_images
from evsnn.environment import describe_environment
from evsnn.training import preset
from evsnn.training.fit import make_source
from evsnn.training.trainer import Trainer

ARCHITECTURES = ("784-800-10", "28x28-20C5-P2-50C5-P2-200-10")


def least(repeats, function):
    """Least processor time of a call, in milliseconds."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return 1e3 * min(times)


def measure(architecture, samples, backend):
    config = preset("default", architecture)
    data = encode_images(embedded_mnist()["train"].part(0, samples), config.encoder, 0, backend)
    network = Network.from_architecture(architecture, settings=config.network)
    source = make_source(
        data,
        fresh=True,
        encoder=None,
        augmentation=config.augment,
        event_augmentation=config.augment_events,
        augment=True,
        seed=0,
        backend=backend,
    )
    trainer = Trainer(network, source, config.learning, epochs=100, seed=0, backend=backend)
    stamps = []
    for _ in range(3):
        stamps.append([time.process_time()])
        trainer.run_epoch(report=lambda _: stamps[-1].append(time.process_time()))
    batch = 1e3 * min(np.diff(epoch).min() for epoch in stamps)
    optimiser = trainer.optimiser
    check = least(100, lambda: (optimiser.check(), optimiser.find_fault(optimiser.checks)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.h5"
        writing = least(5, lambda: save(path, Checkpoint(network, {}, optimiser.state())))
        size = path.stat().st_size
    size_of_data = sum(array.nbytes for array in (data.times, data.units, data.images))
    return {
        "architecture": architecture,
        "batch_size": config.learning.batch_size,
        "batch_ms": round(batch, 3),
        "check_ms": round(check, 4),
        "check_share": round(check / batch, 5),
        "checkpoint_ms": round(writing, 2),
        "checkpoint_bytes": size,
        "fingerprint_mb_per_second": round(size_of_data / 1e3 / least(5, data.fingerprint)),
    }


@click.command(help=__doc__)
@click.option("--samples", default=600, show_default=True, help="Training digits.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the result there.")
def main(samples: int, out: Path | None) -> None:
    with CpuBackend(1) as backend:
        rows = [measure(architecture, samples, backend) for architecture in ARCHITECTURES]
    for row in rows:
        click.echo("  ".join(f"{name} {value}" for name, value in row.items()))
    if out is not None:
        command = f"python benchmarks/reliability.py --samples {samples} --json {out}"
        result = {"command": command, "rows": rows, "environment": describe_environment(1)}
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
