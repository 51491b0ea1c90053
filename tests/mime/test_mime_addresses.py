"""Addresses: parsed as senders write them, and written so that they parse again."""

from __future__ import annotations

import pytest

from gsmtp import mime
from gsmtp.mime import Address, Group


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a@b.example", [Address("", "a@b.example")]),
        ("A B <a@b.example>", [Address("A B", "a@b.example")]),
        ('"B, A" <a@b.example>', [Address("B, A", "a@b.example")]),
        ("a@b.example (Ann (nested \\) one))", [Address("Ann (nested ) one)", "a@b.example")]),
        ("<a@b.example> (late)", [Address("late", "a@b.example")]),
        ("a . b @ c . example", [Address("", "a.b@c.example")]),
        ('"a b"@c.example', [Address("", '"a b"@c.example')]),
        ("a@[IPv6:::1]", [Address("", "a@[IPv6:::1]")]),
        ("G:;", [Group("G", ())]),
        (
            "G: a@b.example, C <c@d.example>;, e@f.example",
            [
                Group("G", (Address("", "a@b.example"), Address("C", "c@d.example"))),
                Address("", "e@f.example"),
            ],
        ),
        ("G: a@b.example", [Group("G", (Address("", "a@b.example"),))]),
        ("<<a@b.example>>", [Address("", "a@b.example")]),
        ("A <a@b.example> B <c@d.example>", [Address("A", "a@b.example"), Address("", "c@d.example")]),
        ('"unclosed <a@b.example>', [Address("unclosed", "a@b.example")]),
        ("ann at example", [Address("ann at example", "")]),
        ("Jörg <jörg@exämple.de>", [Address("Jörg", "jörg@exämple.de")]),
        (
            "=?utf-8?q?a=2C?= <a@b.example>,,\r\n b@c.example",
            [Address("a,", "a@b.example"), Address("", "b@c.example")],
        ),
        ("=?utf-8?q?=3Cx=40y=3E?= <a@b.example>", [Address("<x@y>", "a@b.example")]),
    ],
)
def test_parse_addresses(text: str, expected: list[Address | Group]) -> None:
    assert mime.parse_addresses(text) == expected


def test_addresses_are_written_so_that_they_parse_again() -> None:
    items: list[Address | Group] = [
        Address("Doe, John", "j@example.com"),
        Address("", "a@example.com"),
        Address('q"\\', '"a b"@example.com'),
        Group("A.B", (Address("J. D.", "x@example.com"),)),
        Group("none", ()),
    ]
    alike: list[Address | Group] = [Address("=?utf-8?q?x?= y", "a@example.com"), Group("=?a?b?c?=", ())]
    assert mime.parse_addresses(mime.format_addresses(alike)) == alike
    text = mime.format_addresses(items)
    assert mime.parse_addresses(text) == items
    assert text == (
        '"Doe, John" <j@example.com>, a@example.com, "q\\"\\\\" <"a b"@example.com>, '
        '"A.B": "J. D." <x@example.com>;, none: ;'
    )
    assert str(items[0]) == '"Doe, John" <j@example.com>' and str(items[4]) == "none: ;"
    assert (Address("", '"a@b"@c.example').local, Address("", "a@c.example").domain) == ('"a@b"', "c.example")


@pytest.mark.parametrize(
    ("addr", "valid"),
    [
        ("a@b", True),
        ('"a b"@c.example', True),
        ("a@[192.0.2.1]", True),
        ("ä@ö.example", True),
        ("a..b@c", False),
        (".a@c", False),
        ("a@b..c", False),
        ("a b@c", False),
        ("a@b@c", False),
        ("a", False),
        ("a@b\n", False),
    ],
)
def test_valid_address(addr: str, valid: bool) -> None:
    assert mime.valid_address(addr) is valid
