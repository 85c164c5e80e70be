"""A layer of spiking neurons in PyTorch with backpropagation through time written by hand.

Forward and backward loops work in place on whole time steps, and nothing is kept for the automatic
gradient but what the formulas need: what a user who wants speed would write.
"""

from __future__ import annotations

from typing import Any

import torch
from common import BETA


class LeakyIntegrateAndFire(torch.autograd.Function):
    """Input currents to spikes, both of shape (n_steps, n_samples, n).

    ``v[t] = BETA v[t-1] + current[t]``, spike where ``v[t] >= 1``, then ``v[t] -= 1``. The surrogate of the
    derivative of a spike is that of the arctangent, ``1 / (1 + (pi (v - 1))^2)``.
    """

    @staticmethod
    def forward(context: Any, current: torch.Tensor) -> torch.Tensor:
        """Simulate."""
        wanted = context.needs_input_grad[0]
        before = torch.empty_like(current) if wanted else None
        spikes = torch.empty_like(current)
        v = torch.zeros_like(current[0])
        for t in range(len(current)):
            v.mul_(BETA).add_(current[t])
            if before is not None:
                before[t] = v
            torch.ge(v, 1.0, out=spikes[t])
            v.sub_(spikes[t])
        context.before = before
        return spikes

    @staticmethod
    def backward(context: Any, error: torch.Tensor) -> torch.Tensor:
        """Back through time; the reset passes its error on, too."""
        slope = context.before.sub_(1.0).mul_(torch.pi).square_().add_(1.0).reciprocal_()
        result = torch.empty_like(error)
        carried = torch.zeros_like(error[0])  # derivative by v after the reset
        for t in range(len(error) - 1, -1, -1):
            own = result[t]
            torch.sub(error[t], carried, out=own)
            own.mul_(slope[t]).add_(carried)
            torch.mul(own, BETA, out=carried)
        return result


fire = LeakyIntegrateAndFire.apply
