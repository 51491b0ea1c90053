"""Accepting connections in a worker, in fair shares with the other workers of its role.

Promises: each wake-up of a listener accepts one connection. A worker with more sessions than others waits a little
before it accepts, but never refuses. A full worker accepts nothing. A worker that runs out of descriptors sends new
connections the listener's `busy` text, and keeps some descriptors for its sessions. When accept fails (no memory) the
worker waits; it neither spins nor ends. The callbacks run in gevent's hub: they never block, switch or log. Must not
know: what a session does, why a drain began. Weak: all idle workers wake up for one connection, and all but one find
nothing there.
"""

from __future__ import annotations

import errno
import math
import resource
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gevent
from gevent.monkey import get_original
from gevent.socket import wait_read

from gsmtp_workers.plan import Listener, Plan
from gsmtp_workers.scoreboard import Scoreboard, Scores
from gsmtp_workers.sockets import discard, say_farewell

if TYPE_CHECKING:
    from socket import socket as Socket

    from gsmtp_workers.worker import Worker

Handle = Callable[["Socket", Any], None]

_plain_socket = get_original("socket", "socket")
_READ = 1  # libev's EV_READ, which gevent's loop.io takes
_ACCEPT_PAUSE = 0.1  # after a failed accept: descriptors and memory come back when sessions end, not at once
# Descriptors kept from new connections: for the spool, the files that a handler writes, farewells under way. A quarter
# where the limit is low.
_SPARE = 64
# accept(2): errors of the one connection, already pending on it. The next one may be fine.
_CONNECTION_ERRORS = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ENETDOWN", "EPROTO", "ENOPROTOOPT", "EHOSTDOWN"),
        *("ENONET", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM"),
    )
    if hasattr(errno, name)
}


class AcceptDelay:
    """How long a worker waits before it accepts, so that the least busy one accepts first.

    `refresh` looks up which of the `others` (slots of the same role) count: READY, with a fresh heartbeat. `seconds` is
    then a few memory reads, and nothing when there is no other worker. Only the numbers of open sessions are compared:
    a worker whose event loop lags accepts late anyway.
    """

    def __init__(self, board: Scoreboard, others: Sequence[int], plan: Plan) -> None:
        self._board = board
        self._others = others
        self._stale_after = plan.stale_after
        self._step = plan.accept_delay
        self._limit = plan.accept_delay_limit
        self._scores: Scores | None = None

    def refresh(self) -> None:
        """Look up again which other workers there are. To be called with each heartbeat."""
        if self._limit > 0:
            self._scores = self._board.scores(self._others, time.monotonic(), self._stale_after)

    def seconds(self, own: int) -> float:
        """Return the seconds to wait with `own` sessions open; 0 for no wait."""
        read = self._scores
        if read is None:
            return 0.0
        scores = read()
        excess = own - min(scores)
        if excess <= 1:  # also when no other worker is READY any more: their scores are infinite
            return 0.0
        ready = [score for score in scores if score != math.inf]
        if excess <= 1 + 0.05 * (own + sum(ready)) / (1 + len(ready)):
            return 0.0
        return min(self._limit, self._step * excess)


class Acceptor:
    """Accepts on one listener.

    `serve` runs the handle for each connection in a greenlet of its own, `refuse` only sends each the farewell,
    `pause` leaves connections to other workers, `close` is the end.

    closing       connections that are being sent a farewell or the busy text.
    refused       connections for which there were too few descriptors.
    failures      how often accept has failed, and `last_failure` the last error.
    """

    def __init__(
        self, worker: Worker, socket: Socket, handle: Handle, listener: Listener, accept_delay: AcceptDelay
    ) -> None:
        self._worker = worker
        self._socket = socket
        self._accept_raw = socket._accept  # type: ignore[attr-defined]  # (descriptor, address): one system call
        self._kind = (socket.family, socket.type, socket.proto)
        self._handle = handle
        self._farewell, self._busy = listener.farewell, listener.busy
        # The kernel gives the lowest descriptor that is free: one above this means that few are left.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._last = math.inf if limit == resource.RLIM_INFINITY else limit - 1 - min(_SPARE, limit // 4)
        self._delay = accept_delay
        self._limit = worker.plan.max_sessions
        self._linger = worker.plan.linger
        self._loop = gevent.get_hub().loop
        self._watcher = self._loop.io(socket.fileno(), _READ)
        self._timer: Any = None
        self._react: Callable[[], None] = self._readable
        self.closing = 0
        self.refused = 0
        self.failures = 0
        self.last_failure: OSError | None = None

    def serve(self) -> None:
        """Accept and serve from now on, or again."""
        self.pause()
        self._react = self._readable
        self._watcher.start(self._react)

    def refuse(self) -> None:
        """From now on accept only to send the farewell."""
        self.pause()
        self._react = self._refuse_one
        self._watcher.start(self._react)

    def pause(self) -> None:
        """Accept nothing until `serve` or `refuse` is called."""
        self._watcher.stop()
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def close(self) -> None:
        """Close this process' listening socket. Nothing can be accepted any more."""
        self.pause()
        self._watcher.close()
        self._socket.close()

    def _readable(self) -> None:
        wait = self._delay.seconds(self._worker.sessions)
        if wait:
            self._pause_for(wait)
        else:
            self._serve_one()

    def _serve_one(self) -> None:
        sock = self._accept()
        if sock is None:
            return
        if sock[0].fileno() > self._last:
            self.refused += 1
            self.closing += 1
            gevent.spawn(self._send_and_close, sock[0], self._busy)
        else:
            worker = self._worker
            worker.begin_session()
            gevent.spawn(worker.run_session, self._handle, *sock)
            if worker.sessions >= self._limit:
                worker.pause_accepting()

    def _refuse_one(self) -> None:
        sock = self._accept()
        if sock is not None:
            self.closing += 1
            gevent.spawn(self._send_and_close, sock[0], self._farewell)

    def _accept(self) -> tuple[Socket, Any] | None:
        try:
            fd, address = self._accept_raw()
        except BlockingIOError:  # another worker was faster
            return None
        except OSError as error:
            if error.errno not in _CONNECTION_ERRORS:
                self.failures += 1
                self.last_failure = error
                self._pause_for(_ACCEPT_PAUSE)
            return None
        sock = _plain_socket(*self._kind, fileno=fd)
        sock.setblocking(False)
        return sock, address

    def _pause_for(self, seconds: float) -> None:
        self._watcher.stop()
        self._timer = self._loop.timer(seconds)
        # Without the update the loop's clock may lie behind by as long as this iteration has lasted.
        self._timer.start(self._resume, update=True)

    def _resume(self) -> None:
        self._timer = None
        self._watcher.start(self._react)
        if self._react == self._refuse_one:
            self._refuse_one()
        else:
            self._serve_one()

    def _send_and_close(self, sock: Socket, word: bytes) -> None:
        try:
            if say_farewell(sock, word):
                deadline = time.monotonic() + self._linger
                while not discard(sock) and (left := deadline - time.monotonic()) > 0:
                    wait_read(sock.fileno(), left)
        except OSError:  # also gevent's timeout
            pass
        finally:
            sock.close()
            self.closing -= 1
