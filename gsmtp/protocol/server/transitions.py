"""The transitions of a session: what happened, and which state follows which.

Each `Transition` is one row of the table. `move` applies it, and is the only place that assigns a session's state. A
state that a row does not name cannot meet that happening: `move` raises KeyError then, and the session has a fault.

Which verbs a state takes is the table in commands.py. docs/protocol.rst is drawn from both by scripts/state_diagram.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gsmtp.protocol.server.states import (
    ANONYMOUS,
    AUTH,
    CHUNK,
    CHUNKED,
    CLOSED,
    CONNECTED,
    CONTENT,
    FRESH,
    INSECURE,
    MAIL,
    RCPT,
    READY,
    State,
)

if TYPE_CHECKING:
    from gsmtp.protocol.server.session import ServerSession


class Transition:
    """One row: `happened` says what, in words for the documentation; `to` has the next state for each present one."""

    __slots__ = ("happened", "to")

    def __init__(self, happened: str, before: Iterable[State], after: State) -> None:
        self.happened = happened
        self.to = dict.fromkeys(before, after)


_NO_TRANSACTION = (FRESH, INSECURE, ANONYMOUS, READY)
_TRANSACTION = (MAIL, RCPT, CHUNKED)
_COMMANDS = (*_NO_TRANSACTION, *_TRANSACTION)
_HELLO = (*_NO_TRANSACTION, AUTH)

BANNER = Transition("the banner was accepted", [CONNECTED], FRESH)
# After HELO, EHLO and LHLO, and at the end of an AUTH exchange.
TLS_MISSING = Transition("hello or AUTH has ended, TLS is required and missing", _HELLO, INSECURE)
AUTH_MISSING = Transition("hello or AUTH has ended, AUTH is required and missing", _HELLO, ANONYMOUS)
AUTHORIZED = Transition("hello or AUTH has ended, nothing is missing", _HELLO, READY)
CHALLENGED = Transition("AUTH: a challenge was sent", (ANONYMOUS, READY, AUTH), AUTH)
# A transaction was dropped by then, which has led to READY.
TLS_STARTED = Transition("the TLS handshake has succeeded", _NO_TRANSACTION, FRESH)
CLIENT_CHANGED = Transition("XCLIENT was accepted", _NO_TRANSACTION, CONNECTED)
MAIL_ACCEPTED = Transition("MAIL was accepted", [READY], MAIL)
RCPT_ACCEPTED = Transition("RCPT was accepted", (MAIL, RCPT), RCPT)
# MAIL too: a hook may have put a recipient into the envelope.
DATA_ACCEPTED = Transition("DATA was accepted", (MAIL, RCPT), CONTENT)
RESET = Transition("RSET, EHLO, HELO, LHLO or STARTTLS ends the transaction", _TRANSACTION, READY)
CHUNK_BEGUN = Transition("BDAT announces octets", _COMMANDS, CHUNK)
CHUNK_TAKEN = Transition("the octets of an accepted BDAT are read", [CHUNK], CHUNKED)
CHUNK_REFUSED = Transition("the octets of a refused BDAT are read", [CHUNK], READY)
# Where no transaction can be open, a refused BDAT leaves the session in the state in which it came.
CHUNK_SKIPPED = {
    state: Transition(f"the octets of a BDAT that came in {state.name} are read", [CHUNK], state)
    for state in (FRESH, INSECURE, ANONYMOUS)
}
CONTENT_ENDED = Transition("the content was answered", (CONTENT, CHUNKED), READY)
CLOSING = Transition("QUIT, a reply of 421, a refused banner, or the server ends the session", State, CLOSED)

TRANSITIONS = (
    BANNER,
    TLS_MISSING,
    AUTH_MISSING,
    AUTHORIZED,
    CHALLENGED,
    TLS_STARTED,
    CLIENT_CHANGED,
    MAIL_ACCEPTED,
    RCPT_ACCEPTED,
    DATA_ACCEPTED,
    RESET,
    CHUNK_BEGUN,
    CHUNK_TAKEN,
    CHUNK_REFUSED,
    *CHUNK_SKIPPED.values(),
    CONTENT_ENDED,
    CLOSING,
)


def move(smtp: ServerSession, transition: Transition) -> None:
    """Bring `smtp` into the state that follows. Raises KeyError when the table has none for the present state."""
    smtp.state = transition.to[smtp.state]
