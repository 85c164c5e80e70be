"""The errors evsnn raises for bad input: one clear line each, shown as is by the command line."""

from __future__ import annotations

_LONGEST = 1000


def printable(text: str) -> str:
    """Text from elsewhere on one line, with numbers for characters that are none, or steer a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class EvsnnError(Exception):
    """Base of all errors that evsnn raises on purpose.

    The message is one line: what is wrong, where (file, sample, event), what to do. It may quote what a file
    from elsewhere holds: characters that are no text, such as those that steer a terminal, are shown by
    their numbers, and the middle of a very long message is left out.
    """

    def __init__(self, message: str = "") -> None:
        shown = printable(message)
        half = _LONGEST // 2
        super().__init__(shown if len(shown) <= _LONGEST else f"{shown[:half]} ... {shown[-half:]}")


class DataError(EvsnnError):
    """A file or an array does not hold what its format promises."""


class SettingsError(EvsnnError, ValueError):
    """A setting has a value that makes no sense."""


class BackendError(EvsnnError):
    """The device that was asked for cannot be had, or has no memory left."""
