"""The header section of a mail: an ordered table of fields over offsets. Fields are decoded when they are asked for.

`scan` finds the fields with one possessive expression per field. The table is asked by name without regard to case;
where a name occurs more than once the first counts, and all are kept. Fields can be set, added and deleted: such a
field carries its own bytes, and the others keep theirs. Weakness: when a name occurs more than once, its values are
found by a scan of the table.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from gsmtp.mime.charset import guess
from gsmtp.mime.defects import DEFAULT_LIMITS, Defect, Limits
from gsmtp.mime.fields import SetField, Settable, make_field
from gsmtp.mime.lexical import unfold
from gsmtp.mime.words import decode_words

Buffer = bytes | mmap.mmap

# RFC 5322 2.2: field-name ":" value, the value going on over lines that begin with white space; 4.5: white
# space before the colon. Deviations: a name may be empty (recorded), the line end may be LF; a lone CR is
# data.
_FIELD = re.compile(rb"([!-9;-~]*+)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)")
_FIELDS = re.compile(rb"(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+)++")
_NAMED_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)\n")
_LINE = re.compile(rb"[^\n]*+(?:\n|\Z)")
_MBOX = re.compile(rb">?From [^\n]*+\n")
_INDENT = re.compile(rb"[ \t]++(?![\r\n])")
_BLANK = re.compile(rb"[ \t]*+\r?(?:\n|\Z)")
_HEAD_END = re.compile(rb"\n\r?\n")

# RFC 5322 3.6 and RFC 2045: what may stand once in a head
SINGLE = frozenset(
    b"date from sender reply-to to cc bcc message-id in-reply-to references subject mime-version "
    b"content-type content-transfer-encoding content-disposition content-id content-description".split()
)


Span = re.Match[bytes]
"""A field in the buffer: the match of `_FIELD`, group 1 its name, group 2 its value with the line ends."""

Field = Span | SetField


class Head(NamedTuple):
    """What `scan` has found: lower-case names and fields in order, where the body starts, and the defects."""

    names: list[bytes]
    fields: list[Span]
    body: int
    defects: list[Defect]


def scan(
    buffer: Buffer,
    start: int,
    end: int,
    limits: Limits = DEFAULT_LIMITS,
    delimiters: dict[bytes, int] | None = None,
    mbox: bool = False,
    most: int | None = None,
) -> Head:
    """Read the header section that begins at `start`, in one pass, and return what was found.

    `delimiters` are lines that end a part, and so its header section. `most` is the number of fields to read if that is
    fewer than `limits` allow, but at least one.
    """
    most = limits.headers if most is None else min(limits.headers, most)
    names: list[bytes] = []
    fields: list[Span] = []
    defects: list[Defect] = []
    at = start
    stop = min(end, start + limits.header_bytes)
    match = _FIELD.match
    if mbox and (first := buffer[at : at + 1]) in b">F \t\xef":
        if first == b"\xef" and buffer[at : at + 3] == b"\xef\xbb\xbf":  # a byte order mark
            at += 3
        if found := _MBOX.match(buffer, at, stop):
            at = found.end()
        elif (found := _INDENT.match(buffer, at, stop)) and match(buffer, found.end(), stop):
            defects.append(Defect("indented_header", "the first line begins with white space", at))
            at = found.end()
    if delimiters is None and isinstance(buffer, bytes) and (quick := _regular(buffer, at, stop, most)):
        return quick._replace(defects=defects) if defects else quick
    while found := match(buffer, at, stop):
        name = found[1]
        if not name:
            defects.append(Defect("empty_header_name", "a colon begins the line", at))
        elif delimiters and name.startswith(b"--") and _line(buffer, at, end) in delimiters:
            break
        names.append(name.lower())
        fields.append(found)
        at = found.end()
        if len(names) >= most and match(buffer, at, stop):
            defects.append(Defect("too_many_headers", f"more than {len(names)}", at))
            return Head(names, fields, _after_head(buffer, at, end), defects)
    if at >= end:
        return Head(names, fields, end, defects)
    if at >= stop or (stop < end and (line := _LINE.match(buffer, at, stop)) and line.end() == stop):
        # The last field was cut off by the limit. It is kept as far as it goes.
        defects.append(Defect("headers_too_long", f"more than {limits.header_bytes} bytes", start))
        return Head(names, fields, _after_head(buffer, max(at - 1, start), end), defects)
    if blank := _BLANK.match(buffer, at, end):
        return Head(names, fields, blank.end(), defects)
    if not (delimiters and _line(buffer, at, end) in delimiters):
        defects.append(Defect("header_without_colon", "the body starts here, without a blank line", at))
    return Head(names, fields, at, defects)


def _regular(buffer: bytes, at: int, stop: int, most: int) -> Head | None:
    """Return the header section at `at` when it ends with a blank line and has only fields with names; else None.

    Two calls find it.
    """
    whole = _FIELDS.match(buffer, at, stop)
    end = whole.end() if whole else at
    blank = _BLANK.match(buffer, end, stop)
    if blank is None or blank.end() == end:
        return None
    fields = list(islice(_NAMED_FIELD.finditer(buffer, at, end), max(most, 1) + 1))
    if len(fields) > most:
        return None
    return Head([found[1].lower() for found in fields], fields, blank.end(), [])


def _line(buffer: Buffer, at: int, end: int) -> bytes:
    stop = buffer.find(b"\n", at, end)
    return delimiter_line(buffer[at : stop if stop >= 0 else end])


def delimiter_line(line: bytes) -> bytes:
    """Return a line as delimiters are compared: without line end and the white space before it (RFC 2046 5.1.1)."""
    return (line[:-1] if line[-1:] == b"\r" else line).rstrip(b" \t")


def _after_head(buffer: Buffer, at: int, end: int) -> int:
    found = _HEAD_END.search(buffer, at, end)
    return found.end() if found else end


_NO_HEAD = Head([], [], 0, [])


class Headers:
    """The fields of a header section in order. `headers["X"]` is the decoded text of the first X, or None.

    Setting replaces the first field of the name and deletes the others. A value is a text, for addresses also
    `Address`, `Group` or a list of them, for dates a datetime. Setting and adding raise ValueError for a value with CR,
    LF or NUL, and for one that no line can hold.
    """

    __slots__ = ("_fields", "_head", "_limits", "_names", "changed")

    def __init__(self, head: Head = _NO_HEAD, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._head = head
        self._names: list[bytes] = head.names
        self._fields: Sequence[Field] = head.fields
        self.changed = False

    def value(self, field: Field) -> bytes:
        """Return the bytes of a field's value, with its folds."""
        return field.raw if isinstance(field, SetField) else field[2].strip(b" \t\r\n")

    def find(self, name: bytes) -> bytes | None:
        """Return the bytes of the first field of that lower-case name, with its folds, or None."""
        names = self._names
        if name not in names:
            return None
        field = self._fields[names.index(name)]
        return field.raw if isinstance(field, SetField) else field[2].strip(b" \t\r\n")

    def _text(self, raw: bytes) -> str:
        text = unfold(guess(raw))
        if "=?" in text:
            return decode_words(text, self._limits.charsets, self._limits.encoded_words)
        return text

    def __getitem__(self, name: str) -> str | None:
        return self.get(name)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first field of that name, unfolded and with encoded words decoded; `default` without one."""
        raw = self.find(name.lower().encode("utf-8", "replace"))
        return default if raw is None else self._text(raw)

    def raw(self, name: str) -> bytes | None:
        """Return the bytes of the first field of that name without white space around them, or None."""
        return self.find(name.lower().encode("utf-8", "replace"))

    def get_all(self, name: str) -> list[str]:
        """Return all fields of that name in order, decoded."""
        key = name.lower().encode("utf-8", "replace")
        return [self._text(self.value(self._fields[at])) for at, found in enumerate(self._names) if found == key]

    def items(self) -> Iterator[tuple[str, str]]:
        """Return all fields in order as (name as it is written, decoded text)."""
        for field in self._fields:
            if isinstance(field, SetField):
                yield field.name, self._text(field.raw)
            else:
                yield field[1].decode("ascii"), self._text(field[2].strip(b" \t\r\n"))

    def _name(self, at: int) -> str:
        field = self._fields[at]
        return field.name if isinstance(field, SetField) else field[1].decode("ascii")

    def keys(self) -> list[str]:
        """Return the names in order as they are written, repeated where a field is."""
        return [self._name(at) for at in range(len(self._fields))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.raw(name) is not None

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Headers: {len(self)} fields>"

    def defects(self) -> Iterator[Defect]:
        """Return the defects of the header section as such: lines, limits, fields that occur twice."""
        yield from self._head.defects
        seen: set[bytes] = set()
        for name, field in zip(self._names, self._fields, strict=True):
            if name in SINGLE and not isinstance(field, SetField):
                if name in seen:
                    yield Defect("duplicate_header", name.decode(), field.start())
                seen.add(name)

    def spans(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Return the fields of the buffer as (lower-case name, bytes, offset)."""
        for name, field in zip(self._names, self._fields, strict=True):
            if not isinstance(field, SetField):
                yield name, self.value(field), field.start()

    def put(self, field: SetField) -> None:
        """Append a field that is already encoded."""
        self._fields = [*self._fields, field]
        self._names = [*self._names, field.name.lower().encode("ascii")]
        self.changed = True

    def fields(self) -> Iterator[tuple[str, Field, bytes]]:
        """Return all fields in order as (name, field, bytes).

        The bytes are the whole line of a `Span`, but the value of a `SetField`.
        """
        for at, field in enumerate(self._fields):
            yield self._name(at), field, field.raw if isinstance(field, SetField) else field[0]

    def add(self, name: str, value: Settable) -> None:
        """Append a field, whether or not there is one of that name. Raises ValueError as setting does."""
        self.put(make_field(name, value))

    def __setitem__(self, name: str, value: Settable) -> None:
        field = make_field(name, value)
        key = name.lower().encode("ascii")
        if key not in self._names:
            self.put(field)
            return
        first = self._names.index(key)
        fields = [*self._fields]
        fields[first] = field
        self._keep(fields, lambda at: at == first or self._names[at] != key)

    def __delitem__(self, name: str) -> None:
        key = name.lower().encode("utf-8", "replace")
        if key in self._names:
            self._keep(self._fields, lambda at: self._names[at] != key)

    def _keep(self, fields: Sequence[Field], wanted: Callable[[int], bool]) -> None:
        keep = [at for at in range(len(fields)) if wanted(at)]
        self._fields = [fields[at] for at in keep]
        self._names = [self._names[at] for at in keep]
        self.changed = True

    @property
    def scanned(self) -> tuple[int, int] | None:
        """The offsets where the buffer's first field begins and its last one ends, or None when it had none."""
        fields = self._head.fields
        return (fields[0].start(), fields[-1].end()) if fields else None
