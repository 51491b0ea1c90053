"""The log of a real server: one line an event, whatever a client says."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest
from harness.client import Client
from harness.master import Master, command, environment
from harness.waiting import wait_for

from gsmtp import logs

EVENT = re.compile(
    r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:master|worker-\d+) [\w.]+"
    r"(?: \w+=(?:[A-Za-z0-9@._:<>/+\[\]*(),\-]+|\"(?:[^\"\\]|\\.)*\"))*"
)
ESCAPES = "\x1b[31m\x1b]0;title\x07\x9b31m\x7f\x00\x08"
SAYINGS = {
    "escapes": ESCAPES,
    "bare CR": "x\ry 2026-01-01T00:00:00.000Z master forged",
    "tab": "x\tlevel=error",
    "quotes": 'x" level=error text="forged\\',
    "unicode": "ü☃\u2028\u2029\u0085\u202e\U0001f600",
    "long": "x" * 3000,
    "longer than a line may be": "y" * 50_000,
}
NAMELESS = "XFORGED\x1b[31m"


def provoke(live: Master) -> None:
    """Say all of it at all places."""
    for saying in SAYINGS.values():
        for line in (
            f"EHLO {saying}",
            f"HELO {saying}",
            f"MAIL FROM:<{saying}@c.example>",
            f'MAIL FROM:<"{saying}"@c.example> SMTPUTF8',
            f"MAIL FROM:<a@c.example> X={saying}",
            f"RCPT TO:<{saying}@here.example>",
            f'RCPT TO:<"{saying}"@here.example>',
            saying,
            f"{NAMELESS} {saying}",
        ):
            with live.connect() as talk:
                if line.startswith(("RCPT", "DATA")):
                    talk.ask("MAIL FROM:<a@c.example> SMTPUTF8")
                talk.ask(line)
                if not line.startswith("RCPT"):
                    talk.ask("MAIL FROM:<a@c.example>")
                talk.ask("RCPT TO:<b@here.example>")
                talk.content(b"x\r\n")


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_client_cannot_forge_a_line(serve: Callable[..., Master], format: str) -> None:
    live = serve("--log-format", format, "--log-level", "debug")
    provoke(live)
    with live.connect() as talk:
        talk.send(b"EHLO \xff\xfe\r\nEHLO \xc3\r\n")
        talk.reply()
        talk.reply()
    assert live.stop() == 0
    log = live.log_path.read_bytes()
    assert log.endswith(b"\n")
    assert not re.search(rb"[^\x20-\x7e\n]", log)
    lines = log.decode("ascii").split("\n")[:-1]
    for each in lines:
        if format == "json":
            record = json.loads(each)
            assert record["time"] and record["process"] and record["event"]
        else:
            assert EVENT.fullmatch(each), each
    assert not any(re.match(r"\S+ master forged", line) for line in lines)
    assert "Traceback" not in live.log
    assert max(map(len, lines)) < 50_000


def test_ids(serve: Callable[..., Master]) -> None:
    live = serve("--log-format", "json", workers=2)
    said: dict[str, str] = {}
    for _ in range(5):
        with live.connect() as talk:
            assert talk.ask("VRFY <").startswith(("2", "5"))
            talk.ask("MAIL FROM:<>>")
            for _ in range(2):
                assert talk.deliver(b"x\r\n").startswith("250")
            assert talk.ask("QUIT").startswith("221")
    assert live.stop() == 0
    records = live.records()
    by_session: dict[str, list[str]] = {}
    for record in records:
        if record["process"] == "master" or record["event"] == "gsmtp.handler":
            assert "session" not in record
            continue
        by_session.setdefault(record["session"], []).append(record["event"])
        if record["event"] == "message":
            assert record["message"] not in said
            said[record["message"]] = record["session"]
            assert record["reply"].startswith("250")
            assert record["from"] == "<sender@client.example>"
            assert record["to"] == ["<box@here.example>"]
    assert len(by_session) == 5
    assert len(said) == 10
    for events in by_session.values():
        assert events[0] == "connect"
        assert events[-1] == "disconnect"
        assert events.count("message") == 2
        assert "refused" in events


RAISES = """\
from gsmtp import Handler
class Inbox(Handler):
    def on_message(self, envelope, message):
        raise ZeroDivisionError("first line\\n2026-01-01T00:00:00.000Z master forged\\x1b[31m")
