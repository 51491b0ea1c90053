"""Whatever is built comes back: hypothesis builds mails, writes and reads them, here and in the stdlib.

What is drawn: names with every character but those no header may hold (quotes, commas, backslashes, control
characters, words of thousands of letters), groups, local parts that are atoms, quoted strings or UTF-8, domains that
are ASCII, international or literals, file names of any kind, images inside HTML, mails attached to mails attached to
mails.
"""

from __future__ import annotations

import dataclasses
import email
import email.policy
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsmtp import mime
from gsmtp.mime.transfer import decode_base64, decode_quoted_printable
from gsmtp.mime.writer import base64_lines, quoted_printable

SETTINGS = settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))

# Any text but what no header may hold; surrogates are no characters.
HEADER_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=120)
WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=40), max_size=40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
ATOM = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=30)
DOMAIN = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20), min_size=1, max_size=4)
INTERNATIONAL = st.sampled_from(
    ["bücher.example", "例え.example", "straße.example", "a.ñandú.example", "δοκιμή.example"]
)
LITERAL = st.sampled_from(["[192.0.2.1]", "[IPv6:2001:db8::1]"])
PLAIN_LOCAL = st.lists(ATOM, min_size=1, max_size=3).map(".".join)
QUOTED_LOCAL = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
UTF8_LOCAL = st.text("äöüßéñ日本語δ", min_size=1, max_size=15)
HOST = st.one_of(DOMAIN.map(".".join), DOMAIN.map(".".join), INTERNATIONAL, LITERAL)
ASCII_ADDR = st.builds("{}@{}".format, PLAIN_LOCAL, DOMAIN.map(".".join))
ADDR = st.builds("{}@{}".format, st.one_of(PLAIN_LOCAL, PLAIN_LOCAL, QUOTED_LOCAL), HOST)
UTF8_ADDR = st.builds("{}@{}".format, UTF8_LOCAL, HOST)
LONG = st.text("abcdefghij-_.=?", min_size=800, max_size=1_200)
NAME = st.one_of(HEADER_TEXT, WORDS.map(" ".join), st.lists(LONG, max_size=2).map(" ".join)).map(
    lambda text: text.strip(" \t")
)
ADDRESS = st.builds(mime.Address, NAME, ADDR)
PLAIN_NAME = st.one_of(HEADER_TEXT, WORDS.map(" ".join)).map(lambda text: text.strip(" \t"))
GROUP = st.builds(mime.Group, NAME.filter(bool), st.lists(ADDRESS, max_size=3).map(tuple))
FILE = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=120),
    st.binary(max_size=2_000),
)


def check_wire(raw: bytes, ascii_only: bool = True) -> None:
    assert raw.isascii() or not ascii_only
    assert b"\0" not in raw and raw.endswith(b"\r\n")
    assert raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def lines(text: str) -> str:
    text = re.sub(r"\r\n|\r|\n", "\r\n", text)
    return text if not text or text.endswith("\r\n") else text + "\r\n"


def wire(addr: str) -> str:
    """An address as ASCII carries it."""
    local, _, domain = addr.rpartition("@")
    return f"{local}@{mime.to_ascii(domain)}"


def on_wire(items: Iterable[mime.Address | mime.Group]) -> list[mime.Address | mime.Group]:
    return [
        mime.Group(item.name, tuple(mime.Address(name, wire(addr)) for name, addr in item.members))
        if isinstance(item, mime.Group)
        else mime.Address(item.name, wire(item.addr))
        for item in items
    ]


def check_lines(message: mime.Message) -> None:
    """Quoted-printable and base64 keep to lines of 76 (RFC 2045 6.7, 6.8), at any depth."""
    for part in message.walk():
        if part.encoding and part.message is None:
            assert max(map(len, part.raw_body.split(b"\r\n"))) <= 76
        if part.message is not None:
            assert part.headers["Content-Transfer-Encoding"] in (None, "7bit", "8bit")


