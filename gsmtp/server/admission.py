"""What comes before the banner, where a listener asks for it: the PROXY header, the client's limits and name, silence.

A client speaks after the banner (RFC 5321 4.3.1). One that talks earlier is a program that throws its text at any
port; `greet_delay` gives it the time to show that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from gsmtp.net.errors import ConnectionLost
from gsmtp.net.networks import Networks
from gsmtp.protocol.envelope import Session
from gsmtp.protocol.proxy import ProxyError, ProxyReader
from gsmtp.reply import Reply
from gsmtp.server.limits import ClientLimits, Limits
from gsmtp.server.reverse_dns import ReverseDns
from gsmtp.server.settings import AdmissionSettings

EARLY_TALKER = Reply(554, "5.5.0", "You talk before the greeting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What one listener wants of a connection.

    `proxies` are the peers that send a PROXY header, and must. `xclients` are those whose XCLIENT and XFORWARD are
    believed.
    """

    settings: AdmissionSettings
    proxies: Networks
    xclients: Networks
    limits: Limits | None
    names: ReverseDns | None

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.proxies or self.xclients or self.limits or self.names or self.settings.greet_delay)

    def admit(self, session: Session) -> tuple[ClientLimits | None, Reply | None]:
        """The client of this address begins, after a PROXY header or XCLIENT: its limits, and a refusal or None."""
        if self.names is not None:
            session.lookup = self.names.start(session.peer)
        if self.limits is None:
            return None, None
        client = self.limits.client(session.peer)
        return client, client.open()


def read_proxy_header(session: Session, read_for: Callable[[float], bytes | None], timeout: float) -> bytes:
    """Take a PROXY header and give `session` the addresses in it; the octets that came behind it.

    `read_for` reads for so many seconds: b"" at the end, None for silence. Raises ConnectionLost when there is no such
    header: who is not a client has no use for a reply.
    """
    reader, until, header = ProxyReader(), monotonic() + timeout, None
    while header is None:
        data = read_for(until - monotonic())
        if not data:
            raise ConnectionLost("no PROXY header" if data is None else "closed by client")
        try:
            header = reader.feed(data)
        except ProxyError as error:
            raise ConnectionLost(f"bad PROXY header: {error}") from None
    session.proxy = header
    if header.source is not None:
        session.peer, session.local = header.source, header.destination
    return reader.rest
