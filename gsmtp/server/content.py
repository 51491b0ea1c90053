"""The content of one message between the protocol and the handler: one object for each message.

`SpooledContent` is for `on_message`, which is called when the content is whole; `StreamedContent` is for `on_data`,
which reads while the content arrives. Both give each piece to the listener's taps first (ListenerContext.taps): a tap
sees what the spool sees, such as for a hash or a copy. The content must not know replies to commands, the socket, or
the session's state. It is weak where a tap blocks: the session waits for it.
"""

from __future__ import annotations

from time import monotonic

from greenlet import GreenletExit

from gsmtp.protocol.envelope import Envelope
from gsmtp.reply import Reply
from gsmtp.server.listener import ListenerContext, Tap
from gsmtp.server.message import SpooledMessage
from gsmtp.server.runner import Answer, HookRunner, HookTask
from gsmtp.server.spool import Spool
from gsmtp.server.stream import ContentStream

_NO_TAPS: list[Tap] = []


class SpooledContent:
    """Keeps the content in a spool, and gives it to `on_message` when it is whole.

    `arrived`: when the first piece came, by the monotonic clock.
    """

    __slots__ = ("_context", "_envelope", "_error", "_runner", "_session_id", "_spool", "_taps", "arrived")

    def __init__(self, context: ListenerContext, runner: HookRunner, session_id: str, envelope: Envelope) -> None:
        self.arrived = monotonic()
        self._context = context
        self._runner = runner
        self._session_id = session_id
        self._envelope = envelope
        self._error: OSError | None = None
        self._spool = Spool(context.spool.spool_directory or None, context.spool.spool_memory)
        self._taps: list[Tap] = [tap(envelope) for tap in context.taps] if context.taps else _NO_TAPS

    @property
    def size(self) -> int:
        """Octets so far."""
        return self._spool.size

    @property
    def failed(self) -> bool:
        """Whether the spool or a tap has failed, so that no hook is asked."""
        return self._error is not None

    def write(self, data: bytes, last: bool) -> None:
        """Take a piece. After a failure the rest is thrown away: a full disk must not turn a body into commands."""
        if self._error is not None:
            return
        try:
            for tap in self._taps:
                tap.write(data)
            self._spool.write(data)
            if last:
                for tap in self._taps:
                    tap.finish()
                self._spool.finish()
        except OSError as error:
            self._error = error
            self.close()

    def deliver(self) -> tuple[Answer, bool]:
        """After the last piece: call the hook. Return what it says, and whether to end the session.

        Raises ConnectionLost when the hook was abandoned, GreenletExit when it was killed.
        """
        context, envelope = self._context, self._envelope
        hooks = context.hooks
        if self._error is not None:
            return hooks.failure("spool", self._session_id, self._error), False
        hook = hooks.on_message
        assert hook is not None
        message = SpooledMessage(envelope, self._spool, context.options.hostname)
        counters = context.counters
        counters.committing += 1
        try:
            return self._runner.run(hook, context.timeouts.message_timeout, envelope, message)
        finally:
            counters.committing -= 1

    def refuse(self, reply: Reply) -> None:
        """The protocol has refused the content with `reply`: nobody is told, since no hook has begun."""

    def lose(self, reason: str) -> None:
        """The client is gone, or the session ends: nobody is told either."""

    def close(self) -> None:
        """Free what is held. Idempotent."""
        self._spool.close()
        for tap in self._taps:
            tap.close()


class StreamedContent:
    """Gives the content to `on_data`, piece by piece, while the hook runs in a greenlet of its own.

    What comes after the hook has returned is thrown away; its answer is kept until the end. `size`:
    octets so far.
    """

    __slots__ = (
        "_began", "_context", "_envelope", "_refusal", "_result", "_runner", "_session_id", "_taps", "_task", "arrived",
        "size",
    )  # fmt: skip

    def __init__(self, context: ListenerContext, runner: HookRunner, session_id: str, envelope: Envelope) -> None:
        self.arrived = monotonic()
        self.size = 0
        self._context = context
        self._runner = runner
        self._session_id = session_id
        self._envelope = envelope
        self._began = False
        self._task: HookTask | None = None  # while the hook runs
        self._result: tuple[Answer, bool] | None = None
        self._refusal: Reply | None = None  # for a tap that has failed
        self._taps: list[Tap] = [tap(envelope) for tap in context.taps] if context.taps else _NO_TAPS

    @property
    def failed(self) -> bool:
        """False: the hook is asked in any case."""
        return False

    def write(self, data: bytes, last: bool) -> None:
        """Take a piece. Return when the hook wants more or has returned; at the last piece, when it has returned.

        Raises ConnectionLost when the hook was abandoned, GreenletExit when it was killed.
        """
        self.size += len(data)
        if self._taps and self._refusal is None:
            self._write_taps(data, last)
        task = self._task
        if not self._began:
            self._began = True
            self._begin(ContentStream(data, last))
        elif task is not None:
            if self._refusal is None:
                task.stream.feed(data, last)
            else:
                task.stream.refuse(self._refusal)
            self._wait(task)

    def _write_taps(self, data: bytes, last: bool) -> None:
        try:
            for tap in self._taps:
                tap.write(data)
                if last:
                    tap.finish()
        except OSError as error:
            self._refusal = self._context.hooks.failure("spool", self._session_id, error)

    def _begin(self, stream: ContentStream) -> None:
        context = self._context
        hook, timeout = context.hooks.on_data, context.timeouts.message_timeout
        assert hook is not None
        context.counters.committing += 1
        # Also for content that is in one piece: what a greenlet's locals hold must not depend on packets.
        self._task = task = HookTask(self._runner, hook, timeout, self._envelope, stream)
        self._wait(task)

    def _wait(self, task: HookTask) -> None:
        try:
            task.wait()
        finally:
            if task.ended:
                self._result, self._task = task.result, None
                self._context.counters.committing -= 1
                task.stream.close()

    def deliver(self) -> tuple[Answer, bool]:
        """After the last piece: return what the hook has said, and whether to end the session.

        Raises GreenletExit when the hook was killed.
        """
        if self._result is None:
            raise GreenletExit
        return self._result if self._refusal is None else (self._refusal, False)

    def refuse(self, reply: Reply) -> None:
        """The protocol has refused the content with `reply`. Return when the hook has. Raises as `write` does."""
        task = self._task
        if task is not None:
            task.stream.refuse(reply)
            self._wait(task)

    def lose(self, reason: str) -> None:
        """The client is gone, or the session ends. Return when the hook has. Raises as `write` does."""
        task = self._task
        if task is not None:
            task.stream.lose(reason)
            self._wait(task)

    def close(self) -> None:
        """Free what is held. A hook that has not returned is killed. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            self._context.counters.committing -= 1
            task.kill()
            task.stream.lose("the session has ended")  # for whoever else reads it
        for tap in self._taps:
            tap.close()


MessageContent = SpooledContent | StreamedContent
