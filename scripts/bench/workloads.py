"""What is done to a server, and what is measured meanwhile: the table `WORKLOADS`.

In a measurement every message is accepted (and, where that is measured, on disk), or `Failure` is raised. Figures are
floats by name; a workload's `columns` say which are shown, and how. This file knows no server by name, except the
baseline of a table.

Weaknesses: smtp-source is one thread, sends HELO, not EHLO, and does not pipeline; where its own processor time is near
100 % of a core, messages/s are its limit and not the server's. Processor time per message does not suffer from that.
The client in smtpclient.py takes more time than the servers; it runs in a handful of processes.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from . import smtpclient
from .processes import Failure, PeakMemory, ServerProcess
from .servers import Server

IDLE_BATCH = 200  # connections opened before the first banner is read: a server may wait before it speaks
IDLE_WARM_UP = 20  # sessions opened and closed before the first reading: code and pools are not counted per session
SETTLE = 0.3  # seconds for a server to come to rest before a reading
# On loopback the segment size is 64 KB, and Postfix makes buffers twice as large as a segment: 257
# KiB a session where a real network has them at 13. So idle clients ask for segments as on an Ethernet.
IDLE_SEGMENT = 1400
SPARE_FILES = 200  # descriptors beside the sessions


@dataclass(frozen=True)
class Column:
    """A figure in the table, with `digits` after the point; with `ratio` also as a multiple of the baseline's."""

    figure: str
    heading: str
    digits: int = 0
    ratio: bool = False


@dataclass(frozen=True)
class RunLength:
    """How much to do: about `seconds` per run, or `messages` of 4 KB if not None; `idle` sessions to hold.

    `client` is put before the client's command line, as for `taskset`.
    """

    seconds: float
    messages: int | None
    idle: int
    client: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """One row of the table. `kind` selects the entries that take part; `fresh` restarts the server for each round."""

    name: str
    title: str
    kind: str
    baseline: str
    columns: ClassVar[tuple[Column, ...]]
    fresh: ClassVar[bool] = False

    def describe(self, length: RunLength) -> str:
        return self.title

    def prepare(self, length: RunLength) -> None:
        """Prepare the machine before any server starts. Raises `Failure` if it does not allow this workload."""

    def warm_up(self, server: Server, running: ServerProcess, length: RunLength) -> int:
        """Warm the server up, and return the `count` for `measure`.

        Raises `Failure`, and NotImplementedError in this class.
        """
        raise NotImplementedError

    def measure(self, server: Server, running: ServerProcess, length: RunLength, count: int) -> Mapping[str, float]:
        """Return the figures of one run. Raises `Failure`, and NotImplementedError in this class."""
        raise NotImplementedError


