"""PyTorch by hand, layer by layer: one matrix product for all time steps, then a loop over the neurons."""

from __future__ import annotations

import torch
from common import CLASSES, HIDDEN, main
from torch_neurons import fire
from torch_training import TorchPeer


class Net(torch.nn.Module):
    """Two layers."""

    def __init__(self, n_inputs):
        super().__init__()
        self.first = torch.nn.Linear(n_inputs, HIDDEN, bias=False)
        self.second = torch.nn.Linear(HIDDEN, CLASSES, bias=False)

    def forward(self, frames):
        """Output spike counts."""
        return fire(self.second(fire(self.first(frames)))).sum(0)


def make(events, task):
    """Build the peer."""
    torch.manual_seed(task.seed)
    return TorchPeer(Net(events.n_inputs))


if __name__ == "__main__":
    main(make)
