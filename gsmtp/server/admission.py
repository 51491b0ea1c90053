"""What a listener may do before the banner: read a PROXY header, count the client's connection, look its name up, wait.

A client must wait for the banner (RFC 5321 4.3.1). A client that talks earlier is a program that sends its text to any
port; `greet_delay` is the time in which it shows that.
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
    """How one listener admits a connection.

    `proxies`: the peers that must send a PROXY header; `xclients`: the peers whose XCLIENT and XFORWARD are believed.
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
        """Begin with the client of the session's address. Call it again when XCLIENT has changed that.

        Return the client's limits or None, and a refusal or None. The lookup of its name begins, too.
        """
        if self.names is not None:
            session.lookup = self.names.start(session.peer)
        if self.limits is None:
            return None, None
        client = self.limits.client(session.peer)
        return client, client.open()


def read_proxy_header(session: Session, read_for: Callable[[float], bytes | None], timeout: float) -> bytes:
    """Read a PROXY header and give `session` the addresses in it. Return the octets that came after it.

    `read_for` reads for so many seconds, and returns b"" at the end and None when nothing came. Raises ConnectionLost
    when the header is missing or wrong: a peer that is no proxy of ours gets no reply.
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
