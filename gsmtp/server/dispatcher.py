"""Between the protocol and the handler: each event that wants a decision calls its hook and is answered.

It knows nothing of sockets and deadlines: the `Line`, which is the connection, runs the hooks under their deadline and
brings more octets. The content goes to a spool for `on_message`, or is drawn from the line by `on_data`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import Any, NoReturn, Protocol, cast

from gsmtp.net.errors import ConnectionLost
from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.protocol.server import events, replies
from gsmtp.protocol.server.session import VERBS, ServerSession
from gsmtp.reply import Reply
from gsmtp.server.auth import ask
from gsmtp.server.hooks import Check
from gsmtp.server.limits import TOO_MANY_FAILURES, ClientLimits
from gsmtp.server.listener import ListenerContext
from gsmtp.server.message import SpooledMessage
from gsmtp.server.spool import Spool
from gsmtp.server.stream import ContentStream

Hook = Callable[..., Any]
Answer = Reply | str | None

# RFC 5321 4.1.1.1: ehlo-line = ehlo-keyword *( SP ehlo-param )
_EHLO_LINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?: [\x21-\x7e]+)*")
_GIVEN_UP = Reply(554, "5.5.1", "The client gave the message up")
_SOME_REFUSED = Reply(451, "4.3.0", "Some recipients were refused, try again")


class Line(Protocol):
    """What the connection does for its dialogue."""

    def run_hook(self, hook: Hook, timeout: float, *arguments: Any, **named: Any) -> tuple[Answer, bool]:
        """What the hook says, and whether to end the session; `named` is for Hooks.call."""

    def tell(self, hook: Hook, *arguments: Any) -> None:
        """Call a hook whose word decides nothing, under its deadline; a failure is logged."""

    def flush(self) -> None:
        """Send what is to be sent. Raises ConnectionLost."""

    def fill(self) -> None:
        """Send what is to be sent, and give the protocol more octets. Raises ConnectionLost."""

    def run_check(self, hook: Hook, timeout: float, *arguments: Any, secret: str = "") -> Check:
        """What a check_ or get_ hook says (see Hooks.check)."""

    def pause(self, seconds: float) -> None:
        """Wait, before what was said is sent."""

    def client_changed(self) -> None:
        """The session's peer is another now: judge that. Raises SessionEnded when it is refused."""

    def start_tls(self) -> None:
        """Send what is to be sent, do the handshake, and tell the protocol. Raises ConnectionLost."""


