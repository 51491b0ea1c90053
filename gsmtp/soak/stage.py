"""Server, clients and instruments together, one window of traffic after the other.

Promises: when `window` returns, all sessions are closed, each message is accounted for, and every worker was measured
at rest. What went wrong on the way is in `troubles`, never an exception, so that a soak goes on to its verdict; only
what ends it is raised. Must not know: how many windows there will be, or what they prove.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsmtp.soak import agreed, gauge
from gsmtp.soak.client import ClientDied, ClientProcess
from gsmtp.soak.gauge import Gauge
from gsmtp.soak.ledger import Balance
from gsmtp.soak.mail import Mail, write_bag
from gsmtp.soak.plot import Sample
from gsmtp.soak.server import Server, ServerFailed
from gsmtp.soak.traffic import SECURE, Route
from gsmtp.soak.verdict import Window
from gsmtp.soak.watch import Board, Watch

_REST = 30.0  # seconds until all sessions must have ended, when all clients have closed: the server lingers for one
# The log is written 50 ms after an event, by a greenlet that must be gone before greenlets are counted.
_QUIET = 0.12
_IN_FULL_SWING = 0.1  # seconds after which clients are at work
OWN_HANDLER = "gsmtp.soak.handler:Inbox"


@dataclass(frozen=True)
class Setup:
    """What is soaked, and by whom. `directory` must be empty, and is the caller's to remove."""

    directory: Path
    mails: Iterable[Mail]
    handler: Mapping[str, Any] = field(default_factory=lambda: {"class": OWN_HANDLER})
    workers: int = 2
    clients: int = 4
    threads: int = 6
    tls: str = "mixed"
    seed: int = 0
    sender: str = agreed.SENDER
    recipient: str = agreed.RECIPIENT
    patience: float = 60.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_handler(self) -> bool:
        """Whether the handler is one that knows the addresses of `agreed`."""
        return str(self.handler["class"]).startswith("gsmtp.soak.")


class StageFailed(Exception):
    """The soak cannot be run, or cannot go on; why."""


class ServerAtFault(Exception):
    """It cannot go on because of what the server did."""


