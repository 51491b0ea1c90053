"""Between the protocol and the handler: asks the hook that an event is for, and answers the event.

What the connection has to do after an event is returned, as an `Action`; the dispatcher calls nothing above it. It
must not know sockets, TLS or time limits: its `runner` calls the hooks, each with a deadline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from time import monotonic
from typing import Any

from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.protocol.server import events, replies
from gsmtp.protocol.server.session import VERBS, ServerSession
from gsmtp.reply import Reply
from gsmtp.server.auth import hook_for
from gsmtp.server.content import MessageContent, SpooledContent, StreamedContent
from gsmtp.server.limits import TOO_MANY_FAILURES, ClientLimits
from gsmtp.server.listener import ListenerContext
from gsmtp.server.runner import Answer, CheckResult, Hook, HookRunner

# RFC 5321 4.1.1.1: ehlo-line = ehlo-keyword *( SP ehlo-param )
_EHLO_LINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?: [\x21-\x7e]+)*")
_GIVEN_UP = Reply(554, "5.5.1", "The client gave the message up")
_SOME_REFUSED = Reply(451, "4.3.0", "Some recipients were refused, try again")


class Action(Enum):
    """What the connection has to do after an event.

    FLUSH: send what is unsent, and dispatch the same event again. START_TLS: do the handshake. READMIT: the client has
    another address now; decide anew whether it is admitted. PAUSE: wait for `auth_failure_delay` before sending.
    """

    FLUSH = "flush"
    START_TLS = "start TLS"
    READMIT = "readmit"
    PAUSE = "pause"


class Dispatcher:
    """One session's. `messages` counts those accepted; `limits` are its client's.

    `REACTIONS[event.__class__](dispatcher, event)` dispatches an event, and returns an Action or None. Each reaction
    raises ConnectionLost when its hook was abandoned, and GreenletExit when the session was killed.
    """

    __slots__ = ("_auth_refused", "_content", "_context", "limits", "messages", "protocol", "runner", "session")

    def __init__(self, context: ListenerContext, session: Session, protocol: ServerSession, runner: HookRunner) -> None:
        self._context = context
        self.session = session
        self.protocol = protocol
        self.runner = runner
        self.messages = 0
        self._auth_refused = False
        self._content: MessageContent | None = None
        self.limits: ClientLimits | None = None

    def lose_content(self, reason: str) -> None:
        """The client is gone: whoever reads the content gets ConnectionLost. Raises it when that hook was abandoned."""
        content, self._content = self._content, None
        if content is not None:
            try:
                content.lose(reason)
            finally:
                content.close()

    def end(self, reason: str) -> None:
        """The session is over: free what is held, and call the hooks that are told of it. Raises GreenletExit."""
        content, self._content = self._content, None
        if content is not None:
            content.close()
        hooks, runner = self._context.hooks, self.runner
        if hooks.on_reset is not None and self.protocol.envelope is not None:
            runner.notify(hooks.on_reset, self.protocol.envelope)
        if hooks.on_disconnect is not None:
            runner.notify(hooks.on_disconnect, self.session, reason)

    # Commands

    def _decide(
        self, event: events.Decision, hook: Hook | None, code: tuple[int, str], *arguments: Any, secret: str = ""
    ) -> Reply:
        """Call the hook, and answer the event; a text becomes a reply with `code`. Return the reply that was said."""
        if hook is None:  # the event was for the limits only
            return self.protocol.answer(event)
        said, close = self.runner.run(hook, self._context.timeouts.hook_timeout, *arguments, secret=secret)
        return self.protocol.answer(event, Reply(*code, said) if isinstance(said, str) else said, close=close)

    def _with_result(self, said: Reply | None, envelope: Envelope, recipient: Recipient) -> Reply | None:
        """Return the reply for a recipient that on_rcpt has rejected or deferred and then, perhaps, accepted."""
        result: Any = recipient.result
        if said is not None and not said.accepted:
            return said
        if isinstance(result, Reply):
            return result
        error = TypeError(f"on_rcpt left what is no reply as the recipient's result: {result!r:.200}")
        return self._context.hooks.failure("on_rcpt", self.session.id, error, envelope, recipient)

    def _connected(self, event: events.Connected) -> None:
        hook = self._context.hooks.on_connect
        assert hook is not None
        said, close = self.runner.run(hook, self._context.timeouts.hook_timeout, self.session)
        if isinstance(said, str):
            said = Reply(220, "", f"{self._context.options.hostname} {said}")
        reply = self.protocol.answer(event, said, close=close)
        if not reply.accepted:
            self._log_refusal("connect", reply)

    def _helo(self, event: events.Helo) -> None:
        hooks = self._context.hooks
        if event.esmtp:
            assert hooks.on_ehlo is not None
            said, close = self.runner.run(
                hooks.on_ehlo, self._context.timeouts.hook_timeout, self.session, event.domain, event.extensions
            )
            lines: list[Any] = event.extensions  # the hook may have put anything there
            if not all(isinstance(each, str) and _EHLO_LINE.fullmatch(each) for each in lines):
                error = TypeError(f"on_ehlo left what are no extensions: {lines!r:.200}")
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
            reply = self._decide(event, self._context.hooks.on_mail, (250, "2.1.0"), event.envelope)
        if not reply.accepted:
            self._log_refusal("MAIL", reply, **{"from": _path(event.envelope.sender)})
            self._reset(event.envelope)

    def _rcpt(self, event: events.Rcpt) -> None:
        envelope, recipient = event.envelope, event.recipient
        hook = self._context.hooks.on_rcpt
        said, close = (self.limits.recipient() if self.limits is not None else None), False
        if said is None and hook is not None:
            answer, close = self.runner.run(hook, self._context.timeouts.hook_timeout, envelope, recipient)
            said = Reply(250, "2.1.5", answer) if isinstance(answer, str) else answer
            if recipient.result is not None:
                said = self._with_result(said, envelope, recipient)
        reply = self.protocol.answer(event, said, close=close)
        if not reply.accepted:
            who = {"from": _path(envelope.sender), "to": _path(recipient.address)}
            self._log_refusal("RCPT", reply, message=envelope.id, **who)

    def _vrfy(self, event: events.Vrfy) -> None:
        self._decide(event, self._context.hooks.on_vrfy, (250, "2.0.0"), self.session, event.verb, event.argument)

    def _command(self, event: events.UnknownCommand) -> None:
        hook = self._context.hooks.on_command
        # What is no verb may be a password in base64, from a client that goes on with an AUTH that was refused.
        secret = event.verb if self._auth_refused and len(event.verb) > 3 else ""
        self._decide(event, hook, (250, "2.0.0"), self.session, event.verb, event.argument, secret=secret)

    def _starttls(self, event: events.StartTls) -> Action:
        self.protocol.answer(event)
        return Action.START_TLS

    def tls_started(self) -> Reply | None:
        """Call on_tls, after the handshake. Return its refusal, which ends the session. Raises as reactions do."""
        hook = self._context.hooks.on_tls
        if hook is None:
            return None
        said, _ = self.runner.run(hook, self._context.timeouts.hook_timeout, self.session)
        if not isinstance(said, Reply):
            return None
        self._log_refusal("TLS", said)
        return said

    # AUTH

    def _auth_question(self, event: events.AuthQuestion) -> None:
        hooks, session = self._context.hooks, self.session
        refusal = self.limits.auth() if self.limits is not None else None
        if refusal is not None:
            self.protocol.answer_question(event, None, refusal)
            return
        call = hook_for(event.question)
        if call is None:
            self.protocol.answer_question(event, False)
            return
        name, arguments, secret = call
        timeout = self._context.timeouts.hook_timeout
        check: CheckResult = self.runner.check(getattr(hooks, name), timeout, session, *arguments, secret=secret)
        trouble: Exception | None = None
        try:
            self.protocol.answer_question(event, check.value, check.refusal)
        except Exception as error:
            # A value of another kind than was asked for lets nobody in: a coroutine, for instance, would be true.
            trouble = error
        if trouble is not None:
            reply = hooks.failure(name, session.id, trouble, session, withhold=not isinstance(trouble, TypeError))
            self.protocol.answer_question(event, None, reply)
        if check.close:
            self.protocol.shut_down(None)

    def _authenticated(self, event: events.Authenticated) -> None:
        self._context.log.event("auth", session=self.session.id, user=event.user, mechanism=event.mechanism)

    def _auth_failed(self, event: events.AuthFailed) -> Action | None:
        self._auth_refused = True
        self._log_refusal("AUTH", event.reply, mechanism=event.mechanism, why=event.why)
        # An attempt over the limit is not counted: else a phone that goes on asking would never be let in again.
        if self.limits is not None and event.reply is not TOO_MANY_FAILURES:
            over = self.limits.auth_failed()
            if over is not None:
                self.protocol.shut_down(over)
        return Action.PAUSE if self._context.timeouts.auth_failure_delay else None

    def _client_changed(self, event: events.ClientChanged) -> Action:
        return Action.READMIT

    def _refused(self, event: events.Refused) -> None:
        if event.verb == "AUTH":
            self._auth_refused = True
        # What is no verb may be a password, see _command.
        self._log_refusal(event.verb if event.verb in VERBS else "command", event.reply)

    def _log_refusal(self, what: str, reply: Reply, **fields: Any) -> None:
        self._context.log.event("refused", session=self.session.id, what=what, reply=str(reply), **fields)

    def _reset(self, envelope: Envelope) -> None:
        hooks = self._context.hooks
        if hooks.on_reset is not None:
            self.runner.run(hooks.on_reset, self._context.timeouts.hook_timeout, envelope)

    def _given_up(self, event: events.Reset) -> None:
        self._reset(event.envelope)
        self.refuse_content()

    # Content

    def _content_arrived(self, event: events.Content) -> Action | None:
        content = self._content
        streamed = self._context.hooks.on_data is not None
        # A client that sent several messages in one packet must not wait for the last to get the reply to the first;
        # the reply to DATA may not be held back in any case (RFC 2920 3.2). So replies are sent before a hook begins.
        if (content is None if streamed else event.last) and self.protocol.unsent:
            return Action.FLUSH
        if content is None:
            context, runner, session_id, envelope = self._context, self.runner, self.session.id, event.envelope
            if streamed:
                content = StreamedContent(context, runner, session_id, envelope)
            else:
                content = SpooledContent(context, runner, session_id, envelope)
            self._content = content
        content.write(event.data, event.last)
        if event.last:
            answer, close = content.deliver()
            if content.failed:
                self._reset(event.envelope)
            content.close()
            self._answer_content(event, content, answer, close)
        return None

    def _answer_content(self, event: events.Content, content: MessageContent, answer: Answer, close: bool) -> None:
        context, recipients, size = self._context, event.envelope.recipients, content.size
        if isinstance(answer, str):
            answer = Reply(250, "2.0.0", answer)
        each: list[Reply] = []
        if answer is None or answer.accepted:
            common = _common_result(recipients)
            if context.options.lmtp:
                each = [recipient.result or answer or replies.ACCEPTED for recipient in recipients]
                close = close or any(one.code == 421 for one in each)
                # For one recipient accepted is accepted.
                common = None if any(one.accepted for one in each) else common
            answer = common or answer
        reply = self.protocol.answer(event, answer, close=close, each=each)
        if reply.accepted:
            self.messages += 1
            context.counters.messages += 1
            context.counters.octets += size
        self._log_message(event.envelope, reply, size)
        self._content = None

    def _content_refused(self, event: events.ContentRefused) -> None:
        self._log_message(event.envelope, event.reply, 0)
        self._reset(event.envelope)
        self.refuse_content(event.reply)

    def refuse_content(self, reply: Reply = _GIVEN_UP) -> None:
        """The message is not taken: whoever reads its content gets Reject with `reply`. Raises as reactions do."""
        content, self._content = self._content, None
        if content is not None:
            try:
                content.refuse(reply)
            finally:
                content.close()

    def _log_message(self, envelope: Envelope, reply: Reply, size: int) -> None:
        context, content = self._context, self._content
        context.counters.refused += not reply.accepted
        if context.log.enabled:
            seconds = monotonic() - content.arrived if content is not None else 0.0
            context.log.message(self.session.id, envelope, reply, size, seconds)


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


REACTIONS: Mapping[type, Callable[[Dispatcher, Any], Action | None]] = {
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
    events.Reset: Dispatcher._given_up,
    events.Content: Dispatcher._content_arrived,
    events.ContentRefused: Dispatcher._content_refused,
}
