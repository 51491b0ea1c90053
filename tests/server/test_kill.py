"""kill -9 of workers and of the master, under load: what was acknowledged is there, whole and once."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import time
from collections.abc import Callable

import psutil
import pytest
from harness.client import connect
from harness.master import Master
from harness.waiting import wait_for
from load import Load

BOXES = {
    "one box": ("maildir", ["a@here.example"], ["maildir"]),
    "a box for each address": ("mail/{local}", ["a@here.example", "b@here.example"], ["mail/a", "mail/b"]),
}


def kill_workers(live: Master, seconds: float) -> int:
    """Kill a random worker again and again, always leaving one that is ready. How many were killed."""
    rng = random.Random(2)
    killed = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ready = wait_for(lambda: found if len(found := live.workers()) >= 2 else None, what="two workers")
        os.kill(rng.choice(sorted(ready.values())), signal.SIGKILL)
        killed += 1
        time.sleep(rng.random() * 0.5)
    return killed


@pytest.mark.parametrize("layout", BOXES)
def test_killed_workers_lose_nothing(serve: Callable[..., Master], layout: str) -> None:
    path, recipients, boxes = BOXES[layout]
    live = serve("-o", f"path={path}", workers=3)
    with Load(live.address, 12, recipients, large=400_000) as load:
        killed = kill_workers(live, 3.0)
    assert killed >= 3
    assert load.refused == 0
    assert load.cut
    assert not load.odd
    assert len(load.promised) > 50
    assert live.stop() == 0
    for box in boxes:
        load.check_box(live.directory / box)


@pytest.mark.parametrize("layout", BOXES)
def test_killed_writers_lose_nothing(serve: Callable[..., Master], layout: str) -> None:
    """A worker whose writer dies asks its clients to come again, and serves on."""
    path, recipients, boxes = BOXES[layout]
    live = serve("-o", f"path={path}", workers=2)
    workers = live.workers()
    rng = random.Random(3)
    killed = 0
    with Load(live.address, 12, recipients, large=400_000) as load:
        for _ in range(15):
            time.sleep(rng.random() * 0.2)
            for pid in workers.values():
                for writer in psutil.Process(pid).children():
                    writer.kill()
                    killed += 1
        promised = len(load.promised)
        wait_for(lambda: len(load.promised) > promised + 20, what="messages after the last")
    assert killed >= 20
    assert live.workers() == workers
    assert not load.cut
    assert not load.farewells
    assert load.odd
    assert all(re.fullmatch(r"content: 451 4\.3\.0 Internal error, try again later \[\w+\]", odd) for odd in load.odd)
    assert "files ended, status -9" in live.log
    assert live.stop() == 0
    for box in boxes:
        load.check_box(live.directory / box)


@pytest.mark.parametrize("layout", BOXES)
def test_a_killed_master_loses_nothing(serve: Callable[..., Master], layout: str) -> None:
    path, recipients, boxes = BOXES[layout]
    live = serve("-o", f"path={path}", workers=2)
    with Load(live.address, 12, recipients, large=400_000) as load:
        load.stop_at_refusal = True
        wait_for(lambda: len(load.promised) > 50, what="messages")
        os.kill(next(iter(live.workers().values())), signal.SIGKILL)
        time.sleep(0.1)
        live.process.kill()
        live.wait()
        wait_for(lambda: not live.pids(), what="workers to end by themselves")
        wait_for(lambda: load.refused, what="a closed port")
    assert not load.odd
    for box in boxes:
        load.check_box(live.directory / box)
    host, _, port = live.address.rpartition(":")
    with socket.create_server((host, int(port))):
        pass


def test_workers_without_a_master_let_transactions_finish(serve: Callable[..., Master]) -> None:
    live = serve(workers=2)
    with live.connect() as busy, live.connect() as idle:
        assert busy.begin()[-1].startswith("250")
        live.process.kill()
        live.wait()
        assert idle.reply().startswith("421 4.3.2")
        wait_for(lambda: refuses(live.address), what="a closed port")
        assert busy.content(b"x\r\n").startswith("250")
        assert busy.reply().startswith("421 4.3.2")
    wait_for(lambda: not live.pids(), what="workers to end by themselves")


def refuses(address: str) -> bool:
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the port was closed under way
        return False
    return False
