"""snnTorch: the loop over time steps of its tutorials."""

from __future__ import annotations

import snntorch
import torch
from common import BETA, CLASSES, HIDDEN, main
from torch_training import TorchPeer


class Net(torch.nn.Module):
    """Two layers."""

    def __init__(self, n_inputs):
        super().__init__()
        self.first = torch.nn.Linear(n_inputs, HIDDEN, bias=False)
        self.hidden = snntorch.Leaky(beta=BETA, reset_mechanism="subtract")
        self.second = torch.nn.Linear(HIDDEN, CLASSES, bias=False)
        self.output = snntorch.Leaky(beta=BETA, reset_mechanism="subtract")

    def forward(self, frames):
        """Output spike counts."""
        hidden_potential = self.hidden.init_leaky()
        output_potential = self.output.init_leaky()
        counts = 0
        for frame in frames:
            spikes, hidden_potential = self.hidden(self.first(frame), hidden_potential)
            spikes, output_potential = self.output(self.second(spikes), output_potential)
            counts = counts + spikes
        return counts


def make(events, task):
    """Build the peer."""
    torch.manual_seed(task.seed)
    return TorchPeer(Net(events.n_inputs))


if __name__ == "__main__":
    main(make)
