"""One connection from accept to close: the loop that reads, dispatches what the protocol hands out, and sends.

It runs in a greenlet of its own, which alone touches the transport. What comes from outside is thrown into that
greenlet from the event loop, and only while it waits for its client: DeadlineExceeded by the timer, SessionEnded by a
drain or a quick stop. Neither can come between a stored message and its reply, because nothing waits there. While a
hook is at work its own deadline counts (gsmtp/server/runner.py).
"""

from __future__ import annotations

import logging
from enum import Enum
from time import monotonic

import gevent
from greenlet import GreenletExit

from gsmtp.net.errors import ConnectionLost, DeadlineExceeded, SessionEnded
from gsmtp.net.gevent_transport import PlainTransport
from gsmtp.net.transport import NEVER, Transport
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.server import events
from gsmtp.protocol.server.session import ServerSession
from gsmtp.protocol.server.states import State
from gsmtp.reply import Reply
from gsmtp.server.admission import EARLY_TALKER, Admission, read_proxy_header
from gsmtp.server.dispatcher import REACTIONS, Action, Dispatcher
from gsmtp.server.listener import ListenerContext
from gsmtp.server.runner import HookRunner
from gsmtp.server.timeouts import Deadlines
from gsmtp.socket_address import log_text

logger = logging.getLogger("gsmtp.server")

_SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down, try again")
_TIMED_OUT = Reply(421, "4.4.2", "Timeout, closing connection")
_LINGER_OCTETS = 1 << 20


class Waiting(Enum):
    """What the greenlet waits for, as far as those outside must know: NOTHING includes a hook."""

    NOTHING = "nothing"
    HANDSHAKE = "handshake"
    READ = "read"
    WRITE = "write"
    PAUSE = "pause"
    LINGER = "linger"


_NOTHING, _HANDSHAKE, _READ, _WRITE = Waiting.NOTHING, Waiting.HANDSHAKE, Waiting.READ, Waiting.WRITE


