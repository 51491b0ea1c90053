"""What all of a session stands on: octets in and out, questions and answers, refusals and their limits.

The verbs are in the classes above this one, each of which adds those of one matter: `Opening`, `Transaction`,
`Chunking`, and `ServerSession`, which has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gsmtp.protocol.envelope import Envelope, Session
from gsmtp.protocol.extensions import ExtensionSet
from gsmtp.protocol.framing import LineReader
from gsmtp.protocol.server import replies, states
from gsmtp.protocol.server.events import Decision, Event, Refused, Reset, UnknownCommand
from gsmtp.protocol.server.options import Options
from gsmtp.reply import Reply


class Engine:
    """One SMTP session. `asks` names what must be decided outside: of connect, helo, ehlo, mail, rcpt, vrfy, command.

    `content` is always handed out. What is not in `asks` is answered here with the usual yes.
    `new_id` gives the id of an envelope. `quit` tells whether the client has said QUIT.
    """

    # Defaults stand on the classes, here and above: most sessions never touch most of them, and one is made for each
    # connection.
    _pending: tuple[Any, Reply, Callable[[Any, Reply], None]] | None = None
    _each: Sequence[Reply] = ()
    _errors: int = 0
    _idle: int = 0
    envelope: Envelope | None = None
    quit: bool = False

    def __init__(
        self,
        options: Options,
        extensions: ExtensionSet,
        session: Session,
        new_id: Callable[[], str],
        asks: frozenset[str] = frozenset(),
    ) -> None:
        self._options = options
        self._extensions = extensions
        self._asks = asks
        self._new_id = new_id
        self._lines = LineReader(options.max_line_length, options.allow_bare_newlines != "reject")
        # Take octets from the client.
        self.receive = self._lines.feed
        # Replies that `data_to_send` has not yet given out.
        self.unsent: list[bytes] = []
        self._queue: list[Event] = []
        self.state = states.CONNECTED
        self.session = session
        session.lmtp = options.lmtp

    def data_to_send(self) -> bytes:
        """The octets for the client since the last call."""
        out = self.unsent
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def answer(
        self, event: Decision, reply: Reply | None = None, *, close: bool = False, each: Sequence[Reply] = ()
    ) -> Reply:
        """Decide `event`: None is the usual answer. `close`, or a code of 421, ends the session. Returns what was said.

        `each`: after an LMTP content, the replies of the recipients in their order (RFC 2033 4.2), when they differ.
        RuntimeError when it is not this event that waits.
        """
        pending = self._pending
        if pending is None or pending[0] is not event:
            raise RuntimeError(f"{event!r} does not wait for an answer")
        self._pending = None
        said = reply or pending[1]
        if said.code >= 500:
            self._errors += 1
        self._each = each
        pending[2](event, said)
        if close or said.code == 421:
            self.state = states.CLOSED
        return said

    def shut_down(self, reply: Reply | None) -> None:
        """End the session from outside, with a last word. A decision that waits is dropped with the rest."""
        if self.state is not states.CLOSED:
            if reply is not None:
                self._say(reply)
            self._pending = None
            self._queue.clear()
            self.state = states.CLOSED

    @property
    def unread(self) -> bool:
        """Whether octets were received that no command has used."""
        return self._lines.pending

    def _ask(self, event: Decision, default: Reply, then: Callable[[Any, Reply], None]) -> None:
        self._pending = (event, default, then)
        self._queue.append(event)

    def _say(self, reply: Reply) -> None:
        self.unsent.append(reply.wire or reply.encode())

    def _refuse(self, verb: str, reply: Reply) -> None:
        self._errors += reply.code >= 500
        self._say(reply)
        self._queue.append(Refused(verb, reply))
        if reply.code == 421:
            self.state = states.CLOSED

    def _idles(self, verb: str) -> bool:
        """Count a command that brings no mail; whether that was one too many, and was refused."""
        self._idle += 1
        if 0 < self._options.max_idle_commands < self._idle:
            self._refuse(verb, replies.TOO_MANY_COMMANDS)
            return True
        return False

    def _drop_envelope(self) -> None:
        if self.envelope is not None:
            self._queue.append(Reset(self.envelope))
            self.envelope = None
            self.session.forwarded = None
            self.state = states.READY

    def _unknown(self, verb: str, argument: str) -> None:
        if self._idles(verb):
            return
        if "command" in self._asks:
            self._ask(UnknownCommand(verb, argument), replies.UNKNOWN, self._decided)
        else:
            self._refuse(verb, replies.UNKNOWN)

    def _decided(self, event: Decision, reply: Reply) -> None:
        self._say(reply)
