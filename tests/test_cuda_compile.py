"""CUDA kernels compile without a card, with every operation rounded on its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="needs evsnn[cuda12] or evsnn[cuda13]"
)

CODE = """
from numba import types
from evsnn_kernels.cuda import dense, launch

def array(kind, ndim):
    return types.Array(kind, ndim, "C")

f, i = types.float32, types.int64
queue = (array(types.uint32, 1), array(types.uint32, 1), array(i, 1), array(i, 1))
arguments = (
    *queue, array(f, 2), array(f, 1), array(f, 1), f, f, i, i,
    array(f, 2), array(i, 1), array(i, 2), *queue, array(i, 1), i, i,
)
exact = dense.forward.ptx(arguments, (8, 0))
assert "mul.rn.f32" in exact and "fma" not in exact
plain = dense.forward.ptx(arguments, (8, 0), exact=False)
assert "fma.rn.f32" in plain
try:
    launch.check_float_policy(plain)
except launch.FloatPolicyError as error:
    print(error)
resources = launch.assemble(exact, (8, 0))
assert resources.registers > 16 and resources.spill_bytes == 0 and resources.stack_bytes == 0
# A multiprocessor has 65536 registers, and a block of this kernel up to 1024 threads.
assert resources.registers <= 64
assert resources.cubin[:4] == b"\\x7fELF"
"""


def test_contraction_is_off_and_would_be_noticed():
    # In a process of its own: numba.cuda without a card warns once and for all.
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "round otherwise: " in done.stdout
    assert "fma.rn.f32" in done.stdout
