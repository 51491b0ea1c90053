"""Lines, end of data, dots, chunks and bare newlines, read and written. Replies are read in reply_parser.py.

`LineReader` cuts octets into command lines, `DotReader` reads the content after DATA, and `ChunkReader` that of BDAT.
`DotWriter` and `format_chunk` write what these read. They promise that the result does not depend on how the octets
were sliced, that memory stays within the limits given, and that only CRLF.CRLF ends the content after DATA, whatever
is done with bare newlines. A server that lets LF.CRLF or LF.LF end it can be made to see two messages where the
sender's server saw one ("SMTP smuggling"). So the end is looked for in the octets as they came, before a newline is
repaired. A refusal waits for that end too: nothing within a content is ever a command.

The readers must not know replies nor states. Weak: a bare newline that is accepted reaches whoever gets the content.
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
    """Why a command line cannot be used."""

    TOO_LONG = "line too long"
    ENDLESS = "line without end"
    BARE_NEWLINE = "bare CR or LF"


class LineReader:
    """Cuts octets into command lines.

    `limit` is the number of octets of a line with its CRLF (RFC 5321 4.5.3.1.4), and may be changed between two lines.
    An over-long line is one fault, not several commands: it is skipped to its end. A line of more than sixteen times
    the limit is reported at once as ENDLESS, because its end may never come. `verb` has the first four octets of the
    last line that was a fault. `buffer` has the octets received, of which the first `at` are used.
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
        """Return all octets that are not read yet, for a reader of content."""
        rest = self.buffer[self.at :] if self.at else self.buffer
        self.buffer = b""
        self.at = 0
        return rest

    def take_some(self, size: int) -> bytes:
        """Return at most `size` of the octets that are not read yet."""
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
        """Return the next line without its CRLF, or its fault, or None when its end has not come."""
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
    # The newline decoder notes which newlines it has seen, in one pass; counting them would take three.
    seen = IncrementalNewlineDecoder(None, False)
    seen.decode(latin_1_decode(content)[0], True)
    return seen.newlines in ("\r\n", None)


class ContentFault(Enum):
    """Why a content is refused. Of several faults the first one in this list counts, wherever each was."""

    TOO_LARGE = "content too large"
    BARE_NEWLINE = "bare CR or LF in content"
    LINE_TOO_LONG = "line too long in content"


_WORST_FIRST = tuple(ContentFault)
_WORST = _WORST_FIRST[0]


class _ContentReader:
    """The common part of the readers of content.

    `max_size` and `max_line` are octets, 0 for no limit; a line counts its CRLF but no stuffed dot. `fault` says why
    the content cannot be accepted. A content with a fault is read to its end, and nothing more of it is returned; at
    the end the fault is final. `size` is the number of octets so far.

    `newlines` says what becomes of a bare newline: "reject" makes it a fault, "accept" keeps it, "fix" makes it a CRLF,
    "strip" removes it.
    """

    __slots__ = ("_line", "_max_line", "_max_size", "_newlines", "fault", "size")

    def __init__(self, newlines: BareNewlines, max_size: int = 0, max_line: int = 0) -> None:
        self._newlines = newlines
        self._max_size = max_size
        self._max_line = max_line
        self._line = 0
        self.fault: ContentFault | None = None
        self.size = 0

    def _check(self, content: bytes) -> bytes:
        if self._newlines != "accept" and not _only_crlf(content):
            content = self._repair(content)
        if self._max_line and self._too_long(content):
            self._note(ContentFault.LINE_TOO_LONG)
        self.size += len(content)
        if self._max_size and self.size > self._max_size:
            self._note(ContentFault.TOO_LARGE)
        return b"" if self.fault is not None else content

    def _note(self, fault: ContentFault) -> None:
        # Which fault comes first depends on where the pieces end. Which is the worst does not.
        if self.fault is None or _WORST_FIRST.index(fault) < _WORST_FIRST.index(self.fault):
            self.fault = fault

    def _repair(self, content: bytes) -> bytes:
        if self._newlines == "fix":
            return _BARE_NEWLINE.sub(b"\r\n", content)
        if self._newlines == "strip":
            return _BARE_NEWLINE.sub(b"", content)
        self._note(ContentFault.BARE_NEWLINE)
        return content

    def _too_long(self, content: bytes) -> bool:
        lines = content.split(b"\r\n")
        first = self._line + len(lines[0]) + 2
        self._line = len(lines[-1]) + (self._line if len(lines) == 1 else 0)
        return max([first, *[len(line) + 2 for line in lines]]) > self._max_line


