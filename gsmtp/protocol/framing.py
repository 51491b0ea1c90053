"""Lines, end of data, dots, chunks and bare newlines: the only file that knows CRLF.

`LineReader` cuts the client's octets into command lines, `DotReader` finds the content after DATA, `ChunkReader` takes
that of BDAT. They promise that the result does not depend on how the octets were sliced, that memory stays within the
limits given, and that only CRLF.CRLF ends the content after DATA, whatever is done with bare newlines. A server that
lets LF.CRLF or LF.LF end it can be made to see two messages where the sender's server saw one ("SMTP smuggling"), so
the end is sought in the octets as they came, before a newline is mended. And a refusal waits for that end: what stands
in a content is never a command.
"""

from __future__ import annotations

import re
from codecs import latin_1_decode
from enum import Enum
from io import IncrementalNewlineDecoder
from typing import Literal

BareNewlines = Literal["reject", "accept", "fix", "strip"]

_END_OF_DATA = b"\r\n.\r\n"
# Proper prefixes of the end of data, longest first: what may have to wait for the next octets.
_UNDECIDED = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
_BARE_NEWLINE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class LineFault(Enum):
    """Why a command line is no line."""

    TOO_LONG = "line too long"
    ENDLESS = "line without end"
    BARE_NEWLINE = "bare CR or LF"


class LineReader:
    """Command lines out of octets. `limit`: octets of a line with its CRLF (RFC 5321 4.5.3.1.4),
    which may be changed between two lines.

    An over-long line is one fault, not several commands: it is skipped to its end. One that goes on for sixteen
    times the limit is reported at once as ENDLESS, because its end may never come. `verb`: the first four octets of
    the last line that was a fault. `buffer`: octets received, of which the first `at` are used up.
    """

    __slots__ = ("_accept_bare", "_skipped", "at", "buffer", "limit", "verb")

    def __init__(self, limit: int, accept_bare: bool) -> None:
        self.verb = b""
        self.buffer = b""
        self.at = 0
        self.limit = limit
        self._accept_bare = accept_bare
        self._skipped = 0

    def feed(self, data: bytes) -> None:
        """Append octets."""
        if self.at == len(self.buffer):
            self.buffer = data
        else:
            self.buffer = self.buffer[self.at :] + data
        self.at = 0

    def take(self) -> bytes:
        """All octets that are not yet read, for whoever reads content."""
        rest = self.buffer[self.at :] if self.at else self.buffer
        self.buffer = b""
        self.at = 0
        return rest

    def take_some(self, size: int) -> bytes:
        """At most `size` of the octets that are not yet read."""
        if size >= len(self.buffer) - self.at:
            return self.take()
        start = self.at
        self.at = start + size
        return self.buffer[start : self.at]

    @property
    def pending(self) -> bool:
        """Whether a line has begun, or octets are waiting."""
        return self.at < len(self.buffer) or self._skipped > 0

    def line(self) -> bytes | LineFault | None:
        """The next line without its CRLF, what is wrong with it, or None when its end has not come."""
        buffer, start = self.buffer, self.at
        end = buffer.find(b"\n", start)
        if end < 0:
            if self._skipped or len(buffer) - start >= self.limit:
                if not self._skipped:
                    self.verb = buffer[start : start + 4]
                self._skipped += len(self.take())
                if self._skipped > 16 * self.limit:
                    return LineFault.ENDLESS
            return None
        self.at = end + 1
        length = self._skipped + end + 1 - start
        if length > self.limit:
            if not self._skipped:
                self.verb = buffer[start : start + 4]
            self._skipped = 0
            return LineFault.TOO_LONG if length <= 16 * self.limit + 1 else LineFault.ENDLESS
        if end > start and buffer[end - 1] == 13:
            line = buffer[start : end - 1]
        elif self._accept_bare:
            line = buffer[start:end]
        else:
            return self._fault(LineFault.BARE_NEWLINE, start)
        return self._fault(LineFault.BARE_NEWLINE, start) if b"\r" in line else line

    def _fault(self, fault: LineFault, start: int) -> LineFault:
        self.verb = self.buffer[start : start + 4]
        return fault


def _only_crlf(content: bytes) -> bool:
    # The newline decoder notes which newlines it has seen, in one pass where three counts would do the same.
    seen = IncrementalNewlineDecoder(None, False)
    seen.decode(latin_1_decode(content)[0], True)
    return seen.newlines in ("\r\n", None)


