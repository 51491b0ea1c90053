"""The scoreboard: one shared memory file in which every worker keeps a row of numbers about itself.

Promises: reading costs no system call and never waits; a row is written by its worker alone while that
lives, and is cleared by the master when it has been reaped, its totals going to the row of the retired so
that sums never fall. All cells are 8-byte floats: aligned stores of that size are not torn on the machines
we run on, and counts are exact up to 2**53. Must not know: sockets, signals, gevent. Weak: cells of one row
are not read at one instant, so sums may differ by what is being done now.

Layout, in cells: [master's row][row of the retired][row 0][row 1]...
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from dataclasses import dataclass
from enum import IntEnum
from operator import itemgetter
from typing import Any

PID, STATE, GENERATION, STARTED, BEAT, LAG, SESSIONS, SCORE, ACCEPTED, RSS, COUNTERS = range(11)
# Cells in a cache line of 64 bytes: rows begin on their own, so that writers do not disturb each other.
_LINE = 8
_STOPPING = 0


class State(IntEnum):
    """What a worker is at."""

    FREE = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3
    STOPPING = 4


@dataclass(frozen=True)
class Slot:
    """One worker as it last described itself. `beat` and `started` are on the clock of time.monotonic(),
    `lag` is how
    late (seconds) the last beat was, `rss` is bytes, `counters` are the service's own columns."""

    slot: int
    pid: int
    state: State
    generation: int
    started: float
    beat: float
    lag: float
    sessions: int
    accepted: int
    rss: int
    counters: dict[str, float]


def anonymous_file(name: str) -> int:
    """A descriptor of a new file in memory (or of an unlinked one where the system has no memfd)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def shared_file(size: int) -> int:
    """A descriptor of a new file in memory, `size` octets of zero; -1 for none of them."""
    if not size:
        return -1
    fd = anonymous_file("shared")
    os.ftruncate(fd, size)
    return fd


class Scoreboard:
    """The shared rows. The master makes it with `create`, a worker opens the inherited descriptor."""

    def __init__(self, fd: int, slots: int, counters: tuple[str, ...]) -> None:
        self.fd = fd
        self.slots = slots
        self.counters = counters
        self._width = -(-(COUNTERS + len(counters)) // _LINE) * _LINE
        self._cells = memoryview(mmap.mmap(fd, 8 * self._width * (slots + 2))).cast("d")

    @classmethod
    def create(cls, slots: int, counters: tuple[str, ...]) -> Scoreboard:
        """A new, empty board on a new file."""
        fd = anonymous_file("scoreboard")
        width = -(-(COUNTERS + len(counters)) // _LINE) * _LINE
        os.ftruncate(fd, 8 * width * (slots + 2))
        board = cls(fd, slots, counters)
        for slot in range(slots):
            board.row(slot)[SCORE] = math.inf
        return board

    def row(self, slot: int) -> memoryview[float]:
        """The cells of a worker; the index is one of PID ... COUNTERS, the service's own follow."""
        start = (slot + 2) * self._width
        return self._cells[start : start + self._width]

    @property
    def stopping(self) -> bool:
        """Whether the whole server ends (written by the master), not only one worker."""
        return bool(self._cells[_STOPPING])

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._cells[_STOPPING] = value

    def read(self) -> list[Slot]:
        """All workers that there are, by slot."""
        return [slot for number in range(self.slots) if (slot := self.slot(number)).state is not State.FREE]

    def slot(self, number: int) -> Slot:
        """One row, whether a worker has it or not."""
        row = self.row(number)
        return Slot(
            slot=number,
            pid=int(row[PID]),
            state=State(int(row[STATE])),
            generation=int(row[GENERATION]),
            started=row[STARTED],
            beat=row[BEAT],
            lag=row[LAG],
            sessions=int(row[SESSIONS]),
            accepted=int(row[ACCEPTED]),
            rss=int(row[RSS]),
            counters={name: row[COUNTERS + at] for at, name in enumerate(self.counters)},
        )

    def totals(self) -> dict[str, float]:
        """ "accepted" and the service's counters, summed over all workers that ever ran."""
        rows = [self._retired(), *(self.row(number) for number in range(self.slots))]
        sums = {name: sum(row[COUNTERS + at] for row in rows) for at, name in enumerate(self.counters)}
        return {"accepted": sum(row[ACCEPTED] for row in rows), **sums}

    def retire(self, number: int) -> None:
        """Clear the row of a worker that is dead, keeping its totals. For the master alone."""
        row, retired = self.row(number), self._retired()
        for at in (ACCEPTED, *range(COUNTERS, COUNTERS + len(self.counters))):
            retired[at] += row[at]
        for at in range(len(row)):
            row[at] = 0.0
        row[SCORE] = math.inf

    def scores(self, but: int, now: float, stale_after: float) -> Scores | None:
        """A reader of the scores of all READY workers but one whose beat is fresh; None if there is none."""
        cells = [
            (number + 2) * self._width + SCORE
            for number in range(self.slots)
            if number != but and (row := self.row(number))[STATE] == State.READY and now - row[BEAT] < stale_after
        ]
        return Scores(self._cells, cells) if cells else None

    def _retired(self) -> memoryview[float]:
        return self._cells[self._width : 2 * self._width]


class Scores:
    """The scores of some workers, read anew at each call: open sessions, infinite where one is not READY."""

    def __init__(self, cells: memoryview[float], at: list[int]) -> None:
        self._get = itemgetter(*at)
        self._single = len(at) == 1  # then itemgetter returns no tuple
        self._cells = cells

    def __call__(self) -> tuple[float, ...]:
        values: Any = self._get(self._cells)
        return (values,) if self._single else values
