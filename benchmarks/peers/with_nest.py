"""NEST: neurons with delta synapses, one sample after the other, simulation only."""

from __future__ import annotations

from itertools import pairwise

import nest
import numpy as np
from common import CLASSES, HIDDEN, STEP_US, TAU_MS, Peer, main

STEP_MS = STEP_US / 1000.0
#: Steps after a sample until its last spikes have passed both layers: synapses take a step at least.
PAUSE = 3


class NestPeer(Peer):
    """Two layers with the weights of a trained network.

    Membranes of ``iaf_psc_delta`` return to 0 after a spike: there is no soft reset.
    """

    def __init__(self, n_inputs, folder):
        super().__init__()
        weights = np.load(folder / "weights.npz")
        nest.ResetKernel()
        nest.set_verbosity("M_ERROR")
        nest.set(resolution=STEP_MS, local_num_threads=1, overwrite_files=True)
        neuron = {"E_L": 0.0, "V_reset": 0.0, "V_th": 1.0, "V_m": 0.0, "tau_m": TAU_MS, "t_ref": STEP_MS}
        self.inputs = nest.Create("spike_generator", n_inputs)
        relays = nest.Create("parrot_neuron", n_inputs)
        self.layers = [nest.Create("iaf_psc_delta", n, neuron) for n in (HIDDEN, CLASSES)]
        self.recorder = nest.Create("spike_recorder")
        nest.Connect(self.inputs, relays, "one_to_one", {"delay": STEP_MS})
        sources = relays, self.layers[0]
        for source, target, name in zip(sources, self.layers, ("first", "second"), strict=True):
            synapse = {"weight": weights[name].T.astype(float), "delay": STEP_MS}
            nest.Connect(source, target, "all_to_all", synapse)
        nest.Connect(self.layers[1], self.recorder)
        self.first_output = self.layers[1].global_id[0]

    def place(self, events, samples):
        """Spike times of every input, by sample."""
        return [events.sample(int(index)) for index in samples], events.n_steps

    def infer(self, batch):
        """Class with the most output spikes of every sample."""
        samples, n_steps = batch
        answers = []
        for steps, units in samples:
            now = nest.biological_time
            order = np.argsort(units, kind="stable")
            edges = np.searchsorted(units[order], np.arange(len(self.inputs) + 1))
            times = now + (steps[order] + 1.0) * STEP_MS
            self.inputs.set([{"spike_times": times[low:high]} for low, high in pairwise(edges)])
            for layer in self.layers:
                layer.V_m = 0.0
            self.recorder.n_events = 0
            nest.Simulate((n_steps + PAUSE) * STEP_MS)
            senders = self.recorder.events["senders"] - self.first_output
            answers.append(np.bincount(senders, minlength=CLASSES).argmax())
        return np.array(answers)


def make(events, task):
    """Build the peer."""
    return NestPeer(events.n_inputs, task.events)


if __name__ == "__main__":
    main(make)
