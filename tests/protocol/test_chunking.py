"""BDAT (RFC 3030): every refusal, every order, and the same events however the octets were sliced."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsmtp.protocol.envelope import Session
from gsmtp.protocol.server import events
from gsmtp.protocol.server.extensions import ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.server.session import ServerSession
from gsmtp.reply import Reply

OPEN = b"EHLO c\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.net>\r\n"
BINARY = OPEN.replace(b"net>\r\nRCPT", b"net> BODY=BINARYMIME\r\nRCPT")
TRAP = b"MAIL FROM:<trap@example.net>\r\n"


class Talk:
    """A session fed with octets: `replies` after the greeting, `messages`, `notices`, `state` at its end."""

    def __init__(self, *pieces: bytes, answer: Any = None, **options: Any) -> None:
        chosen = Options(hostname="mx.example.net", **options)
        self.server = ServerSession(chosen, ExtensionSet(chosen), Session("s"), lambda: "m")
        self.messages: list[bytes] = []
        self.notices: list[Any] = []
        self.sent = b""
        self._answer, self._content = answer, b""
        for piece in pieces:
            self.say(piece)

    def say(self, data: bytes) -> list[str]:
        """The replies to `data`, without those of EHLO."""
        self.server.receive(data)
        sent = b""
        while (event := self.server.next_event()) not in (events.NEED_DATA, events.CLOSED):
            if isinstance(event, events.Content):
                self._content += event.data
                if event.last:
                    self.messages.append(self._content)
                    self._content = b""
                    self.server.answer(event, self._answer)
            else:
                if isinstance(event, events.Reset | events.ContentRefused):
                    self._content = b""
                self.notices.append(event)
        sent = self.server.data_to_send()
        self.sent += sent
        return [line for line in sent.decode().splitlines() if line[:4] != "250-" and "LIMITS" not in line]

    @property
    def codes(self) -> list[int]:
        return [int(line[:3]) for line in self.sent.decode().splitlines() if line[3:4] == " "][2:]

    @property
    def closed(self) -> bool:
        return self.server.next_event() is events.CLOSED


def opened(opening: bytes = OPEN, **options: Any) -> Talk:
    return Talk(opening, **options)


def bdat(data: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b"") + data


# Taken


def test_one_chunk_several_chunks_and_an_empty_last_one() -> None:
    assert opened().say(bdat(b"one\r\n", True)) == ["250 2.0.0 Message accepted"]
    talk = opened()
    assert talk.say(bdat(b"one\r\n")) == ["250 2.0.0 5 octets received"]
    assert talk.say(bdat(b"")) == ["250 2.0.0 0 octets received"]
    assert talk.say(bdat(b"three\r\n") + b"NOOP\r\n" + b"bdat 0 last\r\n") == [
        "250 2.0.0 7 octets received",
        "250 2.0.0 Ok",
        "250 2.0.0 Message accepted",
    ]
    assert talk.messages == [b"one\r\nthree\r\n"]


def test_an_empty_message() -> None:
    talk = opened()
    assert talk.say(b"BDAT 0 LAST\r\n") == ["250 2.0.0 Message accepted"]
    assert talk.messages == [b""]


def test_dots_and_commands_in_a_chunk_are_content() -> None:
    body = b".\r\n..\r\n\r\n.\r\nQUIT\r\n" + TRAP
    talk = opened()
    assert talk.say(bdat(body) + bdat(b".\r\n", True))[-1].startswith("250")
    assert talk.messages == [body + b".\r\n"]


def test_binary_content_is_kept_to_the_octet() -> None:
    body = bytes(range(256)) * 3 + b"\n.\n\r\r\n\0\r"
    talk = opened(BINARY, max_content_line_length=10)
    talk.say(bdat(body) + bdat(b"\n") + bdat(b"\r", True))
    assert talk.messages == [body + b"\n\r"]


def test_the_last_reply_is_the_handlers() -> None:
    talk = Talk(OPEN, answer=Reply(452, "4.2.2", "Full"))
    assert talk.say(bdat(b"a\r\n") + bdat(b"b\r\n", True)) == ["250 2.0.0 3 octets received", "452 4.2.2 Full"]
    assert talk.say(b"MAIL FROM:<>\r\n")[0].startswith("250")


def test_pipelined_messages_and_both_ways_in_one_session() -> None:
    rest = OPEN.partition(b"\r\n")[2]
    talk = Talk(
        OPEN
        + bdat(b"1\r\n")
        + bdat(b"2\r\n", True)
        + rest
        + bdat(b"3\r\n", True)
        + rest
        + b"DATA\r\n4\r\n.\r\nQUIT\r\n"
    )
    assert talk.codes == [250, 250, 250, 250, 250, 250, 250, 250, 250, 354, 250, 221]
    assert talk.messages == [b"1\r\n2\r\n", b"3\r\n", b"4\r\n"]


# Refused, and in its place all the same


@pytest.mark.parametrize(
    ("before", "reply"),
    [
        (b"", "503 5.5.1 Say EHLO or HELO first"),
        (b"EHLO c\r\n", "503 5.5.1 MAIL first"),
        (b"EHLO c\r\nMAIL FROM:<>\r\n", "503 5.5.1 No valid recipients"),
        (b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<bad\r\n", "503 5.5.1 No valid recipients"),
    ],
)
def test_without_a_transaction_the_octets_are_thrown_away(before: bytes, reply: str) -> None:
    talk = Talk(before)
    assert talk.say(bdat(TRAP) + bdat(TRAP, True) + b"NOOP\r\n") == [reply, reply, "250 2.0.0 Ok"]
    assert talk.messages == []
    assert talk.say(OPEN + bdat(b"ok\r\n", True))[-1] == "250 2.0.0 Message accepted"


def test_a_chunk_after_the_last_is_503() -> None:
    talk = opened()
    assert talk.say(bdat(b"a\r\n", True) + bdat(TRAP, True))[1] == "503 5.5.1 MAIL first"
    assert talk.messages == [b"a\r\n"]


def test_no_recipient_can_be_added_to_a_message_that_lost_a_chunk() -> None:
    talk = Talk(b"EHLO c\r\nMAIL FROM:<>\r\n")
    replies = talk.say(bdat(b"first\r\n") + b"RCPT TO:<b@example.net>\r\n" + bdat(b"second\r\n", True))
    assert [line[:3] for line in replies] == ["503", "503", "503"]
    assert talk.messages == []
    assert [type(notice) for notice in talk.notices[:2]] == [events.Refused, events.Reset]


@pytest.mark.parametrize("command", [b"MAIL FROM:<>", b"RCPT TO:<c@example.net>", b"DATA"])
def test_mail_rcpt_and_data_between_chunks(command: bytes) -> None:
    talk = opened()
    replies = talk.say(bdat(b"a\r\n") + command + b"\r\n" + bdat(b"b\r\n", True))
    assert [line[:9] for line in replies] == ["250 2.0.0", "503 5.5.1", "250 2.0.0"]
    assert talk.messages == [b"a\r\nb\r\n"]


def test_data_for_binarymime() -> None:
    talk = opened(BINARY)
    assert talk.say(b"DATA\r\n" + bdat(b"\0", True)) == [
        "503 5.5.1 BODY=BINARYMIME is sent by BDAT",
        "250 2.0.0 Message accepted",
    ]


@pytest.mark.parametrize("command", [b"RSET\r\n", b"EHLO c\r\n"])
def test_a_reset_between_chunks_gives_up_the_message(command: bytes) -> None:
    talk = opened()
    talk.say(bdat(b"a\r\n"))
    envelope = talk.server.envelope
    assert envelope is not None
    talk.say(command)
    assert talk.notices == [events.Reset(envelope)]
    assert talk.server.envelope is None
    talk.say(OPEN + bdat(b"b\r\n", True))
    assert talk.messages == [b"b\r\n"]


def test_a_refused_message_stays_refused_until_its_last_chunk() -> None:
    talk = opened(max_message_size=10)
    replies = talk.say(bdat(b"12345678") + bdat(b"12345") + bdat(b"1") + bdat(TRAP) + bdat(b"", True) + b"RSET\r\n")
    assert [line[:9] for line in replies] == ["250 2.0.0"] + ["552 5.3.4"] * 4 + ["250 2.0.0"]
    assert talk.messages == []
    assert [type(notice) for notice in talk.notices] == [events.ContentRefused]


@pytest.mark.parametrize("command", [b"RSET\r\n", b"EHLO c\r\n", b""])
def test_a_refused_message_is_over_with_rset_ehlo_or_a_new_mail(command: bytes) -> None:
    talk = opened(max_message_size=10)
    talk.say(bdat(b"x" * 11))
    talk.say(command)
    replies = talk.say(b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\n" + bdat(b"b\r\n", True))
    assert [line[:3] for line in replies] == ["250", "250", "250"]
    assert talk.messages == [b"b\r\n"]


def test_exactly_the_limit_is_taken() -> None:
    talk = opened(max_message_size=10)
    talk.say(bdat(b"12345678") + bdat(b"\r\n", True))
    assert talk.messages == [b"12345678\r\n"]


def test_an_announced_size_beyond_the_limit_takes_no_memory() -> None:
    talk = opened(max_message_size=1000)
    talk.say(b"BDAT 99999999999999999999 LAST\r\n")
    assert isinstance(talk.notices[0], events.ContentRefused)
    for _ in range(50):
        assert talk.say(b"NOOP\r\n" * 1000) == []
    assert not talk.server.unread


def test_a_pipeline_behind_a_refusal_is_one_error() -> None:
    talk = opened(max_message_size=10, max_errors=3)
    replies = talk.say(bdat(b"x" * 11) * 500 + b"RSET\r\n")
    assert len(replies) == 501
    assert replies[-1] == "250 2.0.0 Ok"


def test_empty_chunks_without_end() -> None:
    replies = opened(max_idle_commands=20).say(b"BDAT 0\r\n" * 50)
    assert replies[-1].startswith("421 4.7.0")
    assert len(replies) < 30


@pytest.mark.parametrize("marker", [b"FIRST", b"LAST 1", b"LASTLY", b"5"])
def test_a_bad_end_marker_is_501_and_the_octets_are_skipped(marker: bytes) -> None:
    talk = opened()
    replies = talk.say(b"BDAT %d %s\r\n" % (len(TRAP), marker) + TRAP + bdat(b"more", True) + b"NOOP\r\n")
    assert [line[:9] for line in replies] == ["501 5.5.4", "501 5.5.4", "250 2.0.0"]
    assert talk.messages == []


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT",
        b"BDAT ",
        b"BDAT LAST",
        b"BDAT -5",
        b"BDAT +5",
        b"BDAT 5x",
        b"BDAT 0x10",
        b"BDAT 1e3",
        b"BDAT 5,LAST",
        "BDAT \u0665".encode(),
        b"BDAT 123456789012345678901",
        b"BDAT\t5",
        b"BDAT \xff",
        b"bdat 5 \r LAST",
        b"BDAT 5" + b" " * 20_000 + b"LAST",
    ],
)
@pytest.mark.parametrize("opening", [b"", b"EHLO c\r\n", OPEN, OPEN + b"BDAT 2\r\n\r\n"])
def test_where_the_count_cannot_be_known_the_session_ends(line: Any, opening: Any) -> None:
    talk = Talk(opening)
    replies = talk.say(line + b"\r\n" + TRAP)
    assert [reply[:3] for reply in replies] in (["501", "421"], ["500", "421"])
    assert talk.closed
    assert talk.messages == []


def test_a_bdat_ended_by_lf_alone_ends_the_session() -> None:
    talk = opened()
    replies = talk.say(b"BDAT %d\n" % len(TRAP) + TRAP)
    assert [reply[:3] for reply in replies] == ["500", "421"]
    assert talk.closed


def test_hidden_chunking_still_skips_the_octets() -> None:
    talk = opened(hide=frozenset({"CHUNKING"}))
    assert "CHUNKING" not in talk.sent.decode()
    replies = talk.say(bdat(TRAP, True) + b"RSET\r\n")
    assert [line[:9] for line in replies] == ["502 5.5.1", "250 2.0.0"]


# Bare newlines in text


@pytest.mark.parametrize("body", [b"a\nb\r\n", b"a\rb\r\n", b"\n.\n", b"a\r"])
def test_bare_newlines_in_text_follow_the_setting(body: bytes) -> None:
    talk = opened()
    assert talk.say(bdat(body, True) + b"NOOP\r\n")[0].startswith("554 5.6.0")
    kept = opened(allow_bare_newlines="accept")
    kept.say(bdat(body, True))
    assert kept.messages == [body]
    fixed = opened(allow_bare_newlines="fix")
    fixed.say(bdat(body, True))
    assert fixed.messages == [body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")]


def test_crlf_cut_in_two_by_chunks_is_no_bare_newline() -> None:
    talk = opened()
    assert talk.say(bdat(b"a\r") + bdat(b"") + bdat(b"\nb\r") + bdat(b"\n", True))[-1].startswith("250")
    assert talk.messages == [b"a\r\nb\r\n"]


def test_long_lines_in_text() -> None:
    talk = opened(max_content_line_length=10)
    assert talk.say(bdat(b"12345") + bdat(b"678\r\n", True))[-1].startswith("250")
    talk = opened(max_content_line_length=10)
    assert talk.say(bdat(b"12345") + bdat(b"6789\r\n", True))[-1].startswith("554 5.6.0")


# However it is sliced

_pieces = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


def _sliced(data: Any, cuts: Any) -> Any:
    cuts = sorted({min(cut, len(data)) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@settings(max_examples=300, deadline=None)
@given(pieces=_pieces, cuts=st.lists(st.integers(0, 600), max_size=12))
def test_binary_chunks_do_not_depend_on_slices(pieces: Any, cuts: Any) -> None:
    data = BINARY + b"".join(bdat(piece) for piece in pieces[:-1]) + bdat(pieces[-1], True) + b"NOOP\r\n"
    talk = Talk(*_sliced(data, cuts))
    assert talk.messages == [b"".join(pieces)]
    assert talk.codes == [250] * (len(pieces) + 3)


_commands = st.sampled_from(
    [
        b"BDAT 0\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 3 WHAT\r\nRST",
        b"BDAT x\r\n",
        b"BDAT 30\r\n" + b"z" * 30,
        b"DATA\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        OPEN.partition(b"\r\n")[2],
        BINARY.partition(b"\r\n")[2],
    ]
)
_steps = st.lists(
    st.one_of(
        _commands, st.tuples(st.text("ab\r\n.", max_size=12), st.booleans()).map(lambda t: bdat(t[0].encode(), t[1]))
    ),
    max_size=12,
)


@settings(max_examples=500, deadline=None)
@given(
    steps=_steps,
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(["reject", "accept", "fix", "strip"]),
)
def test_no_order_of_commands_depends_on_slices(steps: Any, seed: Any, mode: Any) -> None:
    data = OPEN + b"".join(steps)
    options = {"allow_bare_newlines": mode, "max_message_size": 35}
    whole = Talk(data, **options)
    bytewise = Talk(*(data[at : at + 1] for at in range(len(data))), **options)
    rng = random.Random(seed)
    randomly = Talk(*_sliced(data, [rng.randrange(len(data)) for _ in range(8)]), **options)
    for other in (bytewise, randomly):
        assert other.sent == whole.sent
        assert other.messages == whole.messages
        assert [type(notice) for notice in other.notices] == [type(notice) for notice in whole.notices]
        assert other.server.state is whole.server.state


@settings(max_examples=300, deadline=None)
@given(size=st.integers(0, 200), garbage=st.binary(max_size=200), opening=st.sampled_from([b"", b"EHLO c\r\n", OPEN]))
def test_no_octet_of_a_chunk_becomes_a_command(size: Any, garbage: Any, opening: Any) -> None:
    payload = (garbage + TRAP * 7)[:size]
    talk = Talk(opening + bdat(payload, True))
    assert len(talk.sent.splitlines()) == len(Talk(opening).sent.splitlines()) + 1
    assert talk.server.envelope is None
