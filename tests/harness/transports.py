"""Transports of both kinds, and a peer in a thread of its own for tests of them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from gsmtp.net.errors import ConnectionLost
from gsmtp.net.gevent_transport import PlainTransport
from gsmtp.net.socket_transport import SocketTransport
from gsmtp.net.transport import ClearTransport

WAIT = 20.0
BIG = os.urandom(1 << 20) * 8


def blocking(sock: socket.socket) -> ClearTransport:
    return SocketTransport(sock, monotonic() + WAIT)


def on_gevent(sock: socket.socket) -> ClearTransport:
    sock.setblocking(False)
    return PlainTransport(sock)


KINDS: dict[str, Callable[[socket.socket], ClearTransport]] = {"blocking": blocking, "gevent": on_gevent}
pairs = pytest.mark.parametrize(("ours", "theirs"), [(a, b) for a in KINDS for b in KINDS])


@contextmanager
def peer(kind: str, serve: Callable[[ClearTransport], Any]) -> Iterator[tuple[socket.socket, list[Any]]]:
    """A connected socket, whose other end `serve` has in a thread; what it returned or raised, once the block ends."""
    here, there = socket.socketpair()
    result: list[Any] = []

    def run() -> None:
        transport = KINDS[kind](there)
        try:
            result.append(serve(transport))
        except ConnectionLost as error:
            result.append(error)
        finally:
            transport.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield here, result
    finally:
        thread.join(WAIT)
        assert not thread.is_alive()