class _NoLine:
    """A stream that a handler has kept can still be asked."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ConnectionLost("the session has ended")


_NO_LINE = _NoLine()


class Dispatcher:
    """One session's. `protocol` is the state machine, `messages` counts those accepted, `limits` are its client's."""

    __slots__ = (
        "_arrived", "_auth_refused", "_line", "_spool", "_spool_error", "_terms",
        "limits", "messages", "protocol", "session",
    )  # fmt: skip

    def __init__(self, line: Line, terms: ListenerContext, session: Session) -> None:
        self._line = line
        self._terms = terms
        self.session = session
        self.protocol = ServerSession(terms.options, terms.extensions, session, terms.new_id, terms.asks)
        self.messages = 0
        self._auth_refused = False
        self._spool: Spool | None = None
        self._spool_error: OSError | None = None
        self._arrived = 0.0
        self.limits: ClientLimits | None = None

    def react(self, event: events.Event) -> None:
        """Do what `event` asks for."""
        _REACTIONS[event.__class__](self, event)

    def end(self, reason: str) -> None:
        """The session is over: free what is held and tell the handler."""
        self._drop_spool()
        hooks = self._terms.hooks
        if hooks.on_reset is not None and self.protocol.envelope is not None:
            self._line.tell(hooks.on_reset, self.protocol.envelope)
        if hooks.on_disconnect is not None:
            self._line.tell(hooks.on_disconnect, self.session, reason)
        # The two refer to each other: thus they are freed at once, and not by the garbage collector some time.
        self._line = cast(Line, _NO_LINE)

    # Commands

    def _decide(
        self, event: events.Decision, hook: Hook | None, code: tuple[int, str], *arguments: Any, **named: Any
    ) -> Reply:
        """Ask the hook and answer; a text becomes a reply with `code`. Returns what was said."""
        if hook is None:  # only the limits had to be asked
            return self.protocol.answer(event)
        said, close = self._ask(hook, code, *arguments, **named)
        return self.protocol.answer(event, said, close=close)

    def _ask(self, hook: Hook, code: tuple[int, str], *arguments: Any, **named: Any) -> tuple[Reply | None, bool]:
        """The hook's refusal, or None for yes, a text as a reply with `code`; whether the session is to end."""
        said, close = self._line.run_hook(hook, self._terms.timeouts.hook_timeout, *arguments, **named)
        return (Reply(*code, said) if isinstance(said, str) else said), close

    def _heeding_result(self, said: Reply | None, envelope: Envelope, recipient: Recipient) -> Reply | None:
        """A recipient that on_rcpt has rejected or deferred is not accepted, whatever it said."""
        result = recipient.result
        if result is None or (said is not None and not said.accepted):
            return said
        if isinstance(result, Reply):
            return result
        error = TypeError(f"on_rcpt left what is no reply as the recipient's result: {result!r:.200}")
        return self._terms.hooks.failure("on_rcpt", self.session.id, error, envelope, recipient)

    def _connected(self, event: events.Connected) -> None:
        hook = self._terms.hooks.on_connect
        assert hook is not None
        said, close = self._line.run_hook(hook, self._terms.timeouts.hook_timeout, self.session)
        if isinstance(said, str):
            said = Reply(220, "", f"{self._terms.options.hostname} {said}")
        reply = self.protocol.answer(event, said, close=close)
        if not reply.accepted:
            self._log_refusal("connect", reply)

    def _helo(self, event: events.Helo) -> None:
        hooks = self._terms.hooks
        if event.esmtp:
            assert hooks.on_ehlo is not None
            said, close = self._line.run_hook(
                hooks.on_ehlo, self._terms.timeouts.hook_timeout, self.session, event.domain, event.extensions
            )
            left: list[Any] = event.extensions  # the hook may have put anything there
            if not all(isinstance(each, str) and _EHLO_LINE.fullmatch(each) for each in left):
                error = TypeError(f"on_ehlo left what are no extensions: {left!r:.200}")
                said = hooks.failure("on_ehlo", self.session.id, error, self.session)
            elif isinstance(said, str):
                said = Reply(250, "", said)
            reply = self.protocol.answer(event, said, close=close)
        else:
            reply = self._decide(event, hooks.on_helo, (250, ""), self.session, event.domain)
        if not reply.accepted:
            self._log_refusal("EHLO" if event.esmtp else "HELO", reply, domain=event.domain)

    def _mail(self, event: events.Mail) -> None:
        refusal = self.limits.message() if self.limits is not None else None
        if refusal is not None:
            reply = self.protocol.answer(event, refusal)
        else:
            reply = self._decide(event, self._terms.hooks.on_mail, (250, "2.1.0"), event.envelope)
        if not reply.accepted:
            self._log_refusal("MAIL", reply, **{"from": _path(event.envelope.sender)})
            self._reset(event.envelope)

    def _rcpt(self, event: events.Rcpt) -> None:
        envelope, recipient = event.envelope, event.recipient
        hook = self._terms.hooks.on_rcpt
        said, close = (self.limits.recipient() if self.limits is not None else None), False
        if said is None and hook is not None:
            said, close = self._ask(hook, (250, "2.1.5"), envelope, recipient)
            said = self._heeding_result(said, envelope, recipient)
        reply = self.protocol.answer(event, said, close=close)
        if not reply.accepted:
            who = {"from": _path(envelope.sender), "to": _path(recipient.address)}
            self._log_refusal("RCPT", reply, message=envelope.id, **who)

    def _vrfy(self, event: events.Vrfy) -> None:
        self._decide(event, self._terms.hooks.on_vrfy, (250, "2.0.0"), self.session, event.verb, event.argument)

    def _command(self, event: events.UnknownCommand) -> None:
        hook = self._terms.hooks.on_command
        # What is no verb may be a password in base64, from a client that goes on with an AUTH that was refused.
        secret = event.verb if self._auth_refused and len(event.verb) > 3 else ""
        self._decide(event, hook, (250, "2.0.0"), self.session, event.verb, event.argument, secret=secret)

    def _starttls(self, event: events.StartTls) -> None:
        self.protocol.answer(event)
        self._line.start_tls()

    def tls_started(self) -> Reply | None:
        """Ask on_tls; a refusal ends the session."""
        hook = self._terms.hooks.on_tls
        if hook is None:
            return None
        said, _ = self._line.run_hook(hook, self._terms.timeouts.hook_timeout, self.session)
        if not isinstance(said, Reply):
            return None
        self._log_refusal("TLS", said)
        return said

    # AUTH

    def _auth_question(self, event: events.AuthQuestion) -> None:
        hooks, timeout, session = self._terms.hooks, self._terms.timeouts.hook_timeout, self.session
        question = event.question
        refusal = self.limits.auth() if self.limits is not None else None
        if refusal is not None:
            self.protocol.answer_question(event, None, refusal)
            return
        name, check = ask(question, hooks, self._line.run_check, timeout, session)
        trouble: Exception | None = None
        try:
            self.protocol.answer_question(event, check.value, check.refusal)
        except Exception as error:
            # Anything but what was asked for lets nobody in: a coroutine, say, would be true.
            trouble = error
        if trouble is not None:
            reply = hooks.failure(name, session.id, trouble, session, withhold=not isinstance(trouble, TypeError))
            self.protocol.answer_question(event, None, reply)
        if check.close:
            self.protocol.shut_down(None)

    def _authenticated(self, event: events.Authenticated) -> None:
        self._terms.log.event("auth", session=self.session.id, user=event.user, mechanism=event.mechanism)

    def _auth_failed(self, event: events.AuthFailed) -> None:
        self._auth_refused = True
        self._log_refusal("AUTH", event.reply, mechanism=event.mechanism, why=event.why)
        # Who was over the limit has not tried again: else it would hold for as long as a phone asks.
        if self.limits is not None and event.reply is not TOO_MANY_FAILURES:
            over = self.limits.auth_failed()
            if over is not None:
                self.protocol.shut_down(over)
        if self._terms.timeouts.auth_failure_delay:
            self._line.pause(self._terms.timeouts.auth_failure_delay)

    def _client_changed(self, event: events.ClientChanged) -> None:
        self._line.client_changed()

    def _refused(self, event: events.Refused) -> None:
        if event.verb == "AUTH":
            self._auth_refused = True
        # What is no verb may be a password, see _command.
        self._log_refusal(event.verb if event.verb in VERBS else "command", event.reply)

    def _log_refusal(self, what: str, reply: Reply, **fields: Any) -> None:
        self._terms.log.event("refused", session=self.session.id, what=what, reply=str(reply), **fields)

    def _reset(self, envelope: Envelope) -> None:
        hooks = self._terms.hooks
        if hooks.on_reset is not None:
            self._line.run_hook(hooks.on_reset, self._terms.timeouts.hook_timeout, envelope)

    def _dropped(self, event: events.Reset) -> None:
        # Chunks may have come before it.
        self._drop_spool()
        self._arrived = 0.0
        self._reset(event.envelope)

    # Content

    def _content(self, event: events.Content) -> None:
        if self._arrived == 0.0:
            self._arrived = monotonic()
        if self._terms.hooks.on_data is not None:
            self._stream(self._terms.hooks.on_data, event)
            return
        spool = self._spool
        if spool is None:
            spool = self._spool = Spool(self._terms.spool.spool_directory or None, self._terms.spool.spool_memory)
        if self._spool_error is None:
            try:
                spool.write(event.data)
                if event.last:
                    spool.finish()
            except OSError as error:
                # The rest is read and thrown away: a full disk must not turn a body into commands.
                self._spool_error = error
                spool.close()
        if event.last:
            self._message(event, spool)

    def _message(self, event: events.Content, spool: Spool) -> None:
        terms, envelope = self._terms, event.envelope
        answer: Answer
        if self._spool_error is not None:
            answer, close = terms.hooks.failure("spool", self.session.id, self._spool_error), False
            self._reset(envelope)
        else:
            assert terms.hooks.on_message is not None
            message = SpooledMessage(envelope, spool, terms.options.hostname)
            answer, close = self._commit(terms.hooks.on_message, envelope, message)
        size = spool.size
        self._drop_spool()
        self._answer_content(event, answer, close, size)

    def _stream(self, hook: Hook, event: events.Content) -> None:
        stream = ContentStream(self, event)
        answer, close = self._commit(hook, event.envelope, stream)
        last = stream.drain()
        if last is not None:
            self._answer_content(last, answer, close, stream.size)

    def _commit(self, hook: Hook, envelope: Envelope, content: Any) -> tuple[Answer, bool]:
        # A client that sent several messages in one packet must not wait for the last to hear of the first; the reply
        # to DATA may not be held back in any case (RFC 2920 3.2). Nothing is there to send when it waited for that.
        if self.protocol.unsent:
            self._line.flush()
        counters = self._terms.counters
        counters.committing += 1
        try:
            answer, close = self._line.run_hook(hook, self._terms.timeouts.message_timeout, envelope, content)
        finally:
            counters.committing -= 1
        return answer, close

    def _answer_content(self, event: events.Content, answer: Answer, close: bool, size: int) -> None:
        terms, recipients = self._terms, event.envelope.recipients
        if isinstance(answer, str):
            answer = Reply(250, "2.0.0", answer)
        each: list[Reply] = []
        if answer is None or answer.accepted:
            common = _common_result(recipients)
            if terms.options.lmtp:
                each = [recipient.result or answer or replies.ACCEPTED for recipient in recipients]
                close = close or any(one.code == 421 for one in each)
                # For one recipient accepted is accepted.
                common = None if any(one.accepted for one in each) else common
            answer = common or answer
        reply = self.protocol.answer(event, answer, close=close, each=each)
        if reply.accepted:
            self.messages += 1
            terms.counters.messages += 1
            terms.counters.octets += size
        self._log_message(event.envelope, reply, size)

    def _content_refused(self, event: events.ContentRefused) -> None:
        self._drop_spool()
        self._log_message(event.envelope, event.reply, 0)
        self._reset(event.envelope)

    def _log_message(self, envelope: Envelope, reply: Reply, size: int) -> None:
        terms = self._terms
        terms.counters.refused += not reply.accepted
        arrived, self._arrived = self._arrived, 0.0
        if terms.log.enabled:
            terms.log.message(self.session.id, envelope, reply, size, monotonic() - arrived if arrived else 0.0)

    def _drop_spool(self) -> None:
        spool, self._spool, self._spool_error = self._spool, None, None
        if spool is not None:
            spool.close()

    def next_content(self, envelope: Envelope) -> events.Content | events.ContentRefused:
        """For the stream: what comes next of the content. Between chunks it may be commands: those are seen to."""
        while True:
            event = self.protocol.next_event()
            if isinstance(event, events.Content):
                return event
            if event is events.NEED_DATA:
                self._line.fill()
            elif event is events.CLOSED:
                return events.ContentRefused(envelope, _GIVEN_UP)
            else:
                self.react(event)
                if isinstance(event, events.ContentRefused):
                    return event
                if isinstance(event, events.Reset):
                    return events.ContentRefused(envelope, _GIVEN_UP)


