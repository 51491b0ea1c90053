"""Answers from a table instead of the DNS, for tests and for programs that know them.

Resolver(StaticRecords({
    ("example.org", "MX"): [(10, "mx.example.org")],
    ("mx.example.org", "A"): ["192.0.2.1"],
    ("www.example.org", "CNAME"): ["example.org"],
    ("example.net", "MX"): TemporaryFailure("example.net", "MX"),
}))
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from gsmtp.dns.answers import Answer, DnsError, Kind, Mx, NoData, NoSuchName, TemporaryFailure, Tlsa
from gsmtp.dns.names import ascii_name

_MAX_ALIASES = 8


class StaticRecords:
    """A gsmtp.dns.answers.Backend. `asked` has the questions that it was asked so far.

    records  by name and kind: lists of addresses as text for A and AAAA, names for PTR and CNAME, (preference, name)
             for MX, (usage, selector, matching type, data) for TLSA, text or octets for TXT; or the error to raise.
             A name that has no records at all is a NoSuchName.
    ttl      of all answers, in seconds.

    Raises ValueError for a name or an address that is not one.
    """

    def __init__(
        self,
        records: Mapping[tuple[str, str], Sequence[Any] | DnsError],
        ttl: int = 300,
        authenticated: bool = False,
    ) -> None:
        self.asked: list[tuple[str, Kind]] = []
        self._ttl = ttl
        self._authenticated = authenticated
        self._records: dict[tuple[str, str], tuple[Any, ...] | DnsError] = {}
        for (name, kind), values in records.items():
            made = values if isinstance(values, DnsError) else tuple(map(_RECORDS[kind], values))
            self._records[ascii_name(name), kind] = made
        self._names = {name for name, _ in self._records}

    def query(self, name: str, kind: Kind, lifetime: float) -> Answer[Any]:
        """See Backend."""
        self.asked.append((name, kind))
        owner = name
        for _ in range(_MAX_ALIASES):
            found = self._records.get((owner, kind))
            if isinstance(found, DnsError):
                raise copy.copy(found)
            if found:
                return Answer(name, kind, found, self._ttl, owner, self._authenticated)
            alias = self._records.get((owner, "CNAME"))
            if not alias or isinstance(alias, DnsError):
                error = NoData if owner in self._names else NoSuchName
                raise error(name, kind, ttl=self._ttl, authenticated=self._authenticated)
            owner = alias[0]
        raise TemporaryFailure(name, kind, "too many aliases")


_RECORDS: dict[str, Callable[[Any], Any]] = {
    "A": ip_address,
    "AAAA": ip_address,
    "CNAME": ascii_name,
    "MX": lambda value: Mx(value[0], ascii_name(value[1])),
    "PTR": ascii_name,
    "TLSA": lambda value: Tlsa(*value),
    "TXT": lambda value: value if isinstance(value, bytes) else value.encode(),
}
