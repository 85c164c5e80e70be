"""The errors evsnn raises for bad input: one clear line each, shown as is by the command line."""

from __future__ import annotations


class EvsnnError(Exception):
    """Base of all errors that evsnn raises on purpose.

    The message is one line: what is wrong, where (file, sample, event), what to do.
    """


class DataError(EvsnnError):
    """A file or an array does not hold what its format promises."""


class SettingsError(EvsnnError, ValueError):
    """A setting has a value that makes no sense."""


class BackendError(EvsnnError):
    """The wanted backend cannot be used on this machine: no driver, no card, no toolkit."""
