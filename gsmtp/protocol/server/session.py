"""The receiving end of an SMTP or LMTP session (RFC 5321 4.1.4), without I/O and without a clock.

Give it octets with `receive`, ask it with `next_event` what is to be done, send what `data_to_send` returns. Where
a decision is needed it returns an event and reads no further until `answer`. So pipelining (RFC 2920) needs no code of
its own, and replies keep the order of the commands. Only an accepting reply moves the state on. Notices want no answer.

A session has parts: the transaction (transaction.py), the chunks of BDAT (chunking.py) and the AUTH exchange
(authentication.py). Each is there or is None, and a reset drops it. What a verb does depends on the state alone, by the
table in commands.py. A verb is a function that takes the session, the verb and its argument. It returns what is to be
said or asked (`Outcome` in events.py); this file says it, counts the error and reports the refusal. The state is
assigned by `transitions.move` alone.

The session must not know sockets, clocks, TLS or hooks. Weak: it trusts its driver to answer events in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gsmtp.protocol.envelope import Envelope, Session
from gsmtp.protocol.framing import LineFault, LineReader
from gsmtp.protocol.server import authentication, greeting, replies, states
from gsmtp.protocol.server.authentication import Authentication
from gsmtp.protocol.server.chunking import Chunks, bdat
from gsmtp.protocol.server.commands import COMMANDS, READERS, VERBS
from gsmtp.protocol.server.events import (
    NEED_DATA,
    AuthQuestion,
    Decision,
    Event,
    Outcome,
    Pending,
    Refused,
    UnknownCommand,
)
from gsmtp.protocol.server.extensions import ExtensionSet, Offer
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.server.states import State
from gsmtp.protocol.server.transaction import Transaction
from gsmtp.protocol.server.transitions import CLOSING, move
from gsmtp.protocol.xclient import ClientAttributes
from gsmtp.reply import Reply

if TYPE_CHECKING:
    from gsmtp.protocol.server.commands import Action

_FIRST_STATE: Final = states.CONNECTED
__all__ = ["VERBS", "ServerSession", "State"]


class ServerSession:
    """One SMTP session.

    `asks` names the hooks that there are, without "on_". An event whose hook is not there gets its default reply.
    Content is always handed out. `new_id` returns the id of an envelope.

    For the driver: `state`, `session` (what hooks see), `envelope`, `quit` (whether the client has said QUIT) and
    `unsent` (replies that `data_to_send` has not returned yet). The other attributes are for the verbs in this package.
    """

    # Defaults stand on the class: most sessions never touch most of them, and one is made for each connection.
    state: State = _FIRST_STATE
    quit: bool = False
    transaction: Transaction | None = None
    chunks: Chunks | None = None
    auth: Authentication | None = None
    offer: Offer  # of the last HELO or EHLO
    client: ClientAttributes | None = None  # what XCLIENT has said
    errors: int = 0
    idle: int = 0  # commands without mail
    transactions: int = 0
    auth_failures: int = 0
    recipient_replies: Sequence[Reply] = ()
    pending: Pending | None = None

    def __init__(
        self,
        options: Options,
        extensions: ExtensionSet,
        session: Session,
        new_id: Callable[[], str],
        asks: frozenset[str] = frozenset(),
    ) -> None:
        self.options = options
        self.extensions = extensions
        self.asks = asks
        self.new_id = new_id
        self.lines = LineReader(options.max_line_length, options.allow_bare_newlines != "reject")
        # Take octets from the client.
        self.receive = self.lines.feed
        self.unsent: list[bytes] = []
        self.queue: list[Event] = []
        self.session = session
        session.lmtp = options.lmtp

    # For the driver

    @property
    def envelope(self) -> Envelope | None:
        """The open transaction's envelope."""
        return self.transaction.envelope if self.transaction is not None else None

    @property
    def unread(self) -> bool:
        """Whether octets were received that no command has used."""
        return self.lines.pending

    def data_to_send(self) -> bytes:
        """Return the octets for the client since the last call."""
        out = self.unsent
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def next_event(self) -> Event:
        """Return what is to be done now. Raises RuntimeError when the last decision was not answered."""
        queue = self.queue
        while not queue:
            if self.pending is not None:
                raise RuntimeError(f"{self.pending[0]!r} is not answered")
            actions = COMMANDS[self.state]
            if actions:
                lines = self.lines
                # Mostly one command has come and no more: that is seen without a call.
                line = lines.line() if lines.at < len(lines.buffer) else None
                if line is None:
                    return NEED_DATA
                self._command(line, actions)
            elif not READERS[self.state](self):
                return NEED_DATA
        return queue.pop(0)

    def answer(
        self, event: Decision, reply: Reply | None = None, *, close: bool = False, each: Sequence[Reply] = ()
    ) -> Reply:
        """Decide `event` by `reply`, or by its default reply when that is None. Return the reply that was said.

        `close`, or a code of 421, ends the session. `each`: after an LMTP content, the replies for the recipients in
        their order (RFC 2033 4.2), when they differ. Raises RuntimeError when it is not this event that waits.
        """
        pending = self.pending
        if pending is None or pending[0] is not event:
            raise RuntimeError(f"{event!r} does not wait for an answer")
        self.pending = None
        said = reply or pending[1]
        code = said.code
        if code >= 500:
            self.errors += 1
        if each:
            self.recipient_replies = each
        pending[2](self, event, said)
        if close or code == 421:
            move(self, CLOSING)
        return said

    def answer_question(self, event: AuthQuestion, value: object, refusal: Reply | None = None) -> None:
        """Answer an AUTH mechanism's question with `value`, or refuse with a reply.

        Raises RuntimeError when it is not this question that waits. Raises TypeError when the value is not of the kind
        that the question asks for; the question waits on, then.
        """
        pending = self.pending
        if pending is None or pending[0] is not event or self.auth is None:
            raise RuntimeError(f"{event!r} does not wait for an answer")
        authentication.answer_question(self, self.auth, value, refusal)

    def tls_started(self, tls: Any) -> None:
        """Begin anew after the TLS handshake (RFC 3207 4.2). `tls` is what hooks see as `session.tls`."""
        greeting.tls_started(self, tls)

    def shut_down(self, reply: Reply | None) -> None:
        """End the session from outside, with a last reply. A decision that waits is dropped, and so are all events."""
        if self.state is not states.CLOSED:
            if reply is not None:
                self.say(reply)
            self.pending = None
            self.queue.clear()
            move(self, CLOSING)

    # For the verbs

    def say(self, reply: Reply) -> None:
        """Queue `reply` for the client."""
        self.unsent.append(reply.wire or reply.encode())

    def refuse(self, verb: str, reply: Reply) -> None:
        """Say the protocol's own refusal of a command, count the error and report it; 421 ends the session."""
        self.errors += reply.code >= 500
        self.unsent.append(reply.wire or reply.encode())
        self.queue.append(Refused(verb, reply))
        if reply.code == 421:
            move(self, CLOSING)

    def ask(self, pending: Pending) -> None:
        """Hand out an event and wait for its answer."""
        self.pending = pending
        self.queue.append(pending[0])

    def idles(self) -> bool:
        """Count a command that brings no mail. Return whether it is one too many."""
        self.idle += 1
        return 0 < self.options.max_idle_commands < self.idle

    def unknown(self, verb: str, argument: str) -> Outcome:
        """Return the outcome of a verb that this listener does not have."""
        if self.idles():
            return replies.TOO_MANY_COMMANDS
        if "command" in self.asks:
            return UnknownCommand(verb, argument), replies.UNKNOWN, greeting.say_decision
        return replies.UNKNOWN

    def _command(self, line: bytes | LineFault, actions: dict[str, Action]) -> None:
        if self.errors and 0 < self.options.max_errors <= self.errors:
            self.refuse("", replies.TOO_MANY_ERRORS)
            return
        if not isinstance(line, bytes):  # asking for LineFault, an Enum, costs some ten times as much
            self._unreadable(self.lines.verb, replies.LINE_FAULTS[line])
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._unreadable(line[:4], replies.NOT_UTF8)
            return
        verb, _, argument = text.rstrip(" \t").partition(" ")
        action = actions.get(verb)
        if action is None:
            # Beyond ASCII there are letters whose upper case is S or I.
            if verb.isascii():
                verb = verb.upper()
            action = actions.get(verb)
        if action is None:
            if verb.startswith("BDAT\t"):
                verb = "BDAT"
                outcome = bdat(self, verb, "")
            else:
                outcome = self.unknown(verb, argument)
        elif isinstance(action, Reply):
            outcome = action
        else:
            outcome = action(self, verb, argument)
        if outcome is None:
            return
        if not isinstance(outcome, Reply):
            self.pending = outcome
            self.queue.append(outcome[0])
        elif outcome.code < 400:
            self.unsent.append(outcome.wire or outcome.encode())
        else:
            self.refuse(verb, outcome)

    def _unreadable(self, verb: bytes, reply: Reply) -> None:
        """Refuse a line that begins with `verb` and cannot be read as a command."""
        self.refuse("", reply)
        if verb.upper() == b"BDAT":
            self.lose_place()

    def lose_place(self) -> None:
        """End the session after a BDAT whose size is not known, because none of its octets may become a command."""
        if self.state is not states.CLOSED:
            self.say(replies.BDAT_LOST)
            move(self, CLOSING)
