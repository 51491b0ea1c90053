"""One connection from banner to close: when to read, when to write, and what cuts a wait short.

It runs in a greenlet of its own, which alone touches the transport. What comes from outside is thrown into that
greenlet from the event loop, and only while it waits: `DeadlineExceeded` by the timer, `SessionEnded` by a drain or
a quick stop. Neither can come between a stored message and its reply, because nothing waits there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import Any, TypeVar

import gevent
from greenlet import GreenletExit

from gsmtp.net.errors import ConnectionLost, DeadlineExceeded, SessionEnded
from gsmtp.net.timer import NEVER
from gsmtp.net.transport import PlainTransport, Transport
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.server import events
from gsmtp.protocol.server.states import State
from gsmtp.reply import Reply
from gsmtp.server.admission import EARLY_TALKER, Admission, read_proxy_header
from gsmtp.server.dispatcher import Answer, Dispatcher, Hook
from gsmtp.server.hooks import Check
from gsmtp.server.listener import ListenerContext
from gsmtp.server.received import address_literal
from gsmtp.server.timeouts import Deadlines

logger = logging.getLogger("gsmtp.server")
_T = TypeVar("_T")

_SHUTTING_DOWN = Reply(421, "4.3.2", "Service shutting down, try again")
_TIMED_OUT = Reply(421, "4.4.2", "Timeout, closing connection")
_STUCK = Reply(421, "4.3.0", "Service not available")
# A hook that caught its deadline hears of it again after so many seconds, and so often; then its client is let go.
_REMIND, _PATIENCE = 1.0, 5
_LINGER_OCTETS = 1 << 20


class Phase(Enum):
    """What the greenlet is at, as far as those outside must know."""

    BUSY = "busy"
    HANDSHAKE = "handshake"
    READING = "reading"
    WRITING = "writing"
    HOOK = "hook"
    PAUSE = "pause"
    LINGERING = "lingering"


_BUSY, _READING, _WRITING, _HOOK = Phase.BUSY, Phase.READING, Phase.WRITING, Phase.HOOK
_HANDSHAKE = Phase.HANDSHAKE


class Connection:
    """`deadline`: when the present wait becomes too long, for the sweep."""

    __slots__ = (
        "_abandoned",
        "_dialogue",
        "_early",
        "_greenlet",
        "_lost",
        "_patience",
        "_phase",
        "_protocol",
        "_reminders",
        "_terms",
        "_transport",
        "deadline",
    )

    def __init__(self, terms: ListenerContext, transport: Transport, session: Session) -> None:
        self._terms = terms
        self._transport = transport
        self._dialogue = Dispatcher(self, terms, session)
        self._protocol = self._dialogue.protocol
        self._greenlet = gevent.getcurrent()
        self._phase = _BUSY
        self._reminders = 0
        self._early = b""  # octets that came before the banner, behind a PROXY header
        self._abandoned = False
        self._lost: ConnectionLost | None = None
        self._patience = Deadlines(terms.timeouts)
        self.deadline = NEVER

    @property
    def in_transaction(self) -> bool:
        """Whether an envelope is open."""
        return self._protocol.envelope is not None

    def run(self) -> None:
        """Converse until the session ends, whatever ends it; free everything."""
        log, session = self._terms.log, self._dialogue.session
        began = monotonic()
        if log.enabled:
            log.event("connect", session=session.id, peer=shown(session.peer), listener=self._terms.bind)
        reason = "server error"
        try:
            reason = self._converse()
        except GreenletExit:
            reason = "killed"
        finally:
            self._phase = _BUSY
            self.deadline = NEVER
            self._transport.close()
            self._dialogue.end(reason)
            if self._dialogue.limits is not None:
                self._dialogue.limits.close()
            if log.enabled:
                messages, seconds = self._dialogue.messages, monotonic() - began
                log.event("disconnect", session=session.id, reason=reason, messages=messages, seconds=seconds)

    def _converse(self) -> str:
        try:
            reason = self._loop()
        except SessionEnded as end:
            self._last_word(end.reply)
            reason = str(end)
        except ConnectionLost as lost:
            if self._terms.hooks.on_error is not None:
                self.tell(self._terms.hooks.on_error, self._dialogue.session, lost)
            return "abandoned" if self._abandoned else str(lost)
        except Exception:
            # What should not happen has: a handler spoilt what it was given, or we did. The client hears that much.
            reference = self._terms.new_id()
            fields = {"session": self._dialogue.session.id, "reference": reference}
            logger.exception("session failed", extra={"fields": fields})
            self._last_word(Reply(421, "4.3.0", f"Service not available [{reference}]"))
            reason = "server error"
        try:
            if reason != "quit" or self._protocol.unread:
                self.flush()
                self._linger()
            elif not self._transport.write_last(self._protocol.data_to_send()):
                self._finish_writing()
        except ConnectionLost:
            pass
        return reason

    def _last_word(self, reply: Reply) -> None:
        # A client that waits for TLS cannot read a word in clear; it sees a closed connection.
        unheard = self._terms.implicit_tls and self._dialogue.session.tls is None
        self._protocol.shut_down(None if unheard else reply)

    def _enter(self, admission: Admission) -> None:
        session = self._dialogue.session
        if session.peer in admission.proxies:
            self._read_proxy_header(admission.settings.proxy_timeout)
        session.trusted = session.peer in admission.xclients
        self._admit(admission)
        # Under TLS from the start the client talks first.
        test = admission.settings.greet_delay > 0 and not self._terms.implicit_tls
        if test and (self._early or self._read_for(admission.settings.greet_delay)):
            raise SessionEnded(EARLY_TALKER, "early talker")

    def _admit(self, admission: Admission) -> None:
        dialogue = self._dialogue
        if dialogue.limits is not None:
            dialogue.limits.close()
        dialogue.limits, refusal = admission.admit(dialogue.session)
        if refusal is not None:
            raise SessionEnded(refusal, "limited")

    def client_changed(self) -> None:
        """See Line."""
        log, session = self._terms.log, self._dialogue.session
        if log.enabled:
            log.event("client", session=session.id, peer=shown(session.peer))
        if self._terms.admission is not None:
            self._admit(self._terms.admission)

    def _read_proxy_header(self, timeout: float) -> None:
        session = self._dialogue.session
        self._early = read_proxy_header(session, self._read_for, timeout)
        log = self._terms.log
        if log.enabled:
            log.event("proxy", session=session.id, peer=shown(session.peer))

    def _read_for(self, seconds: float) -> bytes | None:
        """What comes within this time, b"" at the end, None for silence."""
        self.deadline = monotonic() + seconds
        self._phase = _READING
        try:
            return self._transport.read()
        except DeadlineExceeded:
            return None
        finally:
            self._phase = _BUSY

    def start_tls(self) -> None:
        """See Line. Raises SessionEnded when on_tls refuses, TlsFailed."""
        self.flush()
        assert self._terms.tls is not None and isinstance(self._transport, PlainTransport)
        early, self._early = self._early, b""
        secure = self._terms.tls.wrap(self._transport, early)
        self.deadline = self._patience.with_handshake()
        self._phase = _HANDSHAKE
        try:
            tls = secure.handshake()
        except DeadlineExceeded:
            raise ConnectionLost("TLS handshake timed out") from None
        finally:
            self._phase = _BUSY
        self._transport = secure
        session, log = self._dialogue.session, self._terms.log
        if log.enabled:
            log.event("tls", session=session.id, version=tls.version, cipher=tls.cipher, name=tls.server_name or "")
        self._protocol.tls_started(tls)
        refusal = self._dialogue.tls_started()
        if refusal is not None:
            raise SessionEnded(refusal, "refused by on_tls")

    def _loop(self) -> str:
        if self._terms.admission is not None:
            self._enter(self._terms.admission)
        if self._terms.implicit_tls:
            self.start_tls()
        elif self._early:
            self._protocol.receive(self._early)
            self._early = b""
        protocol, react = self._protocol, self._dialogue.react
        next_event, patience = protocol.next_event, self._patience
        while True:
            if patience.draining and protocol.envelope is None and protocol.state is not State.AUTH:
                raise SessionEnded(_SHUTTING_DOWN, "drain")
            event = next_event()
            if event is events.NEED_DATA:
                self.fill()
            elif event is events.CLOSED:
                return "quit" if protocol.quit else "sent away"
            else:
                react(event)

    # Waiting: for the client, for a hook

    def fill(self) -> None:
        """Send what is to be sent, and give the protocol more octets. Raises ConnectionLost, SessionEnded."""
        if self._lost is not None:
            raise self._lost
        outer = self._phase
        try:
            # Once or more for each command, so it calls little.
            protocol = self._protocol
            said = protocol.data_to_send()
            if said and not self._transport.write_some(said):
                self._finish_writing()
            self.deadline = self._patience.with_client(protocol.state, bool(said) or not protocol.unread)
            self._phase = _READING
            try:
                data = self._transport.read()
            except DeadlineExceeded:
                late = _SHUTTING_DOWN if self._patience.draining else _TIMED_OUT
                raise SessionEnded(late, "timeout" if late is _TIMED_OUT else "drain") from None
            finally:
                self._phase = _BUSY
            if not data:
                raise ConnectionLost("closed by client")
            protocol.receive(data)
        except ConnectionLost as lost:
            # A hook that reads the content may catch this; it holds all the same.
            self._lost = lost
            raise
        if outer is _HOOK:
            self.deadline = monotonic() + self._terms.timeouts.message_timeout
            self._phase = _HOOK

    def flush(self) -> None:
        """Send what is to be sent. Raises ConnectionLost, SessionEnded."""
        said = self._protocol.data_to_send()
        if said and not self._transport.write_some(said):
            self._finish_writing()

    def _finish_writing(self) -> None:
        self.deadline = self._patience.with_replies()
        self._phase = _WRITING
        try:
            self._transport.write_rest()
        except DeadlineExceeded:
            raise ConnectionLost("client takes no replies") from None
        finally:
            self._phase = _BUSY

    def run_hook(self, hook: Hook, timeout: float, *arguments: Any, **named: Any) -> tuple[Answer, bool]:
        """See Line. The deadline is thrown into the hook, which may be anywhere in its own code.

        A hook may run within on_data, which draws on the protocol: what comes between two chunks has hooks too.
        """
        return self._under_deadline(timeout, self._terms.hooks.call, hook, *arguments, **named)

    def _under_deadline(self, timeout: float, call: Callable[..., _T], hook: Hook, *arguments: Any, **named: Any) -> _T:
        outer, deadline = self._phase, self.deadline
        self._reminders = 0
        self.deadline = monotonic() + timeout
        self._phase = _HOOK
        try:
            answer = call(hook, self._dialogue.session.id, *arguments, **named)
        finally:
            self._phase = outer
            if outer is _HOOK:
                self.deadline = deadline
        if self._abandoned:
            raise ConnectionLost("abandoned")
        if self._lost is not None:
            raise self._lost
        return answer

    def run_check(self, hook: Hook, timeout: float, *arguments: Any, secret: str = "") -> Check:
        """See Line."""
        return self._under_deadline(timeout, self._terms.hooks.check, hook, *arguments, secret=secret)

    def pause(self, seconds: float) -> None:
        """See Line."""
        self._phase = Phase.PAUSE
        try:
            gevent.sleep(seconds)
        finally:
            self._phase = _BUSY

    def tell(self, hook: Hook, *arguments: Any) -> None:
        """See Line."""
        self._reminders = 0
        self.deadline = monotonic() + self._terms.timeouts.hook_timeout
        self._phase = _HOOK
        try:
            self._terms.hooks.tell(hook, self._dialogue.session.id, *arguments)
        finally:
            self._phase = _BUSY
            self.deadline = NEVER

    def _linger(self) -> None:
        # Closing while octets are unread resets the connection, and the reset can overtake the last reply.
        self._transport.finish_writing()
        self.deadline = monotonic() + self._terms.timeouts.linger
        self._phase = Phase.LINGERING
        left = _LINGER_OCTETS
        try:
            while left > 0 and (data := self._transport.read()):
                left -= len(data)
        except DeadlineExceeded:
            pass
        finally:
            self._phase = _BUSY

    # From outside; all of these are called in the hub

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = NEVER
        if self._phase is _HOOK:
            self._reminders += 1
            if self._reminders > _PATIENCE:
                gevent.spawn(self._abandon)
                return
            self.deadline = monotonic() + _REMIND
        elif self._phase in (_BUSY, Phase.PAUSE):
            return
        self._greenlet.throw(DeadlineExceeded())

    def drain(self) -> None:
        """End at once when idle, else as soon as the transaction is over or its time is."""
        patience = self._patience
        patience.drain()
        if self._phase is _HANDSHAKE:
            self.deadline = patience.drained_handshake(self.deadline)
        elif self._phase is _WRITING:
            self.deadline = patience.drained_replies(self.deadline)
        elif self._phase is _READING:
            state = self._protocol.state
            if state is not State.AUTH and self._protocol.envelope is None:
                self._greenlet.throw(SessionEnded(_SHUTTING_DOWN, "drain"))
            else:
                self.deadline = patience.drained(self.deadline, state)

    def stop(self) -> None:
        """End at once, unless a hook is at work: what it stores is still to be answered."""
        self._patience.stop()
        if self._phase is _HANDSHAKE:
            self._greenlet.throw(ConnectionLost("stop"))  # no word can be said in the midst of a handshake
        elif self._phase in (_READING, _WRITING, Phase.PAUSE):
            self._greenlet.throw(SessionEnded(_SHUTTING_DOWN, "stop"))

    def _abandon(self) -> None:
        """Let the client go although the hook will not end; its greenlet finds the transport closed."""
        fields = {"session": self._dialogue.session.id}
        logger.error("hook ignores its deadline, client let go", extra={"fields": fields})
        self._abandoned = True
        try:
            self._transport.write_some(self._protocol.data_to_send() + _STUCK.encode())
            self._transport.finish_writing()
        except ConnectionLost:
            pass
        self._transport.close()


def shown(peer: object) -> str:
    """A socket address for logs."""
    if isinstance(peer, tuple) and len(peer) > 1:
        return f"{address_literal(peer)}:{peer[1]}"
    return "unix"
