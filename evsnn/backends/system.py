"""What CUDA there is on this machine, and what is missing for ``--backend cuda``.

Nothing here imports ``numba.cuda``, which loads much and fails where parts are missing. The driver is asked
through its own library, without a context on a card. The toolkit is searched with ``cuda-pathfinder``, as
numba-cuda does, so that both find the same libraries.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import uuid
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from evsnn.errors import BackendError, SettingsError

#: Major and minor version, or compute capability.
Version = tuple[int, int]

BACKENDS: Final = ("auto", "cpu", "cuda")

#: Target of ``numba.cuda`` under ``NUMBA_ENABLE_CUDASIM=1``.
SIMULATOR: Final = "simulator"

#: Oldest numba-cuda that the extras ``cuda12`` and ``cuda13`` install.
LEAST_NUMBA_CUDA: Final = (0, 30, 4)

#: Oldest version of CUDA that numba-cuda works with.
LEAST_CUDA: Final[Version] = (12, 0)

#: Oldest compute capability that toolkits of CUDA 12 compile for.
_LEAST_OF_CUDA12: Final[Version] = (5, 0)

_EXTRA: Final = "pip install 'evsnn[cuda12]'"
_FRESH: Final = "install 'evsnn[{}]' in a fresh environment"

_COMPUTE_CAPABILITY: Final = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NO_DEVICE, _INVALID_DEVICE, _NOT_FOUND = 100, 101, 500  # codes of CUresult

#: What to do about codes of CUresult that tell something; the meanings are those of NVIDIA's documentation.
_REMEDIES: Final = {
    34: "libcuda is the stub of a toolkit, no driver: take the folder 'stubs' out of LD_LIBRARY_PATH",
    802: "the system is not ready: check that NVIDIA's services run, such as nvidia-fabricmanager",
    803: "its library and its kernel module are of different versions: restart the machine or the container",
    804: "the cuda-compat libraries do not support this card: take them out of LD_LIBRARY_PATH",
}
_OTHER_REMEDY: Final = "check that nvidia-smi works; restart the machine if it does not"

_ORIGINS: Final = {
    "site-packages": "wheels",
    "conda": "conda",
    "CUDA_PATH": "CUDA_PATH or CUDA_HOME",
    "system-search": "system",
    "system-ctk-root": "system",
}


@dataclass(frozen=True)
class Card:
    """A CUDA card.

    Attributes
    ----------
    index : int
        Its number, as ``--device`` takes it; CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER decide about it.
    name : str
        The name that the driver gives it.
    compute_capability : tuple of int
        Major and minor number.
    memory_bytes : int
        All its memory.
    free_bytes : int or None
        Memory that no process has taken, None where NVIDIA's management library does not tell.
    """

    index: int
    name: str
    compute_capability: Version
    memory_bytes: int
    free_bytes: int | None = None


@dataclass(frozen=True)
class Toolkit:
    """The CUDA toolkit that numba-cuda would compile with.

    Attributes
    ----------
    version : tuple of int
        Version of its compiler library NVRTC, by which numba-cuda goes, too.
    origin : str
        Where it was found: ``wheels`` (of the extras), ``conda``, ``CUDA_PATH or CUDA_HOME``, ``system``.
    path : str
        The NVRTC library.
    compute_capabilities : tuple of tuple of int
        What it compiles for, ascending.
    links : bool
        Whether it has the linker nvJitLink. Without it the driver assembles, and must not be older.
    """

    version: Version
    origin: str
    path: str
    compute_capabilities: tuple[Version, ...]
    links: bool


@dataclass(frozen=True)
class CudaSystem:
    """What CUDA there is. Under the simulator driver, toolkit and cards are not looked for.

    Attributes
    ----------
    target : str
        The ``numba.cuda`` that would be used: ``numba-cuda 0.30.4``, ``built into numba 0.68.1``,
        ``simulator`` or ``none``.
    driver : tuple of int or None
        Newest version of CUDA that the driver supports; None without a driver.
    toolkit : Toolkit or None
        The toolkit, None if there is none or a part of it is missing.
    cards : tuple of Card
        The cards that the driver shows to this process.
    problem : str or None
        Why no card can be used, and the remedy, in one line; None if at least one can.
    """

    target: str
    driver: Version | None
    toolkit: Toolkit | None
    cards: tuple[Card, ...]
    problem: str | None

    @property
    def simulated(self) -> bool:
        """Whether kernels would run in Numba's simulator."""
        return self.target == SIMULATOR

    def problem_with(self, device: int) -> str | None:
        """Why card number ``device`` cannot be used, and the remedy, in one line; None if it can."""
        if self.problem is not None:
            return self.problem
        if self.simulated:
            return None if device == 0 else f"there is no CUDA device {device}: the simulator has one, 0"
        if not 0 <= device < len(self.cards):
            return f"there is no CUDA device {device}: {_counted(len(self.cards))}"
        return None if self.toolkit is None else _card_problem(self.cards[device], self.toolkit)


