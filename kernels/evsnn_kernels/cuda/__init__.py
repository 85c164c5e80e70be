"""CUDA twins of the kernels in ``cpu``: same file names, functions and parameters, and the same bits.

Nothing outside this folder imports ``numba.cuda``, and nothing imports this folder before it is used.
Kernels use barriers of a block and integer atomics in shared memory only; no warp collectives.
"""
