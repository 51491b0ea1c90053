"""The settings that the server room reads.

The modules that read them load gevent, which the master must not do, so the declarations stand here. To add a setting:
declare it in the dataclass whose reader needs it.
"""

from __future__ import annotations

from gsmtp.declare import Table, setting


class Timeouts(Table):
    """A listener's limits of time, in seconds. gsmtp.server.timeouts says which one is in force.

    The client's side follows RFC 5321 4.5.3.2. While data flows there is no limit for the whole of a message. A client
    waits ten minutes for the reply to its message (RFC 5321 4.5.3.2.6), so `message_timeout` is shorter than that.
    """

    handshake_timeout: float = setting(30.0, "seconds for the TLS handshake", 0.1)
    command_timeout: float = setting(300.0, "seconds until the next command; RFC 5321 says 5 minutes", 0.1)
    content_timeout: float = setting(180.0, "seconds until the next octets of a message; RFC 5321: 3 minutes", 0.1)
    write_timeout: float = setting(300.0, "seconds until a client has taken its replies", 0.1)
    hook_timeout: float = setting(60.0, "seconds for a hook of the handler; clients wait 5 minutes", 0.1)
    message_timeout: float = setting(300.0, "seconds for on_message and on_data; clients wait 10 minutes", 0.1)
    auth_failure_delay: float = setting(1.0, "seconds before a failed AUTH is answered, so that guessing is slow")
    linger: float = setting(1.0, "seconds until a client that was sent away must have closed")
    drain_login: float = setting(10.0, "draining: seconds until a TLS handshake or an AUTH exchange must be over")
    drain_transaction: float = setting(30.0, "draining: seconds until an open transaction must have come to DATA")
    drain_content: float = setting(300.0, "draining: seconds for the rest of a message")
    drain_silence: float = setting(30.0, "draining: seconds without an octet of a message")


class AdmissionSettings(Table):
    """What a listener does before the banner, see gsmtp.server.admission. Networks are as in gsmtp.net.networks."""

    proxy_protocol: list[str] = setting([], "networks of load balancers that send a PROXY header (v1, v2), and must")
    proxy_timeout: float = setting(5.0, "seconds for the PROXY header; a load balancer sends it at once", 0.1)
    xclient: list[str] = setting([], "networks of peers whose XCLIENT and XFORWARD are believed; unix: local sockets")
    greet_delay: float = setting(
        0.0, "seconds of silence before the banner; a client that talks in it is sent away with 554"
    )
    reverse_lookup: bool = setting(False, "look up the names of clients in the DNS; the banner does not wait for it")


class RateLimits(Table):
    """A listener's limits for each client address, see gsmtp.server.limits. A limit of 0 is none."""

    limit_sessions: int = setting(
        0, "sessions at a time per client address, 0 for no limit: a gateway may bring all mail"
    )
    limit_connections: int = setting(0, "connections per client address and interval, 0 for no limit")
    limit_messages: int = setting(0, "messages per client address and interval, 0 for no limit")
    limit_recipients: int = setting(0, "recipients per client address and interval, 0 for no limit")
    limit_interval: float = setting(
        60.0, "seconds of the interval of limit_connections, limit_messages and limit_recipients", 1
    )
    limit_auth_failures: int = setting(30, "failed logins per client address before AUTH is refused, 0 for no limit")
    limit_auth_interval: float = setting(
        600.0, "seconds in which failed logins count; a phone with an old password makes about 10", 1
    )
    limit_ipv6_prefix: int = setting(64, "bits of an IPv6 address that tell clients apart; one customer has 64", 1, 128)
    limit_exempt: list[str] = setting(["127.0.0.0/8", "::1"], "networks that have no limits per address")

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        limits = (self.limit_sessions, self.limit_connections, self.limit_messages, self.limit_recipients)
        return any(limits) or self.limit_auth_failures > 0


class SpoolSettings(Table):
    """Where the content of a message waits for the handler, see gsmtp.server.spool."""

    spool_directory: str = setting("", "where messages larger than spool_memory wait; default: TMPDIR or /tmp")
    spool_memory: int = setting(262_144, "octets of a message that are kept in memory")


class ServiceSettings(Table):
    """What all listeners of a worker share, see gsmtp.server.service."""

    auth_secret: str = setting("", "makes SCRAM salts for users that do not exist; default: from the machine's id")
    limit_entries: int = setting(
        16_384, "client addresses that a worker remembers for the limits; the oldest make room", 64, 2**20
    )
    nameservers: list[str] = setting(
        [], "addresses of name servers for reverse_lookup; default: those of /etc/resolv.conf"
    )