def find_cuda() -> CudaSystem:
    """Look for driver, cards and toolkit.

    Libraries that it finds stay loaded: those of the driver and those that numba-cuda would load.
    """
    return _look(thorough=True)


def require_cuda(device: int) -> Card | None:
    """Return the card of a number; None under the simulator, whose only device is 0.

    Raises
    ------
    BackendError
        If CUDA or this card cannot be used: one line, with the remedy.
    """
    system = _look(thorough=False)
    problem = system.problem_with(device)
    if problem is not None:
        raise BackendError(problem)
    return None if system.simulated else system.cards[device]


def backend_of_choice(wanted: str, device: int = 0) -> tuple[str, str | None]:
    """Decide where to compute.

    Parameters
    ----------
    wanted : str
        ``cpu``; ``cuda``; or ``auto``, which takes the card if it can be used, and the processor if not. The
        simulator is there for tests: only ``cuda`` takes it.
    device : int
        Number of the card.

    Returns
    -------
    tuple of str and (str or None)
        ``cuda`` or ``cpu``; and why ``auto`` did not take the card, in one line.

    Raises
    ------
    BackendError
        If ``cuda`` is wanted and cannot be used.
    SettingsError
        If there is no such backend.
    """
    if wanted not in BACKENDS:
        raise SettingsError(f"backend must be one of {', '.join(BACKENDS)}, got {wanted!r}")
    if wanted == "cpu":
        return "cpu", None
    if wanted == "cuda":
        require_cuda(device)
        return "cuda", None
    system = _look(thorough=False)
    if system.simulated:
        return "cpu", "NUMBA_ENABLE_CUDASIM is set, and the simulator of CUDA is for tests only"
    problem = system.problem_with(device)
    return ("cuda", None) if problem is None else ("cpu", problem)


def _look(*, thorough: bool) -> CudaSystem:
    """Collect everything; unless ``thorough``, stop at a problem of the driver before the toolkit."""
    target = _target()
    if target == SIMULATOR:
        return CudaSystem(target, None, None, (), None)
    driver, cards, problem = _ask_driver()
    if problem is not None and not thorough:
        return CudaSystem(target, driver, None, cards, problem)
    toolkit, missing = _find_toolkit() if target.startswith("numba-cuda") else (None, [])
    if problem is None and driver is not None:
        problem = _software_problem(target, driver, toolkit, missing)
    if problem is None and toolkit is not None:
        problems = [_card_problem(card, toolkit) for card in cards]
        problem = None if None in problems else problems[0]
    return CudaSystem(target, driver, toolkit, cards, problem)


# Problems


def _software_problem(
    target: str, driver: Version, toolkit: Toolkit | None, missing: list[str]
) -> str | None:
    """Problem with what is installed, where driver and card are there."""
    if _setting("DISABLE_CUDA"):
        return "NUMBA_DISABLE_CUDA switches CUDA off: unset it"
    if driver < LEAST_CUDA:
        return (
            f"the NVIDIA driver is too old: it supports CUDA {_text(driver)} at most, "
            f"evsnn needs {_text(LEAST_CUDA)} or later: update the driver"
        )
    if target == "none":
        return f"this version of Numba has no numba.cuda of its own: {_EXTRA}"
    if not target.startswith("numba-cuda"):
        return f"the numba.cuda {target} cannot compile the kernels of evsnn: {_EXTRA}"
    if _numbers(target) < LEAST_NUMBA_CUDA:
        return f"{target} is too old, evsnn needs {_text(LEAST_NUMBA_CUDA)} or later: {_EXTRA}"
    if toolkit is None:
        return f"{target} finds no complete CUDA toolkit, without {', '.join(missing)}: {_EXTRA}"
    # What nvJitLink assembles runs on every driver of its major version (NVIDIA, CUDA Compatibility: minor
    # version compatibility); without it the driver reads the PTX, and must know its version.
    needed = (toolkit.version[0], 0) if toolkit.links else toolkit.version
    if driver < needed:
        other = f", or {_FRESH.format('cuda12')}" if toolkit.version[0] > LEAST_CUDA[0] else ""
        return (
            f"the NVIDIA driver is too old: it supports CUDA {_text(driver)} at most, the toolkit of CUDA "
            f"{_text(toolkit.version)} needs {_text(needed)} or later: update the driver{other}"
        )
    return None


