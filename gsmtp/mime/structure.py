"""Finds the tree of a mail's parts in one pass over the buffer (RFC 2046 5.1).

All open multiparts are looked for at once: a line that begins with "--" is looked up among the delimiters of all of
them. So the time is linear in the size of the mail whatever the depth, and a delimiter of an outer multipart ends the
inner ones. There is no recursion. A delimiter begins a line and is followed by white space or the line's end, so
another boundary may be its prefix. A boundary that two open multiparts share belongs to the outer one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gsmtp.mime.defects import Defect
from gsmtp.mime.headers import Buffer, Head, Headers, delimiter_line, scan
from gsmtp.mime.message import Message
from gsmtp.mime.part import Part

_MESSAGES = frozenset(("message/rfc822", "message/global", "message/news"))
# RFC 2046 5.1.1: dash-boundary, "--" if it is the last one, transport-padding, the line's end
_TAIL = rb"(?:--)?[ \t]*+\r?(?:\n|\Z)"
_LONGEST = 72  # of a dash-boundary; of longer ones the pattern knows the beginning


class _Level(NamedTuple):
    """An open multipart: its part, "--" and boundary, and how many parts were open before its child."""

    part: Part
    line: bytes
    opened: int
    depth: int


class _Room:
    """How many more parts and header fields of a mail the limits allow, over all passes."""

    def __init__(self, root: Part) -> None:
        limits = root._source.limits
        self.parts = limits.parts - 1
        self.headers = limits.mail_headers - len(root.headers)


class _Pass:
    """One pass over one buffer."""

    def __init__(self, root: Part, depth: int, room: _Room) -> None:
        self.root = root
        self.source = root._source
        self.limits = root._source.limits
        self.buffer: Buffer = root._buffer
        self.end = root._end
        self.base_depth = depth
        self.room = room
        self.levels: list[_Level] = []
        self.delimiters: dict[bytes, int] = {}  # line -> index in levels; a closing line -> ~index
        self.opened: list[Part] = []  # parts whose end is not known yet, outermost first
        self.encoded: list[tuple[Part, int]] = []  # attached messages to be decoded before they can be read
        self.needle = b""
        self.misses = 0  # lines that have the needle and are no delimiter, since the last `aim`
        self.pattern: re.Pattern[bytes] | None = None  # what finds delimiters alone, once there are many such

    def note(self, code: str, text: str, part: Part, at: int | None = None) -> None:
        """Record a defect."""
        defects = self.source.defects
        if len(defects) <= self.limits.defects:  # one more, so that `check` says there are too many
            where = part._start if at is None else at
            defects.append(Defect(code, text, where if part._origin < 0 else part._origin))

    def run(self) -> None:
        # A multipart has a head, so every body that is looked through stands behind a line end.
        at = self.enter(self.root, self.base_depth)
        buffer, find, end = self.buffer, self.buffer.find, self.end
        while self.levels:
            if self.pattern is None:
                hit = find(self.needle, at - 1, end)
            else:
                hit = found.start() if (found := self.pattern.search(buffer, at - 1, end)) else -1
            if hit < 0:
                break
            start = hit + 1
            stop = find(b"\n", start, end)
            after = end if stop < 0 else stop + 1
            index = self.delimiters.get(delimiter_line(buffer[start : after if stop < 0 else stop]))
            if index is None:
                at = after
                self.miss()
                continue
            if buffer[hit - 1 : hit] == b"\r":
                hit -= 1
            if index < 0:  # a closing line
                self.close(~index, hit)
                if not self.levels[~index].part._children:
                    self.tell_unclosed(~index)
                self.pop(~index)
                at = after
                continue
            self.close(index, hit)
            if self.room.parts <= 0:
                self.note("too_many_parts", f"more than {self.limits.parts}", self.levels[index].part, start)
                return
            at = self.child(self.levels[index], after)
        if self.levels:
            self.tell_unclosed(0)
            # The line end before a delimiter belongs to it, also where the delimiter was cut off.
            end = self.end - (self.buffer[self.end - 1 : self.end] == b"\n")
            end -= end < self.end and self.buffer[end - 1 : end] == b"\r"
            for part in self.opened[self.levels[0].opened :]:
                part._end = max(end, part._body)

    def tell_unclosed(self, index: int) -> None:
        for level in self.levels[index:]:
            code = "missing_last_boundary" if level.part._children else "missing_boundary"
            self.note(code, f"boundary {level.line[2:]!r:.80}", level.part)

    def enter(self, part: Part, depth: int) -> int:
        """Go into `part` if it is a multipart or a message, and return where to read on."""
        at = part._body
        while True:
            content_type, params = part._content_type()
            if content_type.startswith("multipart/"):
                if depth >= self.limits.depth:
                    self.note("too_deep", f"deeper than {self.limits.depth}", part)
                    return at
                self.push(part, params.get("boundary", "").rstrip(), depth)
                return at
            if content_type not in _MESSAGES:
                return at
            if depth >= self.limits.depth:
                self.note("too_deep", f"deeper than {self.limits.depth}", part)
                return at
            if part.encoding:
                self.encoded.append((part, depth))
                return at
            depth += 1
            if self.room.parts <= 0:
                self.note("too_many_parts", f"more than {self.limits.parts}", part)
                return at
            head = self.head(at, mbox=True)
            headers = Headers(head, self.limits)
            message = Message(self.source, headers, self.buffer, at, head.body, self.end)
            message._origin = part._origin
            part._embedded = message
            self.opened.append(message)
            part, at = message, head.body

    def push(self, part: Part, boundary: str, depth: int) -> None:
        if not boundary:
            self.note("no_boundary", "the Content-Type names no boundary", part)
            return
        # The parameter was read as utf-8 or cp1252, and goes back to the bytes it was.
        raw = part.headers.find(b"content-type") or b""
        line = b"--" + boundary.encode("utf-8" if raw.isascii() or _is_utf8(raw) else "cp1252", "replace")
        if line in self.delimiters:
            self.note("missing_boundary", "the boundary is that of an outer multipart", part)
            return
        index = len(self.levels)
        self.levels.append(_Level(part, line, len(self.opened), depth))
        self.delimiters[line] = index
        self.delimiters.setdefault(line + b"--", ~index)
        self.aim()

    def head(self, at: int, mbox: bool = False) -> Head:
        """Read the header section of one more part."""
        room = self.room
        head = scan(self.buffer, at, self.end, self.limits, self.delimiters, mbox, room.headers)
        room.parts -= 1
        room.headers -= len(head.names)
        return head

    def child(self, level: _Level, start: int) -> int:
        """Begin a part at `start`, and return where to read on."""
        head = self.head(start)
        default = "message/rfc822" if level.part.content_type == "multipart/digest" else "text/plain"
        headers = Headers(head, self.limits)
        part = Part(self.source, headers, self.buffer, start, head.body, self.end, default)
        part._origin = self.root._origin
        level.part._children.append(part)
        self.opened.append(part)
        return self.enter(part, level.depth + 1)

    def close(self, index: int, end: int) -> None:
        """End all parts that are open inside level `index` at `end`."""
        if len(self.levels) > index + 1:
            self.tell_unclosed(index + 1)
            self.pop(index + 1)
        first = self.levels[index].opened
        for part in self.opened[first:]:
            part._end = end if end > part._start else part._start
            if part._body > end:  # a head that runs into the delimiter leaves an empty body
                part._body = part._end
        del self.opened[first:]

    def pop(self, index: int) -> None:
        """Remove the levels from `index` on."""
        if index >= len(self.levels):
            return
        for number, level in enumerate(self.levels[index:], index):
            del self.delimiters[level.line]
            if self.delimiters.get(level.line + b"--") == ~number:
                del self.delimiters[level.line + b"--"]
        del self.levels[index:]
        self.aim()

    def miss(self) -> None:
        """Count a line that only looks like a delimiter.

        A pattern passes over such lines ten times as fast, and takes as long to compile as some misses take to look up.
        """
        self.misses += 1
        if self.misses == 200 + 100 * len(self.levels):
            whole = [re.escape(line[:_LONGEST]) + (b"" if line[_LONGEST:] else _TAIL) for _, line, *_ in self.levels]
            self.pattern = re.compile(rb"\n(?:" + b"|".join(whole) + b")")

    def aim(self) -> None:
        """Find what to search for: the longest prefix that all delimiters share."""
        self.misses, self.pattern = 0, None
        if len(self.levels) == 1:
            self.needle = b"\n" + self.levels[0].line
        elif self.levels:
            lines = [level.line for level in self.levels]
            # What the least and the greatest share, all share.
            low, high = min(lines), max(lines)
            same = next((at for at, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))
            self.needle = b"\n" + low[:same]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def grow(root: Part) -> None:
    """Find all parts below `root`, and the defects of the structure. The time is linear, without recursion."""
    if not root.content_type.startswith(("multipart/", "message/")):
        return
    waiting = [(root, 0)]
    limits, room = root._source.limits, _Room(root)
    while waiting:
        part, depth = waiting.pop()
        search = _Pass(part, depth, room)
        search.run()
        for found, level in reversed(search.encoded):
            if room.parts <= 0:
                search.note("too_many_parts", f"more than {limits.parts}", found)
                return
            content = found.content
            head = scan(content, 0, len(content), limits, None, True, room.headers)
            room.parts -= 1
            room.headers -= len(head.names)
            headers = Headers(head, limits)
            message = Message(root._source, headers, content, 0, head.body, len(content))
            message._origin = found._origin if found._origin >= 0 else found._body
            found._embedded = message
            # Each is a copy of all that is inside, so at most three such stand in each other.
            waiting.append((message, level + limits.depth // 3 + 1))
