"""gsmtp.mime: decode any mail, encode mail rightly. Usable alone: it imports nothing else of gsmtp.

msg = mime.decode(raw)
msg.subject, msg.from_, msg.text, [part.safe_filename for part in msg.attachments], msg.defects
"""

from gsmtp.mime.addresses import (
    Address,
    Group,
    format_address,
    format_addresses,
    parse_addresses,
    valid_address,
)
from gsmtp.mime.charset import CHARSETS
from gsmtp.mime.dates import format_date, parse_date
from gsmtp.mime.decoding import decode
from gsmtp.mime.defects import CODES, Defect, Limits, MimeError
from gsmtp.mime.headers import Headers
from gsmtp.mime.part import Message, Part

__all__ = [
    "CHARSETS",
    "CODES",
    "Address",
    "Defect",
    "Group",
    "Headers",
    "Limits",
    "Message",
    "MimeError",
    "Part",
    "decode",
    "format_address",
    "format_addresses",
    "format_date",
    "parse_addresses",
    "parse_date",
    "valid_address",
]
