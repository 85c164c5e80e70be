"""What the assembler made of a kernel: instructions of its machine code (SASS) and its innermost loops.

Needs ``nvdisasm`` (``pip install nvidia-cuda-nvdisasm``) and no card.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_LABEL = re.compile(r"\s*(\.L_\w+):")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)(\S*)\s*(.*?);")
_TARGET = re.compile(r"\.L_\w+")

FUSED = ("FFMA", "DFMA")
LOCAL = ("LDL", "STL")


@dataclass(frozen=True)
class Loop:
    """An innermost loop: how often each operation stands in it."""

    operations: dict[str, int]

    @property
    def instructions(self) -> int:
        return sum(self.operations.values())

    @property
    def global_loads(self) -> int:
        return self.operations.get("LDG", 0) + self.operations.get("LD", 0)

    @property
    def float_operations(self) -> int:
        """Additions, multiplications and comparisons of floats, which a kernel is there for."""
        return sum(
            self.operations.get(name, 0) for name in ("FADD", "FMUL", "FSETP", "DADD", "DMUL", "DSETP")
        )


@dataclass(frozen=True)
class Code:
    """The machine code of one kernel."""

    operations: dict[str, int]
    loops: tuple[Loop, ...]

    def count(self, names) -> int:
        return sum(self.operations.get(name, 0) for name in names)

    def arithmetic_loops(self) -> list[Loop]:
        """Innermost loops that compute with floats, in the order of the code."""
        return [loop for loop in self.loops if loop.operations.get("FADD") or loop.operations.get("FMUL")]


def find_nvdisasm() -> Path | None:
    """``nvdisasm`` of a wheel or on the path."""
    wheels = importlib.util.find_spec("nvidia")
    for folder in (wheels.submodule_search_locations or ()) if wheels else ():
        for found in sorted(Path(folder).glob("*/bin/nvdisasm")):
            return found
    on_path = shutil.which("nvdisasm")
    return Path(on_path) if on_path else None


def disassemble(cubin: bytes) -> str:
    """Text of the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(find_nvdisasm()), file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def read(sass: str) -> Code:
    """Count the instructions of a disassembly, and those of its innermost loops.

    A loop is what lies between a label and a branch back to it; it is innermost if no other one lies in it.
    """
    labels, operations, branches = {}, [], []
    for line in sass.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(operations)
        elif found := _INSTRUCTION.match(line):
            name, _, operands = found.groups()
            if name == "BRA" and (target := _TARGET.search(operands)):
                branches.append((len(operations), target[0]))
            operations.append(name)
    back = [(labels[target], at) for at, target in branches if labels.get(target, at) < at]
    inner = [
        (low, high)
        for low, high in back
        if not any((a, b) != (low, high) and low <= a and b <= high for a, b in back)
    ]
    loops = tuple(Loop(dict(Counter(operations[low : high + 1]))) for low, high in sorted(inner))
    return Code(dict(Counter(operations)), loops)
