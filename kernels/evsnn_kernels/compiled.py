"""Files of compiled kernels that many processes, and machines of many kinds, may share.

Numba numbers these files and keeps the numbers in an index, which two processes that compile at once
overwrite for each other: a key may then lead to the machine code of another one, of other argument types or
for another processor. Here the name of a file follows from its key, and the file holds the key.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

from numba.core.caching import IndexDataCacheFile


class _KeyedFiles(IndexDataCacheFile):
    """A cache without an index: every key has its own file, which appears whole or not at all."""

    def save(self, key: Any, data: Any) -> None:
        """Store what was compiled; without room for it, it will be compiled again."""
        with suppress(OSError):
            self._save_data(self._name(key), (self._promise(key), data))  # type: ignore[no-untyped-call]  # Numba's

    def load(self, key: Any) -> Any:
        """Return what was stored; None if nothing was, or if the file is of other sources or damaged."""
        try:
            promise, data = self._load_data(self._name(key))  # type: ignore[no-untyped-call]  # Numba's
        except Exception:  # unpickling what a power cut left may raise anything
            return None
        return data if promise == self._promise(key) else None

    def _name(self, key: Any) -> str:
        digest = hashlib.sha256(repr((key, self._version)).encode()).hexdigest()[:20]
        return f"{self._index_name.removesuffix('.nbi')}.{digest}.nbc"

    def _promise(self, key: Any) -> tuple[Any, ...]:
        return self._version, self._source_stamp, key


def share(compiled: Any) -> None:
    """Give a compiled function with ``cache=True`` files that processes can share."""
    files = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if isinstance(files, IndexDataCacheFile):
        files.__class__ = _KeyedFiles
