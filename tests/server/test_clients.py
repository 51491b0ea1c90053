"""Real clients deliver to the default handler, and what is stored is what was sent."""

from __future__ import annotations

import itertools
import random
import smtplib
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import tool
from harness.client import connect, dot_stuff
from harness.master import Master
from harness.messages import stored, without_trace
from harness.waiting import wait_for

BINDS = ["smtp://127.0.0.1:0", "smtp://[::1]:0", "smtp+unix:{directory}/socket"]
CONTENT = b"From: a@client.example\r\nSubject: hello\r\n\r\nHello.\r\n"
SPOOL = 65536
NUMBERS = itertools.count()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Master]:
    """One for all tests of this file: each has a box of its own."""
    directory = tmp_path_factory.mktemp("server")
    binds = [bind.format(directory=directory) for bind in BINDS if has_ipv6() or "::1" not in bind]
    arguments = [part for bind in binds for part in ("-b", bind)]
    live = Master(directory, [*arguments, "-o", "path=mail/{local}"], workers=2)
    try:
        yield live.until_ready()
    finally:
        live.clean_up()


@dataclass
class Box:
    """A recipient, and the Maildir that gets his mail."""

    address: str
    path: Path

    def contents(self) -> list[bytes]:
        return [without_trace(message) for message in stored(self.path)]


@pytest.fixture
def box(server: Master) -> Box:
    local = f"box{next(NUMBERS)}"
    return Box(f"{local}@here.example", server.directory / "mail" / local)


@pytest.fixture(params=["IPv4", "IPv6", "unix"])
def address(request: pytest.FixtureRequest, server: Master) -> str:
    """The server's address of each kind."""
    marks = {"IPv4": "127.0.0.1", "IPv6": "[::1]", "unix": "/"}
    found = [each for each in server.addresses.values() if each.startswith(marks[request.param])]
    if not found:
        pytest.skip("no IPv6 here")
    return found[0]


