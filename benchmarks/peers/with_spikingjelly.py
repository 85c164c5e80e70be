"""SpikingJelly: multi-step mode, whole layers at a time."""

from __future__ import annotations

import torch
from common import BETA, CLASSES, HIDDEN, main
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch_training import TorchPeer


def leaky():
    """A layer of neurons with soft reset."""
    return neuron.LIFNode(
        tau=1.0 / (1.0 - BETA),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.ATan(),
        step_mode="m",
    )


class Net(torch.nn.Module):
    """Two layers."""

    def __init__(self, n_inputs):
        super().__init__()
        self.layers = torch.nn.Sequential(
            layer.Linear(n_inputs, HIDDEN, bias=False, step_mode="m"),
            leaky(),
            layer.Linear(HIDDEN, CLASSES, bias=False, step_mode="m"),
            leaky(),
        )

    def forward(self, frames):
        """Output spike counts."""
        functional.reset_net(self.layers)
        return self.layers(frames).sum(0)


def make(events, task):
    """Build the peer."""
    torch.manual_seed(task.seed)
    return TorchPeer(Net(events.n_inputs))


if __name__ == "__main__":
    main(make)
