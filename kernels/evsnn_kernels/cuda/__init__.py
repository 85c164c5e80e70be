"""CUDA twins of the kernels in ``cpu``: same file names, functions and parameters, and the same bits.

Nothing outside this folder imports ``numba.cuda``, and nothing imports this folder before it is used.
Kernels use barriers of a block and integer atomics in shared memory only; no warp collectives.

Innermost loops are ``while`` loops with an unsigned 32-bit counter. Numba's ``range`` counts twice, in 64
bits, and an index that might be negative is tested for it: such a loop has two to three times the
instructions, and the compiler does not unroll it as far, so that fewer loads are under way at once.
"""
