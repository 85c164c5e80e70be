"""Labelled recordings in a folder or a zip archive: found, checked and read without trust in either.

Expected are ``Train/<label>/<number>.bin`` and ``Test/<label>/<number>.bin``. Nothing of an archive is ever
unpacked to the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from evsnn.backends import CpuBackend
from evsnn.errors import DataError, EvsnnError
from evsnn.hdf5 import readable_size, reason

LAYOUT = "looked for Train/<digit>/<number>.bin and Test/<digit>/<number>.bin"

#: Bytes of the largest recording that is read.
MAX_BYTES = 1 << 26

# Deflate packs recordings to four fifths; what shrinks to a hundredth was made to fill memory.
_MAX_RATIO = 100
_RATIO_MATTERS_FROM = 1 << 20

_SPLIT_FOLDERS = ("train", "test")
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LABEL = re.compile(r"[0-9]")
_NUMBER = re.compile(r"([0-9]{1,9})\.bin", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording, not yet read.

    Parameters
    ----------
    name : str
        The file as messages name it.
    path : str
        Its path inside the folder or archive, with slashes.
    split : {"train", "test"}
    label : int
        From the folder it lies in.
    number : int
        From its name; unique among the recordings of its split and label.
    size : int
        Bytes that reading it is expected to give.
    read : callable
        Returns the bytes, or raises DataError.
    """

    name: str
    path: str
    split: str
    label: int
    number: int
    size: int
    read: Callable[[], bytes]


