"""The parameters of MAIL and RCPT: a small parser for each, and the typed values they give.

A parser takes the text after "=" (None when there was none) and the listener's options, and returns the value or
raises `ParameterError` with the reply to give. It sees no session: who may use a parameter is the matter of the
extension that brings it (extensions.py), which is also where a parser becomes one that clients can reach. That a
value beyond ASCII needs SMTPUTF8 is looked after by the session.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gsmtp.protocol.server.options import Options
from gsmtp.reply import Reply

Parser = Callable[[str | None, Options], Any]


class ParameterError(Exception):
    """A parameter cannot be accepted; `reply` says why. ValueError for a code that is no refusal."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        if code < 400:
            raise ValueError(f"{code} is no refusal")
        self.reply = Reply(code, enhanced, text)
        super().__init__(str(self.reply))


def _bad(text: str) -> ParameterError:
    return ParameterError(501, "5.5.4", text)


# SIZE, BODY, SMTPUTF8


def size(value: str | None, options: Options) -> int:
    """Octets that the client estimates (RFC 1870 4): size-value ::= 1*20DIGIT."""
    if value is None or not re.fullmatch(r"[0-9]{1,20}", value):
        raise _bad("SIZE takes a number of octets")
    octets = int(value)
    if options.max_message_size and octets > options.max_message_size:
        raise ParameterError(552, "5.3.4", f"Message larger than {options.max_message_size} octets")
    return octets


def body(value: str | None, options: Options) -> str:
    """RFC 6152 3: body-value ::= "7BIT" / "8BITMIME"."""
    kind = (value or "").upper()
    if kind not in ("7BIT", "8BITMIME"):
        raise _bad("BODY takes 7BIT or 8BITMIME")
    return kind


def binary_body(value: str | None, options: Options) -> str:
    """RFC 3030 3 adds "BINARYMIME"."""
    kind = (value or "").upper()
    if kind not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise _bad("BODY takes 7BIT, 8BITMIME or BINARYMIME")
    return kind


def smtputf8(value: str | None, options: Options) -> bool:
    """RFC 6531 3.4: the parameter has no value."""
    if value is not None:
        raise _bad("SMTPUTF8 takes no value")
    return True


# DSN (RFC 3461)


class Ret(StrEnum):
    """What a notice of failure is to bring back (RFC 3461 4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


class Notify(StrEnum):
    """When the sender wants a notice about a recipient (RFC 3461 4.1). NEVER stands alone."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """ORCPT (RFC 3461 4.2): `type` in lower case, such as "rfc822" or "utf-8"; `address` decoded."""

    type: str
    address: str


# xtext = *( xchar / hexchar ); xchar = %d33-42 / %d44-60 / %d62-126; hexchar = "+" 2(%d48-57 / %d65-70)   RFC 3461 4
_XTEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
# utf-8-addr-xtext   = 1*(QCHAR / EmbeddedUnicodeChar)                                                     RFC 6533 3
# utf-8-addr-unitext = 1*(QUCHAR / EmbeddedUnicodeChar); QUCHAR = QCHAR / UTF8-2 / UTF8-3 / UTF8-4
# QCHAR = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e; EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"
_UNITEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")
_HEXPOINT = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
# addr-type = atom (RFC 3461 4.2)
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+")


def decode_xtext(text: str, utf8: bool = False) -> str:
    """The ASCII characters that an xtext stands for (RFC 3461 4), or ValueError; with `utf8` those of UTF-8 too."""
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    octets = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1")
    try:
        return octets.decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        raise ValueError("not xtext") from None


def decode_unitext(text: str) -> str:
    """The same for utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 3), or ValueError."""
    if not _UNITEXT.fullmatch(text):
        raise ValueError("not utf-8-addr-xtext")
    points = [int(found, 16) for found in _HEXPOINT.findall(text)]
    # HEXPOINT leaves out NUL, the surrogates and what is beyond Unicode.
    if any(point == 0 or 0xD800 <= point <= 0xDFFF or point > 0x10FFFF for point in points):
        raise ValueError("not a character")
    return _HEXPOINT.sub(lambda match: chr(int(match[1], 16)), text)


def ret(value: str | None, options: Options) -> Ret:
    """RFC 3461 4.3: ret-value = "FULL" / "HDRS"."""
    try:
        return Ret((value or "").upper())
    except ValueError:
        raise _bad("RET takes FULL or HDRS") from None


def envid(value: str | None, options: Options) -> str:
    """The sender's name for this transaction, decoded (RFC 3461 4.4): printable, at most 100 characters of xtext."""
    text = value or ""
    try:
        name = decode_xtext(text)
    except ValueError:
        raise _bad("ENVID takes xtext") from None
    # What is decoded ends in a header field of a notice: no CR, no LF, nothing that is not printable.
    if not name or len(text) > 100 or not re.fullmatch(r"[\t\x20-\x7e]*", name):
        raise _bad("ENVID takes at most 100 printable characters")
    return name


