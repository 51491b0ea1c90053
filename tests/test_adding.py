"""What a new setting and a new counter take: two files of code each, and nothing else of the tree.

Each test adds one to a copy of the code by substitution of text, and sees it arrive.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gsmtp_workers.columns import Kind
from harness.master import ROOT, Master, run
from harness.waiting import wait_for


class Copy:
    """A copy of the code that the servers of one test run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed: set[str] = set()
        for room in ("gsmtp", "workers"):
            shutil.copytree(ROOT / room, path / room, ignore=shutil.ignore_patterns("*.so", "__pycache__"))

    def insert(self, file: str, before: str, text: str) -> None:
        """Insert lines into a file, before the one place where `before` is."""
        path = self.path / file
        code = path.read_text()
        assert code.count(before) == 1, f"{file} has {code.count(before)} places with {before!r}"
        path.write_text(code.replace(before, text + before))
        self.changed.add(file)

    def environment(self) -> dict[str, str]:
        """See harness.master.environment."""
        path = os.pathsep.join([str(self.path), str(self.path / "workers")])
        return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """A copy that `serve` and `run` take in place of the checkout."""
    made = Copy(tmp_path / "copy")
    monkeypatch.setattr("harness.master.environment", made.environment)
    return made


def test_a_setting_that_the_protocol_reads(copy: Copy, serve: Callable[..., Master], tmp_path: Path) -> None:
    copy.insert(
        "gsmtp/protocol/server/options.py",
        "    max_errors: int = setting(",
        '    noop_echo: int = setting(0, "octets of its argument that the reply to NOOP repeats", most=100)\n',
    )
    copy.insert(
        "gsmtp/protocol/server/commands.py",
        "    return replies.TOO_MANY_COMMANDS if smtp.idles() else replies.OK\n",
        '    if smtp.options.noop_echo:\n        return Reply(250, "2.0.0", argument[: smtp.options.noop_echo])\n',
    )
    assert len(copy.changed) == 2

    listed = run("--settings", directory=tmp_path)
    assert "  noop_echo = 0\n      octets of its argument that the reply to NOOP repeats\n" in listed.stdout
    for arguments, complaint in (
        (("--set", "noop_echo=101"), "noop_echo must be at most 100, not 101"),
        (("--set", "noop_echo=-1"), "noop_echo must be at least 0, not -1"),
        (("--set", "noop_echo=many"), "noop_echo must be a whole number, not 'many'"),
        (("--set", "nop_echo=1"), "unknown setting nop_echo; did you mean noop_echo?"),
    ):
        done = run(*arguments, "--check", directory=tmp_path)
        assert (done.returncode, done.stderr) == (1, f"gsmtp-master: {complaint}\n")

    two = '[[listen]]\nbind = "smtp://127.0.0.1:0"\n[[listen]]\nbind = "127.0.0.1:0"\nnoop_echo = 5\n'
    live = serve(toml=two)
    for address, reply in zip(live.all_addresses, ("250 2.0.0 Ok", "250 2.0.0 hello"), strict=True):
        with live.connect(address) as client:
            assert client.ask("NOOP hello, world") == reply


def test_a_counter(copy: Copy, serve: Callable[..., Master]) -> None:
    copy.insert(
        "gsmtp/counters.py",
        "    octets: int = counter(",
        '    recipients: int = counter("recipients of the messages accepted")\n',
    )
    copy.insert(
        "gsmtp/server/dispatcher.py",
        "            context.counters.octets += size\n",
        "            context.counters.recipients += len(recipients)\n",
    )
    assert len(copy.changed) == 2

    live = serve()
    board = live.scoreboard()
    (column,) = [column for column in board.columns if column.name == "recipients"]
    assert (column.kind, column.help) == (Kind.COUNTER, "recipients of the messages accepted")
    with live.connect() as client:
        assert client.begin("a@here.example", "b@here.example")[-1].startswith("250")
        assert client.ask("DATA").startswith("354")
        assert client.ask("x\r\n.").startswith("250")
    wait_for(lambda: board.totals()["recipients"] == 2, what="the recipients on the scoreboard")
    assert board.totals()["messages"] == 1
