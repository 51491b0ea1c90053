"""Imports point down only: reply < protocol < handler < server < cli, and `workers` stands alone.

Read from the source, so that an import inside a function counts as well; what stands under TYPE_CHECKING does not.
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


def strays(package: str, *allowed: str) -> Iterator[str]:
    """What modules of `package` import of gsmtp and workers beyond what is allowed."""
    for module, imports in IMPORTS.items():
        if within(module, package):
            for name in sorted(imports.names):
                if within(name, "gsmtp", "gsmtp_workers") and not within(name, *allowed):
                    yield f"{module} imports {name}"


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("gsmtp_workers", ["gsmtp_workers"]),
        ("gsmtp.reply", []),
        ("gsmtp.declare", []),
        ("gsmtp.protocol", ["gsmtp.protocol", "gsmtp.reply", "gsmtp.declare"]),
        ("gsmtp.net", ["gsmtp.net", "gsmtp.reply", "gsmtp.declare"]),
        ("gsmtp.handler", ["gsmtp.protocol", "gsmtp.reply"]),
        ("gsmtp.mime", ["gsmtp.mime"]),
        ("gsmtp.values", ["gsmtp.declare"]),
        ("gsmtp.binds", ["gsmtp.declare"]),
        ("gsmtp.net.tls_settings", ["gsmtp.declare"]),
        ("gsmtp.server.settings", ["gsmtp.declare"]),
        (
            "gsmtp.settings",
            [
                "gsmtp.binds",
                "gsmtp.declare",
                "gsmtp.logs",
                "gsmtp.net.tls_settings",
                "gsmtp.protocol",
                "gsmtp.server.settings",
                "gsmtp.values",
            ],
        ),
        ("gsmtp.logs", ["gsmtp.declare"]),
        ("gsmtp.storage", ["gsmtp.storage"]),
        ("gsmtp.storage.writer", []),
        ("gsmtp.soak.verdict", []),
        ("gsmtp.soak.plot", []),
    ],
)
def test_only(package: str, allowed: list[str]) -> None:
    assert list(strays(package, *allowed)) == []


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("gsmtp.handlers", ["gsmtp.server", "gsmtp.cli", "gsmtp_workers"]),
        ("gsmtp.client", ["gsmtp.server", "gsmtp.cli", "gsmtp.handlers", "gsmtp_workers"]),
        ("gsmtp.server", ["gsmtp.cli", "gsmtp.handlers", "gsmtp.client"]),
        ("gsmtp.cli", ["gsmtp.server", "gsmtp.handlers", "gsmtp.client"]),
        ("gsmtp.launch", ["gsmtp.server", "gsmtp.handlers", "gsmtp.client"]),
    ],
)
def test_never(package: str, forbidden: list[str]) -> None:
    found = [
        f"{module} imports {name}"
        for module, imports in IMPORTS.items()
        if within(module, package)
        for name in sorted(imports.names)
        if within(name, *forbidden)
    ]
    assert found == []


def test_nothing_imports_the_soak() -> None:
    found = [
        f"{module} imports {name}"
        for module, imports in IMPORTS.items()
        if not within(module, "gsmtp.soak")
        for name in sorted(imports.names)
        if within(name, "gsmtp.soak")
    ]
    assert found == []


def test_protocol_and_reply_do_no_io() -> None:
    found = [
        f"{module} imports {name}"
        for module, imports in IMPORTS.items()
        if within(module, "gsmtp.protocol", "gsmtp.reply")
        for name in sorted(imports.names)
        if name.partition(".")[0] in NO_IO
    ]
    assert found == []


def test_the_rooms_exist() -> None:
    for module in (
        "gsmtp.reply",
        "gsmtp.protocol.server.session",
        "gsmtp.handler",
        "gsmtp.server.connection",
        "gsmtp.cli",
    ):
        assert module in MODULES
    assert "gsmtp_workers.master" in IMPORTS["gsmtp.launch"].names


def test_no_circles() -> None:
    graph = {module: imports.names & MODULES.keys() - {module} for module, imports in IMPORTS.items()}
    # Modules that import nothing left are taken away until none is left, or a circle is.
    while graph:
        leaves = {module for module, names in graph.items() if not names & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {module: names for module, names in graph.items() if module not in leaves}


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
