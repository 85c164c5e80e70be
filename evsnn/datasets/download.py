"""Download files once: checksummed, from the first mirror that works, continued where one broke off."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch
import requests
import urllib3
from tqdm import tqdm

from evsnn.errors import DataError

MAX_BYTES = 1 << 30

_PIECE = 1 << 16


class _MirrorError(Exception):
    """A mirror did not deliver; the next one is tried."""


def default_cache() -> Path:
    """Return the folder downloads are kept in: ``EVSNN_CACHE`` if set, else the user's cache folder."""
    chosen = os.environ.get("EVSNN_CACHE")
    return Path(chosen) if chosen else Path(pooch.os_cache("evsnn"))


def fetch_files(
    registry: Mapping[str, str],
    mirrors: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    remedy: str,
    progress: bool = False,
    timeout_s: float = 30.0,
) -> Path:
    """Bring files into a folder, unless they are there already, and check them.

    A download that breaks off stays as ``NAME.part`` in the folder and is continued, by this call from the
    next mirror or by the next call. A file stands under its own name only when its checksum is right.

    Parameters
    ----------
    registry : mapping of str to str
        SHA-256 of each file, by name.
    mirrors : sequence of str
        Addresses ending in a slash, tried in turn.
    folder : path-like
        Made if it is not there.
    remedy : str
        What a user can do if no mirror works; ends the message.
    progress : bool
        Show a progress bar a file on stderr.
    timeout_s : float
        Seconds of silence after which a mirror is given up.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        If a file can be had from no mirror (naming it, each mirror and its reason), or the folder cannot be
        written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet_pooch():
            for name, digest in registry.items():
                _fetch(name, digest, mirrors, folder, remedy, progress, timeout_s)
    except OSError as error:
        raise DataError(
            f"cannot write to the download folder {folder}: {error.strerror or error}; "
            "set EVSNN_CACHE to a folder that can be written"
        ) from error
    return folder


def _fetch(
    name: str,
    digest: str,
    mirrors: Sequence[str],
    folder: Path,
    remedy: str,
    progress: bool,
    timeout_s: float,
) -> None:
    def download(url: str, output_file: str, _: object) -> None:
        part = folder / f"{name}.part"
        _complete(url, part, digest, progress, timeout_s)
        part.replace(output_file)

    reasons = []
    for mirror in mirrors:
        try:
            pooch.retrieve(mirror + name, f"sha256:{digest}", fname=name, path=folder, downloader=download)
        except _MirrorError as error:
            reasons.append(f"{mirror} ({error})")
        else:
            return
    raise DataError(f"cannot download {name}: {'; '.join(reasons) or 'no mirror is named'}; {remedy}")


def _complete(url: str, part: Path, digest: str, progress: bool, timeout_s: float) -> None:
    """Bring ``part`` to its full content, from what is there already if that turns out right."""
    continued = part.exists() and part.stat().st_size > 0
    if continued and _sha256(part) == digest:
        return
    _transfer(url, part, continued, progress, timeout_s)
    if _sha256(part) == digest:
        return
    part.unlink()
    if continued:
        # What was there before may be at fault, not the mirror.
        _complete(url, part, digest, progress, timeout_s)
        return
    raise _MirrorError("wrong checksum")


def _transfer(url: str, part: Path, continued: bool, progress: bool, timeout_s: float) -> None:
    done = part.stat().st_size if continued else 0
    # The checksum is that of the file as it is stored: the server must not pack it and nothing may unpack it.
    headers = {"Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout_s) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                return  # nothing is missing, so the checksum has the last word
            if answer.status_code not in (requests.codes.ok, requests.codes.partial_content):
                raise _MirrorError(f"{answer.status_code} {answer.reason or ''}".strip())
            if answer.status_code == requests.codes.ok:
                done = 0
            elif not re.match(rf"bytes {done}-", answer.headers.get("Content-Range", "")):
                raise _MirrorError("sends another part than the one asked for")
            with part.open("ab" if done else "wb") as file:
                for piece in _pieces(answer, part.name.removesuffix(".part"), done, progress):
                    done += len(piece)
                    if done > MAX_BYTES:
                        part.unlink()  # continuing it would end here again
                        raise _MirrorError(f"sends more than {MAX_BYTES >> 20} MiB")
                    file.write(piece)
    except urllib3.exceptions.ProtocolError as error:
        raise _MirrorError(f"broke off after {done} bytes") from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _MirrorError(f"no answer for {timeout_s:g} s") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _MirrorError(_why(error)) from error


def _pieces(answer: requests.Response, name: str, done: int, progress: bool) -> Iterator[bytes]:
    length = answer.headers.get("Content-Length", "")
    with tqdm(
        desc=name,
        total=done + int(length) if length.isdecimal() else None,
        initial=done,
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        disable=not progress,
    ) as bar:
        for piece in answer.raw.stream(_PIECE, decode_content=False):
            bar.update(len(piece))
            yield piece
        if bar.total is not None and done + answer.raw.tell() < bar.total:
            # urllib3 before 2.0 takes a connection that ends early for the end of the file.
            raise urllib3.exceptions.ProtocolError("too short")


def _why(error: BaseException) -> str:
    """Give the innermost reason: the outer layers only repeat the address."""
    inner: Any = error
    while True:
        nested = getattr(inner, "reason", None) or inner.__cause__ or inner.__context__
        if not isinstance(nested, BaseException):
            break
        inner = nested
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return " ".join(str(inner).split())[:200] or type(inner).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    # Pooch announces every file on stderr; the progress bar is ours to show or not.
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
