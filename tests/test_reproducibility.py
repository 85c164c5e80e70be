"""The same seed gives the same bits: on every machine, for any threads, in any process."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evsnn_kernels import portable
from hypothesis import given, settings
from hypothesis import strategies as st
from support import toy_events

from evsnn import AugmentSettings, EncoderSettings, LearningSettings, Network, NetworkSettings
from evsnn.backends import CpuBackend
from evsnn.datasets import ImageSet
from evsnn.datasets.encoding import encode_images
from evsnn.encoders import SaccadeSettings
from evsnn.events.augment import EventAugmentSettings
from evsnn.network import network as network_module
from evsnn.training import evaluate, fit

#: What a short training of each kind comes to. docs/reliability.md says what may change these.
GOLDEN = {
    "dense, stratified": "4f1fcbde038134fb",
    "dense, all of the paper": "bef5bb7894dc3e7a",
    "convolution, poisson": "ac6db6a5f7eaf524",
    "recordings": "7e9fba4810ddaf42",
    "saccades": "378d13afd02e9625",
}


def pictures(n=24) -> ImageSet:
    """Images made by integer arithmetic alone: a bright bar in one of three places."""
    y, x = np.mgrid[:10, :10]
    labels = np.arange(n) % 3
    bars = [
        np.where(abs(x - 2 - 3 * label) <= 1, 255 - 13 * ((y + i) % 7), 0) for i, label in enumerate(labels)
    ]
    return ImageSet(np.array(bars, np.uint8), labels.astype(np.uint16), 3)


def digest(network: Network) -> str:
    total = hashlib.sha256()
    for layer in network.spiking_layers:
        total.update(layer.weight.astype("<f4").tobytes())
        total.update(layer.threshold.astype("<f4").tobytes())
    return total.hexdigest()[:16]


def trained(kind: str, threads: int = 1) -> str:
    """Train in one of the ways of ``GOLDEN``, every setting written out; return the digest of the result."""
    learning = LearningSettings(
        loss="cross-entropy",
        activity="counts",
        normalise=True,
        optimizer="adam",
        lr=5e-3,
        threshold_lr=0.1,
        schedule="cosine",
        batch_size=7,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-3,
        sparsity=0.05,
        weight_decay=0.1,
        threshold_floor=0.1,
    )
    neurons = NetworkSettings(
        tau_ms=20.0, refractory_ms=0.0, kappa=0.0, sigma=0.0, clamp=8.0, alpha=(3.0, 2.0)
    )
    distortion = AugmentSettings(shift=1.0, shear=0.1, scale=0.1, elastic=0.5)
    bend = EventAugmentSettings(
        shift=1.0, rotation=12.0, shear=0.1, scale=0.1, elastic=0.5, jitter_us=50, drop=0.1, window_ms=0.0
    )
    architecture = "10x10-20-3"
    encoder: EncoderSettings | SaccadeSettings = EncoderSettings("stratified", 5.0, 20.0, 100)
    if kind == "dense, all of the paper":
        neurons = replace(neurons, refractory_ms=1.0, kappa=-0.2, sigma=0.5, clamp=1.0)
        learning = replace(
            learning,
            loss="mse",
            activity="trace",
            optimizer="sgd",
            lr=0.1,
            momentum=0.9,
            sparsity=0.0,
            norm_strength=0.002,
            norm_steepness=10.0,
            max_norm=3.0,
            threshold_balance=1e-3,
        )
    elif kind == "convolution, poisson":
        architecture = "10x10-6C3-P2-12-3"
        neurons = replace(neurons, kappa=(-0.1, 0.0, 0.0), alpha=(2.0, 2.0, 2.0))
        encoder = EncoderSettings("poisson", 5.0, 20.0, 1)
    elif kind == "saccades":
        architecture = "16x16x2-12-3"
        encoder = SaccadeSettings()
    with CpuBackend(threads) as backend:
        data = encode_images(pictures(), encoder, 3, backend)
    if kind == "recordings":
        data = replace(data, images=None)
    network = Network.from_architecture(architecture, seed=11, settings=neurons)
    history = fit(
        network,
        data,
        epochs=3,
        learning=learning,
        augmentation=distortion,
        event_augmentation=bend,
        seed=12,
        threads=threads,
    )
    assert history[-1]["events_per_sample"][1] > 0.5
    assert history[-1]["loss"] < history[0]["loss"]
    return digest(network)


@pytest.mark.usefixtures("spread")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", GOLDEN)
def test_a_short_training_comes_to_the_golden_bits(kind, threads):
    assert trained(kind, threads) == GOLDEN[kind]


# Other machines, as far as one machine can be made to look like another

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_reproducibility import trained
print(*[trained(kind) for kind in sys.argv[2:]])
"""

