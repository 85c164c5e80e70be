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