class ContentFault(Enum):
    """Why a content was not kept. Of several the first one here counts, wherever each stood."""

    TOO_LARGE = "content too large"
    BARE_NEWLINE = "bare CR or LF in content"
    LINE_TOO_LONG = "line too long in content"


_GRAVEST_FIRST = tuple(ContentFault)
_GRAVEST = _GRAVEST_FIRST[0]


class _ContentReader:
    """What readers of content have in common.

    `max_size`, `max_line`: octets, 0 for no limit; a line counts its CRLF but no stuffed dot. `fault` tells why the
    content cannot be accepted; from then on it is read on to its end, where the fault is certain, and nothing of it is
    given out. `size`: octets so far.

    Bare newlines: "reject" makes them a fault, "accept" keeps them as they are, "fix" makes each a CRLF, "strip"
    removes them.
    """

    __slots__ = ("_line", "_max_line", "_max_size", "_newlines", "fault", "size")

    def __init__(self, newlines: BareNewlines, max_size: int = 0, max_line: int = 0) -> None:
        self._newlines = newlines
        self._max_size = max_size
        self._max_line = max_line
        self._line = 0
        self.fault: ContentFault | None = None
        self.size = 0

    def _judge(self, content: bytes) -> bytes:
        if self._newlines != "accept" and not _only_crlf(content):
            content = self._mend(content)
        if self._max_line and self._too_long(content):
            self._blame(ContentFault.LINE_TOO_LONG)
        self.size += len(content)
        if self._max_size and self.size > self._max_size:
            self._blame(ContentFault.TOO_LARGE)
        return b"" if self.fault is not None else content

    def _blame(self, fault: ContentFault) -> None:
        # Which fault comes first can depend on where the pieces end; which is the gravest cannot.
        if self.fault is None or _GRAVEST_FIRST.index(fault) < _GRAVEST_FIRST.index(self.fault):
            self.fault = fault

    def _mend(self, content: bytes) -> bytes:
        if self._newlines == "fix":
            return _BARE_NEWLINE.sub(b"\r\n", content)
        if self._newlines == "strip":
            return _BARE_NEWLINE.sub(b"", content)
        self._blame(ContentFault.BARE_NEWLINE)
        return content

    def _too_long(self, content: bytes) -> bool:
        lines = content.split(b"\r\n")
        first = self._line + len(lines[0]) + 2
        self._line = len(lines[-1]) + (self._line if len(lines) == 1 else 0)
        return max([first, *[len(line) + 2 for line in lines]]) > self._max_line