def notify(value: str | None, options: Options) -> frozenset[Notify]:
    """RFC 3461 4.1: notify-list = "NEVER" / 1#( "SUCCESS" / "FAILURE" / "DELAY" )."""
    try:
        wanted = frozenset(Notify(word) for word in (value or "").upper().split(","))
    except ValueError:
        raise _bad("NOTIFY takes NEVER, or SUCCESS, FAILURE, DELAY with commas") from None
    if Notify.NEVER in wanted and len(wanted) > 1:
        raise _bad("NOTIFY=NEVER stands alone")
    return wanted


def orcpt(value: str | None, options: Options) -> OriginalRecipient:
    """RFC 3461 4.2: original-recipient-address = addr-type ";" xtext, at most 500 characters; for utf-8: RFC 6533 3."""
    kind, semicolon, text = (value or "").partition(";")
    if not semicolon or not text or not _ATOM.fullmatch(kind) or len(value or "") > 500:
        raise _bad("ORCPT takes address-type;xtext")
    kind = kind.lower()
    try:
        # Postfix (3.7) writes an internationalized address as rfc822 with its octets in xtext; refused, it bounces.
        address = decode_unitext(text) if kind == "utf-8" else decode_xtext(text, utf8=True)
    except ValueError as error:
        raise _bad(f"ORCPT: {error}") from None
    # It ends in a header field of a notice, so above all no CR and no LF.
    if re.search(r"[\x00-\x1f\x7f-\x9f]", address):
        raise _bad("ORCPT: control character")
    return OriginalRecipient(kind, address)


# REQUIRETLS, MT-PRIORITY, DELIVERBY


def requiretls(value: str | None, options: Options) -> bool:
    """RFC 8689 2: the parameter has no value."""
    if value is not None:
        raise _bad("REQUIRETLS takes no value")
    return True


def mt_priority(value: str | None, options: Options) -> int:
    """-9 to 9 (RFC 6710 6): priority-value = (["-"] NZDIGIT) / "0"."""
    if value is None or not re.fullmatch(r"-?[1-9]|0", value):
        raise _bad("MT-PRIORITY takes a number from -9 to 9")
    return int(value)


class ByMode(StrEnum):
    """When the time is over: RETURN the message as undeliverable, or NOTIFY the sender and try on (RFC 2852 4)."""

    RETURN = "R"
    NOTIFY = "N"


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """BY (RFC 2852 4): `seconds` from now, zero or negative when the time is over already; `trace` wants relay notices.

    Only with NOTIFY can `seconds` be zero or negative: a message to be returned by then is refused at MAIL.
    """

    seconds: int
    mode: ByMode
    trace: bool


def deliver_by(value: str | None, options: Options) -> DeliverBy:
    """RFC 2852 4: by-value = by-time ";" by-mode [by-trace]; by-time = ["-" / "+"] 1*9DIGIT; "N" / "R"; "T"."""
    match = re.fullmatch(r"([-+]?[0-9]{1,9});([NR])(T?)", (value or "").upper())
    if match is None:
        raise _bad("BY takes seconds;N or seconds;R, and T after it")
    wanted = DeliverBy(int(match[1]), ByMode(match[2]), bool(match[3]))
    if wanted.mode is ByMode.RETURN:
        # A message with R whose time is up is not to be sent on, so no sender has one: RFC 2852 4.
        if wanted.seconds <= 0:
            raise _bad("BY with R takes a time that is not over")
        if wanted.seconds < options.min_deliver_by:
            raise ParameterError(555, "5.5.4", f"BY with R takes at least {options.min_deliver_by} seconds")
    return wanted


def auth(value: str | None, options: Options) -> str:
    """Who submitted the message, as a trusted client says (RFC 4954 5): a mailbox in xtext, or "" for <>."""
    try:
        name = decode_xtext(value or "")
    except ValueError:
        raise _bad("AUTH takes xtext") from None
    if not name or not name.isprintable():
        raise _bad("AUTH takes a mailbox or <>")
    return "" if name == "<>" else name
