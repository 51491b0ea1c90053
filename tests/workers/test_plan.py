import ast
import subprocess
import sys
from pathlib import Path

import gsmtp_workers
import pytest
from gsmtp_workers import BindError, BootError, Listener, Plan, PlanError
from gsmtp_workers.plan import usable_cores
from running import plan

PACKAGE = Path(gsmtp_workers.__file__).parent


def test_json_gives_an_equal_plan():
    before = plan(
        argument={"words": ["é", None, 1.5]},
        listeners=(
            Listener("a", "::1", 25, farewell=b"\xff\r\n", busy=b"\xfe"),
            Listener("b", path="/run/b", mode=0o600),
        ),
        user="mail",
        gate_limit=0.0,
    )
    assert Plan.from_json(before.to_json()) == before


@pytest.mark.parametrize(
    "options",
    [
        {"factory": "module"},
        {"factory": "module:"},
        {"factory": "module:a b"},
        {"factory": "a/b:c"},
        {"workers": 0},
        {"max_sessions": 0},
        {"shared_memory": -1},
        {"heartbeat": 0.0},
        {"drain_timeout": -1.0},
        {"drain_timeout": float("nan")},
        {"chdir": "/does/not/exist"},
        {"argument": object()},
    ],
)
def test_impossible_plans(options):
    with pytest.raises(PlanError) as caught:
        Plan(**{"factory": "module:callable", **options})
    assert "\n" not in str(caught.value)


def test_impossible_listeners():
    with pytest.raises(PlanError):
        Listener("line", "::", 65536)
    with pytest.raises(PlanError):
        Listener("line", "::", 25, backlog=0)


def test_workers_default_to_the_usable_cores():
    assert Plan("module:callable").workers == usable_cores() >= 1


def test_errors_are_one_line():
    assert str(BindError("smtp://[::]:25", "Permission denied")) == "cannot bind smtp://[::]:25: Permission denied"
    assert (str(BootError("no", status=9)), BootError("no", status=9).status, BootError("no").status) == (
        "no",
        9,
        4,
    )


def test_the_package_is_light():
    """It is imported before gevent's patch: what it imports stays unpatched."""
    script = "import sys, gsmtp_workers; print(*sorted({'gevent', 'ssl', 'threading', 'queue'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_worker_patches_first():
    statements = ast.parse((PACKAGE / "__main__.py").read_text()).body[1:]
    assert [ast.unparse(statement) for statement in statements[:2]] == [
        "from gevent import monkey",
        "monkey.patch_all()",
    ]


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module or ""


def test_the_package_stands_alone():
    ours = {name.split(".")[0] for path in PACKAGE.glob("*.py") for name in _imports(path)}
    assert ours - set(sys.stdlib_module_names) == {"gevent", "gsmtp_workers"}
