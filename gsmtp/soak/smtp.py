"""The client's end of SMTP: a connection that sends commands and reads replies.

This is the only file of the soak that reads replies or starts TLS; a client library will take its place. It uses
blocking sockets because they cost a client the least. It does not know which messages are sent.
"""

from __future__ import annotations

import socket
import ssl
import struct

_CHUNK = 65536


class ConnectionLost(Exception):
    """The server has closed or reset the connection, or cannot be reached."""


class UnexpectedReply(Exception):
    """A reply differs from the one expected, or the peer did not read or write in time."""

    @classmethod
    def of(cls, reply: bytes, code: bytes) -> UnexpectedReply:
        """Return the error for a reply that does not begin with `code`."""
        return cls(f"{reply.decode(errors='replace')} (and not {code.decode()})")


class SMTPConnection:
    """One connection to a server.

    Every method that sends or reads raises ConnectionLost when the connection is closed, and UnexpectedReply when
    it waits for longer than the timeout.
    """

    __slots__ = ("_buffer", "_position", "_socket")

    def __init__(self, address: tuple[str, int], timeout: float, source: str = "") -> None:
        """Connect to `address`, from the local address `source` if it is given.

        `timeout` is the limit in seconds of each read and write. Raises ConnectionLost.
        """
        self._buffer = b""
        self._position = 0
        self._socket = sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # The kernel keeps these limits. A timeout of Python's costs a poll before each call.
        limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if source:
                sock.bind((source, 0))
            sock.connect(address)
        except OSError as error:
            sock.close()
            raise ConnectionLost(f"cannot connect: {error}") from None

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Do the TLS handshake. Raises ConnectionLost."""
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=None)
        except OSError as error:
            raise ConnectionLost(f"TLS: {error}") from None

    def send(self, data: bytes | memoryview) -> None:
        """Send all of `data`. Raises ConnectionLost, UnexpectedReply."""
        try:
            self._socket.sendall(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise UnexpectedReply("the server takes nothing more") from None
        except OSError as error:
            raise ConnectionLost(str(error)) from None

    def read_reply(self) -> bytes:
        """Return the last line of the next reply without its CRLF. Raises ConnectionLost, UnexpectedReply."""
        while True:
            end = self._buffer.find(b"\r\n", self._position)
            if end < 0:
                self._read()
                continue
            start, self._position = self._position, end + 2
            if self._buffer[start + 3 : start + 4] != b"-":
                return self._buffer[start:end]

    def expect(self, *codes: bytes) -> None:
        """Read one reply for each of `codes`, and check that it begins with it.

        Raises ConnectionLost, UnexpectedReply.
        """
        for code in codes:
            reply = self.read_reply()
            if not reply.startswith(code):
                raise UnexpectedReply.of(reply, code)

    def command(self, line: bytes, code: bytes) -> None:
        """Send a command line and check that its reply begins with `code`. Raises ConnectionLost, UnexpectedReply."""
        self.send(line + b"\r\n")
        self.expect(code)

    def quit(self) -> None:
        """Send QUIT, read its reply and close. Raises ConnectionLost, UnexpectedReply."""
        self.command(b"QUIT", b"221")
        self.close()

    def close(self) -> None:
        """Close the connection in order."""
        self._socket.close()

    def abort(self) -> None:
        """Close the connection with a TCP reset."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise UnexpectedReply("no reply in time") from None
        except OSError as error:
            raise ConnectionLost(str(error)) from None
        if not data:
            raise ConnectionLost("closed by the server")
        self._buffer = self._buffer[self._position :] + data
        self._position = 0

    def __enter__(self) -> SMTPConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
