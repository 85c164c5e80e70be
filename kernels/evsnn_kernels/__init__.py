"""Numerical kernels of evsnn: arrays in, arrays out. Imports numba and numpy, nothing of evsnn above it.

``spec`` holds the physics, once, as scalar functions; ``cpu`` holds the loops over it.
Array orders, types and codes are documented in :mod:`evsnn_kernels.layout`.
"""

from evsnn_kernels import cache

cache.configure()
