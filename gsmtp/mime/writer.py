"""Writes a `Part` as bytes: in a form that may go over SMTP, or unchanged.

A decoded mail that was not changed is written as it came. One whose header fields were changed keeps every other byte.
A mail that was built is written with CRLF, lines of at most 998 octets, no NUL, and no byte above 127 unless the caller
allows it (`cte="8bit"`, `utf8=True`). There is no recursion: parts are written from a stack.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from gsmtp.mime.fields import NeedsSMTPUTF8, SetField, encode_value, make_field
from gsmtp.mime.part import Part
from gsmtp.mime.rebuild import copied, rebuild

if TYPE_CHECKING:
    from gsmtp.mime.message import Message

CTE = Literal["7bit", "8bit", "binary"]

_base64: Callable[[bytes], bytes]
try:
    from pybase64 import b64encode as _base64
except ImportError:
    from base64 import b64encode as _base64

_DROPPED = frozenset(("bcc", "resent-bcc"))
_BLOCK = 57 * 4096  # whole lines of base64
# What quoted-printable leaves as it is
_QP_SAFE = bytes({*range(33, 127), 9, 10, 13, 32} - {61})


def encode_part(part: Part) -> bytes:
    """Return the bytes of a part that was built, as `encode` writes it by default."""
    return Writer(None, "7bit").write(part)


class Writer:
    """Writes one mail. `utf8` and `cte` are those of `encode`."""

    def __init__(self, utf8: bool | None, cte: CTE) -> None:
        self.utf8 = utf8
        self.cte = cte
        self.out: list[bytes] = []

    def write(self, root: Part) -> bytes:
        """Return the bytes of a part and all below it. Raises NeedsSMTPUTF8, and ValueError as `as_it_came`."""
        if root._source.encode is None:
            return self.as_it_came(root)
        stack: list[Part | bytes] = [root]
        while stack:
            item = stack.pop()
            if isinstance(item, bytes):
                self.out.append(item)
            elif item._source.encode is None:
                self.foreign(item)
            elif item._children:
                boundary = item.params["boundary"].encode("ascii")
                self.head(item, self.composite(item))
                stack.append(b"\r\n--" + boundary + b"--\r\n")
                for number, child in enumerate(reversed(item._children)):
                    last = number == len(item._children) - 1
                    stack += [child, (b"--" if last else b"\r\n--") + boundary + b"\r\n"]
            elif item._embedded is not None:
                self.message(item, item._embedded, stack)
            else:
                self.leaf(item)
        return b"".join(self.out)

    # A part that was built

    def head(self, part: Part, encoding: str | None, content_type: str = "") -> None:
        """Write the header section of a built part."""
        for name, field, _ in part.headers.fields():
            if isinstance(field, SetField) and name.lower() not in _DROPPED:
                if content_type and name.lower() == "content-type":
                    field = make_field(name, content_type)
                self.out.append(_field_bytes(field, self.utf8, b"\r\n"))
        if encoding:
            self.out.append(f"Content-Transfer-Encoding: {encoding}\r\n".encode("ascii"))
        self.out.append(b"\r\n")

    def leaf(self, part: Part) -> None:
        """Write a built part without parts."""
        content = part._payload or b""
        encoding, body = transfer_encode(content, part.content_type.startswith(("text/", "message/")), self.cte)
        self.head(part, encoding)
        self.out.append(body)
        if part._is_message and body and not body.endswith(b"\n"):
            self.out.append(b"\r\n")

    def composite(self, part: Part) -> str | None:
        """Return the label of a part with parts: what is inside must not need more than it says (RFC 2045 6.4)."""
        if self.cte == "7bit":
            return None
        for inner in part.walk():
            data = inner.raw if inner._source.encode is None else inner._payload or b""
            if not fits(data, "7bit"):
                return self.cte
        return None

    def message(self, part: Part, message: Message, stack: list[Part | bytes]) -> None:
        """Write a message/rfc822, in which only 7bit and 8bit are allowed (RFC 2046 5.2.1).

        The message inside is made to fit.
        """
        if message._source.encode is not None:
            self.head(part, self.composite(part))
            stack.append(message)
            return
        raw = self.as_it_came(message)
        if not fits(raw, self.cte) or (self.utf8 is not True and message.needs_smtputf8):
            try:
                raw = Writer(self.utf8 is True, self.cte).write(rebuild(message, encode_part))
            except NeedsSMTPUTF8:
                # Only UTF-8 can carry its headers. RFC 6532 3.7 lets message/global be encoded.
                self.head(part, "base64", "message/global")
                self.out.append(base64_lines(raw))
                return
        self.head(part, None if fits(raw, "7bit") else "8bit" if fits(raw, "8bit") else "binary")
        self.out.append(raw)

    def foreign(self, part: Part) -> None:
        """Write a decoded part inside a built one: unchanged if the next hop can carry that, else made to fit."""
        raw = self.as_it_came(part)
        if fits(raw, self.cte) and (self.utf8 is True or part.raw_headers.isascii()):
            self.out.append(raw)
        else:
            self.out.append(Writer(self.utf8, self.cte).write(rebuild(part, encode_part)))

    # A decoded mail

    def as_it_came(self, root: Part) -> bytes:
        """Return the bytes of a decoded part, with changed header sections in their places.

        Raises ValueError for changed fields inside an encoded attached message.
        """
        if root._source.grow is not None and not root.headers.changed and self.utf8 is not False:
            return root.raw  # nobody has seen the parts yet
        changed: list[Part] = []
        for part in root.walk():
            if part._origin == root._origin:
                if part.headers.changed or (self.utf8 is False and not part.raw_headers.isascii()):
                    changed.append(part)
            elif part.headers.changed:
                raise ValueError("headers inside an encoded attached message cannot be changed")
        out: list[bytes] = []
        at = root._start
        for part in changed:  # in the order they stand
            out += [part._buffer[at : part._start], self.changed_head(part)]
            at = part._body
        out.append(root._buffer[at : root._end])
        return b"".join(out)

    def changed_head(self, part: Part) -> bytes:
        """Return a decoded part's header section with its changes."""
        buffer = part._buffer
        line = b"\n" if (stop := buffer.find(b"\n")) > 0 and buffer[stop - 1 : stop] != b"\r" else b"\r\n"
        start, end = part.headers.scanned or (part._start, part._start)
        out = [buffer[part._start : start]]
        for name, field, raw in part.headers.fields():
            if name.lower() in _DROPPED:
                continue
            if isinstance(field, SetField):
                out.append(_field_bytes(field, self.utf8, line))
            elif self.utf8 is False and not raw.isascii():
                out.append(_field_bytes(copied(name, part.headers.value(field)), False, line))
            else:
                out.append(raw if raw.endswith(b"\n") else raw + line)
        gap = buffer[end : part._body]
        out.append(gap if gap.endswith(b"\n") else line)
        return b"".join(out)


