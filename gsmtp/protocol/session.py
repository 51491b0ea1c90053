"""The server's side of an SMTP session (RFC 5321 4.1.4), without I/O and without a clock.

Give it octets with `receive`, ask it with `next_event` what is to be done, send what `data_to_send` returns. Where
someone must decide, it hands out an event and reads no further until `answer`; so pipelining (RFC 2920) needs no code
of its own, and replies stand in the order of the commands. Only an accepting reply moves the state.
Notices (`Reset`, `Refused`, `ContentRefused`) want no answer.

What a verb does depends on the state alone, by the table at the end of this file:

    state       means                                    leaves by
    CONNECTED   the banner is not decided                banner
    FRESH       nobody has said hello                    HELO, EHLO, LHLO
    INSECURE    hello was said; TLS is required first    STARTTLS
    ANONYMOUS   hello was said; AUTH is required first   AUTH
    READY       no transaction                           MAIL
    MAIL        a reverse-path, no recipient             RCPT, RSET, EHLO
    RCPT        one recipient or more                    DATA, RSET, EHLO
    CONTENT     354 was said, the content arrives        its end
    CLOSED      nothing more is read

The transaction is `envelope`: it exists or it does not, and a reset drops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from gsmtp.protocol import replies
from gsmtp.protocol.address import AddressError, parse_path
from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.protocol.events import (
    CLOSED,
    NEED_DATA,
    Connected,
    Content,
    ContentRefused,
    Decision,
    Event,
    Helo,
    Mail,
    Rcpt,
    Refused,
    Reset,
    StartTls,
    UnknownCommand,
    Vrfy,
)
from gsmtp.protocol.extensions import ExtensionSet, ParameterError
from gsmtp.protocol.framing import DotReader, LineFault, LineReader
from gsmtp.protocol.options import Options
from gsmtp.reply import Reply


class State(Enum):
    """See the table above."""

    CONNECTED = "connected"
    FRESH = "fresh"
    INSECURE = "insecure"
    ANONYMOUS = "anonymous"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    CONTENT = "content"
    CLOSED = "closed"


# Looking up a member on an Enum class costs ten times as much as a global (Python 3.11), several times a command.
_CONNECTED = State.CONNECTED
_FRESH = State.FRESH
_INSECURE = State.INSECURE
_ANONYMOUS = State.ANONYMOUS
_READY = State.READY
_MAIL = State.MAIL
_RCPT = State.RCPT
_CONTENT = State.CONTENT
_CLOSED = State.CLOSED


class ServerSession:
    """One SMTP session. `asks` names what must be decided outside: of connect, helo, ehlo, mail, rcpt, vrfy, command.

    `content` is always handed out. What is not in `asks` is answered here with the usual yes.
    `new_id` gives the id of an envelope. `quit` tells whether the client has said QUIT.
    """

    __slots__ = (
        "_asks",
        "_body",
        "_errors",
        "_extensions",
        "_idle",
        "_lines",
        "_new_id",
        "_options",
        "_out",
        "_overshoot",
        "_pending",
        "_queue",
        "_transactions",
        "envelope",
        "quit",
        "session",
        "state",
    )

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
        self._body: DotReader | None = None
        self._out: list[bytes] = []
        self._queue: list[Event] = []
        self._pending: tuple[Decision, Reply, Callable[[Any, Reply], None]] | None = None
        self._errors = self._idle = self._transactions = self._overshoot = 0
        self.session = session
        self.envelope: Envelope | None = None
        self.state = _CONNECTED
        self.quit = False

    # The three calls that drive it

    def receive(self, data: bytes) -> None:
        """Take octets from the client."""
        self._lines.feed(data)

    def next_event(self) -> Event:
        """What is to be done now. RuntimeError when the last decision was not answered."""
        queue = self._queue
        while not queue:
            if self._pending is not None:
                raise RuntimeError(f"{self._pending[0]!r} is not answered")
            state = self.state
            if state is _CLOSED:
                return CLOSED
            if state is _CONTENT:
                if not self._read_content():
                    return NEED_DATA
            elif state is _CONNECTED:
                self._ask("connect", Connected(), self._extensions.banner, self._connected)
            else:
                line = self._lines.line()
                if line is None:
                    return NEED_DATA
                self._command(line)
        return queue.pop(0)

    def data_to_send(self) -> bytes:
        """The octets for the client since the last call."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # What the outside says

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
        if isinstance(event, Content) and self._options.lmtp:
            self._content_decided(event, said, each)
        else:
            pending[2](event, said)
        if close or said.code == 421:
            self.state = _CLOSED
        return said

    def shut_down(self, reply: Reply | None) -> None:
        """End the session from outside, with a last word. A decision that waits is dropped with the rest."""
        if self.state is not _CLOSED:
            if reply is not None:
                self._say(reply)
            self._pending = None
            self._queue.clear()
            self.state = _CLOSED

    @property
    def unread(self) -> bool:
        """Whether octets were received that no command has used."""
        return self._lines.pending

    # Commands

    def _command(self, line: bytes | LineFault) -> None:
        if 0 < self._options.max_errors <= self._errors:
            self._refuse("", replies.TOO_MANY_ERRORS)
            return
        if isinstance(line, LineFault):
            self._refuse("", replies.LINE_FAULTS[line])
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._refuse("", replies.NOT_UTF8)
            return
        verb, _, argument = text.rstrip(" \t").partition(" ")
        # Beyond ASCII there are letters whose upper case is S or I.
        if verb.isascii():
            verb = verb.upper()
        action = _ACTIONS[self.state].get(verb, ServerSession._unknown)
        if isinstance(action, Reply):
            self._refuse(verb, action)
        else:
            action(self, verb, argument)

    def _ask(self, who: str, event: Decision, default: Reply, then: Callable[[Any, Reply], None]) -> None:
        if who in self._asks:
            self._pending = (event, default, then)
            self._queue.append(event)
        else:
            then(event, default)

    def _say(self, reply: Reply) -> None:
        self._out.append(reply.encode())

    def _refuse(self, verb: str, reply: Reply) -> None:
        self._errors += reply.code >= 500
        self._say(reply)
        self._queue.append(Refused(verb, reply))
        if reply.code == 421:
            self.state = _CLOSED

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
            self.state = _READY

    # Greeting

    def _connected(self, event: Connected, reply: Reply) -> None:
        self._say(reply)
        # RFC 5321 3.1 lets a refused client go on to QUIT; servers close at once, and clients are used to that.
        self.state = _FRESH if reply.accepted else _CLOSED

    def _helo(self, verb: str, argument: str) -> None:
        if self._idles(verb):
            return
        if (verb == "LHLO") != self._options.lmtp:
            self._refuse(verb, replies.LHLO_ONLY if self._options.lmtp else replies.NOT_LMTP)
            return
        # What stands after EHLO is not judged: clients say what they like there, and RFC 5321 4.1.4 forbids a
        # server to refuse mail for it.
        domain = argument.strip(" \t").partition(" ")[0]
        if not domain:
            self._refuse(verb, Reply(501, "5.5.4", f"Syntax: {verb} hostname"))
            return
        self._drop_envelope()
        extensions = self._extensions
        esmtp = verb != "HELO"
        asked = "ehlo" if esmtp else "helo"
        if asked in self._asks:
            event = Helo(domain, esmtp, list(extensions.lines) if esmtp else [])
            self._ask(asked, event, extensions.helo, self._helo_decided)
        else:
            self._greet(domain, esmtp, extensions.ehlo if esmtp else extensions.helo)

    def _helo_decided(self, event: Helo, reply: Reply) -> None:
        if reply.accepted:
            whole = Reply(reply.code, "", "\n".join([reply.text, *event.extensions]))
            self._greet(event.domain, event.esmtp, whole)
        else:
            self._say(reply)

    def _greet(self, domain: str, esmtp: bool, reply: Reply) -> None:
        self._say(reply)
        self.session.helo = domain
        self.session.esmtp = esmtp
        self._authorize()

    def _authorize(self) -> None:
        """The state of a client that has said hello and has no transaction."""
        session, options = self.session, self._options
        if options.tls == "required" and session.tls is None:
            self.state = _INSECURE
        elif options.auth == "required" and session.user is None:
            self.state = _ANONYMOUS
        else:
            self.state = _READY

    def _starttls(self, verb: str, argument: str) -> None:
        if self.session.tls is not None:
            self._refuse(verb, replies.TLS_ACTIVE)
        elif self._options.tls == "never":
            self._unknown(verb, argument)
        elif argument:
            self._refuse(verb, replies.NO_ARGUMENT)
        else:
            event = StartTls()
            self._pending = (event, replies.READY_FOR_TLS, self._starttls_decided)
            self._queue.append(event)

    def _starttls_decided(self, event: StartTls, reply: Reply) -> None:
        self._say(reply)

    def tls_started(self, tls: Any) -> None:
        """The handshake is over; `tls` is what hooks see as `session.tls`.

        RFC 3207 4.2: all that was learned before it is forgotten, and octets that came with or after STARTTLS in
        the clear are thrown away: whoever sent them was not inside.
        """
        self._lines.take()
        self._drop_envelope()
        self.session.tls = tls
        self.session.helo = ""
        self.session.esmtp = False
        self.session.user = None
        if self.state is not _CONNECTED:
            self.state = _FRESH

    # A transaction

    def _mail(self, verb: str, argument: str) -> None:
        options = self._options
        if argument[:5].upper() != "FROM:":
            self._refuse(verb, replies.MAIL_SYNTAX)
            return
        try:
            mailbox, rest = parse_path(argument[5:], null=True, lenient=options.lenient_addresses)
            parameters = self._extensions.mail_parameters(rest) if rest else {}
        except AddressError as error:
            self._refuse(verb, Reply(501, "5.1.7", f"Bad sender address: {error}"))
            return
        except ParameterError as error:
            self._refuse(verb, error.reply)
            return
        if not mailbox.address.isascii() and "SMTPUTF8" not in parameters:
            self._refuse(verb, replies.NEEDS_SMTPUTF8)
            return
        self._transactions += 1
        if 0 < options.max_transactions < self._transactions:
            self._refuse(verb, replies.TOO_MANY_TRANSACTIONS)
            return
        envelope = Envelope(self._new_id(), self.session, mailbox, parameters)
        self._ask("mail", Mail(envelope), replies.SENDER_OK, self._mail_decided)

    def _mail_decided(self, event: Mail, reply: Reply) -> None:
        self._say(reply)
        if reply.accepted:
            self.envelope = event.envelope
            self._overshoot = 0
            self.state = _MAIL

    def _rcpt(self, verb: str, argument: str) -> None:
        envelope = self.envelope
        assert envelope is not None
        options = self._options
        if argument[:3].upper() != "TO:":
            self._refuse(verb, replies.RCPT_SYNTAX)
            return
        try:
            mailbox, rest = parse_path(argument[3:], lenient=options.lenient_addresses)
            parameters = self._extensions.rcpt_parameters(rest) if rest else {}
        except AddressError as error:
            self._refuse(verb, Reply(501, "5.1.3", f"Bad recipient address: {error}"))
            return
        except ParameterError as error:
            self._refuse(verb, error.reply)
            return
        if not mailbox.address.isascii() and "SMTPUTF8" not in envelope.parameters:
            self._refuse(verb, replies.NEEDS_SMTPUTF8)
            return
        if len(envelope.recipients) >= options.max_recipients:
            # RFC 5321 4.5.3.1.10: 452, and the client sends the rest in another transaction. A pipelining client may
            # have sent as many again before it could know; one that goes on after that does not listen.
            self._overshoot += 1
            deaf = self._overshoot > options.max_recipient_overshoot
            self._refuse(verb, replies.TOO_MANY_COMMANDS if deaf else replies.TOO_MANY_RECIPIENTS)
            return
        self._ask("rcpt", Rcpt(envelope, Recipient(mailbox, parameters)), replies.RECIPIENT_OK, self._rcpt_decided)

    def _rcpt_decided(self, event: Rcpt, reply: Reply) -> None:
        self._say(reply)
        if reply.accepted:
            event.envelope.recipients.append(event.recipient)
            self.state = _RCPT

    def _data(self, verb: str, argument: str) -> None:
        if argument:
            self._refuse(verb, replies.NO_ARGUMENT)
            return
        options = self._options
        assert self.envelope is not None
        if not self.envelope.recipients:
            self._refuse(verb, replies.LMTP_NO_RECIPIENTS if options.lmtp else replies.NO_RECIPIENTS)
            return
        self._body = DotReader(options.allow_bare_newlines, options.max_message_size, options.max_content_line_length)
        self._say(replies.GO_AHEAD)
        self.state = _CONTENT

    def _read_content(self) -> bool:
        """Read what has come of the content; whether that gave an event."""
        body, envelope = self._body, self.envelope
        assert body is not None and envelope is not None
        data = self._lines.take()
        if not data:
            return False
        content, rest = body.read(data)
        if rest is None:
            if content:
                self._queue.append(Content(envelope, content, False))
            return bool(content)
        self._body = None
        self._lines.feed(rest)
        if body.fault is None:
            event = Content(envelope, content, True)
            self._pending = (event, replies.ACCEPTED, self._content_decided)
            self._queue.append(event)
        else:
            reply = replies.CONTENT_FAULTS[body.fault]
            self._queue.append(ContentRefused(envelope, reply))
            self._errors += 1
            self._content_decided(None, reply)
        return True

    def _content_decided(self, event: Content | None, reply: Reply, each: Sequence[Reply] = ()) -> None:
        if self._options.lmtp:
            assert self.envelope is not None
            for one in each or [reply] * len(self.envelope.recipients):
                self._say(one)
        else:
            self._say(reply)
        self.envelope = None
        self.state = _READY
        if reply.accepted:
            self._errors = self._idle = 0

    # The rest

    def _rset(self, verb: str, argument: str) -> None:
        if argument:
            self._refuse(verb, replies.NO_ARGUMENT)
        elif not self._idles(verb):
            self._drop_envelope()
            self._say(replies.OK)

    def _noop(self, verb: str, argument: str) -> None:
        if not self._idles(verb):
            self._say(replies.OK)

    def _help(self, verb: str, argument: str) -> None:
        if not self._idles(verb):
            self._say(replies.HELP)

    def _vrfy(self, verb: str, argument: str) -> None:
        if self._idles(verb):
            return
        if not argument:
            self._refuse(verb, Reply(501, "5.5.4", f"Syntax: {verb} address"))
            return
        default = replies.CANNOT_VERIFY if verb == "VRFY" else replies.NO_EXPN
        self._ask("vrfy", Vrfy(verb, argument), default, self._decided)

    def _quit(self, verb: str, argument: str) -> None:
        if argument:
            self._refuse(verb, replies.NO_ARGUMENT)
            return
        self._say(replies.BYE)
        self.quit = True
        self.state = _CLOSED

    def _unknown(self, verb: str, argument: str) -> None:
        if self._idles(verb):
            return
        if "command" in self._asks:
            self._ask("command", UnknownCommand(verb, argument), replies.UNKNOWN, self._decided)
        else:
            self._refuse(verb, replies.UNKNOWN)

    def _decided(self, event: Decision, reply: Reply) -> None:
        self._say(reply)


