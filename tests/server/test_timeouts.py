"""How long clients are waited for, and what a full disk does."""

from __future__ import annotations

import re
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.client import Client, dot_stuff
from harness.master import Master
from harness.messages import stored, without_trace
from harness.waiting import wait_for

TIMEOUT = "421 4.4.2 Timeout, closing connection"


def test_command_timeout(serve: Callable[..., Master]) -> None:
    live = serve(command_timeout=0.5)
    silent, half, opened = live.connect(ehlo=False), live.connect(), live.connect()
    half.send("MAIL FR")
    opened.begin()
    with live.connect() as other:
        began = time.monotonic()
        while time.monotonic() - began < 1.2:  # who talks is not cut off
            assert other.deliver(b"x\r\n").startswith("250")
            time.sleep(0.1)
        for talk in (silent, half, opened):
            assert talk.reply().startswith(TIMEOUT)
            assert talk.reply() == ""
            talk.close()
    wait_for(lambda: live.log.count("reason=timeout") == 3, what="three timeouts")


def test_content_timeout(serve: Callable[..., Master]) -> None:
    live = serve(content_timeout=0.6, command_timeout=60)
    with live.connect() as silent, live.connect() as slow:
        for talk in (silent, slow):
            talk.begin()
            assert talk.ask("DATA").startswith("354")
        silent.send(b"half a mess")
        content = b"." + b"0123456789"
        for octet in content:
            slow.send(b".." if octet == ord(".") else bytes([octet]))
            time.sleep(0.2)
        slow.send(b"\r\n.\r\n")
        assert slow.reply().startswith("250")
        assert silent.reply().startswith(TIMEOUT)
        assert silent.reply() == ""
    (message,) = stored(live.directory / "maildir")
    assert without_trace(message) == content + b"\r\n"


def test_write_timeout(serve: Callable[..., Master]) -> None:
    live = serve(write_timeout=0.5, max_errors=0, max_idle_commands=0)
    with live.connect() as talk, live.connect() as other:
        talk.socket.settimeout(1.0)
        with pytest.raises(OSError):  # at first it blocks, since nobody reads; then it is cut off
            for _ in range(1000):
                try:
                    talk.send(b"HELP\r\n" * 10_000)
                except TimeoutError:
                    assert other.deliver(b"x\r\n").startswith("250")
    live.wait_for_log('disconnect .*reason="client takes no replies"')


def test_a_client_that_never_closes(serve: Callable[..., Master]) -> None:
    live = serve(max_errors=2, linger=0.5)
    with live.connect() as talk:
        for _ in range(3):
            reply = talk.ask("BLAH")
        assert reply.startswith("421")
        assert talk.reply() == ""
        live.wait_for_log('disconnect .*reason="sent away"')
        with pytest.raises(OSError):
            for _ in range(100):
                talk.send(b"NOOP\r\n")
                time.sleep(0.02)


def test_half_closed_clients_get_their_replies(serve: Callable[..., Master]) -> None:
    live = serve()
    with live.connect() as talk:
        talk.begin()
        talk.ask("DATA")
        talk.send(b"x\r\n.\r\nQUIT\r\n")
        talk.socket.shutdown(socket.SHUT_WR)
        assert talk.reply().startswith("250")
        assert talk.reply().startswith("221")


@pytest.mark.parametrize("what", ["spool", "maildir"])
def test_a_full_disk(serve: Callable[..., Master], small_disk: Path, what: str) -> None:
    spool = {"spool_directory": small_disk} if what == "spool" else {}
    box = small_disk / "maildir" if what == "maildir" else None
    live = serve("-o", f"path={box or 'maildir'}", **spool)
    box = box or live.directory / "maildir"
    large = b"0123456789" * 200_000 + b"\r\nQUIT\r\n"
    with live.connect() as talk:
        for _ in range(3):
            reply = talk.deliver(large)
            assert reply.startswith("452 4.3.1 Insufficient system storage [")
            assert stored(box) == []
            assert talk.deliver(b"small\r\n").startswith("250")
            (path,) = (box / "new").iterdir()
            path.unlink()
        assert talk.ask("QUIT").startswith("221")
    wait_for(lambda: live.log.count("reference=") == 3, what="log lines")
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_a_full_disk_while_on_its_way(serve: Callable[..., Master], small_disk: Path) -> None:
    """The disk fills under several sessions at once; each message is stored whole, or deferred and gone."""
    live = serve("-o", f"path={small_disk / 'box'}")
    content = b"0123456789" * 30_000 + b"\r\n"
    talks = [live.connect() for _ in range(6)]
    for talk in talks:
        talk.begin()
        assert talk.ask("DATA").startswith("354")
    for talk in talks:
        talk.send(dot_stuff(content))
    replies = [talk.reply() for talk in talks]
    accepted = sum(reply.startswith("250") for reply in replies)
    assert all(reply.startswith(("250", "452 4.3.1")) for reply in replies)
    assert 0 < accepted < 6
    assert [without_trace(message) for message in stored(small_disk / "box")] == [content] * accepted
    for talk in talks:
        assert talk.ask("NOOP").startswith("250")
        talk.close()


def test_few_descriptors(serve: Callable[..., Master]) -> None:
    """Newcomers get 421; those who were served can have their mail stored all the same; and it passes."""
    live = serve(preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    talks = []
    while (talk := live.connect(ehlo=False)).banner.startswith("220 "):
        talks.append(talk)
    assert re.fullmatch(r"421 4\.3\.2 \S+ Too many connections, try again later", talk.banner)
    assert talk.reply() == ""
    talk.close()
    large = b"x" * 400_000 + b"\r\n"  # in a file while it comes
    for each in talks:
        assert each.ask("EHLO client.example").startswith("250")
    for each in talks[:5]:
        each.begin()
        assert each.ask("DATA").startswith("354")
    for each in talks[:5]:
        each.send(dot_stuff(large))
    assert {each.reply()[:3] for each in talks[:5]} == {"250"}
    for each in talks:
        each.close()
    wait_for(lambda: live.connect(ehlo=False).banner.startswith("220 "), what="a place")
    assert len(stored(live.directory / "maildir")) == 5


def test_no_memory_for_what_is_refused(serve: Callable[..., Master]) -> None:
    live = serve(max_message_size=1000)
    with Client(live.address) as talk:
        assert talk.ask("EHLO c.example").startswith("250")
        assert talk.deliver(b"x" * 5_000_000 + b"\r\nRSET\r\n").startswith("552 5.3.4")
        assert talk.deliver(b"x\r\n").startswith("250")
    assert len(stored(live.directory / "maildir")) == 1
