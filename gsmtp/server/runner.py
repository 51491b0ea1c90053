"""Runs the hooks of one session, each with a deadline.

A plain hook runs in the session's greenlet. A hook that reads its message while it arrives (`on_data`) runs in a
greenlet of its own, a `HookTask`; the session's greenlet waits for it and reads from the client by turns, so that only
one of the two is ever at work.

When a deadline passes, DeadlineExceeded is thrown into the hook, which may be anywhere in its own code. A hook that
catches it gets it again, `_REMINDERS` times; then its client is sent 421 and the connection is closed, while the hook
goes on. The runner must not know commands, replies other than that one, or what the hooks decide. It is weak where a
hook never waits: the event loop stands still then, and no deadline passes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from greenlet import GreenletExit

from gsmtp.net.errors import ConnectionLost, DeadlineExceeded
from gsmtp.net.transport import NEVER, Transport
from gsmtp.protocol.server.session import ServerSession
from gsmtp.reply import Disconnect, Reply, ReplyError
from gsmtp.server.failures import masked
from gsmtp.server.listener import ListenerContext
from gsmtp.server.stream import ContentStream, StreamLost

logger = logging.getLogger("gsmtp.server")

Hook = Callable[..., Any]
Answer = Reply | str | None

_REMIND_INTERVAL, _REMINDERS = 1.0, 5
_STUCK = Reply(421, "4.3.0", "Service not available")
# A shorter secret may be part of any word, and is not looked for in the text of a reply.
_SECRET_LENGTH = 4


class CheckResult:
    """What a check_ or get_ hook says: its value, or the refusal that it raised; `close` is true for Disconnect."""

    __slots__ = ("close", "refusal", "value")

    def __init__(self, value: Any, refusal: Reply | None = None, close: bool = False) -> None:
        self.value = value
        self.refusal = refusal
        self.close = close


class HookRunner:
    """`transport` is the one in use: the connection replaces it when TLS starts. `deadline` is for the timer."""

    __slots__ = (
        "_abandoned",
        "_context",
        "_greenlet",
        "_protocol",
        "_reminders",
        "_session_id",
        "deadline",
        "transport",
    )

    def __init__(
        self, context: ListenerContext, session_id: str, protocol: ServerSession, transport: Transport | None
    ) -> None:
        """`transport` may be None where there is no connection to close."""
        self._context = context
        self._session_id = session_id
        self._protocol = protocol
        self.transport = transport
        self._greenlet: Any = None
        self._reminders = 0
        self._abandoned = False
        self.deadline = NEVER

    def run(self, hook: Hook, timeout: float, *arguments: Any, secret: str = "") -> tuple[Answer, bool]:
        """Call a hook that decides. Return its refusal, its text, or None for yes; and whether to end the session.

        A failure is logged and becomes a reply (see gsmtp.server.hooks); `secret` is kept out of that log line.
        Raises ConnectionLost when the hook was abandoned or its stream has broken off, GreenletExit when the greenlet
        was killed.
        """
        answer: Answer
        close = False
        self.begin(gevent.getcurrent(), timeout)
        try:
            answer = hook(*arguments)
            if answer is not None and answer.__class__ is not str:
                raise TypeError(f"{hook.__name__} returned {answer!r:.200}, where None or a str is wanted")
        except ReplyError as refusal:
            answer, close = refusal.reply, isinstance(refusal, Disconnect)
        except GreenletExit:
            raise
        except StreamLost:
            self.check_abandoned()
            raise
        except BaseException as error:
            answer = self._context.hooks.failure(hook.__name__, self._session_id, error, *arguments, secret=secret)
        finally:
            self._context.hook_timer.watched.discard(self)
        if self._abandoned:
            raise ConnectionLost("abandoned")
        return answer, close

    def check(self, hook: Hook, timeout: float, *arguments: Any, secret: str = "") -> CheckResult:
        """Call a check_ or get_ hook. A failure is a refusal (454 4.7.0); `secret` is kept out of its log line.

        Raises as `run` does.
        """
        self.begin(gevent.getcurrent(), timeout)
        try:
            result = CheckResult(hook(*arguments))
        except ReplyError as refusal:
            reply = refusal.reply
            # The reply is logged too.
            if len(secret) >= _SECRET_LENGTH and (text := masked(reply.text, secret)) != reply.text:
                reply = Reply(reply.code, reply.enhanced, text)
            result = CheckResult(None, reply, isinstance(refusal, Disconnect))
        except GreenletExit:
            raise
        except BaseException as error:
            # What get_password has fetched is a secret that is not known here.
            withhold = hook.__name__ == "get_password"
            hooks, session_id = self._context.hooks, self._session_id
            reply = hooks.failure(hook.__name__, session_id, error, *arguments[:1], secret=secret, withhold=withhold)
            result = CheckResult(None, reply)
        finally:
            self.end()
        self.check_abandoned()
        return result

    def notify(self, hook: Hook, *arguments: Any) -> None:
        """Call a hook that decides nothing. A failure is logged. Raises GreenletExit only."""
        self.begin(gevent.getcurrent(), self._context.timeouts.hook_timeout)
        try:
            self._context.hooks.notify(hook, self._session_id, *arguments)
        finally:
            self.end()

    def begin(self, greenlet: Any, timeout: float) -> None:
        """The hook in `greenlet` is at work from now on, and has `timeout` seconds."""
        self._greenlet = greenlet
        self._reminders = 0
        self.deadline = monotonic() + timeout
        self._context.hook_timer.watched.add(self)

    def end(self) -> None:
        """The hook is not at work any more."""
        self._context.hook_timer.watched.discard(self)

    def check_abandoned(self) -> None:
        """Raise ConnectionLost if the hook was abandoned."""
        if self._abandoned:
            raise ConnectionLost("abandoned")

    def another(self) -> HookRunner:
        """Return a runner for a hook of the same session that runs beside others, with a deadline of its own."""
        return HookRunner(self._context, self._session_id, self._protocol, self.transport)

    def expire(self) -> None:
        """The deadline has passed; called by the timer in the hub."""
        self._reminders += 1
        if self._reminders > _REMINDERS:
            self.deadline = NEVER
            gevent.spawn(self._abandon)
        else:
            self.deadline = monotonic() + _REMIND_INTERVAL
            self._greenlet.throw(DeadlineExceeded())

    def _abandon(self) -> None:
        """Send the client away although the hook does not end; its greenlet finds the transport closed."""
        logger.error("hook ignores its deadline, client let go", extra={"fields": {"session": self._session_id}})
        self._abandoned = True
        transport = self.transport
        if transport is None:
            return
        try:
            transport.write_some(self._protocol.data_to_send() + _STUCK.encode())
            transport.finish_writing()
        except ConnectionLost:
            pass
        transport.close()


class HookTask:
    """An `on_data` hook in a greenlet of its own, with a deadline of its own.

    `ended` is whether it has returned, however that was; `result` is then what HookRunner.run returned, or None when
    that raised. `killed` is whether it raised GreenletExit.
    """

    __slots__ = ("_greenlet", "_runner", "_started", "_timeout", "ended", "killed", "result", "stream")

    def __init__(self, runner: HookRunner, hook: Hook, timeout: float, envelope: Any, stream: ContentStream) -> None:
        """Start the hook; `wait` lets it work."""
        self._runner = runner.another()
        self.stream = stream
        self._timeout = timeout
        self._started = self.ended = self.killed = False
        self.result: tuple[Answer, bool] | None = None
        self._greenlet: Any = gevent.spawn(self._run, hook, envelope)

    def _run(self, hook: Hook, envelope: Any) -> None:
        # Its deadline begins here, since nothing can be thrown into a greenlet that has not started.
        self._started = True
        try:
            self.result = self._runner.run(hook, self._timeout, envelope, self.stream)
        except ConnectionLost:
            pass
        except GreenletExit:
            self.killed = True
        finally:
            self.ended = True
            self.stream.paused.set()

    def wait(self) -> None:
        """Wait until the hook asks its stream for more, or has ended. The hook has its whole timeout for that.

        It may have ended already: an exception of its own, such as a gevent.Timeout, can end it while it waits for the
        client. Raises ConnectionLost when the hook was abandoned, GreenletExit when it was killed.
        """
        if not self.ended:
            if self._started:
                self._runner.begin(self._greenlet, self._timeout)
            try:
                self.stream.paused.wait()
            finally:
                self._runner.end()
        self._runner.check_abandoned()
        if self.killed:
            raise GreenletExit

    def kill(self) -> None:
        """End the hook wherever it is, and wait for that, but not for a hook that catches GreenletExit and goes on."""
        self._greenlet.kill(timeout=_REMIND_INTERVAL)
