"""Header fields that are set: the name is checked, the value is encoded and folded.

What a value may be depends on the name: addresses, a date, identifiers, a type with parameters, free text. CR, LF and
NUL in a value raise ValueError when it is set, so that no forged field gets further. Addresses, domains and identifiers
never become encoded words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote

from gsmtp.mime.addresses import Address, Group, check_text, parse_addresses, quote_name, valid_address
from gsmtp.mime.dates import format_date
from gsmtp.mime.domains import to_ascii
from gsmtp.mime.fold import LONGEST_TOKEN, Token, encode_words, fold, needs_encoding, text_tokens


class NeedsSMTPUTF8(ValueError):
    """Raised when a mail that must be ASCII has an address whose local part is not (RFC 6531)."""


class Parameters(NamedTuple):
    """A value with parameters, as Content-Type and Content-Disposition have it."""

    value: str
    params: Mapping[str, str]


class SetField(NamedTuple):
    """A field that was set: its name, the value it was set to, and the bytes of the value, encoded and folded."""

    name: str
    value: Value
    raw: bytes


Value = str | Parameters | tuple[Address | Group, ...]
Settable = str | datetime | Parameters | Address | Group | Sequence[Address | Group | str]

# RFC 5322 2.2: ftext = %d33-57 / %d59-126. Names longer than 76 leave no room for a value.
_NAME = re.compile(r"[!-9;-~]{1,76}")
_ADDRESS_NAMES = """
from sender reply-to to cc bcc resent-from resent-sender resent-to resent-cc resent-bcc resent-reply-to
disposition-notification-to
"""
ADDRESSES = frozenset(_ADDRESS_NAMES.split())
# Structured headers, in which an encoded word would be read as it stands
_STRUCTURED_NAMES = """
message-id resent-message-id in-reply-to references content-id content-type content-disposition
content-transfer-encoding mime-version date resent-date received return-path dkim-signature arc-seal
arc-message-signature arc-authentication-results authentication-results list-id list-unsubscribe
list-unsubscribe-post list-post list-help list-archive auto-submitted
"""
_NO_WORDS = frozenset(_STRUCTURED_NAMES.split())
_HOLD_FIRST = frozenset(("message-id", "in-reply-to", "references", "content-id"))
_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+")
_PARAMETER_VALUE = re.compile(r"[!-:<-~]*")
_PLAIN_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")
_QUOTABLE = re.compile(r"[\t -~]*")


def make_field(name: str, value: Settable) -> SetField:
    """Return the field for a name and a value.

    Raises ValueError for what it cannot hold, and TypeError for a value of a wrong type. It does not raise
    NeedsSMTPUTF8.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name of a header: {name!r:.80}")
    kept = _keep(name.lower(), value)
    return SetField(name, kept, encode_value(name, kept, None))


def _keep(name: str, value: Settable) -> Value:
    if isinstance(value, datetime):
        return format_date(value)
    if isinstance(value, Parameters):
        check_text(value.value)
        if not _PARAMETER_VALUE.fullmatch(value.value):
            raise ValueError(f"not the value of a header with parameters: {value.value!r:.80}")
        for key, text in value.params.items():
            if not _TOKEN.fullmatch(key) or "*" in key:
                raise ValueError(f"not a name of a parameter: {key!r:.80}")
            check_text(text)
        return Parameters(value.value, dict(value.params))
    if name in ADDRESSES:
        return to_addresses(value)
    if not isinstance(value, str):
        raise TypeError(f"{name} takes text, not {type(value).__name__}")
    check_text(value)
    return value.strip(" \t")


def to_addresses(
    value: str | Address | Group | Sequence[Address | Group | str],
) -> tuple[Address | Group, ...]:
    """Return the addresses that are given as a text, as one address or group, or as several of these.

    Raises ValueError for what is no address, TypeError for another type.
    """
    items: Iterable[Address | Group | str]
    items = (value,) if isinstance(value, str | Address | Group) else value
    out: list[Address | Group] = []
    for item in items:
        if isinstance(item, str):
            check_text(item)
            out.extend(parse_addresses(item))
        elif isinstance(item, Address | Group):
            out.append(item)
        else:
            raise TypeError(f"an address is text, Address or Group, not {type(item).__name__}")
    for found in out:
        check_text(found.name)
        for member in found.members if isinstance(found, Group) else (found,):
            check_text(member.name)
            if not (valid_address(member.addr) or _PLAIN_ATOM.fullmatch(member.addr)):
                raise ValueError(f"not an address: {member.addr or member.name!r:.80}")
    return tuple(out)


