"""The server's side of an SMTP session (RFC 5321 4.1.4), without I/O and without a clock.

Give it octets with `receive`, ask it with `next_event` what is to be done, send what `data_to_send` returns. Where
someone must decide, it hands out an event and reads no further until `answer`; so pipelining (RFC 2920) needs no code
of its own, and replies stand in the order of the commands. Only an accepting reply moves the state.
Notices (`Reset`, `Refused`, `ContentRefused`) want no answer.

What a verb does depends on the state alone, by the table at the end of this file. The verbs themselves stand in
opening.py, transaction.py and chunking.py, each a class on top of the one before; engine.py is below them all.

    state       means                                    leaves by
    CONNECTED   the banner is not decided                banner
    FRESH       nobody has said hello                    HELO, EHLO, LHLO
    INSECURE    hello was said; TLS is required first    STARTTLS
    ANONYMOUS   hello was said; AUTH is required first   AUTH
    AUTH        a SASL exchange is under way             its end
    READY       no transaction                           MAIL
    MAIL        a reverse-path, no recipient             RCPT, RSET, EHLO
    RCPT        one recipient or more                    DATA, BDAT, RSET, EHLO
    CONTENT     354 was said, the content arrives        its end
    CHUNK       the octets of a BDAT arrive              their end
    CHUNKED     a BDAT was taken that was not the last   BDAT, RSET, EHLO
    CLOSED      nothing more is read

The transaction is `envelope`: it exists or it does not, and a reset drops it.
"""

from __future__ import annotations

from collections.abc import Callable

from gsmtp.protocol import xclient
from gsmtp.protocol.framing import LineFault
from gsmtp.protocol.server import replies, states
from gsmtp.protocol.server.chunking import Chunking
from gsmtp.protocol.server.events import CLOSED, NEED_DATA, Connected, Event, Vrfy
from gsmtp.protocol.server.states import State
from gsmtp.reply import Reply


class ServerSession(Chunking):
    """See above, and `Engine` for the arguments."""

    def next_event(self) -> Event:
        """What is to be done now. RuntimeError when the last decision was not answered."""
        queue = self._queue
        while not queue:
            if self._pending is not None:
                raise RuntimeError(f"{self._pending[0]!r} is not answered")
            actions = _ACTIONS.get(self.state)
            if actions is not None:
                lines = self._lines
                # Mostly one command has come and no more: that is seen without a call.
                line = lines.line() if lines.at < len(lines.buffer) else None
                if line is None:
                    return NEED_DATA
                self._command(line, actions)
            elif not self._go_on():
                return NEED_DATA
        return queue.pop(0)

    def _go_on(self) -> bool:
        """Do what is to be done in a state that takes no commands; False when more octets are needed for it."""
        state = self.state
        if state is states.CONTENT:
            return self._read_content()
        if state is states.CHUNK:
            return self._read_chunk()
        if state is states.CONNECTED:
            if "connect" in self._asks:
                self._ask(Connected(), self._extensions.banner, self._connected)
            else:
                self._connected(None, self._extensions.banner)
            return True
        if state is states.AUTH:
            line = self._lines.line()
            if line is not None:
                self._auth_response(line)
            return line is not None
        self._queue.append(CLOSED)
        return True

    def _command(self, line: bytes | LineFault, actions: dict[str, _Action]) -> None:
        if self._errors and 0 < self._options.max_errors <= self._errors:
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
        action = actions.get(verb)
        if action is None:
            # Beyond ASCII there are letters whose upper case is S or I.
            if verb.isascii():
                verb = verb.upper()
            action = actions.get(verb)
        if action is None:
            self._unknown(verb, argument)
        elif isinstance(action, Reply):
            self._refuse(verb, action)
        else:
            action(self, verb, argument)

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
        if "vrfy" in self._asks:
            self._ask(Vrfy(verb, argument), default, self._decided)
        else:
            self._say(default)

    def _quit(self, verb: str, argument: str) -> None:
        if argument:
            self._refuse(verb, replies.NO_ARGUMENT)
            return
        self._say(replies.BYE)
        self.quit = True
        self.state = states.CLOSED


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
    "BDAT": ServerSession._bdat,
    "XCLIENT": ServerSession._xclient,
    "XFORWARD": ServerSession._xforward,
}
VERBS = frozenset(("MAIL", "RCPT", "DATA", "AUTH", *_ALWAYS))
_NO_TRANSACTION = ("MAIL", "RCPT", "DATA", "VRFY", "EXPN", "AUTH")
_OPEN: dict[str, _Action] = {**_ALWAYS, "MAIL": replies.NESTED_MAIL, "AUTH": replies.NESTED_AUTH}
_OPEN.update(dict.fromkeys(("XCLIENT", "XFORWARD"), xclient.IN_TRANSACTION))
_ACTIONS: dict[State, dict[str, _Action]] = {
    states.FRESH: {**_ALWAYS, **dict.fromkeys(("MAIL", "RCPT", "DATA", "AUTH"), replies.HELLO_FIRST)},
    states.INSECURE: {**_ALWAYS, **dict.fromkeys(_NO_TRANSACTION, replies.TLS_REQUIRED)},
    states.ANONYMOUS: {
        **_ALWAYS,
        **dict.fromkeys(_NO_TRANSACTION, replies.AUTH_REQUIRED),
        "AUTH": ServerSession._auth_command,
    },
    states.READY: {
        **_ALWAYS,
        "AUTH": ServerSession._auth_command,
        "MAIL": ServerSession._mail,
        "RCPT": replies.MAIL_FIRST,
        "DATA": replies.MAIL_FIRST,
    },
    states.MAIL: {**_OPEN, "RCPT": ServerSession._rcpt, "DATA": ServerSession._data},
    states.RCPT: {**_OPEN, "RCPT": ServerSession._rcpt, "DATA": ServerSession._data},
    states.CHUNKED: {**_OPEN, **dict.fromkeys(("MAIL", "RCPT", "DATA", "STARTTLS"), replies.CHUNKS_BEGUN)},
}
