"""What comes before the banner, where a listener asks for it: the PROXY header, the client's limits and name, silence.

A client speaks after the banner (RFC 5321 4.3.1). One that talks earlier is a program that throws its text at any
port; `greet_delay` gives it the time to show that.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsmtp.protocol.envelope import Session
from gsmtp.reply import Reply
from gsmtp.server.limits import ClientLimits, Limits
from gsmtp.server.names import Names
from gsmtp.server.networks import Networks

EARLY_TALKER = Reply(554, "5.5.0", "You talk before the greeting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """What one listener wants of a connection. `proxies`: peers that send a PROXY header, and must; `xclients`: peers
    whose XCLIENT and XFORWARD are believed. Times in seconds; a `greet_delay` of 0 greets at once."""

    proxies: Networks
    proxy_timeout: float
    xclients: Networks
    limits: Limits | None
    names: Names | None
    greet_delay: float

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.proxies or self.xclients or self.limits or self.names or self.greet_delay)

    def admit(self, session: Session) -> tuple[ClientLimits | None, Reply | None]:
        """The client of this address begins, after a PROXY header or XCLIENT: its limits, and a refusal or None."""
        if self.names is not None:
            session.lookup = self.names.start(session.peer)
        if self.limits is None:
            return None, None
        client = self.limits.client(session.peer)
        return client, client.open()
