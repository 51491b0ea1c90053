"""A real gsmtp-master in processes of its own, and a client that speaks line by line.

`Live` promises that nothing is left of it: its processes share a session (setsid) of their own, by which survivors are
found and ended, and the test that left them fails. It learns from the log alone where the server listens.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

ROOT = Path(__file__).parent.parent
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "workers")])
PATIENCE = 20.0
_LISTENING = re.compile(r'listening on ([^"\s]+) \(([^)]+)\)')
_READY = re.compile(r"worker (\d+) \(pid (\d+)\) ready")
_TRACE = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\n(?:Delivered-To: [^\r\n]+\r\n)+"
    rb"Received: from [^\r\n]+\r\n\tby [^\r\n]+\r\n(?:\tfor <[^\r\n]+>;\r\n)?\t\w{3}, [^\r\n]+ [+-]\d{4}\r\n"
)
_T = TypeVar("_T")


def wait_for(condition: Callable[[], _T | None], patience: float = PATIENCE, what: str = "a condition") -> _T:
    """The first true value of `condition()`. AssertionError after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return value


def command(*arguments: str) -> list[str]:
    """The command line of gsmtp-master."""
    return [sys.executable, "-m", "gsmtp.cli", *arguments]


def environment() -> dict[str, str]:
    """Of a user who has this checkout on his path."""
    return {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1"}


def run(*arguments: str, directory: Path, patience: float = PATIENCE, **more: Any) -> subprocess.CompletedProcess[str]:
    """gsmtp-master until it ends by itself."""
    options = {"cwd": directory, "env": environment(), "capture_output": True, "text": True, "check": False, **more}
    return subprocess.run(command(*arguments), timeout=patience, **options)


def _prepared(more: Callable[[], object] | None) -> Callable[[], None]:
    def prepare() -> None:
        # A shell starts background jobs with SIGINT ignored, and the master leaves it so.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if more is not None:
            more()

    return prepare


class Live:
    """One server. `directory` is its current one, where it finds handlers; `address` its first listener's."""

    def __init__(
        self, directory: Path, arguments: Sequence[str], workers: int, preexec: Callable[[], object] | None = None
    ) -> None:
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
                preexec_fn=_prepared(preexec),
            )

    @property
    def log(self) -> str:
        """All that the server has written so far."""
        return self.log_path.read_text(errors="surrogateescape")

    @property
    def lines(self) -> list[str]:
        """The same in lines."""
        return self.log.split("\n")[:-1]

    def until_ready(self) -> Live:
        """Wait until all workers serve."""
        wait_for(lambda: self.process.poll() is not None or len(self.workers()) >= self.wanted, what="workers")
        assert self.process.poll() is None, self.log
        return self

    def workers(self) -> dict[int, int]:
        """slot -> pid of the workers that have said that they are ready and still live."""
        latest = {int(slot): int(pid) for slot, pid in _READY.findall(self.log)}
        alive = self.pids()
        return {slot: pid for slot, pid in latest.items() if pid in alive}

    def pids(self) -> set[int]:
        """The workers that live."""
        return {process.pid for process in _session(self.process.pid)} - {self.process.pid}

    @property
    def addresses(self) -> dict[str, str]:
        """bind, as given -> address."""
        return dict(_LISTENING.findall(self.log))

    @property
    def address(self) -> str:
        return next(iter(self.addresses.values()))

    def connect(self, address: str = "", greet: bool = True, tls: ssl.SSLContext | None = None) -> Talk:
        """A client, which has said EHLO unless told not to; with `tls` it begins TLS before all else."""
        talk = Talk(address or self.address, tls=tls)
        if greet:
            assert talk.banner.startswith("220 ")
            assert talk.ask("EHLO client.example").startswith("250")
        return talk

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        """The first match in the log, as soon as there is one."""
        return wait_for(lambda: re.search(pattern, self.log), what=f"{pattern!r} in the log")

    def send_signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """The master's exit status, when it has ended."""
        return self.process.wait(patience)

    def stop(self, number: int = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """Signal the master and wait for its end."""
        self.send_signal(number)
        return self.wait(patience)

    def clean_up(self) -> None:
        """End it. AssertionError when it does not end in order or leaves processes behind."""
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
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def dial(address: str, patience: float = PATIENCE) -> socket.socket:
    """A connected socket. `address`: host:port or a path."""
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(patience)
        sock.connect(address)
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=patience)


