"""A part of a mail: a view on offsets into one buffer. What it holds is decoded when it is asked for.

`Part` is an entity (RFC 2045 2.4): a header section and a body. message.py has `Message`, the part that is a mail.
structure.py finds the tree of parts, once for a whole mail, when it is first needed. Content, text and addresses are
decoded anew at each access; keep them if they are needed twice. A part that was built holds its payload instead of
offsets, and has the same properties.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, ClassVar, cast

from gsmtp.mime import transfer
from gsmtp.mime.addresses import Address, Group, parse_addresses
from gsmtp.mime.charset import decode_text, guess
from gsmtp.mime.defects import Defect, Limits
from gsmtp.mime.filenames import safe_filename
from gsmtp.mime.headers import Buffer, Headers
from gsmtp.mime.lexical import unfold
from gsmtp.mime.parameters import Parsed, no_parameters, parse_raw

if TYPE_CHECKING:
    from gsmtp.mime.message import Message

# RFC 2045 5.1: type "/" subtype, both tokens
TYPE = re.compile(r"[!#$%&'*+.^_`{|}~0-9a-z-]+/[!#$%&'*+.^_`{|}~0-9a-z-]+")
# RFC 5322 3.6.4: msg-id = "<" id-left "@" id-right ">"; real ones lack the "@"
IDENTIFIER = re.compile(r"<[^<>\s]+>")


class Source:
    """What the parts of one mail share: the limits, and functions of modules above this one.

    `grow` finds the tree below a part and appends to `defects`; `check` lists all defects; `encode` returns the bytes
    of a part that was built, and is None for decoded mail.
    """

    __slots__ = ("check", "defects", "encode", "grow", "limits")

    def __init__(
        self,
        limits: Limits,
        grow: Callable[[Part], None] | None,
        check: Callable[[Part], list[Defect]],
        encode: Callable[[Part], bytes] | None = None,
    ) -> None:
        self.limits = limits
        self.grow = grow
        self.check = check
        self.encode = encode
        self.defects: list[Defect] = []


class Part:
    """One entity of a mail. Its properties have a value for any content, and raise nothing."""

    __slots__ = (
        "_body", "_buffer", "_children", "_default_type", "_embedded", "_end", "_origin", "_payload",
        "_source", "_start", "_type", "headers",
    )  # fmt: skip
    _is_message: ClassVar[bool] = False

    def __init__(
        self,
        source: Source,
        headers: Headers,
        buffer: Buffer = b"",
        start: int = 0,
        body: int = 0,
        end: int = 0,
        default_type: str = "text/plain",
    ) -> None:
        self.headers = headers
        self._source = source
        self._buffer = buffer
        self._start = start
        self._body = body
        self._end = end
        self._origin = -1  # for parts of a decoded buffer: where that stood
        self._default_type = default_type
        self._type: Parsed | None = None
        self._children: list[Part] = []
        self._embedded: Message | None = None
        self._payload: bytes | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.content_type}>"

    def _grow(self) -> None:
        source = self._source
        if source.grow is not None:
            grow, source.grow = source.grow, None
            grow(self)  # parts below the first come of it, so it is the first that asks

    def _parameters(self, name: bytes) -> Parsed | None:
        raw = self.headers.find(name)
        if raw is None:
            return None
        return parse_raw(raw, self._source.limits)

    def _content_type(self) -> Parsed:
        parsed = self._type
        if parsed is None or self.headers.changed:
            parsed = self._parameters(b"content-type")
            if parsed is None:
                parsed = (self._default_type, no_parameters())
            elif not TYPE.fullmatch(parsed[0]):
                parsed = ("text/plain", parsed[1])
            self._type = parsed
        return parsed

    @property
    def content_type(self) -> str:
        """The type, such as `"text/plain"`, lower-case; the default of RFC 2045 5.2 when it cannot be read."""
        return self._content_type()[0]

    @property
    def params(self) -> Mapping[str, str]:
        """The parameters of Content-Type by their lower-case names, decoded by RFC 2231."""
        return self._content_type()[1]

    @property
    def charset(self) -> str | None:
        """The name of the charset, lower-case, or None."""
        name = self.params.get("charset")
        return name.lower() if name else None

    @property
    def disposition(self) -> str | None:
        """The disposition (RFC 2183), such as `"inline"` or `"attachment"`, lower-case, or None."""
        parsed = self._parameters(b"content-disposition")
        return parsed[0] or None if parsed else None

    @property
    def filename(self) -> str | None:
        """The name that the sender gave, or None. Never use it as a path.

        It is the `filename` of Content-Disposition, else the `name` of Content-Type.
        """
        parsed = self._parameters(b"content-disposition")
        name = parsed[1].get("filename") or parsed[1].get("name") if parsed else None
        return name or self.params.get("name") or None

    @property
    def safe_filename(self) -> str:
        """A name to store the part under, never "".

        It has no path, no control or reversing characters, and at most 255 bytes.
        """
        return safe_filename(self.filename or "")

    @property
    def content_id(self) -> str | None:
        """The Content-ID with its brackets (RFC 2045 7), or None."""
        return first_id(self.headers.find(b"content-id"))

    @property
    def encoding(self) -> str:
        """The transfer encoding of the body: "base64", "quoted-printable", "uuencode", or "" for none."""
        raw = self.headers.find(b"content-transfer-encoding")
        if raw is None:
            return ""
        known = transfer.KNOWN.get(raw)
        return transfer.encoding_of(guess(raw))[0] if known is None else known

    @property
    def is_multipart(self) -> bool:
        """Whether the part has parts. A multipart without a boundary has none."""
        return bool(self.parts)

    @property
    def parts(self) -> list[Part]:
        """The parts of a multipart in order; [] for a leaf."""
        self._grow()
        return self._children

    @property
    def message(self) -> Message | None:
        """The message that a message/rfc822 (or message/global) part holds, or None."""
        self._grow()
        return self._embedded

    def walk(self) -> Iterator[Part]:
        """Yield this part and all below it in the order of the mail.

        An attached message follows the part that holds it.
        """
        self._grow()
        stack = [self]
        while stack:
            part = stack.pop()
            yield part
            if part._embedded is not None:
                stack.append(part._embedded)
            elif part._children:
                stack.extend(reversed(part._children))

    @property
    def raw(self) -> bytes:
        """Header section and body as they are in the mail."""
        if self._source.encode is not None:
            return self._source.encode(self)
        return self._buffer[self._start : self._end]

    @property
    def raw_headers(self) -> bytes:
        """The header section as it is in the mail, with the blank line that ends it."""
        if self._source.encode is not None:
            return self.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        return self._buffer[self._start : self._body]

    @property
    def raw_body(self) -> bytes:
        """The body as it is in the mail, in its transfer encoding."""
        if self._source.encode is not None:
            return self.raw.partition(b"\r\n\r\n")[2]
        return self._buffer[self._body : self._end]

    def _leaf_encoding(self) -> str:
        return "" if self.content_type.startswith("multipart/") else self.encoding

    @property
    def content(self) -> bytes:
        """The body with the transfer encoding undone.

        It is decoded at each access: keep a large one, or use `open`.
        """
        if self._payload is not None:
            return self._payload
        return transfer.decode(self.raw_body, self._leaf_encoding())

    def open(self) -> IO[bytes]:
        """Return the content as a binary file that decodes as it is read, in pieces of some 200 KB."""
        if self._payload is not None or self._source.encode is not None:
            return io.BytesIO(self.content)
        pieces = transfer.chunks(cast(bytes, self._buffer), self._body, self._end, self._leaf_encoding())
        return io.BufferedReader(transfer.DecodingReader(pieces))

    @property
    def text(self) -> str | None:
        """The text of a text part with its line ends; None for any other part."""
        if self.content_type.startswith("text/"):
            return self._text()
        return None

    def _text(self) -> str:
        return decode_text(self.content, self.charset, self._source.limits.charsets)

    def addresses(self, name: str) -> list[Address | Group]:
        """Return the addresses in the first field of that name, in order; [] without one."""
        raw = self.headers.raw(name)
        if raw is None:
            return []
        limits = self._source.limits
        return parse_addresses(guess(raw), limits.addresses, limits.charsets)


def first_id(raw: bytes | None) -> str | None:
    """Return the first identifier in a field's value, else its text, or None."""
    if not raw:
        return None
    text = unfold(guess(raw))
    found = IDENTIFIER.search(text)
    return found[0] if found else text or None
