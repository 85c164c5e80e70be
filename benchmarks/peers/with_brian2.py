"""Brian2: a C++ program of its own (standalone mode), one sample after the other, simulation only."""

from __future__ import annotations

import tempfile

import brian2 as b2
import numpy as np
from common import CLASSES, HIDDEN, STEP_US, TAU_MS, Peer, main

#: Steps after a sample until its last spikes have passed both layers.
PAUSE = 2


class BrianPeer(Peer):
    """Two layers with the weights of a trained network; compiled for its input, which is not timed."""

    batch_size = 1000
    one_batch = True

    def __init__(self, folder):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="brian2-")
        self.weights = np.load(folder / "weights.npz")

    def place(self, events, samples):
        """Generate and compile the program."""
        b2.set_device("cpp_standalone", build_on_run=False)
        step = STEP_US * b2.us
        b2.defaultclock.dt = step
        length = events.n_steps + PAUSE
        steps, units, where = events.gather(samples)
        first, second = self.weights["first"], self.weights["second"]
        inputs = b2.SpikeGeneratorGroup(len(first), units, (where * length + steps) * step, sorted=True)
        layers = [
            b2.NeuronGroup(
                n,
                "dv/dt = -v / tau : 1",
                threshold="v >= 1",
                reset="v -= 1",
                method="exact",
                namespace={"tau": TAU_MS * b2.ms},
            )
            for n in (HIDDEN, CLASSES)
        ]
        for layer in layers:
            layer.run_regularly("v = 0", dt=length * step)
        network = b2.Network(inputs, *layers)
        for source, target, weight in zip((inputs, layers[0]), layers, (first, second), strict=True):
            synapses = b2.Synapses(source, target, "w : 1", on_pre="v_post += w")
            synapses.connect()
            synapses.w = weight.ravel()
            network.add(synapses)
        self.monitor = b2.SpikeMonitor(layers[1])
        network.add(self.monitor)
        network.run(len(samples) * length * step)
        b2.device.build(directory=self.folder.name, compile=True, run=False)
        self.length = length * STEP_US
        return len(samples)

    def infer(self, batch):
        """Run the program; class with the most output spikes."""
        b2.device.run(with_output=False)
        self.about["simulation_seconds"] = b2.device._last_run_time
        times = np.round(np.asarray(self.monitor.t / b2.us)).astype(np.int64)
        counts = np.zeros((batch, CLASSES))
        np.add.at(counts, (times // self.length, np.asarray(self.monitor.i)), 1)
        return counts.argmax(1)


def make(events, task):
    """Build the peer."""
    return BrianPeer(task.events)


if __name__ == "__main__":
    main(make)
