"""What a DNS lookup returns or raises.

The errors keep apart what mail must keep apart: that a name or a record does not exist is an answer, and may be
permanent; that nobody could be asked is not, and mail must be tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

Kind = Literal["A", "AAAA", "MX", "PTR", "TLSA", "TXT"]


class Mx(NamedTuple):
    """A mail exchanger (RFC 5321 5.1). `exchange` is a host name, or "" in a null MX (RFC 7505)."""

    preference: int
    exchange: str


class Tlsa(NamedTuple):
    """A certificate association (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching_type: int
    data: bytes


# A and AAAA have addresses, PTR has names, TXT has octets: the strings of a record, joined (RFC 7208 3.3).
Record = IPv4Address | IPv6Address | str | bytes | Mx | Tlsa
_Record = TypeVar("_Record", covariant=True)


@dataclass(frozen=True, slots=True)
class Answer(Generic[_Record]):
    """The records of one name and kind; there is at least one.

    name            what was asked for, in lower case, without a final dot.
    kind            such as "MX".
    records         in the order of the response; the type depends on the kind.
    ttl             seconds for which the response may be kept, from when it came: the least of all its records.
    canonical_name  the name that has the records, after all CNAMEs; `name` where there was none.
    authenticated   whether the name server says that it has validated all of this by DNSSEC (the AD bit). It is worth
                    as much as the way to that server: see RFC 7672 2.1 and gsmtp.dns.nameservers.
    """

    name: str
    kind: Kind
    records: tuple[_Record, ...]
    ttl: int
    canonical_name: str
    authenticated: bool = False


class DnsError(Exception):
    """A lookup returned no records. `name` and `kind` are what was asked for; `reason`, if not "", says more."""

    _summary = "no records"

    def __init__(self, name: str, kind: str, reason: str = "") -> None:
        super().__init__(name, kind, reason)
        self.name = name
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} {self.kind}: {self.reason or self._summary}"


class InvalidName(DnsError):
    """The text is not a domain name."""

    _summary = "not a domain name"


class NegativeAnswer(DnsError):
    """There are no such records. This is an answer, and may be permanent."""

    def __init__(self, name: str, kind: str, reason: str = "", *, ttl: int | None = None, authenticated: bool = False):
        """`ttl` is what RFC 2308 5 allows, None where the response did not tell. For the rest see Answer."""
        super().__init__(name, kind, reason)
        self.ttl = ttl
        self.authenticated = authenticated


class NoSuchName(NegativeAnswer):
    """The name does not exist (NXDOMAIN)."""

    _summary = "no such name"


class NoData(NegativeAnswer):
    """The name exists, but has no records of this kind."""

    _summary = "no records of this kind"


class TemporaryFailure(DnsError):
    """Nobody could answer (such as SERVFAIL). The same lookup may succeed later."""

    _summary = "temporary failure"


class LookupTimedOut(TemporaryFailure):
    """There was no answer in time."""

    _summary = "no answer in time"


class Bogus(TemporaryFailure):
    """The name server could not validate the answer by DNSSEC. It may be forged, or badly signed."""

    _summary = "DNSSEC validation failed"


class TooManyQueries(DnsError):
    """The budget of queries is used up."""

    _summary = "too many queries"


class Backend(Protocol):
    """Where a Resolver gets its answers from. It keeps none of them."""

    def query(self, name: str, kind: Kind, lifetime: float) -> Answer[Any]:
        """Return the records of `name`, which is in lower case, in ASCII and without a final dot.

        Raises InvalidName, NoSuchName, NoData, and TemporaryFailure; LookupTimedOut after `lifetime` seconds at the
        latest.
        """
