"""Training and evaluation as a whole: what is learned, and what it must not depend on."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from support import toy_events, write_events

import evsnn
from evsnn import (
    AugmentSettings,
    EncoderSettings,
    EventAugmentSettings,
    LearningSettings,
    Network,
    NetworkSettings,
    load_model,
    save_model,
)
from evsnn.backends import CpuBackend
from evsnn.datasets import embedded_mnist
from evsnn.datasets.encoding import encode_images
from evsnn.errors import DataError, SettingsError
from evsnn.events import EventSet
from evsnn.network import network as network_module
from evsnn.training import PRESETS, evaluate, fit, preset
from evsnn.training import trainer as trainer_module
from evsnn.training.health import health_warnings
from evsnn.training.trainer import Totals

ARCH = "25-20-3"
NETWORK = NetworkSettings(alpha=(2.0, 2.0))
PLAIN = EventAugmentSettings.none()
LEARNING = LearningSettings(lr=0.01, batch_size=8, threshold_lr=0.1, epsilon=1e-8, schedule="linear")


@pytest.fixture(scope="module")
def toys():
    return toy_events(np.random.default_rng(1), 48)


@pytest.fixture(scope="module")
def digits():
    """Twenty digits with their images."""
    settings = EncoderSettings("poisson", rate=5.0)
    with CpuBackend(1) as backend:
        return encode_images(embedded_mnist()["train"].part(0, 20), settings, 0, backend)


def new(arch=ARCH, settings=NETWORK, seed=0):
    return Network.from_architecture(arch, settings=settings, seed=seed)


def bits(network):
    return [layer.weight.tobytes() + layer.threshold.tobytes() for layer in network.spiking_layers]


def trained(data, *, arch=ARCH, net_seed=0, settings=NETWORK, learning=LEARNING, **options):
    network = new(arch, settings, net_seed)
    usual = {"epochs": 2, "threads": 1, "event_augmentation": PLAIN}
    history = fit(network, data, learning=learning, **(usual | options))
    return network, history


# Learning


def test_fit_learns(toys):
    network = new()
    before = evaluate(network, toys).accuracy
    told = []
    history = fit(network, toys, epochs=12, learning=LEARNING, augment=False, on_epoch=told.append)
    assert told == history
    assert [line["epoch"] for line in history] == list(range(1, 13))
    assert before < 0.7
    assert history[-1]["train_accuracy"] > 0.95
    assert history[-1]["loss"] < history[0]["loss"] / 2
    unseen = toy_events(np.random.default_rng(2), 60)
    assert evaluate(network, unseen).accuracy > 0.95
    assert (network.predict(unseen) == unseen.labels).mean() > 0.95


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
@pytest.mark.parametrize("activity", ["counts", "trace"])
def test_every_way_of_learning_lowers_the_loss(toys, optimizer, loss, activity):
    rate = 0.3 if optimizer == "sgd" else 0.01
    learning = replace(LEARNING, optimizer=optimizer, loss=loss, activity=activity, lr=rate, weight_decay=0.0)
    _, history = trained(toys, learning=learning, epochs=6)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_metrics(toys):
    network, history = trained(toys, epochs=4, validation=toys)
    for line in history:
        json.dumps(line, allow_nan=False)
        assert line["events_per_sample"][0] == pytest.approx(np.diff(toys.offsets).mean())
        expected = np.multiply(line["events_per_sample"][:-1], network.architecture.sizes)
        assert line["synaptic_operations_per_sample"] == pytest.approx(expected)
        assert all(0 < share <= 1 for share in line["active_share"])
        assert line["seconds"] > 0
    assert [line["learning_rate"] for line in history] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert history[-1]["validation_accuracy"] == evaluate(network, toys).accuracy
    _, history = trained(toys)
    assert [line["validation_accuracy"] for line in history] == [None, None]


def test_events_of_a_file_teach_what_the_same_events_in_memory_teach(toys, tmp_path):
    network, history = trained(toys, validation=toys)
    with evsnn.open_events(write_events(tmp_path / "toys.h5", train=toys)) as file:
        other, other_history = trained(file["train"], validation=file["train"])
        assert network.predict(file["train"]).tolist() == other.predict(toys).tolist()
    assert bits(network) == bits(other)
    assert history[-1]["validation_accuracy"] == other_history[-1]["validation_accuracy"]


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_train(name, digits):
    config = preset(name)
    network = Network.from_architecture("28x28-12-10", settings=config.network)
    history = fit(network, digits, epochs=1, learning=config.learning, augmentation=config.augment)
    assert np.isfinite(history[0]["loss"])
    assert bits(network) != bits(Network.from_architecture("28x28-12-10", settings=config.network))


# Repeatability


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing(toys, digits, spread, threads):
    paper = preset("paper")
    balanced = replace(paper.learning, threshold_balance=0.01, max_norm=0.9, batch_size=8)
    for data, options in (
        (toys, {}),
        (toys, {"event_augmentation": EventAugmentSettings(drop=0.5, jitter_us=200)}),
        (digits, {"arch": "784-12-10", "augmentation": AugmentSettings(elastic=1.0)}),
        (digits, {"arch": "784-12-10", "settings": paper.network, "learning": balanced, "fresh": False}),
    ):
        one, history = trained(data, validation=data, **options)
        many, other = trained(data, validation=data, threads=threads, **options)
        assert bits(one) == bits(many)
        assert history[-1]["loss"] == other[-1]["loss"]
        assert history[-1]["validation_accuracy"] == other[-1]["validation_accuracy"]


def test_seeds(toys, digits):
    def fresh(**seeds):
        return bits(trained(digits, arch="784-8-10", epochs=1, **seeds)[0])

    assert bits(trained(toys)[0]) == bits(trained(toys)[0])
    assert bits(trained(toys)[0]) != bits(trained(toys, seed=1)[0])
    assert bits(trained(toys)[0]) != bits(trained(toys, net_seed=1)[0])
    assert fresh() == fresh()
    assert fresh() != fresh(seed=1)


def test_fresh_events_differ_from_epoch_to_epoch_and_stored_ones_do_not(digits):
    stored = np.diff(digits.offsets).mean()
    _, history = trained(digits, arch="784-8-10", epochs=3, fresh=False)
    assert [line["events_per_sample"][0] for line in history] == [stored] * 3
    plain = AugmentSettings(0, 0, 0, 0)
    _, history = trained(digits, arch="784-8-10", epochs=3, augmentation=plain, seed=1)
    drawn = [line["events_per_sample"][0] for line in history]
    assert len({stored, *drawn}) == 4
    assert drawn == pytest.approx([stored] * 3, rel=0.05)
    _, history = trained(digits, arch="784-8-10", epochs=1, augmentation=AugmentSettings(scale=0.5))
    assert history[0]["events_per_sample"][0] not in {stored, *drawn}
    without_images = replace(digits, images=None)
    _, history = trained(without_images, arch="784-8-10")
    assert [line["events_per_sample"][0] for line in history] == [stored] * 2


def test_recordings_are_distorted_anew_every_epoch(toys):
    stored = np.diff(toys.offsets).mean()
    lossy = EventAugmentSettings(drop=0.3)

    def inputs(data, **options):
        network, history = trained(data, epochs=3, **options)
        return [line["events_per_sample"][0] for line in history], bits(network)

    counts, learned = inputs(toys, event_augmentation=lossy)
    assert len({stored, *counts}) == 4
    assert counts != inputs(toys, event_augmentation=lossy, seed=1)[0]
    plain = inputs(toys)
    assert plain[0] == [stored] * 3
    assert inputs(toys, event_augmentation=lossy, augment=False) == plain
    assert learned != plain[1]
    # fit distorts by default, as the preset does.
    assert inputs(toys, event_augmentation=None) == inputs(toys, event_augmentation=EventAugmentSettings())
    assert inputs(toys, event_augmentation=None)[0] != plain[0]


def test_stored_events_of_images_are_distorted_on_request_only(digits):
    def learned(**options):
        return bits(trained(digits, arch="784-8-10", **options)[0])

    lossy = EventAugmentSettings(drop=0.3)
    stored = learned(fresh=False)
    assert learned(fresh=False, event_augmentation=lossy) == stored
    assert learned(fresh=False, event_augmentation=replace(lossy, always=True)) != stored
    assert learned(event_augmentation=replace(lossy, always=True)) == learned()
    undistorted = learned(augmentation=AugmentSettings(0, 0, 0, 0))
    assert learned(augment=False) == undistorted
    assert learned() != undistorted


def test_fresh_events_come_from_the_encoder_of_the_data(digits):
    weak = replace(digits, encoder=EncoderSettings(rate=1.0).to_dict())
    _, history = trained(weak, arch="784-8-10", epochs=1, augmentation=AugmentSettings(0, 0, 0, 0))
    assert history[0]["events_per_sample"][0] == pytest.approx(np.diff(digits.offsets).mean() / 5, rel=0.1)


# Evaluation


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("threads", [1, 2])
def test_evaluation_depends_on_neither_blocks_nor_threads(toys, spread, monkeypatch, block, threads):
    network, _ = trained(toys, settings=replace(NETWORK, refractory_ms=1.0, kappa=-0.2))
    expected = evaluate(network, toys, threads=1)
    monkeypatch.setattr(network_module, "EVALUATION_BATCH", block)
    done = []
    found = evaluate(network, toys, threads=threads, report=done.append)
    assert found.predictions.tolist() == expected.predictions.tolist()
    assert network.predict(toys, threads=threads).tolist() == expected.predictions.tolist()
    exact = {"samples", "correct", "silent", "events", "operations"}
    pair = found.totals.to_dict(), expected.totals.to_dict()
    assert {name: pair[0][name] for name in exact} == {name: pair[1][name] for name in exact}
    assert pair[0]["active"] == pytest.approx(pair[1]["active"])
    assert sum(done) == len(toys)
    assert max(done) == min(block, len(toys))


def test_evaluation_counts_right(toys):
    network, _ = trained(toys, arch="25-20-5")  # more outputs than classes
    found = evaluate(network, toys)
    assert found.accuracy == (found.predictions == toys.labels).mean()
    assert found.confusion.shape == (5, 5)
    for label in range(5):
        for prediction in range(5):
            expected = ((toys.labels == label) & (found.predictions == prediction)).sum()
            assert found.confusion[label, prediction] == expected
    runs = [network.run(sample) for sample in toys]
    assert found.totals.events.tolist() == [
        len(toys.times),
        *(sum(len(run.spikes[layer]) for run in runs) for layer in range(2)),
    ]
    assert found.totals.operations.tolist() == [found.totals.events[0] * 20, found.totals.events[1] * 5]
    assert found.totals.silent == sum(len(run.spikes[1]) == 0 for run in runs)
    share = [np.mean([len(set(run.spikes[layer].units.tolist())) for run in runs]) for layer in range(2)]
    assert found.totals.means()["active_share"] == pytest.approx([share[0] / 20, share[1] / 5])


def test_an_empty_set(toys):
    network = new()
    assert network.predict(toys.part(0, 0)).shape == (0,)
    assert np.isnan(evaluate(network, toys.part(0, 0)).accuracy)
    with pytest.raises(DataError, match="no training samples"):
        fit(network, toys.part(0, 0))


def test_data_that_do_not_fit_are_refused_before_anything_is_learned(toys):
    network = new()
    before = bits(network)
    with pytest.raises(DataError, match="the validation data has 784"):
        fit(network, toys, validation=replace(toys, shape=(1, 28, 28)))
    with pytest.raises(DataError, match="the training data has 4 classes"):
        fit(network, replace(toys, classes=4))
    with pytest.raises(SettingsError, match="epochs"):
        fit(network, toys, epochs=0)
    with pytest.raises(SettingsError, match="threads"):
        fit(network, toys, threads=0)
    assert bits(network) == before


# One sample


@pytest.mark.parametrize(
    "settings",
    [NETWORK, NetworkSettings(tau_ms=2.0, refractory_ms=0.5, kappa=-0.3, clamp=0.2, alpha=1.0)],
    ids=["default", "all of the physics"],
)
def test_a_run_agrees_with_a_batch_and_with_itself(toys, settings):
    network, _ = trained(toys, settings=settings)
    predictions = network.predict(toys)
    potentials = np.concatenate([forward.potential for forward in network.passes(toys)])
    counts = np.concatenate([forward.counts for forward in network.passes(toys)])
    assert counts.sum() > 0
    for index in (0, 5, 2, 5, 0):  # any order: every run starts from rest
        plain = network.run(toys[index])
        watched = network.run(toys[index], record="membrane")
        for run in (plain, watched):
            assert run.prediction == predictions[index]
            assert run.counts.tolist() == counts[index].tolist()
            assert run.potential.tobytes() == potentials[index].tobytes()
        for one, other in zip(plain.spikes, watched.spikes, strict=True):
            assert one.times.tolist() == other.times.tolist()
            assert one.units.tolist() == other.units.tolist()
        assert np.bincount(plain.spikes[-1].units, minlength=3).tolist() == plain.counts.tolist()
        assert watched.group_times.tolist() == np.unique(toys[index].times).tolist()
        assert [rows.shape for rows in watched.membrane] == [(len(watched.group_times), n) for n in (20, 3)]
        assert (watched.membrane[-1][-1] == watched.potential).all()
        assert all((rows > -settings.clamp * 1.001).all() for rows in watched.membrane)
        assert plain.group_times is None
        assert plain.membrane == []


def test_a_run_without_events(toys):
    network = new()
    none = toys[0].from_arrays([], [])
    for record in ("spikes", "membrane"):
        run = network.run(none, record=record)
        assert [len(spikes) for spikes in run.spikes] == [0, 0]
        assert run.counts.tolist() == [0, 0, 0]
        assert run.potential.tolist() == [0.0, 0.0, 0.0]
        assert run.prediction == 0
    assert [rows.shape for rows in run.membrane] == [(0, 20), (0, 3)]
    assert run.group_times.shape == (0,)


def test_a_run_refuses(toys):
    network = new()
    with pytest.raises(SettingsError, match="record"):
        network.run(toys[0], record="everything")
    with pytest.raises(DataError, match="unit 25"):
        network.run(toys[0].from_arrays([1, 2], [3, 25]))


# Health


def warnings_of(history, network, loss="cross-entropy"):
    return health_warnings(history[-1], network.architecture.sizes, loss)


def test_a_healthy_network_has_no_warnings(toys):
    network, history = trained(toys, epochs=8)
    assert warnings_of(history, network) == []


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_a_silent_network_is_told_and_does_not_crash(toys, loss):
    silent = replace(NETWORK, alpha=1000.0)
    network, history = trained(toys, settings=silent, learning=replace(LEARNING, loss=loss))
    assert history[-1]["events_per_sample"][1:] == [0.0, 0.0]
    assert all(np.isfinite(line["loss"]) for line in history)
    assert all(np.isfinite(layer.weight).all() for layer in network.layers)
    first, last = warnings_of(history, network, loss)
    assert first.startswith("layer 1 (20 neurons) is silent, 0.00 events a sample: lower its --alpha")
    assert last.startswith("samples end without an output spike, 100% of them: lower the last --alpha")
    assert ("cross-entropy" in last) == (loss == "mse")


def test_a_saturated_layer_is_told(toys):
    loud = NetworkSettings(alpha=(0.01, 2.0), clamp=0.0)
    network, history = trained(toys, settings=loud, learning=replace(LEARNING, threshold_lr=0.0))
    [line] = warnings_of(history, network)
    assert line.startswith("layer 1 (20 neurons) is saturated, ")
    assert "raise its --alpha" in line


def test_weights_that_grow_without_end_are_told(toys):
    wild = replace(LEARNING, lr=3.0, weight_decay=0.0, schedule="constant")
    network, history = trained(toys, learning=wild)
    norms = [np.sqrt(np.square(layer.weight).sum(axis=0).mean()) for layer in network.layers]
    assert history[-1]["weight_norms"] == pytest.approx(norms, rel=1e-5)
    lines = [line for line in warnings_of(history, network) if "grow without end" in line]
    assert lines[0].startswith(
        f"the weights of layer 1 (20 neurons) grow without end, their norm is {norms[0]:.0f} (1 at the start)"
    )
    assert "lower --lr" in lines[0]
    _, history = trained(toys, learning=replace(wild, max_norm=2.0))
    assert max(history[-1]["weight_norms"]) <= 2.0 * (1 + 1e-6)


def test_an_empty_input_is_told(toys):
    hollow = EventSet(
        toys.times[:0], toys.units[:0], np.zeros(4, np.int64), toys.labels[:3], toys.shape, 5000, 3
    )
    network, history = trained(hollow)
    assert np.isfinite(history[-1]["loss"])
    assert warnings_of(history, network)[0].startswith("the input is nearly empty, 0.00 events a sample: ")


@pytest.mark.parametrize("floor", [0.1, 0.5])
def test_thresholds_keep_their_floor(toys, floor):
    learning = replace(LEARNING, threshold_lr=10.0, threshold_floor=floor, schedule="constant")
    network, _ = trained(toys, learning=learning, epochs=6)
    lowest = [layer.threshold.min() / layer.initial_threshold for layer in network.layers]
    assert min(lowest) == pytest.approx(floor, rel=1e-6)
    assert all(share >= floor * (1 - 1e-6) for share in lowest)


def test_a_loss_that_is_not_finite_is_told(toys, monkeypatch):
    real = trainer_module.backpropagate

    def broken(*arguments):
        loss, gradients = real(*arguments)
        return loss * np.nan, gradients

    monkeypatch.setattr(trainer_module, "backpropagate", broken)
    with pytest.raises(trainer_module.DivergedError, match="epoch 1, batch 1: the loss is not finite"):
        trained(toys)


# Bookkeeping and memory


def test_totals_survive_a_checkpoint(toys):
    network, _ = trained(toys)
    totals, sizes = Totals(2), [layer.n_out for layer in network.layers]
    for forward in network.passes(toys):
        totals.add(forward, toys.labels, sizes)
    totals.loss, totals.seconds = 0.1 + 0.2, 1 / 3
    copy = Totals.from_dict(2, json.loads(json.dumps(totals.to_dict())))
    assert copy.to_dict() == totals.to_dict()
    assert copy.means() == totals.means()
    assert [array.dtype for array in (copy.events, copy.operations, copy.active)] == [
        np.int64,
        np.int64,
        np.float64,
    ]
    for forward in network.passes(toys):
        copy.add(forward, toys.labels, sizes)
        totals.add(forward, toys.labels, sizes)
    assert copy.to_dict() == totals.to_dict()


def test_memory_does_not_grow_with_the_length_of_a_recording(toys):
    """Without leak, stretching time changes nothing; so it must not change the memory either."""
    longer = replace(toys, times=toys.times * np.uint32(1000), duration_us=toys.duration_us * 1000).check()
    still = replace(NETWORK, tau_ms=np.inf)

    def peak(data):
        tracemalloc.start()
        try:
            network, _ = trained(data, settings=still)
            return bits(network), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(toys)  # what is compiled and imported on the way
    learned, memory = peak(toys)
    learned_longer, memory_longer = peak(longer)
    assert learned == learned_longer
    assert memory_longer < 1.05 * memory + 10_000
    more = EventSet(
        np.repeat(toys.times, 20),
        np.repeat(toys.units, 20),
        toys.offsets * 20,
        toys.labels,
        toys.shape,
        toys.duration_us,
        toys.classes,
    )
    assert peak(more)[1] > 1.5 * memory  # the measurement does see what grows


# Convolutions


def conv_net(seed=1):
    settings = NetworkSettings(alpha=(1.0, 0.5, 1.0), clamp=8.0, kappa=(-0.1, 0.0, 0.0))
    return Network.from_architecture("6x6-8C3-P2-20-3", seed=seed, settings=settings)


@pytest.mark.usefixtures("spread")
def test_a_convolutional_network_learns_with_the_same_bits_for_any_threads():
    data = toy_events(np.random.default_rng(0), n=90, size=6)
    nets = [conv_net() for _ in range(3)]
    learning = LearningSettings(lr=1e-2, batch_size=10)
    for threads, net in enumerate(nets, start=1):
        history = fit(net, data, epochs=15, learning=learning, augment=False, seed=3, threads=threads)
    assert history[-1]["train_accuracy"] > 0.9
    assert history[-1]["synaptic_operations_per_sample"][1] == 0  # pooling only relays
    for other in nets[1:]:
        for a, b in zip(nets[0].spiking_layers, other.spiking_layers, strict=True):
            np.testing.assert_array_equal(a.weight, b.weight)
            np.testing.assert_array_equal(a.threshold, b.threshold)


def test_a_convolutional_model_survives_its_file(tmp_path):
    data = toy_events(np.random.default_rng(1), n=12, size=6)
    net = conv_net()
    save_model(tmp_path / "model.h5", net)
    again = load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(net.predict(data), again.predict(data))
    record = again.run(data[0], record="membrane")
    assert [rows.shape[1] for rows in record.membrane] == [128, 0, 20, 3]
    assert record.prediction == again.predict(data)[0]
    plain = again.run(data[0])
    for a, b in zip(record.spikes, plain.spikes, strict=True):
        np.testing.assert_array_equal(a.times, b.times)
        np.testing.assert_array_equal(a.units, b.units)


# Presets


def test_the_default_preset_suits_network_and_data():
    dense, conv = "784-20-10", "28x28-4C5-P2-20-10"
    assert preset("default", dense).network == NetworkSettings()
    chosen = preset("default", conv).network
    assert chosen.kappa == (-0.1, 0.0, 0.0)
    assert Network.from_architecture(conv).settings == chosen
    assert Network.from_architecture(dense).settings == NetworkSettings()
    learning = {
        (arch, recordings): preset("default", arch, recordings=recordings).learning
        for arch in (dense, conv)
        for recordings in (False, True)
    }
    assert learning[dense, False] == LearningSettings()
    assert len(set(learning.values())) == 4
    assert preset("paper", conv).learning == preset("paper").learning


def test_fit_learns_as_the_default_preset_says(toys, digits):
    for data, arch in ((toys, None), (digits, "784-12-10"), (digits, "28x28-2C5-P4-10")):
        recordings = data.images is None
        options = {} if arch is None else {"arch": arch}
        text = trained(data, epochs=1, **options)[0].architecture.text
        learning = preset("default", text, recordings=recordings).learning
        chosen = trained(data, epochs=1, learning=None, **options)[0]
        assert bits(chosen) == bits(trained(data, epochs=1, learning=learning, **options)[0])
