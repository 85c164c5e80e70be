"""Metrics on a time grid equal NeuroBench's own of the same network in PyTorch, and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from evsnn_kernels import layout
from test_operations import recordings

from evsnn import DataError, Network, NetworkSettings, SettingsError
from evsnn.layers import AveragePool, Conv2d
from evsnn.operations import grid_metrics

NETS = {
    "dense": ("25-20-3", {"alpha": (1.0, 2.0), "tau_ms": 2.0}),
    "without decay": ("25-20-3", {"alpha": (1.0, 2.0), "tau_ms": float("inf")}),
    "conv": ("6x6-4C3p1-P2-12-3", {"alpha": (1.0, 0.5, 1.0), "tau_ms": 3.0, "clamp": 4.0}),
    "pooling first": ("6x6x2-P2-8-3", {"alpha": 0.5, "tau_ms": 3.0}),
}
STEP = 100


def network_of(kind):
    """A network of which a tenth of the weights are 0."""
    arch, settings = NETS[kind]
    network = Network.from_architecture(arch, seed=1, settings=NetworkSettings(**settings))
    rng = np.random.default_rng(0)
    for layer in network.spiking_layers:
        layer.weight[rng.random(layer.weight.shape) < 0.1] = 0
    return network


def clocked(network, sample, steps):
    """Membranes and spikes of every layer after every step, by a plain clock: (steps, n) arrays."""
    drive = np.zeros((steps, network.n_inputs))
    np.add.at(drive, (sample.times // STEP, sample.units), 1)
    inputs, membranes, spikes = [], [], []
    for layer in network.layers:
        inputs.append(drive)
        if isinstance(layer, AveragePool):
            c, h, w = layer.in_shape
            s = layer.size
            whole = drive.reshape(steps, c, h, w)[:, :, : h // s * s, : w // s * s]
            drive = whole.reshape(steps, c, h // s, s, w // s, s).sum(axis=(3, 5)).reshape(steps, -1)
            continue
        matrix, threshold = dense_matrix(layer)
        exists = synapses(layer)
        v, history, fired = np.zeros(layer.n_out), [], []
        for x in drive:
            v = v * np.exp(-STEP / layer.neuron.tau_us) + x @ matrix
            # Thresholds are tested where input arrived: at a place, or in all of a dense layer.
            reached = (x @ exists > 0) if isinstance(layer, Conv2d) else x.any()
            v = np.where(reached, np.maximum(v, -layer.neuron.clamp * threshold), v)
            spike = (v >= threshold) & reached
            v = v - spike * threshold
            history.append(v)
            fired.append(spike)
        membranes.append(np.array(history))
        spikes.append(np.array(fired))
        drive = spikes[-1].astype(float)
    return inputs, membranes, spikes


def dense_matrix(layer):
    """Weights (n_in, n_out) and thresholds (n_out,) of a layer as a fully connected one."""
    from reference.convolution import convolution_matrix

    weight = layer.weight.astype(float) * layer.gain
    if not isinstance(layer, Conv2d):
        return weight, layer.threshold.astype(float)
    shape = (layer.in_shape, layer.kernel, layer.stride, layer.padding)
    return convolution_matrix(weight, *shape), np.repeat(layer.threshold.astype(float), layer.places)


@pytest.mark.parametrize("kind", NETS)
def test_the_definitions_by_a_plain_clock(kind):
    """Each metric as NeuroBench words it, call by call, in NumPy."""
    network = network_of(kind)
    data = recordings(network, grid=STEP)
    found = grid_metrics(network, data, step_us=STEP, threads=1)
    steps = data.duration_us // STEP + 1
    acs = macs = dense = updates = 0
    active, places = 0, 0
    for sample in data:
        inputs, membranes, spikes = clocked(network, sample, steps)
        inputs = [
            x for x, layer in zip(inputs, network.layers, strict=True) if not isinstance(layer, AveragePool)
        ]
        for layer, x, v, fired in zip(network.spiking_layers, inputs, membranes, spikes, strict=True):
            matrix, _ = dense_matrix(layer)
            exists = synapses(layer)
            for call in x:
                operations = ((call != 0) @ (matrix != 0).astype(int)).sum()
                dense += exists.sum()
                if np.isin(call, (-1, 0, 1)).all():
                    acs += operations
                else:
                    macs += operations
            updates += v.shape[1] + (v[1:] != v[:-1]).sum()
            active += fired.sum()
            places += fired.size
    n = len(data)
    assert acs > 0
    assert macs > 0
    assert found.effective_acs == acs / n
    assert found.effective_macs == macs / n
    assert found.dense == dense / n
    assert found.activation_sparsity == pytest.approx(1 - active / places, abs=1e-12)
    assert found.membrane_updates == updates / n
    assert found.steps == steps
    layers = network.spiking_layers
    assert found.footprint == 4 * network.parameters
    zeros = sum((layer.weight == 0).sum() for layer in layers) / sum(layer.weight.size for layer in layers)
    assert 0.05 < found.connection_sparsity == pytest.approx(zeros)


def synapses(layer):
    """Where a synapse exists, whatever its weight, (n_in, n_out)."""
    from reference.convolution import convolution_matrix

    ones = np.ones_like(layer.weight)
    if not isinstance(layer, Conv2d):
        return ones
    return convolution_matrix(ones, layer.in_shape, layer.kernel, layer.stride, layer.padding)


@pytest.mark.parametrize("kind", NETS)
def test_equal_to_neurobench(kind):
    missing = "neurobench, and torch and snntorch which it needs, are not installed"
    torch = pytest.importorskip("torch", reason=missing)
    snntorch = pytest.importorskip("snntorch", reason=missing)
    pytest.importorskip("neurobench", reason=missing)
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
    from neurobench.models import TorchModel
    from torch import nn

    class Neurons(snntorch.SpikingNeuron):
        """Soft reset at once, lower clamp where there was input: the neurons of the simulation."""

        def __init__(self, layer):
            super().__init__(init_hidden=True, output=False)
            for name in list(self._buffers):
                delattr(self, name)
            for name in list(self._parameters):
                delattr(self, name)
            high, low = layout.decay_tables(layer.neuron.tau_us)
            self.decay = float(high[STEP >> 10] * low[STEP & 1023])
            self.floor = -layer.neuron.clamp
            self.mem = torch.zeros(1)

        def forward(self, x, reached):
            v = self.mem * self.decay + x.flatten(1)
            v = torch.where(reached, torch.clamp(v, min=self.floor), v)
            spike = ((v >= 1) & reached).float()
            self.mem = v - spike
            return spike

    class Clocked(nn.Module):
        """A call a step; the batch has (sample, step, unit)."""

        def __init__(self):
            super().__init__()
            self.connections, self.neurons = nn.ModuleList(), nn.ModuleList()
            self.stages = []
            self.reach = {
                id(layer): torch.from_numpy(synapses(layer)).float() for layer in network.spiking_layers
            }
            for layer in network.layers:
                if isinstance(layer, AveragePool):
                    self.stages.append((None, None, layer))
                    continue
                weight = torch.from_numpy(layer.weight * np.float32(layer.gain) / layer.threshold)
                if isinstance(layer, Conv2d):
                    k = layer.kernel
                    connection = nn.Conv2d(
                        layer.in_shape[0], layer.maps, k, padding=layer.padding, bias=False
                    )
                    weight = weight.reshape(k, k, -1, layer.maps).permute(3, 2, 0, 1)
                else:
                    connection = nn.Linear(layer.n_in, layer.n_out, bias=False)
                    weight = weight.T
                connection.weight.data = weight.contiguous()
                neurons = Neurons(layer)
                neurons.register_buffer("threshold_values", torch.from_numpy(layer.threshold))
                self.connections.append(connection)
                self.neurons.append(neurons)
                self.stages.append((connection, neurons, layer))

        def forward(self, x):
            for neurons in self.neurons:
                neurons.mem = torch.zeros(1)
            counts = 0
            for step in range(x.shape[1]):
                y = x[:, step]
                for connection, neurons, layer in self.stages:
                    if not isinstance(layer, AveragePool):
                        reached = y.flatten(1) @ self.reach[id(layer)] > 0
                        shape = layer.in_shape if isinstance(layer, Conv2d) else (-1,)
                        y = neurons(connection(y.reshape(len(y), *shape)), reached)
                    else:
                        pooled = nn.functional.avg_pool2d(y.reshape(len(y), *layer.in_shape), layer.size)
                        y = (pooled * layer.size**2).flatten(1)
                counts = counts + y
            return counts

    network = network_of(kind)
    data = recordings(network, grid=STEP)
    found = grid_metrics(network, data, step_us=STEP, threads=1)
    model = TorchModel(Clocked())
    model.add_activation_module(snntorch.SpikingNeuron)
    operations, updates, sparsity = SynapticOperations(), MembraneUpdates(), ActivationSparsity()
    steps, shares, spikes = data.duration_us // STEP + 1, [], 0
    model.register_hooks()
    for sample in data:  # one by one: a call of several samples is AC or MAC as a whole
        frames = np.zeros((1, steps, network.n_inputs), np.float32)
        np.add.at(frames, (0, sample.times // STEP, sample.units), 1)
        batch = torch.from_numpy(frames), torch.zeros(1)
        with torch.no_grad():
            counts = model(batch[0])
        assert counts[0].tolist() == network.run(sample).counts.tolist()  # the same spikes
        spikes += int(counts.sum())
        for metric in (operations, updates):
            metric(model, counts, batch)
        shares.append(sparsity(model, counts, batch))
        model.reset_hooks()
    model.cleanup_hooks()
    assert spikes > 10
    theirs = operations.compute()
    assert found.effective_acs == theirs["Effective_ACs"]
    assert found.effective_macs == theirs["Effective_MACs"]
    assert found.dense == theirs["Dense"]
    assert found.membrane_updates == updates.compute()
    assert found.activation_sparsity == pytest.approx(np.mean(shares), abs=1e-12)
    assert found.footprint == Footprint()(model)
    assert round(found.connection_sparsity, 4) == ConnectionSparsity()(model)


@pytest.mark.usefixtures("spread")
def test_threads_and_blocks_change_nothing(monkeypatch):
    network = network_of("conv")
    data = recordings(network, grid=STEP)
    found = [grid_metrics(network, data, step_us=STEP, threads=threads) for threads in (1, 3)]
    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 5)
    done = []
    found.append(grid_metrics(network, data, step_us=STEP, report=done.append))
    assert done == [5, 5, 2]
    assert found[0] == found[1] == found[2]


def test_times_are_rounded_down_to_the_grid():
    network = network_of("dense")
    fine, coarse = recordings(network, grid=1), recordings(network, grid=500)
    by_hand = grid_metrics(network, coarse, step_us=500)
    assert grid_metrics(network, coarse, step_us=500).to_dict() == by_hand.to_dict()
    assert (coarse.times != fine.times).any()
    rounded = grid_metrics(network, fine, step_us=500)
    assert rounded == by_hand
    assert rounded.steps == 11


def test_wrong_steps():
    network = network_of("dense")
    data = recordings(network)
    with pytest.raises(SettingsError, match="1 us"):
        grid_metrics(network, data, step_us=0)
    with pytest.raises(DataError, match="no samples"):
        grid_metrics(network, data.part(0, 0))
