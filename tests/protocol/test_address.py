"""Addresses: what is one and what it means, what is none, and no text that takes long to refuse."""

from __future__ import annotations

import re
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol.address import NULL, AddressError, Mailbox, parse_path

GOOD = {
    "<a@b>": ("a@b", "a", "b"),
    "<a@B.Example>": ("a@B.Example", "a", "b.example"),
    "<A.b+c@example.com>": ("A.b+c@example.com", "A.b+c", "example.com"),
    "<!#$%&'*+-/=?^_`{|}~@example.com>": ("!#$%&'*+-/=?^_`{|}~@example.com", "!#$%&'*+-/=?^_`{|}~", "example.com"),
    '<"a b"@example.com>': ('"a b"@example.com', "a b", "example.com"),
    '<"a\\"b\\\\"@example.com>': ('"a\\"b\\\\"@example.com', 'a"b\\', "example.com"),
    '<""@example.com>': ('""@example.com', "", "example.com"),
    '<"<>@"@example.com>': ('"<>@"@example.com', "<>@", "example.com"),
    "<@x.example:a@example.com>": ("a@example.com", "a", "example.com"),
    "<@x.example,@y.example:a@example.com>": ("a@example.com", "a", "example.com"),
    "<a@[192.0.2.1]>": ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
    "<a@[IPv6:2001:DB8::1]>": ("a@[IPv6:2001:DB8::1]", "a", "[ipv6:2001:db8::1]"),
    "<a@[tag:anything!]>": ("a@[tag:anything!]", "a", "[tag:anything!]"),
    "<a@_dmarc.example>": ("a@_dmarc.example", "a", "_dmarc.example"),
    "<a@1.2.3.4>": ("a@1.2.3.4", "a", "1.2.3.4"),
    "<jörg@exämple.com>": ("jörg@exämple.com", "jörg", "exämple.com"),
    f"<{'a' * 64}@example.com>": (f"{'a' * 64}@example.com", "a" * 64, "example.com"),
    f"<a@{'b.' * 126}>".replace(".>", ">"): (f"a@{'b.' * 126}"[:-1], "a", ("b." * 126)[:-1]),
    f"<a@{'b' * 63}.com>": (f"a@{'b' * 63}.com", "a", f"{'b' * 63}.com"),
}
BAD = [
    "", "<", ">", "<>", "a@b", "<a>", "<@b>", "<a@>", "<a@b", "a@b>", "<a@b>x", "<<a@b>>", "< a@b>", "<a@b >",
    "<a b@c>", "<.a@b>", "<a.@b>", "<a..b@c>", "<a@.b>", "<a@b.>", "<a@b..c>", "<a@-b>", "<a@b->", "<a@b-.c>",
    "<a@b c>", "<a,b@c>", "<a@b@c>", "<(a)@b>", "<a@(b)>", '<"a@b>', '<a"@b>', '<"a"b@c>', '<"a"."b"@c>', '<"\\"@b>',
    '<"a\nb"@c>', '<"a\x00"@b>', "<a\x00@b>", "<a\x7f@b>", "<a\r\n@b>", "<a@b\r\nRCPT>", "<@x:>", "<@x:@y>",
    "<@x,y:a@b>", "<@:a@b>", "<a@[]>", "<a@[1.2.3]>", "<a@[1.2.3.256]>", "<a@[1.2.3.4>", "<a@1.2.3.4]>",
    "<a@[01.2.3.4]>", "<a@[IPv6:]>", "<a@[IPv6:1::2::3]>", "<a@[IPv6:fe80::1%1]>", "<a@[IPv6:1.2.3.4]>", "<a@[name]>",
    "<a@[tag-:x]>", "<a@[:x]>", "<a@[t:\\]>", f"<{'a' * 65}@b>", f"<{'ö' * 33}@b>", f"<a@{'b' * 64}.com>",
    f"<aaa@{'b.' * 126}>".replace(".>", ">"), f"<a@{'b' * 300}>",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_good(text: str) -> None:
    mailbox = Mailbox(*GOOD[text])
    assert parse_path(text) == (mailbox, "")
    assert parse_path(text, null=True) == (mailbox, "")
    assert parse_path(f"{text} SIZE=5", null=True) == (mailbox, " SIZE=5")
    assert parse_path(text, lenient=True) == (mailbox, "")


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text)


