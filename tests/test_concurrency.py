"""Several processes at once, and places that cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from evsnn_kernels import compiled
from support import SMALL, evsnn, evsnn_process

from evsnn.errors import DataError
from evsnn.lock import FolderLock

ROOT = Path(__file__).resolve().parent.parent
SOURCES = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), str(ROOT / "cli")])
SOURCE_FOLDERS = [ROOT / "evsnn", ROOT / "kernels" / "evsnn_kernels", ROOT / "cli" / "evsnn_cli"]


def start(program, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {name: str(value) for name, value in environment.items()},
    )


# One training a folder

HOLD = """
import sys
from pathlib import Path
from evsnn.lock import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def held(tmp_path):
    """A folder that another process trains into."""
    folder = tmp_path / "run"
    folder.mkdir()
    with start(HOLD, folder) as owner:
        assert owner.stdout.readline() == "locked\n"
        yield folder, owner
        owner.kill()


def test_a_second_training_is_refused_and_told_the_owner(held):
    folder, owner = held
    for options in (["--out", folder, *SMALL], ["--out", folder, *SMALL, "--force"]):
        done = evsnn("train", *options)
        assert done.code == 1
        assert f"Error: {folder}: process {owner.pid} on " in done.err
        ending = " is training into this folder; wait for it, stop it, or take another --out"
        assert done.err.rstrip().endswith(ending)
    assert {path.name for path in folder.iterdir()} == {"lock"}


def test_the_lock_of_a_process_that_was_killed_is_taken_over(held):
    folder, owner = held
    owner.kill()
    owner.wait()
    assert (folder / "lock").read_text().startswith(f"process {owner.pid} on ")
    with FolderLock(folder):
        assert (folder / "lock").read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(DataError, match=f"process {os.getpid()} "):
            FolderLock(folder).acquire()
    assert not list(folder.iterdir())


def test_an_owner_that_ends_lets_the_next_one_in(held):
    folder, owner = held
    owner.communicate("\n")
    with FolderLock(folder):
        pass


TAKE = """
import sys
from pathlib import Path
from evsnn.errors import DataError
from evsnn.lock import FolderLock
folder = Path(sys.argv[1])
taken = 0
print("ready", flush=True)
sys.stdin.readline()
while taken < 100:
    try:
        with FolderLock(folder):
            (folder / "inside").open("x").close()
            (folder / "inside").unlink()
            taken += 1
    except DataError as error:
        assert "is training into this folder" in str(error), error
print("done")
"""


def test_never_two_owners(tmp_path):
    """A lock whose file is removed and made anew all the time."""
    takers = [start(TAKE, tmp_path) for _ in range(3)]
    for taker in takers:
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        taker.stdin.write("\n")
        taker.stdin.flush()
    for taker in takers:
        out, err = taker.communicate()
        assert (out, err) == ("done\n", "")


