"""spyx: compiled by XLA for the CPU, a scan over time steps, with its own training step."""

from __future__ import annotations

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import BETA, CLASSES, HIDDEN, Peer, main
from flax import nnx
from spyx import nn
from spyx.fn import integral_crossentropy
from spyx.optimize import make_train_step

LEARNING_RATE = 1e-3


class SpyxPeer(Peer):
    """Two layers; the training step is compiled in each of the first three calls."""

    warm_steps = 3

    def __init__(self, n_inputs, seed):
        super().__init__()
        rngs = nnx.Rngs(seed)
        self.model = nn.Sequential(
            nnx.Linear(n_inputs, HIDDEN, use_bias=False, rngs=rngs),
            nn.LIF((HIDDEN,), beta=BETA, rngs=rngs),
            nnx.Linear(HIDDEN, CLASSES, use_bias=False, rngs=rngs),
            nn.LIF((CLASSES,), beta=BETA, rngs=rngs),
        )
        self.optimiser = nnx.Optimizer(self.model, optax.adam(LEARNING_RATE), wrt=nnx.Param)
        loss = integral_crossentropy(smoothing=0.0, time_axis=0)
        self.step = make_train_step(lambda model, frames, labels: loss(nn.run(model, frames)[0], labels))
        self.count = nnx.jit(lambda model, frames: nn.run(model, frames)[0].sum(0).argmax(1))

    def place(self, events, samples):
        """Frames, shape (n_steps, n_samples, n_inputs)."""
        return jnp.asarray(events.frames(samples))

    def train(self, batch, labels, rate):
        """One step of Adam; its learning rate stays, for the step is compiled."""
        jax.block_until_ready(self.step(self.model, self.optimiser, batch, jnp.asarray(labels)))

    def infer(self, batch):
        """Class with the most output spikes."""
        return np.asarray(self.count(self.model, batch))


def make(events, task):
    """Build the peer."""
    return SpyxPeer(events.n_inputs, task.seed)


if __name__ == "__main__":
    main(make)