def _path(address: str) -> str:
    return f"<{address}>"


def _common_result(recipients: list[Recipient]) -> Reply | None:
    """SMTP has one reply for all recipients: none refused, all refused, or the `mixed_results` setting's tempfail."""
    refusals = [recipient.result for recipient in recipients if recipient.result is not None]
    if not refusals:
        return None
    if len(refusals) < len(recipients):
        return _SOME_REFUSED
    return next((reply for reply in refusals if reply.code < 500), refusals[0])


_REACTIONS: dict[type, Callable[[Dispatcher, Any], None]] = {
    events.Connected: Dispatcher._connected,
    events.Helo: Dispatcher._helo,
    events.Mail: Dispatcher._mail,
    events.Rcpt: Dispatcher._rcpt,
    events.Vrfy: Dispatcher._vrfy,
    events.UnknownCommand: Dispatcher._command,
    events.StartTls: Dispatcher._starttls,
    events.ClientChanged: Dispatcher._client_changed,
    events.AuthQuestion: Dispatcher._auth_question,
    events.Authenticated: Dispatcher._authenticated,
    events.AuthFailed: Dispatcher._auth_failed,
    events.Refused: Dispatcher._refused,
    events.Reset: Dispatcher._dropped,
    events.Content: Dispatcher._content,
    events.ContentRefused: Dispatcher._content_refused,
}
