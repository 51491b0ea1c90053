"""Reports about sent mail as values: delivery status (RFC 3464) and disposition notifications (RFC 8098).

Both come as multipart/report (RFC 3462, 6522) with a part of groups of fields. Real ones also come without the
multipart, with other outer types, or with groups that no blank line separates. Nothing here trusts a report: anyone can
forge one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from gsmtp.mime.dates import parse_date
from gsmtp.mime.headers import Headers, scan
from gsmtp.mime.message import Message
from gsmtp.mime.part import Part

_STATUS = ("message/delivery-status", "message/global-delivery-status")
_DISPOSITION = ("message/disposition-notification", "message/global-disposition-notification")
_ORIGINAL = (
    "message/rfc822",
    "message/global",
    "text/rfc822-headers",
    "message/rfc822-headers",
    "message/global-headers",
)
_FIELD_STARTS = re.compile(rb"^[!-9;-~]++[ \t]*+:", re.M)


@dataclass(frozen=True)
class RecipientStatus:
    """The status of one recipient (RFC 3464 2.3). Addresses and codes are without their type ("rfc822;", "smtp;")."""

    final_recipient: str
    original_recipient: str | None
    action: str  # "failed", "delayed", "delivered", "relayed", "expanded"; lower-case
    status: str  # "5.1.1", or "" when none can be read
    remote_mta: str | None
    diagnostic: str | None
    last_attempt: datetime | None
    retry_until: datetime | None
    headers: Headers

    @property
    def permanent(self) -> bool:
        """Whether delivery has failed permanently."""
        return self.action == "failed" and not self.status.startswith("4")


@dataclass(frozen=True)
class DeliveryReport:
    """A delivery status notification. `original` is the mail it is about, or its header section, if enclosed."""

    reporting_mta: str | None
    envelope_id: str | None
    arrival: datetime | None
    recipients: tuple[RecipientStatus, ...]
    original: Message | None
    headers: Headers


@dataclass(frozen=True)
class DispositionReport:
    """A disposition notification (RFC 8098 3.2). `type` is "displayed", "deleted" and so on, lower-case."""

    reporting_ua: str | None
    original_recipient: str | None
    final_recipient: str
    original_message_id: str | None
    mode: str  # "manual-action/MDN-sent-manually", lower-case
    type: str
    modifiers: tuple[str, ...]
    original: Message | None
    headers: Headers


def report(message: Message) -> DeliveryReport | DispositionReport | None:
    """Return the report that a mail is, or None. Several status parts are read as one report."""
    status: list[Part] = []
    disposition: Part | None = None
    original: Part | None = None
    for part in message.walk():
        content_type = part.content_type
        if content_type in _STATUS:
            status.append(part)
        elif content_type in _DISPOSITION:
            disposition = disposition or part
        elif content_type in _ORIGINAL and original is None and part is not message:
            original = part
    if status:
        # As many recipients as a header may have addresses.
        groups = list(islice((group for part in status for group in _groups(part)), message._source.limits.addresses))
        about = [group for group in groups if _is_recipient(group)]
        first = next((group for group in groups if not _is_recipient(group)), about[0] if about else Headers())
        return DeliveryReport(
            _untyped(first["Reporting-MTA"]),
            first["Original-Envelope-Id"],
            _date(first["Arrival-Date"]),
            tuple(map(_recipient, about)),
            _original(original, message),
            first,
        )
    if disposition is not None:
        group = next(_groups(disposition), Headers())
        mode, _, kind = (group["Disposition"] or "").lower().partition(";")
        kind, _, modifiers = kind.partition("/")
        return DispositionReport(
            group["Reporting-UA"],
            _untyped(group["Original-Recipient"]),
            _untyped(group["Final-Recipient"]) or "",
            group["Original-Message-ID"],
            mode.strip(),
            kind.strip(),
            tuple(modifier.strip() for modifier in modifiers.split(",") if modifier.strip()),
            _original(original, message),
            group,
        )
    return None


def _is_recipient(group: Headers) -> bool:
    return "Final-Recipient" in group or "Action" in group


def _groups(part: Part) -> Iterator[Headers]:
    """Return the groups of fields in a body, between blank lines; a second Final-Recipient begins a new group."""
    content = part.content
    limits = part._source.limits
    at = 0
    while found := _FIELD_STARTS.search(content, at):  # what stands between is no field
        head = scan(content, found.start(), len(content), limits)
        at = head.body
        starts = [number for number, name in enumerate(head.names) if name == b"final-recipient"][1:]
        for start, stop in zip([0, *starts], [*starts, len(head.names)], strict=True):
            piece = head._replace(names=head.names[start:stop], fields=head.fields[start:stop], defects=[])
            yield Headers(piece, limits)


def _recipient(group: Headers) -> RecipientStatus:
    status = (group["Status"] or "").split()
    return RecipientStatus(
        _untyped(group["Final-Recipient"]) or _untyped(group["Original-Recipient"]) or "",
        _untyped(group["Original-Recipient"]),
        (group["Action"] or "").split("(")[0].strip().lower(),
        status[0] if status else "",
        _untyped(group["Remote-MTA"]),
        _untyped(group["Diagnostic-Code"]),
        _date(group["Last-Attempt-Date"]),
        _date(group["Will-Retry-Until"]),
        group,
    )


def _untyped(value: str | None) -> str | None:
    """Return a value without its type: `"rfc822; a@b.example"` gives `"a@b.example"` (RFC 3464 2.1.2)."""
    if value is None:
        return None
    kind, semicolon, rest = value.partition(";")
    return rest.strip() if semicolon and " " not in kind.strip() else value.strip()


def _date(value: str | None) -> datetime | None:
    return parse_date(value) if value else None


def _original(part: Part | None, message: Message) -> Message | None:
    if part is None:
        return None
    if part.message is not None:
        return part.message
    content = part.content
    limits = part._source.limits
    head = scan(content, 0, len(content), limits, mbox=True)
    return Message(message._source, Headers(head, limits), content, 0, head.body, len(content))
