"""PyTorch by hand with a sparse first layer: the weight rows of the events that occur are added up.

The strongest opponent: like evsnn it does not touch the weights of inputs that are silent.
"""

from __future__ import annotations

import torch
from common import CLASSES, HIDDEN, main
from torch_neurons import fire
from torch_training import TorchPeer


class SparseProduct(torch.autograd.Function):
    """Product of a sparse matrix, given with its transpose, and the weights."""

    @staticmethod
    def forward(context, weight, matrix, transposed):
        """Currents of all steps and samples."""
        context.transposed = transposed
        return matrix @ weight

    @staticmethod
    def backward(context, error):
        """Gradient of the weights."""
        return context.transposed @ error, None, None


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
        size = (len(pointer) - 1, events.n_inputs)
        matrix = torch.sparse_csr_tensor(pointer, columns, torch.ones(len(columns)), size)
        transposed = matrix.to_sparse_coo().t().coalesce().to_sparse_csr()
        return matrix, transposed, events.n_steps


def make(events, task):
    """Build the peer."""
    torch.manual_seed(task.seed)
    return SparsePeer(Net(events.n_inputs))


if __name__ == "__main__":
    main(make)
