"""What a packet costs in a live stream: processor time of a push, by its number of events.

Random events, a million a second on the sensor's clock. Processor time: other work on the machine adds what
it takes from the caches, but not its own time.

    python benchmarks/stream_overhead.py --json benchmarks/results/stream_overhead.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from evsnn import Network
from evsnn.environment import describe_environment

ARCHITECTURES = ("34x34x2-200-10", "34x34x2-800-10", "34x34x2-12C5-P2-64C5-P2-10")
SIZES = (1, 10, 100, 1000, 10_000)


def microseconds(network: Network, size: int, packets: int) -> np.ndarray:
    """Processor time of each push."""
    rng = np.random.default_rng(0)
    stream = network.stream()
    found = np.empty(packets)
    for packet in range(packets):
        times = packet * size + np.sort(rng.integers(0, size, size))
        units = rng.integers(0, network.n_inputs, size).astype(np.uint32)
        begun = time.thread_time()
        stream.push(times, units)
        found[packet] = 1e6 * (time.thread_time() - begun)
    return found[packets // 10 :]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    rows = []
    for architecture in ARCHITECTURES:
        network = Network.from_architecture(architecture, seed=0)
        for size in SIZES:
            found = microseconds(network, size, 1000 if size < 10_000 else 100)
            median = float(np.median(found))
            rows.append(
                {
                    "architecture": architecture,
                    "events": size,
                    "us_a_packet": round(median, 1),
                    "us_an_event": round(median / size, 3),
                }
            )
            print(rows[-1])
    if options.json:
        command = "python benchmarks/stream_overhead.py " + " ".join(sys.argv[1:])
        result = {"command": command, "rows": rows, "environment": describe_environment(1)}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
