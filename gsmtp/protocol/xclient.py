"""XCLIENT and XFORWARD (Postfix's XCLIENT_README and XFORWARD_README), by which a trusted peer describes its client.

This file turns the argument of either command into `ClientAttributes`, or raises `XclientError` with the reply to
give. It must not know who may send them nor whether a transaction is open. The session refuses those cases by
`NOT_ALLOWED` and `IN_TRANSACTION`. Weak: what a peer says is checked for form, not for truth.

What XCLIENT does to a session that accepts it:

- It is allowed at any time but within a transaction, even before EHLO. Whether the peer may send it is decided once,
  by the address that the connection has after a PROXY header and before any XCLIENT, because ADDR changes the address.
- The attributes override the connection's own for the rest of it. A later XCLIENT replaces those it names and keeps
  the others: `known = known.updated(new)`.
- The session goes back to its beginning. HELO, AUTH and the decision at connect are forgotten. TLS stays, because it
  cannot be switched off, so STARTTLS is not offered again. Limits and the connect hook are applied to the new client,
  and their decision is the answer: 220 and the greeting again, or the refusal. EHLO follows.
- LOGIN is the user name of a login elsewhere, taken as if AUTH had been done; [UNAVAILABLE] takes it back. HELO and
  PROTO are what the client said there; an EHLO that follows overrides them.

XFORWARD changes records only (logs, trace fields), never access, and is answered by 250. The first one before a
transaction starts from nothing known, and those that follow add to it. All is forgotten at the end of that transaction
(RSET or the end of its content). ADDR [UNAVAILABLE] there means a message that was submitted at the peer itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Literal

from gsmtp.protocol.xtext import decode_xtext
from gsmtp.reply import Reply
from gsmtp.socket_address import host_text

NOT_ALLOWED = Reply(550, "5.7.0", "Not allowed for this client")
IN_TRANSACTION = Reply(503, "5.5.1", "Mail transaction in progress")
FORWARDED = Reply(250, "2.0.0", "Ok")

# XFORWARD_README, note 1, and XCLIENT_README, note 1
_VALUE_LIMIT = 255
_PROTOCOL_LIMIT = 64
# What Postfix replaces before a text may stand in a message header, and what is not visible ASCII.
_UNSAFE = re.compile(r'[^\x21-\x7e]|[<>()\\";@]')
_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_PORT = re.compile(r"[0-9]{1,5}")


class Missing(Enum):
    """A value that is not known: for good, or for now (a name that could not be looked up)."""

    UNAVAILABLE = "[UNAVAILABLE]"
    TEMPUNAVAIL = "[TEMPUNAVAIL]"


UNAVAILABLE: Final = Missing.UNAVAILABLE
TEMPUNAVAIL: Final = Missing.TEMPUNAVAIL
Unavailable = Literal[Missing.UNAVAILABLE]
_MISSING: dict[str, Missing] = {missing.value: missing for missing in Missing}


class XclientError(Exception):
    """Raised for an argument that cannot be accepted; `reply`, 501 5.5.4, says why."""

    def __init__(self, text: str) -> None:
        self.reply = Reply(501, "5.5.4", text)
        super().__init__(str(self.reply))


@dataclass(frozen=True, slots=True)
class ClientAttributes:
    """The attributes that one command, or all so far, have given.

    None means that an attribute was not given, `UNAVAILABLE` that the peer does not know it. `address` is an IPv4 or
    IPv6 address as text, without brackets, or with XFORWARD any other word. `proto` is SMTP or ESMTP with XCLIENT, and
    with XFORWARD any word. `ident` is the message's id at the peer, `source` is LOCAL or REMOTE. In texts for trace
    fields, characters that are unsafe there have become "?".
    """

    name: str | Missing | None = None
    address: str | Unavailable | None = None
    port: int | Unavailable | None = None
    proto: str | Unavailable | None = None
    helo: str | Unavailable | None = None
    login: str | Unavailable | None = None
    destination_address: str | Unavailable | None = None
    destination_port: int | Unavailable | None = None
    ident: str | Unavailable | None = None
    source: Literal["LOCAL", "REMOTE"] | Unavailable | None = None

    def updated(self, later: ClientAttributes) -> ClientAttributes:
        """Return these attributes, replaced by those that `later` has."""
        values = {item.name: getattr(later, item.name) for item in fields(later)}
        return replace(self, **{name: value for name, value in values.items() if value is not None})


def _hostname(value: str) -> str:
    if not _HOSTNAME.fullmatch(value):
        raise ValueError
    return value


def _ip(value: str) -> str:
    if value[:5].upper() != "IPV6:":
        return str(IPv4Address(value))
    address = IPv6Address(value[5:])
    if address.scope_id is not None:
        raise ValueError
    return host_text(address)


def _any_address(value: str) -> str:
    try:
        return _ip(value)
    except ValueError:
        return _safe(value)


def _port(value: str) -> int:
    if not _PORT.fullmatch(value) or int(value) > 65535:
        raise ValueError
    return int(value)


def _safe(value: str) -> str:
    return _UNSAFE.sub("?", value)


def _smtp(value: str) -> str:
    if value.upper() not in ("SMTP", "ESMTP"):
        raise ValueError
    return value.upper()


def _any_protocol(value: str) -> str:
    if len(value) > _PROTOCOL_LIMIT:
        raise ValueError
    return _safe(value)


def _login(value: str) -> str:
    if not value.isprintable():
        raise ValueError
    return value


def _source(value: str) -> str:
    if value.upper() not in ("LOCAL", "REMOTE"):
        raise ValueError
    return value.upper()


# For each attribute: the field, a function that reads its value and raises ValueError, and words that may replace one.
_Attribute = tuple[str, Callable[[str], Any], frozenset[Missing]]
_GIVEN: frozenset[Missing] = frozenset()
_KNOWN_OR_NOT = frozenset({UNAVAILABLE})
_XCLIENT: dict[str, _Attribute] = {
    "NAME": ("name", _hostname, frozenset(Missing)),
    "ADDR": ("address", _ip, _KNOWN_OR_NOT),
    "PORT": ("port", _port, _KNOWN_OR_NOT),
    "PROTO": ("proto", _smtp, _GIVEN),
    "HELO": ("helo", _safe, _KNOWN_OR_NOT),
    "LOGIN": ("login", _login, _KNOWN_OR_NOT),
    "DESTADDR": ("destination_address", _ip, _KNOWN_OR_NOT),
    "DESTPORT": ("destination_port", _port, _KNOWN_OR_NOT),
}
_XFORWARD: dict[str, _Attribute] = {
    "NAME": ("name", _safe, _KNOWN_OR_NOT),
    "ADDR": ("address", _any_address, _KNOWN_OR_NOT),
    "PORT": ("port", _port, _KNOWN_OR_NOT),
    "PROTO": ("proto", _any_protocol, _KNOWN_OR_NOT),
    "HELO": ("helo", _safe, _KNOWN_OR_NOT),
    "IDENT": ("ident", _safe, _KNOWN_OR_NOT),
    "SOURCE": ("source", _source, _KNOWN_OR_NOT),
}
# What EHLO announces after the keyword.
XCLIENT_ATTRIBUTES = " ".join(_XCLIENT)
XFORWARD_ATTRIBUTES = " ".join(_XFORWARD)


def parse_xclient(argument: str) -> ClientAttributes:
    """Return the attributes in XCLIENT's argument, which follows the verb and a space. Raises XclientError."""
    return _parse("XCLIENT", argument, _XCLIENT)


