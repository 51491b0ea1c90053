"""The log of a worker, which waits for a slow reader without holding up the worker."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import gevent

from gsmtp.reply import Reply
from gsmtp.server.eventlog import EventLog


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_all() -> None:
    """Whoever shares standard error may have made it non-blocking."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    log = EventLog("text", "worker-0", "info", f"/dev/fd/{writer}")
    os.set_blocking(log._descriptor, False)
    try:
        for number in range(3000):
            log.event("event", number=number, long="x" * (20_000 if number % 300 == 0 else 50))
        found = b""
        os.set_blocking(reader, False)
        deadline = time.monotonic() + 10
        while found.count(b"\n") < 3000 and time.monotonic() < deadline:
            gevent.sleep(0.001)
            with contextlib.suppress(BlockingIOError):
                found += os.read(reader, 3000)
    finally:
        logging.getLogger().handlers.clear()
        os.close(reader)
        os.close(writer)
    assert found.count(b"\n") == 3000
    numbers = re.findall(rb" event number=(\d+) ", found)
    assert numbers == [b"%d" % number for number in range(3000)]


def test_a_record_of_many_recipients_counts_as_several(tmp_path: Path) -> None:
    """Else a thousand addresses each, twenty thousand times, would wait in memory for a reader who is stuck."""
    envelope = SimpleNamespace(id="M", sender="", recipients=[SimpleNamespace(address="a@b", result=None)] * 1000)
    log = EventLog("text", "worker-0", "info", str(tmp_path / "log"))
    try:
        for _ in range(2):
            for _ in range(1000):
                log.message("S", envelope, Reply(250, "2.0.0", "x"), 1, 0.0)  # type: ignore[arg-type]
            log.flush()
    finally:
        logging.getLogger().handlers.clear()
    lines = (tmp_path / "log").read_text().splitlines()
    kept = [line for line in lines if " message " in line]
    assert len(kept) == 2 * 198
    assert [line.rpartition(" ")[2] for line in lines if " log " in line] == ["lost=802", "lost=802"]
