"""Who runs when, and what the rounds say together.

Promises: in each round every entry runs once, one at a time, in an order that rotates from round to round, so
that a slow minute of the machine falls on all. A ratio is taken between figures of one round, then the median
over rounds. An entry that fails loses its figures for that workload and stands in nobody's way.
Nothing is deleted here: ext4 is slow at making files for minutes after many were deleted, so all that servers
store stays until the caller deletes `Plan.workdir`.
Must not know: what is measured.
Weak: servers of a workload stay up between their turns; one that is busy while idle slows the others.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Failure, ServerProcess, free_port
from .servers import Entry, Loop, Server
from .workloads import Effort, Workload


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of a figure over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass
class Row:
    """What one entry did in one workload: the figures of each round by its number, or why there are none."""

    name: str
    rounds: dict[int, Mapping[str, float]] = field(default_factory=dict)
    failure: str | None = None

    def figure(self, figure: str) -> Spread | None:
        return Spread.of([figures[figure] for figures in self.rounds.values() if figure in figures])

    def ratio(self, figure: str, baseline: Row | None) -> Spread | None:
        """To the baseline, round by round; None if either has no figure, or the baseline's is 0."""
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
    """How to run: `workdir` exists and is ours; `server_prefix` is put before each server's command line."""

    rounds: int
    effort: Effort
    workdir: Path
    server_prefix: tuple[str, ...] = ()
    progress: Callable[[str], None] = print


def run(workload: Workload, entries: Sequence[Entry], baseline: str, plan: Plan) -> Table:
    """Measure all `entries`, which take part in `workload` and are available. On return no server is left."""
    turns = [_Turn(workload, entry, plan) for entry in entries]
    with ExitStack() as stack:
        try:
            workload.prepare(plan.effort)
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
    return Table(workload, workload.describe(plan.effort), baseline, [turn.row for turn in turns])


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
        """Start and warm up a server that is to stay till `stack` closes."""
        if isinstance(self._entry, Server) and not self._workload.fresh and not self.row.failure:
            self._plan.progress(f"{self._workload.name}: warming up {self.row.name}")
            try:
                self._running = stack.enter_context(self._server(self._entry))
                self._count = self._workload.warm_up(self._entry, self._running, self._plan.effort)
            except Failure as failure:
                self.row.failure = str(failure)

    def take(self, number: int) -> None:
        """Measure, as round `number`."""
        if self.row.failure:
            return
        try:
            self.row.rounds[number] = self._measure()
        except Failure as failure:
            self.row.failure = str(failure)

    def _measure(self) -> Mapping[str, float]:
        effort = self._plan.effort
        if isinstance(self._entry, Loop):
            return self._entry.measure(self._directory(), effort.seconds)
        assert isinstance(self._entry, Server)
        if self._running is not None:
            return self._workload.measure(self._entry, self._running, effort, self._count)
        with self._server(self._entry) as running:
            count = self._workload.warm_up(self._entry, running, effort)
            return self._workload.measure(self._entry, running, effort, count)

    def _server(self, server: Server) -> ServerProcess:
        directory, port = self._directory(), free_port()
        command = [*self._plan.server_prefix, *server.command(port, directory)]
        under_tls = server.tls == "implicit"
        return ServerProcess(command, server.environment(directory), directory, port, under_tls)

    def _directory(self) -> Path:
        """A new one for each start: nothing is left there by an earlier one."""
        self._starts += 1
        directory = self._plan.workdir / f"{self._workload.name}-{self._entry.name}-{self._starts}"
        directory.mkdir()
        return directory
