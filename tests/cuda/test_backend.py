"""The host side of the CUDA backend: what a network learns there is what it learns on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import schedule
from evsnn_kernels.cpu import state as state_kernels
from evsnn_kernels.cuda.device import Device
from evsnn_kernels.cuda.launch import SIMULATED, CudaKernel
from support import toy_events

from evsnn import EncoderSettings, EventAugmentSettings, LearningSettings, Network, NetworkSettings, fit
from evsnn.backends import CpuBackend, QueueTooSmallError, open_backend
from evsnn.backends.cuda import CudaBackend, DeviceArray
from evsnn.backends.stage import Stage
from evsnn.datasets.encoding import encode_images
from evsnn.datasets.images import ImageSet
from evsnn.datasets.sampling import FreshEvents
from evsnn.errors import BackendError
from evsnn.events.queue import QueueBuffer
from evsnn.network import network as network_module
from evsnn.training import evaluate
from evsnn.training.trainer import Trainer

DENSE = "5x5-9-3"
CONV = "5x5-3C2-P2-3"
PLAIN = LearningSettings(batch_size=5, lr=0.02)
EVERYTHING = LearningSettings(
    batch_size=4,
    lr=0.02,
    optimizer="sgd",
    loss="mse",
    activity="trace",
    threshold_lr=1.0,
    norm_strength=0.01,
    max_norm=2.0,
    sparsity=5.0,
)
WHOLE_PHYSICS = NetworkSettings(tau_ms=4.0, refractory_ms=0.5, kappa=-0.2, clamp=2.0, alpha=0.7)
JITTER = EventAugmentSettings(shift=1.0, jitter_us=50, drop=0.2)


@pytest.fixture(autouse=True)
def few_threads_in_turns(monkeypatch):
    """Kernels are right for any number of threads, and each one simulated is a thread of the system."""
    if SIMULATED:
        threads = CudaKernel.threads
        monkeypatch.setattr(CudaKernel, "threads", lambda self, *args: min(16, threads(self, *args)))
    with schedule(seed=0):
        yield


@pytest.fixture(scope="module")
def toys():
    return toy_events(np.random.default_rng(0), n=8)


@pytest.fixture(scope="module")
def pictures():
    """Digits of a kind, with events drawn of them: training draws fresh ones."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (9, 5, 5)).astype(np.uint8)
    digits = ImageSet(images, (np.arange(9) % 3).astype(np.uint16), 3, {})
    return encode_images(digits, EncoderSettings(rate=2.0), 0, CpuBackend(1))


def learned(data, architecture, backend, *, settings=None, learning=PLAIN, epochs=1, **options):
    """Parameters after training, and the metrics of every epoch but for their times."""
    settings = settings or NetworkSettings(tau_ms=5.0, alpha=1.0)
    network = Network.from_architecture(architecture, seed=1, settings=settings)
    history = fit(
        network,
        data,
        validation=data,
        epochs=epochs,
        learning=learning,
        backend=backend,
        threads=1,
        seed=3,
        **options,
    )
    layers = network.spiking_layers
    arrays = [array.tobytes() for layer in layers for array in (layer.weight, layer.threshold)]
    for metrics in history:
        del metrics["seconds"], metrics["samples_per_second"]
    return arrays, history


def assert_equal(data, architecture, backend=None, **options):
    expected, expected_history = learned(data, architecture, "cpu", **options)
    with backend or CudaBackend(threads=1) as opened:
        found, history = learned(data, architecture, opened, **options)
    assert history == expected_history
    assert found == expected
    assert min(history[-1]["events_per_sample"]) > 0


@pytest.mark.parametrize("architecture", [DENSE, CONV])
@pytest.mark.parametrize(
    ("settings", "learning"), [(None, PLAIN), (WHOLE_PHYSICS, EVERYTHING)], ids=["plain", "everything"]
)
def test_training_gives_the_same_bits(toys, architecture, settings, learning):
    epochs = 2 if architecture == DENSE else 1
    assert_equal(toys, architecture, settings=settings, learning=learning, augment=False, epochs=epochs)


def test_balanced_thresholds_give_the_same_bits(toys):
    assert_equal(toys, DENSE, learning=replace(PLAIN, threshold_balance=0.01), augment=False)


