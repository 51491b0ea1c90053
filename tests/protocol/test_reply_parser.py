"""Replies out of octets: every form, every slicing, every fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol.reply_parser import MalformedReply, ReplyParser
from gsmtp.reply import Reply


def parse(*pieces: bytes) -> tuple[list[Reply], str]:
    """The replies in `pieces`, and what was wrong with them."""
    parser = ReplyParser(max_line=100, max_lines=5)
    found: list[Reply] = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while (reply := parser.next_reply()) is not None:
                found.append(reply)
        except MalformedReply as error:
            with pytest.raises(MalformedReply):
                parser.next_reply()
            return found, str(error)
    return found, ""


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"250 Ok\r\n", Reply(250, "", "Ok")),
        (b"250 2.1.0 Sender ok\r\n", Reply(250, "2.1.0", "Sender ok")),
        (b"250\r\n", Reply(250)),
        (b"250 \r\n", Reply(250)),
        (b"250 2.0.0\r\n", Reply(250, "2.0.0")),
        (b"250-a\r\n250-b\r\n250 c\r\n", Reply(250, "", "a\nb\nc")),
        (b"250-\r\n250\r\n", Reply(250, "", "\n")),
        (b"550-5.1.1 a\r\n550 5.1.1 b\r\n", Reply(550, "5.1.1", "a\nb")),
        (b"550-5.1.1 a\r\n550 b\r\n", Reply(550, "5.1.1", "a\nb")),
        (b"550 4.1.1 a\r\n", Reply(550, "", "4.1.1 a")),
        (b"354 3.0.0 go\r\n", Reply(354, "", "3.0.0 go")),
        ("250 \u00e9\r\n".encode(), Reply(250, "", "\u00e9")),
        (b"250 \xff\r\n", Reply(250, "", "\ufffd")),
    ],
)
def test_forms(wire: bytes, reply: Reply) -> None:
    assert parse(wire) == ([reply], "")
    assert parse(*[wire[at : at + 1] for at in range(len(wire))]) == ([reply], "")


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"25 Ok\r\n", "not a reply line"),
        (b"150 Ok\r\n", "not a reply line"),
        (b"650 Ok\r\n", "not a reply line"),
        (b"260 Ok\r\n", "not a reply line"),
        (b"250_Ok\r\n", "not a reply line"),
        (b"2500 Ok\r\n", "not a reply line"),
        (b"\r\n", "not a reply line"),
        (b"hello\r\n", "not a reply line"),
        (b"250 Ok\n", "bare CR or LF"),
        (b"250 O\rk\r\n", "bare CR or LF"),
        (b"250-a\r\n251 b\r\n", "code differs from 250"),
        (b"250-a\r\n" * 6, "too many lines"),
        (b"250 " + b"x" * 95 + b"\r\n", "line too long"),
        (b"x" * 100, "line too long"),
    ],
)
def test_faults(wire: bytes, why: str) -> None:
    assert parse(wire)[1].startswith(f"{why}: b'")
    assert parse(*[wire[at : at + 1] for at in range(len(wire))])[1].startswith(f"{why}: b'")


def test_a_line_as_long_as_is_allowed() -> None:
    assert parse(b"250 " + b"x" * 94 + b"\r\n")[1] == ""


def test_what_waits() -> None:
    parser = ReplyParser()
    assert not parser.pending
    parser.feed(b"220 go\r\n250 injected\r\n")
    assert parser.next_reply() == Reply(220, "", "go")
    assert parser.pending
    parser.next_reply()
    assert not parser.pending
    parser.feed(b"250-a\r\n")
    assert parser.next_reply() is None
    assert parser.pending


TEXT = st.text(st.characters(codec="ascii", exclude_characters="\r"), max_size=90)
REPLIES = st.builds(
    lambda code, detail, text: Reply(code, f"{code // 100}.{detail}.0" if detail is not None else "", text),
    st.sampled_from([220, 250, 421, 450, 550, 554]),
    st.one_of(st.none(), st.integers(0, 999)),
    TEXT.filter(lambda text: text[:1] not in ("2", "4", "5") and text.count("\n") < 100),
)


@given(st.lists(REPLIES, max_size=4), st.data())
def test_round_trip_in_any_slices(replies: list[Reply], data: st.DataObject) -> None:
    wire = b"".join(reply.encode() for reply in replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)))))
    parser = ReplyParser()
    found: list[Reply] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        parser.feed(wire[start:end])
        while (reply := parser.next_reply()) is not None:
            found.append(reply)
    assert [(reply.code, reply.enhanced) for reply in found] == [(reply.code, reply.enhanced) for reply in replies]
    assert b"".join(reply.encode() for reply in found) == wire
    assert not parser.pending


LINES = st.lists(st.sampled_from([b"250-a", b"250 b", b"251 c", b"250", b"\r\n", b"\r", b"\n", b"x" * 60, b"5.0.0 "]))


@given(st.one_of(st.binary(max_size=200), LINES.map(b"".join)))
def test_nothing_does_harm_and_slicing_does_not_matter(wire: bytes) -> None:
    found, why = parse(wire)
    again, as_well = parse(*[wire[at : at + 1] for at in range(len(wire))])
    assert found == again
    assert why.partition(":")[0] == as_well.partition(":")[0]
