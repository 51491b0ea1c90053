"""scripts/venv makes an environment, or says in one line why not and leaves nothing behind.

It runs in a tree of its own whose build system needs no network. What a system lacks is hidden by modules of the same
name on PYTHONPATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness.master import ROOT

VERSION = "{}.{}".format(*sys.version_info)
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import zipfile

FILES = {"METADATA": "Metadata-Version: 2.1\\nName: gsmtp\\nVersion: 0\\n", "RECORD": "",
         "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}

def build_editable(directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{directory}/gsmtp-0-py3-none-any.whl", "w") as wheel:
        for name, text in FILES.items():
            wheel.writestr(f"gsmtp-0.dist-info/{name}", text)
    return "gsmtp-0-py3-none-any.whl"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "venv", tmp_path / "scripts")
    (tmp_path / "setup.py").touch()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "backend.py").write_text(BACKEND)
    return tmp_path


def venv(tree: Path, python: str | None = None, hidden: dict[str, str] | None = None) -> tuple[int, str, list[str]]:
    """Run the script with this Python as python3. Return its status, its output and the lines it said.

    `hidden`: the text of modules that stand before Python's own.
    """
    stubs = tree / "stubs"
    (tree / "bin").mkdir(exist_ok=True)
    # Not a link: a Python that was moved finds its library beside its own path alone.
    (tree / "bin" / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tree / "bin" / "python3").chmod(0o755)
    environment = {"PATH": f"{tree}/bin:/usr/bin:/bin", "HOME": str(tree), "PIP_NO_INDEX": "1"}
    if python is not None:
        environment["PYTHON"] = python
    if hidden is not None:
        stubs.mkdir(exist_ok=True)
        for name, text in hidden.items():
            (stubs / f"{name}.py").write_text(text)
        environment["PYTHONPATH"] = str(stubs)
    done = subprocess.run(
        [tree / "scripts" / "venv"], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout.strip(), done.stderr.splitlines()


def environments(tree: Path) -> list[str]:
    return sorted(path.name for path in tree.glob(".venv*"))


def half_made(tree: Path) -> None:
    """As Python's venv leaves it that finds no ensurepip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tree / ".venv"], check=True)


NO_ENSUREPIP = {"ensurepip": "raise ModuleNotFoundError"}


def test_made_once_and_another_python_has_its_own(tree: Path) -> None:
    assert venv(tree) == (0, ".venv", ["making .venv", "installing gsmtp in .venv"])
    assert venv(tree) == (0, ".venv", [])
    other = f".venv-{VERSION}"
    assert venv(tree, sys.executable) == (0, other, [f"making {other}", f"installing gsmtp in {other}"])
    assert environments(tree) == [".venv", other]


@pytest.mark.parametrize(
    ("python", "package"), [(None, "python3-venv"), (sys.executable, f"python{VERSION}-venv")], ids=["default", "named"]
)
def test_without_ensurepip_nothing_is_made(tree: Path, python: str | None, package: str) -> None:
    status, _, said = venv(tree, python, NO_ENSUREPIP)
    assert (status, environments(tree)) == (1, [])
    assert said == [
        f"{python or 'python3'} cannot make virtual environments; on Debian or Ubuntu: apt install {package}"
    ]


def test_what_fails_half_way_is_removed(tree: Path) -> None:
    code = "if __name__ == '__main__':\n    import os, sys\n    os.mkdir('.venv')\n    sys.exit('no space')\n"
    assert venv(tree, hidden={"venv": code}) == (1, "", ["making .venv", "no space"])
    assert environments(tree) == []


def test_a_half_made_one_is_completed(tree: Path) -> None:
    half_made(tree)
    status, _, said = venv(tree, hidden=NO_ENSUREPIP)
    assert (status, said) == (1, [".venv has no pip; on Debian or Ubuntu: apt install python3-venv"])
    assert venv(tree) == (0, ".venv", ["completing .venv", "installing gsmtp in .venv"])
    assert venv(tree) == (0, ".venv", [])


def test_one_whose_python_is_gone_is_made_again(tree: Path) -> None:
    half_made(tree)
    (tree / ".venv" / "bin" / "python").unlink()
    (tree / ".venv" / "bin" / "python").symlink_to("/nonexistent/python")
    removed = "removing .venv, whose Python is gone or too old"
    assert venv(tree) == (0, ".venv", [removed, "making .venv", "installing gsmtp in .venv"])


def test_what_is_no_environment_is_left_alone(tree: Path) -> None:
    (tree / ".venv").mkdir()
    (tree / ".venv" / "mine").touch()
    assert venv(tree) == (1, "", [".venv is no virtual environment; move it away"])
    assert (tree / ".venv" / "mine").exists()


def test_a_python_that_is_missing_too_old_or_none(tree: Path) -> None:
    old = tree / "old"
    old.write_text("#!/bin/sh\necho 3.9\nexit 1\n")
    old.chmod(0o755)
    another = "PYTHON=/path/to/python names another"
    assert venv(tree, "/nonexistent/python") == (1, "", [f"no such Python: /nonexistent/python; {another}"])
    assert venv(tree, "/bin/false") == (1, "", [f"/bin/false does not run; {another}"])
    assert venv(tree, str(old)) == (1, "", [f"Python 3.11 or newer is needed, {old} is 3.9; {another}"])
    assert environments(tree) == []
