"""The deadline timer calls those whose deadline has passed, and nobody else."""

from __future__ import annotations

from time import monotonic

import gevent

from gsmtp.net.timer import INTERVAL, DeadlineTimer
from gsmtp.net.transport import NEVER


class Waiting:
    def __init__(self, deadline: float, again: bool = False) -> None:
        self.deadline = deadline
        self.expired = 0
        self._again = again

    def expire(self) -> None:
        self.expired += 1
        if not self._again:
            self.deadline = NEVER


def test_deadlines() -> None:
    timer: DeadlineTimer[Waiting] = DeadlineTimer()
    passed, soon, never = Waiting(0.0), Waiting(monotonic() + INTERVAL), Waiting(NEVER)
    stubborn, gone = Waiting(0.0, again=True), Waiting(0.0)
    timer.watched |= {passed, soon, never, stubborn, gone}
    timer.watched.discard(gone)
    until = monotonic() + 20
    while not (soon.expired and stubborn.expired > 1) and monotonic() < until:
        gevent.sleep(INTERVAL / 5)
    assert (passed.expired, soon.expired, never.expired, gone.expired) == (1, 1, 0, 0)
    assert stubborn.expired > 1
    timer.close()
    before = stubborn.expired
    gevent.sleep(INTERVAL * 2)
    assert stubborn.expired == before
