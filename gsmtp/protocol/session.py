"""The server's side of an SMTP session (RFC 5321 4.1.4), without I/O and without a clock.

Give it octets with `receive`, ask it with `next_event` what is to be done, send what `data_to_send` returns. Where
someone must decide, it hands out an event and reads no further until `answer`; so pipelining (RFC 2920) needs no code
of its own, and replies stand in the order of the commands. Only an accepting reply moves the state.
Notices (`Reset`, `Refused`, `ContentRefused`) want no answer.

What a verb does depends on the state alone, by the table at the end of this file:

    state       means                                    leaves by
    CONNECTED   the banner is not decided                banner
    FRESH       nobody has said hello                    HELO, EHLO
    READY       no transaction                           MAIL
    MAIL        a reverse-path, no recipient             RCPT, RSET, EHLO
    RCPT        one recipient or more                    DATA, BDAT, RSET, EHLO
    CONTENT     354 was said, the content arrives        its end
    CHUNK       the octets of a BDAT arrive              their end
    CHUNKED     a BDAT was taken that was not the last   BDAT, RSET, EHLO
    CLOSED      nothing more is read

The transaction is `envelope`: it exists or it does not, and a reset drops it.

BDAT (RFC 3030) is taken in every state, because the octets that follow must not become commands. Where it is refused
they are read and thrown away, and the transaction has failed: a client that pipelines has more chunks under way, and
a message must not come out with one of them missing. They get the same refusal, up to the one with LAST, RSET, EHLO
or a MAIL that is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
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
    UnknownCommand,
    Vrfy,
)
from gsmtp.protocol.extensions import ExtensionSet, ParameterError
from gsmtp.protocol.framing import ChunkReader, DotReader, LineFault, LineReader, parse_chunk
from gsmtp.protocol.options import Options
from gsmtp.reply import Reply


class State(Enum):
    """See the table above."""

    CONNECTED = "connected"
    FRESH = "fresh"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    CONTENT = "content"
    CHUNK = "chunk"
    CHUNKED = "chunked"
    CLOSED = "closed"


# Looking up a member on an Enum class costs ten times as much as a global (Python 3.11), several times a command.
_CONNECTED = State.CONNECTED
_FRESH = State.FRESH
_READY = State.READY
_MAIL = State.MAIL
_RCPT = State.RCPT
_CONTENT = State.CONTENT
_CHUNK = State.CHUNK
_CHUNKED = State.CHUNKED
_CLOSED = State.CLOSED


class ServerSession:
    """One SMTP session. `asks` names what must be decided outside: of connect, helo, ehlo, mail, rcpt, vrfy, command.

    `content` is always handed out. What is not in `asks` is answered here with the usual yes.
    `new_id` gives the id of an envelope. `quit` tells whether the client has said QUIT.
    """

    __slots__ = (
        "_after_chunk",
        "_asks",
        "_body",
        "_chunks",
        "_chunks_refused",
        "_errors",
        "_extensions",
        "_idle",
        "_lines",
        "_new_id",
        "_offer",
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
        self._chunks: ChunkReader | None = None
        self._chunks_refused: Reply | None = None
        self._after_chunk = _CHUNKED
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
            elif state is _CHUNK:
                if not self._read_chunk():
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

    def answer(self, event: Decision, reply: Reply | None = None, *, close: bool = False) -> Reply:
        """Decide `event`: None is the usual answer. `close`, or a code of 421, ends the session. Returns what was said.

        RuntimeError when it is not this event that waits.
        """
        pending = self._pending
        if pending is None or pending[0] is not event:
            raise RuntimeError(f"{event!r} does not wait for an answer")
        self._pending = None
        said = reply or pending[1]
        if said.code >= 500:
            self._errors += 1
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
            self._lose_place(self._lines.verb)
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._refuse("", replies.NOT_UTF8)
            self._lose_place(line[:4])
            return
        verb, _, argument = text.rstrip(" \t").partition(" ")
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
        self._chunks = self._chunks_refused = None
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
        # What stands after EHLO is not judged: clients say what they like there, and RFC 5321 4.1.4 forbids a
        # server to refuse mail for it.
        domain = argument.strip(" \t").partition(" ")[0]
        if not domain:
            self._refuse(verb, Reply(501, "5.5.4", f"Syntax: {verb} hostname"))
            return
        self._drop_envelope()
        extensions = self._extensions
        self._offer = offer = extensions.offer(self.session)
        esmtp = verb == "EHLO"
        if verb.lower() in self._asks:
            event = Helo(domain, esmtp, list(offer.lines) if esmtp else [])
            self._ask(verb.lower(), event, extensions.helo, self._helo_decided)
        else:
            self._greet(domain, esmtp, offer.ehlo if esmtp else extensions.helo)

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
        self.state = _READY

    # A transaction

    def _mail(self, verb: str, argument: str) -> None:
        options = self._options
        if argument[:5].upper() != "FROM:":
            self._refuse(verb, replies.MAIL_SYNTAX)
            return
        try:
            mailbox, rest = parse_path(argument[5:], null=True, lenient=options.lenient_addresses)
            parameters = self._offer.mail_parameters(rest) if rest else {}
        except AddressError as error:
            self._refuse(verb, Reply(501, "5.1.7", f"Bad sender address: {error}"))
            return
        except ParameterError as error:
            self._refuse(verb, error.reply)
            return
        if not argument.isascii() and "SMTPUTF8" not in parameters:
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
            self._chunks = self._chunks_refused = None
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
            parameters = self._offer.rcpt_parameters(rest) if rest else {}
        except AddressError as error:
            self._refuse(verb, Reply(501, "5.1.3", f"Bad recipient address: {error}"))
            return
        except ParameterError as error:
            self._refuse(verb, error.reply)
            return
        if not argument.isascii() and "SMTPUTF8" not in envelope.parameters:
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
        envelope = self.envelope
        assert envelope is not None
        if envelope.parameters.get("BODY") == "BINARYMIME":
            self._refuse(verb, replies.BINARY_NEEDS_BDAT)
            return
        options = self._options
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

    def _content_decided(self, event: Content | None, reply: Reply) -> None:
        self._say(reply)
        self.envelope = None
        self.state = _READY
        if reply.accepted:
            self._errors = self._idle = 0

    # The same by BDAT

    def _lose_place(self, verb: bytes) -> None:
        """After a refusal: end the session when the line was a BDAT. How many octets follow it is not known, and none
        of them may become a command."""
        if verb.upper() == b"BDAT" and self.state is not _CLOSED:
            self._say(replies.BDAT_LOST)
            self.state = _CLOSED

    def _bdat(self, verb: str, argument: str) -> None:
        chunk = parse_chunk(argument)
        if chunk is None:
            self._refuse(verb, replies.BDAT_SYNTAX)
            self._lose_place(b"BDAT")
            return
        size, last, sound = chunk
        # An empty chunk costs the client nothing, so it counts as a command that brings no mail.
        if not size and not last and self._idles(verb):
            return
        options = self._options
        chunks = self._chunks
        if chunks is None:
            # RFC 3030 2 wants CRLF alone in text that comes by BDAT, and what is refused after DATA would only come
            # this way: so allow_bare_newlines holds here too, but for content that was declared binary.
            newlines, max_line = options.allow_bare_newlines, options.max_content_line_length
            if self.envelope is not None and self.envelope.parameters.get("BODY") == "BINARYMIME":
                newlines, max_line = "accept", 0
            chunks = self._chunks = ChunkReader(newlines, options.max_message_size, max_line)
        chunks.begin(size, last)
        self._after_chunk = _FRESH if self.state is _FRESH else _READY
        if self._chunks_refused is None:
            refusal = self._bdat_refusal(sound)
            if refusal is None and chunks.fault is not None:
                refusal = replies.CONTENT_FAULTS[chunks.fault]
            if refusal is None:
                self._after_chunk = _CHUNKED
            else:
                self._refuse_chunks(refusal)
        self.state = _CHUNK

    def _bdat_refusal(self, sound: bool) -> Reply | None:
        refusal = _NO_BDAT.get(self.state)
        if refusal is None and "CHUNKING" not in self._offer.keywords:
            refusal = replies.NO_CHUNKING
        return refusal or (None if sound else replies.BDAT_SYNTAX)

    def _refuse_chunks(self, reply: Reply) -> None:
        """The transaction has failed; `reply` is said at the end of this chunk, and of those that follow it."""
        envelope = self.envelope
        self._errors += 1
        self._chunks_refused = reply
        if envelope is not None and envelope.recipients:
            self._queue.append(ContentRefused(envelope, reply))
        else:
            self._queue.append(Refused("BDAT", reply))
            if envelope is not None:
                self._queue.append(Reset(envelope))
        self.envelope = None

    def _read_chunk(self) -> bool:
        """Read what has come of a chunk; whether there was something to do."""
        chunks = self._chunks
        assert chunks is not None
        data = self._lines.take_some(chunks.left)
        if not data and chunks.left:
            return False
        content = chunks.read(data)
        if chunks.fault is not None and self._chunks_refused is None:
            self._refuse_chunks(replies.CONTENT_FAULTS[chunks.fault])
            self._after_chunk = _READY
        refused, envelope = self._chunks_refused, self.envelope
        if refused is None and content and not (chunks.last and not chunks.left):
            assert envelope is not None
            self._queue.append(Content(envelope, content, False))
        if chunks.left:
            return bool(self._queue)
        self.state = self._after_chunk
        if chunks.last:
            self._chunks = self._chunks_refused = None
        if refused is not None:
            self._say(refused)
        elif chunks.last:
            assert envelope is not None
            event = Content(envelope, content, True)
            self._pending = (event, replies.ACCEPTED, self._content_decided)
            self._queue.append(event)
        else:
            self._say(Reply(250, "2.0.0", f"{chunks.length} octets received"))
        return True

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
        if verb.startswith("BDAT\t"):
            self._bdat("BDAT", "")
        elif "command" in self._asks:
            self._ask("command", UnknownCommand(verb, argument), replies.UNKNOWN, self._decided)
        else:
            self._refuse(verb, replies.UNKNOWN)

    def _decided(self, event: Decision, reply: Reply) -> None:
        self._say(reply)


_Action = Callable[[ServerSession, str, str], None] | Reply

_ALWAYS: dict[str, _Action] = {
    "HELO": ServerSession._helo,
    "EHLO": ServerSession._helo,
    "RSET": ServerSession._rset,
    "NOOP": ServerSession._noop,
    "HELP": ServerSession._help,
    "VRFY": ServerSession._vrfy,
    "EXPN": ServerSession._vrfy,
    "QUIT": ServerSession._quit,
    "BDAT": ServerSession._bdat,
}
_ACTIONS: dict[State, dict[str, _Action]] = {
    _FRESH: {**_ALWAYS, "MAIL": replies.HELLO_FIRST, "RCPT": replies.HELLO_FIRST, "DATA": replies.HELLO_FIRST},
    _READY: {**_ALWAYS, "MAIL": ServerSession._mail, "RCPT": replies.MAIL_FIRST, "DATA": replies.MAIL_FIRST},
    _MAIL: {**_ALWAYS, "MAIL": replies.NESTED_MAIL, "RCPT": ServerSession._rcpt, "DATA": replies.NO_RECIPIENTS},
    _RCPT: {**_ALWAYS, "MAIL": replies.NESTED_MAIL, "RCPT": ServerSession._rcpt, "DATA": ServerSession._data},
    _CHUNKED: {**_ALWAYS, **dict.fromkeys(("MAIL", "RCPT", "DATA"), replies.CHUNKS_BEGUN)},
}
_NO_BDAT = {_FRESH: replies.HELLO_FIRST, _READY: replies.MAIL_FIRST, _MAIL: replies.BDAT_NO_RECIPIENTS}
