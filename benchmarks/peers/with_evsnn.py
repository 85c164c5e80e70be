"""evsnn, on the stored events as they are: nothing is drawn anew, nothing distorted."""

from __future__ import annotations

import math

import numpy as np
from common import CLASSES, HIDDEN, STEP_US, TAU_MS, Peer, main

from evsnn.backends import CpuBackend, QueueTooSmallError
from evsnn.events.queue import HostQueue
from evsnn.learning import LearningSettings, Optimiser, backpropagate
from evsnn.network import Network, NetworkSettings, Simulator

#: The neuron of the others: no lower clamp.
SETTINGS = NetworkSettings(tau_ms=TAU_MS, clamp=math.inf)


class EvsnnPeer(Peer):
    """Two layers, one thread.

    Parameters
    ----------
    n_inputs, n_steps, seed : int
    """

    def __init__(self, n_inputs, n_steps, seed):
        super().__init__()
        self.learning = LearningSettings()
        self.duration_us = n_steps * STEP_US
        self.backend = CpuBackend(1)
        self.network = Network.from_architecture(
            f"{n_inputs}-{HIDDEN}-{CLASSES}", seed=seed, settings=SETTINGS
        )
        self.build()

    def build(self):
        """Begin with the weights of the network as they are."""
        self.simulator = Simulator(self.network.layers, self.backend)
        self.optimiser = Optimiser(self.network, self.simulator.placed, self.learning)

    def place(self, events, samples):
        """Events in a row, as they lie in an event file."""
        steps, units, where = events.gather(samples)
        count = np.bincount(where, minlength=len(samples))
        times = (steps * STEP_US).astype(np.uint32)
        return HostQueue(times, units.astype(np.uint32), np.cumsum(count) - count, count)

    def train(self, batch, labels, rate):
        """One step of Adam."""
        while True:
            forward = self.simulator.forward(batch, self.duration_us)
            fit, gradients = backpropagate(
                self.network, self.simulator.placed, forward, labels.astype(np.uint16), self.learning
            )
            try:
                forward.fetch(self.backend, fit)
                break
            except QueueTooSmallError:
                continue
        self.optimiser.step(gradients, forward.activities, rate)

    def infer(self, batch):
        """Class with the most output spikes."""
        return self.simulator.outcome(batch, self.duration_us).predictions()

    def scaled(self):
        """Weights over thresholds of both layers."""
        return [layer.weight / layer.threshold for layer in self.network.layers]

    def begin_with(self, weights):
        """Take over weights for a threshold of 1; the thresholds stay."""
        for layer, name in zip(self.network.layers, ("first", "second"), strict=True):
            layer.weight[:] = weights[name] * layer.threshold
        self.build()


def make(events, task):
    """Build the peer; throughput is that of a trained network, because activity decides about it."""
    peer = EvsnnPeer(events.n_inputs, events.n_steps, task.seed)
    if task.task != "accuracy":
        peer.begin_with(np.load(task.events / "weights.npz"))
    return peer


if __name__ == "__main__":
    main(make)
