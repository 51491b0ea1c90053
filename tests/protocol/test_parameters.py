"""The parameters of MAIL and RCPT: formatters, and that a parser undoes them. test_extension_parameters.py has the
parsers as a client meets them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol import parameters
from gsmtp.protocol.parameters import (
    FORMATTERS,
    ByMode,
    DeliverBy,
    Notify,
    OriginalRecipient,
    ParameterError,
    Ret,
    format_parameters,
    parse_parameters,
)
from gsmtp.protocol.server.extensions import EXTENSIONS
from gsmtp.protocol.server.options import Options

OPTIONS = Options(hostname="mx.example.org", max_message_size=0)
PARSERS: dict[str, Any] = {}
for each in EXTENSIONS:
    PARSERS |= {**each.mail, **each.rcpt}

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))
ADDRESS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=30)
LATER = st.integers(-999_999_999, 999_999_999)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "SIZE": st.integers(0, 10**20 - 1),
    "BODY": st.sampled_from(["7BIT", "8BITMIME", "BINARYMIME"]),
    "SMTPUTF8": st.just(True),
    "RET": st.sampled_from(Ret),
    "ENVID": PRINTABLE.filter(lambda text: 0 < len(text) <= 33),
    "NOTIFY": st.one_of(
        st.just(frozenset({Notify.NEVER})),
        st.frozensets(st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), min_size=1),
    ),
    "ORCPT": st.builds(OriginalRecipient, st.sampled_from(["rfc822", "utf-8", "x400"]), ADDRESS),
    "REQUIRETLS": st.just(True),
    "MT-PRIORITY": st.integers(-9, 9),
    "BY": st.one_of(
        st.builds(DeliverBy, LATER, st.just(ByMode.NOTIFY), st.booleans()),
        st.builds(DeliverBy, st.integers(1, 999_999_999), st.just(ByMode.RETURN), st.booleans()),
    ),
    "AUTH": PRINTABLE.filter(lambda text: text != "<>"),
}


def test_every_parameter_of_ours_has_both() -> None:
    assert FORMATTERS.keys() == PARSERS.keys() == VALUES.keys()


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_parser_undoes_its_formatter(values: dict[str, Any]) -> None:
    text = format_parameters(values)
    assert not text or text[0] == " "
    assert text.isascii() and text.isprintable()
    assert parse_parameters(text, PARSERS, OPTIONS) == values


@given(st.sampled_from(sorted(PARSERS)), st.text(st.characters(codec="utf-8")))
def test_a_formatter_undoes_its_parser(keyword: str, text: str) -> None:
    try:
        values = parse_parameters(f"{keyword}={text}", {keyword: PARSERS[keyword]}, OPTIONS)
    except ParameterError as error:
        assert 400 <= error.reply.code <= 599
        return
    try:
        again = format_parameters(values)
    except ValueError:
        # In ASCII a text can become longer than the limit.
        assert not text.isascii()
        return
    assert parse_parameters(again, PARSERS, OPTIONS) == values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        ({"SIZE": 1000, "BODY": "8BITMIME", "SMTPUTF8": True}, " SIZE=1000 BODY=8BITMIME SMTPUTF8"),
        ({"NOTIFY": frozenset({Notify.DELAY, Notify.SUCCESS})}, " NOTIFY=SUCCESS,DELAY"),
        ({"ORCPT": OriginalRecipient("rfc822", "a+b@c")}, " ORCPT=rfc822;a+2Bb@c"),
        ({"ORCPT": OriginalRecipient("utf-8", "\u00e9@c")}, r" ORCPT=utf-8;\x{E9}@c"),
        ({"BY": DeliverBy(-5, ByMode.NOTIFY, True)}, " BY=-5;NT"),
        ({"AUTH": ""}, " AUTH=<>"),
        ({"AUTH": "e=mc2@example.com"}, " AUTH=e+3Dmc2@example.com"),
    ],
)
def test_text(values: dict[str, Any], text: str) -> None:
    assert format_parameters(values) == text


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("XOTHER", "1"),
        ("SIZE", -1),
        ("SIZE", 10**20),
        ("BODY", "7BIT\r\nRSET"),
        ("SMTPUTF8", False),
        ("RET", "NONE"),
        ("ENVID", ""),
        ("ENVID", "a\r\n"),
        ("ENVID", "=" * 34),
        ("NOTIFY", frozenset()),
        ("NOTIFY", frozenset({Notify.NEVER, Notify.DELAY})),
        ("ORCPT", OriginalRecipient("rfc 822", "a")),
        ("ORCPT", OriginalRecipient("rfc822", "")),
        ("ORCPT", OriginalRecipient("rfc822", "a\nb")),
        ("ORCPT", OriginalRecipient("rfc822", "a" * 500)),
        ("MT-PRIORITY", 10),
        ("BY", DeliverBy(0, ByMode.RETURN, False)),
        ("BY", DeliverBy(10**9, ByMode.NOTIFY, False)),
        ("AUTH", "\u00e9"),
        ("AUTH", "a\r\n"),
    ],
)
def test_what_no_parameter_can_be(keyword: str, value: Any) -> None:
    with pytest.raises(ValueError):
        format_parameters({keyword: value})


def test_a_handlers_own_formatter() -> None:
    assert format_parameters({"XTICKET": 7}, {"XTICKET": str}) == " XTICKET=7"
    with pytest.raises(ValueError, match="XTICKET cannot be"):
        format_parameters({"XTICKET": "7 8"}, {"XTICKET": str})


def test_a_refusal_has_a_code_that_refuses() -> None:
    with pytest.raises(ValueError):
        parameters.ParameterError(250, "2.0.0", "Ok")
