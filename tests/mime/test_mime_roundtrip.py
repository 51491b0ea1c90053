"""Whatever is built comes back: hypothesis builds mails, writes and reads them, here and in the stdlib."""

from __future__ import annotations

import email
import email.policy
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsmtp import mime
from gsmtp.mime.encode import base64_lines, quoted_printable
from gsmtp.mime.transfer import decode_base64, decode_quoted_printable

SETTINGS = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))

# Any text but what no header may hold; surrogates are no characters.
HEADER_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=120)
WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=40), max_size=40)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
ATOM = st.text("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=30)
DOMAIN = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20), min_size=1, max_size=4)
ADDR = st.builds(
    lambda local, domain: f"{'.'.join(local)}@{'.'.join(domain)}",
    st.lists(ATOM, min_size=1, max_size=3),
    DOMAIN,
)
NAME = st.one_of(HEADER_TEXT, WORDS.map(" ".join)).map(lambda text: text.strip(" \t"))
ADDRESS = st.builds(mime.Address, NAME, ADDR)
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


@SETTINGS
@given(
    to=st.lists(st.one_of(ADDRESS, GROUP), max_size=8),
    subject=NAME,
    text=st.none() | TEXT,
    html=st.none() | TEXT,
    files=st.lists(FILE, max_size=3),
    images=st.dictionaries(ATOM, FILE, max_size=2),
    cte=st.sampled_from(["7bit", "8bit"]),
    utf8=st.sampled_from([None, False, True]),
)
def test_build_encode_decode(to, subject, text, html, files, images, cte, utf8) -> None:  # type: ignore[no-untyped-def]
    built = mime.Message.build(
        from_="a@b.example", to=to, subject=subject, text=text, html=html, attachments=files,
        inline=images if html is not None else None,
    )  # fmt: skip
    raw = mime.encode(built, utf8=utf8, cte=cte)
    check_wire(raw, ascii_only=cte == "7bit" and utf8 is not True)
    decoded = mime.decode(raw)
    assert decoded.defects == []
    assert decoded.subject == subject and decoded.to == to
    assert decoded.text == (None if text is None and (html is not None or files) else lines(text or ""))
    assert decoded.html == (None if html is None else lines(html))
    expected = [*(images.values() if html is not None else ()), *files]
    assert [(part.filename, part.content) for part in decoded.attachments] == expected
    assert mime.encode(decoded) == raw


@SETTINGS
@given(to=st.lists(ADDRESS, min_size=1, max_size=5), subject=WORDS.map(" ".join), name=FILE)
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
