"""What CUDA there is, told from libraries that only pretend to be NVIDIA's; and `evsnn info --system`."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numba
import pytest
from support import evsnn, evsnn_process

from evsnn.backends import system
from evsnn.backends.system import Card, backend_of_choice, find_cuda, require_cuda
from evsnn.environment import describe_environment, kernel_cache
from evsnn.errors import BackendError, SettingsError

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30

#: The card that machines below have unless they say otherwise, and another one.
H100 = ("NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB)
K80 = ("Tesla K80", (3, 7), 11 * GIB)

#: Compute capabilities of the toolkits 12.9 and 13.5, as their nvrtcGetSupportedArchs gives them.
CUDA12 = (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121)
CUDA13 = (75, 80, 86, 87, 88, 89, 90, 100, 103, 107, 110, 120, 121)

NUMBA_CUDA = "numba-cuda 0.30.4"
BUILT_IN = "built into numba 0.68.1"


def identity(index: int) -> uuid.UUID:
    return uuid.UUID(int=0x1234_5678_9ABC_DEF0_0000_0000_0000_0000 + index)


class Pretender:
    """A library whose functions write through pointers and return a code, 0 unless ``codes`` names them."""

    def __init__(self, codes, **functions):
        self.calls = []
        for name, function in functions.items():
            setattr(self, name, self._recorded(name, codes.get(name, 0), function))

    def _recorded(self, name, code, function):
        def call(*arguments):
            self.calls.append(name)
            if code == 0:
                function(*arguments)
            return code

        return call


def write(pointer, value):
    pointer._obj.value = value


@dataclass
class Machine:
    """A machine to look at: what its libraries say."""

    driver: int | str | None = 12080  #: what cuDriverGetVersion says; a text: why it cannot be loaded
    cards: tuple = (H100,)
    codes: dict = field(default_factory=dict)
    management: bool = True
    parts: bool = False  #: whether the cards are parts of cards (MIG)
    target: str = NUMBA_CUDA
    toolkit: tuple = (12, 9)
    archs: tuple = CUDA12
    missing: tuple = ()
    origin: str = "site-packages"
    folder: str = "/toolkit"
    located: list = field(default_factory=list)

    def load(self, name):
        if name == "libcuda.so.1":
            if self.driver is None:
                raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")
            if isinstance(self.driver, str):
                raise OSError(self.driver)
            return self.cuda
        if name == "libnvidia-ml.so.1" and self.management:
            return self.nvml
        if name == f"{self.folder}/libnvrtc.so":
            return self.nvrtc
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    def __post_init__(self):
        def card(device):
            return self.cards[device.value - 7]  # a handle is not an index

        def attribute(out, number, device):
            write(out, card(device)[1][{75: 0, 76: 1}[number]])

        def name(buffer, length, device):
            buffer.value = card(device)[0].encode()[: length - 1]

        def error_name(code, out):
            names = {34: "STUB_LIBRARY", 100: "NO_DEVICE", 101: "INVALID_DEVICE", 999: "UNKNOWN"}
            names |= {802: "SYSTEM_NOT_READY", 803: "SYSTEM_DRIVER_MISMATCH"}
            write(out, f"CUDA_ERROR_{names.get(code, 'OTHER')}".encode())

        def raw_uuid(out, device):
            out._obj.raw = identity(device.value - 7).bytes

        self.cuda = Pretender(
            self.codes,
            cuDriverGetVersion=lambda out: write(out, self.driver),
            cuInit=lambda flags: None,
            cuDeviceGetCount=lambda out: write(out, len(self.cards)),
            cuDeviceGet=lambda out, index: write(out, index + 7),
            cuDeviceGetName=name,
            cuDeviceTotalMem_v2=lambda out, device: write(out, card(device)[2]),
            cuDeviceGetAttribute=attribute,
            cuDeviceGetUuid_v2=raw_uuid,
            cuGetErrorName=error_name,
        )

        def handle(text, out):
            kind, _, rest = text.decode().partition("-")
            assert kind in {"GPU", "MIG"}
            write(out, 100 + uuid.UUID(rest).int - identity(0).int)

        def memory(where, out):
            out._obj.free = (where.value - 100 + 1) * GIB

        self.nvml = Pretender(
            self.codes,
            nvmlInit_v2=lambda: None,
            nvmlShutdown=lambda: None,
            nvmlDeviceGetHandleByUUID=handle,
            nvmlDeviceGetMemoryInfo=memory,
        )
        if self.parts:
            found = self.nvml.nvmlDeviceGetHandleByUUID
            self.nvml.nvmlDeviceGetHandleByUUID = lambda text, out: (
                found(text, out) if text.startswith(b"MIG-") else 6
            )

        def archs(out):
            out[:] = self.archs

        self.nvrtc = Pretender(
            self.codes,
            nvrtcVersion=lambda major, minor: (write(major, self.toolkit[0]), write(minor, self.toolkit[1])),
            nvrtcGetNumSupportedArchs=lambda out: write(out, len(self.archs)),
            nvrtcGetSupportedArchs=archs,
        )

    def locate(self, name):
        self.located.append(name)
        if name in self.missing:
            raise RuntimeError(f'Failure finding "lib{name}.so"')
        return SimpleNamespace(abs_path=f"{self.folder}/lib{name}.so", found_via=self.origin)


@pytest.fixture
def on(monkeypatch):
    """Put this process onto a machine."""

    def put(**properties):
        machine = Machine(**properties)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(numba.config, "ENABLE_CUDASIM", 0)
        monkeypatch.setattr(numba.config, "DISABLE_CUDA", 0)
        monkeypatch.setattr(system, "_load", machine.load)
        monkeypatch.setattr(system, "_target", lambda: machine.target)
        bindings = ModuleType("cuda.bindings")
        bindings.__spec__ = importlib.util.spec_from_loader("cuda.bindings", None)
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
        if "bindings" in machine.missing:
            monkeypatch.delitem(sys.modules, "cuda.bindings")
        cuda = ModuleType("cuda")
        cuda.__path__ = []
        monkeypatch.setitem(sys.modules, "cuda", cuda)
        if "pathfinder" not in machine.missing:
            cuda.pathfinder = SimpleNamespace(load_nvidia_dynamic_lib=machine.locate)
        return machine

    return put


# What there is


def test_a_machine_that_is_complete(on):
    on(cards=(H100, ("RTX", (8, 6), 24 * GIB)))
    found = find_cuda()
    assert found.problem is None
    assert (found.target, found.driver, found.simulated) == (NUMBA_CUDA, (12, 8), False)
    assert found.cards == (
        Card(0, "NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB, 1 * GIB),
        Card(1, "RTX", (8, 6), 24 * GIB, 2 * GIB),
    )
    assert found.toolkit is not None
    assert (found.toolkit.version, found.toolkit.origin) == ((12, 9), "wheels")
    assert found.toolkit.path == "/toolkit/libnvrtc.so"
    assert found.toolkit.compute_capabilities[0] == (5, 0)
    assert found.toolkit.compute_capabilities[-2:] == ((12, 0), (12, 1))
    assert require_cuda(1) == found.cards[1]
    assert backend_of_choice("auto", 1) == ("cuda", None)
    assert backend_of_choice("cuda", 0) == ("cuda", None)
    assert backend_of_choice("cpu", 9) == ("cpu", None)


@pytest.mark.parametrize(("said", "version"), [(11080, (11, 8)), (12000, (12, 0)), (13100, (13, 10))])
def test_the_version_of_the_driver(on, said, version):
    on(driver=said)
    assert find_cuda().driver == version


def test_the_order_of_a_toolkits_compute_capabilities_means_nothing(on):
    on(archs=(90, 50, 120, 80))
    assert find_cuda().toolkit.compute_capabilities == ((5, 0), (8, 0), (9, 0), (12, 0))


@pytest.mark.parametrize(
    ("via", "origin"),
    [("conda", "conda"), ("CUDA_PATH", "CUDA_PATH or CUDA_HOME"), ("system-search", "system"), ("x", "x")],
)
def test_where_the_toolkit_is_from(on, via, origin):
    on(origin=via)
    assert find_cuda().toolkit.origin == origin


def test_nvvm_of_a_system_toolkit_may_stand_beside_nvrtc(on, tmp_path):
    folder = tmp_path / "lib64"
    folder.mkdir()
    incomplete = {"folder": str(folder), "missing": ("nvvm",)}
    on(**incomplete, origin="system-search")
    assert find_cuda().toolkit is None
    (tmp_path / "nvvm").mkdir()
    assert find_cuda().toolkit is not None
    on(**incomplete, origin="site-packages")
    assert find_cuda().toolkit is None


def test_free_memory_of_a_part_of_a_card(on):
    on(parts=True)
    assert find_cuda().cards[0].free_bytes == 1 * GIB


@pytest.mark.parametrize(
    "properties",
    [
        {"management": False},
        {"codes": {"cuDeviceGetUuid_v2": 1}},
        {"codes": {"nvmlInit_v2": 9}},
        {"codes": {"nvmlDeviceGetHandleByUUID": 6}},
        {"codes": {"nvmlDeviceGetMemoryInfo": 3}},
    ],
)
def test_a_card_whose_free_memory_is_not_told(on, properties):
    machine = on(**properties)
    found = find_cuda()
    assert found.problem is None
    assert [card.free_bytes for card in found.cards] == [None]
    assert machine.nvml.calls.count("nvmlShutdown") == ("nvmlDeviceGetHandleByUUID" in machine.nvml.calls)


def test_a_driver_without_a_function(on):
    machine = on()
    del machine.cuda.cuDeviceGetUuid_v2  # drivers before CUDA 11.4
    assert find_cuda().cards[0].free_bytes is None
    del machine.cuda.cuDeviceTotalMem_v2
    assert "(cuDeviceTotalMem_v2: 500 CUDA_ERROR_OTHER)" in find_cuda().problem


# What is wrong, and what to do


PROBLEMS = {
    "no driver": (
        {"driver": None},
        "no NVIDIA driver: libcuda.so.1 is not there; install the driver of the card, or give the container "
        "access to it (docker run --gpus all)",
    ),
    "broken driver": (
        {"driver": "/lib/libcuda.so.1: wrong ELF\nclass: ELFCLASS32"},
        "the NVIDIA driver cannot be loaded (/lib/libcuda.so.1: wrong ELF class: ELFCLASS32): "
        "install it anew",
    ),
    "no card": (
        {"codes": {"cuInit": 100}},
        "the NVIDIA driver finds no CUDA card (cuInit: 100 CUDA_ERROR_NO_DEVICE): "
        "check that nvidia-smi lists one",
    ),
    "no card counted": (
        {"cards": ()},
        "the NVIDIA driver finds no CUDA card (it counts 0 cards): check that nvidia-smi lists one",
    ),
    "stub": (
        {"codes": {"cuDriverGetVersion": 34, "cuInit": 34}},
        "the NVIDIA driver does not work (cuDriverGetVersion: 34 CUDA_ERROR_STUB_LIBRARY): libcuda is the "
        "stub of a toolkit, no driver: take the folder 'stubs' out of LD_LIBRARY_PATH",
    ),
    "not ready": (
        {"codes": {"cuInit": 802}},
        "the NVIDIA driver does not work (cuInit: 802 CUDA_ERROR_SYSTEM_NOT_READY): the system is not ready: "
        "check that NVIDIA's services run, such as nvidia-fabricmanager",
    ),
    "mismatch": (
        {"codes": {"cuInit": 803}},
        "the NVIDIA driver does not work (cuInit: 803 CUDA_ERROR_SYSTEM_DRIVER_MISMATCH): its library and "
        "its kernel module are of different versions: restart the machine or the container",
    ),
    "compatibility": (
        {"codes": {"cuInit": 804, "cuGetErrorName": 1}},
        "the NVIDIA driver does not work (cuInit: 804): the cuda-compat libraries do not support this card: "
        "take them out of LD_LIBRARY_PATH",
    ),
    "unknown": (
        {"codes": {"cuInit": 999}},
        "the NVIDIA driver does not work (cuInit: 999 CUDA_ERROR_UNKNOWN): check that nvidia-smi works; "
        "restart the machine if it does not",
    ),
    "card that fails": (
        {"codes": {"cuDeviceGetName": 999}},
        "the NVIDIA driver does not work (cuDeviceGetName: 999 CUDA_ERROR_UNKNOWN): check that nvidia-smi "
        "works; restart the machine if it does not",
    ),
    "driver too old for any toolkit": (
        {"driver": 11080, "target": BUILT_IN},
        "the NVIDIA driver is too old: it supports CUDA 11.8 at most, evsnn needs 12.0 or later: "
        "update the driver",
    ),
    "no extra": (
        {"target": BUILT_IN},
        "the numba.cuda built into numba 0.68.1 cannot compile the kernels of evsnn: "
        "pip install 'evsnn[cuda12]'",
    ),
    "no numba.cuda": (
        {"target": "none"},
        "this version of Numba has no numba.cuda of its own: pip install 'evsnn[cuda12]'",
    ),
    "numba-cuda too old": (
        {"target": "numba-cuda 0.30.3"},
        "numba-cuda 0.30.3 is too old, evsnn needs 0.30.4 or later: pip install 'evsnn[cuda12]'",
    ),
    "bare numba-cuda": (
        {"missing": ("nvrtc", "nvvm", "nvJitLink")},
        "numba-cuda 0.30.4 finds no complete CUDA toolkit, without nvrtc, nvvm: pip install 'evsnn[cuda12]'",
    ),
    "toolkit in part": (  # as PyTorch's wheels leave it
        {"missing": ("nvvm",)},
        "numba-cuda 0.30.4 finds no complete CUDA toolkit, without nvvm: pip install 'evsnn[cuda12]'",
    ),
    "nothing that numba-cuda needs": (
        {"missing": ("pathfinder", "bindings")},
        "numba-cuda 0.30.4 finds no complete CUDA toolkit, without nvrtc, nvvm, cuda-bindings: "
        "pip install 'evsnn[cuda12]'",
    ),
    "nvrtc that fails": (
        {"codes": {"nvrtcGetSupportedArchs": 1}},
        "numba-cuda 0.30.4 finds no complete CUDA toolkit, without nvrtc: pip install 'evsnn[cuda12]'",
    ),
    "driver too old for CUDA 13": (
        {"driver": 12080, "toolkit": (13, 5), "archs": CUDA13},
        "the NVIDIA driver is too old: it supports CUDA 12.8 at most, the toolkit of CUDA 13.5 needs 13.0 or "
        "later: update the driver, or install 'evsnn[cuda12]' in a fresh environment",
    ),
    "driver older than a toolkit without linker": (
        {"driver": 12080, "missing": ("nvJitLink",)},
        "the NVIDIA driver is too old: it supports CUDA 12.8 at most, the toolkit of CUDA 12.9 needs 12.9 or "
        "later: update the driver",
    ),
    "card too old": (
        {"cards": (K80,)},
        "card 0 (Tesla K80, compute capability 3.7) is too old for CUDA 12.9, which compiles for 5.0 and "
        "later: choose another card with --device, or --backend cpu",
    ),
    "card too old for CUDA 13 only": (
        {"driver": 13000, "toolkit": (13, 5), "archs": CUDA13, "cards": (("Tesla V100", (7, 0), 32 * GIB),)},
        "card 0 (Tesla V100, compute capability 7.0) is too old for CUDA 13.5, which compiles for 7.5 and "
        "later: install 'evsnn[cuda12]' in a fresh environment",
    ),
    "card too old for CUDA 12, too": (
        {"driver": 13000, "toolkit": (13, 5), "archs": CUDA13, "cards": (K80,)},
        "card 0 (Tesla K80, compute capability 3.7) is too old for CUDA 13.5, which compiles for 7.5 and "
        "later: choose another card with --device, or --backend cpu",
    ),
    "card too new": (
        {"cards": (("Next", (13, 0), 99 * GIB),)},
        "card 0 (Next, compute capability 13.0) is unknown to CUDA 12.9, which compiles for 5.0 to 12.1: "
        "install 'evsnn[cuda13]' in a fresh environment",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_one_line_with_its_remedy(on, name):
    properties, line = PROBLEMS[name]
    on(**properties)
    assert "\n" not in line
    found = find_cuda()
    assert found.problem == line
    assert found.problem_with(0) == line
    assert backend_of_choice("auto", 0) == ("cpu", line)
    assert backend_of_choice("cpu", 0) == ("cpu", None)
    for choose in (lambda: require_cuda(0), lambda: backend_of_choice("cuda", 0)):
        with pytest.raises(BackendError, match=f"^{re.escape(line)}$"):
            choose()


def test_the_problems_are_told_apart():
    lines = [line for _, line in PROBLEMS.values()]
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize(
    "properties",
    [
        {"driver": 12000},  # any driver of CUDA 12, thanks to nvJitLink
        {"driver": 13000},
        {"driver": 13000, "toolkit": (13, 5), "archs": CUDA13},
        {"driver": 12090, "missing": ("nvJitLink",)},
        {"driver": 13000, "missing": ("nvJitLink",), "cards": (("Next", (13, 0), 99 * GIB),)},
        {"target": "numba-cuda 0.31"},
        {"target": "numba-cuda 1.0rc1"},
        {"target": "numba-cuda of unknown version"},
        {"cards": (("Maxwell", (5, 0), 2 * GIB),)},
        {"cards": (K80, H100)},
    ],
)
def test_what_is_no_problem(on, properties):
    on(**properties)
    assert find_cuda().problem is None


@pytest.mark.parametrize("value", ["", "-1", "7", "a\nb"])
@pytest.mark.parametrize(
    "properties", [{"codes": {"cuInit": 100}}, {"codes": {"cuInit": 101}}, {"cards": ()}]
)
def test_cards_that_are_hidden(on, monkeypatch, value, properties):
    on(**properties)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    line = find_cuda().problem
    assert f"shows no CUDA card ({'cuInit' if 'codes' in properties else 'it counts 0 cards'}" in line
    assert line.endswith(
        f"with CUDA_VISIBLE_DEVICES={value!r}: unset it, or name a card that nvidia-smi lists"
    )
    assert "\n" not in line


def test_an_invalid_card_that_nobody_asked_for(on):
    on(codes={"cuInit": 101})
    assert "does not work (cuInit: 101 CUDA_ERROR_INVALID_DEVICE): check" in find_cuda().problem


def test_cuda_that_is_switched_off(on, monkeypatch):
    on(target=BUILT_IN)
    monkeypatch.setattr(numba.config, "DISABLE_CUDA", 1)
    assert find_cuda().problem == "NUMBA_DISABLE_CUDA switches CUDA off: unset it"


def test_there_is_no_cuda_for_macos(on, monkeypatch):
    on()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert find_cuda().problem == "no NVIDIA driver: there is no CUDA for macOS"


def test_the_driver_of_windows(on, monkeypatch):
    machine = on()
    names = []

    def load(name):
        names.append(name)
        return machine.load({"nvcuda.dll": "libcuda.so.1", "nvml.dll": "libnvidia-ml.so.1"}.get(name, name))

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(system, "_load", load)
    assert find_cuda().problem is None
    assert names[:2] == ["nvcuda.dll", "nvml.dll"]
    monkeypatch.setattr(system, "_load", ctypes.CDLL)
    assert find_cuda().problem.startswith("no NVIDIA driver: nvcuda.dll is not there; ")


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"driver": None}, {"target": BUILT_IN}),
        ({"codes": {"cuInit": 100}}, {"missing": ("nvrtc", "nvvm")}),
        ({"driver": 11080}, {"target": BUILT_IN}),
        ({"driver": 11080}, {"missing": ("nvrtc",)}),
        ({"driver": 11080}, {"cards": (K80,)}),
        ({"target": BUILT_IN}, {"cards": (K80,)}),
        ({"target": "numba-cuda 0.3.0"}, {"missing": ("nvrtc",)}),
        ({"driver": 12000, "toolkit": (13, 5), "archs": CUDA13}, {"cards": (K80,)}),
    ],
)
def test_what_must_be_solved_first_is_told_first(on, worse, better):
    on(**worse)
    line = find_cuda().problem
    on(**better)
    other = find_cuda().problem
    assert None not in {line, other}
    assert line != other
    on(**worse, **better)
    assert find_cuda().problem == line


def test_a_problem_with_the_driver_keeps_the_toolkit_from_being_loaded(on):
    machine = on(driver=None)
    backend_of_choice("auto", 0)
    with pytest.raises(BackendError):
        require_cuda(0)
    assert machine.located == []
    assert find_cuda().toolkit is not None
    assert {"nvrtc", "nvvm", "nvJitLink"} <= set(machine.located)


# Numbers of cards


@pytest.mark.parametrize(
    ("cards", "device", "line"),
    [
        (1, 1, "there is no CUDA device 1: 1 card, 0"),
        (2, 3, "there is no CUDA device 3: 2 cards, 0 and 1"),
        (2, -1, "there is no CUDA device -1: 2 cards, 0 and 1"),
        (4, 4, "there is no CUDA device 4: 4 cards, 0 to 3"),
    ],
)
def test_a_card_that_is_not_there(on, cards, device, line):
    on(cards=(H100,) * cards)
    assert find_cuda().problem is None
    assert find_cuda().problem_with(device) == line
    with pytest.raises(BackendError, match=f"^{re.escape(line)}$"):
        require_cuda(device)
    assert backend_of_choice("auto", device) == ("cpu", line)
    assert require_cuda(cards - 1).index == cards - 1


def test_one_card_of_two_is_too_old(on):
    on(cards=(K80, H100))
    assert find_cuda().problem_with(0).startswith("card 0 (Tesla K80, ")
    assert find_cuda().problem_with(1) is None
    assert backend_of_choice("auto", 0)[0] == "cpu"
    assert backend_of_choice("auto", 1) == ("cuda", None)


def test_the_simulator(on):
    machine = on(target="simulator")
    found = find_cuda()
    assert (found.target, found.simulated, found.problem, found.cards) == ("simulator", True, None, ())
    assert require_cuda(0) is None
    assert backend_of_choice("cuda", 0) == ("cuda", None)
    backend, reason = backend_of_choice("auto", 0)
    assert backend == "cpu"
    assert "NUMBA_ENABLE_CUDASIM" in reason
    with pytest.raises(BackendError, match=r"^there is no CUDA device 1: the simulator has one, 0$"):
        require_cuda(1)
    assert machine.cuda.calls == []


def test_a_backend_that_does_not_exist():
    with pytest.raises(SettingsError, match="one of auto, cpu, cuda, got 'gpu'"):
        backend_of_choice("gpu", 0)


# Which numba.cuda


@pytest.mark.parametrize(
    ("origins", "target"),
    [
        ({"numba.cuda": "/site/numba/cuda/__init__.py"}, "built into numba 1.2.3"),
        (
            {"numba.cuda": "/numba_cuda/site/numba/cuda/__init__.py", "numba_cuda": "/site/numba_cuda"},
            "built into numba 1.2.3",
        ),
        (
            {"numba.cuda": "/site/numba_cuda/numba/cuda/__init__.py", "numba_cuda": "/site/numba_cuda"},
            "numba-cuda 4.5.6",
        ),
        ({}, "none"),
        ({"numba.cuda": ImportError("broken")}, "none"),
    ],
)
def test_the_target(monkeypatch, origins, target):
    def find_spec(name):
        place = origins.get(name)
        if isinstance(place, ImportError):
            raise place
        return place and SimpleNamespace(origin=place, submodule_search_locations=[place])

    monkeypatch.setattr(numba.config, "ENABLE_CUDASIM", 0)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(system, "version", {"numba": "1.2.3", "numba-cuda": "4.5.6"}.get)
    assert system._target() == target
    monkeypatch.setattr(numba.config, "ENABLE_CUDASIM", 1)
    assert system._target() == "simulator"


def test_the_target_is_what_an_import_finds():
    program = (
        "import sys\n"
        "from evsnn.backends.system import _target\n"
        "target = _target()\n"
        "assert not any(name.startswith('numba.cuda') for name in sys.modules)\n"
        "from numba import cuda\n"
        "print(target, cuda.__file__, sep='\\n')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    target, file = done.stdout.splitlines()
    assert target.startswith("numba-cuda ") == ("numba_cuda" in Path(file).parts)
    assert target == "numba-cuda " + target.split()[-1] or target == f"built into numba {numba.__version__}"


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree")
def test_the_oldest_numba_cuda_is_the_one_of_the_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    oldest = {extras["cuda12"][0].partition("[cu12]>=")[2], extras["cuda13"][0].partition("[cu13]>=")[2]}
    assert oldest == {".".join(map(str, system.LEAST_NUMBA_CUDA))}


# A driver that the system's loader finds


SOURCE = r"""
#include <string.h>
#ifndef INIT
#define INIT 0
#endif
static const char *names[] = {"Pretended card A", "Pretended card B"};
int cuInit(unsigned flags) { return flags ? 1 : INIT; }
int cuDriverGetVersion(int *out) { *out = 12040; return 0; }
int cuDeviceGetCount(int *out) { *out = 2; return 0; }
int cuDeviceGet(int *out, int index) { *out = index + 40; return 0; }
int cuDeviceGetName(char *out, int length, int device)
{
    strncpy(out, names[device - 40], length);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *out, int device) { *out = (size_t)(device - 39) << 34; return 0; }
