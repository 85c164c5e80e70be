"""The reader of machine code that looks for local memory and fused operations in CUDA kernels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SASS = """
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;
.L_x_1:
        /*0020*/                   FMUL R5, R4, R6 ;
        /*0030*/              @!P0 FADD R5, R5, -1 ;
        /*0040*/                   LDG.E R7, desc[UR4][R2.64+0x4] ;
        /*0050*/               @P1 BRA `(.L_x_1) ;
        /*0060*/               @P2 BRA `(.L_x_2) ;
        /*0070*/                   {more}
        /*0080*/               @P3 BRA `(.L_x_0) ;
.L_x_2:
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   BRA `(.L_x_3);
"""


@pytest.fixture
def read(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import machine_code

    yield lambda more="IADD3 R1, R1, R2, RZ ;": machine_code.read(SASS.replace("{more}", more))
    del sys.modules["machine_code"]


def test_only_innermost_loops_count(read):
    code = read()
    [loop] = code.arithmetic_loops()
    assert loop.operations == {"FMUL": 1, "FADD": 1, "LDG": 1, "BRA": 1}
    assert (loop.instructions, loop.global_loads, loop.float_operations) == (4, 1, 2)


@pytest.mark.parametrize(
    ("more", "local", "fused"), [("LDL R3, [R1] ;", 1, 0), ("@P0 FFMA R3, R4, R5, R6 ;", 0, 1)]
)
def test_local_memory_and_fused_operations_are_found(read, more, local, fused):
    import machine_code

    code = read(more)
    assert code.count(machine_code.LOCAL) == local
    assert code.count(machine_code.FUSED) == fused
    assert read().count(machine_code.LOCAL + machine_code.FUSED) == 0
