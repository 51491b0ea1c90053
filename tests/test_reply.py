"""Replies: what may be one, how it stands on the wire, and what the exceptions carry."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.reply import Defer, Disconnect, Reject, Reply, ReplyError

WIRE = re.compile(rb"(?:([2-5][0-5][0-9])-[\t\x20-\x7e]*\r\n)*[2-5][0-5][0-9] [\t\x20-\x7e]*\r\n")


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (Reply(250), b"250 \r\n"),
        (Reply(250, "", "Ok"), b"250 Ok\r\n"),
        (Reply(250, "2.1.0", "Ok"), b"250 2.1.0 Ok\r\n"),
        (Reply(250, "2.1.0"), b"250 2.1.0 \r\n"),
        (Reply(214, "2.0.0", "a\nb"), b"214-2.0.0 a\r\n214 2.0.0 b\r\n"),
        (Reply(250, "", "a\n\nb"), b"250-a\r\n250-\r\n250 b\r\n"),
        (Reply(250, "", "a\r\n250 forged"), b"250-a?\r\n250 250 forged\r\n"),
        (Reply(250, "", "a\rb\0c\x7fd\u00fc\u2028e"), b"250 a?b?c?d??e\r\n"),
        (Reply(250, "", "x" * 481), b"250-" + b"x" * 480 + b"\r\n250 x\r\n"),
    ],
)
def test_wire(reply: Reply, wire: bytes) -> None:
    assert reply.encode() == wire
    assert reply.encode() is reply.encode()


@given(st.integers(200, 599), st.sampled_from(["", "{}.0.0", "{}.999.999"]), st.text(max_size=2000))
def test_any_text_is_well_formed(code: int, enhanced: str, text: str) -> None:
    if code // 10 % 10 > 5:
        with pytest.raises(ValueError):
            Reply(code)
        return
    if code < 400 and code >= 300:
        enhanced = ""
    wire = Reply(code, enhanced.format(code // 100), text).encode()
    assert WIRE.fullmatch(wire)
    assert all(len(line) <= 512 for line in wire.splitlines(True))
    assert {line[:3] for line in wire.split(b"\r\n")[:-1]} == {str(code).encode()}


@pytest.mark.parametrize("code", [0, 99, 100, 199, 260, 299, 600, -1])
def test_no_code(code: int) -> None:
    with pytest.raises(ValueError):
        Reply(code)


@pytest.mark.parametrize("enhanced", ["5.0.0", "2", "2.0", "2.0.0.0", "3.0.0", "2.0.1000", "2.0.0\r\n", "2.0.x", " "])
def test_no_enhanced_code(enhanced: str) -> None:
    with pytest.raises(ValueError):
        Reply(250, enhanced)


def test_value() -> None:
    reply = Reply(250, "2.0.0", "Ok")
    reply.encode()
    assert reply == Reply(250, "2.0.0", "Ok")
    assert hash(reply) == hash(Reply(250, "2.0.0", "Ok"))
    assert str(Reply(250, "2.0.0", "a\nb")) == "250 2.0.0 a / b"
    with pytest.raises(AttributeError):
        reply.code = 550  # type: ignore[misc]


def test_accepted() -> None:
    assert [Reply(code).accepted for code in (220, 354, 421, 451, 550)] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("error", "wire"),
    [
        (Reject(), b"550 5.7.1 Refused\r\n"),
        (Reject(553), b"553 5.0.0 Refused\r\n"),
        (Reject(550, "5.1.1", "No such user"), b"550 5.1.1 No such user\r\n"),
        (Reject(text="Go away"), b"550 5.7.1 Go away\r\n"),
        (Defer(), b"451 4.3.0 Try again later\r\n"),
        (Defer(450, text="Wait"), b"450 4.0.0 Wait\r\n"),
        (Disconnect(), b"421 4.7.0 Closing connection\r\n"),
        (Disconnect(554, "5.7.1", "No"), b"554 5.7.1 No\r\n"),
    ],
)
def test_exceptions_carry_their_reply(error: ReplyError, wire: bytes) -> None:
    assert error.reply.encode() == wire
    assert str(error) == str(error.reply)


@pytest.mark.parametrize(
    ("kind", "code"), [(Reject, 450), (Reject, 250), (Defer, 550), (Disconnect, 250), (Defer, 354)]
)
def test_an_exception_is_a_no(kind: type[ReplyError], code: int) -> None:
    with pytest.raises(ValueError):
        kind(code)
