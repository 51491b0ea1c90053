"""AUTH (RFC 4954): from the verb to 235, a refusal or the client's "*".

A mechanism is a generator of `gsmtp.protocol.sasl`; here its challenges become 334, the client's lines its responses,
its questions events, and its end a reply. Nothing of a response is ever logged or said.
"""

from __future__ import annotations

from collections.abc import Mapping

from gsmtp.protocol import sasl
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.server import replies
from gsmtp.protocol.server.options import Options


def mechanisms(options: Options, session: Session) -> tuple[str, ...]:
    """The mechanisms that this client may use now, strongest first."""
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
    """One exchange. `mechanism` is its name; `respond` and `answer` bring it on and return what comes next."""

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

    def answer(self, value: object = None) -> sasl.Challenge | sasl.Question | sasl.Success | sasl.Failure:
        """Begin (None), or go on with the handler's answer or the client's octets."""
        step = sasl.advance(self._exchange, value)
        if isinstance(step, sasl.Challenge):
            self._refused = step.refused
        return step

    def respond(self, line: str) -> sasl.Challenge | sasl.Question | sasl.Success | sasl.Failure:
        """Go on with a line of the client: base64, or "*" to give up (RFC 4954 4)."""
        if line == "*":
            failure = sasl.Failure(replies.AUTH_CANCELLED, "cancelled by the client")
        else:
            try:
                return self.answer(sasl.decode(line))
            except ValueError:
                failure = sasl.Failure(sasl.MALFORMED, "not base64")
        self._exchange.close()
        # Whoever was refused and then cancels has tried all the same.
        return sasl.Failure(sasl.BAD_CREDENTIALS, failure.why) if self._refused else failure

    def close(self) -> None:
        """Give it up."""
        self._exchange.close()
