"""Imports point down only, by the table `ROOMS`.

They are read from the source, so that an import inside a function counts as well; what stands under TYPE_CHECKING does
not.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NO_IO = {
    "asyncio",
    "gevent",
    "greenlet",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "select",
    "selectors",
    "signal",
    "smtplib",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "workers" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for top in ("gsmtp", "workers") for path in sorted((ROOT / top).rglob("*.py"))}


class Imports(ast.NodeVisitor):
    """What a module imports."""

    def __init__(self, module: str) -> None:
        self._package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.generic_visit(node)
        for each in node.orelse:
            self.visit(each)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._found(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = self._package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        for alias in node.names:
            # "from package import module" imports the module; "from module import name" the module that has it.
            whole = f"{base}.{alias.name}"
            self._found(whole if whole in MODULES else base)

    def _found(self, name: str) -> None:
        self.names.add(name)


def read(module: str) -> Imports:
    found = Imports(module)
    found.visit(ast.parse(MODULES[module].read_text()))
    return found


IMPORTS = {module: read(module) for module in MODULES}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


# The rooms from the bottom to the top, each with the rooms and modules that it may import; a module belongs to the room
# with the longest name. Rooms that are not built yet have their place, too: client, authres (SPF, DKIM, DMARC), queue,
# testing and admin (reload, control, metrics).
ROOMS: dict[str, tuple[str, ...]] = {
    "gsmtp_workers": (),
    "gsmtp.declare": (),
    "gsmtp.reply": (),
    "gsmtp.socket_address": (),
    "gsmtp.values": ("gsmtp.declare",),
    "gsmtp.binds": ("gsmtp.declare",),
    "gsmtp.logs": ("gsmtp.declare",),
    "gsmtp.counters": ("gsmtp_workers.columns",),
    "gsmtp.mime": (),
    "gsmtp.storage.writer": (),
    "gsmtp.storage": ("gsmtp.storage.writer",),
    "gsmtp.protocol": ("gsmtp.reply", "gsmtp.socket_address"),
    "gsmtp.protocol.server": ("gsmtp.protocol", "gsmtp.reply", "gsmtp.declare"),
    "gsmtp.protocol.client": ("gsmtp.protocol", "gsmtp.reply"),
    "gsmtp.net.tls_settings": ("gsmtp.declare",),
    "gsmtp.net": ("gsmtp.net.tls_settings", "gsmtp.reply", "gsmtp.declare", "gsmtp.socket_address"),
    "gsmtp.dns": ("gsmtp.socket_address",),
    "gsmtp.handler": ("gsmtp.protocol", "gsmtp.protocol.server.extensions", "gsmtp.reply"),
    # What users import: the callback API, and the values that hooks get and raise.
    "gsmtp": ("gsmtp.handler", "gsmtp.protocol", "gsmtp.reply"),
    # Records in, verdict out: it looks nothing up itself.
    "gsmtp.authres": ("gsmtp.mime", "gsmtp.protocol", "gsmtp.socket_address"),
    "gsmtp.client": (
        *("gsmtp.dns", "gsmtp.mime", "gsmtp.net", "gsmtp.protocol", "gsmtp.protocol.client", "gsmtp.reply"),
        *("gsmtp.declare", "gsmtp.socket_address"),
    ),
    "gsmtp.server.settings": ("gsmtp.declare",),
    "gsmtp.settings": (
        *("gsmtp.binds", "gsmtp.declare", "gsmtp.logs", "gsmtp.values"),
        *("gsmtp.net.tls_settings", "gsmtp.protocol.server.options", "gsmtp.server.settings"),
    ),
    "gsmtp.server": (
        *("gsmtp.authres", "gsmtp.dns", "gsmtp.handler", "gsmtp.mime", "gsmtp.net", "gsmtp.net.tls_settings"),
        *("gsmtp.protocol", "gsmtp.protocol.server", "gsmtp.reply", "gsmtp.server.settings", "gsmtp.storage"),
        *("gsmtp.binds", "gsmtp.counters", "gsmtp.declare", "gsmtp.logs", "gsmtp.settings", "gsmtp.socket_address"),
        "gsmtp_workers",
    ),
    # Several engines behind one interface; it accepts in a handler, and hands on in a process of its own.
    "gsmtp.queue": (
        *("gsmtp", "gsmtp.client", "gsmtp.handler", "gsmtp.mime", "gsmtp.protocol", "gsmtp.reply", "gsmtp.storage"),
        *("gsmtp.counters", "gsmtp.declare", "gsmtp.logs", "gsmtp_workers"),
    ),
    # On the public API alone.
    "gsmtp.handlers": (
        *("gsmtp", "gsmtp.authres", "gsmtp.client", "gsmtp.handler", "gsmtp.mime", "gsmtp.protocol", "gsmtp.queue"),
        *("gsmtp.reply", "gsmtp.storage"),
    ),
    # Reads the scoreboard and controls the master; it serves no mail.
    "gsmtp.admin": ("gsmtp.counters", "gsmtp.declare", "gsmtp.logs", "gsmtp.socket_address", "gsmtp_workers"),
    "gsmtp.launch": (
        *("gsmtp.admin", "gsmtp.binds", "gsmtp.counters", "gsmtp.declare", "gsmtp.logs", "gsmtp.settings"),
        "gsmtp_workers",
    ),
    "gsmtp.testing": ("gsmtp", "gsmtp.client", "gsmtp.handler", "gsmtp.launch", "gsmtp.server", "gsmtp.settings"),
    "gsmtp.cli": (
        *("gsmtp", "gsmtp.binds", "gsmtp.declare", "gsmtp.launch", "gsmtp.settings", "gsmtp.values"),
        "gsmtp_workers",
    ),
    # Beside the command: it starts servers, and nothing imports it.
    "gsmtp.soak": (
        *("gsmtp", "gsmtp.client", "gsmtp.handler", "gsmtp.mime", "gsmtp.protocol", "gsmtp.reply"),
        "gsmtp_workers",
    ),
}
EXISTING = {room for room in ROOMS if any(within(module, room) for module in MODULES)}


def room_of(module: str) -> str:
    """The room with the longest name that `module` is in."""
    return max((room for room in ROOMS if within(module, room)), key=len)


def strays(room: str, imports: dict[str, Imports]) -> Iterator[str]:
    """What modules of `room` import of gsmtp and gsmtp_workers beyond what is allowed."""
    for module, found in imports.items():
        if room_of(module) == room:
            for name in sorted(found.names):
                if within(name, "gsmtp", "gsmtp_workers") and not allowed(room, name):
                    yield f"{module} imports {name}"


def allowed(room: str, name: str) -> bool:
    """Whether modules of `room` may import `name`."""
    there = room_of(name)
    return there == room or any(within(name, each) and there == room_of(each) for each in ROOMS[room])


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room: str) -> None:
    assert list(strays(room, IMPORTS)) == []


def test_the_table_has_no_arrow_that_points_up() -> None:
    order = list(ROOMS)
    found = [(room, each) for room in ROOMS for each in ROOMS[room] if order.index(room_of(each)) >= order.index(room)]
    assert found == []


def test_the_table_has_no_room_that_is_gone() -> None:
    """Those to come are named; every other is there, and so is every module that the table names."""
    to_come = {
        "gsmtp.protocol.client",
        *(f"gsmtp.{room}" for room in ("client", "authres", "queue", "admin", "testing")),
    }
    assert set(ROOMS) - EXISTING <= to_come
    named = {each for uses in ROOMS.values() for each in uses} - to_come
    assert named - MODULES.keys() == set()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("gsmtp.protocol.framing", "gsmtp.protocol.server.options"),
        ("gsmtp.protocol.server.session", "gsmtp.net.errors"),
        ("gsmtp.client.smtp", "gsmtp.protocol.server.session"),
        ("gsmtp.client.smtp", "gsmtp.server.hooks"),
        ("gsmtp.authres.spf", "gsmtp.dns.resolver"),
        ("gsmtp.queue.sqlite", "gsmtp.server.spool"),
        ("gsmtp.admin.metrics", "gsmtp.server.service"),
        ("gsmtp.handlers.maildir", "gsmtp.server.spool"),
        ("gsmtp.cli", "gsmtp.server.service"),
        ("gsmtp.cli", "gsmtp.handlers.maildir"),
        ("gsmtp_workers.master", "gsmtp.reply"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, name: str) -> None:
    class Found(Imports):
        def __init__(self) -> None:
            self.names = {name}

    assert list(strays(room_of(module), {module: Found()})) == [f"{module} imports {name}"]


def test_protocol_and_reply_do_no_io() -> None:
    found = [
        f"{module} imports {name}"
        for module, imports in IMPORTS.items()
        if within(module, "gsmtp.protocol", "gsmtp.reply")
        for name in sorted(imports.names)
        if name.partition(".")[0] in NO_IO
    ]
    assert found == []


def test_no_circles() -> None:
    graph = {module: imports.names & MODULES.keys() - {module} for module, imports in IMPORTS.items()}
    # Modules that import nothing left are taken away until none is left, or a circle is.
    while graph:
        leaves = {module for module, names in graph.items() if not names & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {module: names for module, names in graph.items() if module not in leaves}


def states_assigned(tree: ast.AST) -> Iterator[int]:
    """The lines that assign an attribute `state`, or `_state`, or set one by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in ("state", "_state"):
            yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "object.__setattr__"):
            names = [each.value for each in node.args if isinstance(each, ast.Constant)]
            yield from [node.lineno] * bool({"state", "_state"}.intersection(names))


