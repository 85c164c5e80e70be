"""Addresses of streams: ``tcp://127.0.0.1:7777``, ``udp://[::1]:7777``."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from evsnn.errors import DataError, SettingsError


@dataclass(frozen=True)
class Address:
    """Where a stream comes from or goes to.

    Parameters
    ----------
    protocol : {"tcp", "udp"}
    host : str
    port : int
        To listen, 0 is any free one.
    """

    protocol: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``tcp://HOST:PORT`` or ``udp://HOST:PORT``.

        Raises
        ------
        SettingsError
            If it is none.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in ("tcp", "udp") or not host or port is None or parts.path or parts.query:
            raise SettingsError(
                f"{text!r} is no address; give tcp://HOST:PORT or udp://HOST:PORT, such as "
                "tcp://127.0.0.1:7777"
            )
        return cls(parts.scheme, host, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"

    def listen(self) -> socket.socket:
        """Return a socket that listens (TCP) or receives (UDP) here.

        Raises
        ------
        DataError
            If the address cannot be had.
        """
        opened = self._socket("listen on")
        try:
            if self.protocol == "tcp":
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                # What comes while a packet is simulated waits here; more than fits is lost, and counted.
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
            opened.bind((self.host, self.port))
            if self.protocol == "tcp":
                opened.listen(1)
        except OSError as error:
            opened.close()
            raise DataError(f"cannot listen on {self}: {error.strerror or error}") from None
        return opened

    def connect(self) -> socket.socket:
        """Return a socket that is connected to this address.

        Raises
        ------
        DataError
            If nobody answers.
        """
        opened = self._socket("connect to")
        try:
            opened.connect((self.host, self.port))
        except (OSError, OverflowError) as error:
            opened.close()
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"cannot connect to {self}: {reason}; start the receiver first") from None
        return opened

    def _socket(self, what: str) -> socket.socket:
        kind = socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM
        try:
            [(family, *_), *_] = socket.getaddrinfo(self.host, self.port, type=kind)
        except OSError as error:
            raise DataError(f"cannot {what} {self}: {error.strerror or error}") from None
        return socket.socket(family, kind)