def parse_xforward(argument: str) -> ClientAttributes:
    """Return the attributes in XFORWARD's argument. Raises XclientError."""
    return _parse("XFORWARD", argument, _XFORWARD)


# xclient-command = XCLIENT 1*( SP attribute-name"="attribute-value )
def _parse(verb: str, argument: str, attributes: dict[str, _Attribute]) -> ClientAttributes:
    words = argument.split()
    if not words:
        raise XclientError(f"Syntax: {verb} attribute=value...")
    values: dict[str, Any] = {}
    for word in words:
        keyword, equals, text = word.partition("=")
        keyword = keyword.upper()
        if not equals:
            raise XclientError(f"Syntax: {verb} attribute=value...")
        if keyword not in attributes:
            raise XclientError(f"Attribute {keyword[:40]} not known")
        field, read, missing = attributes[keyword]
        if field in values:
            raise XclientError(f"Attribute {keyword} given twice")
        try:
            values[field] = _value(text, read, missing)
        except ValueError:
            raise XclientError(f"Bad {keyword} syntax") from None
    return ClientAttributes(**values)


def _value(text: str, read: Callable[[str], Any], missing: frozenset[Missing]) -> Any:
    decoded = decode_xtext(text, utf8=True, lenient=True)
    if not 0 < len(decoded) <= _VALUE_LIMIT:
        raise ValueError
    word = _MISSING.get(decoded.upper())
    if word is None:
        return read(decoded)
    if word not in missing:
        raise ValueError
    return word
