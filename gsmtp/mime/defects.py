"""What can be wrong with a mail, under stable codes, and how much of a mail is read.

A `Defect` is recorded and decoding goes on; with `strict=True` the first one is raised as `MimeError` with the same
code. The codes are part of the interface: programs compare them, and the texts are for people. Every limit is a field
of `Limits`. This file does not know the syntax of mail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from gsmtp.mime.charset import CHARSETS

# What each code says; docs/mime.rst has the table with the names that gen_smtp gives the same errors.
CODES: dict[str, str] = {
    "header_without_colon": "a line in the head is no header; the body starts there",
    "indented_header": "the first line of the head begins with white space; it is read as a header",
    "empty_header_name": "a header has no name",
    "duplicate_header": "a header that may stand once stands again; the first counts",
    "header_not_utf8": "a header has raw bytes that are not UTF-8; they are read as cp1252",
    "too_many_headers": "more headers than the limit; the rest is not read",
    "headers_too_long": "a head longer than the limit; the rest is not read",
    "non_mime_multipart": "a multipart without MIME-Version; it is read as one",
    "mime_version": "a MIME-Version that is not 1.0; the mail is read as 1.0",
    "bad_content_type": "a Content-Type that cannot be read; text/plain is taken",
    "bad_disposition": "a Content-Disposition that cannot be read; it is ignored",
    "bad_parameter": "a parameter that cannot be read as it stands; the best guess is taken",
    "duplicate_parameter": "a parameter stands twice; the first counts",
    "too_many_parameters": "more parameters than the limit; the rest is not read",
    "unterminated_quotes": "a quoted string has no end",
    "unterminated_comment": "a comment has no end",
    "no_boundary": "a multipart names no boundary; it is a leaf with the raw body",
    "missing_boundary": "the boundary of a multipart never comes; it is a leaf with the raw body",
    "missing_last_boundary": "a multipart is not closed; it ends with what it stands in",
    "encoded_multipart": "a multipart has a transfer encoding, which is ignored",
    "too_deep": "parts nested deeper than the limit; the part is a leaf with the raw body",
    "too_many_parts": "more parts than the limit; the rest is not read",
    "unknown_encoding": "an unknown transfer encoding; the body is taken as it stands",
    "bad_base64": "base64 that breaks its rules; the best bytes are taken",
    "bad_quoted_printable": "quoted-printable that breaks its rules; the best bytes are taken",
    "bad_uuencode": "uuencoded data that breaks its rules; the best bytes are taken",
    "unknown_charset": "an unknown charset; utf-8 is tried, then cp1252",
    "bad_character": "bytes that do not fit the charset",
    "bad_encoded_word": "an encoded word without an end, or with data that does not fit its encoding",
    "too_many_encoded_words": "more encoded words in a header than the limit; the rest is left as it stands",
    "bad_address": "an address that breaks the grammar; the best guess is taken",
    "too_many_addresses": "more addresses in a header than the limit; the rest is not read",
    "bad_date": "a date that cannot be read",
    "too_many_defects": "more defects than the limit; the rest is not listed",
}

Note = Callable[[str, str], None]
"""How a parser tells of a defect: `note(code, text)`; the caller adds the offset."""


class Defect(NamedTuple):
    """One thing wrong: `code` from `CODES`, `text` for people, `offset` in bytes from the start of the mail.

    Inside an attached message that was itself encoded, the offset is relative to the encoded body.
    """

    code: str
    text: str
    offset: int


class MimeError(ValueError):
    """Raised by strict decoding. `code` is from `CODES`, `offset` is in bytes."""

    def __init__(self, code: str, text: str, offset: int) -> None:
        super().__init__(f"{code} at {offset}: {text}")
        self.code = code
        self.text = text
        self.offset = offset


@dataclass(frozen=True)
class Limits:
    """How much of a mail is read. What is beyond a limit is left out and recorded as a defect.

    The defaults admit what people send, and keep the time for hostile mail in proportion to its size.
    """

    depth: int = 50  # multiparts and attached messages inside each other; real mail has under ten
    parts: int = 1_000  # in the whole mail
    header_bytes: int = 256 * 1024  # of one head; large providers refuse more than 64 KiB
    headers: int = 1_000  # in one head; mail that has passed many lists has under 200
    mail_headers: int = 20_000  # in all heads of the mail together; a thousand parts have some 5,000
    parameters: int = 100  # of one header, the pieces of RFC 2231 counted
    addresses: int = 10_000  # in one header
    encoded_words: int = 1_000  # in one header
    defects: int = 1_000  # listed
    charsets: frozenset[str] = field(default=CHARSETS, repr=False)  # codecs of Python that may be used


DEFAULT_LIMITS = Limits()
