"""Operation counts equal those of a simulation that counts one by one."""

from __future__ import annotations

import numpy as np
import pytest
from reference import operations as oracle
from reference.convolution import simulate_pool
from support import toy_events, write_events

from evsnn import DataError, Network, NetworkSettings, SettingsError, evaluate, open_events
from evsnn.events.core import EventSet
from evsnn.layers import Conv2d, Dense, NeuronSettings
from evsnn.operations import EnergyTable, count_operations, energy_table
from evsnn.operations import counting as counting_module
from evsnn.operations.counting import COUNTS

PHYSICS = {"tau_ms": 2.0, "refractory_ms": 0.5, "kappa": -0.2, "clamp": 0.5}
NETS = {
    "plain": ("25-20-3", {"alpha": (1.0, 2.0)}),
    "all rules": ("25-20-3", {"alpha": (1.0, 2.0)} | PHYSICS),
    "conv": ("6x6-4C3p1-P2-12-3", {"alpha": (1.0, 0.5, 1.0), "clamp": 4.0}),
    "conv, all rules": ("6x6-4C3p1-P2-12-3", {"alpha": (1.0, 0.5, 1.0)} | PHYSICS),
    "conv after conv": ("6x6x2-3C3-2C2-3", {"alpha": (1.0, 0.5, 0.5)} | PHYSICS),
    "pooling first": ("6x6-P2-8-3", {"alpha": 0.5} | PHYSICS),
}


def network_of(kind):
    arch, settings = NETS[kind]
    return Network.from_architecture(arch, seed=1, settings=NetworkSettings(**settings))


def recordings(network, n=12, grid=100):
    """Recordings of different lengths with simultaneous and with repeated events; one is empty."""
    rng = np.random.default_rng(3)
    channels, height, width = network.architecture.shape
    shape = (1, 5, 5) if (height, width) == (1, 25) else (channels, height, width)
    samples = []
    for index in range(n):
        size = 0 if index == 4 else int(rng.integers(1, 50))
        times = rng.integers(0, 5000, size) // grid * grid
        units = rng.integers(0, np.prod(shape), size)
        order = np.lexsort((units, times))
        samples.append((times[order], units[order]))
    offsets = np.cumsum([0, *(len(times) for times, _ in samples)])
    return EventSet(
        np.concatenate([times for times, _ in samples]).astype(np.uint32),
        np.concatenate([units for _, units in samples]).astype(np.uint32),
        offsets.astype(np.int64),
        (np.arange(n) % 3).astype(np.uint16),
        shape,
        5000,
        3,
    ).check()


def expected_counts(network, sample):
    """Counts of every layer for one sample, one by one."""
    events = list(zip(sample.times.tolist(), sample.units.tolist(), strict=True))
    active = {unit for _, unit in events}
    found = []
    for index, layer in enumerate(network.layers):
        if not isinstance(layer, Dense | Conv2d):
            times, units = zip(*events, strict=True) if events else ((), ())
            found.append({"input_events": len(events)})
            events = list(
                zip(*map(list, simulate_pool(times, units, layer.in_shape, layer.size)), strict=True)
            )
            events = [(int(t), int(u)) for t, u in events]
            active = {unit for _, unit in events}
            continue
        weight = layer.weight.astype(np.float64) * layer.gain
        if isinstance(layer, Conv2d):
            shape = (layer.in_shape, layer.kernel, layer.stride, layer.padding)
            counted = oracle.conv(weight, layer.threshold, *shape)
        else:
            counted = oracle.dense(weight, layer.threshold)
        neuron = layer.neuron
        events = oracle.simulate(
            events,
            counted,
            tau_us=neuron.tau_us,
            refractory_us=neuron.refractory_us,
            kappa=neuron.kappa,
            clamp=neuron.clamp,
        )
        fired = {unit for _, unit in events}
        is_last = index == len(network.layers) - 1
        pairs = oracle.synapses_in_use(counted, active, set(range(layer.n_out)) if is_last else fired)
        backward = {"gradient_operations": pairs, "error_operations": pairs if index else 0}
        found.append(dict(counted.counter) | backward)
        active = fired
    return found


@pytest.mark.parametrize("kind", NETS)
def test_every_count_equals_the_one_by_one_count(kind, monkeypatch):
    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 5)
    network = network_of(kind)
    data = recordings(network)
    counted = count_operations(network, data, threads=1)
    seen = set()
    for index, sample in enumerate(data):
        for number, expected in enumerate(expected_counts(network, sample)):
            found = {name: int(getattr(counted.layers[number], name)[index]) for name in COUNTS}
            assert found == {name: expected.get(name, 0) for name in COUNTS}, (index, number)
            seen |= {name for name, value in found.items() if value}
    rules = {"refractory_multiplications", "inhibitions"}
    with_rules = PHYSICS.items() <= NETS[kind][1].items()
    assert seen == set(COUNTS) - (set() if with_rules else rules)


def test_small_pieces_count_the_same(monkeypatch):
    network = network_of("conv, all rules")
    data = recordings(network, grid=500)
    whole = count_operations(network, data)
    monkeypatch.setattr(counting_module, "_PIECE", 80)
    parts = count_operations(network, data)
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert one.membrane_updates.tolist() == other.membrane_updates.tolist()


@pytest.mark.parametrize("kind", ["all rules", "conv, all rules"])
def test_counts_and_predictions_agree_with_the_evaluation(kind):
    network = network_of(kind)
    data = recordings(network)
    counted, result = count_operations(network, data, threads=2), evaluate(network, data)
    assert counted.predictions.tolist() == result.predictions.tolist()
    assert counted.accuracy == result.accuracy
    totals = result.totals
    assert [int(layer.synaptic_operations.sum()) for layer in counted.layers] == totals.operations.tolist()
    assert [int(layer.input_events.sum()) for layer in counted.layers] == totals.events[:-1].tolist()


