"""What the peers on PyTorch share: one thread, Adam, cross-entropy of the output spike counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common import Peer, StoredEvents

LEARNING_RATE = 1e-3

torch.set_num_threads(1)
torch.set_num_interop_threads(1)


class TorchPeer(Peer):
    """Trains ``self.net``, which turns a batch into output spike counts, shape (n_samples, classes)."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net
        self.optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        self.loss = torch.nn.CrossEntropyLoss()

    def place(self, events: StoredEvents, samples: np.ndarray) -> Any:
        """Frames, shape (n_steps, n_samples, n_inputs)."""
        return torch.from_numpy(events.frames(samples))

    def train(self, batch: Any, labels: np.ndarray, rate: float) -> None:
        """One step of Adam."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * LEARNING_RATE
        self.optimiser.zero_grad()
        self.loss(self.net(batch), torch.from_numpy(labels)).backward()
        self.optimiser.step()

    @torch.no_grad()
    def infer(self, batch: Any) -> np.ndarray:
        """Class with the most output spikes."""
        return self.net(batch).argmax(1).numpy()
