"""What is done to a server, and what is read off meanwhile: the table `WORKLOADS`.

Promises: a measurement either is one, every message accepted (and, where that is the point, on disk), or it
raises `Failure`. Figures are floats by name; a workload's `columns` say which are shown, and how.
Must not know: any server by name, save the baseline that a table is held against.
Weak: smtp-source is one thread, says HELO, not EHLO, and does not pipeline; where its own processor time is
near 100 % of a core, messages/s are its limit and not the server's. Processor time per message does not
suffer from that. Our own client under TLS takes more time than the servers; there is a handful of processes of it.
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

from . import tlsclient
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
    """A figure in the table: `digits` after the point; with `ratio` also as a multiple of the baseline's."""

    figure: str
    heading: str
    digits: int = 0
    ratio: bool = False


@dataclass(frozen=True)
class Effort:
    """How much to do: about `seconds` a run, or just `messages` of 4 KB if not None; `idle` sessions held.

    `client` is put before the client's command line, as `taskset` would be.
    """

    seconds: float
    messages: int | None
    idle: int
    client: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """`kind` chooses the entries that take part; `fresh` starts the server anew for each round."""

    name: str
    title: str
    kind: str
    baseline: str
    columns: ClassVar[tuple[Column, ...]]
    fresh: ClassVar[bool] = False

    def describe(self, effort: Effort) -> str:
        return self.title

    def prepare(self, effort: Effort) -> None:
        """Before any server starts. Raises `Failure` if the machine does not allow this workload."""

    def warm_up(self, server: Server, running: ServerProcess, effort: Effort) -> int:
        """Make the server ready to be measured; what to hand to `measure` as `count`."""
        raise NotImplementedError

    def measure(self, server: Server, running: ServerProcess, effort: Effort, count: int) -> Mapping[str, float]:
        raise NotImplementedError


