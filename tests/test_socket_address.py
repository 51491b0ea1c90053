"""Socket addresses as text, both ways."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.socket_address import (
    SocketAddress,
    address_literal,
    format_address,
    host_text,
    log_text,
    parse_address,
    parse_host,
    unmap,
)


@pytest.mark.parametrize(
    ("address", "text", "literal", "log"),
    [
        (("192.0.2.1", 25), "192.0.2.1:25", "[192.0.2.1]", "[192.0.2.1]:25"),
        (("2001:db8::1", 25, 0, 0), "[2001:db8::1]:25", "[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]:25"),
        (("::ffff:192.0.2.1", 25, 0, 0), "[::ffff:192.0.2.1]:25", "[192.0.2.1]", "[192.0.2.1]:25"),
        (("fe80::1%eth0", 25, 0, 2), "[fe80::1%eth0]:25", "[IPv6:fe80::1]", "[IPv6:fe80::1]:25"),
        ("/run/a", "/run/a", "", "unix"),
        ("", "", "", "unix"),
        (b"\0name", "@name", "", "unix"),
        (b"/run/\xff", "/run/\udcff", "", "unix"),
        (None, "", "", "unix"),
        ((), "", "", "unix"),
    ],
)
def test_as_text(address: SocketAddress, text: str, literal: str, log: str) -> None:
    assert (format_address(address), address_literal(address), log_text(address)) == (text, literal, log)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1:25", ("192.0.2.1", 25)),
        ("[2001:db8::1]:25", ("2001:db8::1", 25)),
        ("[::]:0", ("::", 0)),
        (":2525", ("", 2525)),
        ("mx.example:65535", ("mx.example", 65535)),
        ("/run/a:1", "/run/a:1"),
    ],
)
def test_parse_address(text: str, address: object) -> None:
    assert parse_address(text) == address
    assert parse_address(text, 53) == address


@pytest.mark.parametrize("text", ["2001:db8::1", "192.0.2.1", "mx.example"])
def test_a_default_port(text: str) -> None:
    assert parse_address(text, 53) == (text, 53)
    with pytest.raises(ValueError, match="not host:port"):
        parse_address(text)


@pytest.mark.parametrize(
    "text", ["", "[::1]", "::1:x", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:\u0661", "[]:25", "[a:25", "a b"]
)
def test_what_is_no_address(text: str) -> None:
    for port in (None, 53):
        with pytest.raises(ValueError, match="not host:port"):
            parse_address(text, port)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_what_is_formatted_is_parsed_again(ip: IPv4Address | IPv6Address, port: int) -> None:
    address = (host_text(ip), port)
    assert parse_address(format_address(address)) == address
    assert parse_host(address[0]) == unmap(ip)


@given(st.ip_addresses(v=4))
def test_mapped_addresses(ip: IPv4Address) -> None:
    mapped = ip_address(f"::ffff:{ip}")
    assert unmap(mapped) == ip
    assert host_text(mapped) == f"::ffff:{ip}"
    assert address_literal((host_text(mapped), 1, 0, 0)) == f"[{ip}]"


def test_parse_host() -> None:
    assert str(parse_host("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(parse_host("fe80::1%eth0")) == "fe80::1"
    assert parse_host("mx.example") is None
