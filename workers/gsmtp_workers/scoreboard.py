"""The scoreboard: one shared memory file in which every worker keeps a row of numbers about itself.

Promises: reading costs no system call and never waits. While a worker lives, it alone writes its row. When the master
has reaped the worker it clears the row and adds the counters to the row of the retired, so a counter's sum never
falls; gauges end with their worker. The file starts with a header that describes it, so whoever can open the file can
read it (`Scoreboard.open`); on Linux that is /proc/PID/fd/N of the master or of a worker. Must not know: sockets,
signals, gevent. Weak: the cells of a row are not read at one instant, so sums may be off by what is being done now.

Layout, all numbers in the machine's own byte order:

    offset  size  content
    0       8     magic: b"gsmtp-sb"
    8       4     version of the layout: 1
    12      4     slots: the number of rows for workers
    16      4     width: cells in a row
    20      4     start: the offset of the first row, a multiple of 64
    24      4     length of the description
    28            description: JSON, {"server": [column...], "columns": [column...]}; a column has name, kind and help
    start         rows of `width` cells of 8 octets (double): the server's, the retired workers', slot 0, slot 1 ...

The server's row has the columns under "server"; all other rows have those under "columns". The unused cells at a row's
end are zero. All cells are doubles: aligned stores of 8 octets are not torn on the machines we run on.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from operator import itemgetter
from typing import Any

from gsmtp_workers.columns import Column, Kind

# The cells of a row by index. The service's own columns follow from COUNTERS on.
PID, STATE, GENERATION, STARTED, BEAT, LAG, SESSIONS, SCORE, ACCEPTED, RSS, COUNTERS = range(11)

WORKER_COLUMNS = (
    Column("pid", Kind.GAUGE, "process id"),
    Column("state", Kind.GAUGE, "0 free, 1 booting, 2 ready, 3 draining, 4 stopping"),
    Column("generation", Kind.GAUGE, "which load of the settings and the code the worker runs"),
    Column("started", Kind.GAUGE, "start of the worker, seconds of the system's monotonic clock"),
    Column("beat", Kind.GAUGE, "last heartbeat, seconds of the system's monotonic clock"),
    Column("lag", Kind.GAUGE, "seconds by which the last heartbeat was late"),
    Column("sessions", Kind.GAUGE, "open connections"),
    Column("score", Kind.GAUGE, "open connections, infinite unless the worker is ready"),
    Column("accepted", Kind.COUNTER, "connections accepted"),
    Column("rss", Kind.GAUGE, "resident memory in octets"),
)
SERVER_COLUMNS = (Column("stopping", Kind.GAUGE, "1 when the whole server ends"),)

_MAGIC = b"gsmtp-sb"
_VERSION = 1
_HEADER = struct.Struct("=8s5I")
_CELL = 8
# Cells in a cache line of 64 octets: rows begin on their own, so that writers do not disturb each other.
_LINE = 8
_STOPPING = 0


class WorkerState(IntEnum):
    """What a worker does. FREE: the slot has no worker."""

    FREE = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3
    STOPPING = 4


@dataclass(frozen=True)
class Slot:
    """One row, read: a worker as it last described itself.

    `started` and `beat` are on the clock of time.monotonic(); `lag` is the seconds by which the last beat was late;
    `rss` is in octets; `counters` are the service's own columns, counters and gauges.
    """

    slot: int
    pid: int
    state: WorkerState
    generation: int
    started: float
    beat: float
    lag: float
    sessions: int
    accepted: int
    rss: int
    counters: dict[str, float]


def anonymous_file(name: str) -> int:
    """Return the descriptor of a new file in memory (an unlinked one where the system has no memfd). Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    import tempfile  # only here, since it takes longer to import than all of this package

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def shared_file(size: int) -> int:
    """Return the descriptor of a new file in memory with `size` octets of zero; -1 when `size` is 0. Raises OSError."""
    if not size:
        return -1
    fd = anonymous_file("shared")
    os.ftruncate(fd, size)
    return fd


