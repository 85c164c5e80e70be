"""PyTorch by hand with a sparse first layer: the weight rows of the events that occur are added up.

The strongest opponent: like evsnn it does not touch the weights of inputs that are silent.
"""

from __future__ import annotations

import torch
from common import CLASSES, HIDDEN, main
from torch_neurons import fire
from torch_training import TorchPeer


def add_rows(weight, pointer, columns):
    """Product of a sparse matrix of ones, in CSR form, and a dense one.

    ``embedding_bag`` is this product with vector instructions everywhere; ``matrix @ weight`` of PyTorch is
    2 to 7 times slower on processors that are not Intel's.
    """
    return torch.nn.functional.embedding_bag(columns, weight, pointer, mode="sum", include_last_offset=True)


class SparseProduct(torch.autograd.Function):
    """Product of a sparse matrix, given with its transpose, and the weights."""

    @staticmethod
    def forward(context, weight, matrix, transposed):
        """Currents of all steps and samples."""
        context.transposed = transposed
        return add_rows(weight, *matrix)

    @staticmethod
    def backward(context, error):
        """Gradient of the weights."""
        return add_rows(error, *context.transposed), None, None


class Net(torch.nn.Module):
    """Two layers."""

    def __init__(self, n_inputs):
        super().__init__()
        # Drawn as torch.nn.Linear draws them.
        bound = n_inputs**-0.5
        self.first = torch.nn.Parameter(torch.empty(n_inputs, HIDDEN).uniform_(-bound, bound))
        self.second = torch.nn.Linear(HIDDEN, CLASSES, bias=False)

    def forward(self, batch):
        """Output spike counts."""
        matrix, transposed, n_steps = batch
        current = SparseProduct.apply(self.first, matrix, transposed)
        return fire(self.second(fire(current.view(n_steps, -1, HIDDEN)))).sum(0)


class SparsePeer(TorchPeer):
    """Reads sparse matrices in CSR form; matrix and transpose are made before the clock starts."""

    def place(self, events, samples):
        """Frames as a sparse matrix and its transpose."""
        pointer, columns = (torch.from_numpy(array) for array in events.rows(samples))
        rows = torch.repeat_interleave(torch.arange(len(pointer) - 1), pointer.diff())
        order = torch.argsort(columns, stable=True)
        ends = torch.bincount(columns, minlength=events.n_inputs).cumsum(0)
        transposed = torch.nn.functional.pad(ends, (1, 0)), rows[order]
        return (pointer, columns), transposed, events.n_steps


def make(events, task):
    """Build the peer."""
    torch.manual_seed(task.seed)
    return SparsePeer(Net(events.n_inputs))


if __name__ == "__main__":
    main(make)
