"""How long one connection waits for its client, in each state of the session, and how much shorter amid a drain."""

from __future__ import annotations

from time import monotonic

from gsmtp.net.transport import NEVER
from gsmtp.protocol.server.states import State
from gsmtp.server.listener import Timeouts

# Between two chunks too: that is no time for a client to think.
CONTENT = (State.CONTENT, State.CHUNK, State.CHUNKED)


class Deadlines:
    """Answers with deadlines, in seconds of the monotonic clock. `draining` once a drain or a stop has begun."""

    __slots__ = ("_command_deadline", "_since", "_timing")

    def __init__(self, timing: Timeouts) -> None:
        self._timing = timing
        self._since: float | None = None
        self._command_deadline = NEVER

    @property
    def draining(self) -> bool:
        """Whether less is waited for."""
        return self._since is not None

    def drain(self) -> None:
        """What is under way may finish, within the drain limits from now on."""
        self._since = monotonic()

    def stop(self) -> None:
        """The next wait is over before it begins, but for that of a client who takes its last replies."""
        self._since = -NEVER

    def with_client(self, state: State, fresh: bool) -> float:
        """For octets. `fresh`: the wait for a whole command begins; one that comes in drops does not prolong it."""
        timing, since, now = self._timing, self._since, monotonic()
        if since is not None:
            return self._amid_drain(state, since, now)
        if state in CONTENT:
            return now + timing.content
        if fresh:
            self._command_deadline = now + timing.command
        return self._command_deadline

    def _amid_drain(self, state: State, since: float, now: float) -> float:
        timing = self._timing
        if state in CONTENT:
            return min(now + timing.drain_silence, since + timing.drain_content)
        return since + (timing.drain_login if state is State.AUTH else timing.drain_transaction)

    def with_replies(self) -> float:
        """For a client that takes replies slowly."""
        timing, now = self._timing, monotonic()
        if self._since is None:
            return now + timing.write
        return now + (timing.linger if self._since == -NEVER else min(timing.write, timing.drain_silence))

    def with_handshake(self) -> float:
        """For the TLS handshake."""
        return monotonic() + self._timing.handshake

    def drained(self, deadline: float, state: State) -> float:
        """What becomes of the `deadline` of a wait for octets that a drain finds under way."""
        now = monotonic()
        return min(deadline, self._amid_drain(state, now, now))

    def drained_handshake(self, deadline: float) -> float:
        """The same for a handshake."""
        return min(deadline, monotonic() + self._timing.drain_login)

    def drained_replies(self, deadline: float) -> float:
        """The same for replies."""
        return min(deadline, monotonic() + self._timing.drain_silence)
