"""A lock on a folder that one process writes into; readers do not ask for it."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from evsnn.errors import DataError

NAME = "lock"

# Windows locks bytes for readers, too: one that no reader of the owner's name needs.
_LOCKED_BYTE = 1 << 20


class FolderLock:
    """Keeps every other process, and every other lock of this one, out of a folder.

    The operating system holds the lock and lets go of it when its owner ends, however that is, so no lock is
    ever stale. The file ``lock`` in the folder is what is locked; it names the owner for those who come late.

    Parameters
    ----------
    folder : Path
        It must exist.

    Attributes
    ----------
    works : bool
        False where the file system has no locks: then nobody is kept out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.works = True
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        DataError
            If another process has it, naming that process; or if the folder cannot be written.
        """
        path = self.folder / NAME
        try:
            while self._file is None:
                # Not truncated before it is locked: it may hold the name of its owner.
                file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
                self.works = self._lock(file)
                # The owner may have removed the file between our opening and locking it.
                if self._is_at(file, path):
                    self._file = file
                else:
                    file.close()
            owner = f"process {os.getpid()} on {socket.gethostname()}"
            self._file.truncate(0)
            self._file.write(f"{owner}\n".encode())
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error

    def _lock(self, file: IO[bytes]) -> bool:
        """Lock an open file, or close it and raise a DataError; false where there are no locks."""
        try:
            _lock_file(file)
        except (BlockingIOError, PermissionError):
            owner = file.read(200).decode("utf-8", "replace").strip() or "another process"
            file.close()
            raise DataError(
                f"{self.folder}: {owner} is training into this folder; "
                "wait for it, stop it, or take another --out"
            ) from None
        except OSError:  # ENOLCK, ENOSYS, EOPNOTSUPP: some network file systems
            return False
        return True

    @staticmethod
    def _is_at(file: IO[bytes], path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go of the lock, and remove its file."""
        if self._file is not None:
            with suppress(OSError):  # Windows removes no open file: it stays, unlocked
                (self.folder / NAME).unlink()
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _lock_file(file: IO[bytes]) -> None:
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            file.seek(0)
else:
    import fcntl

    def _lock_file(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
