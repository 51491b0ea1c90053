"""A decoded mail and its parts: views on offsets into one buffer, from which things are made when they are
asked for.

`Part` is an entity (RFC 2045 2.4): a head and a body. `Message` is the entity a mail is, or one that was
attached as message/rfc822. The tree of parts is found by structure.py, once for a whole mail, when the first
question needs it. Content, text and addresses are decoded anew at each question; who needs them twice keeps
them. A part that was built holds its payload instead of offsets; it answers the same questions.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from email.message import Message as StdlibMessage
from email.parser import BytesParser
from email.policy import Policy
from email.policy import default as default_policy
from typing import IO, TYPE_CHECKING, Any, cast

from gsmtp.mime import transfer
from gsmtp.mime.addresses import Address, Group, parse_addresses
from gsmtp.mime.charset import decode_text, guess
from gsmtp.mime.dates import parse_date
from gsmtp.mime.defects import Defect, Limits
from gsmtp.mime.filenames import safe_filename
from gsmtp.mime.headers import Buffer, Headers
from gsmtp.mime.lexical import unfold
from gsmtp.mime.parameters import Parsed, no_parameters, parse_raw

if TYPE_CHECKING:
    from gsmtp.mime.build import Addresses, Attachable
    from gsmtp.mime.fields import Settable

# RFC 2045 5.1: type "/" subtype, both tokens
_TYPE = re.compile(r"[!#$%&'*+.^_`{|}~0-9a-z-]+/[!#$%&'*+.^_`{|}~0-9a-z-]+")
_ID = re.compile(r"<[^<>\s]+>")


class Source:
    """What the parts of one mail share: the limits, and the functions that stand above this file.

    `grow` finds the tree below a part and appends to `defects`; `check` lists all defects; `encode` gives the
    bytes of a part that was built (None for decoded mail).
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
    """One entity of a mail. All properties answer for any content; none raises."""

    __slots__ = (
        "_body", "_buffer", "_children", "_default_type", "_embedded", "_end", "_origin", "_payload",
        "_source", "_start", "_type", "headers",
    )  # fmt: skip

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
            elif not _TYPE.fullmatch(parsed[0]):
                parsed = ("text/plain", parsed[1])
            self._type = parsed
        return parsed

    @property
    def content_type(self) -> str:
        """`"text/plain"`, lower-case; the default of RFC 2045 5.2 when it is missing or cannot be read."""
        return self._content_type()[0]

    @property
    def params(self) -> Mapping[str, str]:
        """The parameters of Content-Type, names lower-case, RFC 2231 applied."""
        return self._content_type()[1]

    @property
    def charset(self) -> str | None:
        """The charset as it was named, lower-case, or None."""
        name = self.params.get("charset")
        return name.lower() if name else None

    @property
    def disposition(self) -> str | None:
        """`"inline"`, `"attachment"` or what else stands there (RFC 2183), lower-case, or None."""
        parsed = self._parameters(b"content-disposition")
        return parsed[0] or None if parsed else None

    @property
    def filename(self) -> str | None:
        """The name the sender gave (filename of Content-Disposition, else name of Content-Type). Never use it
        as a path.
        """
        parsed = self._parameters(b"content-disposition")
        name = parsed[1].get("filename") or parsed[1].get("name") if parsed else None
        return name or self.params.get("name") or None

    @property
    def safe_filename(self) -> str:
        """A name to store the part under: no path, no control or reversing characters, at most 255 bytes,
        never "".
        """
        return safe_filename(self.filename or "")

    @property
    def content_id(self) -> str | None:
        """Content-ID with its brackets (RFC 2045 7), or None."""
        return _first_id(self.headers.find(b"content-id"))

    @property
    def encoding(self) -> str:
        """The transfer encoding that is applied: "base64", "quoted-printable", "uuencode" or "" for none."""
        raw = self.headers.find(b"content-transfer-encoding")
        if raw is None:
            return ""
        known = transfer.KNOWN.get(raw)
        return transfer.encoding_of(guess(raw))[0] if known is None else known

    @property
    def is_multipart(self) -> bool:
        """Whether the part has parts of its own. A multipart without a boundary has not."""
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
        """This part and all below in the order they stand, attached messages included (as their part, then as
        they are).
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
        """Head and body as they stand."""
        if self._source.encode is not None:
            return self._source.encode(self)
        return self._buffer[self._start : self._end]

    @property
    def raw_headers(self) -> bytes:
        """The head as it stands, with the blank line that ends it."""
        if self._source.encode is not None:
            return self.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        return self._buffer[self._start : self._body]

    @property
    def raw_body(self) -> bytes:
        """The body as it stands, transfer encoding and all."""
        if self._source.encode is not None:
            return self.raw.partition(b"\r\n\r\n")[2]
        return self._buffer[self._body : self._end]

    def _leaf_encoding(self) -> str:
        return "" if self.content_type.startswith("multipart/") else self.encoding

    @property
    def content(self) -> bytes:
        """The body with the transfer encoding undone. Decoded at each question: a large one is better kept,
        or `open`ed.
        """
        if self._payload is not None:
            return self._payload
        return transfer.decode(self.raw_body, self._leaf_encoding())

    def open(self) -> IO[bytes]:
        """The content as a binary file, decoded as it is read: pieces of some 200 KB, not the whole."""
        if self._payload is not None or self._source.encode is not None:
            return io.BytesIO(self.content)
        pieces = transfer.chunks(cast(bytes, self._buffer), self._body, self._end, self._leaf_encoding())
        return io.BufferedReader(transfer.DecodingReader(pieces))

    @property
    def text(self) -> str | None:
        """The text of a text part, line ends as they stand; None for any other part."""
        if self.content_type.startswith("text/"):
            return self._text()
        return None

    def _text(self) -> str:
        return decode_text(self.content, self.charset, self._source.limits.charsets)

    def addresses(self, name: str) -> list[Address | Group]:
        """The addresses in the first header of that name, in order; [] when there is none."""
        raw = self.headers.raw(name)
        if raw is None:
            return []
        limits = self._source.limits
        return parse_addresses(guess(raw), limits.addresses, limits.charsets)


class Message(Part):
    """A mail, decoded by `decode` or made by `Message.build`, or a mail attached to one."""

    __slots__ = ()

    @staticmethod
    def build(
        from_: Addresses,
        to: Addresses = (),
        subject: str = "",
        text: str | None = None,
        html: str | None = None,
        attachments: Iterable[Attachable] = (),
        inline: Mapping[str, Attachable] | None = None,
        headers: Mapping[str, Settable] | Iterable[tuple[str, Settable]] = (),
        cc: Addresses = (),
        bcc: Addresses = (),
        reply_to: Addresses = (),
        date: datetime | None = None,
        message_id: str | None = None,
    ) -> Message:
        """A mail from its pieces; `encode` writes it.

        Addresses are text, `Address`, `Group` or lists of them. Text and HTML are alternatives. An attachment
        is an `Attachment`, a `Message`, a path, or (name, content); `inline` maps the Content-ID by which the
        HTML names a thing ("cid:logo") to the thing. Date and Message-ID are made when they are not given,
        References from In-Reply-To. ValueError for a value with CR, LF or NUL, for what is no address, and
        for a mail without From.
        """
        # The one place that looks up: the class people know makes what this file cannot.
        from gsmtp.mime.build import build
        from gsmtp.mime.encode import encode_part

        return build(
            encode_part,
            from_,
            to,
            subject,
            text,
            html,
            attachments,
            inline,
            headers,
            cc,
            bcc,
            reply_to,
            date,
            message_id,
        )

    @property
    def recipients(self) -> list[str]:
        """The addresses in To, Cc and Bcc, each once: who an envelope for this mail would name."""
        found: dict[str, None] = {}
        for name in ("To", "Cc", "Bcc"):
            for item in self.addresses(name):
                for address in item.members if isinstance(item, Group) else (item,):
                    if address.addr:
                        found[address.addr] = None
        return list(found)

    @property
    def subject(self) -> str:
        """The Subject, decoded; "" when there is none."""
        return self.headers.get("Subject", "") or ""

    @property
    def from_(self) -> Address | None:
        """The first address in From, or None. `addresses("From")` has them all."""
        return self._first_address("From")

    @property
    def sender(self) -> Address | None:
        """The address in Sender, or None."""
        return self._first_address("Sender")

    def _first_address(self, name: str) -> Address | None:
        for item in self.addresses(name):
            if isinstance(item, Address):
                return item
            if item.members:
                return item.members[0]
        return None

    @property
    def to(self) -> list[Address | Group]:
        """The addresses in To."""
        return self.addresses("To")

    @property
    def cc(self) -> list[Address | Group]:
        """The addresses in Cc."""
        return self.addresses("Cc")

    @property
    def reply_to(self) -> list[Address | Group]:
        """The addresses in Reply-To."""
        return self.addresses("Reply-To")

    @property
    def date(self) -> datetime | None:
        """The Date, always with a time zone, or None when there is none that can be read."""
        value = self.headers.get("Date")
        return parse_date(value) if value else None

    @property
    def message_id(self) -> str | None:
        """The Message-ID with its brackets, or None."""
        return _first_id(self.headers.find(b"message-id"))

    @property
    def in_reply_to(self) -> list[str]:
        """The message identifiers in In-Reply-To, brackets and all."""
        return _ID.findall(guess(self.headers.find(b"in-reply-to") or b""))

    @property
    def references(self) -> list[str]:
        """The message identifiers in References in order, brackets and all."""
        return _ID.findall(guess(self.headers.find(b"references") or b""))

    def _leaves(self) -> Iterator[tuple[Part, bool]]:
        """The leaves outside attached messages, each with whether it may be text of this mail."""
        self._grow()
        stack: list[tuple[Part, bool]] = [(self, True)]
        while stack:
            part, shown = stack.pop()
            children = part._children
            if not children:
                yield part, shown
                continue
            shown = shown and part.disposition != "attachment"
            if part.content_type == "multipart/related":
                root = _related_root(part)
                stack.extend((child, shown and child is root) for child in reversed(children))
            else:
                stack.extend((child, shown) for child in reversed(children))

    @property
    def text(self) -> str | None:
        """The text/plain body: the first one that is no attachment, line ends as they stand; None when there
        is none.
        """
        part = self._text_part("text/plain")
        return None if part is None else part._text()

    @property
    def html(self) -> str | None:
        """The text/html body: the first one that is no attachment; None when there is none."""
        part = self._text_part("text/html")
        return None if part is None else part._text()

    def _text_part(self, content_type: str) -> Part | None:
        for part, shown in self._leaves():
            if shown and part.content_type == content_type and part.disposition != "attachment":
                return part
        return None

    @property
    def attachments(self) -> list[Part]:
        """Every leaf that is no text shown inline: those called attachment, with a file name, or of another
        type.

        Images inside HTML are among them (`content_id`, `disposition` tell), and attached messages as one
        part each.
        """
        return [part for part, _ in self._leaves() if _is_attachment(part, part is self)]

    @property
    def needs_smtputf8(self) -> bool:
        """Whether a head, or that of a part, has bytes above 127: only SMTPUTF8 may carry it (RFC 6531)."""
        return not all(part.raw_headers.isascii() for part in self.walk())

    @property
    def defects(self) -> list[Defect]:
        """All that is wrong, by offset. The whole mail is decoded to answer; see `CODES` for the names."""
        return self._source.check(self)

    def to_email_message(self, policy: Policy[Any] = default_policy) -> StdlibMessage[Any, Any]:
        """The same mail as the standard library's `EmailMessage` (or what `policy` makes)."""
        return cast("StdlibMessage[Any, Any]", BytesParser(policy=policy).parsebytes(self.raw))


def _is_attachment(part: Part, alone: bool) -> bool:
    content_type = part.content_type
    if alone:
        return part.disposition == "attachment" or not content_type.startswith(("text/", "multipart/"))
    if content_type not in ("text/plain", "text/html"):
        return True
    return part.disposition == "attachment" or part.filename is not None


def _related_root(part: Part) -> Part | None:
    """The part that a multipart/related shows (RFC 2387 3.2): the one that `start` names, else the first."""
    start = part.params.get("start")
    if start:
        for child in part.parts:
            if child.content_id == start:
                return child
    return part.parts[0] if part.parts else None


def _first_id(raw: bytes | None) -> str | None:
    if not raw:
        return None
    text = unfold(guess(raw))
    found = _ID.search(text)
    return found[0] if found else text or None
