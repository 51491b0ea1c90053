"""Runs a server as a process tree: starts it, waits for it, measures it, and ends it.

When `ServerProcess.__exit__` returns, nothing that the server has started is left, whatever happened before. Processor
time counts every process of the tree, and ended ones if their parent has waited for them. This file does not know which
server it is or what is sent to it; it reads no more SMTP than the banner.

Weaknesses: the kernel counts processor time of a process in ticks (mostly 10 ms), so a run must last. A process that
leaves both the tree and the session (a daemon by double fork and setsid) between two readings is not seen. If this
program is killed by SIGKILL, the servers live on.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from .smtpclient import context

START_TIMEOUT = 30.0  # seconds to the banner: a cold start of an interpreter on a busy machine takes a few
STOP_TIMEOUT = 15.0  # seconds after SIGTERM, then SIGKILL: more than a drain of idle sessions takes
KILL_TIMEOUT = 5.0  # seconds after SIGKILL: a process in an uninterruptible wait may outlive even that
SAMPLE_INTERVAL = 0.1  # seconds between two readings of memory, and never above 5 % of this thread's time
TAIL_LINES = 8  # of a failed server's output, as shown in the report


class Failure(Exception):
    """A server or client did not work. The text, of one line or more, is for the report."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1, below the range of ports for outgoing connections. Raises `Failure`.

    A port from bind(0) would be in that range, and could be taken before the server binds it.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = range(10_000, lowest) if lowest > 11_000 else range(1_024, 65_536)
    for port in random.sample(candidates, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failure("no free port among a hundred tried")


class Tree:
    """A process and all its descendants. They are found anew at each reading, and kept when their parent ends."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self._seen: set[psutil.Process] = {self.root}

    def members(self) -> list[psutil.Process]:
        """Return the live processes, the root first; also those that have ended and were not waited for."""
        try:
            self._seen.update(self.root.children(recursive=True))
        except psutil.NoSuchProcess:
            pass
        self._seen = {process for process in self._seen if process.is_running()}
        return sorted(self._seen, key=lambda process: (process != self.root, process.pid))

    def cpu_seconds(self) -> float:
        """Return user and system time of the tree since its start, with that of ended children that were waited for."""
        total = 0.0
        for process in self.members():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def uss(self) -> int:
        """Return the memory that belongs to this tree alone: the sum of the unique set sizes in bytes."""
        total = 0
        for process in self.members():
            try:
                total += process.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return total


class PeakMemory:
    """A context that samples `Tree.uss` in a thread. `peak` is the highest sum in bytes."""

    def __init__(self, tree: Tree) -> None:
        self.peak = 0
        self._tree = tree
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _sample(self) -> float:
        begin = time.monotonic()
        self.peak = max(self.peak, self._tree.uss())
        return time.monotonic() - begin

    def _run(self) -> None:
        cost = 0.0
        while not self._done.wait(max(SAMPLE_INTERVAL, 20 * cost)):
            cost = self._sample()

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self._sample()


class ServerProcess:
    """A running server, as a context: entered when its banner has come, left when its tree has ended.

    `command` is run in `workdir`, in a new session, with `environment` added to that of this process; its output goes
    to `server.log` there.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], workdir: Path, port: int, under_tls: bool = False
    ) -> None:
        self.command = list(command)
        self.environment = dict(environment)
        self.workdir = workdir
        self.port = port
        self.under_tls = under_tls
        self.log = workdir / "server.log"

    def __enter__(self) -> ServerProcess:
        """Start the server. Raises `Failure` if no banner comes."""
        with self.log.open("wb") as output:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    cwd=self.workdir,
                    env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failure(f"could not be started: {error}") from None
        self.tree = Tree(self._process.pid)
        try:
            self._wait_for_banner()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def failure(self, what: str) -> Failure:
        """Return a `Failure` that says `what`, how the server has ended if it has, and the last lines of its output."""
        status = self._process.poll()
        lines = [what if status is None else f"{what}; the server ended with status {status}"]
        lines += self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return Failure("\n".join(lines))

    def check(self) -> None:
        """Raise the error of `failure`, a `Failure`, if the server has ended."""
        if self._process.poll() is not None:
            raise self.failure("died")

    def _wait_for_banner(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        heard = b""
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self.failure("did not start")
            try:
                with self._connect() as probe:
                    heard = probe.recv(512)
                    if heard.startswith(b"220"):
                        probe.sendall(b"QUIT\r\n")
                        while probe.recv(512):  # to the end: a client that resets is another case
                            pass
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise self.failure(f"no banner within {START_TIMEOUT:.0f} s{f', but {heard!r}' if heard else ''}")

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=2)
        return context().wrap_socket(sock) if self.under_tls else sock

    def stop(self) -> None:
        """Send SIGTERM, and after `STOP_TIMEOUT` SIGKILL to what is left of the tree or the session."""
        known = set(self.tree.members())
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                pass
        known |= {process for process in psutil.process_iter() if self._in_session(process.pid)}
        left = [process for process in known if _lives(process)]
        for process in left:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                pass
        self._process.wait()
        deadline = time.monotonic() + KILL_TIMEOUT
        while any(map(_lives, left)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _in_session(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self._process.pid
        except (ProcessLookupError, PermissionError):
            return False


def _lives(process: psutil.Process) -> bool:
    """Return whether a process has not ended. One that its parent has not waited for has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