def encode_value(name: str, value: Value, utf8: bool | None) -> bytes:
    """Return the bytes of a value that was set.

    `utf8` True gives raw UTF-8, False ASCII alone, and None UTF-8 only where it is needed. Raises NeedsSMTPUTF8 when
    `utf8` is False and only UTF-8 can carry an address.
    """
    if isinstance(value, Parameters):
        return fold(name, _parameter_tokens(value, utf8 is True))
    if not isinstance(value, str):
        if utf8 is None:
            utf8 = not all(address.local.isascii() for address in _mailboxes(value))
        return fold(name, _address_tokens(value, utf8))
    lower = name.lower()
    if lower in _NO_WORDS:
        if not value.isascii() and utf8 is False:
            raise NeedsSMTPUTF8(f"{name} may not hold encoded words, and is not ASCII")
        tokens = [(found[1], found[2]) for found in re.finditer(r"([ \t]*)([^ \t]+)", value)]
        return fold(name, tokens, lower in _HOLD_FIRST)
    return fold(name, text_tokens(value, utf8 is True, 78 - len(name) - 2))


def _mailboxes(items: Iterable[Address | Group]) -> Iterable[Address]:
    for item in items:
        if isinstance(item, Group):
            yield from item.members
        else:
            yield item


def _address_tokens(items: Sequence[Address | Group], utf8: bool) -> list[Token]:
    """Return an address list as tokens, one per address where it fits on a line, so that lines break at commas."""
    tokens: list[Token] = []
    for number, item in enumerate(items):
        comma = "," if number < len(items) - 1 else ""
        if isinstance(item, Address):
            tokens += _mailbox(item, comma, utf8)
            continue
        name = _phrase(item.name, utf8) or [(" ", '""')]
        tokens += [*name[:-1], (name[-1][0], name[-1][1] + ":" + (";" + comma if not item.members else ""))]
        for place, member in enumerate(item.members):
            tokens += _mailbox(member, ";" + comma if place == len(item.members) - 1 else ",", utf8)
    return tokens


def _mailbox(address: Address, end: str, utf8: bool) -> list[Token]:
    addr = address.addr
    if not addr.isascii():
        if not address.local.isascii():
            if not utf8:
                raise NeedsSMTPUTF8(f"only SMTPUTF8 can carry {addr!r}")
        elif not utf8:
            addr = f"{address.local}@{to_ascii(address.domain)}"
    if not address.name:
        return [(" ", addr + end)]
    tokens = [*_phrase(address.name, utf8), (" ", f"<{addr}>{end}")]
    if sum(len(space) + len(text.encode()) for space, text in tokens) < 78:
        return [(" ", "".join(space + text for space, text in tokens).lstrip())]
    return tokens


def _phrase(name: str, utf8: bool) -> list[Token]:
    """Return a name as tokens: atoms, a quoted string (which stays one when folded), or encoded words."""
    if not name:
        return []
    words = name.split(" ")
    if any(needs_encoding(word, utf8) for word in words) or (len(name) > 60 and name != " ".join(name.split())):
        return [(" ", word) for word in encode_words(name)]
    quoted = quote_name(name)
    if name != " ".join(name.split()):
        return [(" ", quoted)]
    return [(" ", word) for word in quoted.split(" ")]


def _parameter_tokens(value: Parameters, utf8: bool) -> list[Token]:
    """Return a value and its parameters as tokens (RFC 2045 5.1). What is long or not ASCII goes by RFC 2231."""
    pieces = [value.value]
    for name, text in value.params.items():
        pieces += _parameter(name, text, utf8)
    return [(" " if number else "", piece + ";" * (number < len(pieces) - 1)) for number, piece in enumerate(pieces)]


def _parameter(name: str, text: str, utf8: bool) -> list[str]:
    if text and _TOKEN.fullmatch(text) and len(name) + len(text) < 76:
        return [f"{name}={text}"]
    # Text like an encoded word is taken for one by many readers, so it is written in another way.
    if "=?" not in text and (_QUOTABLE.fullmatch(text) or (utf8 and text.isprintable())):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        if len(name) + len(escaped.encode()) < 73 or (name == "boundary" and len(escaped) < LONGEST_TOKEN):
            return [f'{name}="{escaped}"']
    # RFC 2231 4.1: sections that count from 0; the first says the charset. A section holds whole characters.
    sections: list[str] = []
    piece = "utf-8''"
    room = 73 - len(name) - 3
    for char in text:
        encoded = quote(char, safe="!#$&+.^_`{|}~-")
        if len(piece) + len(encoded) > room - len(str(len(sections))):
            sections.append(piece)
            piece = ""
        piece += encoded
    sections.append(piece)
    if len(sections) == 1:
        return [f"{name}*={piece}"]
    return [f"{name}*{number}*={section}" for number, section in enumerate(sections)]
