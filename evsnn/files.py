"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from evsnn.errors import DataError


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` to a temporary name in the same folder, flush it to disk and rename it to ``path``.

    Raises
    ------
    DataError
        If any step fails; a file that was at ``path`` is then untouched.
    """
    temporary = path.parent / f".evsnn-{secrets.token_hex(8)}.tmp"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
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
