"""A transport for one accepted socket, on gevent's event loop.

`PlainTransport` keeps one read watcher for the life of the connection. gevent's own sockets start and stop a watcher
for each wait, which costs more than everything else for a small message. When the watcher fires while the session does
not wait, it is stopped, because a level-triggered watcher would spin; the next read starts it again.

A transport belongs to the greenlet that made it, and only that greenlet may read or write. Another greenlet ends its
wait by throwing an exception into it. A PlainTransport knows no deadlines: see gsmtp.net.timer.
"""

from __future__ import annotations

import socket
from typing import Any

import gevent

from gsmtp.net.errors import ConnectionLost
from gsmtp.net.transport import CHUNK

READ, WRITE = 1, 2
_MORE = getattr(socket, "MSG_MORE", 0)  # Linux


class PlainTransport:
    """A TCP or unix socket without TLS. See gsmtp.net.transport.ClearTransport for the methods."""

    __slots__ = ("_active", "_greenlet", "_hub", "_left", "_recv", "_send", "_socket", "_waiting", "_watcher")

    def __init__(self, sock: socket.socket) -> None:
        """Take over `sock`, a non-blocking socket that gevent has not patched. `close` closes it."""
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
        """See ClearTransport."""
        if not self.write_some(data):
            self.write_rest()

    def write_last(self, data: bytes) -> bool:
        """See Transport. The data and the end of the connection go in one packet."""
        return self.write_some(data, _MORE)

    def write_some(self, data: bytes, flags: int = 0) -> bool:
        """See Transport."""
        if self._left:  # a wait for the rest was broken off; this data comes after it
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
        """See ClearTransport."""
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