class RecordingSource:
    """The recordings of a folder or archive, which stays open until :meth:`close`.

    Parameters
    ----------
    path : path-like
        A zip archive, or a folder with the folders ``Train`` and ``Test`` or with ``Train.zip`` and
        ``Test.zip``; one of the two suffices.

    Attributes
    ----------
    splits : dict of str to list of Recording
        ``train`` and ``test`` as far as they are there, each in the order of numbers.
    problems : list of DataError
        What is wrong with files that cannot be recordings, one each.

    Raises
    ------
    DataError
        If there is nothing of the kind, or it cannot be read at all.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.problems: list[DataError] = []
        self._archives: list[Path] = []
        self._folders: list[str] = []
        found: list[_Candidate] = []
        with ExitStack() as opened:
            self._files = opened
            with _naming(self.path):
                is_folder = self.path.is_dir()
            if is_folder:
                self._open_folder(found)
            else:
                found += self._open_archive(self.path)
            self.splits = self._place(found)
            if not self.splits and not self.problems:
                raise DataError(f"{self.path}: holds no recordings ({LAYOUT})")
            # All is well: what was opened stays open until somebody closes it.
            self._files = opened.pop_all()

    def digests(self, recordings: Sequence[Recording], backend: CpuBackend) -> dict[str, str]:
        """SHA-256 of what the recordings come from.

        Returns
        -------
        dict of str to str
            Of each archive by its name. Of a folder, as ``Train/*/*.bin``: that of the lines ``sha256sum``
            prints for the recordings, sorted by path.
        """
        sums = {}
        for archive in self._archives:
            with _naming(archive), archive.open("rb") as file:
                sums[archive.name] = hashlib.file_digest(file, "sha256").hexdigest()
        for folder in self._folders:
            chosen = sorted(
                (one for one in recordings if one.path.startswith(f"{folder}/")), key=lambda one: one.path
            )
            lines = [""] * len(chosen)
            backend.run(partial(_hash_range, chosen, lines), len(chosen))
            text = "".join(lines).encode("utf-8", "surrogateescape")
            sums[f"{folder}/*/*.bin"] = hashlib.sha256(text).hexdigest()
        return sums

    def close(self) -> None:
        """Close the archives."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open_folder(self, found: list[_Candidate]) -> None:
        entries = _entries(self.path)
        for entry in entries:
            if _is_folder(entry) and entry.name.lower() in _SPLIT_FOLDERS:
                self._folders.append(entry.name)
                found += self._walk(entry)
            elif _is_recording(entry.name):
                found.append(_of_folder(entry, entry.name))
        present = {name.lower() for name in self._folders}
        for entry in entries:
            stem, dot, ending = entry.name.lower().rpartition(".")
            if dot and ending == "zip" and stem in _SPLIT_FOLDERS and stem not in present:
                found += self._open_archive(Path(entry.path))
        if not self._folders and not self._archives:
            remedy = "; name the folder it lies in" if self.path.name.lower() in _SPLIT_FOLDERS else ""
            raise DataError(
                f"{self.path}: holds neither a folder Train or Test nor Train.zip or Test.zip{remedy}"
            )

    def _walk(self, split: os.DirEntry[str]) -> Iterator[_Candidate]:
        for entry in _entries(Path(split.path)):
            if _is_folder(entry):
                try:
                    files = _entries(Path(entry.path))
                except DataError as error:
                    self.problems.append(error)
                    continue
                for file in files:
                    if _is_recording(file.name):
                        yield _of_folder(file, f"{split.name}/{entry.name}/{file.name}")
            elif _is_recording(entry.name):
                yield _of_folder(entry, f"{split.name}/{entry.name}")

    def _open_archive(self, path: Path) -> list[_Candidate]:
        size = readable_size(path)
        with _naming(path):
            # Given an open file, the archive leaves closing it to us, whatever its threads do.
            file = self._files.enter_context(path.open("rb"))
            try:
                archive = self._files.enter_context(zipfile.ZipFile(file))
            except zipfile.BadZipFile as error:
                raise DataError(f"{path}: no zip archive, or a damaged one ({error})") from error
        self._archives.append(path)
        members = archive.infolist()
        if sum(member.compress_size for member in members) > size:
            raise DataError(f"{path}: its members overlap; refused as a zip bomb")
        return [
            candidate for member in members if (candidate := _of_archive(archive, path, member)) is not None
        ]

    def _place(self, found: list[_Candidate]) -> dict[str, list[Recording]]:
        splits: dict[str, list[Recording]] = {}
        taken: dict[tuple[str, int, int], str] = {}
        strange: Counter[tuple[str, str]] = Counter()
        for candidate in found:
            parts = candidate.path.split("/")
            problem = candidate.problem
            number = _NUMBER.fullmatch(parts[-1])
            if problem:
                pass
            elif len(parts) < 3 or parts[-3].lower() not in _SPLIT_FOLDERS:
                problem = "lies in no folder Train/<digit> or Test/<digit>"
            elif not _LABEL.fullmatch(parts[-2]):
                # One line for the whole folder, however many recordings lie in it.
                strange[candidate.name.rpartition("/")[0], parts[-2]] += 1
                continue
            elif number is None:
                problem = "recordings are called by their number, such as 00001.bin"
            else:
                split, label = parts[-3].lower(), int(parts[-2])
                key = split, label, int(number[1])
                if key not in taken:
                    taken[key] = candidate.name
                    splits.setdefault(split, []).append(
                        Recording(candidate.name, candidate.path, *key, candidate.size, candidate.read)
                    )
                    continue
                problem = f"has the same number as {taken[key]}"
            self.problems.append(DataError(f"{candidate.name}: {problem}"))
        for (folder, label_name), count in strange.items():
            self.problems.append(
                DataError(
                    f"{folder}: the folder of a label is called 0 to 9, this one {shown(label_name)} "
                    f"(recordings in it: {count})"
                )
            )
        # By number first: folds by index then cut the recordings as the data set numbers them.
        return {
            split: sorted(splits[split], key=lambda one: (one.number, one.label))
            for split in _SPLIT_FOLDERS
            if split in splits
        }


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A file that may be a recording: what it is called, and already what is wrong with it."""

    name: str
    path: str
    size: int
    read: Callable[[], bytes]
    problem: str = ""


