"""The compiled form (`GSMTP_COMPILE=1`, setup.py): a copy of the tree is compiled, and tests run there once more.

Where machine code differs from the source it is in types: mypyc believes annotations and checks them, so a wrong one,
or a narrowing that a call has undone, is an error there and nowhere else.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import smtplib
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from harness.master import ROOT
from harness.messages import stored
from harness.waiting import wait_for

# What the protocol says, in memory and live; some 30 s.
AGAIN = ["tests/protocol", "tests/test_dialogues.py"]


def lacking() -> str | None:
    """What is missing to compile."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler: {compiler}"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return None if header.exists() else f"no headers of this Python (Debian: python3-dev): {header}"


def python(place: Path, *arguments: str, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GSMTP_COMPILE": "1", "MYPYC_OPT_LEVEL": "0", "PYTHONPATH": f"{place}:{place}/workers"}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled copy of the tree."""
    missing = lacking()
    if missing is not None:
        pytest.skip(missing)
    place = tmp_path_factory.mktemp("compiled")
    for room in ("gsmtp", "workers", "tests", "scripts", "docs"):
        shutil.copytree(ROOT / room, place / room, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("setup.py", "pyproject.toml", "README.rst"):
        shutil.copy(ROOT / name, place)
    done = python(place, "setup.py", "-q", "build_ext", "--inplace")
    assert done.returncode == 0, done.stdout
    # A warning of mypyc is a thing that is slow, or that it took for another.
    assert ": warning: " not in done.stdout, done.stdout
    return place


def test_what_is_compiled_is_what_runs(compiled: Path) -> None:
    libraries = sorted((compiled / "gsmtp").rglob("*.so"))
    modules = {".".join(file.relative_to(compiled).with_name(file.name.split(".")[0]).parts) for file in libraries}
    assert {"gsmtp.protocol.server.session", "gsmtp.server.connection", "gsmtp.storage.store"} <= modules
    code = f"import importlib\nfor name in {sorted(modules)}: print(importlib.import_module(name).__file__)"
    assert python(compiled, "-c", code).stdout.split() == [str(file) for file in libraries]


def test_its_wheel_serves(compiled: Path, tmp_path: Path) -> None:
    """Installed where nothing else is; what gsmtp needs is found behind it."""
    done = python(compiled, "setup.py", "-q", "bdist_wheel", "-d", str(tmp_path))
    assert done.returncode == 0, done.stdout
    [wheel] = tmp_path.glob("*.whl")
    assert f"-cp{sys.version_info[0]}{sys.version_info[1]}-" in wheel.name
    place = tmp_path / "installed"
    options = ["--no-index", "--no-deps", "--no-compile", "--quiet", "--target", str(place)]
    assert python(tmp_path, "-m", "pip", "install", *options, str(wheel)).returncode == 0
    environment = {**os.environ, "PYTHONPATH": str(place)}
    code = "import gsmtp.server.connection as module; print(module.__file__)"
    asked = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith(f"{place}/gsmtp/server/connection.") and asked.stdout.endswith(".so\n")
    log = tmp_path / "log"
    with log.open("wb") as output:
        master = subprocess.Popen(
            [sys.executable, "-m", "gsmtp.cli", "-b", "smtp://127.0.0.1:0", "-w", "1"],
            env=environment,
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: master.poll() is not None or " ready" in log.read_text(), what="the worker")
        found = re.search(r"\(127\.0\.0\.1:(\d+)\)", log.read_text())
        assert master.poll() is None and found is not None, log.read_text()
        with smtplib.SMTP("127.0.0.1", int(found[1]), timeout=60) as client:
            assert client.sendmail("a@there.example", ["b@here.example"], b"Subject: x\r\n\r\ny\r\n") == {}
        assert len(stored(tmp_path / "maildir")) == 1
    finally:
        master.terminate()
        status = master.wait(60)
    assert status == 0


@pytest.mark.parametrize(("wanted", "more"), [("0", []), ("1", ["mypy>=1.10"])])
def test_pip_is_told_what_it_takes(wanted: str, more: list[str]) -> None:
    """Before mypyc is there, since that is why pip asks."""
    code = "import sys; sys.modules['mypyc'] = None; from setuptools import build_meta as backend; "
    code += "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): "
    code += "needed = backend.get_requires_for_build_wheel()\nprint(needed)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "GSMTP_COMPILE": wanted},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    needed = [one for one in ast.literal_eval(done.stdout) if one != "wheel"]  # older setuptools want that
    assert needed == more, done.stderr


def test_its_protocol_and_dialogues(compiled: Path) -> None:
    done = python(compiled, "-m", "pytest", "-q", "-p", "no:cacheprovider", *AGAIN)
    passed = re.search(r"^(\d+) passed in ", done.stdout, re.M)
    assert done.returncode == 0 and passed is not None and int(passed[1]) > 1000, done.stdout[-5000:]
