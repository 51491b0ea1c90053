"""Accepting connections in a worker, in fair shares with the other workers.

Promises: one accept per wake-up and listener; a worker with more sessions than others waits a little before
it accepts, but never refuses; a full worker accepts nothing; one that runs out of descriptors says so to
newcomers and keeps some for its sessions; trouble with accept (no memory) means waiting, never spinning or
dying. The callbacks run in gevent's hub: they never block, switch
or log. Must not know: what a session does, why a drain began. Weak: idle workers all wake for one
connection, and all but one find nothing there.
"""

from __future__ import annotations

import errno
import math
import resource
import time
from collections.abc import Callable
from socket import AF_UNIX
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
# Descriptors that newcomers do not get: the spool, the files that a handler writes, farewells under way. A quarter
# where there are few.
_SPARE = 64
# accept(2): errors of the one connection, already pending on it; the next one may be fine.
_CONNECTION_ERRORS = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ENETDOWN", "EPROTO", "ENOPROTOOPT", "EHOSTDOWN"),
        *("ENONET", "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EPERM"),
    )
    if hasattr(errno, name)
}


class Gate:
    """How long a worker waits before it accepts, so that the least busy one comes first.

    `refresh` looks up who counts (READY, fresh beat); `delay` is then a few memory reads, and with one
    worker nothing. The score is the number of open sessions alone: a worker whose loop lags is late at
    accepting anyway.
    """

    def __init__(self, board: Scoreboard, slot: int, plan: Plan) -> None:
        self._board = board
        self._slot = slot
        self._stale_after = plan.stale_after
        self._step = plan.gate_step
        self._limit = plan.gate_limit
        self._others: Scores | None = None

    def refresh(self) -> None:
        """Look again at which workers there are; called with each beat."""
        if self._limit > 0:
            self._others = self._board.scores(self._slot, time.monotonic(), self._stale_after)

    def delay(self, own: int) -> float:
        """Seconds to wait with `own` sessions open; 0 for none."""
        others = self._others
        if others is None:
            return 0.0
        scores = others()
        excess = own - min(scores)
        if excess <= 1:  # also when no other is READY any more: their score is infinite
            return 0.0
        ready = [score for score in scores if score != math.inf]
        if excess <= 1 + 0.05 * (own + sum(ready)) / (1 + len(ready)):
            return 0.0
        return min(self._limit, self._step * excess)


class Acceptor:
    """Accepts on one listener: `serve` gives each connection to the handle in a greenlet of its own, `dismiss` only
    says farewell to each, `pause` leaves them to others, `close` ends it."""

    def __init__(self, worker: Worker, listener: Socket, handle: Handle, words: Listener, gate: Gate) -> None:
        self._worker = worker
        self._listener = listener
        self._take = listener._accept  # type: ignore[attr-defined]  # (descriptor, address): one system call
        self._kind = (listener.family, listener.type, listener.proto)
        self._no_address = listener.family == AF_UNIX
        self._handle = handle
        self._farewell, self._busy = words.farewell, words.busy
        # The kernel gives the lowest descriptor that is free: one as high as this says that few are left.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._last = math.inf if limit == resource.RLIM_INFINITY else limit - 1 - min(_SPARE, limit // 4)
        self._gate = gate
        self._limit = worker.plan.max_sessions
        self._linger = worker.plan.linger
        self._loop = gevent.get_hub().loop
        self._watcher = self._loop.io(listener.fileno(), _READ)
        self._timer: Any = None
        self._react: Callable[[], None] = self._readable
        self.goodbyes = 0
        self.turned_away = 0
        self.failures = 0
        self.last_failure: OSError | None = None

    def serve(self) -> None:
        """Accept and serve, from now on (or again)."""
        self.pause()
        self._react = self._readable
        self._watcher.start(self._react)

    def dismiss(self) -> None:
        """Accept only to say farewell, from now on."""
        self.pause()
        self._react = self._dismiss_one
        self._watcher.start(self._react)

    def pause(self) -> None:
        """Accept nothing, until told otherwise."""
        self._watcher.stop()
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def close(self) -> None:
        """Close this process' listener. Nothing can be accepted any more."""
        self.pause()
        self._watcher.close()
        self._listener.close()

    def _readable(self) -> None:
        wait = self._gate.delay(self._worker.sessions)
        if wait:
            self._pause_for(wait)
        else:
            self._serve_one()

    def _serve_one(self) -> None:
        sock = self._accept()
        if sock is None:
            return
        if sock[0].fileno() > self._last:
            self.turned_away += 1
            self.goodbyes += 1
            gevent.spawn(self._goodbye, sock[0], self._busy)
        else:
            worker = self._worker
            worker.session_begins()
            gevent.spawn(worker.session, self._handle, *sock)
            if worker.sessions >= self._limit:
                worker.full()

    def _dismiss_one(self) -> None:
        sock = self._accept()
        if sock is not None:
            self.goodbyes += 1
            gevent.spawn(self._goodbye, sock[0], self._farewell)

    def _accept(self) -> tuple[Socket, Any] | None:
        try:
            fd, address = self._take()
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
        self._timer.start(self._go_on, update=True)

    def _go_on(self) -> None:
        self._timer = None
        self._watcher.start(self._react)
        if self._react == self._dismiss_one:
            self._dismiss_one()
        else:
            self._serve_one()

    def _goodbye(self, sock: Socket, word: bytes) -> None:
        try:
            if say_farewell(sock, word):
                deadline = time.monotonic() + self._linger
                while not discard(sock) and (left := deadline - time.monotonic()) > 0:
                    wait_read(sock.fileno(), left)
        except OSError:  # also gevent's timeout
            pass
        finally:
            sock.close()
            self.goodbyes -= 1
