"""Reads what the handlers of the tests have stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from harness.master import Master
from harness.waiting import wait_for

_TRACE = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\n(?:Delivered-To: [^\r\n]+\r\n)+"
    rb"Received: from [^\r\n]+\r\n\tby [^\r\n]+\r\n(?:\tfor <[^\r\n]+>;\r\n)?\t\w{3}, [^\r\n]+ [+-]\d{4}\r\n"
)


def stored(box: Path) -> list[bytes]:
    """Return the messages of a Maildir. Raises AssertionError when something is left in its tmp."""
    assert not list((box / "tmp").iterdir())
    return [path.read_bytes() for path in sorted((box / "new").iterdir())]


def without_trace(message: bytes) -> bytes:
    """Return a message of the Maildir handler without the trace header fields that the handler has put in front.

    Raises AssertionError when these are not in order.
    """
    head = _TRACE.match(message)
    assert head is not None, message[:1000]
    return message[head.end() :]


def taken(master: Master, recipient: str) -> dict[str, Any]:
    """Wait for a message to `recipient` in the file `taken`, to which the handler writes a line of JSON for each.

    Return what stands in that line.
    """

    def found() -> dict[str, Any] | None:
        path = master.directory / "taken"
        rows = [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []
        return next((row for row in rows if recipient in row["to"]), None)

    return wait_for(found, what=f"a message for {recipient}")