@dataclass(frozen=True)
class Delivery(Workload):
    """smtp-source sends messages of `size` bytes over `sessions` at once, one each or, if `kept`, many."""

    sessions: int
    size: int
    kept: bool
    columns: ClassVar[tuple[Column, ...]] = (
        Column("rate", "msg/s", 0, ratio=True),
        Column("cpu_us", "us/msg", 1, ratio=True),
        Column("peak_mib", "MiB", 1),
        Column("client_busy", "client%", 0),
    )

    def warm_up(self, server: Server, running: ServerProcess, effort: Effort) -> int:
        if effort.messages is not None:
            count = max(self.sessions, effort.messages * 4096 // (self.size or 4096))
            self._send(server, running, effort, max(self.sessions, count // 5))
            return count
        count = self.sessions
        while True:
            wall, _ = self._send(server, running, effort, count)
            if wall >= effort.seconds / 3:
                return max(self.sessions, int(count * effort.seconds / wall))
            # What a short run takes is mostly start-up, so its rate is not to be trusted far.
            count = int(count * min(10.0, effort.seconds / 2 / wall))

    def measure(self, server: Server, running: ServerProcess, effort: Effort, count: int) -> Mapping[str, float]:
        stored = server.stored(running.workdir)
        with PeakMemory(running.tree) as memory:
            cpu = running.tree.cpu_seconds()
            wall, client = self._send(server, running, effort, count)
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

    def _send(self, server: Server, running: ServerProcess, effort: Effort, count: int) -> tuple[float, float]:
        """Seconds that it took, and of processor time of the client. Without -A it stops at a refusal."""
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
        _run_client("smtp-source", command, running, effort)
        wall = time.monotonic() - begin
        return wall, _children_cpu() - before


@dataclass(frozen=True)
class OwnClient(Delivery):
    """The same dialogue by bench/tlsclient.py in several `processes`, with TLS where the server has it."""

    processes: int

    def _send(self, server: Server, running: ServerProcess, effort: Effort, count: int) -> tuple[float, float]:
        amount = {"count": count, "size": self.size, "sessions": self.sessions, "processes": self.processes}
        options = [word for name, value in amount.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, tlsclient.__file__, str(running.port), "--tls", server.tls, *options]
        used = json.loads(_run_client("tlsclient", command, running, effort))
        return used["wall"], used["cpu"]


@dataclass(frozen=True)
class Handshakes(OwnClient):
    """Sessions without a message, `sessions` at once: the client says EHLO under TLS and QUIT, no more."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("rate", "handshakes/s", 0, ratio=True),
        Column("cpu_us", "us/handshake", 1, ratio=True),
        Column("client_busy", "client%", 0),
    )


@dataclass(frozen=True)
class Idle(Workload):
    """Sessions that said EHLO and wait. Memory of the kernel (socket buffers) is not in the figures."""

    columns: ClassVar = (
        Column("kib_per_session", "KiB/session", 2, ratio=True),
        Column("base_mib", "MiB before", 1),
        Column("cpu_us", "us/session", 1),
        Column("rate", "opened/s", 0),
    )
    fresh: ClassVar = True

    def prepare(self, effort: Effort) -> None:
        raise_file_limit(effort.idle + SPARE_FILES)

    def describe(self, effort: Effort) -> str:
        return f"{effort.idle} {self.title}"

    def warm_up(self, server: Server, running: ServerProcess, effort: Effort) -> int:
        with _Sessions(running) as sessions:
            sessions.open(IDLE_WARM_UP)
        return effort.idle

    def measure(self, server: Server, running: ServerProcess, effort: Effort, count: int) -> Mapping[str, float]:
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
    """Client connections, all closed when the context ends."""

    def __init__(self, running: ServerProcess) -> None:
        self._running = running
        self._held: list[socket.socket] = []

    def __enter__(self) -> _Sessions:
        return self

    def __exit__(self, *exc: object) -> None:
        for connection in self._held:
            connection.close()

    def open(self, count: int) -> None:
        """Connect, banner, EHLO, reply, for each; raises `Failure` at any refusal."""
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
        """Raises `Failure` if the server has closed or said anything on a session meanwhile."""
        for connection in self._held:
            connection.setblocking(False)
            try:
                heard = connection.recv(512)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._running.failure(f"an idle session was lost: {error}") from None
            raise self._running.failure(f"an idle session was not left alone: {heard!r}")

    def _expect(self, connection: socket.socket, code: bytes) -> None:
        """Read one reply. RFC 5321 4.2: the last line has a space after the code, others a hyphen."""
        heard = b""
        while True:
            data = connection.recv(4096)
            heard += data
            *_, last = heard.removesuffix(b"\r\n").rsplit(b"\r\n", 1)
            if heard.endswith(b"\r\n") and last[3:4] in (b" ", b""):
                if last.startswith(code):
                    return
                raise self._running.failure(f"session {len(self._held)}: {last!r}")
            if not data:
                raise self._running.failure(f"session {len(self._held)} was closed after {heard!r}")


def raise_file_limit(needed: int) -> None:
    """Raise the soft limit of open files to `needed`, for us and for servers started later.

    Raises `Failure` if the hard limit is below.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failure(f"needs {needed} open files, above the hard limit of {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _run_client(name: str, command: Sequence[str], running: ServerProcess, effort: Effort) -> str:
    """What it printed. Raises `Failure` when it complains, or takes far longer than it should."""
    command = [*effort.client, *command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 20 * effort.seconds)
    except subprocess.TimeoutExpired as slow:
        raise running.failure(f"{name} has not ended within {slow.timeout:.0f} s") from None
    # Some of smtp-source's complaints leave the exit status at 0.
    if done.returncode != 0 or done.stderr.strip():
        said = " / ".join(done.stderr.split("\n")[-3:]).strip(" /")
        raise running.failure(f"{name} (status {done.returncode}): {said}")
    return done.stdout


def _children_cpu() -> float:
    """Processor seconds of children that were waited for: exact, not in ticks, and of the client alone."""
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
