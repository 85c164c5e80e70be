"""Norse: its leaky neuron without synaptic current, step by step."""

from __future__ import annotations

import torch
from common import BETA, CLASSES, HIDDEN, STEP_US, main
from norse.torch import LIFBoxCell, LIFBoxParameters, SequentialState
from norse.torch.functional.reset import reset_subtract
from torch_training import TorchPeer

DT = 1e-6 * STEP_US
#: Norse multiplies the input by this share; a threshold smaller by it gives the neuron of the others.
GAIN = 1.0 - BETA


class Net(torch.nn.Module):
    """Two layers."""

    def __init__(self, n_inputs):
        super().__init__()
        neuron = LIFBoxParameters(
            tau_mem_inv=torch.tensor(GAIN / DT),
            v_th=torch.tensor(GAIN),
            alpha=torch.tensor(10.0 / GAIN),
            reset_method=reset_subtract,
        )
        self.layers = SequentialState(
            torch.nn.Linear(n_inputs, HIDDEN, bias=False),
            LIFBoxCell(neuron, DT),
            torch.nn.Linear(HIDDEN, CLASSES, bias=False),
            LIFBoxCell(neuron, DT),
        )

    def forward(self, frames):
        """Output spike counts."""
        state = None
        counts = 0
        for frame in frames:
            spikes, state = self.layers(frame, state)
            counts = counts + spikes
        return counts


def make(events, task):
    """Build the peer."""
    torch.manual_seed(task.seed)
    return TorchPeer(Net(events.n_inputs))


if __name__ == "__main__":
    main(make)
