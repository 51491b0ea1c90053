"""AUTH (RFC 4954): from the verb to 235, a refusal or the client's "*".

A mechanism is a generator of `gsmtp.protocol.sasl`. Here its challenges become replies of 334, the client's lines its
responses, its questions events, and its end a reply. Nothing of a response is ever logged or said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gsmtp.protocol import sasl
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.framing import LineFault
from gsmtp.protocol.server import replies
from gsmtp.protocol.server.events import Authenticated, AuthFailed, AuthQuestion, Outcome
from gsmtp.protocol.server.greeting import authorize
from gsmtp.protocol.server.options import Options
from gsmtp.protocol.server.transitions import CHALLENGED, CLOSING, move
from gsmtp.reply import Reply

if TYPE_CHECKING:
    from gsmtp.protocol.server.session import ServerSession

Step = sasl.Challenge | sasl.Question | sasl.Success | sasl.Failure


def mechanisms(options: Options, session: Session) -> tuple[str, ...]:
    """Return the mechanisms that this client may use now, strongest first."""
    if options.auth == "never":
        return ()
    tls = session.tls
    return sasl.offered(
        options.auth_hooks,
        tls=tls is not None,
        channel_binding=tls is not None and bool(tls.channel_bindings),
        client_certificate=tls is not None and bool(tls.peer),
        without_tls=options.auth_without_tls,
    )


class Authentication:
    """One exchange. `mechanism` is its name; `answer` and `respond` bring it on and return its next step."""

    __slots__ = ("_exchange", "_refused", "mechanism")

    def __init__(self, mechanism: str, options: Options, session: Session, initial: bytes | None) -> None:
        self.mechanism = mechanism
        bindings: Mapping[str, bytes] = session.tls.channel_bindings if session.tls is not None else {}
        context = sasl.ServerContext(
            hostname=options.hostname,
            secret=options.auth_secret,
            offered=mechanisms(options, session),
            channel_bindings=bindings,
            iterations=options.scram_iterations,
            stored_keys=options.scram_stored_keys,
        )
        self._exchange = sasl.MECHANISMS[mechanism].server(context, initial)
        self._refused = False

    def answer(self, value: object = None) -> Step:
        """Begin (None), or go on with the handler's answer or the client's octets.

        Raises TypeError when the value is not of the kind that the mechanism has asked for.
        """
        step = sasl.advance(self._exchange, value)
        if isinstance(step, sasl.Challenge):
            self._refused = step.refused
        return step

    def respond(self, line: str) -> Step:
        """Go on with a line of the client: base64, or "*" to give up (RFC 4954 4)."""
        if line == "*":
            failure = sasl.Failure(replies.AUTH_CANCELLED, "cancelled by the client")
        else:
            try:
                return self.answer(sasl.decode(line))
            except ValueError:
                failure = sasl.Failure(sasl.MALFORMED, "not base64")
        self._exchange.close()
        # A client that was refused and then cancels has made an attempt all the same.
        return sasl.Failure(sasl.BAD_CREDENTIALS, failure.why) if self._refused else failure

    def close(self) -> None:
        """Give the exchange up."""
        self._exchange.close()


def auth(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """AUTH: begin an exchange."""
    options, session = smtp.options, smtp.session
    if options.auth == "never" or "AUTH" in options.hide:
        return smtp.unknown(verb, argument)
    name, _, initial = argument.partition(" ")
    # Beyond ASCII there are letters whose upper case is S or I.
    mechanism = sasl.MECHANISMS.get(name.upper()) if name.isascii() else None
    offered = mechanisms(options, session)
    if session.user is not None:
        return replies.AUTHENTICATED_ALREADY
    if not session.esmtp:
        return replies.HELLO_FIRST
    if not name:
        return replies.AUTH_SYNTAX
    if mechanism is None or mechanism.name not in offered:
        in_clear = session.tls is None and mechanism is not None and not offered and options.auth_hooks
        return replies.AUTH_NEEDS_TLS if in_clear else replies.NO_SUCH_MECHANISM
    try:
        first = sasl.decode_initial(initial.strip(" ")) if initial else None
    except ValueError:
        return sasl.MALFORMED
    smtp.auth = exchange = Authentication(mechanism.name, options, session, first)
    _take_step(smtp, exchange, exchange.answer())
    return None


def read_response(smtp: ServerSession) -> bool:
    """Read a line of the exchange; return whether one has come."""
    line = smtp.lines.line()
    if line is None:
        return False
    exchange = smtp.auth
    assert exchange is not None
    step: Step
    if isinstance(line, LineFault):
        exchange.close()
        step = sasl.Failure(replies.AUTH_LINE_FAULTS[line], line.value)
    else:
        step = exchange.respond(line.decode("ascii", "replace").rstrip(" \t"))
    _take_step(smtp, exchange, step)
    return True


def answer_question(smtp: ServerSession, exchange: Authentication, value: object, refusal: Reply | None) -> None:
    """Go on with the handler's answer. Raises TypeError as `Authentication.answer` does; the question waits on then."""
    if refusal is None:
        step = exchange.answer(value)
        smtp.pending = None
        _take_step(smtp, exchange, step)
    else:
        smtp.pending = None
        exchange.close()
        _fail(smtp, exchange, refusal, "refused by the handler")


def _take_step(smtp: ServerSession, exchange: Authentication, step: Step) -> None:
    if isinstance(step, sasl.Challenge):
        smtp.say(Reply(334, "", sasl.encode(step.data)))
        move(smtp, CHALLENGED)
        # RFC 4954 4: a line of the exchange may be that long, whatever commands may.
        smtp.lines.limit = max(smtp.options.max_line_length, sasl.MAX_LINE + 2)
    elif isinstance(step, sasl.Success):
        _leave(smtp)
        smtp.session.user = step.user
        smtp.say(replies.AUTHENTICATED)
        smtp.queue.append(Authenticated(step.user, exchange.mechanism))
        authorize(smtp)
    elif isinstance(step, sasl.Failure):
        _fail(smtp, exchange, step.reply, step.why)
    else:
        smtp.ask((AuthQuestion(step, exchange.mechanism), replies.OK, _not_a_reply))


def _not_a_reply(smtp: ServerSession, event: AuthQuestion, reply: Reply) -> None:
    raise RuntimeError("an AuthQuestion is answered by answer_question")


def _leave(smtp: ServerSession) -> None:
    smtp.auth = None
    smtp.lines.limit = smtp.options.max_line_length


def _fail(smtp: ServerSession, exchange: Authentication, reply: Reply, why: str) -> None:
    _leave(smtp)
    smtp.auth_failures += 1
    smtp.errors += reply.code >= 500
    if reply.code != 421 and 0 < smtp.options.max_auth_failures <= smtp.auth_failures:
        reply = replies.TOO_MANY_AUTH_FAILURES
    smtp.queue.append(AuthFailed(exchange.mechanism, why, reply))
    smtp.say(reply)
    if reply.code == 421:
        move(smtp, CLOSING)
    else:
        authorize(smtp)
