"""A mail, or a mail attached to one: the part that has From, Subject and Date, and knows which text is its body."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from email.message import Message as StdlibMessage
from email.parser import BytesParser
from email.policy import Policy
from email.policy import default as default_policy
from typing import Any, cast

from gsmtp.mime.addresses import Address, Group
from gsmtp.mime.build import Addresses, Attachable, build
from gsmtp.mime.charset import guess
from gsmtp.mime.dates import parse_date
from gsmtp.mime.defects import Defect
from gsmtp.mime.fields import Settable
from gsmtp.mime.part import IDENTIFIER, Part, first_id


class Message(Part):
    """A mail, decoded by `decode` or made by `Message.build`, or a mail attached to one."""

    __slots__ = ()
    _is_message = True

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
        """Return a mail made of its pieces, for `encode` to write.

        Addresses are text, `Address`, `Group` or lists of them. Text and HTML are alternatives. An attachment is an
        `Attachment`, a `Message`, a path, or (name, content); `inline` maps the Content-ID by which the HTML names a
        thing ("cid:logo") to the thing. Date and Message-ID are made when they are not given, and References from
        In-Reply-To.

        Raises ValueError for a value with CR, LF or NUL, for what is no address, and for a mail without From; OSError
        for an attachment whose file cannot be read.
        """
        return build(
            Message,
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
        """The addresses in To, Cc and Bcc, each once: the recipients of an envelope for this mail."""
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
        """The Date, always with a time zone, or None when none can be read."""
        value = self.headers.get("Date")
        return parse_date(value) if value else None

    @property
    def message_id(self) -> str | None:
        """The Message-ID with its brackets, or None."""
        return first_id(self.headers.find(b"message-id"))

    @property
    def in_reply_to(self) -> list[str]:
        """The message identifiers in In-Reply-To, with their brackets."""
        return IDENTIFIER.findall(guess(self.headers.find(b"in-reply-to") or b""))

    @property
    def references(self) -> list[str]:
        """The message identifiers in References in order, with their brackets."""
        return IDENTIFIER.findall(guess(self.headers.find(b"references") or b""))

    def _leaves(self) -> Iterator[tuple[Part, bool]]:
        """Yield the leaves outside attached messages, each with whether it may be text of this mail."""
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
        """The first text/plain part that is no attachment, decoded; None without one. Line ends are kept."""
        part = self._text_part("text/plain")
        return None if part is None else part._text()

    @property
    def html(self) -> str | None:
        """The first text/html part that is no attachment, decoded; None without one."""
        part = self._text_part("text/html")
        return None if part is None else part._text()

    def _text_part(self, content_type: str) -> Part | None:
        if not self.parts:
            return self if self.content_type == content_type and self.disposition != "attachment" else None
        for part, shown in self._leaves():
            if shown and part.content_type == content_type and part.disposition != "attachment":
                return part
        return None

    @property
    def attachments(self) -> list[Part]:
        """The leaves that are not text shown inline: those called attachment, with a file name, or of another type.

        Images inside HTML are among them (see `content_id` and `disposition`), and attached messages as one part each.
        """
        return [part for part, _ in self._leaves() if _is_attachment(part, part is self)]

    @property
    def needs_smtputf8(self) -> bool:
        """Whether a header section, also of a part, has bytes above 127: only SMTPUTF8 may carry it (RFC 6531)."""
        return not all(part.raw_headers.isascii() for part in self.walk())

    @property
    def defects(self) -> list[Defect]:
        """All defects by offset. The whole mail is decoded for that; `CODES` explains their codes."""
        return self._source.check(self)

    def to_email_message(self, policy: Policy[Any] = default_policy) -> StdlibMessage[Any, Any]:
        """Return the mail as the standard library's `EmailMessage`, or as what `policy` makes."""
        return cast("StdlibMessage[Any, Any]", BytesParser(policy=policy).parsebytes(self.raw))


def _is_attachment(part: Part, alone: bool) -> bool:
    content_type = part.content_type
    if alone:
        return part.disposition == "attachment" or not content_type.startswith(("text/", "multipart/"))
    if content_type not in ("text/plain", "text/html"):
        return True
    return part.disposition == "attachment" or part.filename is not None


def _related_root(part: Part) -> Part | None:
    """Return the part that a multipart/related shows (RFC 2387 3.2): the one that `start` names, else the first."""
    start = part.params.get("start")
    if start:
        for child in part.parts:
            if child.content_id == start:
                return child
    return part.parts[0] if part.parts else None