def test_distorted_recordings_give_the_same_bits(toys):
    assert_equal(toys, DENSE, event_augmentation=JITTER)


def test_fresh_events_of_distorted_images_give_the_same_bits(pictures):
    assert_equal(pictures, DENSE, settings=NetworkSettings(tau_ms=20.0, alpha=1.0))


def test_a_queue_that_is_too_small_grows_and_the_batch_runs_again(toys, pictures, monkeypatch):
    """From room for one event: nothing is lost, and no batch is learned twice."""
    plain, settled = QueueBuffer.__init__, []
    settle = QueueBuffer.settle

    def tiny(self, backend, expected=1):
        plain(self, backend, 1)

    def counted(self, count):
        settled.append(settle(self, count))
        return settled[-1]

    monkeypatch.setattr(QueueBuffer, "__init__", tiny)
    expected = learned(toys, CONV, "cpu", augment=False)
    images = learned(pictures, DENSE, "cpu")
    monkeypatch.setattr(QueueBuffer, "settle", counted)
    with CudaBackend(threads=1) as backend:
        assert learned(toys, CONV, backend, augment=False) == expected
        assert learned(pictures, DENSE, backend) == images
    assert settled.count(False) >= 4


@pytest.mark.parametrize("kind", ["stored", "distorted", "images"])
def test_a_set_that_does_not_fit_comes_chunk_by_chunk(toys, pictures, kind, monkeypatch):
    chunks = []
    gather = Stage._part

    def counted(self, chunk):
        chunks.append(len(chunk))
        return gather(self, chunk)

    monkeypatch.setattr(Stage, "_part", counted)
    if kind == "images":
        data, options, room = pictures, {}, 9 * 25 * 0.9
    else:
        data, room = toys, 8 * 40 * 8 * 0.9
        options = {"augment": kind == "distorted", "event_augmentation": JITTER}
    learning = replace(PLAIN, batch_size=1)
    assert_equal(data, DENSE, CudaBackend(threads=1, data_bytes=room), learning=learning, **options)
    assert len(chunks) >= 3
    assert max(chunks) > 1


def test_blocks_of_an_evaluation_follow_each_other(toys, monkeypatch):
    network = Network.from_architecture(CONV, seed=1, settings=NetworkSettings(tau_ms=5.0, alpha=1.0))
    expected = evaluate(network, toys, threads=1)
    monkeypatch.setattr(network_module, "EVALUATION_BATCH", 3)
    with CudaBackend(threads=1) as backend:
        found = evaluate(network, toys, backend=backend)
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    assert found.totals.active == pytest.approx(expected.totals.active)  # sums over other blocks
    for name in ("samples", "correct", "silent", "loss"):
        assert getattr(found.totals, name) == getattr(expected.totals, name)
    np.testing.assert_array_equal(found.totals.events, expected.totals.events)
    np.testing.assert_array_equal(found.totals.operations, expected.totals.operations)


class Watched:
    """A trainer on the device that counts what it asks of it."""

    def __init__(self, data, monkeypatch):
        self.waits = self.allocations = self.uploaded = 0
        wait, allocate, upload = Device.wait, Device.allocate, Device.upload

        def counted_wait(device):
            self.waits += 1
            wait(device)

        def counted_allocate(device, *arguments):
            self.allocations += 1
            return allocate(device, *arguments)

        def counted_upload(device, source, *arguments, **options):
            self.uploaded += source.nbytes
            upload(device, source, *arguments, **options)

        monkeypatch.setattr(Device, "wait", counted_wait)
        monkeypatch.setattr(Device, "allocate", counted_allocate)
        monkeypatch.setattr(Device, "upload", counted_upload)
        self.backend = CudaBackend(threads=1)
        network = Network.from_architecture(DENSE, seed=1, settings=NetworkSettings(alpha=2.0))
        source = FreshEvents(data, EncoderSettings(rate=2.0), None, 0, self.backend)
        learning = LearningSettings(batch_size=3)
        self.trainer = Trainer(network, source, learning, epochs=9, seed=0, backend=self.backend)

    def epoch(self):
        before = self.waits, self.allocations, self.uploaded
        self.trainer.run_epoch()
        after = self.waits, self.allocations, self.uploaded
        return [now - then for now, then in zip(after, before, strict=True)]


