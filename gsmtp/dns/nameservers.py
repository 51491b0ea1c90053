"""Asks name servers, by dnspython.

Name servers are recursive resolvers, those of the system or others. Whether one has validated an answer by DNSSEC is
taken from its word (the AD bit, RFC 6840 5.7-8), so whoever relies on it needs a validating resolver that nobody can
stand in front of: on this machine, as a rule. dnspython waits on sockets: under gevent's patch other greenlets run.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from time import monotonic
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from gsmtp.dns.answers import (
    Answer,
    Bogus,
    InvalidName,
    Kind,
    LookupTimedOut,
    Mx,
    NoData,
    NoSuchName,
    TemporaryFailure,
    Tlsa,
)
from gsmtp.socket_address import parse_address, parse_host

logger = logging.getLogger("gsmtp.dns")

# What passes every network unfragmented (https://www.dnsflagday.net/2020/)
_UDP_PAYLOAD = 1232
# Extended errors (RFC 8914 4) of a server that could not validate: from DNSSEC Indeterminate to NSEC Missing.
_BOGUS = range(5, 13)


class NameServers:
    """A gsmtp.dns.answers.Backend.

    addresses       such as "192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353". None: those of
                    /etc/resolv.conf; where that cannot be read, every query is a TemporaryFailure.
    server_timeout  seconds to wait for one server. 2.5: a second server, or a second try, has its turn within 5.

    Raises ValueError for an address that is not one.
    """

    def __init__(self, addresses: Sequence[str] = (), server_timeout: float = 2.5) -> None:
        self._resolver = resolver = dns.resolver.Resolver(configure=False)
        if addresses:
            resolver.nameservers = [_nameserver(text) for text in addresses]
        else:
            try:
                resolver.read_resolv_conf("/etc/resolv.conf")
            except (dns.exception.DNSException, OSError, ValueError) as error:
                logger.warning("no name servers: /etc/resolv.conf: %s", error)
        resolver.timeout = server_timeout
        resolver.use_search_by_default = False
        resolver.set_flags(dns.flags.RD | dns.flags.AD)
        # For servers that do not know EDNS: they answer FORMERR or NOTIMP (RFC 6891 7).
        self._without_edns = copy.copy(resolver)
        resolver.use_edns(0, 0, _UDP_PAYLOAD)

    def query(self, name: str, kind: Kind, lifetime: float) -> Answer[Any]:
        """See Backend."""
        try:
            asked = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise InvalidName(name, kind, str(error)) from None
        if not self._resolver.nameservers:
            raise TemporaryFailure(name, kind, "no name servers")
        try:
            found = self._resolve(asked, kind, monotonic() + lifetime)
        except dns.resolver.NXDOMAIN as error:
            response = error.kwargs["responses"][asked]
            raise NoSuchName(name, kind, ttl=_negative_ttl(response), authenticated=_authenticated(response)) from None
        except dns.exception.Timeout:
            raise LookupTimedOut(name, kind) from None
        except dns.resolver.NoNameservers as error:
            failure = Bogus if _is_bogus(error) else TemporaryFailure
            raise failure(name, kind, _told(error)) from None
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise TemporaryFailure(name, kind, str(error) or type(error).__name__) from None
        response = found.response
        if found.rrset is None:
            raise NoData(name, kind, ttl=_negative_ttl(response), authenticated=_authenticated(response))
        return Answer(
            name=name,
            kind=kind,
            records=tuple(map(_RECORDS[kind], found.rrset)),
            ttl=found.chaining_result.minimum_ttl,
            canonical_name=_text(found.canonical_name),
            authenticated=_authenticated(response),
        )

    def _resolve(self, name: dns.name.Name, kind: Kind, deadline: float) -> dns.resolver.Answer:
        """Raises what dnspython raises."""
        try:
            left = deadline - monotonic()
            return self._resolver.resolve(name, kind, lifetime=left, search=False, raise_on_no_answer=False)
        except dns.resolver.NoNameservers as error:
            if not _knows_no_edns(error):
                raise
        left = max(0.01, deadline - monotonic())
        return self._without_edns.resolve(name, kind, lifetime=left, search=False, raise_on_no_answer=False)


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    if text.startswith("[") and "%" in text:
        raise ValueError(f"a name server's address has no zone: {text!r}")
    try:
        found = parse_address(text, 53)
    except ValueError:
        found = text
    address = parse_host(found[0]) if isinstance(found, tuple) else None
    if address is None or not isinstance(found, tuple) or found[1] == 0:
        raise ValueError(f"no name server's address, with a port or without: {text!r}")
    return dns.nameserver.Do53Nameserver(str(address), found[1])


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


_RECORDS: dict[Kind, Callable[[Any], Any]] = {
    "A": lambda record: ip_address(record.address),
    "AAAA": lambda record: ip_address(record.address),
    "MX": lambda record: Mx(record.preference, _text(record.exchange)),
    "PTR": lambda record: _text(record.target),
    "TLSA": lambda record: Tlsa(record.usage, record.selector, record.mtype, record.cert),
    "TXT": lambda record: b"".join(record.strings),
}


def _authenticated(response: dns.message.Message) -> bool:
    return bool(response.flags & dns.flags.AD)


def _negative_ttl(response: Any) -> int | None:
    """RFC 2308 5: the least of the SOA's own TTL and its minimum, and those of CNAMEs. None without an SOA."""
    if not any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority):
        return None
    return int(response.resolve_chaining().minimum_ttl)


def _is_bogus(error: dns.resolver.NoNameservers) -> bool:
    """Whether a server has said that its validation failed."""
    responses = [each[4] for each in error.kwargs.get("errors", ()) if each[4] is not None]
    return any(
        response.rcode() == dns.rcode.SERVFAIL and option.code in _BOGUS
        for response in responses
        for option in response.options
        if isinstance(option, dns.edns.EDEOption)
    )


def _knows_no_edns(error: dns.resolver.NoNameservers) -> bool:
    responses = [each[4] for each in error.kwargs.get("errors", ()) if each[4] is not None]
    return any(response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP) for response in responses)


def _told(error: dns.resolver.NoNameservers) -> str:
    """What each server said, without the query."""
    return ", ".join(f"{each[0]}: {each[3]}" for each in error.kwargs.get("errors", ())) or "no name servers"