def _card_problem(card: Card, toolkit: Toolkit) -> str | None:
    known = toolkit.compute_capabilities
    which = f"card {card.index} ({card.name}, compute capability {_text(card.compute_capability)})"
    if card.compute_capability < known[0]:
        with_cuda12 = card.compute_capability >= _LEAST_OF_CUDA12
        other = "choose another card with --device, or --backend cpu"
        remedy = _FRESH.format("cuda12") if with_cuda12 else other
        return (
            f"{which} is too old for CUDA {_text(toolkit.version)}, "
            f"which compiles for {_text(known[0])} and later: {remedy}"
        )
    # nvJitLink refuses what it does not know; a driver knows its own cards.
    if toolkit.links and card.compute_capability not in known:
        return (
            f"{which} is unknown to CUDA {_text(toolkit.version)}, which compiles for "
            f"{_text(known[0])} to {_text(known[-1])}: {_FRESH.format('cuda13')}"
        )
    return None


def _counted(cards: int) -> str:
    if cards == 1:
        return "1 card, 0"
    return f"{cards} cards, 0 {'and' if cards == 2 else 'to'} {cards - 1}"


# What there is of Numba


def _target() -> str:
    """Which ``numba.cuda`` an import would find."""
    if _setting("ENABLE_CUDASIM"):
        return SIMULATOR
    try:
        found = importlib.util.find_spec("numba.cuda")
    except ImportError:  # a broken installation of numba-cuda
        found = None
    if found is None or found.origin is None:
        return "none"
    # numba-cuda puts itself in the place of numba.cuda when Python starts.
    package = importlib.util.find_spec("numba_cuda")
    folders = [] if package is None else package.submodule_search_locations or []
    if any(Path(folder) in Path(found.origin).parents for folder in folders):
        return f"numba-cuda {_installed('numba-cuda')}"
    return f"built into numba {_installed('numba')}"


def _setting(name: str) -> bool:
    """Whether a switch of Numba is on, in the environment or in its own file."""
    from numba import config  # noqa: PLC0415 - a third of a second

    return bool(getattr(config, name, False))


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _numbers(text: str) -> tuple[int, ...]:
    """Numbers of a version; none count as new, since nothing says that it is old."""
    return tuple(int(number) for number in re.findall(r"\d+", text)) or (sys.maxsize,)


def _text(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))


# The driver


class _CallFailedError(Exception):
    """A function of the driver returned another code than 0."""

    def __init__(self, function: str, code: int) -> None:
        super().__init__(f"{function}: {code}")
        self.function = function
        self.code = code


def _load(name: str) -> Any:  # noqa: ANN401 - a library: its functions are attributes
    return ctypes.CDLL(name)


def _call(library: Any, function: str, *arguments: Any) -> None:  # noqa: ANN401 - whatever C takes
    """Call a function of a library that returns 0 for success."""
    found = getattr(library, function, None)
    code = _NOT_FOUND if found is None else int(found(*arguments))
    if code != 0:
        raise _CallFailedError(function, code)


def _ask_driver() -> tuple[Version | None, tuple[Card, ...], str | None]:
    """Version of the driver, its cards, and what is wrong with it."""
    if sys.platform == "darwin":
        return None, (), "no NVIDIA driver: there is no CUDA for macOS"
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = _load(name)
    except OSError as error:
        return None, (), _load_problem(name, error)
    driver = None
    try:
        number = ctypes.c_int()
        _call(library, "cuDriverGetVersion", ctypes.byref(number))
        driver = (number.value // 1000, number.value % 1000 // 10)
        _call(library, "cuInit", 0)
        count = ctypes.c_int()
        _call(library, "cuDeviceGetCount", ctypes.byref(count))
        cards = tuple(_card(library, index) for index in range(count.value))
    except _CallFailedError as error:
        return driver, (), _driver_problem(library, error)
    return driver, cards, None if cards else _no_card("it counts 0 cards")


def _load_problem(name: str, error: OSError) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError) or "no such file" in said.lower():
        return (
            f"no NVIDIA driver: {name} is not there; install the driver of the card, "
            "or give the container access to it (docker run --gpus all)"
        )
    return f"the NVIDIA driver cannot be loaded ({said}): install it anew"


