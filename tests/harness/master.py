"""Starts gsmtp-master in processes of its own, and ends it.

It promises that nothing of a master outlives its test: the processes share a session (setsid), by which those that
are left are found and killed, and the test that left them fails. It must not know gsmtp's insides: where the server
listens and which workers serve is read from the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from gsmtp_workers.scoreboard import Scoreboard

from harness.client import Client
from harness.waiting import TIMEOUT, wait_for

ROOT = Path(__file__).parent.parent.parent
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "workers")])
_LISTENING = re.compile(r'listening on ([^"\s]+) \(([^)]+)\)')
_READY = re.compile(r"worker (\d+) \(pid (\d+)\) ready")


def command(*arguments: str) -> list[str]:
    """Return the command line of gsmtp-master with these arguments."""
    return [sys.executable, "-m", "gsmtp.cli", *arguments]


def environment() -> dict[str, str]:
    """Return the environment of a user who has this checkout in PYTHONPATH."""
    return {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1"}


def run(*arguments: str, directory: Path, timeout: float = TIMEOUT, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run gsmtp-master in `directory` until it ends by itself. `more` goes to subprocess.run.

    Raises subprocess.TimeoutExpired.
    """
    options = {"cwd": directory, "env": environment(), "capture_output": True, "text": True, "check": False, **more}
    return subprocess.run(command(*arguments), timeout=timeout, **options)


def _before_exec(more: Callable[[], object] | None) -> Callable[[], None]:
    def before_exec() -> None:
        # A shell starts background jobs with SIGINT ignored, and the master leaves it so.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if more is not None:
            more()

    return before_exec


def scoreboard_of(pid: int) -> Path:
    """Return the path at which any process can open the scoreboard of a master."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    return next(link for link in links if os.readlink(link).startswith("/memfd:scoreboard"))


class Master:
    """A gsmtp-master that runs. A context manager that waits for the workers, and ends the master.

    `directory` is its current directory, where it finds handlers.
    """

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str],
        workers: int = 1,
        preexec: Callable[[], object] | None = None,
    ) -> None:
        """Start it with these arguments and so many workers. `preexec` is called in the new process."""
        self.directory = directory
        self.output = directory / "output"
        self.log_path = self.output
        if "--log-file" in arguments:
            self.log_path = directory / arguments[arguments.index("--log-file") + 1]
            self.log_path.touch()
        self.wanted = workers
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                command(*arguments, "-w", str(workers)),
                cwd=directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_before_exec(preexec),
            )

    def scoreboard(self) -> Scoreboard:
        """Return the master's scoreboard, to read: `totals()["messages"]`."""
        return Scoreboard.open(scoreboard_of(self.process.pid))

    def __enter__(self) -> Master:
        try:
            return self.until_ready()
        except BaseException:
            with contextlib.suppress(AssertionError):
                self.clean_up()
            raise

    def __exit__(self, *_: object) -> None:
        self.clean_up()

    @property
    def log(self) -> str:
        """All that the server has logged so far."""
        return self.log_path.read_text(errors="surrogateescape")

    @property
    def lines(self) -> list[str]:
        """The whole lines of the log."""
        return self.log.split("\n")[:-1]

    def records(self) -> list[dict[str, Any]]:
        """Return the records of a log in JSON."""
        return [json.loads(line) for line in self.lines]

    def until_ready(self) -> Master:
        """Wait until all workers serve. Raises AssertionError, with the log, when they do not or the master ends."""
        try:
            wait_for(lambda: self.process.poll() is not None or len(self.workers()) >= self.wanted)
        except AssertionError:
            raise AssertionError(f"waited in vain for workers\n{self.log}") from None
        assert self.process.poll() is None, self.log
        return self

    def workers(self) -> dict[int, int]:
        """Return the pid of each slot whose worker is ready and has not ended."""
        latest = {int(slot): int(pid) for slot, pid in _READY.findall(self.log)}
        alive = self.pids()
        return {slot: pid for slot, pid in latest.items() if pid in alive}

    def pids(self) -> set[int]:
        """Return the pids of the workers that have not ended."""
        return {process.pid for process in _session(self.process.pid)} - {self.process.pid}

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each listener by its `bind`, as it was given."""
        return dict(_LISTENING.findall(self.log))

    @property
    def address(self) -> str:
        """The address of the first listener."""
        return self.all_addresses[0]

    @property
    def all_addresses(self) -> list[str]:
        """The address of each listener, in the order of the settings, for listeners that share a `bind`."""
        return [address for _, address in _LISTENING.findall(self.log)]

    def connect(self, address: str = "", ehlo: bool = True, tls: ssl.SSLContext | None = None) -> Client:
        """Return a client of this address, or of the first listener. With `tls`, TLS begins at once.

        It has sent EHLO if `ehlo`. Raises OSError.
        """
        client = Client(address or self.address, tls=tls)
        if ehlo:
            assert client.banner.startswith("220 ")
            assert client.ask("EHLO client.example").startswith("250")
        return client

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        """Wait until `pattern` matches in the log, and return the first match. Raises AssertionError."""
        return wait_for(lambda: re.search(pattern, self.log), what=f"{pattern!r} in the log")

    def send_signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end of the master, and return its exit status. Raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def stop(self, number: int = signal.SIGTERM, timeout: float = TIMEOUT) -> int:
        """Send a signal to the master, and wait for its end. Raises subprocess.TimeoutExpired."""
        self.send_signal(number)
        return self.wait(timeout)

    def clean_up(self) -> None:
        """End the master. Raises AssertionError when TERM does not end it, or when a process of it is left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.poll() is None:
                self.stop(signal.SIGTERM, 5)
        if stubborn := self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(AssertionError):  # a worker whose master was killed needs a moment
            wait_for(lambda: not _session(self.process.pid), 5)
        left = _session(self.process.pid)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        assert not left, f"left over: {left}\n{self.log}"
        assert not stubborn, f"TERM did not end the master\n{self.log}"


def _session(leader: int) -> list[psutil.Process]:
    """Return the processes of a session that are no zombies."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found
