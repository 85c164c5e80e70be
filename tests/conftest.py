"""Settings and helpers all tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))  # `reference` and `support`, from any folder

# Compiling a kernel takes seconds, once; that is no reason to fail an example.
settings.register_profile("evsnn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("evsnn")


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The full MNIST that the repository brings."""
    folder = ROOT / "benchmarks" / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("the full MNIST files are in the repository only, not in a source distribution")
    return folder


@pytest.fixture(scope="session")
def nmnist_archive() -> Path:
    """The 800 N-MNIST recordings that the repository brings."""
    path = ROOT / "benchmarks" / "data" / "nmnist-800.zip"
    if not path.is_file():
        pytest.skip("the N-MNIST recordings are in the repository only, not in a source distribution")
    return path


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny network trained for two epochs; not to be written to."""
    from support import SMALL, evsnn

    folder = tmp_path_factory.mktemp("runs") / "small"
    done = evsnn("train", *SMALL, "--epochs", 2, "--threads", 1, "--out", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="session")
def small_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An event file of few digits with all three splits; not to be written to."""
    from support import evsnn

    path = tmp_path_factory.mktemp("events") / "small.h5"
    done = evsnn("convert-mnist", "--embedded", "--limit", 60, "--validation", 12, "-o", path)
    assert done.code == 0, done.err
    return path


@pytest.fixture
def spread(monkeypatch):
    """Hand even the smallest kernel to threads."""
    monkeypatch.setattr("evsnn.backends.cpu.LEAST_WORK", 0)
