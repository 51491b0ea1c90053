"""Answers from a table."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from gsmtp.dns.answers import DnsError, Kind, Mx, NegativeAnswer, NoData, NoSuchName, TemporaryFailure, Tlsa
from gsmtp.dns.resolver import Resolver
from gsmtp.dns.static import StaticRecords

RECORDS: dict[tuple[str, str], Any] = {
    ("Example.org.", "MX"): [(10, "MX.example.org")],
    ("example.org", "TXT"): ["v=spf1 -all", b"\xff"],
    ("mx.example.org", "A"): ["192.0.2.1"],
    ("mx.example.org", "AAAA"): ["2001:db8::1"],
    ("_25._tcp.mx.example.org", "TLSA"): [(3, 1, 1, b"x" * 32)],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["mx.example.org."],
    ("www.example.org", "CNAME"): ["web.example.org"],
    ("web.example.org", "CNAME"): ["mx.example.org"],
    ("lost.example.org", "CNAME"): ["none.example.org"],
    ("loop.example.org", "CNAME"): ["loop.example.org"],
    ("empty.example.org", "A"): [],
    ("down.example.org", "MX"): TemporaryFailure("down.example.org", "MX"),
}


def test_all_kinds() -> None:
    resolver = Resolver(StaticRecords(RECORDS, authenticated=True))
    assert resolver.query("Example.Org.", "MX").records == (Mx(10, "mx.example.org"),)
    assert resolver.query("example.org", "TXT").records == (b"v=spf1 -all", b"\xff")
    assert resolver.query("mx.example.org", "A").records == (ip_address("192.0.2.1"),)
    assert resolver.query("mx.example.org", "AAAA").records == (ip_address("2001:db8::1"),)
    assert resolver.query("_25._tcp.mx.example.org", "TLSA").records == (Tlsa(3, 1, 1, b"x" * 32),)
    assert resolver.query("1.2.0.192.in-addr.arpa", "PTR").records == ("mx.example.org",)
    found = resolver.query("www.example.org", "A")
    assert (found.name, found.canonical_name, found.authenticated) == ("www.example.org", "mx.example.org", True)


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("none.example.org", "A", NoSuchName),
        ("lost.example.org", "A", NoSuchName),
        ("www.example.org", "MX", NoData),
        ("example.org", "A", NoData),
        ("empty.example.org", "A", NoData),
        ("down.example.org", "MX", TemporaryFailure),
        ("loop.example.org", "A", TemporaryFailure),
    ],
)
def test_errors(name: str, kind: Kind, error: type[DnsError]) -> None:
    backend = StaticRecords(RECORDS, ttl=77, authenticated=True)
    with pytest.raises(error) as caught:
        backend.query(name, kind, 5)
    assert type(caught.value) is error and caught.value.name == name
    if isinstance(caught.value, NegativeAnswer):
        assert (caught.value.ttl, caught.value.authenticated) == (77, True)
    assert backend.asked == [(name, kind)]


@pytest.mark.parametrize(
    "records",
    [{("\u2603.example", "A"): ["192.0.2.1"]}, {("a.example", "A"): ["192.0.2"]}, {("a.example", "CNAME"): ["\u2603"]}],
)
def test_what_is_wrong(records: dict[tuple[str, str], list[str]]) -> None:
    with pytest.raises(ValueError):
        StaticRecords(records)