def shown(name: str) -> str:
    """A name from outside as messages show it: on one line, without control characters, not too long."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= 200 else f"{text[:100]}...{text[-97:]}"


def _is_recording(name: str) -> bool:
    return name.lower().endswith(".bin") and not name.startswith(".")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with _naming(folder), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _of_folder(entry: os.DirEntry[str], path: str) -> _Candidate:
    size, problem = 0, ""
    try:
        if entry.is_file():
            size = entry.stat().st_size
        else:
            problem = "not a file"
    except OSError as error:
        problem = f"cannot be read ({reason(error)})"
    if size > MAX_BYTES:
        problem = (
            f"{size} bytes are too many for a recording, of which at most {MAX_BYTES >> 20} MiB are read"
        )
    name = shown(entry.path)
    return _Candidate(name, path, size, partial(read_file, entry.path, name), problem)


def _of_archive(archive: zipfile.ZipFile, path: Path, member: zipfile.ZipInfo) -> _Candidate | None:
    # Some archivers write the separators of Windows; checked and placed as if they were slashes.
    raw = member.orig_filename.replace("\\", "/")
    name = f"{path}: {shown(raw)}"
    parts = [part for part in raw.split("/") if part not in {"", "."}]
    kind = stat.S_IFMT(member.external_attr >> 16)
    problem = ""
    if raw.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", raw) or "\0" in raw:
        problem = "its path leads out of the archive"
    elif (
        raw.endswith("/")
        or not parts
        or not _is_recording(parts[-1])
        or "__MACOSX" in parts
        or any(part.startswith(".") for part in parts)
    ):
        return None
    elif kind not in {0, stat.S_IFREG}:
        problem = "a link, or something else that is no file" if kind == stat.S_IFLNK else "not a file"
    elif member.flag_bits & 0x41:
        problem = "is encrypted, which evsnn does not read; unpack the archive and name the folder"
    elif member.compress_type not in _PACKINGS:
        problem = "is packed in a way that evsnn does not read; pack it with deflate"
    elif member.file_size > MAX_BYTES or (
        member.file_size > _RATIO_MATTERS_FROM
        and member.file_size > _MAX_RATIO * max(member.compress_size, 1)
    ):
        problem = (
            f"{member.compress_size} bytes claim to unpack to {member.file_size}, which no recording does; "
            "refused as a zip bomb"
        )
    return _Candidate(
        name, "/".join(parts), member.file_size, partial(_read_member, archive, member, name), problem
    )


def read_file(path: str | os.PathLike[str], name: str | None = None) -> bytes:
    """Read the file of one recording.

    Parameters
    ----------
    path : path-like
    name : str, optional
        Named in messages; the path by default.

    Raises
    ------
    DataError
        If it cannot be read or is far too large.
    """
    name = shown(str(path)) if name is None else name
    readable_size(Path(path))
    with _naming(name), Path(path).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: more than the {MAX_BYTES >> 20} MiB that are read of a recording")
    return data


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    try:
        with archive.open(member) as stream:
            # Never more than was promised, whatever the packed bytes would give; the checksum tells.
            data = stream.read(member.file_size)
    except Exception as error:
        why = reason(error) if str(error) else "the archive ends too early"
        raise DataError(f"{name}: cannot be read ({why}); copy or download the archive again") from error
    if len(data) < member.file_size:
        raise DataError(
            f"{name}: {len(data)} bytes of {member.file_size}; copy or download the archive again"
        )
    return data


def _hash_range(recordings: Sequence[Recording], lines: list[str], first: int, last: int) -> None:
    for i in range(first, last):
        try:
            digest = hashlib.sha256(recordings[i].read()).hexdigest()
        except DataError:
            continue  # reading it for its events says what is wrong
        lines[i] = f"{digest}  {recordings[i].path}\n"


@contextmanager
def _naming(what: object) -> Iterator[None]:
    """Turn whatever reading raises into one line with the name of the file."""
    try:
        yield
    except EvsnnError:
        raise
    except Exception as error:
        raise DataError(f"{what}: cannot be read ({reason(error)})") from error
