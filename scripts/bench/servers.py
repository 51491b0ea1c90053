"""What is compared: classes of entries, each a server under test or a loop to compare servers with.

An entry says whether it can run here and, if not, what is missing; asking does not start it. An entry and a workload
are matched only by a kind, a word for what the entry does. "discard": read a message and forget it. "store": a file on
disk, synced, before the reply. "tls" and "starttls": handshakes. "tls-kept": as discard, under TLS or not. This file
does not know workloads and figures.

Weaknesses: peers run with the settings that make them accept what is sent, not tuned; each is one process, started as
its manual says. Nothing is downloaded: what is not installed is reported as missing.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

BACKLOG = 2000  # of the listening sockets, where it can be told: more than all sessions of a workload at once
SIZE_LIMIT = 100_000_000  # bytes; a message that servers shall not refuse, well above the biggest that is sent


class Entry:
    """One entry: its `name` in the table and its `kinds` of work."""

    name: str
    kinds: tuple[str, ...]

    def available(self) -> str | None:
        """Return None, or the reason why the entry cannot run. Raises NotImplementedError in this class."""
        raise NotImplementedError

    def version(self) -> str:
        """Return what runs, for the report; only for an available entry. Raises NotImplementedError in this class."""
        raise NotImplementedError


class Server(Entry):
    """An SMTP server that listens on 127.0.0.1."""

    tls: Literal["plain", "implicit", "starttls"] = "plain"

    def command(self, port: int, workdir: Path) -> list[str]:
        """Return the command line. Raises `Failure`, and NotImplementedError in this class.

        Files that it needs are written to `workdir`, which is empty and its own; files that servers share are beside
        it.
        """
        raise NotImplementedError

    def environment(self, workdir: Path) -> Mapping[str, str]:
        """Return what to add to the environment."""
        return {}

    def stored(self, workdir: Path) -> int | None:
        """Return how many messages are on the disk, or None for a server that stores none."""
        return None


class Loop(Entry):
    """A loop in this process that shows what the machine itself can do."""

    def measure(self, workdir: Path, seconds: float) -> Mapping[str, float]:
        """Run for about `seconds`, and return the figures by the names of the workload's columns.

        Raises `Failure`, and NotImplementedError in this class.
        """
        raise NotImplementedError


class SmtpSink(Server):
    """Postfix's sink, in C, which parses next to nothing. Other rows are multiples of it."""

    name = "smtp-sink"
    kinds = ("discard",)

    def available(self) -> str | None:
        return None if shutil.which("smtp-sink") else "smtp-sink is not on PATH (Debian: postfix, in /usr/sbin)"

    def version(self) -> str:
        return "Postfix" + _first_line(["postconf", "-dh", "mail_version"], before=" ")

    def command(self, port: int, workdir: Path) -> list[str]:
        # It refuses to serve as root. Its own limit of 256 sessions would leave the others in the queue.
        user = ["-u", pwd.getpwnam("nobody").pw_name] if os.geteuid() == 0 else []
        return ["smtp-sink", *user, "-m", "20000", "-t", "600", f"127.0.0.1:{port}", str(BACKLOG)]


class Aiosmtpd(Server):
    """aiosmtpd under asyncio's own loop or uvloop's."""

    kinds = ("discard",)
    SCRIPT = f"""\
import asyncio, sys
from aiosmtpd.smtp import SMTP

class Discard:
    async def handle_DATA(self, server, session, envelope):
        return "250 OK"

def session():
    return SMTP(Discard(), hostname="localhost", data_size_limit={SIZE_LIMIT}, timeout=600)

if sys.argv[2] == "uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(loop.create_server(session, "127.0.0.1", int(sys.argv[1]), backlog={BACKLOG}))
loop.run_forever()
"""

    def __init__(self, loop: str) -> None:
        self.name = "aiosmtpd" if loop == "asyncio" else f"aiosmtpd+{loop}"
        self._loop = loop
        self._packages = ["aiosmtpd"] if loop == "asyncio" else ["aiosmtpd", loop]

    def available(self) -> str | None:
        missing = [package for package in self._packages if importlib.util.find_spec(package) is None]
        return f"not installed in {sys.executable}: {', '.join(missing)}" if missing else None

    def version(self) -> str:
        return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in self._packages)

    def command(self, port: int, workdir: Path) -> list[str]:
        script = workdir / "aiosmtpd_server.py"
        script.write_text(self.SCRIPT)
        return [sys.executable, str(script), str(port), self._loop]


class NodeSmtpServer(Server):
    """nodemailer's smtp-server. It waits 100 ms before each banner, which limits its rate of connections."""

    name = "smtp-server"
    kinds = ("discard",)
    SCRIPT = f"""\
const {{ SMTPServer }} = require("smtp-server");
const server = new SMTPServer({{
    authOptional: true, disabledCommands: ["AUTH", "STARTTLS"], disableReverseLookup: true, logger: false,
    size: {SIZE_LIMIT}, socketTimeout: 600000,
    onData(stream, session, callback) {{ stream.on("end", () => callback(null)); stream.resume(); }},
}});
server.on("error", (error) => console.error(error.message));
server.listen(Number(process.argv[2]), "127.0.0.1", {BACKLOG});
"""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._package = directory / "node_modules" / "smtp-server" / "package.json"

    def available(self) -> str | None:
        if shutil.which("node") is None:
            return "node is not on PATH (Debian: nodejs, npm)"
        if not self._package.exists():
            return f"not installed; to have it: npm install --prefix {self._directory} smtp-server"
        return None

    def version(self) -> str:
        package = json.loads(self._package.read_text())["version"]
        return f"smtp-server {package}, node {_first_line(['node', '-v'])}"

    def command(self, port: int, workdir: Path) -> list[str]:
        script = workdir / "server.cjs"
        script.write_text(self.SCRIPT)
        return ["node", str(script), str(port)]

    def environment(self, workdir: Path) -> Mapping[str, str]:
        return {"NODE_PATH": str(self._directory / "node_modules")}