def test_the_state_of_a_session_is_assigned_in_one_place() -> None:
    # The envelope's `_state` is the handler's own namespace.
    found = {
        module: lines
        for module, path in MODULES.items()
        if within(module, "gsmtp.protocol") and module != "gsmtp.protocol.envelope"
        if (lines := list(states_assigned(ast.parse(path.read_text()))))
    }
    assert list(found) == ["gsmtp.protocol.server.transitions"] and len(found.popitem()[1]) == 1


@pytest.mark.parametrize("line", ["a.state = 1", "a.state, b = 1, 2", "a._state += 1", "setattr(a, 'state', 1)"])
def test_an_assigned_state_is_found(line: str) -> None:
    assert list(states_assigned(ast.parse(line))) == [1]


def loaded_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_master_stays_light() -> None:
    """The master process loads no event loop, no TLS, and no handler."""
    loaded = loaded_by("import gsmtp.cli")
    assert "gsmtp_workers.master" in loaded
    assert loaded & {"gevent", "greenlet", "ssl", "_ssl", "asyncio", "smtplib", "email"} == set()
    server = {name for name in loaded if within(name, "gsmtp.server")}
    assert server == {"gsmtp.server", "gsmtp.server.settings"}
    assert not any(within(name, "gsmtp.handlers") for name in loaded)


def test_the_protocol_can_be_loaded_alone() -> None:
    loaded = loaded_by("import gsmtp.protocol.server.session")
    assert loaded & {"gevent", "socket", "_socket", "ssl", "select", "selectors", "asyncio", "email"} == set()