@dataclass(frozen=True)
class Delivery(Workload):
    """smtp-source sends messages of `size` bytes over `sessions` at a time, one each or, if `kept`, many."""

    sessions: int
    size: int
    kept: bool
    columns: ClassVar[tuple[Column, ...]] = (
        Column("rate", "msg/s", 0, ratio=True),
        Column("cpu_us", "us/msg", 1, ratio=True),
        Column("peak_mib", "MiB", 1),
        Column("client_busy", "client%", 0),
    )

    def warm_up(self, server: Server, running: ServerProcess, length: RunLength) -> int:
        if length.messages is not None:
            count = max(self.sessions, length.messages * 4096 // (self.size or 4096))
            self._send(server, running, length, max(self.sessions, count // 5))
            return count
        count = self.sessions
        while True:
            wall, _ = self._send(server, running, length, count)
            if wall >= length.seconds / 3:
                return max(self.sessions, int(count * length.seconds / wall))
            # What a short run takes is mostly start-up, so its rate is not to be trusted far.
            count = int(count * min(10.0, length.seconds / 2 / wall))

    def measure(self, server: Server, running: ServerProcess, length: RunLength, count: int) -> Mapping[str, float]:
        stored = server.stored(running.workdir)
        with PeakMemory(running.tree) as memory:
            cpu = running.tree.cpu_seconds()
            wall, client = self._send(server, running, length, count)
        time.sleep(SETTLE)  # what is done after the last reply belongs to the messages
        cpu = running.tree.cpu_seconds() - cpu
        running.check()
        if stored is not None and (now := server.stored(running.workdir)) != stored + count:
            raise running.failure(f"{count} messages acknowledged, {(now or 0) - stored} stored")
        return {
            "rate": count / wall,
            "cpu_us": cpu / count * 1e6,
            "peak_mib": memory.peak / 2**20,
            "client_busy": client / wall * 100,
            "messages": count,
        }

    def _send(self, server: Server, running: ServerProcess, length: RunLength, count: int) -> tuple[float, float]:
        """Return the seconds of the run, and of the client's processor time. Without -A it stops at a refusal."""
        addresses = ["-M", "localhost", "-f", "sender@example.com", "-t", "recipient@example.com"]
        amount = ["-s", str(self.sessions), "-m", str(count), "-l", str(self.size)]
        command = [
            "smtp-source",
            *(["-d"] if self.kept else []),
            *amount,
            *addresses,
            f"127.0.0.1:{running.port}",
        ]
        before, begin = _children_cpu(), time.monotonic()
        _run_client("smtp-source", command, running, length)
        wall = time.monotonic() - begin
        return wall, _children_cpu() - before


@dataclass(frozen=True)
class OwnClient(Delivery):
    """smtpclient.py sends the messages from several `processes`, with TLS where the server has it."""

    processes: int

    def _send(self, server: Server, running: ServerProcess, length: RunLength, count: int) -> tuple[float, float]:
        amount = {"count": count, "size": self.size, "sessions": self.sessions, "processes": self.processes}
        options = [word for name, value in amount.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, smtpclient.__file__, str(running.port), "--tls", server.tls, *options]
        used = json.loads(_run_client("smtpclient", command, running, length))
        return used["wall"], used["cpu"]


@dataclass(frozen=True)
class Handshakes(OwnClient):
    """Sessions without a message, `sessions` at a time: EHLO under TLS and QUIT."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("rate", "handshakes/s", 0, ratio=True),
        Column("cpu_us", "us/handshake", 1, ratio=True),
        Column("client_busy", "client%", 0),
    )


@dataclass(frozen=True)
class Idle(Workload):
    """Sessions that wait after EHLO. Memory of the kernel (socket buffers) is not in the figures."""

    columns: ClassVar = (
        Column("kib_per_session", "KiB/session", 2, ratio=True),
        Column("base_mib", "MiB before", 1),
        Column("cpu_us", "us/session", 1),
        Column("rate", "opened/s", 0),
    )
    fresh: ClassVar = True

    def prepare(self, length: RunLength) -> None:
        raise_file_limit(length.idle + SPARE_FILES)

    def describe(self, length: RunLength) -> str:
        return f"{length.idle} {self.title}"

    def warm_up(self, server: Server, running: ServerProcess, length: RunLength) -> int:
        with _Sessions(running) as sessions:
            sessions.open(IDLE_WARM_UP)
        return length.idle

    def measure(self, server: Server, running: ServerProcess, length: RunLength, count: int) -> Mapping[str, float]:
        time.sleep(SETTLE)
        before, cpu = running.tree.uss(), running.tree.cpu_seconds()
        with _Sessions(running) as sessions:
            begin = time.monotonic()
            sessions.open(count)
            wall = time.monotonic() - begin
            time.sleep(SETTLE)
            after, cpu = running.tree.uss(), running.tree.cpu_seconds() - cpu
            sessions.check()
        running.check()
        return {
            "kib_per_session": (after - before) / 1024 / count,
            "base_mib": before / 2**20,
            "cpu_us": cpu / count * 1e6,
            "rate": count / wall,
            "sessions": count,
        }


class _Sessions:
    """Client connections, which are all closed when the context ends."""

    def __init__(self, running: ServerProcess) -> None:
        self._running = running
        self._held: list[socket.socket] = []

    def __enter__(self) -> _Sessions:
        return self

    def __exit__(self, *exc: object) -> None:
        for connection in self._held:
            connection.close()

    def open(self, count: int) -> None:
        """Open the missing ones of `count` sessions. Raises `Failure` at any refusal."""
        try:
            while (missing := count - len(self._held)) > 0:
                batch = []
                for _ in range(min(missing, IDLE_BATCH)):
                    connection = socket.socket()
                    self._held.append(connection)
                    batch.append(connection)
                    connection.settimeout(30)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, IDLE_SEGMENT)
                    connection.connect(("127.0.0.1", self._running.port))
                for connection in batch:
                    self._expect(connection, b"220")
                for connection in batch:
                    connection.sendall(b"EHLO [127.0.0.1]\r\n")
                for connection in batch:
                    self._expect(connection, b"250")
        except OSError as error:
            raise self._running.failure(f"session {len(self._held)} of {count}: {error}") from None

    def check(self) -> None:
        """Raise `Failure` if the server has closed a session or sent something on it."""
        for connection in self._held:
            connection.setblocking(False)
            try:
                received = connection.recv(512)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._running.failure(f"an idle session was lost: {error}") from None
            raise self._running.failure(f"an idle session was not left alone: {received!r}")

    def _expect(self, connection: socket.socket, code: bytes) -> None:
        try:
            smtpclient.expect(connection, code)
        except smtpclient.UnexpectedReply as error:
            raise self._running.failure(f"session {len(self._held)}: {error}") from None


def raise_file_limit(needed: int) -> None:
    """Raise the soft limit of open files to `needed`, for this process and its children.

    Raises `Failure` if the hard limit is below.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failure(f"needs {needed} open files, above the hard limit of {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _run_client(name: str, command: Sequence[str], running: ServerProcess, length: RunLength) -> str:
    """Return the output of a client. Raises `Failure` when it fails, or takes far longer than it should."""
    command = [*length.client, *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 20 * length.seconds)
    except subprocess.TimeoutExpired as slow:
        raise running.failure(f"{name} has not ended within {slow.timeout:.0f} s") from None
    # Some of smtp-source's complaints leave the exit status at 0.
    if done.returncode != 0 or done.stderr.strip():
        said = " / ".join(done.stderr.split("\n")[-3:]).strip(" /")
        raise running.failure(f"{name} (status {done.returncode}): {said}")
    return done.stdout


def _children_cpu() -> float:
    """Return the processor seconds of children that were waited for: exact, not in ticks, and the client's alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


WORKLOADS: tuple[Workload, ...] = (
    # First: servers that spool large messages to files free inodes, and see `rounds`.
    Delivery(
        "maildir",
        "4 KB messages, synced to disk, 20 kept connections",
        "store",
        "fsync-loop",
        20,
        4096,
        kept=True,
    ),
    Delivery(
        "kept",
        "4 KB messages, 10 kept connections",
        "discard",
        "smtp-sink",
        sessions=10,
        size=4096,
        kept=True,
    ),
    # 50 sessions, so that a server that waits before its banner takes enough for the clock's resolution.
    Delivery(
        "new",
        "4 KB messages, each on a new connection, 50 at once",
        "discard",
        "smtp-sink",
        50,
        4096,
        kept=False,
    ),
    Delivery(
        "1mb",
        "messages of 1,000,000 bytes, 10 kept connections",
        "discard",
        "smtp-sink",
        10,
        1_000_000,
        kept=True,
    ),
    Idle("idle", "idle sessions after EHLO", "discard", "smtp-sink"),
    Handshakes(
        "tls",
        "TLS 1.3 handshakes on new connections, ECDSA P-256, EHLO and QUIT",
        "tls",
        "gevent-ssl",
        sessions=4,
        size=0,
        kept=False,
        processes=4,
    ),
    Handshakes(
        "starttls",
        "the same after EHLO and STARTTLS",
        "starttls",
        "gevent-ssl-starttls",
        sessions=4,
        size=0,
        kept=False,
        processes=4,
    ),
    OwnClient(
        "tls-kept",
        "4 KB messages, 10 kept connections, TLS and plain by the same client",
        "tls-kept",
        "gsmtp",
        sessions=10,
        size=4096,
        kept=True,
        processes=2,
    ),
)
