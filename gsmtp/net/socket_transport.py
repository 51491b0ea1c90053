"""A transport for one socket that blocks its caller, for clients.

It uses the socket and select modules only. In a program with threads it blocks its thread; where gevent has patched
these modules, before the transport is made, it blocks its greenlet. Each wait ends at `deadline`, an attribute that the
owner may set at any time. A server needs another transport: this one asks the kernel twice for each read.
"""

from __future__ import annotations

import select
import socket
from time import monotonic
from typing import Any

from gsmtp.net.errors import ConnectionLost, ConnectionTimedOut
from gsmtp.net.transport import CHUNK, NEVER
from gsmtp.socket_address import format_address

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR
_WRITABLE = select.POLLOUT | select.POLLHUP | select.POLLERR


class SocketTransport:
    """A TCP or unix socket without TLS. See gsmtp.net.transport.ClearTransport for the methods.

    `deadline`, in seconds of time.monotonic, is when a wait in any method becomes a ConnectionTimedOut; NEVER for none.
    """

    __slots__ = ("_left", "_poll", "_socket", "deadline")

    def __init__(self, sock: socket.socket, deadline: float = NEVER) -> None:
        """Take over `sock`, a connected socket. `close` closes it."""
        sock.setblocking(False)
        self._socket: socket.socket | None = sock
        self._poll: Any = select.poll()
        self._left = b""
        self.deadline = deadline

    def _wait(self, events: int) -> socket.socket:
        """Wait until the socket is ready. Raises ConnectionTimedOut at the deadline, ConnectionLost once closed."""
        sock = self._open()
        seconds = self.deadline - monotonic()
        self._poll.register(sock.fileno(), events)
        # poll takes whole milliseconds, and would wait not at all for a fraction of one.
        timeout = None if seconds == NEVER else max(0, int(seconds * 1000) + 1) if seconds > 0 else 0
        if not self._poll.poll(timeout):
            raise ConnectionTimedOut("timed out")
        return sock

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionLost("closed")
        return self._socket

    def read(self) -> bytes:
        """See Transport."""
        while True:
            sock = self._wait(_READABLE)
            try:
                return sock.recv(CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ConnectionLost(str(error)) from None

    def write(self, data: bytes) -> None:
        """See ClearTransport."""
        if not self.write_some(data):
            self.write_rest()

    def write_some(self, data: bytes) -> bool:
        """See Transport."""
        if self._left:  # a wait for the rest was broken off; this data comes after it
            self._left += data
            return False
        try:
            sent = self._open().send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ConnectionLost(str(error)) from None
        self._left = data[sent:]
        return not self._left

    def write_last(self, data: bytes) -> bool:
        """See Transport."""
        return self.write_some(data)

    def write_rest(self) -> None:
        """See Transport."""
        while self._left:
            sock = self._wait(_WRITABLE)
            try:
                self._left = self._left[sock.send(self._left) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ConnectionLost(str(error)) from None

    def offer(self, data: bytes) -> None:
        """See ClearTransport."""
        if data and self._socket is not None and not self._left:
            try:
                self._socket.send(data)
            except OSError:
                pass

    def finish_writing(self) -> None:
        """See Transport."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def close(self) -> None:
        """See Transport."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()


def connect(
    address: tuple[str, int] | str, deadline: float = NEVER, source: tuple[str, int] | None = None
) -> SocketTransport:
    """Connect to (host, port) or to the path of a unix socket, and return the transport, with the same deadline.

    A host that is a name is looked up by the system, and its addresses are tried in turn; that lookup knows no
    deadline, so a caller that has one gives an IP address. `source` is the local address to connect from. Raises
    ConnectionTimedOut at the deadline, and ConnectionLost for anything else that goes wrong.
    """
    try:
        timeout = None if deadline == NEVER else max(0.001, deadline - monotonic())
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(timeout)
                sock.connect(address)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection(address, timeout, source)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError:
        raise ConnectionTimedOut(f"{format_address(address)}: timed out") from None
    except OSError as error:
        raise ConnectionLost(f"{format_address(address)}: {error.strerror or error}") from None
    return SocketTransport(sock, deadline)
