"""Formats log lines: text or JSON, one line per event. No text of a client can add a line.

A record is a name and fields. The fields `session` and `message` have the ids that connect lines. Both formats quote
and escape a text value that is not plain as a JSON string. Master and workers share this module, so it only formats;
workers write through `gsmtp.server.eventlog`.
"""

from __future__ import annotations

import json
import logging
import re
import select
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, TextIO

from gsmtp.declare import Table, setting

Format = Literal["text", "json"]


class LogSettings(Table):
    """Where log lines go, their format, and the least level."""

    log_file: str = setting("-", "a file to append to, given to `user`; - for standard error")
    log_format: Format = setting("text", "text or json, one line an event")
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "the least level that is logged; info has a line for every message"
    )


_PLAIN = re.compile(r"[A-Za-z0-9@._:<>/+\[\]*(),\-]+")
_is_plain = _PLAIN.fullmatch
_PLAIN_FIELDS = re.compile(rf"(?: \w+={_PLAIN.pattern})*")
_SIMPLE = re.compile(r"[\x20!\x23-\x5b\x5d-\x7e]*")
_second = -1
_stamp = ""
_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))


def timestamp(now: float) -> str:
    """Return a time as RFC 3339 writes it, in UTC with milliseconds. `now` is in seconds since the epoch."""
    global _second, _stamp
    second = int(now)
    if second != _second:
        _second, _stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return _stamp + _MILLISECONDS[int((now - second) * 1000)]


def _escaped(value: Any) -> str:
    # JSON lets DEL stand as it is.
    return json.dumps(value, default=str).replace("\x7f", "\\u007f")


def _quoted(value: Any) -> str:
    kind = value.__class__
    if kind is str:
        if _is_plain(value):
            return value  # type: ignore[no-any-return]
        return f'"{value}"' if _SIMPLE.fullmatch(value) else _escaped(value)
    if kind is int:
        return str(value)
    if kind is float:
        return f"{value:.3f}"
    return _quoted(",".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def line(format: Format, now: float, origin: str, event: str, fields: Mapping[str, Any]) -> str:
    """Return one line with its newline. `origin` names the process: "master", "worker-1"."""
    if format == "json":
        record = {"time": timestamp(now), "process": origin, "event": event, **fields}
        return _escaped(record) + "\n"
    # Most values are plain, so one match checks all of them. A value with a blank makes the count of blanks too high.
    text = "".join(
        [f" {name}={value:.3f}" if value.__class__ is float else f" {name}={value}" for name, value in fields.items()]
    )
    if not _PLAIN_FIELDS.fullmatch(text) or text.count(" ") != len(fields):
        text = "".join([f" {name}={_quoted(value)}" for name, value in fields.items()])
    return f"{timestamp(now)} {origin} {event}{text}\n"


# Most messages have the same reply. A reply with a reference or a text of the handler never comes again: a large cache
# would fill with such replies for thousands of sessions, and the soak took that for a leak.
_quoted_reply = lru_cache(16)(_quoted)


def message_line(
    format: Format,
    now: float,
    origin: str,
    session: str,
    message: str,
    sender: str,
    to: list[str],
    size: int,
    reply: object,
    refused: list[str],
    seconds: float,
) -> str:
    """Return the line of a message. Every message has one, so its fields are not checked one by one.

    `sender`, `to` and `refused` are addresses without brackets. The ids consist of letters and digits.
    """
    if format == "text" and not refused:
        path, paths = f"<{sender}>", f"<{'>,<'.join(to)}>"
        path = path if _is_plain(path) else _quoted(path)
        paths = paths if _is_plain(paths) else _quoted(paths)
        return (
            f"{timestamp(now)} {origin} message session={session} message={message} from={path} to={paths} "
            f"size={size} reply={_quoted_reply(str(reply))} seconds={seconds:.3f}\n"
        )
    fields: dict[str, Any] = {
        "session": session,
        "message": message,
        "from": f"<{sender}>",
        "to": [f"<{each}>" for each in to],
        "size": size,
        "reply": str(reply),
    }
    if refused:
        fields["refused"] = [f"<{each}>" for each in refused]
    return line(format, now, origin, "message", {**fields, "seconds": seconds})


class RecordFormatter(logging.Formatter):
    """Formats records of the standard library's logging in the same way. A traceback is a field of the line."""

    def __init__(self, format: Format, origin: str) -> None:
        super().__init__()
        self._format = format
        self._origin = origin

    def format(self, record: logging.LogRecord) -> str:
        """Return one line. In text, a traceback follows it on lines that begin with white space."""
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        fields["level"] = record.levelname.lower()
        fields["text"] = record.getMessage()
        trace = fields.pop("traceback", "") or (self.formatException(record.exc_info) if record.exc_info else "")
        if trace and self._format == "json":
            fields["traceback"] = trace
        text = line(self._format, record.created, self._origin, record.name, fields).rstrip("\n")
        if trace and self._format == "text":
            text += "".join(f"\n    {_escaped(row)[1:-1]}" for row in trace.splitlines())
        return text


class DroppingHandler(logging.StreamHandler[TextIO]):
    """Writes a line to standard error if that is writable, and counts it as lost if not: the master never waits.

    A pipe that is writable takes a line of up to 4096 octets (PIPE_BUF).
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or drop it. Raises nothing."""
        if not self._can_write():
            self._lost += 1
            return
        if self._lost:
            record.msg, record.args = f"{record.getMessage()} ({self._lost} earlier lines lost)", ()
            self._lost = 0
        super().emit(record)

    def _can_write(self) -> bool:
        try:
            descriptor = self.stream.fileno()
        except (AttributeError, OSError, ValueError):  # no standard error, or one that is no file
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0))


def configure(format: Format, origin: str, level: str, handler: logging.Handler | None = None) -> None:
    """Make the root logger write lines in this format, to standard error or to `handler`."""
    handler = handler or DroppingHandler()
    handler.setFormatter(RecordFormatter(format, origin))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
