"""A real gsmtp-master for tests: its own process, its workers, ports of the kernel's choice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

_LISTENING = re.compile(r"listening on \S+ \([^)]*?:(\d+)\)")


def _toml(value: Any) -> str:
    return json.dumps(value)


class Server:
    """Serve `listens`, a table of settings each; `ports` are theirs, in that order. Use it as a context.

    `handler` is module:Class, the module a file in `home`; `options` go to its constructor, `settings` are the whole
    server's.
    """

    def __init__(
        self,
        directory: Path,
        handler: str,
        listens: Sequence[dict[str, Any]],
        *,
        home: Path = Path(__file__).parent / "dialogues",
        options: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        own = {"workers": 1, "chdir": str(home), **(settings or {})}
        rows = [f"{key} = {_toml(value)}" for key, value in own.items()]
        rows += ["[handler]", f"class = {_toml(handler)}"]
        rows += [f"{key} = {_toml(value)}" for key, value in (options or {}).items()]
        for listen in listens:
            usual = {"bind": "smtp://127.0.0.1:0", "hostname": "mx.example.org"}
            rows += ["[[listen]]", *(f"{key} = {_toml(value)}" for key, value in {**usual, **listen}.items())]
        config = directory / "gsmtp.toml"
        config.write_text("\n".join(rows))
        self._log = directory / "log"
        self._wanted = len(listens)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gsmtp.cli", "-c", str(config)], stderr=log, stdin=subprocess.DEVNULL
            )
        self.ports: list[int] = []

    def __enter__(self) -> Server:
        try:
            self.wait_for(lambda: len(_LISTENING.findall(self.log)) >= self._wanted)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.ports = [int(port) for port in _LISTENING.findall(self.log)]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGQUIT)  # a test run in the background ignores INT
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def worker(self) -> int:
        """The process id of the only worker."""
        found: list[int] = [child.pid for child in psutil.Process(self.process.pid).children()]
        assert len(found) == 1
        return found[0]

    def descriptors(self) -> int:
        """How many the worker has open."""
        return len(os.listdir(f"/proc/{self.worker}/fd"))

    def wait_for(self, what: Any, seconds: float = 20.0) -> None:
        """Until `what()` is true. AssertionError when the master ends before, or after `seconds`."""
        end = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.02)
