"""Reads replies from octets (RFC 5321 4.2.1); gsmtp.reply writes them.

`ReplyParser` promises that the result does not depend on how the octets were sliced, that memory stays within its
limits, and that a malformed reply is an error, after which nothing more is read: where the next reply begins is not
known then. It must not know which command a reply belongs to. Weak: a text that begins like an enhanced status code
is taken for one, whether or not the server has announced them.
"""

from __future__ import annotations

import re

from gsmtp.reply import Reply

# RFC 5321 4.2: Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
# Reply-code = %x32-35 %x30-35 %x30-39
_LINE = re.compile(rb"([2-5][0-5][0-9])(?:([ -])(.*))?", re.S)
# RFC 2034 4: the code is followed by a space
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


class MalformedReply(ValueError):
    """What the server has sent is not a reply; the text says why and shows the line."""


class ReplyParser:
    """Replies out of octets: give it octets with `feed`, take replies with `next_reply`.

    `max_line`: octets of a line with its CRLF. RFC 5321 4.5.3.1.5 allows 512; servers send more. `max_lines`: lines of
    one reply.
    """

    __slots__ = ("_buffer", "_code", "_error", "_lines", "_max_line", "_max_lines")

    def __init__(self, max_line: int = 4096, max_lines: int = 256) -> None:
        self._max_line = max_line
        self._max_lines = max_lines
        self._buffer = b""
        self._code = b""
        self._lines: list[bytes] = []
        self._error: MalformedReply | None = None

    def feed(self, data: bytes) -> None:
        """Append octets."""
        self._buffer += data

    @property
    def pending(self) -> bool:
        """Whether octets were received that are not part of a reply that was returned.

        Before a TLS handshake that is an attack: somebody has put them in without being inside (RFC 3207 6).
        """
        return bool(self._buffer or self._lines)

    def next_reply(self) -> Reply | None:
        """Return the next reply, or None when its end has not come.

        Raises MalformedReply for a line that is no reply line or ends with a bare CR or LF, for codes that differ
        within one reply, and for too long a line or too many of them; and again at each later call.
        """
        if self._error is not None:
            raise self._error
        while True:
            end = self._buffer.find(b"\n")
            if end >= self._max_line or (end < 0 and len(self._buffer) >= self._max_line):
                raise self._malformed("line too long", self._buffer)
            if end < 0:
                return None
            line, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
            if self._take(line):
                return self._reply()

    def _take(self, line: bytes) -> bool:
        """Add a line; return whether it is the last of its reply."""
        text = line[:-2]
        if not line.endswith(b"\r\n") or b"\r" in text:
            raise self._malformed("bare CR or LF", line)
        match = _LINE.fullmatch(text)
        if match is None:
            raise self._malformed("not a reply line", line)
        if self._lines and match[1] != self._code:
            raise self._malformed(f"code differs from {self._code.decode()}", line)
        if len(self._lines) >= self._max_lines:
            raise self._malformed("too many lines", line)
        self._code = match[1]
        self._lines.append(match[3] or b"")
        return match[2] != b"-"

    def _reply(self) -> Reply:
        # Beyond ASCII there are servers that write their language, in UTF-8 or not.
        lines = [line.decode("utf-8", "replace") for line in self._lines]
        self._lines = []
        code = int(self._code)
        enhanced = ""
        match = _ENHANCED.match(lines[0])
        if match is not None and match[1][0] == str(code)[0]:
            enhanced = match[1]
            # RFC 2034 4 wants the code on each line; some servers write it on the first only.
            lines = [line.removeprefix(enhanced).removeprefix(" ") if _has(line, enhanced) else line for line in lines]
        return Reply(code, enhanced, "\n".join(lines))

    def _malformed(self, why: str, line: bytes) -> MalformedReply:
        self._error = MalformedReply(f"{why}: {line[:80]!r}")
        self._buffer = b""
        self._lines = []
        return self._error


def _has(line: str, enhanced: str) -> bool:
    return line == enhanced or line.startswith(f"{enhanced} ")
