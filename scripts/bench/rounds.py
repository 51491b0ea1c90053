"""The order of measurements, and what the rounds give together.

In each round every entry runs once, one at a time, in an order that rotates from round to round, so that a slow minute
of the machine affects all. A ratio is taken between figures of one round, and then the median over rounds. An entry
that fails loses its figures for that workload, and does not stop others. Nothing is deleted here: ext4 is slow at
making files for minutes after many were deleted, so all that servers store is kept until the caller deletes
`Plan.workdir`. This file does not know what is measured.

Weakness: the servers of a workload stay up between their turns, and one that is busy while idle slows the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Failure, ServerProcess, free_port
from .servers import Entry, Loop, Server
from .workloads import RunLength, Workload


@dataclass(frozen=True)
class Spread:
    """The median and the extremes of a figure over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass
class Row:
    """The result of one entry in one workload: the figures of each round by its number, or why there are none."""

    name: str
    rounds: dict[int, Mapping[str, float]] = field(default_factory=dict)
    failure: str | None = None

    def figure(self, figure: str) -> Spread | None:
        return Spread.of([figures[figure] for figures in self.rounds.values() if figure in figures])

    def ratio(self, figure: str, baseline: Row | None) -> Spread | None:
        """Return the ratios to the baseline by round; None if either has no figure, or the baseline's is 0."""
        if baseline is None:
            return None
        pairs = [
            (figures[figure], baseline.rounds[number][figure])
            for number, figures in self.rounds.items()
            if figure in figures and baseline.rounds.get(number, {}).get(figure)
        ]
        return Spread.of([mine / its for mine, its in pairs])


@dataclass
class Table:
    """The result of one workload."""

    workload: Workload
    title: str
    baseline: str
    rows: list[Row]

    def baseline_row(self) -> Row | None:
        return next((row for row in self.rows if row.name == self.baseline and not row.failure), None)


@dataclass(frozen=True)
class Plan:
    """How to run. `workdir` exists and is empty; `server_prefix` is put before each server's command line."""

    rounds: int
    length: RunLength
    workdir: Path
    server_prefix: tuple[str, ...] = ()
    progress: Callable[[str], None] = print


def run(workload: Workload, entries: Sequence[Entry], baseline: str, plan: Plan) -> Table:
    """Measure the `entries` that are available and take part in `workload`. On return no server is left."""
    turns = [_Turn(workload, entry, plan) for entry in entries]
    with ExitStack() as stack:
        try:
            workload.prepare(plan.length)
        except Failure as failure:
            for turn in turns:
                turn.row.failure = str(failure)
        for turn in turns:
            turn.start(stack)
        for number in range(plan.rounds):
            plan.progress(f"{workload.name}: round {number + 1} of {plan.rounds}")
            first = number % max(1, len(turns))
            for turn in turns[first:] + turns[:first]:
                turn.take(number)
    return Table(workload, workload.describe(plan.length), baseline, [turn.row for turn in turns])


class _Turn:
    """One entry in one workload. A `Failure` goes into the row and ends its part."""

    def __init__(self, workload: Workload, entry: Entry, plan: Plan) -> None:
        self.row = Row(entry.name)
        self._workload = workload
        self._entry = entry
        self._plan = plan
        self._running: ServerProcess | None = None
        self._count = 0
        self._starts = 0

    def start(self, stack: ExitStack) -> None:
        """Start and warm up a server that runs until `stack` closes."""
        if isinstance(self._entry, Server) and not self._workload.fresh and not self.row.failure:
            self._plan.progress(f"{self._workload.name}: warming up {self.row.name}")
            try:
                self._running = stack.enter_context(self._server(self._entry))
                self._count = self._workload.warm_up(self._entry, self._running, self._plan.length)
            except Failure as failure:
                self.row.failure = str(failure)

    def take(self, number: int) -> None:
        """Measure round `number`."""
        if self.row.failure:
            return
        try:
            self.row.rounds[number] = self._measure()
        except Failure as failure:
            self.row.failure = str(failure)

    def _measure(self) -> Mapping[str, float]:
        length = self._plan.length
        if isinstance(self._entry, Loop):
            return self._entry.measure(self._directory(), length.seconds)
        assert isinstance(self._entry, Server)
        if self._running is not None:
            return self._workload.measure(self._entry, self._running, length, self._count)
        with self._server(self._entry) as running:
            count = self._workload.warm_up(self._entry, running, length)
            return self._workload.measure(self._entry, running, length, count)

    def _server(self, server: Server) -> ServerProcess:
        directory, port = self._directory(), free_port()
        command = [*self._plan.server_prefix, *server.command(port, directory)]
        under_tls = server.tls == "implicit"
        return ServerProcess(command, server.environment(directory), directory, port, under_tls)

    def _directory(self) -> Path:
        """Return a new directory for each start, so that an earlier one leaves nothing in it."""
        self._starts += 1
        directory = self._plan.workdir / f"{self._workload.name}-{self._entry.name}-{self._starts}"
        directory.mkdir()
        return directory
