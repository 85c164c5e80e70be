"""The rooms of the code and what may enter them; what an installation holds; where kernels are cached."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from evsnn_kernels import cache

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"evsnn": "evsnn", "kernels/evsnn_kernels": "evsnn_kernels", "cli/evsnn_cli": "evsnn_cli"}
SOURCES = ROOT / "kernels" / "evsnn_kernels"

in_repository = pytest.mark.skipif(
    not (ROOT / "kernels").is_dir(), reason="needs the source tree, not an installed package"
)


# Imports


def lint(folder):
    """Check the import contracts on the packages of a folder; return exit code and output."""
    program = (
        "import sys\n"
        "from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path):
    """A copy of the packages, side by side, to plant violations in."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for source, name in PACKAGES.items():
        shutil.copytree(ROOT / source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    return tmp_path


@in_repository
def test_imports_go_down_only(copy):
    pytest.importorskip("importlinter", reason="import-linter, of the extra test, is not installed")
    code, output = lint(copy)
    assert code == 0, output
    assert "Contracts: 2 kept, 0 broken." in output


@in_repository
@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("evsnn_kernels/layout.py", "from evsnn.errors import EvsnnError"),
        ("evsnn/events/core.py", "import evsnn_cli.console"),
        ("evsnn/network/network.py", "from evsnn.training.trainer import Totals"),
        ("evsnn/network/simulation.py", "from evsnn.learning import settings"),
        ("evsnn/learning/schedule.py", "import evsnn.datasets.idx"),
        ("evsnn/layers/dense.py", "import evsnn.encoders.encode"),
        ("evsnn/events/queue.py", "def late():\n    import evsnn.layers.dense"),
        ("evsnn/errors.py", "import evsnn.events.core"),
        ("evsnn/backends/system.py", "from evsnn.layers.dense import Dense"),
        ("evsnn/plots/events.py", "from evsnn.events.core import Events"),
        ("evsnn/training/fit.py", "import evsnn.pictures"),
        ("evsnn/streams/live.py", "import evsnn.datasets.idx"),
        ("evsnn/network/stream.py", "import evsnn.streams.live"),
    ],
)
def test_an_import_upwards_is_found(copy, place, line):
    pytest.importorskip("importlinter", reason="import-linter, of the extra test, is not installed")
    with (copy / place).open("a") as file:
        file.write(f"\n\n{line}\n")
    code, output = lint(copy)
    assert code == 1, output
    assert "1 broken" in output


def imports(path):
    """Modules that a file imports anywhere, as written."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def wrong_imports(root, allowed):
    """Imports of the files below a folder whose top-level module is not allowed."""
    return {
        (path.relative_to(root).as_posix(), name)
        for path in root.rglob("*.py")
        for name in imports(path)
        if name.partition(".")[0] not in allowed
    }


def test_the_physics_imports_numbers_only():
    files = sorted(path.name for path in (SOURCES / "spec").glob("*.py"))
    assert {"neuron.py", "learning.py", "random.py", "optimiser.py"} <= set(files)
    assert wrong_imports(SOURCES / "spec", {"__future__", "math", "numpy", "evsnn_kernels"}) == set()
    for path in (SOURCES / "spec").glob("*.py"):
        ours = {name for name in imports(path) if name.startswith("evsnn_kernels")}
        assert not any(name.startswith("evsnn_kernels.c") for name in ours), f"{path.name}: {ours}"


#: What kernels may import: llvmlite is how Numba spells instructions that NumPy has no word for.
LOWEST = {*sys.stdlib_module_names, "numpy", "numba", "llvmlite", "evsnn_kernels"}


def test_kernels_import_nothing_above_them():
    assert wrong_imports(SOURCES, LOWEST) == set()


def uses_of_numba(path):
    """Names that a file takes from numba, and attributes it looks up anywhere."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            used.add(node.attr)
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "numba":
            used |= {alias.name for alias in node.names} | set(node.module.split("."))
    return used


def sources_that_use(names):
    return {p.relative_to(SOURCES).as_posix() for p in SOURCES.rglob("*.py") if uses_of_numba(p) & names}


def test_only_two_files_name_the_compilers():
    compilers = {"njit", "jit", "vectorize", "guvectorize", "cfunc", "stencil"}
    assert sources_that_use(compilers) == {"jit.py", "cuda/launch.py"}


def test_only_cuda_kernels_name_cuda():
    users = sources_that_use({"cuda"})
    assert users
    assert {name for name in users if not name.startswith("cuda/")} == set()


def test_commands_leave_heavy_imports_to_their_bodies():
    heavy = {"numpy", "numba", "h5py", "matplotlib", "tqdm", "evsnn", "pooch", "requests"}
    for path in (ROOT / "cli" / "evsnn_cli").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {node.module} if isinstance(node, ast.ImportFrom) else {a.name for a in node.names}
                assert not {name.partition(".")[0] for name in names} & heavy, f"{path.name}: {names}"


@in_repository
def test_a_planted_import_is_seen_by_these_checks(tmp_path):
    shutil.copytree(SOURCES, tmp_path / "copy")
    with (tmp_path / "copy" / "spec" / "neuron.py").open("a") as file:
        file.write("\n\ndef late():\n    import scipy.special\n    from evsnn.errors import EvsnnError\n")
    expected = {("spec/neuron.py", "scipy.special"), ("spec/neuron.py", "evsnn.errors")}
    assert wrong_imports(tmp_path / "copy", LOWEST) == expected