class Stage:
    """A context manager. `balance`, `troubles` (text -> how often), `windows` (slot -> those so far)."""

    def __init__(self, setup: Setup, show: Callable[[Sample, int], None] = lambda sample, sessions: None) -> None:
        """Raises StageFailed. `show` is told how it goes, twice a second, from another thread."""
        self.setup = setup
        self.balance = Balance()
        self.troubles: Counter[str] = Counter()
        self.sessions = 0
        self.cut = 0
        self.windows: dict[int, list[Window]] = {}
        self.master: list[Window] = []
        self._number = 0
        self._clients: list[ClientProcess] = []
        self._gauges: dict[int, tuple[int, Gauge]] = {}
        self._watch: Watch | None = None
        bag = setup.directory / "bag"
        self._entries = write_bag(bag, setup.mails)
        if not self._entries:
            raise StageFailed("there is no mail to replay")
        try:
            self.server = Server(setup.directory, setup.handler, setup.workers, setup.tls != "never", setup.settings)
        except ServerFailed as error:
            raise StageFailed(str(error)) from None
        try:
            self._begin(bag, show)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | ClientDied):
                raise StageFailed(str(error)) from error
            raise

    def _begin(self, bag: Path, show: Callable[[Sample, int], None]) -> None:
        setup, addresses = self.setup, self.server.addresses
        route = Route(
            addresses["smtp"], addresses.get("smtps"), setup.tls, setup.sender, setup.recipient, setup.patience
        )
        self.board = Board(self.server.process.pid)
        for number in range(setup.clients):
            self._clients.append(ClientProcess(number, route, bag, setup.threads, setup.seed))
        self.find_workers()
        self._watch = Watch(self.server.process.pid, self.board, show)

    @property
    def samples(self) -> list[Sample]:
        """What the watch has seen."""
        return self._watch.samples if self._watch is not None else []

    @property
    def mails(self) -> int:
        """How many different ones there are."""
        return len(self._entries)

    @property
    def largest_mail(self) -> int:
        """Octets of its content."""
        return max(entry.size for entry in self._entries)

    def until_replaced(self, pid: int) -> None:
        """Wait until a worker that was told to end is gone and another serves in its place. ServerAtFault."""
        deadline = time.monotonic() + _REST
        while True:
            self.find_workers()
            if len(self._gauges) == self.setup.workers and pid not in {pid for pid, _ in self._gauges.values()}:
                return
            if not self.server.alive or time.monotonic() > deadline:
                raise ServerAtFault(f"worker with pid {pid} was not replaced")
            time.sleep(0.02)

    def find_workers(self) -> None:
        """Learn which workers there are now. Windows of those that are gone are forgotten."""
        paths, slots = self.server.gauges(), {slot.pid: slot.slot for slot in self.board.workers()}
        for slot, (pid, asked) in list(self._gauges.items()):
            if pid not in paths:
                asked.close()
                del self._gauges[slot]
        for pid, path in paths.items():
            if pid in slots and slots[pid] not in self._gauges:
                self._gauges[slots[pid]] = pid, Gauge(path)
                self.windows[slots[pid]] = []

    def window(
        self,
        kinds: Mapping[str, float],
        messages: int | None = None,
        sessions: int | None = None,
        ends: int = 0,
    ) -> int:
        """Traffic of these kinds (with weights) until so many messages or sessions were had, then rest and measure.

        Returns how many messages were stored. `ends`: the pid of a worker that gets TERM while clients are at work.
        Raises StageFailed, ServerAtFault.
        """
        self._number += 1
        if self.setup.tls == "never":
            kinds = {kind: weight for kind, weight in kinds.items() if kind not in SECURE}
        self._traffic(kinds, messages, sessions, ends)
        self.rest()
        if ends:
            self.until_replaced(ends)
        journals = self.server.journals()
        ledgers = [self._ledger(number) for number in range(len(self._clients))]
        stored = self.balance.add(self._entries, ledgers, journals)
        self.measure()
        self.server.read_log()
        return stored

    def _ledger(self, client: int) -> Path:
        return self.setup.directory / f"{client}.ledger"

    def _traffic(
        self,
        kinds: Mapping[str, float],
        messages: int | None,
        sessions: int | None,
        ends: int,
    ) -> None:
        count = len(self._clients)

        def share(whole: int | None, number: int) -> int | None:
            return None if whole is None else whole * (number + 1) // count - whole * number // count

        try:
            for number, client in enumerate(self._clients):
                client.tell(
                    "run",
                    window=self._number,
                    kinds=dict(kinds),
                    messages=share(messages, number),
                    sessions=share(sessions, number),
                    ledger=str(self._ledger(number)),
                )
            if ends:
                time.sleep(_IN_FULL_SWING)
                os.kill(ends, signal.SIGTERM)
            for client in self._clients:
                self._heed(client.answer())
        except ClientDied as error:
            raise StageFailed(str(error)) from None

    def _heed(self, answer: Mapping[str, Any]) -> None:
        self.sessions += answer.get("sessions", 0)
        self.cut += answer.get("cut", 0)
        self.troubles.update(answer.get("surprises", {}))

    def rest(self) -> None:
        """Wait until the server has no session left. Raises ServerAtFault when it has still."""
        deadline = time.monotonic() + _REST
        while self.board.sessions():
            if not self.server.alive:
                raise ServerAtFault("the server has ended")
            if time.monotonic() > deadline:
                raise ServerAtFault(f"{self.board.sessions()} sessions hang, {_REST:.0f} s after clients closed")
            time.sleep(0.01)
        time.sleep(_QUIET)

    def measure(self) -> dict[int, dict[str, float]]:
        """Ask every worker, and keep what they say as a window. Raises ServerAtFault when one is gone."""
        found = {}
        try:
            for slot, (_, asked) in self._gauges.items():
                found[slot] = asked.measure()
        except OSError as error:
            raise ServerAtFault(f"worker {slot}: {error}; it was replaced, or died") from None
        for slot, values in found.items():
            served = int(values.pop("accepted"))
            self.windows[slot].append(Window(served, self.balance.stored, values))
        self.master.append(Window(self.sessions, self.balance.stored, gauge.of_master(self.server.process.pid)))
        return found

    def burst(self, sessions: int) -> dict[int, tuple[float, float]]:
        """Open so many at a time, close them: each worker's USS in octets before and after."""
        before = self.measure()
        count = len(self._clients)
        for number, client in enumerate(self._clients):
            client.tell("hold", sessions=sessions * (number + 1) // count - sessions * number // count)
        held = 0
        for client in self._clients:
            answer = client.answer()
            held += answer["held"]
            self._heed(answer)
        if held < sessions:
            self.troubles[f"burst: {held} of {sessions} sessions could be opened"] += 1
        for client in self._clients:
            client.tell("release")
        for client in self._clients:
            client.answer()
        self.rest()
        after = self.measure()
        return {slot: (before[slot]["uss"], after[slot]["uss"]) for slot in after}

    def finish(self) -> None:
        """TERM: the server must end in order. Its last words are read."""
        if self._watch is not None:
            self._watch.close()
        try:
            status = self.server.stop()
            if status:
                self.troubles[f"the server ended with status {status}"] += 1
        except ServerFailed as error:
            self.troubles[str(error)] += 1
        self.server.read_log()

    def close(self) -> None:
        """End all that was started."""
        if self._watch is not None:
            self._watch.close()
        for client in self._clients:
            client.close()
        for _, asked in self._gauges.values():
            asked.close()
        self._gauges.clear()
        self.server.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
