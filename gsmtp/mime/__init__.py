"""gsmtp.mime: decode any mail, encode mail rightly. Usable alone: it imports nothing else of gsmtp.

msg = mime.decode(raw)
msg.subject, msg.from_, msg.text, [part.safe_filename for part in msg.attachments], msg.defects

msg = mime.Message.build(from_="a@example.com", to="b@example.org", subject="Grüße", text="Hallo\\n")
mime.encode(msg, dkim=mime.DKIM("mail", "example.com", key))
"""

from gsmtp.mime.addresses import (
    Address,
    Group,
    format_address,
    format_addresses,
    parse_addresses,
    valid_address,
)
from gsmtp.mime.build import Attachment
from gsmtp.mime.charset import CHARSETS
from gsmtp.mime.dates import format_date, parse_date
from gsmtp.mime.decoding import decode
from gsmtp.mime.defects import CODES, Defect, Limits, MimeError
from gsmtp.mime.dkim import DKIM
from gsmtp.mime.domains import to_ascii
from gsmtp.mime.encode import encode
from gsmtp.mime.fields import NeedsSMTPUTF8, Parameters
from gsmtp.mime.headers import Headers
from gsmtp.mime.identifiers import make_boundary, make_message_id
from gsmtp.mime.message import Message
from gsmtp.mime.part import Part
from gsmtp.mime.report import DeliveryReport, DispositionReport, RecipientStatus, report

__all__ = [
    "CHARSETS",
    "CODES",
    "DKIM",
    "Address",
    "Attachment",
    "Defect",
    "DeliveryReport",
    "DispositionReport",
    "Group",
    "Headers",
    "Limits",
    "Message",
    "MimeError",
    "NeedsSMTPUTF8",
    "Parameters",
    "Part",
    "RecipientStatus",
    "decode",
    "encode",
    "format_address",
    "format_addresses",
    "format_date",
    "make_boundary",
    "make_message_id",
    "parse_addresses",
    "parse_date",
    "report",
    "to_ascii",
    "valid_address",
]
