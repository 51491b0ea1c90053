"""A worker's log: sessions queue records, and one greenlet writes them.

A session that logs must not wait, neither for a lock that another greenlet holds nor for a slow reader of the log. So
it appends a record to a list. Every `INTERVAL` seconds the list becomes one write. A file is written at once; a pipe,
socket or terminal is written when it is writable. While the reader is stuck, at most `LIMIT` records wait; `ADDRESSES`
recipients of a message count as one more record. Further records are dropped, and a line says how many.

This module must not know what the events mean. A thread for the writes was tried: its twenty wake-ups a second cost a
busy worker more processor time than all the formatting.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import time
from typing import Any

import gevent

from gsmtp import logs
from gsmtp.protocol.envelope import Envelope
from gsmtp.reply import Reply

INTERVAL = 0.05
LIMIT = 20_000
ADDRESSES = 10  # a record of so many takes 3 KB at most
# POSIX: a pipe that is ready takes this much, and keeps it whole, so that lines of several workers do not mix.
_PIPE = 4096
_WRITE = 2
_LAST = 1.0  # seconds


class EventLog:
    """`enabled` is whether session events are written, at level info or lower."""

    def __init__(self, format: logs.Format, origin: str, level: str, path: str = "-") -> None:
        """`path` is a file to append to, or "-" for standard error. Raises OSError if it cannot be opened."""
        self._format: logs.Format = format
        self._origin = origin
        self._descriptor = sys.stderr.fileno() if path == "-" else _open(path)
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._queue: list[tuple[float, str, Any]] = []
        self._waiting = 0
        self._lost = 0
        self._writer: Any = None
        self.enabled = logging.getLevelName(level.upper()) <= logging.INFO
        logs.configure(format, origin, level, _Queueing(self))

    def event(self, name: str, /, **fields: Any) -> None:
        """Queue a session event."""
        if self.enabled:
            self.put(time.time(), name, fields)

    def message(self, session: str, envelope: Envelope, reply: Reply, size: int, seconds: float) -> None:
        """Queue the line of a message. The caller has checked `enabled`."""
        now, to, refused = time.time(), [], []
        for recipient in envelope.recipients:
            to.append(recipient.address)
            if recipient.result is not None:
                refused.append(recipient.address)
        self._waiting += len(to) // ADDRESSES
        self.put(now, "message", (session, envelope.id, envelope.sender, to, size, reply, refused, seconds))

    def put(self, now: float, name: str, fields: Any) -> None:
        """Queue a record: a dict of fields, a tuple of the fields of a message, or a complete line as text."""
        if self._waiting >= LIMIT:
            self._lost += 1
            return
        self._waiting += 1
        self._queue.append((now, name, fields))
        if self._writer is None:
            self._writer = gevent.spawn_later(INTERVAL, self._write_queue)

    def flush(self) -> None:
        """Write all queued records, at the end of the process. Waits at most a second for a reader that is stuck."""
        if self._is_file:
            self._write(self._take())
        else:
            with gevent.Timeout(_LAST, False):
                self._write_when_ready(self._take())

    def _write_queue(self) -> None:
        while self._queue or self._lost:
            data = self._take()
            if self._is_file:
                self._write(data)
            else:
                self._write_when_ready(data)
        self._writer = None

    def _write_when_ready(self, data: bytes) -> None:
        hub = gevent.get_hub()
        watcher = hub.loop.io(self._descriptor, _WRITE)
        try:
            at = 0
            while at < len(data):
                end = len(data)
                if end - at > _PIPE:
                    end = data.rfind(b"\n", at, at + _PIPE) + 1 or data.find(b"\n", at) + 1
                hub.wait(watcher)
                try:
                    at += os.write(self._descriptor, data[at:end])
                except BlockingIOError:  # another who has this terminal or pipe made it non-blocking
                    continue
                except OSError:
                    return  # nobody reads the log any more; mail goes on
        finally:
            watcher.close()

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            pass  # nobody reads the log any more; mail goes on

    def _take(self) -> bytes:
        queue, self._queue = self._queue, []
        lost, self._lost = self._lost, 0
        self._waiting = 0
        format, origin = self._format, self._origin
        # The rows are made together and not one by one as the records come: that takes half the time.
        rows = []
        for now, name, fields in queue:
            if isinstance(fields, str):
                rows.append(fields)
            elif isinstance(fields, tuple):
                rows.append(logs.message_line(format, now, origin, *fields))
            else:
                rows.append(logs.line(format, now, origin, name, fields))
        if lost:
            rows.append(logs.line(format, time.time(), origin, "log", {"lost": lost}))
        return "".join(rows).encode("utf-8", "backslashreplace")


class _Queueing(logging.Handler):
    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.put(record.created, record.name, self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