class DotReader(_ContentReader):
    """The content between 354 and CRLF.CRLF, with its dots unstuffed (RFC 5321 4.5.2), only after CRLF in all modes."""

    __slots__ = ("_begun", "_tail")

    def __init__(self, newlines: BareNewlines, max_size: int = 0, max_line: int = 0) -> None:
        # Not by super(): DATA is on the path of every message, and the call is a measurable part of it.
        self._newlines = newlines
        self._max_size = max_size
        self._max_line = max_line
        self._line = 0
        self.fault: ContentFault | None = None
        self.size = 0
        # The CRLF of the DATA line counts for the first line of the content, so that ".\r\n" alone is an empty one.
        self._tail = b"\r\n"
        self._begun = False

    def read(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Content that is certain, and what follows the end of data (b"" too) or None when the end has not come."""
        data = self._tail + data
        rest: bytes | None = None
        # One search serves for the end and for stuffed dots: most contents have no dot at the start of a line.
        dot = data.find(b"\r\n.")
        end = data.find(_END_OF_DATA, dot) if dot >= 0 else -1
        if end >= 0:
            content, rest = data[: end + 2], data[end + 5 :]
        else:
            keep = 0
            if data[-1:] in b"\r\n.":
                keep = next((len(part) for part in _UNDECIDED if data.endswith(part)), 0)
            content = data[: len(data) - keep]
            self._tail = data[len(data) - keep :]
        # A piece never ends between CR and LF nor within CRLF-dot, so each can be judged alone.
        if content and self.fault is not _GRAVEST:
            content = self._decode(content, 0 <= dot < len(content) - 2)
        return (b"" if self.fault else content), rest

    def _decode(self, content: bytes, dots: bool) -> bytes:
        if dots:
            content = content.replace(b"\r\n.", b"\r\n")
        if not self._begun:
            self._begun = True
            content = content[2:]
        return self._judge(content)


class DotWriter:
    """Writes content as it stands between 354 and CRLF.CRLF, with its dots stuffed (RFC 5321 4.5.2).

    The result does not depend on how the content was sliced. Lines must end with CRLF: a bare CR or LF is refused,
    because a server may take it for a line's end and then see another message. With `bare_newlines` it is kept.
    """

    __slots__ = ("_bare_newlines", "_cr", "_line_begins")

    def __init__(self, bare_newlines: bool = False) -> None:
        self._bare_newlines = bare_newlines
        # An LF may follow the CR at the end of a piece: it is kept for the next one.
        self._cr = b""
        self._line_begins = True

    def write(self, data: bytes) -> bytes:
        """Return what is to be sent for the next piece of content. Raises ValueError for a bare CR or LF."""
        data = self._cr + data
        self._cr = b"\r" if data.endswith(b"\r") else b""
        if self._cr:
            data = data[:-1]
        if not data:
            return b""
        if not self._bare_newlines and not _only_crlf(data):
            raise ValueError("bare CR or LF in content")
        stuffed = data.replace(b"\r\n.", b"\r\n..")
        if self._line_begins and data.startswith(b"."):
            stuffed = b"." + stuffed
        self._line_begins = data.endswith(b"\r\n")
        return stuffed

    def finish(self) -> bytes:
        """Return the end of the content. A last line without CRLF gets one. Raises ValueError for a bare CR."""
        if self._cr and not self._bare_newlines:
            raise ValueError("bare CR or LF in content")
        return self._cr + (b".\r\n" if self._line_begins and not self._cr else _END_OF_DATA)


# RFC 3030 2: bdat-cmd ::= "BDAT" SP chunk-size [ SP end-marker ] CR LF; chunk-size ::= 1*DIGIT; end-marker ::= "LAST"
_CHUNK = re.compile(r" *([0-9]{1,20})(?: +(.*))?", re.S)


def parse_chunk(argument: str) -> tuple[int, bool, bool] | None:
    """BDAT's argument: octets, whether they are the last, and whether nothing else was wrong with it.

    None when it cannot be known how many octets follow: no number, or one of more than twenty digits, which no client
    can mean.
    """
    match = _CHUNK.fullmatch(argument)
    if match is None:
        return None
    last = (match[2] or "").upper() == "LAST"
    return int(match[1]), last, last or not match[2]


def format_chunk(size: int, last: bool = False) -> bytes:
    """Return the command line that announces a chunk of `size` octets. Raises ValueError for a size that is none."""
    if not 0 <= size < 10**20:
        raise ValueError(f"not the size of a chunk: {size}")
    return b"BDAT %d LAST\r\n" % size if last else b"BDAT %d\r\n" % size


class ChunkReader(_ContentReader):
    """The content of one BDAT after another (RFC 3030 2): counted, so without an end to seek and without stuffed dots.

    "accept" keeps it to the octet, as BINARYMIME must be. The other modes judge bare newlines as after DATA; a CR at
    the end of a piece waits for the next octet, in this chunk or a later one. `left`: octets that the chunk still
    lacks of its `length`; `last`: whether none comes after it.
    """

    __slots__ = ("_announced", "_tail", "last", "left", "length")

    def __init__(self, newlines: BareNewlines, max_size: int = 0, max_line: int = 0) -> None:
        super().__init__(newlines, max_size, max_line)
        self._announced = 0
        self._tail = b""
        self.length = self.left = 0
        self.last = False

    def begin(self, size: int, last: bool) -> None:
        """A chunk of `size` octets begins. One that would exceed the limit is a fault before its first octet."""
        self.length = self.left = size
        self.last = last
        self._announced += size
        if self._max_size and self._announced > self._max_size and self.fault is None:
            self.fault = ContentFault.TOO_LARGE

    def read(self, data: bytes) -> bytes:
        """Content that is certain, of `data`, which must not be longer than `left`."""
        self.left -= len(data)
        if self.fault is not None:
            return b""
        if self._newlines != "accept" or self._max_line:
            data = self._tail + data
            waits = data.endswith(b"\r") and not (self.last and not self.left)
            self._tail = b"\r" if waits else b""
            data = data[:-1] if waits else data
        return self._judge(data)
