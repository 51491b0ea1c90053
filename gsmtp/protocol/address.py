"""The addresses of MAIL and RCPT (RFC 5321 4.1.2, with RFC 6531 3.3).

The grammar is strict by default. The lenient form takes what some senders write: no angle brackets, white space after
the colon, dots where an atom must not have them (`user.@example.net`). This file must not know whether an address
exists. Weak: domains are checked for form alone, and not converted by IDNA.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

# RFC 5321 4.5.3.1: local-part 64 octets, domain 255, path 256 with its brackets.
MAX_LOCAL, MAX_DOMAIN, MAX_ADDRESS = 64, 255, 254


def _or_non_ascii(ascii_characters: str) -> str:
    """Return a class of these characters and all beyond ASCII, written as its complement, which `re` compiles fast."""
    return f"[^{re.escape(re.sub(f'[{ascii_characters}]', '', ''.join(map(chr, range(128)))))}]"


# atext   = ALPHA / DIGIT / "!#$%&'*+-/=?^_`{|}~"          RFC 5322 3.2.3; RFC 6531 3.3 adds UTF8-non-ascii
_ATEXT = _or_non_ascii(r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~")
# Dot-string = Atom *("." Atom)
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
# Quoted-string = DQUOTE *(qtextSMTP / quoted-pairSMTP) DQUOTE
# qtextSMTP = %d32-33 / %d35-91 / %d93-126; quoted-pairSMTP = "\" %d32-126; RFC 6531 adds UTF8-non-ascii to qtextSMTP
_QTEXT = _or_non_ascii(r"\x20!\x23-\x5b\x5d-\x7e")
_QUOTED = rf'"(?:{_QTEXT}|\\[\x20-\x7e])*"'
# sub-domain = Let-dig [Ldh-str]; RFC 6531 adds U-label. An underscore is no Let-dig but names with it send mail.
_LET_DIG = _or_non_ascii("A-Za-z0-9_")
_SUB_DOMAIN = rf"{_LET_DIG}(?:{_or_non_ascii('A-Za-z0-9_-')}*{_LET_DIG})?"
# Domain = sub-domain *("." sub-domain)
_DOMAIN = rf"{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*"
# address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / General-address-literal ) "]"
_LITERAL = r"\[[\x21-\x5a\x5e-\x7e]+\]"
# A-d-l = At-domain *( "," At-domain ), the source route: MUST BE accepted, SHOULD be ignored
_ROUTE = rf"(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?"

# Path = "<" [ A-d-l ":" ] Mailbox ">"
_PATH = re.compile(
    rf"<{_ROUTE}(?P<local>{_DOT_STRING}|{_QUOTED})@(?:(?P<domain>{_DOMAIN})|(?P<literal>{_LITERAL}))>(?= |$)"
)
_LENIENT_LOCAL = rf"(?:{_ATEXT}|\.)+|{_QUOTED}"
_LENIENT_PATH = re.compile(
    rf"[ \t]*(?P<open><)?{_ROUTE}(?P<local>{_LENIENT_LOCAL})@"
    rf"(?:(?P<domain>{_DOMAIN})\.?|(?P<literal>{_LITERAL}))(?(open)>)[ \t]*(?= |\t|$)"
)
_NULL_PATH = re.compile(r"<>(?= |$)")
_LENIENT_NULL_PATH = re.compile(r"[ \t]*<>[ \t]*(?= |\t|$)")
# RFC 5321 4.5.1: postmaster is accepted without a domain, in any case. Without re.A, "s" would match U+017F as well.
_POSTMASTER = re.compile(r"<(postmaster)>(?= |$)", re.I | re.A)
_LENIENT_POSTMASTER = re.compile(r"[ \t]*<?(postmaster)>?[ \t]*(?= |\t|$)", re.I | re.A)

_GENERAL_LITERAL = re.compile(r"\[[A-Za-z0-9-]*[A-Za-z0-9]:[\x21-\x5a\x5e-\x7e]+\]")


class Mailbox(NamedTuple):
    """An address.

    `address` is as it was given, without a source route; `local` is unquoted; `domain` is in lower case. The null
    reverse-path has "" in all three, a bare postmaster has the domain "". An address literal keeps its brackets.
    """

    address: str
    local: str
    domain: str


NULL = Mailbox("", "", "")
_new_tuple = tuple.__new__  # Mailbox(...) does the same by a function written in Python


class AddressError(ValueError):
    """Raised for a text that is no address; its own text says why, in words for the client."""


def parse_path(text: str, *, null: bool = False, lenient: bool = False) -> tuple[Mailbox, str]:
    """Return the path at the start of `text`, and what follows it. Raises AddressError.

    With `null`, for MAIL, the null reverse-path `<>` is allowed; without it, for RCPT, a bare postmaster is. Characters
    beyond ASCII are allowed, because it is not known yet whether SMTPUTF8 was asked for.
    """
    match = (_LENIENT_PATH if lenient else _PATH).match(text)
    if match is None:
        if null:
            empty = (_LENIENT_NULL_PATH if lenient else _NULL_PATH).match(text)
            if empty:
                return NULL, text[empty.end() :]
        else:
            bare = (_LENIENT_POSTMASTER if lenient else _POSTMASTER).match(text)
            if bare:
                return Mailbox(bare[1], bare[1], ""), text[bare.end() :]
        raise AddressError("not an address")
    local, domain, literal = match.group("local", "domain", "literal")
    if literal is not None:
        _check_literal(literal)
        domain = literal
    address = f"{local}@{domain}"
    # Octets count, not characters; an ASCII address of this length in characters cannot exceed any.
    if len(address) > MAX_LOCAL or not address.isascii():
        if len(local.encode()) > MAX_LOCAL:
            raise AddressError("local part longer than 64 octets")
        if len(domain.encode()) > MAX_DOMAIN or len(address.encode()) > MAX_ADDRESS:
            raise AddressError("address longer than 254 octets")
        if any(len(label) > 63 for label in domain.split(".")) and literal is None:
            raise AddressError("domain label longer than 63 octets")
    if local[0] == '"':
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return _new_tuple(Mailbox, (address, local, domain.lower())), text[match.end() :]


def _check_literal(literal: str) -> None:
    # IPv4-address-literal = Snum 3("." Snum); IPv6-address-literal = "IPv6:" IPv6-addr
    # General-address-literal = Standardized-tag ":" 1*dcontent
    inner = literal[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            if "%" in inner:
                raise AddressError("bad address literal")
            ipaddress.IPv6Address(inner[5:])
        elif ":" in inner:
            if not _GENERAL_LITERAL.fullmatch(literal):
                raise AddressError("bad address literal")
        else:
            ipaddress.IPv4Address(inner)
    except ipaddress.AddressValueError:
        raise AddressError("bad address literal") from None
