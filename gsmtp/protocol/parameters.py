"""The parameters of MAIL and RCPT (RFC 5321 4.1.2): for each a parser, a formatter, and the typed value between them.

A parser takes the text after "=" (None when there was none) and the limits of the listener. It returns the value, or
raises `ParameterError` with the reply to give. A formatter takes the value and returns the text after "=" (None for
none), or raises ValueError for a value that the parameter cannot have. `FORMATTERS` has them all.

No parser sees a session. Who may use a parameter is said by the extension that brings it
(gsmtp/protocol/server/extensions.py). The session checks that a value beyond ASCII comes with SMTPUTF8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from gsmtp.protocol.xtext import decode_utf8_addr, decode_xtext, encode_utf8_addr, encode_xtext
from gsmtp.reply import Reply

# RFC 5321 4.1.2: esmtp-param = esmtp-keyword ["=" esmtp-value]; esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
# esmtp-value = 1*(%d33-60 / %d62-126), to which RFC 6531 3.3 adds UTF8-non-ascii
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\u0080-\U0010ffff]+))?")


class Limits(Protocol):
    """What the parsers here read of the listener's options; `gsmtp.protocol.server.options.Options` has it."""

    @property
    def max_message_size(self) -> int:
        """Octets of a message, 0 for no limit."""

    @property
    def min_deliver_by(self) -> int:
        """The least number of seconds that BY with R may ask for."""


AnyLimits = TypeVar("AnyLimits", contravariant=True)
Formatter = Callable[[Any], str | None]


