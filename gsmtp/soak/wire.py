"""A client's end of a connection: octets out, replies in. Blocking sockets, the cheapest there is."""

from __future__ import annotations

import socket
import ssl
import struct
from typing import Any

_CHUNK = 65536


class Gone(Exception):
    """The server has closed or reset the connection."""


class Surprise(Exception):
    """A reply that is not the one expected, or none in time."""


class Wire:
    """One connection. A wait lasts `patience` seconds at most, then it is a Surprise."""

    __slots__ = ("_at", "_buffer", "_socket")

    def __init__(self, address: tuple[str, int], patience: float, source: str = "") -> None:
        """`source`: the address to come from. Raises Gone."""
        self._buffer = b""
        self._at = 0
        self._socket = sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Limits kept by the kernel: those of Python cost a poll before each call.
        limit = struct.pack("ll", int(patience), int(patience % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if source:
                sock.bind((source, 0))
            sock.connect(address)
        except OSError as error:
            sock.close()
            raise Gone(f"cannot connect: {error}") from None

    def secure(self, context: ssl.SSLContext) -> None:
        """Go on under TLS."""
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=None)
        except OSError as error:
            raise Gone(f"TLS: {error}") from None

    def send(self, data: bytes | memoryview) -> None:
        """All of it."""
        try:
            self._socket.sendall(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise Surprise("the server takes nothing more") from None
        except OSError as error:
            raise Gone(str(error)) from None

    def reply(self) -> bytes:
        """The last line of the next reply, without its end. Raises Gone, Surprise."""
        while True:
            end = self._buffer.find(b"\r\n", self._at)
            if end < 0:
                self._read()
                continue
            start, self._at = self._at, end + 2
            if self._buffer[start + 3 : start + 4] != b"-":
                return self._buffer[start:end]

    def expect(self, *codes: bytes) -> None:
        """As many replies, each beginning so."""
        for code in codes:
            reply = self.reply()
            if not reply.startswith(code):
                raise Surprise(f"{reply.decode(errors='replace')} (and not {code.decode()})")

    def ask(self, line: bytes, code: bytes) -> None:
        """Send a command, expect a reply."""
        self.send(line + b"\r\n")
        self.expect(code)

    def until_closed(self) -> None:
        """Wait for the server to close."""
        try:
            while True:
                self._read()
        except Gone:
            pass

    def close(self) -> None:
        """Close, as a client in order does."""
        self._socket.close()

    def reset(self) -> None:
        """Break the connection: the server is told by RST."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise Surprise("no reply in time") from None
        except OSError as error:
            raise Gone(str(error)) from None
        if not data:
            raise Gone("closed by the server")
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