@pytest.mark.parametrize("text", ["postmaster", "<postmaster2>", "<postmaster@>", "<po\u017ftmaster>", "<hostmaster>"])
def test_no_postmaster(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text)


def test_the_null_path_and_postmaster() -> None:
    assert parse_path("<>", null=True) == (NULL, "")
    assert parse_path("<> BODY=7BIT", null=True) == (NULL, " BODY=7BIT")
    assert parse_path("<PostMaster>") == (Mailbox("PostMaster", "PostMaster", ""), "")
    for text, null in (("<>", False), ("<postmaster>", True)):
        with pytest.raises(AddressError):
            parse_path(text, null=null)


@pytest.mark.parametrize(
    ("text", "address", "rest"),
    [
        ("a@b", "a@b", ""),
        (" <a@b>", "a@b", ""),
        (" \t a@b", "a@b", ""),
        ("a@b SIZE=5", "a@b", " SIZE=5"),
        ("<user.@x>", "user.@x", ""),
        ("<.a..b@x>", ".a..b@x", ""),
        ("<a@b.>", "a@b", ""),
        (" <>", "", ""),
        ("postmaster", "postmaster", ""),
    ],
)
def test_lenient(text: str, address: str, rest: str) -> None:
    null = not text.startswith("post")
    mailbox, after = parse_path(text, null=null, lenient=True)
    assert (mailbox.address, after) == (address, rest)
    with pytest.raises(AddressError):
        parse_path(text, null=null)


@pytest.mark.parametrize("text", ["<a@b", "a@b>", "a b@c", "", "@b", "a@", "<a@[1.2.3]>", "a@b\0", "a@-b"])
def test_lenient_is_not_boundless(text: str) -> None:
    with pytest.raises(AddressError):
        parse_path(text, lenient=True)


HOSTILE = [
    "a-a-", "a-", "-", "a.", ".", "..", "a", '"\\"\\', '"', "\\", '"\\\\', "@a,", "@a.a,@", "@a:", "@", "<", ">", "[",
    "[1.", "[:", "[IPv6:", ":", " ", "\t", " <", "ö", "ö-", "a@a", "a@a-", "<a@", '"a"', "_-_", "@a-", "@a-,@a",
    "postmaster", "0:", "\\a",
]  # fmt: skip


@pytest.mark.parametrize("lenient", [False, True])
def test_hostile_text_takes_linear_time(lenient: bool) -> None:
    for part in HOSTILE:
        for head in ("", "<", "<a@", '<"', "<@", "<a@[", "a@", " "):
            for tail in ("", ">", "!", "@", '"', "]>", " \0"):
                text = head + (part * 4000)[:4000] + tail
                began = perf_counter()
                for null in (False, True):
                    try:
                        parse_path(text, null=null, lenient=lenient)
                    except AddressError:
                        pass
                assert perf_counter() - began < 0.05 or _again(text, lenient) < 0.05, text[:40]


def _again(text: str, lenient: bool) -> float:
    # The machine may have been busy elsewhere: the best of five counts.
    times = []
    for _ in range(5):
        began = perf_counter()
        try:
            parse_path(text, lenient=lenient)
        except AddressError:
            pass
        times.append(perf_counter() - began)
    return min(times)


@given(st.text(st.sampled_from('<>@"\\.-[]:, \tab1_%öIPv6\0\r\n')), st.booleans(), st.booleans())
def test_whatever_is_accepted_is_clean(text: str, null: bool, lenient: bool) -> None:
    try:
        mailbox, rest = parse_path(text, null=null, lenient=lenient)
    except AddressError:
        return
    assert text.endswith(rest)
    assert not re.search(r"[\0\r\n]", mailbox.address)
    assert len(mailbox.address.encode()) <= 254
    assert mailbox.domain == mailbox.domain.lower()
    # What was accepted once is accepted again, as the same, and means the same in the lenient form.
    if mailbox.domain and not lenient:
        assert parse_path(f"<{mailbox.address}>") == (mailbox, "")
        assert parse_path(f"<{mailbox.address}>", lenient=True) == (mailbox, "")
