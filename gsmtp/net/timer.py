"""One timer for all the deadlines of a worker.

A timer per read would be started and stopped several times a message. Instead a connection writes down when its wait
becomes too long, and every `INTERVAL` seconds the sweep looks at all of them. So a deadline is late by up to that.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import gevent

INTERVAL = 0.25
NEVER = float("inf")


class Watched(Protocol):
    """`deadline`: in seconds of time.monotonic, NEVER for none; `expire` is called in the hub and must not block."""

    deadline: float

    def expire(self) -> None: ...


_Each = TypeVar("_Each", bound=Watched)


class DeadlineTimer(Generic[_Each]):
    """The connections of a worker, by their deadlines."""

    def __init__(self) -> None:
        self.watched: set[_Each] = set()
        self._timer: Any = gevent.get_hub().loop.timer(INTERVAL, INTERVAL)
        self._timer.start(self._run)

    def _run(self) -> None:
        now = monotonic()
        for watched in [each for each in self.watched if each.deadline <= now]:
            watched.expire()

    def close(self) -> None:
        """Stop the timer."""
        self._timer.stop()
        self._timer.close()
