"""Who changes a module finds its tests: beside it in name, or in the table here.

The tests of gsmtp/ROOM/NAME.py are in tests/ROOM/test_NAME.py, or in test_ROOM_NAME.py there where another room has a
module of the same name. The files of a package in a room may be tested in the folder of the room. What is better
tested by theme than by module stands in the table.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent

# Modules without a file of their own, as patterns -> where they are tested, from tests/.
TESTED_IN: dict[str, tuple[str, ...]] = {
    "gsmtp/counters.py": ("test_adding.py", "test_installed.py"),
    "gsmtp/dns/answers.py": ("dns/test_resolver.py", "dns/test_static.py"),
    "gsmtp/launch.py": ("test_cli.py",),
    "gsmtp/values.py": ("test_settings.py",),
    # Decoding and encoding are tested as a whole: a file of tests/mime/fixtures for each rule.
    "gsmtp/mime/*": ("mime/test_mime_fixtures.py", "mime/test_mime_encode.py", "mime/test_mime_roundtrip.py"),
    "gsmtp/protocol/envelope.py": ("server/test_received.py", "server/test_hooks.py"),
    "gsmtp/protocol/proxy/*": ("protocol/test_proxy.py",),
    "gsmtp/protocol/sasl/*": ("protocol/test_sasl_mechanisms.py", "protocol/test_sasl.py"),
    # What is said to a client is in tests/dialogues.
    "gsmtp/protocol/server/*": ("test_dialogues.py", "protocol/test_session.py", "protocol/test_extensions.py"),
    "gsmtp/net/errors.py": ("net/test_transport.py", "server/test_tls.py"),
    "gsmtp/net/gevent_transport.py": ("net/test_transport.py",),
    "gsmtp/net/socket_transport.py": ("net/test_transport.py",),
    "gsmtp/net/tls_settings.py": ("test_settings.py", "server/test_tls.py"),
    "gsmtp/net/tls_transport.py": ("net/test_transport.py", "net/test_net_tls.py"),
    "gsmtp/server/content.py": ("test_dialogues.py", "server/test_stream.py"),
    "gsmtp/server/dispatcher.py": ("test_dialogues.py", "server/test_hooks.py"),
    "gsmtp/server/failures.py": ("server/test_hooks.py", "test_logs.py"),
    "gsmtp/server/listener.py": ("test_settings.py", "test_cli.py"),
    "gsmtp/server/loader.py": ("test_cli.py",),
    "gsmtp/server/message.py": ("server/test_spool.py", "server/test_hooks.py"),
    "gsmtp/server/readers.py": ("server/test_spool.py",),
    "gsmtp/server/runner.py": ("server/test_hooks.py", "server/test_timeouts.py"),
    "gsmtp/server/service.py": ("test_cli.py", "server/test_drain.py"),
    "gsmtp/server/settings.py": ("test_settings.py",),
    # Short soaks run all of it, with leaks and faults that must be found.
    "gsmtp/soak/*": ("test_soak.py",),
    "gsmtp/storage/writer.py": ("storage/test_store.py",),
    "gsmtp_workers/columns.py": ("workers/test_scoreboard.py",),
    "gsmtp_workers/config.py": ("workers/test_pool.py",),
    "gsmtp_workers/generation.py": ("workers/test_pool.py",),
    "gsmtp_workers/identity.py": ("workers/test_master.py",),
    "gsmtp_workers/main.py": ("workers/test_master.py",),
    "gsmtp_workers/process.py": ("workers/test_pool.py", "workers/test_master.py"),
    "gsmtp_workers/proctitle.py": ("workers/test_master.py",),
}


def modules() -> Iterator[str]:
    """Yield each module that has code, as a path from gsmtp/ or from workers/."""
    for top in (ROOT / "gsmtp", ROOT / "workers" / "gsmtp_workers"):
        for path in sorted(top.rglob("*.py")):
            if "def " in path.read_text() or path.stem not in ("__init__", "__main__"):
                yield str(path.relative_to(top.parent))


def own_file(module: str) -> Path | None:
    """Return the test file that bears the module's name, if there is one."""
    _, *rooms, name = Path(module).with_suffix("").parts
    if module.startswith("gsmtp_workers/"):
        rooms.insert(0, "workers")
    if name == "__init__":
        *rooms, name = rooms or [module.partition("/")[0]]
    names = [name] if not rooms else [name, "_".join([rooms[-1], name])]
    # A package in a room may be tested in the folder of the room, but no room at the top.
    folders = [TESTS.joinpath(*rooms[:depth]) for depth in range(len(rooms), 0, -1)] or [TESTS]
    candidates = [folder / f"test_{each}.py" for folder in folders for each in names]
    return next((path for path in candidates if path.exists()), None)


def listed(module: str) -> list[str]:
    """Return the patterns of the table that match the module."""
    return [pattern for pattern in TESTED_IN if fnmatch.fnmatchcase(module, pattern)]


def test_each_module_has_its_tests() -> None:
    nowhere = [module for module in modules() if own_file(module) is None and not listed(module)]
    assert not nowhere, f"give each a test file of its name, or an entry in TESTED_IN: {nowhere}"


def test_the_table_says_what_is_true() -> None:
    without = [module for module in modules() if own_file(module) is None]
    for pattern, places in TESTED_IN.items():
        assert fnmatch.filter(without, pattern), f"no module needs the entry {pattern}"
        for place in places:
            assert (TESTS / place).exists(), f"{pattern}: there is no {place}"