class Gsmtp(Server):
    """gsmtp as installed in this interpreter, or from the source tree `checkout`; it throws messages away."""

    kinds: tuple[str, ...] = ("discard", "tls-kept")
    HANDLER = """\
from gsmtp import Handler

class Discard(Handler):
    def on_message(self, envelope, message):
        return None
"""

    def __init__(self, checkout: Path | None, workers: int = 1) -> None:
        self.name = self._row(checkout)
        self._checkout = checkout
        self._workers = workers

    def _row(self, checkout: Path | None) -> str:
        return f"gsmtp@{checkout.name}" if checkout else "gsmtp"

    @functools.cached_property
    def _probe(self) -> subprocess.CompletedProcess[str]:
        """Import it as the server will, in another process: an import here would patch this program."""
        return self._ask("import gsmtp, gsmtp.cli; print(gsmtp.__version__)")

    def _ask(self, code: str) -> subprocess.CompletedProcess[str]:
        return _run([sys.executable, "-c", code], {**os.environ, "PYTHONPATH": self._python_path()})

    def available(self) -> str | None:
        if self._checkout and not (self._checkout / "gsmtp").is_dir():
            return f"no source tree of gsmtp: {self._checkout}"
        if self._probe.returncode == 0:
            return None
        return f"not importable: {(self._probe.stderr.splitlines() or ['no output'])[-1]}"

    def version(self) -> str:
        number = self._probe.stdout.strip()
        if self._checkout is None:
            return number
        commit = _first_line(["git", "-C", str(self._checkout), "describe", "--always", "--dirty"])
        return f"{number}, commit {commit}"

    def environment(self, workdir: Path) -> Mapping[str, str]:
        return {"PYTHONPATH": self._python_path(workdir)}

    def _python_path(self, *more: Path) -> str:
        """Return a PYTHONPATH that begins with the checkout, so that it wins over what is installed."""
        first = (self._checkout, self._checkout / "workers", *more) if self._checkout else more
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        return os.pathsep.join([*map(str, first), *filter(None, inherited)])

    def command(self, port: int, workdir: Path) -> list[str]:
        return [*self._master(port), self._handler(workdir)]

    def _handler(self, workdir: Path) -> str:
        (workdir / "discard_handler.py").write_text(self.HANDLER)
        return "discard_handler:Discard"

    def _master(self, port: int, scheme: str = "smtp") -> list[str]:
        console_script = Path(sys.executable).parent / "gsmtp-master"
        if self._checkout is None and console_script.exists():
            program = [str(console_script)]
        else:
            program = [sys.executable, "-m", "gsmtp.cli"]
        return [*program, "-w", str(self._workers), "-b", f"{scheme}://127.0.0.1:{port}"]


class GsmtpMaildir(Gsmtp):
    """gsmtp with its default handler: each message is a file in a Maildir, synced before the reply."""

    kinds = ("store",)

    def __init__(self, checkout: Path | None, workers: int) -> None:
        super().__init__(checkout, workers)
        self.name = f"{self._row(checkout)}-maildir-{workers}"

    def command(self, port: int, workdir: Path) -> list[str]:
        return [*self._master(port), "-o", f"path={workdir / 'maildir'}"]

    def stored(self, workdir: Path) -> int:
        folders = (Path(folder) for folder, _, _ in os.walk(workdir / "maildir"))
        return sum(len(os.listdir(folder)) for folder in folders if folder.name == "new")


class FsyncLoop(Loop):
    """One thread that makes one durable 4 KB file after the other: a Maildir without concurrency."""

    name = "fsync-loop"
    kinds = ("store",)
    CONTENT = b"x" * 4096

    def available(self) -> str | None:
        return None

    def version(self) -> str:
        return "write, fsync, rename, fsync of the directory; one thread"

    def measure(self, workdir: Path, seconds: float) -> Mapping[str, float]:
        for folder in ("tmp", "new"):
            (workdir / folder).mkdir(exist_ok=True)
        directory = os.open(workdir / "new", os.O_RDONLY | os.O_DIRECTORY)
        count = 0
        begin, cpu_begin = time.monotonic(), time.process_time()
        try:
            while (elapsed := time.monotonic() - begin) < seconds:
                name = f"{begin:.6f}.{count}"
                file = os.open(workdir / "tmp" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    os.write(file, self.CONTENT)
                    os.fsync(file)
                finally:
                    os.close(file)
                os.rename(workdir / "tmp" / name, workdir / "new" / name)
                os.fsync(directory)
                count += 1
        finally:
            os.close(directory)
        return {"rate": count / elapsed, "cpu_us": (time.process_time() - cpu_begin) / count * 1e6}


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd="/")


def _first_line(command: Sequence[str], before: str = "") -> str:
    """Return the version that a program reports, or "version unknown": it is no reason to leave a server out."""
    try:
        lines = _run(command).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        lines = []
    return before + (lines[0].strip() if lines else "version unknown")