@pytest.mark.usefixtures("spread")
def test_threads_change_nothing():
    network = network_of("conv, all rules")
    data = recordings(network)
    rows = [count_operations(network, data, threads=threads).rows() for threads in (1, 2, 3)]
    assert rows[0] == rows[1] == rows[2]


def test_an_event_file_is_read_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr("evsnn.network.network.EVALUATION_BATCH", 5)
    network = network_of("plain")
    data = recordings(network)
    done = []
    with open_events(write_events(tmp_path / "toys.h5", test=data)) as file:
        lazy = count_operations(network, file["test"], report=done.append)
    assert done == [5, 5, 2]
    assert lazy.rows() == count_operations(network, data).rows()


def test_rows():
    network = network_of("conv, all rules")
    counted = count_operations(network, recordings(network))
    *layers, total = counted.rows()
    assert [row["layer"] for row in (*layers, total)] == ["4C3p1", "P2", "12", "3", "total"]
    # By hand: 4 maps of 6 x 6 places with 9 weights; 12 neurons behind 4 x 3 x 3 pooled units; 3 behind 12.
    assert [row["dense_macs"] for row in layers] == [1296, 0, 432, 36]
    assert [row["dense_backward_macs"] for row in layers] == [1296, 0, 864, 72]
    assert [row["neurons"] for row in layers] == [144, 0, 12, 3]
    assert [row["parameters"] for row in layers] == [36 + 4, 0, 432 + 12, 36 + 3]
    for name in set(total) - {"layer", "input_events", "activity_sparsity"}:
        assert total[name] == pytest.approx(sum(row[name] for row in layers)), name
    assert total["input_events"] == layers[0]["input_events"]
    silent = 1 - sum(layer.active_neurons.mean() for layer in counted.layers) / (144 + 12 + 3)
    assert total["activity_sparsity"] == pytest.approx(silent)
    first = counted.layers[0]
    assert layers[0]["multiplications"] == pytest.approx(
        (first.membrane_updates + first.refractory_multiplications).mean()
    )
    assert layers[0]["additions"] == pytest.approx(
        (first.synaptic_operations + first.spikes + first.inhibitions).mean()
    )


def test_no_samples_and_wrong_data():
    network = network_of("plain")
    with pytest.raises(DataError, match="no samples"):
        count_operations(network, recordings(network).part(0, 0))
    with pytest.raises(DataError, match="inputs"):
        count_operations(network, toy_events(np.random.default_rng(0), size=6))


def test_the_targets_of_a_convolution():
    """By hand: 4 inputs in a row, kernel 3, stride 2, padding 1: places 0 and 1 see inputs -1..1 and 1..3."""
    layer = Conv2d(np.ones((9, 1)), np.ones(1), NeuronSettings(), (1, 1, 4), 3, 2, 1)
    middle = layer.targets.reshape(4, 3, 3)[:, 1]  # the kernel row that is not padding
    assert middle.tolist() == [[-1, 0, -1], [1, -1, 0], [-1, 1, -1], [-1, -1, 1]]
    assert (layer.targets.reshape(4, 3, 3)[:, [0, 2]] == -1).all()
    assert layer.synapses.tolist() == [1, 2, 1, 1]


# Energy


def test_the_energy_of_a_row():
    table = energy_table("horowitz-45nm")
    assert "ISSCC 2014" in table.source
    row = {
        "additions": 1000.0,
        "multiplications": 10.0,
        "threshold_comparisons": 10.0,
        "weight_bytes": 4000.0,
    }
    assert table.of_counts(row) == pytest.approx(1000 * 0.9 + 10 * 3.7)
    assert table.of_macs(100) == pytest.approx(100 * 4.6)
    assert table.left_out == ["comparison", "weight_byte"]


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text('source = "data sheet"\naddition = 1\nmultiplication = 2.0\nweight_byte = 0.5\n')
    table = energy_table(str(path))
    assert table == EnergyTable("data sheet", {"addition": 1, "multiplication": 2.0, "weight_byte": 0.5})
    row = {"additions": 3.0, "multiplications": 4.0, "threshold_comparisons": 9.0, "weight_bytes": 12.0}
    assert table.of_counts(row) == 3 + 8 + 6
    assert table.of_macs(2) == 2 * (1 + 2 + 4 * 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("addition = 1\nmultiplication = 1", "must name its source"),
        ('source = "x"\naddition = 1', "needs multiplication"),
        ('source = "x"\naddition = -1\nmultiplication = 1', "0 or more, got -1"),
        ('source = "x"\naddition = true\nmultiplication = 1', "got True"),
        ('source = "x"\naddition = nan\nmultiplication = 1', "got nan"),
        ('source = "x"\nadd = 1', "unknown operation 'add'; known are addition"),
        ("source = ", "not valid TOML"),
        ("source = 3\naddition = 1\nmultiplication = 1", "must name its source"),
    ],
)
def test_wrong_tables(tmp_path, text, words):
    path = tmp_path / "chip.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"chip\.toml") as error:
        energy_table(str(path))
    assert words in str(error.value)


def test_no_such_table(tmp_path):
    with pytest.raises(SettingsError, match="neither a file nor one of horowitz-45nm"):
        energy_table("horowitz")
    with pytest.raises(SettingsError, match="cannot read"):
        energy_table(str(tmp_path))
