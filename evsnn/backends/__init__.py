"""Where kernels run: threads of the CPU, or a CUDA device; no result depends on it."""

from evsnn.backends.base import Array, Backend, Feed, QueueTooSmallError
from evsnn.backends.choice import backend_of, open_backend
from evsnn.backends.cpu import CpuBackend, available_threads

__all__ = [
    "Array",
    "Backend",
    "CpuBackend",
    "Feed",
    "QueueTooSmallError",
    "available_threads",
    "backend_of",
    "open_backend",
]
