"""gsmtp/handlers/maildir.py with real boxes; envelope and message are plain objects of the server's shape."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from gsmtp.handlers.maildir import Maildir, _make_box
from gsmtp.reply import Reject
from gsmtp.server.spool import Spool

TRACE = b"Received: from client.example by mx.example;\r\n\tMon, 2 Jan 2006 15:04:05 +0000\r\n"


def recipient(address: str) -> SimpleNamespace:
    local, _, domain = address.rpartition("@") if "@" in address else (address, "", "")
    return SimpleNamespace(address=address, local=local, domain=domain.lower(), state=SimpleNamespace())


def envelope(*addresses: str, sender: str = "sender@client.example") -> SimpleNamespace:
    return SimpleNamespace(
        id="E1", sender=sender, recipients=[recipient(address) for address in addresses], session=None
    )


def deliver(
    handler: Maildir, what: SimpleNamespace, content: bytes = b"Subject: x\r\n\r\nbody\r\n", limit: int = 1000
) -> None:
    spool = Spool(None, limit)
    try:
        spool.write(content)
        spool.finish()
        message = SimpleNamespace(id="M1", size=spool.size, spool=spool, trace=TRACE)
        assert handler.on_message(what, message) is None  # type: ignore[func-returns-value]
    finally:
        spool.close()


def mails(box: Path) -> list[bytes]:
    assert os.listdir(box / "tmp") == []
    return [path.read_bytes() for path in sorted((box / "new").iterdir())]


@pytest.fixture
def start() -> Iterator[Callable[..., Maildir]]:
    started: list[Maildir] = []

    def start(path: Path | str, **options: Any) -> Maildir:
        handler = Maildir(str(path), **options)
        handler.on_start(None)
        started.append(handler)
        return handler

    yield start
    for handler in started:
        handler.on_stop()


Start = Callable[..., Maildir]


@pytest.mark.parametrize(
    "content", [b"", b"Subject: x\r\n\r\n.\r\n", b"no end of line \0\xff", b"x\r\n" * 200_000], ids=len
)
@pytest.mark.parametrize("fsync", [True, "no"])
def test_one_box(tmp_path: Path, start: Start, content: bytes, fsync: bool | str) -> None:
    box = tmp_path / "deep" / "er" / "box"
    handler = start(box, fsync=fsync)
    deliver(handler, envelope("ann@x.example", "Bob@y.example", "ann@x.example"), content)
    assert mails(box) == [
        b"Return-Path: <sender@client.example>\r\n"
        + b"Delivered-To: ann@x.example\r\nDelivered-To: Bob@y.example\r\n"
        + TRACE
        + content
    ]
    for path in (box, box / "tmp", box / "new", box / "cur"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert next((box / "new").iterdir()).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("limit", [0, 100_000])
def test_a_box_per_address(tmp_path: Path, start: Start, limit: int) -> None:
    handler = start(f"{tmp_path}/mail/{{domain}}/{{local}}")
    deliver(
        handler,
        envelope("ann@x.example", "ANN@X.example", "bob@x.example", "postmaster", sender=""),
        b"hi",
        limit,
    )
    head = b"Return-Path: <>\r\n"
    root = tmp_path / "mail"
    assert mails(root / "x.example/ann") == [
        head + b"Delivered-To: ann@x.example\r\nDelivered-To: ANN@X.example\r\n" + TRACE + b"hi"
    ]
    assert mails(root / "x.example/bob") == [head + b"Delivered-To: bob@x.example\r\n" + TRACE + b"hi"]
    assert mails(root / "%/postmaster") == [head + b"Delivered-To: postmaster\r\n" + TRACE + b"hi"]
    assert sorted(os.listdir(root)) == ["%", "x.example"]
    assert (root / "x.example").stat().st_mode & 0o777 == 0o700


def test_hostile_recipients_stay_inside(tmp_path: Path, start: Start) -> None:
    handler = start(tmp_path / "mail" / "{local}")
    what = envelope()
    locals_ = [
        "../../out",
        "/etc/x",
        "..",
        ".",
        "a\0b",
        "a\r\nInjected: yes",
        "new",
        "x" * 5000,
        "ü" * 300,
        "\ud800",
    ]
    what.recipients = [SimpleNamespace(address=f"{name}@x", local=name, domain="x") for name in locals_]
    deliver(handler, what)
    assert os.listdir(tmp_path) == ["mail"]
    boxes = list((tmp_path / "mail").iterdir())
    assert len(boxes) == len(locals_)
    for box in boxes:
        (mail,) = mails(box)
        assert mail.count(b"\r\n", 0, mail.index(b"Received:")) == 2
        assert not re.search(rb"^Injected", mail, re.M)


def test_utf8_addresses(tmp_path: Path, start: Start) -> None:
    handler = start(tmp_path)
    deliver(handler, envelope("zoë@x.example", sender="josé@client.example"))
    assert mails(tmp_path)[0].startswith(
        "Return-Path: <josé@client.example>\r\nDelivered-To: zoë@x.example\r\n".encode()
    )


def test_workers_that_start_together_make_one_box(tmp_path: Path) -> None:
    for turn in range(20):
        root = tmp_path / str(turn) / "deep" / "box"
        with ThreadPoolExecutor(6) as workers:
            for done in [workers.submit(_make_box, str(root), str(root), False) for _ in range(6)]:
                done.result()
        assert sorted(os.listdir(root)) == ["cur", "new", "tmp"]


def test_names(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a/b:c.example")
    handlers = [start(tmp_path), start(tmp_path)]  # two workers that were given the same process id
    tasks = [gevent.spawn(deliver, handlers[n % 2], envelope("ann@x.example"), b"%d" % n) for n in range(60)]
    gevent.joinall(tasks, raise_error=True)
    assert sorted(int(mail.rpartition(b"\n")[2]) for mail in mails(tmp_path)) == list(range(60))
    for name in os.listdir(tmp_path / "new"):
        stem, size = name.split(",S=")
        assert re.fullmatch(rf"\d{{10}}\.M\d{{6}}P{os.getpid()}R[0-9a-f]{{8}}Q\d+\.a\\057b\\072c\.example", stem)
        assert int(size) == (tmp_path / "new" / name).stat().st_size


@pytest.mark.parametrize("domains", [["X.example", "y.example"], "x.example, y.example", ("x.example", " Y.example ")])
def test_domains(tmp_path: Path, domains: Any) -> None:
    handler = Maildir(str(tmp_path), domains=domains)
    for address in ("ann@x.example", "ann@Y.EXAMPLE", "postmaster"):
        handler.on_rcpt(envelope(), recipient(address))
    for address in ("ann@z.example", "ann@sub.x.example", "ann@xxexample"):
        with pytest.raises(Reject) as caught:
            handler.on_rcpt(envelope(), recipient(address))
        assert (caught.value.reply.code, caught.value.reply.enhanced) == (550, "5.7.1")
    Maildir(str(tmp_path)).on_rcpt(envelope(), recipient("any@where.example"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": 5}, "path"),
        ({"path": ""}, "path"),
        ({"path": "{nobody}"}, "placeholder"),
        ({"domains": ""}, "domains"),
        ({"domains": []}, "domains"),
        ({"domains": ["x", 5]}, "domains"),
        ({"domains": 5}, "domains"),
        ({"fsync": "perhaps"}, "fsync"),
        ({"fsync": None}, "fsync"),
        ({"fsync": 2}, "fsync"),
        ({"writers": 0}, "writers"),
        ({"writers": "two"}, "writers"),
        ({"writers": "1.5"}, "writers"),
        ({"writers": True}, "writers"),
        ({"sweep_hours": "-1"}, "sweep_hours"),
        ({"sweep_hours": "nan"}, "sweep_hours"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Maildir(**options)
    assert "\n" not in str(caught.value)


def test_options_from_the_command_line(tmp_path: Path, start: Start) -> None:
    handler = start(tmp_path, domains="x.example", fsync="false", writers="3", sweep_hours="1.5")
    deliver(handler, envelope("ann@x.example"))
    assert len(mails(tmp_path)) == 1


@pytest.mark.parametrize("template", ["box", "mail/{local}"])
def test_a_box_that_vanished_is_made_again(tmp_path: Path, start: Start, template: str) -> None:
    handler = start(tmp_path / template)
    box = tmp_path / template.format(local="ann")
    for gone in (box, box / "new", box / "tmp", tmp_path / template.split("/")[0]):
        deliver(handler, envelope("ann@x.example"))
        assert mails(box)
        shutil.rmtree(gone)
    deliver(handler, envelope("ann@x.example", "bob@x.example"))
    assert len(mails(box)) == 1


@pytest.mark.parametrize("template", ["{}", "{}/sub", "{}/{{local}}"])
def test_a_root_that_cannot_be_written(tmp_path: Path, template: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OSError, match="Maildir cannot be written") as caught:
        Maildir(template.format(blocked)).on_start(None)
    assert str(blocked) in str(caught.value)
    with pytest.raises(OSError, match="Maildir cannot be written"):  # not even root writes there
        Maildir(template.format("/proc/self")).on_start(None)


@pytest.mark.parametrize("template", ["box", "{domain}/[{local}]"])
def test_sweep(tmp_path: Path, start: Start, template: str) -> None:
    box = tmp_path / template.format(domain="x.example", local="ann")
    (box / "tmp" / "directory").mkdir(parents=True)
    (box / "new").mkdir()
    other = tmp_path / "other" / "tmp"
    other.mkdir(parents=True)
    now = time.time()
    for path, hours in (
        (box / "tmp/old", 37),
        (box / "tmp/young", 35),
        (box / "new/old", 50),
        (other / "old", 50),
    ):
        path.write_bytes(b"x")
        os.utime(path, (now, now - hours * 3600))
    os.symlink(other / "old", box / "tmp/link")
    os.utime(box / "tmp/directory", (now, now - 50 * 3600))
    start(tmp_path / template)
    deadline = time.monotonic() + 10
    while (box / "tmp/old").exists() and time.monotonic() < deadline:
        gevent.sleep(0.01)
    assert sorted(os.listdir(box / "tmp")) == ["directory", "link", "young"]
    assert (box / "new/old").exists()
    assert (other / "old").exists()


def test_the_sweep_goes_on(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsmtp.handlers.maildir._SWEEP_INTERVAL", 0.05)
    start(tmp_path)
    gevent.sleep(0.3)
    for number in range(2):  # a crash while the server runs, and another
        (tmp_path / "tmp" / f"old{number}").write_bytes(b"x")
        os.utime(tmp_path / "tmp" / f"old{number}", (0, 0))
        deadline = time.monotonic() + 10
        while os.listdir(tmp_path / "tmp") and time.monotonic() < deadline:
            gevent.sleep(0.01)
        assert os.listdir(tmp_path / "tmp") == []


def test_one_worker_sweeps_and_says_where_mail_goes(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for slot in range(2):
        handler = Maildir(f"{tmp_path}/{{local}}")
        handler.on_start(SimpleNamespace(slot=slot))
        assert (handler._sweeper is None) == (slot == 1)
        handler.on_stop()
    assert [record.getMessage() for record in caplog.records] == [f"mail is stored in {tmp_path}/{{local}}"]


def test_no_sweep(tmp_path: Path, start: Start) -> None:
    start(tmp_path, sweep_hours=0)
    (tmp_path / "tmp/old").write_bytes(b"x")
    os.utime(tmp_path / "tmp/old", (0, 0))
    start(tmp_path, sweep_hours="0")
    gevent.sleep(0.1)
    assert (tmp_path / "tmp/old").exists()


def test_a_full_disk(small_disk: Path, start: Start) -> None:
    handler = start(small_disk / "{local}")
    accepted = 0
    with pytest.raises(OSError, match="No space left") as caught:
        while True:
            deliver(handler, envelope("ann@x.example", "bob@x.example"), b"y" * 90_000, 100)
            accepted += 1
    assert caught.value.errno == errno.ENOSPC
    assert accepted > 1
    for name in ("ann", "bob"):
        stored = mails(small_disk / name)
        assert len(stored) == accepted
        assert all(mail.endswith(b"y" * 90_000) for mail in stored)
    shutil.rmtree(small_disk / "ann")
    deliver(handler, envelope("bob@x.example"), b"z" * 90_000)


WORKER = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, os, sys
from types import SimpleNamespace as N
from gsmtp.handlers.maildir import Maildir
from gsmtp.server.spool import Spool

handler = Maildir(sys.argv[1])
handler.on_start(None)

def session(number):
    count = 0
    while True:
        count += 1
        body = f"{number}.{count}|".encode() * (100 if count % 5 else 60_000)
        spool = Spool(None, 100_000)
        spool.write(body)
        spool.finish()
        names = [f"u{(number + n) % 4}" for n in range(1 + count % 2)]
        envelope = N(sender="", recipients=[N(address=f"{n}@x", local=n, domain="x") for n in names])
        handler.on_message(envelope, N(spool=spool, size=spool.size, trace=b""))
        spool.close()
        for name in names:
            os.write(1, f"{name} {number}.{count} {len(body)}\\n".encode())

gevent.joinall([gevent.spawn(session, number) for number in range(8)])
"""


def test_kill_loses_no_acknowledged_mail(tmp_path: Path) -> None:
    path = f"{tmp_path}/{{local}}"
    for turn in range(3):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, path], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        told = worker.stdout.readline()
        time.sleep(0.07 * turn)
        worker.send_signal(signal.SIGKILL)
        told += worker.stdout.read()
        worker.wait()
        worker.stdout.close()
        found: set[tuple[str, str, str]] = set()
        for file in tmp_path.glob("u*/new/*"):
            body = file.read_bytes().split(b"\r\n", 2)[2]
            mark = body[: body.index(b"|") + 1]
            assert body == mark * (len(body) // len(mark))
            assert len(body) // len(mark) in (100, 60_000)
            found.add((file.parts[-3], mark[:-1].decode(), str(len(body))))
        acknowledged = {tuple(line.split()) for line in told.decode().splitlines()}
        assert acknowledged
        assert acknowledged <= found
        for box in tmp_path.iterdir():
            shutil.rmtree(box)
