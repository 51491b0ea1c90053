"""Octets in and out of one accepted socket, on gevent's event loop.

`PlainTransport` keeps one read watcher for the life of the connection. gevent's own sockets start and stop one at
every wait, which costs more than all the rest of a small message. When the watcher fires and the session is busy
elsewhere it is stopped, because a level-triggered watcher would spin; the next read starts it again.

A transport belongs to the greenlet that made it: only that one may read or write. Others end its wait by throwing
into it. `gsmtp.net.tls.TlsTransport` has the same methods and stands on this one.
"""

from __future__ import annotations

import socket
from typing import Any, Protocol

import gevent

from gsmtp.net.errors import ConnectionLost

READ, WRITE = 1, 2
_MORE = getattr(socket, "MSG_MORE", 0)  # Linux
# One read's worth. Larger reads take a megabyte no faster, smaller ones cost a system call each.
CHUNK = 65536


class Transport(Protocol):
    """What a connection needs of its socket. `read` and `write_rest` block the calling greenlet, not the loop."""

    def read(self) -> bytes:
        """The next octets, b"" at the end. Raises ConnectionLost."""

    def write_some(self, data: bytes) -> bool:
        """What the socket takes now; whether that was all. The rest waits for `write_rest`. Raises ConnectionLost."""

    def write_last(self, data: bytes) -> bool:
        """As `write_some`, for what has nothing behind it but `close`. Raises ConnectionLost."""

    def write_rest(self) -> None:
        """What `write_some` has left. Raises ConnectionLost."""

    def close(self) -> None:
        """Free the descriptor. Idempotent."""

    def finish_writing(self) -> None:
        """Tell the peer that nothing more comes, and go on reading."""


class PlainTransport:
    """A TCP or unix socket without TLS."""

    __slots__ = ("_active", "_greenlet", "_hub", "_left", "_recv", "_send", "_socket", "_waiting", "_watcher")

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is a plain, non-blocking socket, which the transport owns from now on."""
        hub = gevent.get_hub()
        self._hub = hub
        self._socket: socket.socket | None = sock
        self._recv = sock.recv
        self._send = sock.send
        self._greenlet = gevent.getcurrent()
        self._left = b""
        self._waiting = False
        self._active = True
        self._watcher: Any = hub.loop.io(sock.fileno(), READ)
        self._watcher.start(self._readable)

    def _readable(self) -> None:
        if self._waiting:
            self._waiting = False
            self._greenlet.switch()
        else:
            self._watcher.stop()
            self._active = False

    def read(self) -> bytes:
        """See Transport."""
        while True:
            if not self._active:
                self._active = True
                self._watcher.start(self._readable)
            self._waiting = True
            try:
                self._hub.switch()
            finally:
                self._waiting = False
            try:
                return self._recv(CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ConnectionLost(str(error)) from None

    def write(self, data: bytes) -> None:
        """All of `data`. Raises ConnectionLost."""
        if not self.write_some(data):
            self.write_rest()

    def write_last(self, data: bytes) -> bool:
        """See Transport. The end of the connection goes in the same packet."""
        return self.write_some(data, _MORE)

    def write_some(self, data: bytes, flags: int = 0) -> bool:
        """See Transport."""
        if self._left:  # a wait for the rest was broken off: what comes now stands behind it
            self._left += data
            return False
        try:
            sent = self._send(data, flags)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ConnectionLost(str(error)) from None
        if sent == len(data):
            return True
        self._left = data[sent:]
        return False

    def write_rest(self) -> None:
        """See Transport."""
        assert self._socket is not None
        watcher = self._hub.loop.io(self._socket.fileno(), WRITE)
        try:
            while self._left:
                self._hub.wait(watcher)
                try:
                    self._left = self._left[self._send(self._left) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ConnectionLost(str(error)) from None
        finally:
            watcher.close()

    def offer(self, data: bytes) -> None:
        """Send what can be sent without waiting; for last words that may be lost."""
        if data and self._socket is not None and not self._left:
            try:
                self._send(data)
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
            self._watcher.stop()
            self._watcher.close()
            sock.close()
