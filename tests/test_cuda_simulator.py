"""The CUDA kernels in Numba's simulator, and the float policy of their compilation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import evsnn_process, same_bits

from evsnn import EncoderSettings
from evsnn.events import EventWriter

TESTS = Path(__file__).parent

#: Tests in the simulator, and how many are known to exist: fewer mean that some were not collected.
SIMULATED = {
    "backend": 18,
    "data": 160,
    "forward": 280,
    "learning": 230,
    "planted": 4,
    "simulator": 2,
    "state": 13,
}


@pytest.fixture(scope="module")
def policy():
    """The check of compiled kernels; only text goes through it here."""
    from evsnn_kernels.cuda.launch import FloatPolicyError, check_float_policy

    return check_float_policy, FloatPolicyError


def test_all_tests_for_the_simulator_run():
    assert {path.stem for path in (TESTS / "cuda").glob("test_*.py")} == {
        f"test_{name}" for name in SIMULATED
    }


@pytest.mark.parametrize("name", SIMULATED)
def test_every_cuda_kernel_equals_its_cpu_twin_in_the_simulator(name):
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    file = TESTS / "cuda" / f"test_{name}.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= SIMULATED[name]
    assert "skipped" not in done.stdout


@pytest.fixture
def small_images(tmp_path):
    """An event file of 7x7 images: every weight is a simulated thread at every step."""
    rng = np.random.default_rng(0)
    path, encoder = tmp_path / "small.h5", EncoderSettings(rate=2.0).to_dict()
    with EventWriter(path, shape=(1, 7, 7), duration_us=50_000, classes=3, encoder=encoder, seed=1) as writer:
        for split, n in (("train", 8), ("validation", 4), ("test", 4)):
            images = rng.integers(0, 256, (n, 7, 7)).astype(np.uint8)
            writer.begin_split(split, with_images=True)
            units = rng.integers(0, 49, (n, 30))
            times = np.sort(rng.integers(0, 50_000, (n, 30)))
            writer.append(times.ravel(), units.ravel(), [30] * n, np.arange(n) % 3, images)
    return path


@pytest.mark.parametrize(
    "options",
    ["--arch 49-9-3 --alpha 2,0.5", "--arch 7x7-2C3-P5-3 --alpha 1,0.2 --no-augment"],
    ids=["dense", "convolution"],
)
def test_the_command_learns_the_same_bits_as_on_the_cpu(tmp_path, small_images, options):
    common = [str(small_images), *options.split(), "--epochs", "1", "--batch-size", "4", "--threads", "1"]
    simulated = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    for backend, environment in (("cpu", os.environ), ("cuda", simulated)):
        done = evsnn_process(
            "train", "--backend", backend, "--out", tmp_path / backend, *common, env=environment
        )
        assert done.code == 0, done.err
    assert same_bits(tmp_path / "cpu" / "model.h5", tmp_path / "cuda" / "model.h5")
    results = [json.loads((tmp_path / b / "result.json").read_text()) for b in ("cpu", "cuda")]
    assert results[1]["environment"]["backend"] == "cuda"
    for name in ("test_accuracy", "spikes_per_sample", "synaptic_operations_per_sample"):
        assert results[0][name] == results[1][name]
    assert min(results[0]["spikes_per_sample"]) > 0


def test_importing_the_library_does_not_import_cuda():
    code = (
        "import sys, evsnn, evsnn.layers, evsnn_kernels.jit, evsnn_kernels.cpu.dense;"
        "print([m for m in sys.modules if m.startswith(('numba.cuda', 'evsnn_kernels.cuda'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "line",
    [
        "fma.rn.f32 %f3, %f2, %f2, %f1;",
        "fma.rn.f64 %fd3, %fd2, %fd2, %fd1;",
        "fma.rn.ftz.f32 %f3, %f2, %f2, %f1;",
        "mad.f32 %f3, %f2, %f2, %f1;",
        "mul.f32 %f3, %f2, %f2;",  # the assembler may fuse what names no rounding
        "add.f32 %f3, %f2, %f2;",
        "sub.ftz.f32 %f3, %f2, %f2;",
        "mul.rn.ftz.f32 %f3, %f2, %f2;",
        "div.approx.f32 %f3, %f2, %f1;",
        "div.full.f32 %f3, %f2, %f1;",
        "sqrt.approx.ftz.f32 %f3, %f2;",
        "max.f32 %f3, %f2, %f1;",
        "min.f64 %fd3, %fd2, %fd1;",
    ],
)
def test_operations_that_round_otherwise_are_refused(policy, line):
    check, error = policy
    with pytest.raises(error, match=re.escape(line.split()[0])):
        check(f"{{\n\tadd.rn.f32 \t%f9, %f8, %f7;\n\t{line}\n}}")


def test_operations_that_round_as_on_the_cpu_pass(policy):
    check, _ = policy
    names = ("mul.rn.f32", "add.rn.f32", "sub.rn.f64", "div.rn.f32", "sqrt.rn.f32", "add.s64", "mad.lo.s32")
    check("\n".join(f"\t{name} \t%a, %b, %c;" for name in (*names, "max.s64", "min.u32", "mul.wide.u32")))
