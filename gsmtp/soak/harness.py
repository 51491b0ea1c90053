"""The server, its clients and its instruments together: one window of traffic after the other.

When `run_window` returns, all sessions are closed, each message is accounted for, and every worker was measured at
rest. What goes wrong in a window is counted in `problems` and not raised, so that a run goes on to its verdict; only
what makes it impossible to go on is raised. This file does not know how many windows there are or what they prove.
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

from gsmtp.soak import accounts
from gsmtp.soak.client import ClientDied, ClientProcess
from gsmtp.soak.conversations import NEED_TLS
from gsmtp.soak.deliveries import DeliveryCounts
from gsmtp.soak.mail import Mail, write_mails
from gsmtp.soak.mailer import Target
from gsmtp.soak.plot import Sample
from gsmtp.soak.probe import Probe, measure_master
from gsmtp.soak.sampler import Sampler, ScoreboardReader
from gsmtp.soak.server import Server, ServerFailed
from gsmtp.soak.verdict import Window

# Seconds after the clients have closed until all sessions must have ended. The server lingers for one second.
_IDLE_TIMEOUT = 30.0
# The log is written 50 ms after an event, by a greenlet that must have ended before greenlets are counted.
_SETTLE = 0.12
_WARM_START = 0.1  # seconds after which clients are at work
OWN_HANDLER = "gsmtp.soak.handler:Inbox"


@dataclass(frozen=True)
class HarnessConfig:
    """What is run.

    `directory` must be empty; the caller removes it. `handler` has the class under test as "class", and its options.
    `clients` is the number of processes, `threads` the number of sessions at a time in each. `tls` is "never",
    "mixed" or "always". `timeout` limits each read and write of a client, in seconds. `settings` are further
    settings of the server.
    """

    directory: Path
    mails: Iterable[Mail]
    handler: Mapping[str, Any] = field(default_factory=lambda: {"class": OWN_HANDLER})
    workers: int = 2
    clients: int = 4
    threads: int = 6
    tls: str = "mixed"
    seed: int = 0
    sender: str = accounts.SENDER
    recipient: str = accounts.RECIPIENT
    timeout: float = 60.0
    settings: Mapping[str, Any] = field(default_factory=dict)


class HarnessError(Exception):
    """The run cannot be started, or cannot go on, for a reason that is not the server's."""


class ServerFault(Exception):
    """The run cannot go on because of what the server did."""


