"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from evsnn.errors import DataError


def write_atomically(path: Path, data: bytes, *, keep: Path | None = None) -> None:
    """Write ``data`` to a temporary name in the same folder, flush it to disk and rename it to ``path``.

    Parameters
    ----------
    path : Path
    data : bytes
    keep : Path, optional
        In the same folder: gets the file that was at ``path``. At every moment there is a file at ``path``,
        unless the file system has no hard links.

    Raises
    ------
    DataError
        If any step fails; a file that was at ``path`` is then untouched.
    """
    temporary = path.parent / f"{_prefix(path.name)}{secrets.token_hex(8)}.tmp"
    second = temporary.with_suffix(".old.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                _keep(path, keep, second)
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            for left in (temporary, second):
                with suppress(OSError):
                    left.unlink()
            raise
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def read_limited(path: Path, limit: int) -> bytes:
    """Read a small file whole.

    Raises
    ------
    DataError
        If it cannot be read, is no file, or holds more than ``limit`` bytes.
    """
    try:
        if not path.is_file() and path.exists():
            raise DataError(f"cannot read {path}: {'it is a folder' if path.is_dir() else 'not a file'}")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > limit:
        raise DataError(f"{path}: larger than the {limit >> 10} KiB that are read of such a file")
    return data


def _keep(path: Path, keep: Path, temporary: Path) -> None:
    try:
        os.link(path, temporary)
    except OSError:  # no hard links here
        path.replace(keep)
        return
    temporary.replace(keep)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, where the system can: a rename is safe only then."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _prefix(name: str) -> str:
    """Beginning of the temporary names of a file: short, as its own may be as long as is allowed."""
    return f".evsnn-{zlib.crc32(name.encode()):08x}-"


def remove_temporary(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes left half written of the files of these names; nobody may write them now.

    Raises
    ------
    DataError
        If a file cannot be removed.
    """
    try:
        for name in names:
            for path in folder.glob(f"{_prefix(name)}*.tmp"):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {error.filename}: {error.strerror or error}") from error


def append_line(path: Path, line: str) -> None:
    """Append one line to a text file and flush it to disk.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """Make a folder, and those it lies in, unless it is there.

    Raises
    ------
    DataError
        If it cannot be made, or something else has its name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {path}: {error.strerror or error}") from error
