"""Every limit holds and is told. What hostile mail costs is in test_mime_hostile.py."""

from __future__ import annotations

import dataclasses
from typing import Any

from mime_hostile import HEAD, MIXED, attached_in_base64, body, nested, typed

from gsmtp import mime


def codes(raw: bytes, **limits: Any) -> set[str]:
    return {defect.code for defect in mime.decode(raw, limits=mime.Limits(**limits)).defects}


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


def test_headers_of_the_whole_mail() -> None:
    raw = HEAD + MIXED + b"b\r\n\r\n" + b"--b\r\nA: b\r\nC: d\r\n\r\nx\r\n" * 10 + b"--b--\r\n"
    assert codes(raw, mail_headers=23) == set()
    message = mime.decode(raw, limits=mime.Limits(mail_headers=9))
    assert [len(part.headers) for part in message.parts] == [2, 2, 2] + [1] * 7
    assert [part.content for part in message.parts] == [b"x"] * 10
    assert {defect.code for defect in message.defects} == {"too_many_headers"}


def test_structural_defects_beyond_the_limit_are_told() -> None:
    raw = nested(20)
    found = mime.decode(raw, limits=mime.Limits(defects=5)).defects
    assert len(found) == 6 and "too_many_defects" in {defect.code for defect in found}


def test_mails_encoded_inside_mails_are_three_deep_at_most() -> None:
    message = mime.decode(attached_in_base64(8))
    assert len([part for part in message.walk() if isinstance(part, mime.Message)]) == 4
    assert "too_deep" in {defect.code for defect in message.defects}
    assert "too_deep" not in codes(attached_in_base64(3))


def test_recipients_of_a_delivery_report_are_limited_like_addresses() -> None:
    raw = typed(b"message/delivery-status", b"Reporting-MTA: dns; x\n\n" + b"Final-Recipient: rfc822; a@b\n\n" * 9)
    whole, some = mime.report(mime.decode(raw)), mime.report(mime.decode(raw, limits=mime.Limits(addresses=5)))
    assert isinstance(whole, mime.DeliveryReport) and isinstance(some, mime.DeliveryReport)
    assert (len(whole.recipients), len(some.recipients)) == (9, 4)


def test_a_delimiter_behind_many_lines_that_look_like_one_is_found() -> None:
    for depth in (1, 3, 49):
        alike = b"--b\r\n--bb%d\r\n--b%d-\r\n--\r\n" % (depth, depth - 1) * 5_000
        closing = b"".join(b"--b%d--\r\n" % n for n in range(depth - 1, -1, -1))
        message = mime.decode(nested(depth) + b"\r\n" + alike + closing)
        leaf = list(message.walk())[-1]
        assert leaf.content + b"\r\n" == alike and message.defects == []


def test_uuencoded_data_is_given_up_after_a_thousand_short_lines() -> None:
    line = b"#86)C\n"  # abc
    assert mime.decode(body(b"uuencode", b"begin 644 x\n" + line * 3 + b"`\nend\n")).content == b"abc" * 3
    assert mime.decode(body(b"uuencode", b"begin 644 x\n" + line * 9_999)).content == b"abc" * 1_000


def test_every_limit_has_a_default_and_can_be_set() -> None:
    for field in dataclasses.fields(mime.Limits):
        assert field.default is not None
        value: Any = frozenset({"utf_8"}) if field.name == "charsets" else 1
        assert getattr(dataclasses.replace(mime.Limits(), **{field.name: value}), field.name) == value