int cuDeviceGetAttribute(int *out, int attribute, int device)
{
    *out = attribute == 75 ? 8 : attribute == 76 ? device - 40 : -1;
    return 0;
}
int cuDeviceGetUuid_v2(unsigned char *out, int device) { memset(out, device, 16); return 0; }
int cuGetErrorName(int code, const char **out) { *out = "PRETENDED_ERROR"; return 0; }

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByUUID(const char *text, void **out)
{
    if (strcmp(text, "GPU-28282828-2828-2828-2828-282828282828") == 0) { *out = (void *)names; return 0; }
    return 6;
}
int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *out)
{
    if (handle != (void *)names) return 2;
    out[0] = 1ull << 34; out[1] = 5ull << 30; out[2] = 11ull << 30;
    return 0;
}
"""


@pytest.fixture
def compiled(tmp_path):
    """An environment in which a small library takes the place of the driver."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler, to make a library that stands for the driver")
    (tmp_path / "driver.c").write_text(SOURCE)

    def build(*options):
        library = tmp_path / "libcuda.so.1"
        command = [compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "driver.c"), *options]
        subprocess.run(command, check=True, capture_output=True)
        shutil.copy(library, tmp_path / "libnvidia-ml.so.1")
        hidden = {"NUMBA_ENABLE_CUDASIM", "CUDA_VISIBLE_DEVICES", "NUMBA_DISABLE_CUDA"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        return environment | {"LD_LIBRARY_PATH": str(tmp_path)}

    return build


def test_a_driver_of_the_system(compiled):
    done = evsnn_process("info", "--system", "--json", env=compiled())
    assert (done.code, done.err) == (0, "")
    cuda = json.loads(done.out)["cuda"]
    assert cuda["driver"] == "12.4"
    cards = [
        (card["index"], card["name"], card["compute_capability"], card["memory_bytes"], card["free_bytes"])
        for card in cuda["cards"]
    ]
    assert cards == [
        (0, "Pretended card A", "8.0", 16 * GIB, 5 * GIB),
        (1, "Pretended card B", "8.1", 32 * GIB, None),
    ]
    # Whether an extra is installed where this runs is another matter.
    complete = cuda["target"].startswith("numba-cuda ") and cuda["toolkit"] is not None
    assert cuda["usable"] == complete
    assert complete or "evsnn[cuda12]" in cuda["problem"]


def test_a_driver_of_the_system_that_fails(compiled):
    done = evsnn_process("info", "--system", env=compiled("-DINIT=803"))
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert "CUDA driver: 12.4" in lines
    assert "CUDA cards: none" in lines
    assert lines[-1] == (
        "--backend cuda: does not work: the NVIDIA driver does not work (cuInit: 803 PRETENDED_ERROR): its "
        "library and its kernel module are of different versions: restart the machine or the container"
    )


# The command


def test_info_of_the_system(on):
    on(cards=(H100, K80))
    done = evsnn("info", "--system")
    assert (done.code, done.err) == (0, "")
    lines = dict(line.split(": ", 1) for line in done.out.splitlines())
    assert list(lines)[:5] == ["evsnn", "python", "numpy", "numba", "llvmlite"]
    assert lines["numba"] == numba.__version__
    assert lines["python"] == ".".join(map(str, sys.version_info[:3]))
    assert lines["cpu"]
    if hasattr(os, "sched_getaffinity"):
        assert lines["threads"] == str(len(os.sched_getaffinity(0)))
    assert lines["kernel cache"] == os.environ["NUMBA_CACHE_DIR"]
    assert lines["CUDA target"] == NUMBA_CUDA
    assert lines["CUDA driver"] == "12.8"
    assert lines["CUDA toolkit"] == "12.9 (wheels: /toolkit/libnvrtc.so)"
    assert lines["CUDA cards"] == "2"
    assert lines["CUDA card 0"] == ("NVIDIA H100 80GB HBM3, compute capability 9.0, 80.0 GiB, 1.0 GiB free")
    assert lines["CUDA card 1"].startswith(
        "Tesla K80, compute capability 3.7, 11.0 GiB, 2.0 GiB free; card 1 (Tesla K80, compute capability "
        "3.7) is too old for CUDA 12.9"
    )
    assert lines["--backend cuda"] == "should work"


def test_info_of_a_system_without_anything(on, monkeypatch):
    on(driver=None, target=BUILT_IN)
    monkeypatch.setattr("evsnn.environment.kernel_cache", lambda: None)
    done = evsnn("info", "--system")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-6:] == [
        "kernel cache: none: every process compiles anew",
        f"CUDA target: {BUILT_IN}",
        "CUDA driver: none",
        "CUDA toolkit: none",
        "CUDA cards: none",
        f"--backend cuda: does not work: {PROBLEMS['no driver'][1]}",
    ]