class Harness:
    """A running server and its clients; a context manager.

    `deliveries` counts messages, and `problems` counts by its text what went wrong. `windows` has each worker's
    windows by its slot, and `master_windows` those of the master.
    """

    def __init__(
        self, config: HarnessConfig, on_sample: Callable[[Sample, int], None] = lambda sample, sessions: None
    ) -> None:
        """Start everything. `on_sample` is called twice a second from another thread, see Sampler.

        Raises HarnessError.
        """
        self.config = config
        self.deliveries = DeliveryCounts()
        self.problems: Counter[str] = Counter()
        self.sessions = 0
        self.windows: dict[int, list[Window]] = {}
        self.master_windows: list[Window] = []
        self._number = 0
        self._clients: list[ClientProcess] = []
        self._probes: dict[int, tuple[int, Probe]] = {}  # by slot, with the worker's pid
        self._sampler: Sampler | None = None
        mails = config.directory / "mails"
        self._entries = write_mails(mails, config.mails)
        if not self._entries:
            raise HarnessError("there is no mail to replay")
        try:
            self.server = Server(
                config.directory, config.handler, config.workers, config.tls != "never", config.settings
            )
        except ServerFailed as error:
            raise HarnessError(str(error)) from None
        try:
            self._start(mails, on_sample)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | ClientDied):
                raise HarnessError(str(error)) from error
            raise

    def _start(self, mails: Path, on_sample: Callable[[Sample, int], None]) -> None:
        config, addresses = self.config, self.server.addresses
        target = Target(
            addresses["smtp"], addresses.get("smtps"), config.tls, config.sender, config.recipient, config.timeout
        )
        self.scoreboard = ScoreboardReader(self.server.process.pid)
        for number in range(config.clients):
            self._clients.append(ClientProcess(number, target, mails, config.threads, config.seed))
        self.refresh_workers()
        self._sampler = Sampler(self.server.process.pid, self.scoreboard, on_sample)

    @property
    def samples(self) -> list[Sample]:
        """The samples that the sampler has kept."""
        return self._sampler.samples if self._sampler is not None else []

    @property
    def mails(self) -> int:
        """The number of different mails."""
        return len(self._entries)

    @property
    def largest_mail(self) -> int:
        """The size of the largest mail's content in octets."""
        return max(entry.size for entry in self._entries)

    def wait_replaced(self, pid: int) -> None:
        """Wait until a worker that was told to end is gone and another serves in its place. Raises ServerFault."""
        deadline = time.monotonic() + _IDLE_TIMEOUT
        while True:
            self.refresh_workers()
            if len(self._probes) == self.config.workers and pid not in {pid for pid, _ in self._probes.values()}:
                return
            if not self.server.alive or time.monotonic() > deadline:
                raise ServerFault(f"worker with pid {pid} was not replaced")
            time.sleep(0.02)

    def refresh_workers(self) -> None:
        """Find out which workers there are, and drop the windows of those that are gone. Raises OSError."""
        paths, slots = self.server.probe_paths(), {row.pid: row.slot for row in self.scoreboard.workers()}
        for slot, (pid, probe) in list(self._probes.items()):
            if pid not in paths:
                probe.close()
                del self._probes[slot]
        for pid, path in paths.items():
            if pid in slots and slots[pid] not in self._probes:
                self._probes[slots[pid]] = pid, Probe(path)
                self.windows[slots[pid]] = []

    def run_window(
        self,
        kinds: Mapping[str, float],
        messages: int | None = None,
        sessions: int | None = None,
        terminate: int = 0,
    ) -> int:
        """Run a window, and return how many messages were stored in it.

        `kinds` are the conversations and their weights; they go on until the number of `messages` or `sessions` is
        reached. `terminate` is the pid of a worker that is sent SIGTERM while clients are at work. Then all sessions
        end, and the workers are measured. Raises HarnessError, ServerFault.
        """
        self._number += 1
        if self.config.tls == "never":
            kinds = {kind: weight for kind, weight in kinds.items() if kind not in NEED_TLS}
        self._run_clients(kinds, messages, sessions, terminate)
        self.wait_idle()
        if terminate:
            self.wait_replaced(terminate)
        result_files = [self._result_file(number) for number in range(len(self._clients))]
        stored = self.deliveries.add_window(self._entries, result_files, self.server.accepted_logs())
        self.measure()
        self.server.read_log()
        return stored

    def _result_file(self, client: int) -> Path:
        return self.config.directory / f"{client}.results"

    def _run_clients(
        self,
        kinds: Mapping[str, float],
        messages: int | None,
        sessions: int | None,
        terminate: int,
    ) -> None:
        try:
            for number, client in enumerate(self._clients):
                client.send(
                    "run",
                    window=self._number,
                    kinds=dict(kinds),
                    messages=None if messages is None else self._share(messages, number),
                    sessions=None if sessions is None else self._share(sessions, number),
                    result_file=str(self._result_file(number)),
                )
            if terminate:
                time.sleep(_WARM_START)
                os.kill(terminate, signal.SIGTERM)
            for client in self._clients:
                result = client.wait()
                self.sessions += result["sessions"]
                self.problems.update(result["problems"])
        except ClientDied as error:
            raise HarnessError(str(error)) from None

    def _share(self, whole: int, client: int) -> int:
        """Return one client's share of a number; all shares add up to it."""
        count = len(self._clients)
        return whole * (client + 1) // count - whole * client // count

    def wait_idle(self) -> None:
        """Wait until the server has no session. Raises ServerFault when some do not end."""
        deadline = time.monotonic() + _IDLE_TIMEOUT
        while self.scoreboard.sessions():
            if not self.server.alive:
                raise ServerFault("the server has ended")
            if time.monotonic() > deadline:
                raise ServerFault(
                    f"{self.scoreboard.sessions()} sessions hang, {_IDLE_TIMEOUT:.0f} s after clients closed"
                )
            time.sleep(0.01)
        time.sleep(_SETTLE)

    def measure(self) -> dict[int, dict[str, float]]:
        """Measure every worker and the master, append a window for each, and return the workers' values by slot.

        Raises ServerFault when a worker is gone.
        """
        measured = {}
        try:
            for slot, (_, probe) in self._probes.items():
                measured[slot] = probe.measure()
        except OSError as error:
            raise ServerFault(f"worker {slot}: {error}; it was replaced, or died") from None
        stored = self.deliveries.stored
        for slot, values in measured.items():
            accepted = int(values.pop("accepted"))
            self.windows[slot].append(Window(accepted, stored, values))
        self.master_windows.append(Window(self.sessions, stored, measure_master(self.server.process.pid)))
        return measured

    def burst(self, sessions: int) -> dict[int, tuple[float, float]]:
        """Open that many sessions at a time and close them; return each worker's USS in octets before and after.

        Raises ClientDied, ServerFault.
        """
        before = self.measure()
        for number, client in enumerate(self._clients):
            client.send("hold", sessions=self._share(sessions, number))
        held = 0
        for client in self._clients:
            result = client.wait()
            held += result["held"]
            self.problems.update(result["problems"])
        if held < sessions:
            self.problems[f"burst: {held} of {sessions} sessions could be opened"] += 1
        for client in self._clients:
            client.send("release")
        for client in self._clients:
            client.wait()
        self.wait_idle()
        after = self.measure()
        return {slot: (before[slot]["uss"], after[slot]["uss"]) for slot in after}

    def stop_server(self) -> None:
        """Send the server SIGTERM, wait until it has ended, and read the rest of its log."""
        if self._sampler is not None:
            self._sampler.close()
        try:
            status = self.server.stop()
            if status:
                self.problems[f"the server ended with status {status}"] += 1
        except ServerFailed as error:
            self.problems[str(error)] += 1
        self.server.read_log()

    def close(self) -> None:
        """End all processes and threads that were started."""
        if self._sampler is not None:
            self._sampler.close()
        for client in self._clients:
            client.close()
        for _, probe in self._probes.values():
            probe.close()
        self._probes.clear()
        self.server.close()

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