class ParameterError(Exception):
    """A parameter cannot be accepted; `reply` says why. Raises ValueError for a code that is no refusal."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        if code < 400:
            raise ValueError(f"{code} is no refusal")
        self.reply = Reply(code, enhanced, text)
        super().__init__(str(self.reply))


def _bad(text: str) -> ParameterError:
    return ParameterError(501, "5.5.4", text)


def parse_parameters(
    text: str, parsers: Mapping[str, Callable[[str | None, AnyLimits], Any]], limits: AnyLimits
) -> dict[str, Any]:
    """Return the typed values of the parameters in `text`, by their keywords in capitals. Raises ParameterError."""
    values: dict[str, Any] = {}
    # str.split would part them at control characters and at Unicode's white space too.
    for word in text.replace("\t", " ").split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise _bad("Bad parameter syntax")
        keyword = match[1].upper()
        parser = parsers.get(keyword)
        if parser is None:
            raise ParameterError(555, "5.5.4", f"Parameter {keyword[:40]} not recognized or not implemented")
        if keyword in values:
            raise _bad(f"Parameter {keyword} given twice")
        values[keyword] = parser(match[2], limits)
    return values


def format_parameters(values: Mapping[str, Any], formatters: Mapping[str, Formatter] | None = None) -> str:
    """Return `values` as they stand after an address, each with a space before it; "" for none.

    `formatters` are `FORMATTERS` when None. Raises ValueError for a keyword that has no formatter, and for a value
    that its parameter cannot have.
    """
    text = ""
    for keyword, value in values.items():
        formatter = (FORMATTERS if formatters is None else formatters).get(keyword)
        if formatter is None:
            raise ValueError(f"there is no parameter {keyword!r}")
        formatted = formatter(value)
        word = keyword if formatted is None else f"{keyword}={formatted}"
        if not _PARAMETER.fullmatch(word):
            raise ValueError(f"{keyword} cannot be {value!r:.200}")
        text += f" {word}"
    return text


# SIZE, BODY, SMTPUTF8


def size(value: str | None, limits: Limits) -> int:
    """SIZE, the octets that the client estimates (RFC 1870 4): size-value ::= 1*20DIGIT. Raises ParameterError."""
    if value is None or not re.fullmatch(r"[0-9]{1,20}", value):
        raise _bad("SIZE takes a number of octets")
    octets = int(value)
    if limits.max_message_size and octets > limits.max_message_size:
        raise ParameterError(552, "5.3.4", f"Message larger than {limits.max_message_size} octets")
    return octets


def body(value: str | None, limits: Limits) -> str:
    """BODY (RFC 6152 3): body-value ::= "7BIT" / "8BITMIME". Raises ParameterError."""
    kind = (value or "").upper()
    if kind not in ("7BIT", "8BITMIME"):
        raise _bad("BODY takes 7BIT or 8BITMIME")
    return kind


def binary_body(value: str | None, limits: Limits) -> str:
    """BODY, to which RFC 3030 3 adds "BINARYMIME". Raises ParameterError."""
    kind = (value or "").upper()
    if kind not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise _bad("BODY takes 7BIT, 8BITMIME or BINARYMIME")
    return kind


def smtputf8(value: str | None, limits: Limits) -> bool:
    """SMTPUTF8, which has no value (RFC 6531 3.4). Raises ParameterError."""
    if value is not None:
        raise _bad("SMTPUTF8 takes no value")
    return True


# DSN (RFC 3461)


class Ret(StrEnum):
    """How much of the message a notice of failure returns (RFC 3461 4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


class Notify(StrEnum):
    """When the sender wants a notice about a recipient (RFC 3461 4.1). NEVER excludes the others."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """ORCPT (RFC 3461 4.2): `type` in lower case, such as "rfc822" or "utf-8"; `address` decoded."""

    type: str
    address: str


# The address is written to a header field of a notice, where CR and LF above all must not be.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# addr-type = atom (RFC 3461 4.2)
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+")


def ret(value: str | None, limits: Limits) -> Ret:
    """RET (RFC 3461 4.3): ret-value = "FULL" / "HDRS". Raises ParameterError."""
    try:
        return Ret((value or "").upper())
    except ValueError:
        raise _bad("RET takes FULL or HDRS") from None


def envid(value: str | None, limits: Limits) -> str:
    """ENVID, the sender's name for this transaction, decoded (RFC 3461 4.4).

    It is printable and at most 100 characters of xtext. Raises ParameterError.
    """
    text = value or ""
    try:
        name = decode_xtext(text)
    except ValueError:
        raise _bad("ENVID takes xtext") from None
    # The name is written to a header field of a notice, so it has no CR and no LF.
    if not name or len(text) > 100 or not re.fullmatch(r"[\t\x20-\x7e]*", name):
        raise _bad("ENVID takes at most 100 printable characters")
    return name


def notify(value: str | None, limits: Limits) -> frozenset[Notify]:
    """NOTIFY (RFC 3461 4.1): notify-list = "NEVER" / 1#( "SUCCESS" / "FAILURE" / "DELAY" ). Raises ParameterError."""
    try:
        wanted = frozenset(Notify(word) for word in (value or "").upper().split(","))
    except ValueError:
        raise _bad("NOTIFY takes NEVER, or SUCCESS, FAILURE, DELAY with commas") from None
    if Notify.NEVER in wanted and len(wanted) > 1:
        raise _bad("NOTIFY=NEVER stands alone")
    return wanted


def orcpt(value: str | None, limits: Limits) -> OriginalRecipient:
    """ORCPT (RFC 3461 4.2): original-recipient-address = addr-type ";" xtext, at most 500 characters.

    The type utf-8 has the forms of RFC 6533 3. Raises ParameterError.
    """
    kind, semicolon, text = (value or "").partition(";")
    if not semicolon or not text or not _ATOM.fullmatch(kind) or len(value or "") > 500:
        raise _bad("ORCPT takes address-type;xtext")
    kind = kind.lower()
    try:
        # Postfix (3.7) writes an internationalized address as rfc822 with its octets in xtext; refused, it bounces.
        address = decode_utf8_addr(text) if kind == "utf-8" else decode_xtext(text, utf8=True)
    except ValueError as error:
        raise _bad(f"ORCPT: {error}") from None
    if _CONTROL.search(address):
        raise _bad("ORCPT: control character")
    return OriginalRecipient(kind, address)


# REQUIRETLS, MT-PRIORITY, DELIVERBY


def requiretls(value: str | None, limits: Limits) -> bool:
    """REQUIRETLS, which has no value (RFC 8689 2). Raises ParameterError."""
    if value is not None:
        raise _bad("REQUIRETLS takes no value")
    return True


def mt_priority(value: str | None, limits: Limits) -> int:
    """MT-PRIORITY, -9 to 9 (RFC 6710 6): priority-value = (["-"] NZDIGIT) / "0". Raises ParameterError."""
    if value is None or not re.fullmatch(r"-?[1-9]|0", value):
        raise _bad("MT-PRIORITY takes a number from -9 to 9")
    return int(value)


class ByMode(StrEnum):
    """What happens when the time is over (RFC 2852 4).

    RETURN sends the message back as undeliverable; NOTIFY tells the sender, and delivery goes on.
    """

    RETURN = "R"
    NOTIFY = "N"


@dataclass(frozen=True, slots=True)
class DeliverBy:
    """BY (RFC 2852 4).

    `seconds` counts from now, and is zero or negative when the time is over already. That is possible with NOTIFY only,
    because a message that would have to be returned is refused at MAIL. `trace` asks for notices of relaying.
    """

    seconds: int
    mode: ByMode
    trace: bool


def deliver_by(value: str | None, limits: Limits) -> DeliverBy:
    """BY (RFC 2852 4): by-value = by-time ";" by-mode [by-trace]; by-time = ["-" / "+"] 1*9DIGIT; "N" / "R"; "T".

    Raises ParameterError.
    """
    match = re.fullmatch(r"([-+]?[0-9]{1,9});([NR])(T?)", (value or "").upper())
    if match is None:
        raise _bad("BY takes seconds;N or seconds;R, and T after it")
    wanted = DeliverBy(int(match[1]), ByMode(match[2]), bool(match[3]))
    if wanted.mode is ByMode.RETURN:
        # RFC 2852 4: a message with R whose time is over is not sent on, so no sender has one.
        if wanted.seconds <= 0:
            raise _bad("BY with R takes a time that is not over")
        if wanted.seconds < limits.min_deliver_by:
            raise ParameterError(555, "5.5.4", f"BY with R takes at least {limits.min_deliver_by} seconds")
    return wanted


def auth(value: str | None, limits: Limits) -> str:
    """AUTH, who submitted the message as a trusted client says (RFC 4954 5): a mailbox in xtext, or "" for <>.

    Raises ParameterError.
    """
    try:
        name = decode_xtext(value or "")
    except ValueError:
        raise _bad("AUTH takes xtext") from None
    if not name or not name.isprintable():
        raise _bad("AUTH takes a mailbox or <>")
    return "" if name == "<>" else name


# Formatters. What a sender may not say is an error here and not at the other end.


def _number(least: int, most: int) -> Formatter:
    def formatter(value: int) -> str:
        if not least <= value <= most:
            raise ValueError(f"not a number from {least} to {most}: {value}")
        return str(int(value))

    return formatter


def format_body(value: str) -> str:
    """BODY. Raises ValueError."""
    if value not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise ValueError(f"not a kind of body: {value!r}")
    return value


def format_flag(value: bool) -> None:
    """SMTPUTF8 and REQUIRETLS, which have no value. Raises ValueError: a flag that is not set must be left out."""
    if value is not True:
        raise ValueError(f"a parameter without a value is True or left out, not {value!r}")


def format_ret(value: Ret) -> str:
    """RET. Raises ValueError."""
    return Ret(value).value


def format_envid(value: str) -> str:
    """ENVID. Raises ValueError for what `envid` would refuse."""
    text = encode_xtext(value)
    if not text or len(text) > 100 or not re.fullmatch(r"[\t\x20-\x7e]*", value):
        raise ValueError("ENVID takes at most 100 printable characters")
    return text


def format_notify(value: frozenset[Notify]) -> str:
    """NOTIFY, its words in the order of `Notify`. Raises ValueError."""
    wanted = {Notify(word) for word in value}
    if not wanted or (Notify.NEVER in wanted and len(wanted) > 1):
        raise ValueError("NOTIFY takes NEVER alone, or one of the others at least")
    return ",".join(word.value for word in Notify if word in wanted)


def format_orcpt(value: OriginalRecipient) -> str:
    """ORCPT, in ASCII. Raises ValueError for what `orcpt` would refuse."""
    if not _ATOM.fullmatch(value.type) or not value.address or _CONTROL.search(value.address):
        raise ValueError(f"not an original recipient: {value!r:.200}")
    encode = encode_utf8_addr if value.type == "utf-8" else encode_xtext
    text = f"{value.type};{encode(value.address)}"
    if len(text) > 500:
        raise ValueError("ORCPT takes at most 500 characters")
    return text


def format_deliver_by(value: DeliverBy) -> str:
    """BY. Raises ValueError for what `deliver_by` would refuse under any limits."""
    mode = ByMode(value.mode)
    if abs(value.seconds) > 999_999_999 or (mode is ByMode.RETURN and value.seconds <= 0):
        raise ValueError(f"not a time to deliver by: {value!r}")
    return f"{value.seconds};{mode.value}{'T' if value.trace else ''}"


def format_auth(value: str) -> str:
    """AUTH: a mailbox, "" for <>. Raises ValueError."""
    if not value.isascii() or not value.isprintable():
        raise ValueError("AUTH takes a mailbox of printable ASCII or an empty text")
    return encode_xtext(value or "<>")


FORMATTERS: dict[str, Formatter] = {
    "SIZE": _number(0, 10**20 - 1),
    "BODY": format_body,
    "SMTPUTF8": format_flag,
    "RET": format_ret,
    "ENVID": format_envid,
    "NOTIFY": format_notify,
    "ORCPT": format_orcpt,
    "REQUIRETLS": format_flag,
    "MT-PRIORITY": _number(-9, 9),
    "BY": format_deliver_by,
    "AUTH": format_auth,
}
