"""Which verb does what in which state, and who reads octets where no commands are taken.

A new verb is a function in the file of its matter and a line in `COMMANDS`. `COMMANDS` has a function or a refusal for
each verb of a state; a verb without an entry is unknown there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gsmtp.protocol import xclient
from gsmtp.protocol.server import authentication, chunking, events, greeting, replies, states, transaction
from gsmtp.protocol.server.client_attributes import xclient_command, xforward_command
from gsmtp.protocol.server.events import Outcome
from gsmtp.protocol.server.greeting import say_decision
from gsmtp.protocol.server.states import State
from gsmtp.reply import Reply

if TYPE_CHECKING:
    from gsmtp.protocol.server.session import ServerSession

    Verb = Callable[[ServerSession, str, str], Outcome]
    Action = Verb | Reply


def noop(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """NOOP (RFC 5321 4.1.1.9)."""
    return replies.TOO_MANY_COMMANDS if smtp.idles() else replies.OK


def help_command(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """HELP (RFC 5321 4.1.1.8)."""
    return replies.TOO_MANY_COMMANDS if smtp.idles() else replies.HELP


def vrfy(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """VRFY and EXPN (RFC 5321 3.5)."""
    if smtp.idles():
        return replies.TOO_MANY_COMMANDS
    if not argument:
        return Reply(501, "5.5.4", f"Syntax: {verb} address")
    default = replies.CANNOT_VERIFY if verb == "VRFY" else replies.NO_EXPN
    if "vrfy" in smtp.asks:
        return events.Vrfy(verb, argument), default, say_decision
    # A verb that is not offered is no error of the client's.
    smtp.say(default)
    return None


def quit_command(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """QUIT (RFC 5321 4.1.1.10)."""
    if argument:
        return replies.NO_ARGUMENT
    smtp.quit = True
    smtp.shut_down(replies.BYE)
    return None


def read_nothing(smtp: ServerSession) -> bool:
    """Tell the driver to close the connection."""
    smtp.queue.append(events.CLOSED)
    return True


_ALWAYS: dict[str, Action] = {
    "HELO": greeting.helo,
    "LHLO": greeting.helo,
    "EHLO": greeting.helo,
    "RSET": transaction.rset,
    "NOOP": noop,
    "HELP": help_command,
    "VRFY": vrfy,
    "EXPN": vrfy,
    "QUIT": quit_command,
    "STARTTLS": greeting.starttls,
    "BDAT": chunking.bdat,
    "XCLIENT": xclient_command,
    "XFORWARD": xforward_command,
}
VERBS = frozenset(("MAIL", "RCPT", "DATA", "AUTH", *_ALWAYS))
_NO_TRANSACTION = ("MAIL", "RCPT", "DATA", "VRFY", "EXPN", "AUTH")
_OPEN: dict[str, Action] = {**_ALWAYS, "MAIL": replies.NESTED_MAIL, "AUTH": replies.NESTED_AUTH}
_OPEN.update(dict.fromkeys(("XCLIENT", "XFORWARD"), xclient.IN_TRANSACTION))

COMMANDS: dict[State, dict[str, Action]] = {
    # These take no commands, and have a reader below. An entry is found faster than it is missed.
    states.CONNECTED: {},
    states.AUTH: {},
    states.CONTENT: {},
    states.CHUNK: {},
    states.CLOSED: {},
    states.FRESH: {**_ALWAYS, **dict.fromkeys(("MAIL", "RCPT", "DATA", "AUTH"), replies.HELLO_FIRST)},
    states.INSECURE: {**_ALWAYS, **dict.fromkeys(_NO_TRANSACTION, replies.TLS_REQUIRED)},
    states.ANONYMOUS: {
        **_ALWAYS,
        **dict.fromkeys(_NO_TRANSACTION, replies.AUTH_REQUIRED),
        "AUTH": authentication.auth,
    },
    states.READY: {
        **_ALWAYS,
        "AUTH": authentication.auth,
        "MAIL": transaction.mail,
        "RCPT": replies.MAIL_FIRST,
        "DATA": replies.MAIL_FIRST,
    },
    states.MAIL: {**_OPEN, "RCPT": transaction.rcpt, "DATA": transaction.data},
    states.RCPT: {**_OPEN, "RCPT": transaction.rcpt, "DATA": transaction.data},
    states.CHUNKED: {**_OPEN, **dict.fromkeys(("MAIL", "RCPT", "DATA", "STARTTLS"), replies.CHUNKS_BEGUN)},
}

# Each returns whether there was something to do; False when it needs more octets.
READERS: dict[State, Callable[[ServerSession], bool]] = {
    states.CONNECTED: greeting.open_session,
    states.AUTH: authentication.read_response,
    states.CONTENT: transaction.read_content,
    states.CHUNK: chunking.read_chunk,
    states.CLOSED: read_nothing,
}
