"""The deadlines of one connection, for each state of its session, and the shorter ones of a drain.

The limits are settings, see gsmtp.server.settings.Timeouts. This module must not know the connection that waits.
"""

from __future__ import annotations

from time import monotonic

from gsmtp.net.transport import NEVER
from gsmtp.protocol.server.states import State
from gsmtp.server.settings import Timeouts

# Between two chunks too: a client that sends a message in chunks does not wait between them.
CONTENT = (State.CONTENT, State.CHUNK, State.CHUNKED)


class Deadlines:
    """Computes deadlines, in seconds of the monotonic clock."""

    __slots__ = ("_command_deadline", "_since", "_timeouts")

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._since: float | None = None
        self._command_deadline = NEVER

    @property
    def draining(self) -> bool:
        """Whether a drain or a stop has begun."""
        return self._since is not None

    def drain(self) -> None:
        """Begin a drain: from now on the limits of a drain are in force."""
        self._since = monotonic()

    def stop(self) -> None:
        """Begin a stop: every further wait is over at once, except for a client that takes its last replies."""
        self._since = -NEVER

    def with_client(self, state: State, fresh: bool) -> float:
        """Return the deadline of a wait for octets.

        `fresh` says that the wait for a whole command begins; a command that comes in pieces does not prolong it.
        """
        timeouts, since, now = self._timeouts, self._since, monotonic()
        if since is not None:
            return self._amid_drain(state, since, now)
        if state in CONTENT:
            return now + timeouts.content_timeout
        if fresh:
            self._command_deadline = now + timeouts.command_timeout
        return self._command_deadline

    def _amid_drain(self, state: State, since: float, now: float) -> float:
        timeouts = self._timeouts
        if state in CONTENT:
            return min(now + timeouts.drain_silence, since + timeouts.drain_content)
        return since + (timeouts.drain_login if state is State.AUTH else timeouts.drain_transaction)

    def with_replies(self) -> float:
        """Return the deadline of a wait for the client to take replies."""
        timeouts, now = self._timeouts, monotonic()
        if self._since is None:
            return now + timeouts.write_timeout
        return now + (timeouts.linger if self._since == -NEVER else min(timeouts.write_timeout, timeouts.drain_silence))

    def with_handshake(self) -> float:
        """Return the deadline of a TLS handshake."""
        return monotonic() + self._timeouts.handshake_timeout

    def drained(self, deadline: float, state: State) -> float:
        """Return the deadline of a wait for octets during which a drain begins, given its `deadline` so far."""
        now = monotonic()
        return min(deadline, self._amid_drain(state, now, now))

    def drained_handshake(self, deadline: float) -> float:
        """Return the deadline of a handshake during which a drain begins, given its `deadline` so far."""
        return min(deadline, monotonic() + self._timeouts.drain_login)

    def drained_replies(self, deadline: float) -> float:
        """Return the deadline of a wait for the client to take replies during which a drain begins."""
        return min(deadline, monotonic() + self._timeouts.drain_silence)