#: A processor without the vectors of this one: for compiled kernels, for NumPy, its BLAS and the C library.
PLAIN_PROCESSOR = {
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
    "OPENBLAS_CORETYPE": "Prescott",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable",
}


#: All five kinds with EVSNN_ALL_KINDS=1; these two have kernels of all rooms, and compile in half the time.
KINDS = list(GOLDEN) if os.environ.get("EVSNN_ALL_KINDS") else ["dense, stratified", "convolution, poisson"]


def in_a_process(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), *KINDS],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_another_process_comes_to_the_same_bits():
    assert in_a_process(PYTHONHASHSEED="1") == [GOLDEN[kind] for kind in KINDS]


def test_a_processor_without_vectors_comes_to_the_same_bits():
    from numpy._core import _multiarray_umath

    optional = " ".join(_multiarray_umath.__cpu_dispatch__)
    found = in_a_process(**PLAIN_PROCESSOR, NPY_DISABLE_CPU_FEATURES=optional)
    assert found == [GOLDEN[kind] for kind in KINDS]


# Functions that must not depend on the machine


@given(st.floats(-700.0, 700.0))
def test_portable_exp(x):
    assert float(portable.exp(x)) == pytest.approx(math.exp(x), rel=2e-15)


@given(st.floats(1e-300, 1e300))
def test_portable_log(x):
    assert float(portable.log(x)) == pytest.approx(math.log(x), rel=2e-15, abs=2e-16)


@given(st.floats(-math.pi / 2, math.pi / 2))
def test_portable_angles(x):
    assert portable.sine(x) == pytest.approx(math.sin(x), rel=1e-15, abs=1e-300)
    assert portable.cosine(abs(2.0 * x)) == pytest.approx(math.cos(2.0 * x), abs=5e-16)
    if abs(x) < 1.5:
        assert portable.tangent(x) == pytest.approx(math.tan(x), rel=1e-14)


@given(st.floats(0.0, 1.0), st.integers(0, 100_000))
def test_portable_power(base, exponent):
    assert portable.power(base, exponent) == pytest.approx(base**exponent, rel=1e-9, abs=1e-290)


def test_portable_functions_take_arrays_and_their_ends():
    assert portable.exp([[-1e9, 0.0], [-700.1, -np.inf]]).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert portable.log(np.array([1, 2])).tolist() == [0.0, math.log(2.0)]
    assert portable.power(0.9, 0) == 1.0


def test_nothing_else_calls_the_functions_of_the_machine():
    """No kernel, encoder or learning rule may use a function whose bits depend on the processor."""
    root = Path(__file__).resolve().parent.parent
    names = [f"{module}.{name}" for module in ("np", "math") for name in UNSAFE]
    for room in ("kernels/evsnn_kernels", "evsnn/events", "evsnn/layers", "evsnn/encoders", "evsnn/network"):
        for path in (root / room).rglob("*.py"):
            text = path.read_text()
            assert not [name for name in names if f"{name}(" in text], path
    for path in (root / "evsnn" / "learning").rglob("*.py"):
        assert not [name for name in names if f"{name}(" in path.read_text()], path


UNSAFE = (
    *("exp", "expm1", "exp2", "log", "log1p", "log2", "log10", "lgamma", "pow", "power", "cbrt", "hypot"),
    *("sin", "cos", "tan", "tanh", "arctan", "atan", "arctan2", "erf", "dot", "matmul", "einsum", "linalg"),
)


# Evaluation in any parts


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=15)
def test_evaluation_in_any_parts(block, threads, seed):
    rng = np.random.default_rng(seed)
    data = toy_events(rng, 30)
    neurons = NetworkSettings(
        tau_ms=float(rng.uniform(1, 50)), kappa=float(-rng.uniform(0, 0.5)), alpha=float(rng.uniform(0.5, 4))
    )
    architecture = ("25-9-3", "5x5-4C3-P3-7-3", "25-3")[seed % 3]
    network = Network.from_architecture(architecture, seed=seed, settings=neurons)
    whole = list(network.passes(data, threads=1))
    before = network_module.EVALUATION_BATCH
    try:
        network_module.EVALUATION_BATCH = block
        parts = list(network.passes(data, threads=threads))
        predictions = evaluate(network, data, threads=threads).predictions
    finally:
        network_module.EVALUATION_BATCH = before
    for name in ("counts", "potential"):
        expected = np.concatenate([getattr(outcome, name) for outcome in whole])
        assert np.concatenate([getattr(outcome, name) for outcome in parts]).tobytes() == expected.tobytes()
    assert predictions.tolist() == np.concatenate([outcome.predictions() for outcome in whole]).tolist()
