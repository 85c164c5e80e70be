"""An environment of its own for every peer: what is installed in it, and how it is made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

#: One version for all, installed first: some peers would bring another one along.
TORCH = ("torch==2.13.0", "numpy")


@dataclass(frozen=True)
class Peer:
    """A simulator to compare with.

    Parameters
    ----------
    script : str
        File beside this one that runs it.
    installs : tuple of tuple of str
        Arguments of ``pip install``, one call after the other; empty for evsnn, which is measured with the
        interpreter that runs the comparison.
    packages : tuple of str
        Whose versions are written down.
    learns : bool
        Whether it is trained, or simulates only.
    samples : int
        Samples of a measurement of simulation at most; slow simulators get fewer.
    """

    script: str
    installs: tuple[tuple[str, ...], ...]
    packages: tuple[str, ...]
    learns: bool = True
    samples: int = 1_000_000


PEERS = {
    "evsnn": Peer("with_evsnn.py", (), ("evsnn", "numba", "numpy")),
    "torch-sparse": Peer("with_torch_sparse.py", (TORCH,), ("torch",)),
    "torch-dense": Peer("with_torch_dense.py", (TORCH,), ("torch",)),
    "snntorch": Peer("with_snntorch.py", (TORCH, ("--no-deps", "snntorch==1.0.0")), ("snntorch", "torch")),
    "norse": Peer(
        "with_norse.py",
        ((*TORCH, "nir", "h5py"), ("--no-deps", "norse==1.1.0", "nirtorch")),
        ("norse", "torch"),
    ),
    "spikingjelly": Peer(
        "with_spikingjelly.py",
        (
            (*TORCH, "scipy", "tqdm", "matplotlib", "requests", "loguru", "packaging", "h5py"),
            ("--no-deps", "spikingjelly==2.0.0"),
        ),
        ("spikingjelly", "torch"),
    ),
    "spyx": Peer("with_spyx.py", (("spyx==1.0.0",),), ("spyx", "jax", "flax")),
    # brian2 2.9.0, the last one for Python 3.11, calls what NumPy 2.4 has dropped.
    "brian2": Peer("with_brian2.py", (("brian2", "numpy<2.4"),), ("brian2",), learns=False, samples=1000),
    "nest": Peer("with_nest.py", (("nest-simulator",),), ("nest-simulator",), learns=False, samples=100),
}

_VERSIONS = (
    "import json, sys; from importlib.metadata import version;"
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)


class NotInstalledError(Exception):
    """A peer cannot be installed; the message is the installer's last line."""


def python_of(name: str, cache: Path) -> Path:
    """Interpreter of a peer's environment."""
    if not PEERS[name].installs:
        return Path(sys.executable)
    return cache / "environments" / name / "bin" / "python"


def make_environment(name: str, cache: Path) -> dict[str, str]:
    """Install a peer, if it is not yet; return the versions of its packages.

    Raises
    ------
    NotInstalledError
        If that failed.
    """
    peer = PEERS[name]
    python = python_of(name, cache)
    folder = cache / "environments" / name
    ready = folder / "ready.json"
    wanted = json.dumps(peer.installs)
    if peer.installs and not (ready.exists() and ready.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _call([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
        for arguments in peer.installs:
            _call([*install, *arguments])
        ready.write_text(wanted)
    return dict(json.loads(_call([str(python), "-c", _VERSIONS, *peer.packages])))


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise NotInstalledError((errors or lines or ["no message"])[-1])
    return done.stdout
