"""What a transport is: octets in and out of one connection, in either role, in clear or under TLS.

Two kinds work on a socket. `gsmtp.net.gevent_transport.PlainTransport` is for a server with thousands of connections on
one event loop; `gsmtp.net.socket_transport.SocketTransport` is for a client in any program, with threads or gevent.
`gsmtp.net.tls_transport.TlsTransport` adds TLS to either. This module imports neither gevent nor ssl.
"""

from __future__ import annotations

from typing import Protocol

NEVER = float("inf")
# The size of one read. Larger reads take a megabyte no faster, smaller ones cost a system call each.
CHUNK = 65536


class Transport(Protocol):
    """What a connection needs of its socket. Only the greenlet or thread that owns it may call these methods."""

    def read(self) -> bytes:
        """Wait for octets and return them, or b"" at the end. Raises ConnectionLost."""

    def write_some(self, data: bytes) -> bool:
        """Send what the socket takes now, and return whether that was all.

        The rest is kept until `write_rest`. Raises ConnectionLost.
        """

    def write_last(self, data: bytes) -> bool:
        """Do the same for data that only `close` will follow. Raises ConnectionLost."""

    def write_rest(self) -> None:
        """Wait until all that `write_some` kept is sent. Raises ConnectionLost."""

    def finish_writing(self) -> None:
        """Tell the peer that nothing more will be sent. Reading is still possible."""

    def close(self) -> None:
        """Close the socket. It may be called again."""


class ClearTransport(Transport, Protocol):
    """What TLS needs of the transport below it."""

    def write(self, data: bytes) -> None:
        """Send all of `data`, and wait for it. Raises ConnectionLost."""

    def offer(self, data: bytes) -> None:
        """Send what can be sent without waiting. The rest is lost, and so are errors."""
