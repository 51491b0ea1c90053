"""gsmtp installed as a wheel, editable, and used from a checkout: each serves projects with a `workers` of their own.

The environments are made for the test and have nothing but gsmtp and, by a path, the libraries of this one. The
handlers that they serve import the project's own `workers`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import smtplib
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from gsmtp_workers.scoreboard import Scoreboard
from harness.master import scoreboard_of

ROOT = Path(__file__).resolve().parent.parent
HANDLER = """
from gsmtp import Handler
from {module} import note

class Inbox(Handler):
    def on_message(self, envelope, message):
        return note(envelope.sender)
"""
NOTE = 'def note(sender): return f"noted {sender}"\n'


def run(*arguments: str | Path, cwd: Path | None = None) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GSMTP_COMPILE")}
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def environment_in(place: Path) -> Path:
    """Make a virtual environment that has the libraries of this one, but not gsmtp; return its folder of commands."""
    venv.create(place, with_pip=False)
    site = place / f"lib/python{sysconfig.get_python_version()}/site-packages"
    # Read as a path alone: an editable gsmtp there is found by a .pth file, which is not followed.
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return place / "bin"


def install(commands: Path, *what: str | Path) -> None:
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", commands / "python", "install", *options, *what)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a package is built from."""
    place = tmp_path_factory.mktemp("tree")
    for name in ("gsmtp", "workers"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("setup.py", "pyproject.toml", "README.rst", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


@pytest.fixture(scope="module")
def installed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with a wheel of gsmtp."""
    built = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", built, tree)
    commands = environment_in(tmp_path_factory.mktemp("installed"))
    [wheel] = built.iterdir()
    install(commands, wheel)
    return commands


@pytest.fixture(params=["package", "module"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A user's project, which has a package `workers` or a file workers.py."""
    place = tmp_path / "project"
    place.mkdir()
    if request.param == "package":
        (place / "workers").mkdir()
        (place / "workers" / "__init__.py").touch()
        (place / "workers" / "tasks.py").write_text(NOTE)
    else:
        (place / "workers.py").write_text(NOTE)
    module = "workers.tasks" if request.param == "package" else "workers"
    (place / "inbox.py").write_text(HANDLER.format(module=module))
    return place


@contextlib.contextmanager
def serving(log: Path, *command: str | Path, cwd: Path, **environment: str) -> Iterator[tuple[int, int]]:
    """The process id and the port of a master that is ready."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    arguments = ("inbox:Inbox", "--bind", "smtp://127.0.0.1:0", "--workers", "1")
    with log.open("wb") as file:
        master = subprocess.Popen([*command, *arguments], cwd=cwd, env={**inherited, **environment}, stderr=file)
    try:
        while "ready after" not in (text := log.read_text()):
            assert master.poll() is None, text
            time.sleep(0.05)
        found = re.search(r"\(127\.0\.0\.1:(\d+)\)", text)
        assert found is not None, text
        yield master.pid, int(found[1])
    finally:
        master.terminate()
        assert master.wait(30) == 0, log.read_text()


def deliver(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo("client.example")
        client.mail("a@example.org")
        client.rcpt("b@example.org")
        assert client.data(b"Subject: x\r\n\r\nx\r\n") == (250, b"2.0.0 noted a@example.org")


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": "."}], ids=["plain", "PYTHONPATH"])
def test_a_wheel_serves_a_project_with_workers_of_its_own(
    installed: Path, project: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    with serving(tmp_path / "log", installed / "gsmtp-master", cwd=project, **environment) as (_, port):
        deliver(port)


@pytest.mark.parametrize("project", ["package"], indirect=True)
def test_an_editable_install_serves(tree: Path, project: Path, tmp_path: Path) -> None:
    commands = environment_in(tmp_path / "editable")
    install(commands, "--editable", tree)
    with serving(tmp_path / "log", commands / "gsmtp-master", cwd=project) as (_, port):
        deliver(port)


@pytest.mark.parametrize("project", ["package"], indirect=True)
def test_a_checkout_serves_by_relative_paths(tree: Path, project: Path, tmp_path: Path) -> None:
    """The worker finds what the master found, although its directory is not that to which PYTHONPATH is relative."""
    commands = environment_in(tmp_path / "bare")
    command = (commands / "python", "-m", "gsmtp.cli", "--set", f"chdir={project}")
    with serving(tmp_path / "log", *command, cwd=tree, PYTHONPATH=".:workers") as (_, port):
        deliver(port)


@pytest.mark.parametrize("project", ["package"], indirect=True)
def test_anyone_can_read_the_scoreboard(installed: Path, project: Path, tmp_path: Path) -> None:
    """From outside, with nothing but the process id: names, kinds and help come with the file."""
    with serving(tmp_path / "log", installed / "gsmtp-master", cwd=project) as (pid, port):
        deliver(port)
        board = Scoreboard.open(scoreboard_of(pid))
        kinds = {column.name: str(column.kind) for column in board.columns if column.help}
        assert (kinds["messages"], kinds["transactions"]) == ("counter", "gauge")
        wait_for(lambda: board.totals()["messages"] == 1)
        [slot] = board.read()
        assert slot.slot == 0
        if importlib.util.find_spec("setproctitle") is not None:
            titles = [psutil.Process(each).cmdline() for each in (pid, slot.pid)]
            assert [" ".join(title).strip() for title in titles] == ["gsmtp-master", "gsmtp: worker 0"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
