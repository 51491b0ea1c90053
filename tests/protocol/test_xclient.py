"""XCLIENT and XFORWARD: what Postfix, nginx and filters send, and what nobody should."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol.xclient import (
    TEMPUNAVAIL,
    UNAVAILABLE,
    XCLIENT_ATTRIBUTES,
    XFORWARD_ATTRIBUTES,
    ClientAttributes,
    XclientError,
    parse_xclient,
    parse_xforward,
)


@pytest.mark.parametrize(
    ("argument", "attributes"),
    [
        (
            "NAME=spike.porcupine.org ADDR=168.100.189.2",
            ClientAttributes(name="spike.porcupine.org", address="168.100.189.2"),
        ),
        ("name=a addr=ipv6:2001:DB8::1 Port=25", ClientAttributes(name="a", address="2001:db8::1", port=25)),
        ("ADDR=IPV6:::ffff:c000:201", ClientAttributes(address="::ffff:192.0.2.1")),
        # nginx
        (
            "ADDR=192.0.2.1 LOGIN=user+40example.com NAME=[UNAVAILABLE]",
            ClientAttributes(address="192.0.2.1", login="user@example.com", name=UNAVAILABLE),
        ),
        ("PROTO=esmtp HELO=[192.0.2.1]", ClientAttributes(proto="ESMTP", helo="[192.0.2.1]")),
        ("NAME=[TempUnavail]", ClientAttributes(name=TEMPUNAVAIL)),
        ("NAME=+5bUNAVAILABLE+5D", ClientAttributes(name=UNAVAILABLE)),
        (
            "ADDR=[unavailable] PORT=[UNAVAILABLE] HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]",
            ClientAttributes(address=UNAVAILABLE, port=UNAVAILABLE, helo=UNAVAILABLE, login=UNAVAILABLE),
        ),
        (
            "DESTADDR=IPV6:::1 DESTPORT=0",
            ClientAttributes(destination_address="::1", destination_port=0),
        ),
        ("LOGIN=a=b", ClientAttributes(login="a=b")),
        ("LOGIN=j+C3+B6rg", ClientAttributes(login="jörg")),
        ("HELO=a+20+0D+0Ab(c)", ClientAttributes(helo="a???b?c?")),
        (" PORT=1  ADDR=192.0.2.1 ", ClientAttributes(port=1, address="192.0.2.1")),
        (f"HELO={'a' * 255}", ClientAttributes(helo="a" * 255)),
    ],
)
def test_xclient(argument: str, attributes: Any) -> None:
    assert parse_xclient(argument) == attributes


@pytest.mark.parametrize(
    ("argument", "attributes"),
    [
        (
            "NAME=spike.porcupine.org ADDR=168.100.189.2 PROTO=ESMTP ",
            ClientAttributes(name="spike.porcupine.org", address="168.100.189.2", proto="ESMTP"),
        ),
        (
            "NAME=not+20dns ADDR=x25:123 PROTO=UUCP SOURCE=local IDENT=4F1D2",
            ClientAttributes(name="not?dns", address="x25:123", proto="UUCP", source="LOCAL", ident="4F1D2"),
        ),
        ("ADDR=IPV6:::1 PORT=9", ClientAttributes(address="::1", port=9)),
        (
            "NAME=[unavailable] PROTO=[UNAVAILABLE] SOURCE=[UNAVAILABLE] IDENT=[UNAVAILABLE]",
            ClientAttributes(name=UNAVAILABLE, proto=UNAVAILABLE, source=UNAVAILABLE, ident=UNAVAILABLE),
        ),
        ("SOURCE=REMOTE", ClientAttributes(source="REMOTE")),
    ],
)
def test_xforward(argument: str, attributes: Any) -> None:
    assert parse_xforward(argument) == attributes


SHARED = [
    "",
    "   ",
    "NAME",
    "NAME=",
    "=a",
    "NAME=a NAME=b",
    "TTL=1",
    "HELO=a+2",
    "HELO=a+zz",
    "HELO=+FF",
    "HELO=é",
    "HELO=a\x00b",
    f"HELO={'a' * 256}",
    "PORT=65536",
    "PORT=-1",
    "PORT=٣",
    "PORT=123456",
    "PORT=[TEMPUNAVAIL]",
    "DESTADDR",
]


@pytest.mark.parametrize(
    "argument",
    [
        *SHARED,
        "NAME=a..b",
        "NAME=a+0D+0A",
        "NAME=-a",
        "ADDR=::1",
        "ADDR=[192.0.2.1]",
        "ADDR=192.0.2",
        "ADDR=192.0.2.01",
        "ADDR=IPV6:192.0.2.1",
        "ADDR=IPV6:fe80::1%eth0",
        "ADDR=[TEMPUNAVAIL]",
        "PROTO=UUCP",
        "PROTO=[UNAVAILABLE]",
        "LOGIN=a+00b",
        "LOGIN=a+0Ab",
        "SOURCE=LOCAL",
        "IDENT=1",
    ],
)
def test_bad_xclient(argument: Any) -> None:
    with pytest.raises(XclientError) as caught:
        parse_xclient(argument)
    assert str(caught.value.reply).startswith("501 5.5.4 ")


@pytest.mark.parametrize(
    "argument", [*SHARED, "NAME=[TEMPUNAVAIL]", f"PROTO={'a' * 65}", "SOURCE=HERE", "LOGIN=a", "DESTPORT=1"]
)
def test_bad_xforward(argument: Any) -> None:
    with pytest.raises(XclientError) as caught:
        parse_xforward(argument)
    assert str(caught.value.reply).startswith("501 5.5.4 ")


def test_the_error_names_the_attribute() -> None:
    with pytest.raises(XclientError, match="Bad PORT syntax"):
        parse_xclient("NAME=a PORT=b")
    with pytest.raises(XclientError, match="TTL not known"):
        parse_xclient("TTL=1")


def test_later_attributes_replace_earlier_ones() -> None:
    known = parse_xclient("NAME=a ADDR=192.0.2.1 HELO=h").updated(parse_xclient("NAME=[UNAVAILABLE] PORT=7"))
    assert known == ClientAttributes(name=UNAVAILABLE, address="192.0.2.1", helo="h", port=7)


def test_what_is_announced() -> None:
    assert XCLIENT_ATTRIBUTES == "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
    assert XFORWARD_ATTRIBUTES == "NAME ADDR PORT PROTO HELO IDENT SOURCE"


@given(st.text())
def test_no_argument_does_harm(text: Any) -> None:
    for parse in (parse_xclient, parse_xforward):
        for argument in (text, f"NAME={text}", f"ADDR=IPV6:{text}", f"HELO=a PORT={text}"):
            try:
                attributes = parse(argument)
            except XclientError:
                continue
            for value in (attributes.name, attributes.address, attributes.helo):
                assert not isinstance(value, str) or (value.isascii() and value.isprintable())
