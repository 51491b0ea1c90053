"""The table of transitions: what it must have, and that no session leaves it. tests/test_docs.py has the page."""

from __future__ import annotations

from itertools import count
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.handler import Handler
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.sasl import CheckPassword
from gsmtp.protocol.server import events
from gsmtp.protocol.server.commands import COMMANDS, READERS, VERBS
from gsmtp.protocol.server.extensions import ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.server.session import ServerSession
from gsmtp.protocol.server.states import State
from gsmtp.protocol.server.transitions import CLOSING, MAIL_ACCEPTED, TRANSITIONS, move
from gsmtp.reply import Reply

ALL = frozenset(name.removeprefix("on_") for name in vars(Handler) if name.startswith("on_"))
LINES = [
    b"EHLO c", b"HELO c", b"LHLO c", b"EHLO", b"MAIL FROM:<a@b>", b"MAIL FROM:<>", b"MAIL FROM:<a@b> BODY=BINARYMIME",
    b"MAIL", b"RCPT TO:<c@d>", b"RCPT TO:<c@d>", b"RCPT", b"DATA", b"DATA", b"x", b".", b".", b"RSET", b"RSET x",
    b"NOOP", b"HELP", b"VRFY x", b"EXPN x", b"STARTTLS", b"STARTTLS", b"AUTH PLAIN AGEAYg==", b"AUTH PLAIN",
    b"AGEAYg==", b"*", b"AUTH LOGIN", b"AUTH", b"BDAT 3\r\nabc", b"BDAT 3 LAST\r\nabc", b"BDAT 0 LAST",
    b"BDAT 2 x\r\nab", b"BDAT", b"XCLIENT ADDR=192.0.2.1", b"XFORWARD ADDR=192.0.2.1", b"XX", b"\xff", b"QUIT",
]  # fmt: skip


class Facts:
    """What the protocol asks of `session.tls`."""

    peer: dict[str, Any] = {}
    channel_bindings: dict[str, bytes] = {}


def test_every_state_is_reached_and_all_but_one_are_left() -> None:
    assert {after for each in TRANSITIONS for after in each.to.values()} == set(State)
    left = {before for each in TRANSITIONS for before in each.to if each is not CLOSING}
    assert left == set(State) - {State.CLOSED}
    assert set(CLOSING.to) == set(State)


def test_every_state_takes_commands_or_has_a_reader() -> None:
    assert COMMANDS.keys() == set(State)
    assert READERS.keys() == {state for state, actions in COMMANDS.items() if not actions}


def test_the_lines_have_every_verb() -> None:
    assert {line.split()[0].decode("latin-1") for line in LINES} >= VERBS


def test_what_cannot_happen_is_an_error() -> None:
    options = Options(hostname="mx.example.org")
    session = ServerSession(options, ExtensionSet(options), Session("S"), str)
    assert session.state is State.CONNECTED
    with pytest.raises(KeyError):
        move(session, MAIL_ACCEPTED)
    assert session.state is State.CONNECTED


def in_a_transaction(session: ServerSession) -> bool:
    return session.state in (State.MAIL, State.RCPT, State.CONTENT, State.CHUNKED)


@given(st.data(), st.lists(st.sampled_from(LINES), max_size=40))
def test_no_session_leaves_the_table(data: st.DataObject, lines: list[bytes]) -> None:
    """Whatever the client says and the handler decides: `move` finds each state, and there is an envelope in those of
    a transaction alone."""
    levels: st.SearchStrategy[Literal["never", "offered", "required"]] = st.sampled_from(
        ["never", "offered", "required"]
    )
    hooks = frozenset({"check_password"})
    options = Options(
        hostname="mx.example.org",
        tls=data.draw(levels),
        auth=data.draw(levels),
        auth_hooks=hooks,
        auth_without_tls=data.draw(st.booleans()),
        lmtp=data.draw(st.booleans()),
        max_errors=0,
    )
    ids = count(1)
    facts = Session("S")
    facts.trusted = data.draw(st.booleans())
    asks = data.draw(st.sampled_from([ALL, frozenset()]))
    session = ServerSession(options, ExtensionSet(options), facts, lambda: f"E{next(ids)}", asks)
    choices = st.sampled_from([None, None, None, Reply(550, "5.0.0", "No"), Reply(450, "4.0.0", "Later")])
    if data.draw(st.booleans()):
        session.receive(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    for line in lines:
        session.receive(line + b"\r\n")
        while not isinstance(event := session.next_event(), events.Signal):
            if isinstance(event, events.AuthQuestion):
                assert isinstance(event.question, CheckPassword)
                session.answer_question(event, data.draw(st.booleans()))
            elif isinstance(event, events.Content) and not event.last:
                continue
            elif isinstance(event, events.Decision):
                reply = session.answer(event, data.draw(choices), close=False)
                if isinstance(event, events.StartTls) and reply.accepted:
                    session.tls_started(Facts())
        if session.state is not State.CHUNK and session.state is not State.CLOSED:
            assert in_a_transaction(session) is (session.envelope is not None)
        if session.state is State.CLOSED:
            session.receive(b"NOOP\r\n")
            assert session.next_event() is events.CLOSED
            return
