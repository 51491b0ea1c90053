"""Real masters and real clients, for the tests of `workers`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from gsmtp_workers import Column, Kind, Listener, Plan, Role
from harness.waiting import TIMEOUT, wait_for

HERE = Path(__file__).parent
FAREWELL = b"farewell\n"
BUSY = b"busy\n"


COUNTERS = (Column("greeted", Kind.COUNTER, "clients greeted"), Column("open", Kind.GAUGE, "clients at present"))


def plan(
    factory: str = "lineservice:make",
    argument: dict[str, Any] | None = None,
    listeners: Sequence[Listener] | None = None,
    workers: int = 2,
    roles: Sequence[Role] = (),
    **options: Any,
) -> Plan:
    """A plan with two workers on a free port of 127.0.0.1, and further roles."""
    if listeners is None:
        listeners = (Listener("line", "127.0.0.1", farewell=FAREWELL, busy=BUSY),)
    options = {"chdir": str(HERE), "counters": COUNTERS, **options}
    return Plan((Role(factory, argument or {}, tuple(listeners), workers), *roles), **options)


class Client:
    """A connection that has been greeted by a worker: `slot` and `pid` say by which."""

    def __init__(self, address: str) -> None:
        if address.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT)
            self.socket.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT)
        self.file = self.socket.makefile("rb")
        self.greeting: bytes = self.file.readline()
        if self.greeting.startswith(b"hello"):
            self.slot, self.pid = (int(word) for word in self.greeting.split()[1:])

    def ask(self, command: str) -> str:
        self.socket.sendall(command.encode() + b"\n")
        return self.file.readline().decode().strip()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def heed_sigint() -> None:
    """A shell starts background jobs with SIGINT ignored, and the master leaves it so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Running:
    """A master in a process of its own, with its log."""

    def __init__(self, plan: Plan, directory: Path, *arguments: str, **popen: Any) -> None:
        self.plan = plan
        self.log_path = directory / f"log{len(list(directory.iterdir()))}"
        with self.log_path.open("wb") as log:
            options = {"stdout": subprocess.PIPE, "stderr": log, "preexec_fn": heed_sigint, **popen}
            command = [sys.executable, str(HERE / "runmaster.py"), plan.to_json(), *arguments]
            self.process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)
        self.addresses: list[str] = []

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def address(self) -> str:
        return self.addresses[0]

    def until_ready(self, workers: int | None = None) -> Running:
        """Wait for the first worker of each role, and then for as many as the plan wants."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        self.addresses = json.loads(line)
        wanted = sum(role.processes for role in self.plan.roles) if workers is None else workers
        wait_for(lambda: self.log.count(" ready after") >= wanted)
        return self

    def settled(self) -> Running:
        """`until_ready`, and every worker has seen every other worker's heartbeat."""
        self.until_ready()
        time.sleep(1.2 * self.plan.heartbeat)
        return self

    def connect(self) -> Client:
        return Client(self.address)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def pids(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def board(self) -> Any:
        with self.connect() as client:
            return json.loads(client.ask("board"))

    def ended(self, timeout: float = TIMEOUT) -> int:
        """Wait for the master's end; its exit status."""
        return self.process.wait(timeout)

    def clean_up(self) -> None:
        children = []
        if self.process.poll() is None:
            try:
                children = psutil.Process(self.process.pid).children()
            except psutil.NoSuchProcess:
                pass
            self.process.kill()
            self.process.wait()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                pass
        if self.process.stdout:
            self.process.stdout.close()


Start = Callable[..., Running]


def stop(running: Running) -> int:
    """End it quickly; its exit status."""
    running.signal(signal.SIGQUIT)
    return running.ended()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
