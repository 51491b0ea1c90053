"""A worker's log: sessions queue records, one native thread writes them.

Logging from a session must not wait: not for a lock that another greenlet holds, not for a slow disk or pipe. So a
record is appended to a list, and every `INTERVAL` seconds the list becomes one write. When what reads the log is
stuck and `LIMIT` records wait, further ones are counted and dropped, and the next line says how many.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

import gevent
from gevent.threadpool import ThreadPool

from gsmtp import logs

INTERVAL = 0.05
LIMIT = 20_000


class EventLog:
    """`descriptor`: where lines go. `enabled`: whether session events are written at all (level info or lower)."""

    def __init__(self, format: logs.Format, origin: str, level: str, path: str = "-") -> None:
        """`path`: a file to append to, or "-" for standard error. Raises OSError when it cannot be opened."""
        self._format: logs.Format = format
        self._origin = origin
        self._path = path
        self._descriptor = sys.stderr.fileno() if path == "-" else _open(path)
        self._queue: list[tuple[float, str, Any]] = []
        self._lost = 0
        self._pool = ThreadPool(1)
        self._timer: Any = None
        self.enabled = logging.getLevelName(level.upper()) <= logging.INFO
        logs.configure(format, origin, level, _Queueing(self))

    def event(self, name: str, /, **fields: Any) -> None:
        """Queue a session event."""
        if self.enabled:
            self.put(time.time(), name, fields)

    def put(self, now: float, name: str, fields: Any) -> None:
        """Queue a record: fields, or a text that is a finished line."""
        if len(self._queue) >= LIMIT:
            self._lost += 1
            return
        self._queue.append((now, name, fields))
        if self._timer is None:
            self._timer = gevent.spawn_later(INTERVAL, self._write_queue)

    def _write_queue(self) -> None:
        while self._queue or self._lost:
            data = self._take()
            self._pool.apply(_write_all, (self._descriptor, data))
        self._timer = None

    def _take(self) -> bytes:
        queue, self._queue = self._queue, []
        lost, self._lost = self._lost, 0
        format, origin = self._format, self._origin
        rows = [
            fields if isinstance(fields, str) else logs.line(format, now, origin, name, fields)
            for now, name, fields in queue
        ]
        if lost:
            rows.append(logs.line(format, time.time(), origin, "log", {"lost": lost}))
        return "".join(rows).encode("utf-8", "backslashreplace")

    def flush(self) -> None:
        """Write what is queued now, from the calling greenlet. For the end of the process."""
        data = self._take()
        if data:
            _write_all(self._descriptor, data)


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


def _write_all(descriptor: int, data: bytes) -> None:
    # Whole lines per write, so that lines of several workers do not mix in a pipe, which keeps 4096 octets whole.
    at = 0
    try:
        while at < len(data):
            end = len(data)
            if end - at > 4096:
                end = data.rfind(b"\n", at, at + 4096) + 1 or data.find(b"\n", at) + 1
            while at < end:
                at += os.write(descriptor, data[at:end])
    except OSError:
        pass  # nobody reads the log any more; mail goes on