class Scoreboard:
    """The shared rows. The master makes them with `create`; workers and readers from outside call `open`.

    slots    the number of rows for workers.
    columns  the columns of a worker's row: WORKER_COLUMNS, then the service's own.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        """Use a mapped scoreboard. Raises ValueError when the memory is not one of this version."""
        if memory[: len(_MAGIC)] != _MAGIC or len(memory) < _HEADER.size:
            raise ValueError("not a scoreboard")
        _, version, self.slots, self._width, start, length = _HEADER.unpack_from(memory)
        if version != _VERSION:
            raise ValueError(f"a scoreboard of version {version}, not {_VERSION}")
        description = json.loads(memory[_HEADER.size : _HEADER.size + length])
        self.columns = tuple(Column(each["name"], Kind(each["kind"]), each["help"]) for each in description["columns"])
        end = start + _CELL * self._width * (self.slots + 2)
        self._cells = memoryview(memory)[start:end].cast("d")
        self._counters = [at for at, column in enumerate(self.columns) if column.kind is Kind.COUNTER]

    @classmethod
    def create(cls, slots: int, counters: Sequence[Column]) -> tuple[Scoreboard, int]:
        """Make a new, empty scoreboard on a new file; return it and the file's descriptor. Raises OSError.

        counters  the service's own columns.
        """
        columns = (*WORKER_COLUMNS, *counters)
        described = {"server": SERVER_COLUMNS, "columns": columns}
        text = json.dumps({key: [each._asdict() for each in value] for key, value in described.items()}).encode()
        width = -(-len(columns) // _LINE) * _LINE
        line = _LINE * _CELL
        start = -(-(_HEADER.size + len(text)) // line) * line
        fd = anonymous_file("scoreboard")
        os.ftruncate(fd, start + _CELL * width * (slots + 2))
        os.pwrite(fd, _HEADER.pack(_MAGIC, _VERSION, slots, width, start, len(text)) + text, 0)
        board = cls.open(fd)
        for slot in range(slots):
            board.row(slot)[SCORE] = math.inf
        return board, fd

    @classmethod
    def open(cls, file: int | str | os.PathLike[str]) -> Scoreboard:
        """Open an existing scoreboard: by a descriptor, to read and write it, or by a path, only to read it.

        A descriptor stays the caller's. Raises OSError, and ValueError when the file is not a scoreboard.
        """
        if isinstance(file, int):
            return cls(mmap.mmap(file, 0))
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(fd)

    def row(self, slot: int) -> memoryview[float]:
        """Return the cells of a slot: PID to RSS by index, the service's own from COUNTERS on."""
        start = (slot + 2) * self._width
        return self._cells[start : start + self._width]

    @property
    def stopping(self) -> bool:
        """Whether the whole server ends, and not only one worker. The master sets it."""
        return bool(self._cells[_STOPPING])

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._cells[_STOPPING] = value

    def read(self) -> list[Slot]:
        """Return the rows of all workers that exist, in the order of their slots."""
        return [slot for number in range(self.slots) if (slot := self.slot(number)).state is not WorkerState.FREE]

    def slot(self, number: int) -> Slot:
        """Return one row, whether a worker has the slot or not."""
        row = self.row(number)
        return Slot(
            slot=number,
            pid=int(row[PID]),
            state=WorkerState(int(row[STATE])),
            generation=int(row[GENERATION]),
            started=row[STARTED],
            beat=row[BEAT],
            lag=row[LAG],
            sessions=int(row[SESSIONS]),
            accepted=int(row[ACCEPTED]),
            rss=int(row[RSS]),
            counters={column.name: row[at] for at, column in enumerate(self.columns) if at >= COUNTERS},
        )

    def totals(self) -> dict[str, float]:
        """Return the sums of "accepted" and of the service's own columns.

        A counter is summed over all workers that ever ran, a gauge over those that run now.
        """
        rows = [self._retired(), *(self.row(number) for number in range(self.slots))]
        wanted = (ACCEPTED, *range(COUNTERS, len(self.columns)))
        return {self.columns[at].name: sum(row[at] for row in rows) for at in wanted}

    def retire(self, number: int) -> None:
        """Clear the row of a worker that is dead and keep its counters, not its gauges. For the master alone."""
        row, retired = self.row(number), self._retired()
        for at in self._counters:
            retired[at] += row[at]
        for at in range(len(row)):
            row[at] = 0.0
        row[SCORE] = math.inf

    def scores(self, slots: Iterable[int], now: float, stale_after: float) -> Scores | None:
        """Return a reader of the scores of those `slots` whose worker is READY and whose beat is fresh.

        None when there is no such worker. now: time.monotonic(); stale_after: the age of a beat that is not fresh.
        """
        cells = [
            (number + 2) * self._width + SCORE
            for number in slots
            if (row := self.row(number))[STATE] == WorkerState.READY and now - row[BEAT] < stale_after
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
