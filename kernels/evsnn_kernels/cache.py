"""Where Numba keeps compiled kernels: a folder of its own for every version of the kernel sources.

Numba notices a changed file only if the changed function lives in it; a kernel that inlines a function
from another file would be served stale. Keying the folder by a hash of all sources closes that hole.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

_enabled = True


def enabled() -> bool:
    """Whether kernels may be compiled with ``cache=True``: false where no folder can be written."""
    return _enabled


def source_hash() -> str:
    """Hash of every source file of this package, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def configure() -> None:
    """Point Numba at the cache folder of these sources; a user's own ``NUMBA_CACHE_DIR`` wins."""
    global _enabled  # noqa: PLW0603 - decided once, when the package is imported
    if own := os.environ.get("NUMBA_CACHE_DIR"):
        _enabled = _writable(Path(own))
        return
    folder = _writable_folder(source_hash())
    if folder is None:
        _enabled = False
        return
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)


def _writable_folder(key: str) -> Path | None:
    for base in (_user_cache, _temporary_cache):
        try:
            folder = base() / f"kernels-{key}"
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
            if _private(folder) and _writable(folder):
                return folder
        except (OSError, RuntimeError):  # no such folder, no home, no temporary folder
            continue
    return None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _private(folder: Path) -> bool:
    """Whether nobody else can put files there: Numba runs what it finds in its cache."""
    if not hasattr(os, "getuid"):
        return True
    # The folder above may be open to the user's group: some systems create every folder so.
    return all(
        place.stat().st_uid == os.getuid() and not place.stat().st_mode & others
        for place, others in ((folder, 0o022), (folder.parent, 0o002))
    )


def _temporary_cache() -> Path:
    return Path(tempfile.gettempdir()) / f"evsnn-{_user_id()}"


def _user_id() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _user_cache() -> Path:
    if cache := os.environ.get("EVSNN_CACHE"):
        return Path(cache)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "evsnn" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "evsnn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evsnn"
