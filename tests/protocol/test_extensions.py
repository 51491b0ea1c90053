"""The table of extensions: what is announced, and the parameters of MAIL and RCPT with their types and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol.envelope import Session
from gsmtp.protocol.extensions import parse_ehlo
from gsmtp.protocol.parameters import ParameterError
from gsmtp.protocol.server.extensions import EXTENSIONS, Extension, ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.reply import Reply

CLIENT = Session("S1")


def make(**options: Any) -> ExtensionSet:
    return ExtensionSet(Options(hostname="mx.example.org", **options))


def test_announced() -> None:
    found = make(max_message_size=1000)
    usual = ("PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME")
    assert found.offer(CLIENT).lines == (*usual, "LIMITS RCPTMAX=1000 MAILMAX=10000")
    assert found.offer(CLIENT).ehlo.encode().startswith(b"250-mx.example.org\r\n250-PIPELINING\r\n")
    assert found.offer(CLIENT).ehlo.encode().endswith(b"\r\n250 LIMITS RCPTMAX=1000 MAILMAX=10000\r\n")
    assert found.helo.encode() == b"250 mx.example.org\r\n"
    assert make(banner="").banner.encode() == b"220 mx.example.org\r\n"


def test_no_limit_is_announced_as_zero() -> None:
    """RFC 1870 4: zero says that there is no fixed maximum."""
    found = make(max_message_size=0)
    assert "SIZE 0" in found.offer(CLIENT).lines
    assert found.offer(CLIENT).mail_parameters("SIZE=99999999999999999999") == {"SIZE": 99999999999999999999}


def test_everything_can_be_hidden() -> None:
    found = make(hide=frozenset(extension.keyword for extension in EXTENSIONS))
    assert found.offer(CLIENT).lines == ()
    assert found.offer(CLIENT).ehlo.encode() == b"250 mx.example.org\r\n"
    for text in ("SIZE=5", "BODY=7BIT", "SMTPUTF8"):
        with pytest.raises(ParameterError) as error:
            found.offer(CLIENT).mail_parameters(text)
        assert error.value.reply.code == 555


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        (" ", {}),
        (" SIZE=0", {"SIZE": 0}),
        (" size=00012", {"SIZE": 12}),
        (" BODY=8bitmime", {"BODY": "8BITMIME"}),
        (" Body=7BIT  SMTPUTF8 \t SIZE=3 ", {"BODY": "7BIT", "SMTPUTF8": True, "SIZE": 3}),
    ],
)
def test_typed(text: str, values: dict[str, Any]) -> None:
    assert make().offer(CLIENT).mail_parameters(text) == values


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SIZE=abc", 501), ("SIZE", 501), ("SIZE=", 501), ("SIZE=1_0", 501), ("SIZE=+1", 501), ("SIZE=0x10", 501),
        ("SIZE=\u0661", 501), (f"SIZE={'9' * 21}", 501), (f"SIZE={'9' * 20}", 552), ("SIZE=1 SIZE=2", 501),
        ("BODY", 501), ("BODY=", 501), ("BODY=8BITMIME\u00a0", 501), ("SMTPUTF8=", 501),
        ("SMTPUTF8=yes", 501), ("SMTPUTF8 smtputf8", 501), ("FOO", 555), ("FOO=BAR", 555), ("RET=HDRS", 555),
        ("AUTH=<>", 555), ("=", 501), ("=1", 501), ("-X", 501), ("X_Y", 501), ("X=a=b", 501), ("X=\x01", 501),
        ("SIZE\x00=1", 501), ("SIZE=1\x0bBODY=7BIT", 501), ("SIZE=1\u2003BODY=7BIT", 501), ("S\u0130ZE=1", 501),
        ("\u017fIZE=1", 501), ("SIZE=1\x85", 501),
    ],
)  # fmt: skip
def test_refused(text: str, code: int) -> None:
    """No parameter, however malformed, may crash or go without a reply."""
    with pytest.raises(ParameterError) as error:
        make().offer(CLIENT).mail_parameters(text)
    assert error.value.reply.code == code


def test_mail_parameters_are_none_for_rcpt() -> None:
    with pytest.raises(ParameterError) as error:
        make().offer(CLIENT).rcpt_parameters("SIZE=5")
    assert error.value.reply.code == 555


def test_an_extension_is_an_entry() -> None:
    own = Extension("XCOLOR", lambda options: None if options.max_errors else "red", rcpt={"HUE": lambda text, _: text})
    assert ExtensionSet(Options(hostname="h"), [own]).offer(CLIENT).lines == ()
    found = ExtensionSet(Options(hostname="h", max_errors=0), [*EXTENSIONS, own])
    assert found.offer(CLIENT).lines[-1] == "XCOLOR red"
    assert found.offer(CLIENT).rcpt_parameters(["hue=Dark", "HUE2=1"][0]) == {"HUE": "Dark"}


@given(st.text(st.sampled_from("SIZEsize=BODY8TMUF ıſ\t\0\x0b\x85\u00a0\u20031-")))
def test_parsed_or_refused_in_ascii(text: str) -> None:
    try:
        values = make().offer(CLIENT).mail_parameters(text)
    except ParameterError as error:
        assert error.reply.code in (501, 552, 555)
        error.reply.encode().decode("ascii")
    else:
        assert values.keys() <= {"SIZE", "BODY", "SMTPUTF8"}


@pytest.mark.parametrize(
    ("text", "extensions"),
    [
        ("mx.example.org", {}),
        ("mx.example.org greets you\nSIZE 1000\npipelining", {"SIZE": ("1000",), "PIPELINING": ()}),
        ("x\nAUTH PLAIN LOGIN\nAUTH=PLAIN LOGIN CRAM-MD5", {"AUTH": ("PLAIN", "LOGIN", "CRAM-MD5")}),
        ("x\nAUTH=LOGIN", {"AUTH": ("LOGIN",)}),
        ("x\nLIMITS  RCPTMAX=10\tMAILMAX=5 ", {"LIMITS": ("RCPTMAX=10", "MAILMAX=5")}),
        ("x\n\n-A\nA_B\nSIZE=5\n\u00e9\n8BITMIME", {"8BITMIME": ()}),
    ],
)
def test_what_ehlo_said(text: str, extensions: dict[str, tuple[str, ...]]) -> None:
    assert parse_ehlo(Reply(250, "", text)) == extensions


def test_the_client_reads_what_the_server_announces() -> None:
    options = Options(hostname="mx.example.org")
    offer = ExtensionSet(options, claimed=("DSN",)).offer(Session("S"))
    assert parse_ehlo(offer.ehlo).keys() == offer.keywords
    assert parse_ehlo(offer.ehlo)["SIZE"] == (str(options.max_message_size),)