class DotReader(_ContentReader):
    """Reads the content between 354 and CRLF.CRLF.

    Removes the stuffed dots (RFC 5321 4.5.2). Only a dot after CRLF is one, whatever `newlines` says.
    """

    __slots__ = ("_begun", "_tail")

    def __init__(self, newlines: BareNewlines, max_size: int = 0, max_line: int = 0) -> None:
        # Not by super(): every message makes a reader, and the call is a measurable part of its cost.
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
        """Take octets. Return the content in them, and what follows the end of data, None when it has not come.

        Octets that may be part of the end are kept for the next call.
        """
        data = self._tail + data
        rest: bytes | None = None
        # One search finds both the end and stuffed dots, because most contents have no dot at the start of a line.
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
        # A piece never ends between CR and LF nor within CRLF-dot, so each can be checked alone.
        if content and self.fault is not _WORST:
            content = self._decode(content, 0 <= dot < len(content) - 2)
        return (b"" if self.fault else content), rest

    def _decode(self, content: bytes, dots: bool) -> bytes:
        if dots:
            content = content.replace(b"\r\n.", b"\r\n")
        if not self._begun:
            self._begun = True
            content = content[2:]
        return self._check(content)


class DotWriter:
    """Writes content as it stands between 354 and CRLF.CRLF, with its dots stuffed (RFC 5321 4.5.2).

    Lines must end with CRLF: a bare CR or LF is refused, because a server may take it for the end of a line and then
    see another message. With `bare_newlines` it is kept, and a dot after it is not stuffed.
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
    """Return BDAT's number of octets, whether they are the last, and whether the rest of the argument is correct.

    Returns None when it cannot be known how many octets follow: there is no number, or one of more than twenty digits,
    which no client can mean.
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
    """Reads the content of one BDAT after another (RFC 3030 2), which is counted and has no stuffed dots.

    "accept" keeps it to the octet, as BINARYMIME must be. The other modes treat bare newlines as after DATA; a CR at
    the end of a piece waits for the next octet, in this chunk or a later one. `length` is the chunk's number of octets,
    `left` how many of them have not come, and `last` whether it is the last chunk.
    """

    __slots__ = ("_announced", "_tail", "last", "left", "length")

    def __init__(self, newlines: BareNewlines, max_size: int = 0, max_line: int = 0) -> None:
        super().__init__(newlines, max_size, max_line)
        self._announced = 0
        self._tail = b""
        self.length = self.left = 0
        self.last = False

    def begin(self, size: int, last: bool) -> None:
        """Begin a chunk of `size` octets. A chunk that would exceed the limit is a fault before its first octet."""
        self.length = self.left = size
        self.last = last
        self._announced += size
        if self._max_size and self._announced > self._max_size and self.fault is None:
            self.fault = ContentFault.TOO_LARGE

    def read(self, data: bytes) -> bytes:
        """Take octets, at most `left` of them. Return the content in them; a CR at their end may wait."""
        self.left -= len(data)
        if self.fault is not None:
            return b""
        if self._newlines != "accept" or self._max_line:
            data = self._tail + data
            waits = data.endswith(b"\r") and not (self.last and not self.left)
            self._tail = b"\r" if waits else b""
            data = data[:-1] if waits else data
        return self._check(data)