class Connection:
    """`deadline`: when the present wait for the client becomes too long, for the timer."""

    __slots__ = (
        "_context",
        "_deadlines",
        "_dispatcher",
        "_greenlet",
        "_protocol",
        "_transport",
        "_waiting",
        "deadline",
    )

    def __init__(self, context: ListenerContext, transport: Transport, session: Session) -> None:
        self._context = context
        self._transport = transport
        self._protocol = ServerSession(context.options, context.extensions, session, context.new_id, context.asks)
        runner = HookRunner(context, session.id, self._protocol, transport)
        self._dispatcher = Dispatcher(context, session, self._protocol, runner)
        self._greenlet = gevent.getcurrent()
        self._waiting = _NOTHING
        self._deadlines = Deadlines(context.timeouts)
        self.deadline = NEVER

    @property
    def in_transaction(self) -> bool:
        """Whether an envelope is open."""
        return self._protocol.envelope is not None

    def run(self) -> None:
        """Serve the client until the session ends, whatever ends it, and free everything. Raises nothing."""
        dispatcher, log = self._dispatcher, self._context.log
        session = dispatcher.session
        began = monotonic()
        if log.enabled:
            log.event("connect", session=session.id, peer=log_text(session.peer), listener=self._context.bind)
        reason = "killed"
        try:
            try:
                reason, reachable = self._loop(), True
            except Exception as error:
                reason, reachable = self._break_off(error)
            if reachable:
                self._close_in_order(reason)
        except GreenletExit:
            reason = "killed"
        finally:
            self._waiting = _NOTHING
            self.deadline = NEVER
            self._transport.close()
            dispatcher.end(reason)
            if dispatcher.limits is not None:
                dispatcher.limits.close()
            if log.enabled:
                messages, seconds = dispatcher.messages, monotonic() - began
                log.event("disconnect", session=session.id, reason=reason, messages=messages, seconds=seconds)

    def _loop(self) -> str:
        """Serve until the protocol closes; return the reason. Raises ConnectionLost, SessionEnded."""
        context, protocol, dispatcher, deadlines = self._context, self._protocol, self._dispatcher, self._deadlines
        early = b"" if context.admission is None else self._admit(context.admission)
        if context.implicit_tls:
            self._start_tls(early)
        elif early:
            protocol.receive(early)
        while True:
            if deadlines.draining and protocol.envelope is None and protocol.state is not State.AUTH:
                raise SessionEnded(_SHUTTING_DOWN, "drain")
            event = protocol.next_event()
            if event is events.NEED_DATA:
                self._read()
            elif event is events.CLOSED:
                dispatcher.refuse_content()
                return "quit" if protocol.quit else "sent away"
            else:
                action = REACTIONS[event.__class__](dispatcher, event)
                if action is not None:
                    self._act(action, event)

    def _act(self, action: Action, event: events.Event) -> None:
        """Do what the dispatcher has returned. Raises as `_loop` does."""
        if action is Action.FLUSH:
            self._flush()
            REACTIONS[event.__class__](self._dispatcher, event)
        elif action is Action.START_TLS:
            self._start_tls(b"")
        elif action is Action.PAUSE:
            self._pause(self._context.timeouts.auth_failure_delay)
        elif action is Action.READMIT:
            self._log_peer("client")
            if self._context.admission is not None:
                self._admit_address(self._context.admission)

    # The end

    def _break_off(self, error: Exception) -> tuple[str, bool]:
        """The loop has ended by `error`: return the reason for the log, and whether the client can be sent a last word.

        The protocol then has that word. Raises nothing.
        """
        context, session = self._context, self._dispatcher.session
        try:
            self._dispatcher.lose_content(str(error) if isinstance(error, ConnectionLost) else "server error")
        except ConnectionLost as lost:
            error = ConnectionLost(str(lost))  # a new one: a frame that kept its own traceback would be a cycle
        if isinstance(error, SessionEnded):
            self._last_word(error.reply)
            return str(error), True
        if isinstance(error, ConnectionLost):
            if context.hooks.on_error is not None:
                self._dispatcher.runner.notify(context.hooks.on_error, session, error)
            return str(error), False
        # A handler has spoilt what it was given, or this program is wrong. The client gets the reference.
        reference = context.new_id()
        fields = {"session": session.id, "reference": reference}
        logger.error("session failed", exc_info=error, extra={"fields": fields})
        self._last_word(Reply(421, "4.3.0", f"Service not available [{reference}]"))
        return "server error", True

    def _last_word(self, reply: Reply) -> None:
        # A client that waits for TLS cannot read a reply in clear; it sees a closed connection.
        unreadable = self._context.implicit_tls and self._dispatcher.session.tls is None
        self._protocol.shut_down(None if unreadable else reply)

    def _close_in_order(self, reason: str) -> None:
        """Send what is unsent, and close so that the client gets it. Raises nothing."""
        try:
            if reason != "quit" or self._protocol.unread:
                self._flush()
                self._linger()
            elif not self._transport.write_last(self._protocol.data_to_send()):
                self._finish_writing()
        except ConnectionLost:
            pass

    def _linger(self) -> None:
        # Closing while octets are unread resets the connection, and the reset can overtake the last reply.
        self._transport.finish_writing()
        self.deadline = monotonic() + self._context.timeouts.linger
        self._waiting = Waiting.LINGER
        left = _LINGER_OCTETS
        try:
            while left > 0 and (data := self._transport.read()):
                left -= len(data)
        except DeadlineExceeded:
            pass
        finally:
            self._waiting = _NOTHING

    # The beginning

    def _admit(self, admission: Admission) -> bytes:
        """Do what is wanted before the banner. Return the octets that came with a PROXY header.

        Raises SessionEnded when the client is refused, ConnectionLost.
        """
        session, early = self._dispatcher.session, b""
        if session.peer in admission.proxies:
            early = read_proxy_header(session, self._read_for, admission.settings.proxy_timeout)
            self._log_peer("proxy")
        session.trusted = session.peer in admission.xclients
        self._admit_address(admission)
        # Under TLS from the start the client talks first.
        test = admission.settings.greet_delay > 0 and not self._context.implicit_tls
        if test and (early or self._read_for(admission.settings.greet_delay)):
            raise SessionEnded(EARLY_TALKER, "early talker")
        return early

    def _admit_address(self, admission: Admission) -> None:
        """Begin the limits of the client's address. Raises SessionEnded when they refuse it."""
        dispatcher = self._dispatcher
        if dispatcher.limits is not None:
            dispatcher.limits.close()
        dispatcher.limits, refusal = admission.admit(dispatcher.session)
        if refusal is not None:
            raise SessionEnded(refusal, "limited")

    def _log_peer(self, name: str) -> None:
        log, session = self._context.log, self._dispatcher.session
        if log.enabled:
            log.event(name, session=session.id, peer=log_text(session.peer))

    def _read_for(self, seconds: float) -> bytes | None:
        """Return what comes within this time, b"" at the end, None for nothing. Raises ConnectionLost, SessionEnded."""
        self.deadline = monotonic() + seconds
        self._waiting = _READ
        try:
            return self._transport.read()
        except DeadlineExceeded:
            return None
        finally:
            self._waiting = _NOTHING

    def _start_tls(self, early: bytes) -> None:
        """Send what is unsent, do the handshake, and call on_tls. `early`: octets of the handshake that were read.

        Raises SessionEnded when on_tls refuses, TlsFailed, ConnectionLost.
        """
        self._flush()
        context, dispatcher = self._context, self._dispatcher
        assert context.tls is not None and isinstance(self._transport, PlainTransport)
        secure = context.tls.wrap(self._transport, early)
        self.deadline = self._deadlines.with_handshake()
        self._waiting = _HANDSHAKE
        try:
            tls = secure.handshake()
        except DeadlineExceeded:
            raise ConnectionLost("TLS handshake timed out") from None
        finally:
            self._waiting = _NOTHING
        self._transport = dispatcher.runner.transport = secure
        if context.log.enabled:
            fields = {"version": tls.version, "cipher": tls.cipher, "name": tls.server_name or ""}
            context.log.event("tls", session=dispatcher.session.id, **fields)
        self._protocol.tls_started(tls)
        refusal = dispatcher.tls_started()
        if refusal is not None:
            raise SessionEnded(refusal, "refused by on_tls")

    # Reading, writing, waiting

    def _read(self) -> None:
        """Send what is unsent, and give the protocol more octets. Raises ConnectionLost, SessionEnded."""
        # Once or more for each command, so it calls little.
        protocol = self._protocol
        unsent = protocol.data_to_send()
        if unsent and not self._transport.write_some(unsent):
            self._finish_writing()
        self.deadline = self._deadlines.with_client(protocol.state, bool(unsent) or not protocol.unread)
        self._waiting = _READ
        try:
            data = self._transport.read()
        except DeadlineExceeded:
            if self._deadlines.draining:
                raise SessionEnded(_SHUTTING_DOWN, "drain") from None
            raise SessionEnded(_TIMED_OUT, "timeout") from None
        finally:
            self._waiting = _NOTHING
        if not data:
            raise ConnectionLost("closed by client")
        protocol.receive(data)

    def _flush(self) -> None:
        """Send what is unsent. Raises ConnectionLost, SessionEnded."""
        unsent = self._protocol.data_to_send()
        if unsent and not self._transport.write_some(unsent):
            self._finish_writing()

    def _finish_writing(self) -> None:
        self.deadline = self._deadlines.with_replies()
        self._waiting = _WRITE
        try:
            self._transport.write_rest()
        except DeadlineExceeded:
            raise ConnectionLost("client takes no replies") from None
        finally:
            self._waiting = _NOTHING

    def _pause(self, seconds: float) -> None:
        self._waiting = Waiting.PAUSE
        try:
            gevent.sleep(seconds)
        finally:
            self._waiting = _NOTHING

    # From outside; all of these are called in the hub, where no session runs

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = NEVER
        if self._waiting is not _NOTHING and self._waiting is not Waiting.PAUSE:
            self._greenlet.throw(DeadlineExceeded())

    def drain(self) -> None:
        """End at once when idle, else as soon as the transaction is over or its time is."""
        deadlines = self._deadlines
        deadlines.drain()
        if self._waiting is _HANDSHAKE:
            self.deadline = deadlines.drained_handshake(self.deadline)
        elif self._waiting is _WRITE:
            self.deadline = deadlines.drained_replies(self.deadline)
        elif self._waiting is _READ:
            state = self._protocol.state
            if state is not State.AUTH and self._protocol.envelope is None:
                self._greenlet.throw(SessionEnded(_SHUTTING_DOWN, "drain"))
            else:
                self.deadline = deadlines.drained(self.deadline, state)

    def stop(self) -> None:
        """End at once, unless a hook is at work: what it stores is still to be answered."""
        self._deadlines.stop()
        if self._waiting is _HANDSHAKE:
            self._greenlet.throw(ConnectionLost("stop"))  # no reply can be sent in the midst of a handshake
        elif self._waiting in (_READ, _WRITE, Waiting.PAUSE):
            self._greenlet.throw(SessionEnded(_SHUTTING_DOWN, "stop"))