def test_a_resumed_run_and_folds_are_locked_too(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with FolderLock(folder):
        done = evsnn("train", "--resume", folder)
        assert (done.code, done.out) == (1, "")
        assert "is training into this folder" in done.err
        # Readers never wait.
        for command in (["info", folder], ["evaluate", folder], ["plot", folder, "--out", tmp_path]):
            done = evsnn(*command)
            assert done.code == 0, done.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    folds = tmp_path / "folds"
    folds.mkdir()
    with FolderLock(folds):
        done = evsnn("train", *SMALL, "--folds", 2, "--epochs", 1, "--out", folds)
        assert done.code == 1
        assert "is training into this folder" in done.err
    assert not list(folds.iterdir())


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def none(file):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("evsnn.lock._lock_file", none)
    done = evsnn("train", *SMALL, "--epochs", 1, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"Warning: the file system of {tmp_path / 'run'} has no locks: a second training" in done.err


# One cache of compiled kernels

COMPILE = """
import sys
import numpy as np
from evsnn_kernels.jit import cpu_kernel
from evsnn_kernels.cpu import random
print("ready", flush=True)
sys.stdin.readline()
kind = np.dtype(sys.argv[1])
bound = np.float32(0.5) if kind == np.float32 else np.float64(0.5)
for _ in range(3):
    weight = np.empty((4, 5), kind)
    random.uniform_weights(bound, 0, 1, 2, 3, weight, 0, 4)
print(weight.sum())
"""


def test_processes_that_compile_at_once_leave_a_sound_cache(tmp_path):
    """Two kinds of arguments: the race in which Numba's index would mix up their machine code."""
    environment = {"NUMBA_CACHE_DIR": tmp_path / "cache", "PYTHONPATH": SOURCES}
    for _ in range(2):  # at once on an empty cache, then from what they left
        workers = [start(COMPILE, kind, **environment) for kind in ("float32", "float64") * 2]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        results = [worker.communicate() for worker in workers]
        assert not any(err for _, err in results)
        found = [float(out) for out, _ in results]
        assert found[:2] == found[2:]
        assert found[0] == pytest.approx(found[1], rel=1e-6)
    files = list((tmp_path / "cache").rglob("*uniform_weights*"))
    assert len(files) == 2
    assert {path.suffix for path in files} == {".nbc"}


@pytest.fixture
def store(tmp_path):
    def new(stamp="stamp"):
        return compiled._KeyedFiles(str(tmp_path), "kernel-1.py311", stamp)

    return new


def test_numba_s_own_files_mix_up_two_processes(tmp_path, monkeypatch):
    """Why they are replaced; if this fails, Numba has changed, and ours may go."""
    from numba.core.caching import IndexDataCacheFile

    def files(kind=IndexDataCacheFile):
        return kind(str(tmp_path), "kernel-1.py311", "stamp")

    class Overtaken(IndexDataCacheFile):
        def _save_data(self, name, data):
            files().save("theirs", "their code")
            super()._save_data(name, data)

    with monkeypatch.context() as patch:
        # Both have read the empty index before either wrote its own.
        patch.setattr(IndexDataCacheFile, "_load_index", lambda self: {})
        files(Overtaken).save("ours", "our code")
    assert files().load("theirs") == "our code"


def test_files_by_key(store, tmp_path):
    assert store().load("a") is None
    store().save("a", "code of a")
    store().save("b", "code of b")
    assert (store().load("a"), store().load("b")) == ("code of a", "code of b")
    assert store("newer").load("a") is None  # of other sources
    store("newer").save("a", "new code")
    assert (store("newer").load("a"), store().load("a")) == ("new code", None)
    for path in tmp_path.iterdir():  # a power cut, another key under the same name
        path.write_bytes(path.read_bytes()[:-3])
    assert store().load("b") is None


def test_no_room_for_compiled_kernels_is_no_error(store, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.os.replace", full)
    store().save("a", "code")
    monkeypatch.undo()
    assert store().load("a") is None


def test_every_kernel_keeps_its_files_so():
    from evsnn_kernels.cpu import backward, dense

    for kernel in (dense.forward, backward.propagate):
        assert type(kernel._cache._cache_file) is compiled._KeyedFiles


# Places that cannot be written


@pytest.mark.skipif(sys.platform == "win32", reason="folders of Unix")
def test_a_cache_of_the_user_s_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    program = "import evsnn_kernels.cache as cache; print(cache.enabled())"
    for place, expected in ((tmp_path / "file" / "below", "False\n"), (tmp_path / "new", "True\n")):
        with start(program, NUMBA_CACHE_DIR=place, PYTHONPATH=SOURCES) as process:
            assert process.communicate()[0] == expected


def test_read_only_packages_and_no_home(small_run, tmp_path):
    """Nothing is written into the packages, and a home below a file can hold nothing."""
    packages = tmp_path / "site-packages"
    for folder in SOURCE_FOLDERS:
        shutil.copytree(folder, packages / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    files = [path for path in packages.rglob("*") if path.is_file()]
    for path in files:
        path.chmod(0o444)
    (tmp_path / "file").write_text("")
    below = str(tmp_path / "file" / "home")
    names = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "EVSNN_CACHE", "MPLCONFIGDIR")
    places = dict.fromkeys(names, below) | {"NUMBA_CACHE_DIR": ""}
    environment = os.environ | places | {"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    for arguments in (["info", "--system"], ["info", small_run], ["plot", small_run, "--what", "curves"]):
        out = ["--out", tmp_path] if arguments[0] == "plot" else []
        done = evsnn_process(*arguments, *out, cwd=tmp_path, env=environment)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
    assert [path for path in packages.rglob("*") if path.is_file()] == files