def test_info_in_the_simulator(on):
    on(target="simulator")
    assert evsnn("info", "--system").out.splitlines()[-5:] == [
        "CUDA target: simulator",
        "CUDA driver: not looked for",
        "CUDA toolkit: not looked for",
        "CUDA cards: not looked for",
        "--backend cuda: should work",
    ]


def test_info_of_the_system_as_json(on):
    on(cards=(K80, H100), management=False)
    done = evsnn("info", "--system", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert {"evsnn", "python", "numpy", "numba", "llvmlite", "cpu", "threads", "kernel_cache"} <= found.keys()
    cuda = found["cuda"]
    assert cuda["toolkit"] == {"version": "12.9", "origin": "wheels", "path": "/toolkit/libnvrtc.so"}
    too_old = PROBLEMS["card too old"][1]
    assert cuda["cards"] == [
        {
            "index": 0,
            "name": "Tesla K80",
            "compute_capability": "3.7",
            "memory_bytes": 11 * GIB,
            "free_bytes": None,
            "problem": too_old,
        },
        {
            "index": 1,
            "name": "NVIDIA H100 80GB HBM3",
            "compute_capability": "9.0",
            "memory_bytes": 80 * GIB,
            "free_bytes": None,
            "problem": None,
        },
    ]
    assert (cuda["usable"], cuda["problem"]) == (False, too_old)
    on(driver=None)
    assert json.loads(evsnn("info", "--system", "--json").out)["cuda"]["driver"] is None


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--no-system"], ["file.h5", "--system"]])
def test_info_wants_a_file_or_the_system(arguments):
    done = evsnn("info", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("Error: Name either FILE or --system.\n")


def test_looking_at_the_system_imports_no_cuda():
    program = (
        "import sys, evsnn, evsnn.backends.system\n"
        "heavy = ('numba', 'cuda.pathfinder')\n"
        "before = [name for name in heavy if name in sys.modules]\n"
        "from evsnn_cli.main import main\n"
        "try:\n"
        "    main(['info', '--system', '--json'])\n"
        "finally:\n"
        "    after = [n for n in sys.modules if n.startswith(('numba.cuda', 'evsnn_kernels.cuda'))]\n"
        "    print(before, after, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[] []\n"
    assert json.loads(done.stdout)["cuda"]["target"]


# What a result tells about where it was computed


def test_the_environment_names_the_card():
    plain = describe_environment(3)
    assert (plain["threads"], plain["backend"], plain["gpu"]) == (3, "cpu", None)
    on_card = describe_environment(3, backend="cuda", gpu="NVIDIA H100")
    assert (on_card["backend"], on_card["gpu"]) == ("cuda", "NVIDIA H100")
    assert plain.keys() == on_card.keys()


def test_the_folder_of_compiled_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert kernel_cache() == str(tmp_path)
    monkeypatch.setattr("evsnn_kernels.cache._enabled", False)
    assert kernel_cache() is None