def test_a_batch_waits_once_and_its_memory_is_used_again(pictures, monkeypatch):
    watched = Watched(pictures, monkeypatch)
    watched.epoch()
    waits, allocations, uploaded = watched.epoch()
    # A batch each, and at the end one for the check of the last step and one a layer for its parameters.
    assert waits == 3 + 1 + 2
    assert allocations == 0
    parameters = sum(layer.weight.nbytes for layer in watched.trainer.network.layers)
    assert uploaded < parameters / 2  # labels, samples and slots, but no image, no weight and no state
    watched.backend.close()


def test_arrays_of_the_host_are_refused_not_copied():
    with CudaBackend(threads=1) as backend:
        state = np.zeros((2, 3), np.float32), np.zeros((2, 1), np.int64), np.zeros((2, 0), np.int64)
        with pytest.raises(TypeError, match="put it there first"):
            backend.run(state_kernels.rest, 2, *state)


def test_memory_is_given_back_when_nothing_refers_to_it():
    with CudaBackend(threads=1) as backend:
        first = backend.put(np.arange(6.0).reshape(2, 3))
        memory, row = first.memory, backend.rows(first)[1]
        view = first.reshape((6,))
        del first
        assert backend.empty((2, 3), np.float64).memory is not memory  # a row and a view still refer to it
        assert backend.fetch(view)[0].tolist() == [0, 1, 2, 3, 4, 5]
        del view
        assert backend.fetch(row)[0].tolist() == [3, 4, 5]
        del row
        again = backend.empty((2, 3), np.float64)
        assert isinstance(again, DeviceArray)
        assert again.memory is memory


def test_without_memory_there_is_one_line(monkeypatch):
    with CudaBackend(threads=1) as backend:
        backend.put(np.zeros(7))  # memory that could be given back
        released = []
        monkeypatch.setattr(Device, "release", lambda device: released.append(device.index))

        def full(device, shape, dtype):
            raise MemoryError

        monkeypatch.setattr(Device, "allocate", full)
        with pytest.raises(BackendError, match=r"CUDA device 0 has no 8 MiB left: .* --backend cpu"):
            backend.empty((1 << 20,), np.float64)
        assert released == [0]


def test_a_convolution_too_large_for_a_block_is_one_line():
    data = toy_events(np.random.default_rng(0), n=2, size=64)
    network = Network.from_architecture("64x64-1C47p46-P10-3", seed=0)
    with pytest.raises(
        BackendError, match=r"^conv\.forward needs [0-9]+ bytes .*; use the CPU \(--backend cpu\)$"
    ):
        network.predict(data, backend="cuda")


def test_a_fetch_tells_that_a_queue_was_too_small():
    with CudaBackend(threads=1) as backend:
        buffer = QueueBuffer(backend)

        def produce(times, units, slot, count):
            pass  # the count that was put is what occurred

        counts = backend.put(np.array([64, 65]))
        queue = buffer.fill(2, produce, counts)
        with pytest.raises(QueueTooSmallError):
            backend.fetch(queue.count)
        assert backend.fetch(queue.count)[0].tolist() == [64, 64]
        queue = buffer.fill(2, produce, counts)
        assert backend.fetch(queue.count)[0].tolist() == [64, 65]


def test_a_device_that_cannot_be_opened_is_one_line_and_no_obstacle_to_auto(monkeypatch):
    def busy(device, index):
        raise RuntimeError("[46] Call to cuDevicePrimaryCtxRetain results in\nCUDA_ERROR_DEVICE_UNAVAILABLE")

    monkeypatch.setattr(Device, "__init__", busy)
    with pytest.raises(BackendError, match=r"^CUDA device 0 cannot be opened: .*UNAVAILABLE; use [^\n]*$"):
        open_backend("cuda")
    monkeypatch.setattr("evsnn.backends.choice.backend_of_choice", lambda name, device: ("cuda", None))
    told = []
    with open_backend("auto", threads=1, tell=told.append) as backend:
        assert backend.name == "cpu"
    assert "UNAVAILABLE" in told[0]
