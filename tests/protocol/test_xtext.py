"""xtext and its kin: what is taken, what is refused, and that the codecs undo each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol.xtext import decode_utf8_addr, decode_xtext, encode_utf8_addr, encode_xtext

TEXTS = st.text(st.characters(codec="utf-8"))


def test_decoding() -> None:
    assert decode_xtext("") == ""
    assert decode_xtext("+2B+3Dz") == "+=z"
    assert decode_xtext("+C3+A9", utf8=True) == "\u00e9"
    assert decode_utf8_addr(r"\x{5C}x{41}") == r"\x{41}"
    for text in ("+", "+4", "a=b", "\u00e9", "+FF", "+C3+A9", "+2b", "a b"):
        with pytest.raises(ValueError, match="xtext"):
            decode_xtext(text)
    for text in ("+FF", "\u00e9"):
        with pytest.raises(ValueError, match="xtext"):
            decode_xtext(text, utf8=True)


def test_the_lenient_form_takes_what_postfix_takes() -> None:
    assert decode_xtext("a=b+2b", lenient=True) == "a=b+"
    for text in ("+", "+4", "a b", "\u00e9", "+zz"):
        with pytest.raises(ValueError, match="xtext"):
            decode_xtext(text, lenient=True)


@pytest.mark.parametrize("text", ["", r"\x{00}", r"\x{D800}", r"\x{110000}", "a b", "a+b", "a=b", r"\x{4}", r"\x{5c}"])
def test_what_is_no_utf8_addr(text: str) -> None:
    with pytest.raises(ValueError):
        decode_utf8_addr(text)


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800"])
def test_what_no_utf8_addr_can_stand_for(text: str) -> None:
    with pytest.raises(ValueError):
        encode_utf8_addr(text)


@given(TEXTS)
def test_encoding_is_undone(text: str) -> None:
    encoded = encode_xtext(text)
    assert encoded.isascii() and (encoded.isprintable() and not set(" +=") & set(encoded) - {"+"})
    assert decode_xtext(encoded, utf8=True) == decode_xtext(encoded, utf8=True, lenient=True) == text
    if text.isascii():
        assert decode_xtext(encoded) == text


@given(TEXTS.filter(lambda text: text and "\0" not in text))
def test_encoding_of_an_address_is_undone(text: str) -> None:
    encoded = encode_utf8_addr(text)
    assert encoded.isascii() and encoded.isprintable() and not set(" +=") & set(encoded)
    assert decode_utf8_addr(encoded) == text


@given(st.text())
def test_no_text_does_harm(text: str) -> None:
    for decode in (decode_xtext, decode_utf8_addr):
        try:
            decode(text)
        except ValueError:
            pass