def test_swaks(box: Box, address: str) -> None:
    swaks = tool("swaks")
    where = ["--socket", address]
    if not address.startswith("/"):
        host, _, port = address.rpartition(":")
        where = ["--server", host.strip("[]"), "--port", port]
    options = ["--helo", "client.example", "--from", "a@client.example", "--to", box.address]
    run = subprocess.run(
        [swaks, *where, *options, "--data", "Subject: swaks\\n\\n.dot\\n..dots\\n", "--pipeline"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if run.returncode and "IPv6" in run.stdout + run.stderr and "Socket" in run.stdout + run.stderr:
        pytest.skip("swaks has no IPv6: IO::Socket::INET6 is not installed")
    assert run.returncode == 0, run.stdout + run.stderr
    (message,) = stored(box.path)
    assert f"Delivered-To: {box.address}\r\n".encode() in message
    assert without_trace(message).rstrip(b"\r\n") == b"Subject: swaks\r\n\r\n.dot\r\n..dots"


@pytest.mark.parametrize("kept", [True, False])
def test_smtp_source(box: Box, address: str, kept: bool) -> None:
    source = tool("smtp-source")
    where = f"unix:{address}" if address.startswith("/") else f"inet:{address}"
    options = [] if kept else ["-d"]
    run = subprocess.run(
        [source, *options, "-s", "100", "-m", "400", "-l", "4096", "-t", box.address, where],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert not run.stderr, run.stderr
    found = box.contents()
    assert len(found) == 400
    assert all(len(content) >= 4096 for content in found)


def test_smtplib(server: Master, box: Box) -> None:
    host, _, port = server.addresses[BINDS[0]].rpartition(":")
    content = b"Subject: x\r\n\r\n.\r\n..\r\n. x\r\n\xe4\xff\r\n"
    with smtplib.SMTP(host, int(port), timeout=30) as client:
        assert client.sendmail("a@client.example", [box.address], content) == {}
        assert client.sendmail("", [box.address], CONTENT, mail_options=["BODY=8BITMIME"]) == {}
    first, second = stored(box.path)
    assert without_trace(first) == content
    assert without_trace(second) == CONTENT
    assert second.startswith(b"Return-Path: <>\r\n")


def test_a_session_in_one_packet(box: Box, address: str) -> None:
    commands = f"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<{box.address}>\r\nDATA\r\n".encode()
    session = commands + dot_stuff(CONTENT) + commands[16:] + dot_stuff(b".\r\n") + b"QUIT\r\n"
    with connect(address) as sock:
        sock.sendall(session)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    codes = [line[:3] for line in answer.splitlines() if line[3:4] != b"-"]
    assert codes == b"220 250 250 250 354 250 250 250 354 250 221".split()
    assert sorted(box.contents()) == sorted([CONTENT, b".\r\n"])


def lines_of(size: int) -> bytes:
    """Content of exactly that size."""
    line = b"0123456789" * 7 + b"\r\n"
    content = line * (size // len(line)) + b"x" * (size % len(line))
    return content[: size - 2] + b"\r\n"


def octets() -> bytes:
    """Every octet beside every other, save that CR and LF are always together."""
    found = random.Random(1)
    others = [value for value in range(256) if value not in b"\r\n"]
    pieces = []
    for _ in range(2000):
        pieces.append(bytes(found.choices(others, k=found.randrange(60))))
    return b"\r\n".join([*pieces, bytes(others), b""])


CONTENTS = {
    "empty": b"",
    "an empty line": b"\r\n",
    "dots": b".\r\n..\r\n...\r\n.x\r\n x.\r\n\r\n.\r\n",
    "a dot at the end": b"x\r\n.\r\n",
    "eight bits": "Ünïcode ☃\r\n".encode() + b"\x80\xff\xfe\r\n",
    "all octets": octets(),
    "NUL": b"\0\0\r\n\0\r\n",
    "one long line": b"x" * 200_000 + b"\r\n",
    "less than the spool": lines_of(SPOOL - 1),
    "exactly the spool": lines_of(SPOOL),
    "one more than the spool": lines_of(SPOOL + 1),
    "30 MB": lines_of(30_000_000),
}


@pytest.mark.parametrize("slices", ["whole", "pieces"])
def test_the_content_is_stored_as_sent(serve: Callable[..., Master], slices: str) -> None:
    live = serve(spool_memory=SPOOL)
    box = live.directory / "maildir"
    with live.connect() as talk:
        for name, content in CONTENTS.items():
            talk.begin()
            assert talk.ask("DATA").startswith("354")
            data = dot_stuff(content)
            step = len(data) if slices == "whole" or len(data) > 1_000_000 else max(1, len(data) // 300)
            for at in range(0, len(data), step):
                talk.send(data[at : at + step])
            assert talk.reply().startswith("250 2.0.0"), name
            (message,) = stored(box)
            assert without_trace(message) == content, name
            for path in (box / "new").iterdir():
                path.unlink()
        assert talk.ask("QUIT").startswith("221")


def test_a_box_for_each_address(serve: Callable[..., Master]) -> None:
    live = serve("-o", "path=mail/{domain}/{local}", workers=2)
    with live.connect() as talk:
        for content in (b"", lines_of(300_000)):
            reply = talk.deliver(content, "a@here.example", "A@HERE.example", "b@here.example", "postmaster")
            assert reply.startswith("250")
    root = live.directory / "mail"
    for box in ("here.example/a", "here.example/b", "%/postmaster"):
        assert sorted(map(without_trace, stored(root / box))) == [b"", lines_of(300_000)]


HOSTILE = [
    '"../../../evil"',
    '"..".x',
    '".."',
    '"."',
    '"/etc/passwd"',
    '"a/b"',
    '"a\\\\..\\\\b"',
    '"~root"',
    "~",
    '"%2e%2e%2f"',
    "%2e%2e",
    '""',
    '" "',
    '".hidden"',
    '"a."',
    '"-rf"',
    '"*"',
    '"{local}"',
    '"a\\"b"',
    "new",
    "cur",
    "tmp",
    "x" * 64,
    "NEW",
    "\u00e9",
    "e\u0301",
    "\u212aelvin",
    "\u202egnp.exe",
    "\uff0e\uff0e\uff0f",
]


def test_hostile_addresses_have_boxes_of_their_own_below_the_root(serve: Callable[..., Master]) -> None:
    live = serve("-o", "path=mail/{domain}/{local}")
    taken = []
    with live.connect() as talk:
        for local in HOSTILE:
            talk.ask("MAIL FROM:<a@c.example> SMTPUTF8")
            if talk.ask(f"RCPT TO:<{local}@here.example>").startswith("250"):
                taken.append(local)
                assert talk.content(f"{len(taken)}\r\n".encode()).startswith("250")
            else:
                talk.ask("RSET")
    assert set(HOSTILE) - set(taken) == {'"..".x'}  # which is no local part at all
    root = live.directory / "mail" / "here.example"
    assert {path.name for path in live.directory.iterdir()} == {"mail", "output"}
    assert [path.name for path in root.parent.iterdir()] == ["here.example"]
    boxes = list(root.iterdir())
    assert all({path.name for path in box.iterdir()} == {"tmp", "new", "cur"} for box in boxes)
    assert len(boxes) == len(taken) - 1  # new and NEW are one
    found = [int(without_trace(message)) for box in boxes for message in stored(box)]
    assert sorted(found) == list(range(1, len(taken) + 1))


def test_a_client_that_vanishes_leaves_nothing(serve: Callable[..., Master]) -> None:
    live = serve()
    for end in (b"", b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@c.example>\r\nDATA\r\nhalf a message\r\n", b"NOOP"):
        with live.connect() as talk:
            talk.send(end)
    wait_for(lambda: live.log.count(" disconnect ") == 3, what="three sessions to end")
    assert stored(live.directory / "maildir") == []
    assert "Traceback" not in live.log
