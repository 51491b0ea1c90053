"""The session's contract with whoever drives it: events, answers, limits, endings. What it says is in the dialogues."""

from __future__ import annotations

import dataclasses
from itertools import count
from typing import Any

import pytest

from gsmtp.protocol.envelope import Session
from gsmtp.protocol.server import events
from gsmtp.protocol.server.extensions import ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.server.session import VERBS, ServerSession, State
from gsmtp.reply import Reply

ALL = frozenset({"connect", "helo", "ehlo", "mail", "rcpt", "vrfy", "command"})


def make(asks: frozenset[str] = frozenset(), **options: Any) -> ServerSession:
    own = Options(hostname="mx.example.org", **options)
    ids = count(1)
    return ServerSession(own, ExtensionSet(own), Session("S"), lambda: f"E{next(ids)}", asks)


def drive(session: ServerSession, data: bytes) -> tuple[list[events.Event], bytes]:
    """Feed `data` and say yes to everything; the events but signals, and what was said."""
    session.receive(data)
    found: list[events.Event] = []
    while not isinstance(event := session.next_event(), events.Signal):
        found.append(event)
        if isinstance(event, events.Decision) and (not isinstance(event, events.Content) or event.last):
            session.answer(event)
    return found, session.data_to_send()


def opened(asks: frozenset[str] = frozenset(), **options: Any) -> ServerSession:
    """A session that waits for content."""
    session = make(asks, **options)
    drive(session, b"HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    assert session.state is State.CONTENT
    return session


def test_events_in_order() -> None:
    session = make(ALL)
    text = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nVRFY x\r\nXX y z\r\nQUIT\r\n"
    found, _ = drive(session, text)
    kinds = [type(event).__name__ for event in found]
    assert kinds == ["Connected", "Helo", "Mail", "Rcpt", "Content", "Vrfy", "UnknownCommand"]
    assert found[-1] == events.UnknownCommand("XX", "y z")
    assert session.quit and session.state is State.CLOSED


def test_no_event_before_the_answer() -> None:
    session = make(ALL)
    session.receive(b"HELO c\r\nNOOP\r\n")
    event = session.next_event()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            session.next_event()
    assert session.data_to_send() == b""
    assert isinstance(event, events.Connected)
    session.answer(event)
    with pytest.raises(RuntimeError):
        session.answer(event)


def test_an_answer_must_fit_its_event() -> None:
    session = make(frozenset({"helo"}))
    session.receive(b"HELO c\r\n")
    assert isinstance(session.next_event(), events.Helo)
    with pytest.raises(RuntimeError):
        session.answer(events.Helo("c", False, []))


def test_what_nobody_asks_for_is_answered() -> None:
    session = make()
    found, said = drive(session, b"HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    assert found == []
    assert said.count(b"\r\n") == 4


def test_only_a_yes_moves_the_state() -> None:
    session = make(ALL)
    session.receive(b"HELO c\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    no = Reply(450, "4.0.0", "No")
    for kind, reply, state in [
        (events.Connected, None, State.FRESH),
        (events.Helo, None, State.READY),
        (events.Mail, no, State.READY),
        (events.Mail, None, State.MAIL),
        (events.Rcpt, no, State.MAIL),
    ]:
        event = session.next_event()
        assert isinstance(event, kind)
        assert isinstance(event, events.Decision)
        session.answer(event, reply)
        assert session.state is state
    assert isinstance(session.next_event(), events.Refused)
    assert session.envelope is not None and session.envelope.recipients == []


def test_content_comes_in_pieces_and_waits_for_its_last() -> None:
    session = opened()
    assert drive(session, b"one\r\ntwo") == ([events.Content(session.envelope, b"one\r\ntwo", False)], b"")  # type: ignore[arg-type]
    assert drive(session, b"\r\n.") == ([], b"")
    found, said = drive(session, b"\r\n")
    assert [(event.data, event.last) for event in found if isinstance(event, events.Content)] == [(b"\r\n", True)]
    assert said.startswith(b"250 ")
    assert session.envelope is None and session.state is State.READY


def test_a_refused_content_is_noticed_not_asked() -> None:
    session = opened(max_message_size=5)
    envelope = session.envelope
    found, said = drive(session, b"123456789\r\n.\r\n")
    assert [type(event) for event in found] == [events.ContentRefused]
    assert isinstance(found[0], events.ContentRefused) and found[0].envelope is envelope
    assert said.startswith(b"552 ")
    assert session.envelope is None


@pytest.mark.parametrize("command", [b"RSET\r\n", b"EHLO c\r\n", b"HELO c\r\n"])
def test_a_reset_drops_the_envelope_and_says_which(command: bytes) -> None:
    session = make()
    drive(session, b"HELO c\r\nMAIL FROM:<a@b>\r\n")
    envelope = session.envelope
    found, _ = drive(session, command)
    assert found == [events.Reset(envelope)]  # type: ignore[arg-type]
    assert session.envelope is None
    drive(session, b"MAIL FROM:<a@b>\r\n")
    assert session.envelope is not None and session.envelope is not envelope
    assert session.envelope.id != envelope.id


def test_what_a_session_is_told() -> None:
    session = make()
    drive(session, b'EHLO client.example\r\nMAIL FROM:<"A b"@C.example> SIZE=5 BODY=7BIT\r\nRCPT TO:<D@E.example>\r\n')
    assert (session.session.helo, session.session.esmtp, session.session.protocol) == ("client.example", True, "ESMTP")
    envelope = session.envelope
    assert envelope is not None
    assert (envelope.sender, envelope.sender_local, envelope.sender_domain) == ('"A b"@C.example', "A b", "c.example")
    assert envelope.parameters == {"SIZE": 5, "BODY": "7BIT"}
    assert [(each.address, each.local, each.domain) for each in envelope.recipients] == [
        ("D@E.example", "D", "e.example")
    ]
    drive(session, b"HELO old.example\r\n")
    assert (session.session.helo, session.session.protocol) == ("old.example", "SMTP")


def test_state_belongs_to_what_carries_it() -> None:
    session = make()
    drive(session, b"HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n")
    envelope = session.envelope
    assert envelope is not None
    session.session.state.x = envelope.state.x = envelope.recipients[0].state.x = 1
    assert not hasattr(envelope.recipients[1].state, "x")
    drive(session, b"RSET\r\nMAIL FROM:<a@b>\r\n")
    assert not hasattr(session.envelope.state, "x")  # type: ignore[union-attr]
    assert session.session.state.x == 1


def test_options_cannot_be_changed_by_a_session() -> None:
    """Limits must not be held where one connection can change them for all."""
    own = Options(hostname="h")
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.max_errors = 5  # type: ignore[misc]
    # The list that a hook may edit is its own each time.
    extensions = ExtensionSet(own)
    for _ in range(2):
        session = ServerSession(own, extensions, Session("S"), lambda: "E", frozenset({"ehlo"}))
        session.receive(b"EHLO c\r\n")
        event = session.next_event()
        assert isinstance(event, events.Helo)
        assert event.extensions == list(extensions.offer(Session("S1")).lines)
        event.extensions.clear()
        session.answer(event)


def test_close_with_any_reply() -> None:
    session = make(frozenset({"mail"}))
    session.receive(b"HELO c\r\nMAIL FROM:<a@b>\r\nNOOP\r\n")
    event = session.next_event()
    assert isinstance(event, events.Mail)
    assert session.answer(event, Reply(554, "5.7.1", "Go"), close=True).code == 554
    assert session.next_event() is events.CLOSED
    assert session.data_to_send().endswith(b"554 5.7.1 Go\r\n")
    assert session.unread


def test_shut_down_from_outside() -> None:
    session = make(frozenset({"mail"}))
    session.receive(b"HELO c\r\nMAIL FROM:<a@b>\r\n")
    assert isinstance(session.next_event(), events.Mail)
    last = Reply(421, "4.3.2", "Bye")
    session.shut_down(last)
    session.shut_down(last)
    assert session.next_event() is events.CLOSED
    assert session.data_to_send().count(b"421 4.3.2 Bye\r\n") == 1


def test_shut_down_says_nothing_after_quit() -> None:
    session = make()
    drive(session, b"QUIT\r\n")
    session.shut_down(Reply(421, "4.3.2", "Bye"))
    assert session.data_to_send() == b""


def test_many_commands_cost_the_same_each() -> None:
    """A packet of many commands is read without copying its rest for each of them."""
    session = make(max_idle_commands=0)
    _, said = drive(session, b"HELO c\r\n" + b"NOOP\r\n" * 20_000)
    assert said.count(b"\r\n") == 20_002


# The verbs that bring mail or end the session; each other verb is counted against max_idle_commands.
NOT_IDLE = {"MAIL", "RCPT", "DATA", "BDAT", "AUTH", "STARTTLS", "XCLIENT", "XFORWARD", "QUIT"}


@pytest.mark.parametrize("verb", sorted(VERBS - NOT_IDLE))
def test_a_verb_that_brings_no_mail_is_counted(verb: str) -> None:
    session = make(max_idle_commands=1)
    _, said = drive(session, f"HELO c\r\n{verb}{'' if verb == 'RSET' else ' x'}\r\n".encode())
    assert said.splitlines()[-1].startswith(b"421 4.7.0 Too many commands")


class Facts:
    """What the protocol asks of `session.tls`."""

    peer: dict[str, Any] = {}
    channel_bindings: dict[str, bytes] = {}


def test_tls_forgets_what_xclient_and_xforward_said_in_the_name_of_the_client() -> None:
    """An attacker on the path could have said it, and the next XCLIENT must not bring it back (RFC 3207 4.2)."""
    session = make(tls="offered")
    session.session.trusted = True
    drive(session, b"XCLIENT ADDR=192.0.2.7 PORT=1 LOGIN=mallory HELO=x PROTO=ESMTP\r\nEHLO c\r\nXFORWARD NAME=x\r\n")
    who = session.session
    assert (who.user, who.peer) == ("mallory", ("192.0.2.7", 1)) and who.forwarded is not None
    session.receive(b"STARTTLS\r\n")
    event = session.next_event()
    assert isinstance(event, events.StartTls)
    session.answer(event)
    session.tls_started(Facts())
    assert (who.user, who.helo, who.esmtp, who.forwarded) == (None, "", False, None)  # type: ignore[comparison-overlap]
    # Whose connection it is was said by the network, as with a PROXY header.
    assert who.peer == ("192.0.2.7", 1)
    drive(session, b"XCLIENT PORT=2\r\n")
    assert (who.user, who.helo, who.esmtp, who.peer) == (None, "", False, ("192.0.2.7", 2))


def test_xclient_forgets_what_xforward_said() -> None:
    session = make()
    session.session.trusted = True
    drive(session, b"EHLO c\r\nXFORWARD NAME=x\r\nXCLIENT ADDR=192.0.2.7\r\n")
    assert session.session.forwarded is None


def test_a_421_of_the_handler_is_said_although_the_session_has_failed_too_often() -> None:
    session = make(auth="offered", auth_hooks=frozenset({"check_password"}), auth_without_tls=True, max_auth_failures=1)
    session.receive(b"EHLO c\r\nAUTH PLAIN AGEAYg==\r\n")
    event = session.next_event()
    assert isinstance(event, events.AuthQuestion)
    session.answer_question(event, None, Reply(421, "4.7.0", "Not from there"))
    assert session.data_to_send().endswith(b"421 4.7.0 Not from there\r\n")
    assert session.state is State.CLOSED
