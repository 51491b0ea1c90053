"""Fixtures for tests in more than one directory."""

from __future__ import annotations

import compileall
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from harness.master import ROOT, Master


def pytest_sessionstart() -> None:
    """Compile all modules once: servers are started by the hundred and told to write no bytecode.

    Debian keeps servers such as haproxy in sbin, which is not on an ordinary user's PATH.
    """
    os.environ["PATH"] += os.pathsep + os.pathsep.join(["/usr/sbin", "/sbin"])
    for room in ("gsmtp", "workers"):
        compileall.compile_dir(ROOT / room, quiet=2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte.

    A user who may not mount mounts it in a namespace of his own, whose files /proc shows to him. Where that is refused,
    too, tests that need one are skipped by name.
    """
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs", str(path)]
    if os.geteuid() == 0:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no small file system to fill: {made.stderr.strip()}")
        yield path
        subprocess.run(["umount", "-l", str(path)], check=True)
        return
    # Lives until its input ends; a shell that execs keeps the number of the process.
    script = '"$@" && echo mounted && exec cat'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *mount]
    with subprocess.Popen(
        inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as keeper:
        assert keeper.stdout is not None
        said = keeper.stdout.readline().strip()
        if said != "mounted":
            pytest.skip(f"no small file system to fill: {said}")
        yield Path(f"/proc/{keeper.pid}/root{path}")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once in a run of the tests."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Master]]:
    """serve("-o", "fsync=false", ..., toml="...", code="...", workers=1): a `Master` server that is ready.

    It listens on a free port of 127.0.0.1 unless `binds` or the TOML says otherwise. `code` becomes the module `inbox`,
    whose class Inbox is the handler; without it, mail goes to the Maildir `maildir` of the server's directory. It is
    ended with the test, which fails if processes are left over. `preexec` is called in the new process.
    """
    running: list[Master] = []

    def serve(*arguments: str, toml: str = "", code: str = "", workers: int = 1, **more: Any) -> Master:
        preexec = more.pop("preexec", None)
        directory = tmp_path / f"server{len(running)}"
        directory.mkdir()
        given = list(arguments)
        if toml:
            (directory / "gsmtp.toml").write_text(toml)
            given += ["-c", "gsmtp.toml"]
        for bind in more.pop("binds", [] if "[[listen]]" in toml else ["smtp://127.0.0.1:0"]):
            given += ["-b", bind.replace("{directory}", str(directory))]
        if code:
            (directory / "inbox.py").write_text(code)
            given.insert(0, "inbox:Inbox")
        for key, value in more.items():
            given += ["--set", f"{key}={value}"]
        running.append(Master(directory, given, workers, preexec))
        return running[-1].until_ready()

    yield serve
    troubles = []
    for live in running:
        try:
            live.clean_up()
        except AssertionError as error:
            troubles.append(str(error))
    if troubles:
        pytest.fail("\n".join(troubles))
