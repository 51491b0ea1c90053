from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gsmtp_workers
import pytest
from gsmtp_workers import BindError, BootError, Listener, Plan, PlanError, Role
from gsmtp_workers.plan import usable_cores
from running import plan

PACKAGE = Path(gsmtp_workers.__file__).parent


def test_json_gives_an_equal_plan() -> None:
    before = plan(
        argument={"words": ["é", None, 1.5]},
        listeners=(
            Listener("a", "::1", 25, farewell=b"\xff\r\n", busy=b"\xfe"),
            Listener("b", path="/run/b", mode=0o600),
        ),
        user="mail",
        accept_delay_limit=0.0,
        roles=(Role("queue:run", [1], name="queue", processes=1),),
    )
    assert Plan.from_json(before.to_json()) == before


@pytest.mark.parametrize(
    "options",
    [
        {"roles": ()},
        {"roles": (Role("module:callable"), Role("module:other"))},
        {"max_sessions": 0},
        {"shared_memory": -1},
        {"heartbeat": 0.0},
        {"drain_timeout": -1.0},
        {"drain_timeout": float("nan")},
        {"chdir": "/does/not/exist"},
    ],
)
def test_impossible_plans(options: Any) -> None:
    with pytest.raises(PlanError) as caught:
        Plan(**{"roles": (Role("module:callable"),), **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"factory": "module"},
        {"factory": "module:"},
        {"factory": "module:a b"},
        {"factory": "a/b:c"},
        {"processes": 0},
        {"argument": object()},
    ],
)
def test_impossible_roles(options: Any) -> None:
    with pytest.raises(PlanError) as caught:
        Role(**{"factory": "module:callable", **options})
    assert "\n" not in str(caught.value)


def test_roles_have_slots_of_their_own() -> None:
    made = plan(workers=3, roles=(Role("queue:run", name="queue", processes=1),))
    workers, queue = (made.slots(role) for role in made.roles)
    assert (workers, queue) == (range(67), range(67, 132))
    assert made.size == 132


def test_impossible_listeners() -> None:
    with pytest.raises(PlanError):
        Listener("line", "::", 65536)
    with pytest.raises(PlanError):
        Listener("line", "::", 25, backlog=0)


def test_workers_default_to_the_usable_cores() -> None:
    assert Role("module:callable").processes == usable_cores() >= 1


def test_errors_are_one_line() -> None:
    assert str(BindError("smtp://[::]:25", "Permission denied")) == "cannot bind smtp://[::]:25: Permission denied"
    assert (str(BootError("no", status=9)), BootError("no", status=9).status, BootError("no").status) == (
        "no",
        9,
        4,
    )


def test_the_package_is_light() -> None:
    """It is imported before gevent's patch: what it imports stays unpatched."""
    script = "import sys, gsmtp_workers; print(*sorted({'gevent', 'ssl', 'threading', 'queue'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_worker_patches_first() -> None:
    before, patch, after = (PACKAGE / "__main__.py").read_text().partition("monkey.patch_all()\n")
    assert patch
    assert sorted(_imported(ast.parse(before))) == ["gevent", "json", "os", "sys"]
    assert "gsmtp_workers.main" in _imported(ast.parse(textwrap.dedent(after)))


def _imported(tree: Any) -> Iterator[Any]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module or ""


def test_the_package_stands_alone() -> None:
    ours = {name.split(".")[0] for path in PACKAGE.glob("*.py") for name in _imported(ast.parse(path.read_text()))}
    assert ours - set(sys.stdlib_module_names) == {"gevent", "gsmtp_workers", "setproctitle"}
