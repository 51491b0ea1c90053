"""Makes a mail of its pieces: `build` chooses the structure, the types and the fields that it must have.

Only header fields are encoded here; writer.py chooses the transfer encodings when the mail is written.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Union

from gsmtp.mime.addresses import Address, Group
from gsmtp.mime.defects import DEFAULT_LIMITS
from gsmtp.mime.domains import to_ascii
from gsmtp.mime.fields import Parameters, SetField, Settable, to_addresses
from gsmtp.mime.headers import Headers
from gsmtp.mime.identifiers import make_boundary, make_message_id
from gsmtp.mime.part import TYPE, Part, Source
from gsmtp.mime.writer import encode_part

if TYPE_CHECKING:
    from gsmtp.mime.message import Message

Addresses = str | Address | Group | Sequence[Address | Group | str]

MessageClass = TypeVar("MessageClass", bound=Part)

_NEWLINE = re.compile(r"\r\n|\r|\n")
_ID = re.compile(r"<[^<>\s]+>")


@dataclass(frozen=True)
class Attachment:
    """Content to attach to a mail: bytes, or text, which becomes UTF-8 with CRLF.

    Without `content_type` the type is guessed from the name, else it is application/octet-stream. `params` are further
    parameters of Content-Type. `content_id` may be with or without brackets.
    """

    content: bytes | str
    filename: str | None = None
    content_type: str | None = None
    content_id: str | None = None
    disposition: str = "attachment"
    params: Mapping[str, str] | None = None

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Attachment:
        """Return the content of a file under its own name. Raises OSError."""
        path = Path(path)
        return cls(path.read_bytes(), path.name)


Attachable = Union[Attachment, "Message", tuple[str, bytes | str], PathLike[str]]


def text_bytes(text: str) -> bytes:
    """Return text as mail has it: UTF-8, each line ended by CRLF."""
    data = _NEWLINE.sub("\r\n", text).encode("utf-8")
    return data + b"\r\n" if data and not data.endswith(b"\r\n") else data


class Builder:
    """Makes the parts of one mail. They share one `Source`, and have no defects."""

    def __init__(self) -> None:
        self.source = Source(DEFAULT_LIMITS, None, lambda part: [], encode_part)

    def leaf(self, content_type: str, content: bytes, params: Mapping[str, str] | None = None) -> Part:
        """Return a part of that type and content. Raises ValueError for what is no type, and for a multipart."""
        if not TYPE.fullmatch(content_type) or content_type.startswith("multipart/"):
            raise ValueError(f"not the type of a leaf: {content_type!r:.80}")
        part = Part(self.source, Headers())
        part.headers.add("Content-Type", Parameters(content_type, params or {}))
        part._payload = content
        return part

    def text(self, subtype: str, text: str) -> Part:
        """Return a text part in US-ASCII or UTF-8."""
        content = text_bytes(text)
        return self.leaf(f"text/{subtype}", content, {"charset": "us-ascii" if content.isascii() else "utf-8"})

    def multipart(self, subtype: str, parts: Iterable[Part], params: Mapping[str, str] | None = None) -> Part:
        """Return a multipart with a new boundary."""
        part = Part(self.source, Headers())
        part.headers.add(
            "Content-Type",
            Parameters(f"multipart/{subtype}", {**(params or {}), "boundary": make_boundary()}),
        )
        part._children = list(parts)
        return part

    def attached(self, item: Attachable, disposition: str | None = None, content_id: str | None = None) -> Part:
        """Return a part for an attachment.

        Raises TypeError for what cannot be attached, ValueError for a bad type, OSError for a file that cannot be read.
        """
        if isinstance(item, Part):
            if not item._is_message:
                raise TypeError("a part that is no message cannot be attached")
            part = Part(self.source, Headers())
            part.headers.add("Content-Type", "message/rfc822")
            part.headers.add("Content-Disposition", disposition or "attachment")
            part._embedded = item
            return part
        if isinstance(item, tuple):
            item = Attachment(item[1], item[0])
        elif not isinstance(item, Attachment):
            item = Attachment.from_file(item)
        content_type = item.content_type or mimetypes.guess_type(item.filename or "")[0] or "application/octet-stream"
        content_type = content_type.lower()
        params = dict(item.params or {})
        content = item.content
        if isinstance(content, str):
            content = text_bytes(content)
            if item.content_type is None and not content_type.startswith("text/"):
                content_type = "text/plain"
            params.setdefault("charset", "us-ascii" if content.isascii() else "utf-8")
        if item.filename:
            params.setdefault("name", item.filename)
        part = self.leaf(content_type, bytes(content), params)
        part.headers.add(
            "Content-Disposition",
            Parameters(disposition or item.disposition, {"filename": item.filename} if item.filename else {}),
        )
        content_id = content_id or item.content_id
        if content_id:
            part.headers.add("Content-ID", f"<{content_id.strip('<>')}>")
        return part

    def message(self, message_class: type[MessageClass], headers: Headers, body: Part) -> MessageClass:
        """Return a message with these headers, and the content and Content fields of `body`."""
        message = message_class(self.source, headers)
        message._children, message._embedded, message._payload = body._children, body._embedded, body._payload
        for name, field, _ in body.headers.fields():
            if isinstance(field, SetField):
                headers.add(name, field.value)
        return message


def build(
    message_class: type[MessageClass],
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
) -> MessageClass:
    """Do what `Message.build` does, for the class of the message to make. Raises ValueError and OSError as it does."""
    head = Headers()
    senders = to_addresses(from_)
    if not senders:
        raise ValueError("a mail needs From")
    head.add("From", senders)
    for name, addresses in (("Reply-To", reply_to), ("To", to), ("Cc", cc), ("Bcc", bcc)):
        if addresses:
            head.add(name, addresses)
    if subject:
        head.add("Subject", subject)
    given = list(headers.items() if isinstance(headers, Mapping) else headers)
    if date is not None or not any(name.lower() == "date" for name, _ in given):
        head.add("Date", date or datetime.now(UTC))
    if message_id or not any(name.lower() == "message-id" for name, _ in given):
        head.add("Message-ID", message_id or make_message_id(_domain(senders)))
    for name, value in given:
        if name.lower() in ("content-type", "content-transfer-encoding", "mime-version"):
            raise ValueError(f"{name} follows from the content and cannot be set")
        head.add(name, value)
    complete_references(head)
    head.add("MIME-Version", "1.0")
    builder = Builder()
    return builder.message(message_class, head, _body(builder, text, html, list(attachments), inline or {}))


def _body(
    builder: Builder,
    text: str | None,
    html: str | None,
    attachments: list[Attachable],
    inline: Mapping[str, Attachable],
) -> Part:
    """Return the body: text and HTML as alternatives, images related to the HTML, attachments mixed in.

    Raises ValueError for inline attachments without HTML.
    """
    shown: list[Part] = [] if text is None else [builder.text("plain", text)]
    if html is not None:
        page = builder.text("html", html)
        if inline:
            images = [builder.attached(item, "inline", content_id) for content_id, item in inline.items()]
            page = builder.multipart("related", [page, *images], {"type": "text/html"})
        shown.append(page)
    elif inline:
        raise ValueError("inline attachments need html that shows them")
    if not shown and not attachments:
        shown = [builder.text("plain", "")]
    whole = [builder.multipart("alternative", shown)] if len(shown) > 1 else shown
    if attachments:
        return builder.multipart("mixed", [*whole, *map(builder.attached, attachments)])
    return whole[0]


def _domain(senders: Sequence[Address | Group]) -> str | None:
    """Return the sender's domain for the Message-ID, or None."""
    for item in senders:
        if isinstance(item, Address) and item.domain and not item.domain.startswith("["):
            return to_ascii(item.domain)
    return None


def complete_references(head: Headers) -> None:
    """Make References end with what In-Reply-To names (RFC 5322 3.6.4)."""
    replied = _ID.findall(head.get("In-Reply-To", "") or "")
    known = _ID.findall(head.get("References", "") or "")
    missing = [found for found in replied if found not in known]
    if missing:
        head["References"] = " ".join(known + missing)
