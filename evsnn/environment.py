"""What a result was computed on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("evsnn", "numba", "llvmlite", "numpy", "h5py")


def package_version(name: str) -> str:
    """Version of an installed package, ``unknown`` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def describe_environment(threads: int, *, backend: str = "cpu", gpu: str | None = None) -> dict[str, Any]:
    """Git revision, processor, system, versions and threads, as ``result.json`` stores them.

    Parameters
    ----------
    threads : int
        Threads that were used.
    backend : str
        ``cpu`` or ``cuda``.
    gpu : str, optional
        Name of the CUDA card that was used.
    """
    return {
        "git_revision": _git_revision(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "gpu": gpu,
        "backend": backend,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: package_version(name) for name in _PACKAGES},
    }


def kernel_cache() -> str | None:
    """Folder of compiled kernels; None where none can be written, so that every process compiles anew."""
    from evsnn_kernels import cache  # noqa: PLC0415 - importing it decides about the folder

    return os.environ.get("NUMBA_CACHE_DIR") if cache.enabled() else None


def peak_memory_mb() -> float | None:
    """Largest memory this process has occupied so far, in MiB; None where the system does not tell."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _git_revision() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def _cpu_name() -> str:
    if sys.platform == "linux":
        try:
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
