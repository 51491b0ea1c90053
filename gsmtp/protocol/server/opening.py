"""How a session opens: the banner, HELO and EHLO, STARTTLS (RFC 3207), AUTH (RFC 4954), XCLIENT and XFORWARD."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gsmtp.protocol import sasl, xclient
from gsmtp.protocol.extensions import Offer
from gsmtp.protocol.framing import LineFault
from gsmtp.protocol.server import authentication, replies, states
from gsmtp.protocol.server.authentication import Authentication
from gsmtp.protocol.server.engine import Engine
from gsmtp.protocol.server.events import (
    Authenticated,
    AuthFailed,
    AuthQuestion,
    ClientChanged,
    Connected,
    Helo,
    StartTls,
)
from gsmtp.reply import Reply

_NO_ATTRIBUTES = xclient.ClientAttributes()


class Opening(Engine):
    """Up to the state READY, and back to FRESH by STARTTLS."""

    _auth: Authentication | None = None
    _auth_failures = 0
    _clients: xclient.ClientAttributes | None = None
    _offer: Offer  # of the last HELO or EHLO

    def _connected(self, event: Connected | None, reply: Reply) -> None:
        self._say(reply)
        # RFC 5321 3.1 lets a refused client go on to QUIT; servers close at once, and clients are used to that.
        self.state = states.FRESH if reply.accepted else states.CLOSED

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
        self._offer = offer = extensions.offer(self.session)
        esmtp = verb != "HELO"
        asked = "ehlo" if esmtp else "helo"
        if asked in self._asks:
            event = Helo(domain, esmtp, list(offer.lines) if esmtp else [])
            self._ask(event, extensions.helo, self._helo_decided)
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
        self._authorize()

    def _authorize(self) -> None:
        """The state of a client that has said hello and has no transaction."""
        session, options = self.session, self._options
        if options.tls == "required" and session.tls is None:
            self.state = states.INSECURE
        elif options.auth == "required" and session.user is None:
            self.state = states.ANONYMOUS
        else:
            self.state = states.READY

    def _starttls(self, verb: str, argument: str) -> None:
        if self.session.tls is not None:
            self._refuse(verb, replies.TLS_ACTIVE)
        elif self._options.tls == "never" or "STARTTLS" in self._options.hide:
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
        self.session.forwarded = None
        # What XCLIENT said of addresses stays, as a PROXY header does: that it is believed is for the network it came
        # from. What it said in the client's name is forgotten with what the client said.
        if self._clients is not None:
            self._clients = replace(self._clients, helo=None, login=None, proto=None)
        self._auth = None
        if self.state is not states.CONNECTED:
            self.state = states.FRESH

    def _xclient(self, verb: str, argument: str) -> None:
        session = self.session
        if not session.trusted:
            self._refuse(verb, xclient.NOT_ALLOWED)
            return
        try:
            said = xclient.parse_xclient(argument)
        except xclient.XclientError as error:
            self._refuse(verb, error.reply)
            return
        self._clients = known = (self._clients or _NO_ATTRIBUTES).updated(said)
        if isinstance(known.address, str):
            session.peer = (known.address, known.port if isinstance(known.port, int) else 0)
        elif known.address is not None:
            session.peer = None
        if isinstance(known.destination_address, str):
            port = known.destination_port
            session.local = (known.destination_address, port if isinstance(port, int) else 0)
        session.user = known.login if isinstance(known.login, str) else None
        session.helo = known.helo if isinstance(known.helo, str) else ""
        session.esmtp = known.proto == "ESMTP"
        session.forwarded = None
        self._queue.append(ClientChanged())
        self.state = states.CONNECTED

    def _xforward(self, verb: str, argument: str) -> None:
        session = self.session
        if not session.trusted:
            self._refuse(verb, xclient.NOT_ALLOWED)
            return
        try:
            said = xclient.parse_xforward(argument)
        except xclient.XclientError as error:
            self._refuse(verb, error.reply)
            return
        session.forwarded = session.forwarded.updated(said) if session.forwarded is not None else said
        self._say(xclient.FORWARDED)

    def _auth_command(self, verb: str, argument: str) -> None:
        options, session = self._options, self.session
        if options.auth == "never" or "AUTH" in options.hide:
            self._unknown(verb, argument)
            return
        name, _, initial = argument.partition(" ")
        # Beyond ASCII there are letters whose upper case is S or I.
        mechanism = sasl.MECHANISMS.get(name.upper()) if name.isascii() else None
        offered = authentication.mechanisms(options, session)
        if session.user is not None:
            self._refuse(verb, replies.AUTHENTICATED_ALREADY)
        elif not session.esmtp:
            self._refuse(verb, replies.HELLO_FIRST)
        elif not name:
            self._refuse(verb, replies.AUTH_SYNTAX)
        elif mechanism is None or mechanism.name not in offered:
            in_clear = session.tls is None and mechanism is not None and not offered and self._options.auth_hooks
            self._refuse(verb, replies.AUTH_NEEDS_TLS if in_clear else replies.NO_SUCH_MECHANISM)
        else:
            try:
                first = sasl.decode_initial(initial.strip(" ")) if initial else None
            except ValueError:
                self._refuse(verb, sasl.MALFORMED)
                return
            self._auth = Authentication(mechanism.name, options, session, first)
            self._auth_step(self._auth.answer())

    def _auth_response(self, line: bytes | LineFault) -> None:
        assert self._auth is not None
        if isinstance(line, LineFault):
            self._auth.close()
            self._auth_step(sasl.Failure(replies.AUTH_LINE_FAULTS[line], line.value))
        else:
            self._auth_step(self._auth.respond(line.decode("ascii", "replace").rstrip(" \t")))

    def _auth_step(self, step: sasl.Challenge | sasl.Question | sasl.Success | sasl.Failure) -> None:
        auth = self._auth
        assert auth is not None
        if isinstance(step, sasl.Challenge):
            self._say(Reply(334, "", sasl.encode(step.data)))
            self.state = states.AUTH
            # RFC 4954 4: a line of the exchange may be that long, whatever commands may.
            self._lines.limit = max(self._options.max_line_length, sasl.MAX_LINE + 2)
        elif isinstance(step, sasl.Success):
            self._auth_over()
            self.session.user = step.user
            self._say(replies.AUTHENTICATED)
            self._queue.append(Authenticated(step.user, auth.mechanism))
            self._authorize()
        elif isinstance(step, sasl.Failure):
            self._auth_failed(step.reply, step.why)
        else:
            event = AuthQuestion(step, auth.mechanism)
            self._pending = (event, replies.OK, self._no_reply)
            self._queue.append(event)

    def _no_reply(self, event: AuthQuestion, reply: Reply) -> None:
        raise RuntimeError("an AuthQuestion is answered by answer_question")

    def answer_question(self, event: AuthQuestion, value: object, refusal: Reply | None = None) -> None:
        """What the handler says: `value` as the question wants it, or a refusal with a reply of its own.

        RuntimeError when it is not this question that waits. TypeError when the value is not of the kind asked for; it
        waits on, then, for a refusal.
        """
        pending = self._pending
        if pending is None or pending[0] is not event or self._auth is None:
            raise RuntimeError(f"{event!r} does not wait for an answer")
        if refusal is None:
            step = self._auth.answer(value)
            self._pending = None
            self._auth_step(step)
        else:
            self._pending = None
            self._auth.close()
            self._auth_failed(refusal, "refused by the handler")

    def _auth_over(self) -> str:
        """Leave the exchange; its mechanism."""
        assert self._auth is not None
        mechanism, self._auth = self._auth.mechanism, None
        self._lines.limit = self._options.max_line_length
        return mechanism

    def _auth_failed(self, reply: Reply, why: str) -> None:
        mechanism = self._auth_over()
        self._auth_failures += 1
        self._errors += reply.code >= 500
        if reply.code != 421 and 0 < self._options.max_auth_failures <= self._auth_failures:
            reply = replies.TOO_MANY_AUTH_FAILURES
        self._queue.append(AuthFailed(mechanism, why, reply))
        self._say(reply)
        if reply.code == 421:
            self.state = states.CLOSED
        else:
            self._authorize()