class Talk:
    """A client, line by line. A context manager."""

    def __init__(
        self, address: str, patience: float = PATIENCE, tls: ssl.SSLContext | None = None, name: str = "mx.example.org"
    ) -> None:
        """`tls`: begin with TLS, asking for `name`."""
        self.socket = dial(address, patience)
        try:
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=name or None)
        except BaseException:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")
        self.banner = self.reply()

    def secure(self, context: ssl.SSLContext, name: str = "mx.example.org", greet: bool = True) -> ssl.SSLSocket:
        """STARTTLS, and EHLO unless told not to. ssl.SSLError, OSError when the handshake fails."""
        assert self.ask("STARTTLS") == "220 2.0.0 Ready to start TLS"
        return self.handshake(context, name, greet)

    def handshake(self, context: ssl.SSLContext, name: str = "mx.example.org", greet: bool = True) -> ssl.SSLSocket:
        """The same once 220 was said."""
        self.file.close()
        secure = context.wrap_socket(self.socket, server_hostname=name or None)
        self.socket, self.file = secure, secure.makefile("rb")
        if greet:
            assert self.ask("EHLO client.example").startswith("250")
        return secure

    def reply(self) -> str:
        """The next reply, its lines joined by LF; "" at the end of the connection."""
        lines = []
        while line := self.file.readline():
            assert line.endswith(b"\r\n"), line
            lines.append(line[:-2].decode("ascii"))
            if line[3:4] != b"-":
                break
        return "\n".join(lines)

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def ask(self, line: str) -> str:
        """Send a line, return the reply."""
        self.send(f"{line}\r\n")
        return self.reply()

    def begin(self, *recipients: str, sender: str = "sender@client.example") -> list[str]:
        """MAIL and RCPT; the replies."""
        replies = [self.ask(f"MAIL FROM:<{sender}>")]
        return replies + [self.ask(f"RCPT TO:<{each}>") for each in recipients or ("box@here.example",)]

    def content(self, content: bytes) -> str:
        """DATA, and the content with its dots stuffed; the last reply, be it to DATA."""
        go = self.ask("DATA")
        if not go.startswith("354"):
            return go
        self.send(stuffed(content))
        return self.reply()

    def deliver(self, content: bytes, *recipients: str, sender: str = "sender@client.example") -> str:
        """A whole transaction; the first reply that is no yes, or else the last."""
        for reply in self.begin(*recipients, sender=sender):
            if not reply.startswith("250"):
                return reply
        return self.content(content)

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stuffed(content: bytes) -> bytes:
    """The content as it is sent after 354, with its end. It must end in CRLF or be empty."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def stored(box: Path) -> list[bytes]:
    """The messages of a Maildir; nothing may be left in its tmp."""
    assert not list((box / "tmp").iterdir())
    return [path.read_bytes() for path in sorted((box / "new").iterdir())]


def without_trace(message: bytes) -> bytes:
    """What stands behind the trace header lines of the Maildir handler. AssertionError when they are not in order."""
    head = _TRACE.match(message)
    assert head is not None, message[:1000]
    return message[head.end() :]


def json_lines(log: str) -> list[dict[str, Any]]:
    """The records of a log in JSON."""
    return [json.loads(line) for line in log.split("\n")[:-1]]


def taken(live: Live, recipient: str) -> dict[str, Any]:
    """What a handler that writes JSON lines to `taken` was given for `recipient`."""

    def found() -> dict[str, Any] | None:
        path = live.directory / "taken"
        rows = [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []
        return next((row for row in rows if recipient in row["to"]), None)

    return wait_for(found, what=f"a message for {recipient}")
