"""The backend on dnspython, against a name server of its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import dns.flags
import pytest
from harness.nameserver import NameServer, Zone

from gsmtp.dns.answers import (
    Answer,
    Bogus,
    InvalidName,
    Kind,
    LookupTimedOut,
    Mx,
    NegativeAnswer,
    NoData,
    NoSuchName,
    TemporaryFailure,
    Tlsa,
)
from gsmtp.dns.nameservers import NameServers

ZONE: Zone = {
    ("example.org.", "MX"): ["20 B.example.org.", "10 a.example.org."],
    ("null.example.org.", "MX"): ["0 ."],
    ("a.example.org.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.example.org.", "AAAA"): ["2001:db8::1"],
    ("example.org.", "TXT"): ['"v=spf1 " "-all"', r'"caf\195\169"'],
    ("_25._tcp.a.example.org.", "TLSA"): ["3 1 1 " + "ab" * 32],
    ("1.2.0.192.in-addr.arpa.", "PTR"): ["A.Example.Org."],
    ("www.example.org.", "CNAME"): ["a.example.org."],
    ("silence.example.org.", "A"): "silence",
    ("failure.example.org.", "A"): "failure",
    ("bogus.example.org.", "A"): "bogus",
    ("garbage.example.org.", "A"): "garbage",
    ("big.example.org.", "TXT"): [f'"{"x" * 250}{number}"' for number in range(60)],
}
Serve = Callable[..., tuple[NameServer, NameServers]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[NameServer] = []

    def serving(**options: object) -> tuple[NameServer, NameServers]:
        running.append(NameServer(ZONE, **options))  # type: ignore[arg-type]
        return running[-1], NameServers([f"127.0.0.1:{running[-1].port}"])

    yield serving
    for each in running:
        each.close()


def test_records(serve: Serve) -> None:
    server, backend = serve(ttl=77)
    cases: dict[tuple[str, Kind], tuple[object, ...]] = {
        ("example.org", "MX"): (Mx(20, "b.example.org"), Mx(10, "a.example.org")),
        ("null.example.org", "MX"): (Mx(0, ""),),
        ("a.example.org", "A"): (ip_address("192.0.2.1"), ip_address("192.0.2.2")),
        ("a.example.org", "AAAA"): (ip_address("2001:db8::1"),),
        ("example.org", "TXT"): (b"v=spf1 -all", "caf\xe9".encode()),
        ("_25._tcp.a.example.org", "TLSA"): (Tlsa(3, 1, 1, b"\xab" * 32),),
        ("1.2.0.192.in-addr.arpa", "PTR"): ("a.example.org",),
    }
    for (name, kind), records in cases.items():
        found = backend.query(name, kind, 10)
        assert sorted(map(repr, found.records)) == sorted(map(repr, records))
        assert found == Answer(name, kind, found.records, 77, name)
    # It asks whether answers were validated, and for no more than passes unfragmented.
    assert all(query.flags & dns.flags.AD and query.payload == 1232 for query in server.queries)


def test_a_server_without_edns(serve: Serve) -> None:
    """RFC 6891 7: it answers FORMERR, and is asked again without."""
    server, backend = serve(edns=False)
    assert backend.query("a.example.org", "AAAA", 10).records == (ip_address("2001:db8::1"),)
    assert [query.edns for query in server.queries] == [0, -1]
    with pytest.raises(NoSuchName):
        backend.query("nowhere.example.net", "A", 10)


def test_aliases(serve: Serve) -> None:
    _, backend = serve()
    found = backend.query("www.example.org", "AAAA", 10)
    assert (found.name, found.canonical_name) == ("www.example.org", "a.example.org")


def test_large_answers_come_by_tcp(serve: Serve) -> None:
    server, backend = serve()
    assert len(backend.query("big.example.org", "TXT", 10).records) == 60
    assert [transport for *_, transport in server.asked] == ["udp", "tcp"]


@pytest.mark.parametrize("authenticated", [True, False])
def test_what_was_validated(serve: Serve, authenticated: bool) -> None:
    _, backend = serve(authenticated=authenticated)
    assert backend.query("a.example.org", "A", 10).authenticated is authenticated
    for name in ("a.example.org", "none.example.org"):
        with pytest.raises(NegativeAnswer) as caught:
            backend.query(name, "TLSA", 10)
        assert caught.value.authenticated is authenticated


@pytest.mark.parametrize(("soa", "ttl"), [(120, 120), (900, 300), (None, None)])
def test_negative_answers(serve: Serve, soa: int | None, ttl: int | None) -> None:
    """RFC 2308 5: the least of the SOA's minimum and of its own TTL, which is 300 here."""
    _, backend = serve(soa=soa)
    cases: dict[str, type[NegativeAnswer]] = {"none.example.org": NoSuchName, "a.example.org": NoData}
    for name, error in cases.items():
        with pytest.raises(error) as caught:
            backend.query(name, "MX", 10)
        assert type(caught.value) is error
        assert (caught.value.name, caught.value.kind, caught.value.ttl) == (name, "MX", ttl)


@pytest.mark.parametrize(
    ("name", "error"),
    [("failure", TemporaryFailure), ("bogus", Bogus), ("garbage", LookupTimedOut), ("silence", LookupTimedOut)],
)
def test_failures(serve: Serve, name: str, error: type[TemporaryFailure]) -> None:
    _, backend = serve()
    with pytest.raises(TemporaryFailure) as caught:
        backend.query(f"{name}.example.org", "A", 0.5 if error is LookupTimedOut else 10)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{name}.example.org A: ") and "\n" not in str(caught.value)


def test_a_second_server_has_its_turn() -> None:
    server = NameServer(ZONE)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            ports = silent.getsockname()[1], server.port
            backend = NameServers([f"127.0.0.1:{port}" for port in ports], server_timeout=0.2)
            assert len(backend.query("a.example.org", "A", 20).records) == 2
    finally:
        server.close()


@pytest.mark.parametrize("name", ["a..example.org", "a" * 64 + ".example.org", "a." * 128 + "org", "\\300.example.org"])
def test_what_is_no_name(serve: Serve, name: str) -> None:
    server, backend = serve()
    with pytest.raises(InvalidName):
        backend.query(name, "A", 10)
    assert server.asked == []


@pytest.mark.parametrize("text", ["", "ns.example", "192.0.2.1:0", "192.0.2.1:65536", "::1:x", "[::1]", "192.0.2"])
def test_what_is_no_name_server(text: str) -> None:
    with pytest.raises(ValueError, match="no name server") as caught:
        NameServers([text])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353"])
def test_name_servers(text: str) -> None:
    NameServers([text])
