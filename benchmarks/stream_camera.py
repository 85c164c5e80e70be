"""A camera in real time: random events of 34x34x2 pixels, in packets of 4 ms, to `evsnn stream --listen`.

evsnn stream runs/a --listen tcp://127.0.0.1:7777
python benchmarks/stream_camera.py tcp://127.0.0.1:7777 --rate 1e6 --seconds 20
"""

from __future__ import annotations

import argparse

import numpy as np

from evsnn.streams import send

BLOCK_US = 100_000
SHAPE = (2, 34, 34)


def events(rate: float, seconds: float):
    """Blocks of a tenth of a second; five of them take turns, so that making them costs no time."""
    rng = np.random.default_rng(0)
    n = round(rate * BLOCK_US / 1e6)
    blocks = [(np.sort(rng.integers(0, BLOCK_US, n)), rng.integers(0, np.prod(SHAPE), n)) for _ in range(5)]
    for number in range(round(seconds * 1e6 / BLOCK_US)):
        times, units = blocks[number % len(blocks)]
        yield times + number * BLOCK_US, units


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("--rate", type=float, default=1e6, help="events a second (default: 1e6)")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print(send(events(options.rate, options.seconds), SHAPE, options.address, packet_us=4000))


if __name__ == "__main__":
    main()