"""


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_traceback_and_its_reference(serve: Callable[..., Master], format: str) -> None:
    live = serve("--log-format", format, code=RAISES)
    with live.connect() as talk:
        reference = talk.deliver(b"x\r\n").rsplit("[", 1)[1].rstrip("]")
    assert live.stop() == 0
    assert not re.search(r"[^\x20-\x7e\n]", live.log)
    if format == "json":
        (record,) = [record for record in live.records() if record.get("reference") == reference]
        assert "ZeroDivisionError: first line" in record["traceback"]
        return
    lines = live.lines
    (at,) = [at for at, line in enumerate(lines) if f"reference={reference} " in line]
    trace = lines[at + 1 :]
    trace = trace[: next(at for at, line in enumerate(trace) if not line.startswith("    "))]
    assert any("ZeroDivisionError: first line" in line for line in trace)
    assert any("forged" in line for line in trace)
    assert not any(line.startswith("2026-01-01") for line in lines)


def test_a_file(serve: Callable[..., Master]) -> None:
    live = serve("--log-file", "own.log")
    with live.connect() as talk:
        assert talk.deliver(b"x\r\n").startswith("250")
    assert live.stop() == 0
    assert " message " in live.log
    assert live.output.read_text() == ""


def test_a_relative_file_is_the_same_for_all(serve: Callable[..., Master], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    live = serve("--log-file", "own.log", chdir=tmp_path / "elsewhere")
    with live.connect() as talk:
        assert talk.deliver(b"x\r\n").startswith("250")
    assert live.stop() == 0
    assert " master workers " in live.log
    assert " worker-0 message " in live.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_file_belongs_to_those_who_write_it(serve: Callable[..., Master]) -> None:
    group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    live = serve("--log-file", "own.log", "--group", group.gr_name)
    assert live.log_path.stat().st_gid == group.gr_gid
    with live.connect() as talk:
        assert talk.deliver(b"x\r\n").startswith("250")


def fill(pipe: str) -> None:
    """Write into it until not one octet more fits."""
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * size)
    os.close(writer)


def test_a_log_that_nobody_reads_holds_nobody_up(tmp_path: Path) -> None:
    """Neither the workers nor the master, which has to start workers and to hear signals."""
    path = tmp_path / "socket"
    live = subprocess.Popen(
        command("-b", f"smtp+unix:{path}", "-w", "2"),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert live.stderr is not None
    master = psutil.Process(live.pid)

    def workers() -> set[int]:
        found = set()
        for child in master.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
        return found

    def replaced(pid: int) -> bool:
        return len(workers() - {pid}) == 2

    try:
        wait_for(path.exists, what="the socket")
        wait_for(lambda: len(workers()) == 2, what="workers")
        fill(f"/proc/{live.pid}/fd/2")
        for _ in range(2):
            killed = min(workers())
            os.kill(killed, signal.SIGKILL)
            wait_for(partial(replaced, killed), what="another worker")
        with Client(str(path)) as talk:
            assert talk.ask("EHLO client.example").startswith("250")
            assert talk.deliver(b"x\r\n").startswith("250")
        live.send_signal(signal.SIGTERM)
        assert live.wait(8) == 0  # before SIGALRM ends a worker that hangs
    finally:
        for child in master.children() if live.poll() is None else []:
            child.kill()
        live.kill()
        live.wait()
        live.stderr.close()


def test_what_is_not_plain_is_escaped() -> None:
    value = "".join(map(chr, range(0x100))) + "\u2028\ud800"
    for format in ("text", "json"):
        written = logs.line(format, 0.0, "master", "event", {"a": value, "b": [value, value], "c": 1, "d": None})
        assert written.endswith("\n")
        assert re.fullmatch(r"[\x20-\x7e]+", written[:-1])
