"""Limits and hostile mail: every limit holds and is told, and no input costs more than its size allows.

Time is the processor time of this thread, best of two, so that a busy machine does not fail it.
"""

from __future__ import annotations

import base64
import time
import tracemalloc
from collections.abc import Callable

import pytest
from mime_asking import ask_all

from gsmtp import mime

HEAD = b"From: a@b.example\r\nMIME-Version: 1.0\r\n"
MIXED = b"Content-Type: multipart/mixed; boundary="


def codes(raw: bytes, **limits: int) -> set[str]:
    return {defect.code for defect in mime.decode(raw, limits=mime.Limits(**limits)).defects}


def nested(depth: int) -> bytes:
    return HEAD + b"".join(MIXED + b"b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))


def test_depth() -> None:
    assert "too_deep" not in codes(nested(50))
    message = mime.decode(nested(51))
    assert "too_deep" in {defect.code for defect in message.defects}
    last = list(message.walk())[-1]
    assert last.parts == [] and last.content.startswith(b"--b50")
    assert "too_deep" in codes(nested(3), depth=2)


def test_parts() -> None:
    raw = HEAD + MIXED + b"b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 20 + b"--b--\r\n"
    assert "too_many_parts" not in codes(raw, parts=21)
    message = mime.decode(raw, limits=mime.Limits(parts=11))
    assert [part.content for part in message.parts] == [b"x"] * 10
    assert {defect.code for defect in message.defects} == {"too_many_parts"}


def test_attached_messages_count_as_parts() -> None:
    raw = HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 20
    assert len(list(mime.decode(raw, limits=mime.Limits(parts=5)).walk())) == 5
    assert "too_many_parts" in codes(raw, parts=5)


def test_headers() -> None:
    raw = b"X: y\r\n" * 11 + b"\r\nbody"
    message = mime.decode(raw, limits=mime.Limits(headers=10))
    assert len(message.headers) == 10 and message.text == "body"
    assert "too_many_headers" in codes(raw, headers=10) and codes(raw, headers=11) == set()


def test_header_bytes() -> None:
    raw = b"A: b\r\nX: " + b"y" * 2_000 + b"\r\nZ: z\r\n\r\nbody"
    message = mime.decode(raw, limits=mime.Limits(header_bytes=1_000))
    assert message.headers["A"] == "b" and message.text == "body"
    assert {defect.code for defect in message.defects} == {"headers_too_long"}
    assert codes(raw) == set()


def test_parameters() -> None:
    raw = b"Content-Type: text/plain" + b"".join(b"; p%d=v" % n for n in range(101)) + b"\r\n\r\n"
    assert codes(raw) == {"too_many_parameters"}
    assert len(mime.decode(raw).params) == 100


def test_addresses() -> None:
    raw = b"To: " + b", ".join([b"a@b.example"] * 11) + b"\r\n\r\n"
    assert codes(raw, addresses=10) == {"too_many_addresses"}
    assert len(mime.decode(raw, limits=mime.Limits(addresses=10)).to) == 10


def test_encoded_words() -> None:
    raw = b"Subject: " + b" ".join([b"=?utf-8?q?a?="] * 12) + b"\r\n\r\n"
    assert codes(raw, encoded_words=10) == {"too_many_encoded_words"}
    assert mime.decode(raw, limits=mime.Limits(encoded_words=10)).subject.startswith("a" * 10 + " =?")


def test_defects() -> None:
    raw = b": x\r\n" * 50 + b"\r\n"
    found = mime.decode(raw, limits=mime.Limits(defects=10)).defects
    assert len(found) == 11 and found[-1].code == "too_many_defects"


def test_charsets() -> None:
    raw = b"Content-Type: text/plain; charset=koi8-r\r\n\r\n\xc1\r\n"
    assert mime.decode(raw).text == "а\r\n"
    assert mime.decode(raw, limits=mime.Limits(charsets=frozenset({"utf_8"}))).text == "Á\r\n"


def test_uuencode_without_a_beginning() -> None:
    assert codes(HEAD + b"Content-Transfer-Encoding: uuencode\r\n\r\nx\r\n") == {"bad_uuencode"}


def attached_in_base64(depth: int) -> bytes:
    raw = b"From: a@b.example\r\n\r\nhello"
    for _ in range(depth):
        head = HEAD + b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        raw = head + base64.encodebytes(raw)
    return raw


def header(name: bytes, value: bytes) -> bytes:
    return HEAD + name + b": " + value + b"\r\n\r\nbody"


def body(encoding: bytes, value: bytes) -> bytes:
    return HEAD + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + value


HOSTILE: dict[str, Callable[[], bytes]] = {
    "200,000 empty parts": lambda: HEAD + MIXED + b"x\r\n\r\n" + b"--x\r\n\r\n" * 200_000,
    "50,000 encoded words": lambda: header(b"Subject", b"=?utf-8?q?a?= " * 50_000),
    "50,000 folded words": lambda: header(b"Subject", b"=?utf-8?q?a?=\r\n " * 50_000),
    "50,000 addresses": lambda: header(b"To", b"a b <a@b.c>, " * 50_000),
    "200,000 commas": lambda: header(b"To", b"," * 200_000),
    "50,000 parameters": lambda: header(
        b"Content-Type", b"text/plain" + b"".join(b"; p%d=v" % n for n in range(50_000))
    ),
    "10,000 parameters continued backwards": lambda: header(
        b"Content-Type", b"text/plain" + b"".join(b"; p*%d=v" % n for n in range(9_999, -1, -1))
    ),
    "5,000 nested parts": lambda: nested(5_000),
    "20,000 nested rfc822": lambda: HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 20_000,
    "20 nested rfc822 in base64": lambda: attached_in_base64(20),
    "an endless header": lambda: HEAD + b"X: " + b"a" * 8_000_000,
    "an endless head": lambda: HEAD + b"X: a\r\n" * 1_000_000,
    "a line without end": lambda: b"a" * 4_000_000,
    "boundaries that are prefixes": lambda: (
        HEAD
        + b"".join(MIXED + b"a" * n + b"\r\n\r\n--" + b"a" * n + b"\r\n" for n in range(1, 50))
        + b"--aaaaab\r\n" * 100_000
    ),
    "a boundary before white space": lambda: HEAD + MIXED + b"x\r\n\r\n" + (b"--x" + b" " * 100_000 + b"y\r\n") * 40,
    "lines of dashes": lambda: HEAD + MIXED + b"x\r\n\r\n--x\r\n\r\n" + b"\n--" * 1_000_000,
    "white space in a header": lambda: header(b"Subject", b" " * 4_000_000),
    "folds in a header": lambda: header(b"Subject", b"a" + b"\r\n " * 1_000_000),
    "white space in quoted-printable": lambda: body(b"quoted-printable", b" " * 2_000_000 + b"x"),
    "lines of white space in quoted-printable": lambda: body(b"quoted-printable", b" \r\n" * 200_000),
    "megabytes of commas": lambda: header(b"To", b"," * 4_000_000),
    "megabytes of =?": lambda: header(b"Subject", b"=?" * 2_000_000),
    "as many =? as a head may hold": lambda: header(b"Subject", b"=?" * 120_000),
    "encoded words without an end": lambda: header(b"Subject", b"=?a?q?" * 40_000),
    "comments that open": lambda: header(b"To", b"(" * 240_000),
    "comments in parameters that open": lambda: header(b"Content-Type", b"text/plain " + b"(" * 240_000),
    "quotes that open": lambda: header(b"To", b'"\\' * 120_000),
    "brackets that open": lambda: header(b"To", b"<" * 240_000),
    "literals that open": lambda: header(b"To", b"[a" * 120_000),
    "at signs": lambda: header(b"To", b"a@" * 120_000),
    "groups": lambda: header(b"To", b"a:;" * 80_000),
    "quotes in parameters": lambda: header(b"Content-Type", b"text/plain; a=" + b'"\\' * 120_000),
    "words in parameters": lambda: header(b"Content-Type", b"text/plain " + b"a " * 120_000),
    "a date of digits": lambda: header(b"Date", b"1 " * 120_000),
    "a file name of dots": lambda: header(b"Content-Disposition", b"attachment; filename=" + b"../" * 80_000),
    "references": lambda: header(b"References", b"<a" * 120_000),
    "padding": lambda: body(b"base64", b"=" * 2_000_000),
    "padding in runs": lambda: body(b"base64", b"AA==" * 500_000),
    "escapes that are none": lambda: body(b"quoted-printable", b"=" * 1_000_000),
    "escapes of CR": lambda: body(b"quoted-printable", b"=\r" * 500_000),
    "uuencoded lines of nothing": lambda: body(b"x-uuencode", b"begin 644 x\n" + b"M\n" * 500_000),
    "utf-7": lambda: HEAD + b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+A" * 500_000,
    "iso-2022-jp": lambda: HEAD + b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n" + b"\x1b$B" * 300_000,
}


def cost(work: Callable[[bytes], object], raw: bytes) -> float:
    begin = time.thread_time()
    work(raw)
    return time.thread_time() - begin


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_is_cheap(name: str) -> None:
    raw = HOSTILE[name]()
    assert min(cost(lambda raw: ask_all(mime.decode(raw)), raw) for _ in range(2)) < 0.5
    assert min(cost(lambda raw: mime.decode(raw).defects, raw) for _ in range(2)) < 0.5
    with pytest.raises(mime.MimeError) if mime.decode(raw).defects else _nothing():
        mime.decode(raw, strict=True)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_needs_little_memory(name: str) -> None:
    raw = HOSTILE[name]()[:1_500_000]
    tracemalloc.start()
    try:
        ask_all(mime.decode(raw))
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
