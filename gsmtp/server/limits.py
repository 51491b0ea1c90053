"""Limits for each client address: how many sessions at a time, how many connections, messages, recipients and failed
logins in an interval.

`Limits` holds the settings, `ClientLimits` is one connection's view: it asks before something is done and answers
with the reply of a refusal, or None for yes. The numbers are kept by a `LimitStore`: `SharedTable` for the workers of
one master, or one that several machines share. Must not know: sockets, the session's state. Weak: behind a proxy that
does not tell its clients' addresses all clients are one; exempt it.

An IPv6 client is its network of `limit_ipv6_prefix` bits, since one customer has at least that much to choose from; an
IPv4-mapped address is the IPv4 one. Clients of unix sockets and those whose address is not known are not limited.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Protocol

from gsmtp.net.networks import Networks
from gsmtp.protocol.envelope import Address
from gsmtp.reply import Reply
from gsmtp.server.settings import RateLimits
from gsmtp.socket_address import parse_host

TOO_MANY_SESSIONS = Reply(421, "4.7.0", "Too many connections from your address at a time")
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections from your address, try again later")
TOO_MANY_FAILURES = Reply(421, "4.7.0", "Too many failed logins from your address, try again later")
TOO_MANY_MESSAGES = Reply(450, "4.7.1", "Too many messages from your address, try again later")
TOO_MANY_RECIPIENTS = Reply(450, "4.7.1", "Too many recipients from your address, try again later")


class LimitStore(Protocol):
    """Numbers by kind and key, such as "messages" and "192.0.2.1". A kind is either taken or held, never both.

    A store may let its greenlet wait, but not for long: it is asked within an SMTP dialogue. What limits protect
    is not secret, and mail must not stop because they cannot be counted: a store that fails says yes and logs it,
    and raises nothing.
    """

    def take(self, kind: str, key: str, amount: int, limit: int, interval: float) -> bool:
        """Add `amount` if no more than `limit` come together within the last `interval` seconds; whether it did."""

    def level(self, kind: str, key: str, interval: float) -> float:
        """What was taken within the last `interval` seconds, estimated."""

    def hold(self, kind: str, key: str, limit: int) -> bool:
        """Hold one if fewer than `limit` are held; whether it did. Ends by `release`, or with this process."""

    def release(self, kind: str, key: str) -> None:
        """Give back what one `hold` got."""


# Keys kept for addresses seen lately, because making one takes longer than counting it.
_REMEMBERED = 4096


class Limits:
    """Makes the view of each connection. Raises ValueError if `settings.limit_exempt` has a text that is no network."""

    def __init__(self, store: LimitStore, settings: RateLimits) -> None:
        self.store = store
        self.settings = settings
        self._exempt = Networks(settings.limit_exempt)
        self._keys: dict[str, str] = {}

    def client(self, peer: Address) -> ClientLimits:
        """For a connection whose client, after a PROXY header, has the socket address `peer`. Ends by `close`."""
        return ClientLimits(self.store, self.settings, self.key(peer))

    def key(self, peer: Address) -> str:
        """What `peer` is counted under: "192.0.2.1", "2001:db8::/64", or "" for one that is not limited."""
        if not isinstance(peer, tuple) or not peer or peer in self._exempt:
            return ""
        host = peer[0]
        key = self._keys.get(host)
        if key is None:
            if len(self._keys) >= _REMEMBERED:
                self._keys.clear()
            key = self._keys[host] = self._make_key(host)
        return key

    def _make_key(self, host: str) -> str:
        address = parse_host(host)
        if address is None:
            return ""
        prefix = self.settings.limit_ipv6_prefix
        if address.version == 4 or prefix == 128:
            return str(address)
        return str(ip_network((int(address), prefix), strict=False))


class ClientLimits:
    """One connection's limits. Every question answers None, which is yes, or the reply to refuse with.

    Ask `open` before the greeting, and end with `close` whatever it said. When the client's address changes (XCLIENT),
    close this one and open another.
    """

    __slots__ = ("_held", "_key", "_limits", "_store")

    def __init__(self, store: LimitStore, limits: RateLimits, key: str) -> None:
        self._store = store
        self._limits = limits
        self._key = key
        self._held = False

    def open(self) -> Reply | None:
        """A connection begins. One that was refused is counted neither as a session nor for the interval."""
        limits, key = self._limits, self._key
        if not key:
            return None
        if limits.limit_sessions and not self._held:
            self._held = self._store.hold("sessions", key, limits.limit_sessions)
            if not self._held:
                return TOO_MANY_SESSIONS
        most = limits.limit_connections
        if most and not self._store.take("connections", key, 1, most, limits.limit_interval):
            self.close()
            return TOO_MANY_CONNECTIONS
        return None

    def message(self) -> Reply | None:
        """MAIL would be accepted."""
        limits = self._limits
        if not self._key or not limits.limit_messages:
            return None
        granted = self._store.take("messages", self._key, 1, limits.limit_messages, limits.limit_interval)
        return None if granted else TOO_MANY_MESSAGES

    def recipient(self) -> Reply | None:
        """RCPT would be accepted."""
        limits = self._limits
        if not self._key or not limits.limit_recipients:
            return None
        granted = self._store.take("recipients", self._key, 1, limits.limit_recipients, limits.limit_interval)
        return None if granted else TOO_MANY_RECIPIENTS

    def auth(self) -> Reply | None:
        """AUTH begins: refused once `limit_auth_failures` of this address have failed, even with the right password.

        Only AUTH is: behind the same address there may be those who send without.
        """
        limits = self._limits
        if not self._key or not limits.limit_auth_failures:
            return None
        # The estimate fades continuously, so that one more try is free as soon as it is below by a whole one.
        level = self._store.level("auth_failures", self._key, limits.limit_auth_interval)
        return None if level <= limits.limit_auth_failures - 1 else TOO_MANY_FAILURES

    def auth_failed(self) -> Reply | None:
        """AUTH has failed. The answer: whether another try would be refused."""
        limits = self._limits
        if not self._key or not limits.limit_auth_failures:
            return None
        # Those under way when the limit was reached are counted all the same.
        self._store.take("auth_failures", self._key, 1, 1 << 62, limits.limit_auth_interval)
        return self.auth()

    def close(self) -> None:
        """The connection has ended. Idempotent."""
        if self._held:
            self._held = False
            self._store.release("sessions", self._key)
