"""One timer for all deadlines of a process.

A timer of gevent for each read would be started and stopped several times for each message. Instead, a connection
writes its deadline into an attribute, and every INTERVAL seconds the timer compares the deadlines of all connections
with the clock. Setting a deadline therefore costs nothing, and it takes effect up to INTERVAL seconds late.

This is for many connections on one event loop. A client with a blocking socket needs no timer: see
gsmtp.net.socket_transport.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import gevent

INTERVAL = 0.25


class HasDeadline(Protocol):
    """What the timer needs of a connection.

    `deadline` is in seconds of time.monotonic, gsmtp.net.transport.NEVER for none. `expire` is called in gevent's hub
    once the deadline has passed, so it must not block. Unless it sets another deadline, it is called again after
    INTERVAL.
    """

    deadline: float

    def expire(self) -> None: ...


_Connection = TypeVar("_Connection", bound=HasDeadline)


class DeadlineTimer(Generic[_Connection]):
    """Calls `expire` of each member of `watched` whose deadline has passed. It runs until `close`."""

    def __init__(self) -> None:
        self.watched: set[_Connection] = set()
        self._timer: Any = gevent.get_hub().loop.timer(INTERVAL, INTERVAL)
        self._timer.start(self._run)

    def _run(self) -> None:
        now = monotonic()
        for connection in [each for each in self.watched if each.deadline <= now]:
            connection.expire()

    def close(self) -> None:
        """Stop the timer."""
        self._timer.stop()
        self._timer.close()
