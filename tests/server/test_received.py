"""The Received field: whatever a client calls itself, it is one field of short lines."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol.address import Mailbox
from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.server.received import received


def make(helo: str, recipients: int = 1, utf8: bool = False, peer: object = ("192.0.2.1", 4000)) -> Envelope:
    session = Session("S", peer, ("192.0.2.2", 25))  # type: ignore[arg-type]
    session.helo, session.esmtp = helo, True
    envelope = Envelope("E1", session, Mailbox("a@b", "a", "b"), {"SMTPUTF8": True} if utf8 else {})
    envelope.recipients += [Recipient(Mailbox(f"r{n}@c.example", f"r{n}", "c.example"), {}) for n in range(recipients)]
    return envelope


def test_field() -> None:
    assert received(make("client.example"), "mx.example.org", 0.0) == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.example.org with ESMTP id E1\r\n"
        b"\tfor <r0@c.example>;\r\n"
        b"\tThu, 01 Jan 1970 00:00:00 -0000\r\n"
    )


@pytest.mark.parametrize(
    ("kind", "utf8", "protocol"),
    [
        # RFC 5321 has ESMTP as soon as the client said EHLO; RFC 3848 has no word for HELO with TLS or AUTH.
        ("", False, "SMTP"),
        ("T", False, "SMTP"),
        ("E", False, "ESMTP"),
        ("ET", False, "ESMTPS"),
        ("EA", False, "ESMTPA"),
        ("ETA", False, "ESMTPSA"),
        ("EL", False, "LMTP"),
        ("ELT", False, "LMTPS"),
        ("ELA", False, "LMTPA"),
        ("ELTA", False, "LMTPSA"),
        ("E", True, "UTF8SMTP"),
        ("ET", True, "UTF8SMTPS"),
        ("EA", True, "UTF8SMTPA"),
        ("ETA", True, "UTF8SMTPSA"),
        ("EL", True, "UTF8LMTP"),
        ("ELT", True, "UTF8LMTPS"),
        ("ELA", True, "UTF8LMTPA"),
        ("ELTA", True, "UTF8LMTPSA"),
    ],
)
def test_with(kind: str, utf8: bool, protocol: str) -> None:
    """RFC 3848 and RFC 6531 4.3, for EHLO, LMTP, TLS, AUTH and SMTPUTF8 in every combination."""
    envelope = make("client.example", utf8=utf8)
    session = envelope.session
    session.esmtp, session.lmtp = "E" in kind, "L" in kind
    session.user = "someone" if "A" in kind else None
    session.tls = SimpleNamespace(peer={}, channel_bindings={}) if "T" in kind else None
    assert f"\tby mx.example.org with {protocol} id E1\r\n".encode() in received(envelope, "mx.example.org")


def test_recipients_are_not_shown_to_each_other() -> None:
    assert b"c.example" not in received(make("client.example", recipients=2), "mx.example.org")


def test_peers() -> None:
    assert b"([IPv6:2001:db8::1])" in received(make("c", peer=("2001:db8::1", 1, 0, 0)), "mx")
    assert b"([192.0.2.7])" in received(make("c", peer=("::ffff:192.0.2.7", 1, 0, 0)), "mx")
    assert b"([IPv6:fe80::1])" in received(make("c", peer=("fe80::1%eth0", 1, 0, 2)), "mx")
    assert b"(unix socket)" in received(make("c", peer=""), "mx")


@given(st.text(max_size=5000), st.booleans())
def test_no_name_forges_a_field_or_a_long_line(helo: str, utf8: bool) -> None:
    field = received(make(helo.encode("utf-8", "ignore").decode(), utf8=utf8), "mx.example.org")
    lines = field.split(b"\r\n")
    assert len(lines) == 5 and lines[4] == b""
    assert all(line.startswith(b"\t") for line in lines[1:4])
    assert not re.search(rb"[\r\n\0()<>;,]", lines[0].replace(b"([192.0.2.1])", b""))
    assert all(len(line.decode()) <= 998 for line in lines)
    assert utf8 or field.isascii()


def test_a_long_name_is_cut() -> None:
    assert max(map(len, received(make("a" * 4000), "mx.example.org").split(b"\r\n"))) <= 998