def _driver_problem(library: Any, error: _CallFailedError) -> str:  # noqa: ANN401 - as in _call
    name = ctypes.c_char_p()
    with suppress(_CallFailedError):
        _call(library, "cuGetErrorName", error.code, ctypes.byref(name))
    said = f"{error.function}: {error.code} {(name.value or b'').decode(errors='replace')}".rstrip()
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ
    if error.code == _NO_DEVICE or (error.code == _INVALID_DEVICE and hidden):
        return _no_card(said)
    return f"the NVIDIA driver does not work ({said}): {_REMEDIES.get(error.code, _OTHER_REMEDY)}"


def _no_card(said: str) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return f"the NVIDIA driver finds no CUDA card ({said}): check that nvidia-smi lists one"
    return (
        f"the NVIDIA driver shows no CUDA card ({said}) with CUDA_VISIBLE_DEVICES={visible!r}: "
        "unset it, or name a card that nvidia-smi lists"
    )


def _card(library: Any, index: int) -> Card:  # noqa: ANN401 - as in _call
    device = ctypes.c_int()
    _call(library, "cuDeviceGet", ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    _call(library, "cuDeviceGetName", name, len(name), device)
    memory = ctypes.c_size_t()
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = ctypes.c_int(), ctypes.c_int()
    for value, attribute in zip(capability, _COMPUTE_CAPABILITY, strict=True):
        _call(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return Card(
        index,
        name.value.decode(errors="replace"),
        (capability[0].value, capability[1].value),
        memory.value,
        _free_bytes(library, device),
    )


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def _free_bytes(library: Any, device: ctypes.c_int) -> int | None:  # noqa: ANN401 - as in _call
    """Free memory as the management library tells it: the driver would need a context on the card."""
    identity = (ctypes.c_char * 16)()
    handle, memory = ctypes.c_void_p(), _Memory()
    try:
        _call(library, "cuDeviceGetUuid_v2", ctypes.byref(identity), device)
        management = _load("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        _call(management, "nvmlInit_v2")
        try:
            # The UUID of a part of a card (MIG) has another prefix.
            named = str(uuid.UUID(bytes=identity.raw))
            try:
                _call(management, "nvmlDeviceGetHandleByUUID", f"GPU-{named}".encode(), ctypes.byref(handle))
            except _CallFailedError:
                _call(management, "nvmlDeviceGetHandleByUUID", f"MIG-{named}".encode(), ctypes.byref(handle))
            _call(management, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        finally:
            _call(management, "nvmlShutdown")
    except (OSError, _CallFailedError):
        return None
    return int(memory.free)


# The toolkit


def _find_toolkit() -> tuple[Toolkit | None, list[str]]:
    """The toolkit that numba-cuda would find; and what it lacks, if that is why there is none."""
    nvrtc = _locate("nvrtc")
    parts = {
        "nvrtc": nvrtc is not None,
        "nvvm": _locate("nvvm") is not None or (nvrtc is not None and _has_nvvm_beside(*nvrtc)),
        "cuda-bindings": _importable("cuda.bindings"),
    }
    missing = [name for name, there in parts.items() if not there]
    if nvrtc is None or missing:
        return None, missing
    path, origin = nvrtc
    try:
        library = _load(path)
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        _call(library, "nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        _call(library, "nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        _call(library, "nvrtcGetSupportedArchs", numbers)
    except (OSError, _CallFailedError):
        return None, ["nvrtc"]
    capabilities = tuple(sorted((number // 10, number % 10) for number in numbers))
    links = _locate("nvJitLink") is not None
    found = Toolkit((major.value, minor.value), _ORIGINS.get(origin, origin), path, capabilities, links)
    return (found, []) if capabilities else (None, ["nvrtc"])


def _locate(library: str) -> tuple[str, str] | None:
    """Path of a library of the toolkit and how it was found, None if it was not; it is loaded, too."""
    try:
        from cuda import pathfinder  # noqa: PLC0415 - only numba-cuda brings it
    except ImportError:
        return None
    try:
        found = pathfinder.load_nvidia_dynamic_lib(library)
    except (OSError, RuntimeError):  # not found, or found and broken
        return None
    return str(found.abs_path), str(found.found_via)


def _has_nvvm_beside(path: str, origin: str) -> bool:
    """Whether numba-cuda would find NVVM in the system's toolkit that NVRTC is from."""
    if origin != "system-search":
        return False
    return any((folder / "nvvm").is_dir() for folder in Path(path).resolve().parents)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