_Action = Callable[[ServerSession, str, str], None] | Reply

_ALWAYS: dict[str, _Action] = {
    "HELO": ServerSession._helo,
    "LHLO": ServerSession._helo,
    "EHLO": ServerSession._helo,
    "RSET": ServerSession._rset,
    "NOOP": ServerSession._noop,
    "HELP": ServerSession._help,
    "VRFY": ServerSession._vrfy,
    "EXPN": ServerSession._vrfy,
    "QUIT": ServerSession._quit,
    "STARTTLS": ServerSession._starttls,
}
_ACTIONS: dict[State, dict[str, _Action]] = {
    _FRESH: {**_ALWAYS, "MAIL": replies.HELLO_FIRST, "RCPT": replies.HELLO_FIRST, "DATA": replies.HELLO_FIRST},
    _READY: {**_ALWAYS, "MAIL": ServerSession._mail, "RCPT": replies.MAIL_FIRST, "DATA": replies.MAIL_FIRST},
    _MAIL: {**_ALWAYS, "MAIL": replies.NESTED_MAIL, "RCPT": ServerSession._rcpt, "DATA": ServerSession._data},
    _RCPT: {**_ALWAYS, "MAIL": replies.NESTED_MAIL, "RCPT": ServerSession._rcpt, "DATA": ServerSession._data},
}