def _field_bytes(field: SetField, utf8: bool | None, line: bytes) -> bytes:
    value = field.raw
    if not (utf8 is None or (value.isascii() and (utf8 is False or b"=?" not in value))):
        value = encode_value(field.name, field.value, utf8)
    whole = b"%b: %b\r\n" % (field.name.encode("ascii"), value)
    return whole if line == b"\r\n" else whole.replace(b"\r\n", line)


def fits(raw: bytes, cte: CTE) -> bool:
    """Return whether a hop that can carry `cte` takes these bytes (RFC 5321 4.5.3.1.6, RFC 6152, RFC 3030)."""
    if cte == "binary":
        return True
    return (cte == "8bit" or raw.isascii()) and _has_lines(raw)


def _has_lines(data: bytes) -> bool:
    """Return whether data is lines of at most 998 octets ended by CRLF, without NUL (RFC 2045 2.7, 2.8)."""
    ends = data.count(b"\r\n")
    if data.count(b"\n") != ends or data.count(b"\r") != ends or b"\0" in data:
        return False
    at = 0
    while len(data) - at > 998:
        stop = data.rfind(b"\n", at, at + 1000)
        if stop < 0:
            return False
        at = stop + 1
    return True


def transfer_encode(content: bytes, is_text: bool, cte: CTE) -> tuple[str | None, bytes]:
    """Return the transfer encoding that fits (None for 7bit), and the body in it.

    What is not text becomes base64 whatever its bytes are, because a hop may change line ends. Text that is almost
    ASCII becomes quoted-printable, unless it has line ends other than CRLF, which that would not keep.
    """
    if is_text and _has_lines(content):
        if content.isascii():
            return None, content
        if cte != "7bit":
            return "8bit", content
    elif cte == "binary":
        return "binary", content
    if is_text:
        ends = content.count(b"\r\n")
        if content.count(b"\n") == ends == content.count(b"\r"):
            special = len(content.translate(None, _QP_SAFE))
            if special * 6 <= len(content):
                return "quoted-printable", quoted_printable(content)
    return "base64", base64_lines(content)


def quoted_printable(data: bytes) -> bytes:
    """Return quoted-printable (RFC 2045 6.7) of data whose lines end with CRLF.

    Lines are at most 76 long, without white space at the end.
    """
    encoded = binascii.b2a_qp(data, istext=True)
    # Soft line breaks take after the first line end in the data; without one they come as LF.
    return encoded if b"\n" in data else encoded.replace(b"=\n", b"=\r\n")


def base64_lines(data: bytes) -> bytes:
    """Return base64 (RFC 2045 6.8) in lines of 76, each with CRLF."""
    # Block by block: a list of all lines of a large attachment would take more than the attachment.
    blocks: list[bytes] = []
    for start in range(0, len(data), _BLOCK):
        digits: bytes = _base64(data[start : start + _BLOCK])
        blocks += [b"\r\n".join([digits[at : at + 76] for at in range(0, len(digits), 76)]), b"\r\n"]
    return b"".join(blocks)