# What is installed


def test_the_command_is_installed():
    [script] = importlib.metadata.entry_points(group="console_scripts", name="evsnn")
    assert script.value == "evsnn_cli.main:main"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if not (ROOT / "kernels").is_dir():
        pytest.skip("needs the source tree, not an installed package")
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    [path] = folder.glob("evsnn-*.whl")
    return path


def test_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == set(PACKAGES.values())
    for package in PACKAGES.values():
        assert {f"{package}/__init__.py", f"{package}/py.typed"} <= names
    subset = "evsnn/datasets/mnist_subset/"
    assert {name.removeprefix(subset) for name in names if name.startswith(subset)} == {
        "LICENSE.md",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert any(name.endswith(".dist-info/licenses/evsnn/datasets/mnist_subset/LICENSE.md") for name in names)
    assert not [name for name in names if "benchmarks" in name or "tests" in name or "__pycache__" in name]
    assert wheel.stat().st_size < 3_000_000


def test_the_wheel_holds_every_source_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for source, name in PACKAGES.items():
        for path in (ROOT / source).rglob("*.py"):
            assert f"{name}/{path.relative_to(ROOT / source).as_posix()}" in names


# The cache of compiled kernels


def python(program, *, cwd, remove=(), **environment):
    """Run a program that imports the kernels; return what it printed."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"NUMBA_CACHE_DIR", "EVSNN_CACHE", "XDG_CACHE_HOME", *remove}
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=cwd,
        env=inherited | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


SHOW = (
    "import os, evsnn_kernels\n"
    "from evsnn_kernels import cache\n"
    "import numba\n"
    "print(cache.enabled(), numba.config.CACHE_DIR)\n"
)
#: Compiles one small kernel and uses it.
COMPILE = (
    "import numpy as np\n"
    "from evsnn_kernels.cpu import random\n"
    "keys = np.empty(3, np.uint64)\n"
    "random.random_keys(1, 0, 5, 6, keys, 0, 3)\n"
    "print(len(set(keys.tolist())))\n"
)


def test_the_folder_is_keyed_by_the_sources(tmp_path):
    shown = python(SHOW, cwd=tmp_path, EVSNN_CACHE=tmp_path / "cache")
    expected = tmp_path / "cache" / f"kernels-{cache.source_hash()}"
    assert shown == f"True {expected}\n"
    assert python(COMPILE, cwd=tmp_path, EVSNN_CACHE=tmp_path / "cache") == "3\n"
    assert any(path.suffix == ".nbc" for path in expected.rglob("*"))


def test_the_key_follows_every_source_file(tmp_path, monkeypatch):
    shutil.copytree(SOURCES, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "copy" / "cache.py"))
    seen = {cache.source_hash()}
    (tmp_path / "copy" / "notes.txt").write_text("not a source")
    assert cache.source_hash() in seen
    for number, place in enumerate(["spec/neuron.py", "cpu/dense.py", "layout.py"]):
        with (tmp_path / "copy" / place).open("a") as file:
            file.write("\n# changed\n")
        seen.add(cache.source_hash())
        assert len(seen) == number + 2
    (tmp_path / "copy" / "layout.py").rename(tmp_path / "copy" / "layout2.py")
    assert cache.source_hash() not in seen


def test_a_setting_of_the_user_wins(tmp_path):
    mine = tmp_path / "mine"
    shown = python(SHOW, cwd=tmp_path, NUMBA_CACHE_DIR=mine, EVSNN_CACHE=tmp_path / "cache")
    assert shown == f"True {mine}\n"
    assert not (tmp_path / "cache").exists()


def test_numba_that_was_imported_before_is_told(tmp_path):
    shown = python("import numba\n" + SHOW, cwd=tmp_path, EVSNN_CACHE=tmp_path / "cache")
    assert shown == f"True {tmp_path / 'cache'}/kernels-{cache.source_hash()}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="folders of Unix")
def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("text")
    below = tmp_path / "file" / "below"
    spare = tmp_path / "spare"
    spare.mkdir()
    # The user's cache cannot be written: the folder for temporary files serves.
    for places in ({"EVSNN_CACHE": below}, {"HOME": below}, {"XDG_CACHE_HOME": below}):
        shown = python(SHOW, cwd=tmp_path, TMPDIR=spare, **places)
        assert shown == f"True {spare}/evsnn-{os.getuid()}/kernels-{cache.source_hash()}\n"
    # Neither can be written: kernels are compiled anew in every process.
    nowhere = f"import tempfile\ntempfile.tempdir = {str(below)!r}\n"
    shown = python(nowhere + SHOW, cwd=tmp_path, EVSNN_CACHE=below, TMPDIR=below)
    assert shown.startswith("False ")
    assert python(nowhere + COMPILE, cwd=tmp_path, EVSNN_CACHE=below, TMPDIR=below) == "3\n"
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owner here")
def test_a_cache_that_others_can_write_is_not_used(tmp_path):
    """Numba runs what it finds in its cache."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    program = "import evsnn_kernels, os; print(os.environ['NUMBA_CACHE_DIR'])"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"EVSNN_CACHE": str(home), "TMPDIR": str(temporary)}

    def used():
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    first = used()
    assert first.startswith(str(home))
    os.chmod(first, 0o777)
    assert used().startswith(str(temporary))