@SETTINGS
@given(
    to=st.lists(st.one_of(ADDRESS, GROUP), max_size=8),
    subject=NAME,
    other=NAME,
    text=st.none() | TEXT,
    html=st.none() | TEXT,
    files=st.lists(FILE, max_size=3),
    images=st.dictionaries(ATOM, FILE, max_size=2),
    cte=st.sampled_from(["7bit", "8bit", "binary"]),
    utf8=st.sampled_from([None, False, True]),
)
def test_build_encode_decode(to, subject, other, text, html, files, images, cte, utf8) -> None:  # type: ignore[no-untyped-def]
    built = mime.Message.build(
        from_="a@b.example", to=to, subject=subject, text=text, html=html, attachments=files,
        inline=images if html is not None else None, headers={"X-Other": other},
    )  # fmt: skip
    raw = mime.encode(built, utf8=utf8, cte=cte)
    if cte != "binary":
        check_wire(raw, ascii_only=cte == "7bit" and utf8 is not True)
    decoded = mime.decode(raw)
    assert decoded.defects == []
    assert decoded.subject == subject and (decoded.headers["X-Other"] or "") == other
    assert on_wire(decoded.to) == on_wire(to)
    assert decoded.text == (None if text is None and (html is not None or files) else lines(text or ""))
    assert decoded.html == (None if html is None else lines(html))
    expected = [*(images.values() if html is not None else ()), *files]
    assert [(part.filename, part.content) for part in decoded.attachments] == expected
    check_lines(decoded)
    assert mime.encode(decoded) == raw


MAIL = st.recursive(
    st.tuples(NAME, TEXT, st.just(()), st.lists(FILE, max_size=1)),
    lambda inner: st.tuples(NAME, TEXT, st.lists(inner, min_size=1, max_size=2).map(tuple), st.lists(FILE, max_size=1)),
    max_leaves=4,
)


def nest(mail) -> mime.Message:  # type: ignore[no-untyped-def]
    subject, text, inner, files = mail
    return mime.Message.build(
        from_="a@b.example", subject=subject, text=text, attachments=[*map(nest, inner), *files]
    )  # fmt: skip


def unnest(message: mime.Message):  # type: ignore[no-untyped-def]
    inner = tuple(unnest(part.message) for part in message.attachments if part.message is not None)
    files = [(part.filename, part.content) for part in message.attachments if part.message is None]
    return message.subject, message.text, inner, files


def expected_of(mail: Any) -> Any:
    subject, text, inner, files = mail
    return subject, lines(text), tuple(map(expected_of, inner)), files


@SETTINGS
@given(MAIL, st.sampled_from(["7bit", "8bit"]), st.booleans())
def test_mails_attached_to_mails_come_back(mail, cte, again) -> None:  # type: ignore[no-untyped-def]
    built = nest(mail)
    raw = mime.encode(built, cte=cte)
    check_wire(raw, ascii_only=cte == "7bit")
    if again:  # a decoded mail attached to a built one, for a hop that carries less
        built = mime.Message.build(from_="a@b.example", text="x", attachments=[mime.decode(raw)])
        raw = mime.encode(built)
        check_wire(raw)
    decoded = mime.decode(raw, strict=True)
    check_lines(decoded)
    found = decoded.attachments[0].message if again else decoded
    assert found is not None and unnest(found) == expected_of(mail)
    assert mime.encode(decoded) == raw


@SETTINGS
@given(st.lists(st.builds(mime.Address, NAME, st.one_of(ADDR, UTF8_ADDR)), min_size=1, max_size=4))
def test_a_local_part_in_utf8_goes_as_utf8_or_not_at_all(to) -> None:  # type: ignore[no-untyped-def]
    built = mime.Message.build(from_="a@b.example", to=to, text="x")
    needed = not all(address.local.isascii() for address in to)
    assert built.needs_smtputf8 is needed
    if needed:
        with pytest.raises(mime.NeedsSMTPUTF8):
            mime.encode(built, utf8=False)
    decoded = mime.decode(mime.encode(built), strict=True)
    assert decoded.needs_smtputf8 is needed
    assert on_wire(decoded.to) == on_wire(to)


FORGED = st.builds(
    lambda before, forged, after: before + forged + after,
    HEADER_TEXT,
    st.sampled_from(["\r\n", "\n", "\r", "\0", "\r\nBcc: x@y.example\r\n", "\r\n\r\n", "\n "]),
    HEADER_TEXT,
)


@SETTINGS
@given(FORGED, st.integers(0, 11))
def test_nothing_can_be_forged(forged, place) -> None:  # type: ignore[no-untyped-def]
    address, named = mime.Address(forged, "a@b.example"), mime.Attachment(b"x", "name")
    places: list[dict[str, object]] = [
        {"subject": forged},
        {"to": address},
        {"cc": mime.Group(forged, ())},
        {"bcc": mime.Group("group", (address,))},
        {"reply_to": mime.Address("", f"{forged}@b.example")},
        {"message_id": f"<{forged}@b.example>"},
        {"headers": {"X-Other": forged}},
        {"headers": [(forged, "value")]},
        {"headers": {"References": f"<{forged}@b.example>"}},
        {"attachments": [(forged, b"x")]},
        {"attachments": [dataclasses.replace(named, content_type="a/b", params={"p": forged})]},
        {"html": "x", "inline": {forged: ("name", b"x")}},
    ]
    with pytest.raises(ValueError):
        mime.Message.build(**{"from_": "a@b.example", "text": "x", **places[place]})
    message = mime.decode(b"Subject: x\r\n\r\n")
    with pytest.raises(ValueError):
        message.headers["X"] = forged
    with pytest.raises(ValueError):
        message.headers["Content-Disposition"] = mime.Parameters("attachment", {"filename": forged})


@SETTINGS
@given(
    to=st.lists(st.builds(mime.Address, PLAIN_NAME, ASCII_ADDR), min_size=1, max_size=5),
    subject=WORDS.map(" ".join),
    name=FILE,
)
def test_the_standard_library_reads_the_same(to, subject, name) -> None:  # type: ignore[no-untyped-def]
    raw = mime.encode(mime.Message.build(from_="a@b.example", to=to, subject=subject, text="x", attachments=[name]))
    message = email.message_from_bytes(raw, policy=email.policy.default)
    attachment = next(message.iter_attachments())
    assert attachment.get_payload(decode=True) == name[1]
    assert [address.addr_spec for address in message["to"].addresses] == [address.addr for address in to]


@SETTINGS
@given(st.lists(st.one_of(ADDRESS, GROUP), max_size=8))
def test_addresses(items) -> None:  # type: ignore[no-untyped-def]
    assert mime.parse_addresses(mime.format_addresses(items)) == items


@SETTINGS
@given(TEXT)
def test_quoted_printable(text: str) -> None:
    data = lines(text).encode()
    encoded = quoted_printable(data)
    assert decode_quoted_printable(encoded) == data
    assert max(map(len, encoded.split(b"\r\n"))) <= 76
    assert encoded.count(b"\n") == encoded.count(b"\r") == encoded.count(b"\r\n")
    assert not re.search(rb"[ \t]\r\n|[ \t]\Z", encoded)


@SETTINGS
@given(st.binary(max_size=1_000))
def test_base64(data: bytes) -> None:
    encoded = base64_lines(data)
    assert decode_base64(encoded) == data
    assert max(map(len, encoded.split(b"\r\n"))) <= 76


@SETTINGS
@given(st.binary(max_size=300), st.sampled_from([b"", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b"]))
def test_any_bytes_are_written_as_they_came(tail: bytes, start: bytes) -> None:
    message = mime.decode(start + tail)
    list(message.walk())
    assert mime.encode(message) == start + tail
