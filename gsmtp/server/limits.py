"""Limits for each client address: sessions at a time, and connections, messages, recipients and failed logins in an
interval.

`Limits` has the settings; `ClientLimits` is made for each connection, and is asked before something is done. The
numbers are kept by a `LimitStore`: `SharedTable` for the workers of one master, or one that several machines share.
The limits must not know sockets or the session's state. They are weak behind a proxy that does not tell its clients'
addresses: all its clients are counted as one, so exempt it.

An IPv6 client is counted as its network of `limit_ipv6_prefix` bits, because each customer has at least so many
addresses; an IPv4-mapped address is counted as the IPv4 one. Clients of unix sockets, and those whose address is not
known, are not limited.
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

    A store may let its greenlet wait, but not for long, because a client waits too. A store that fails accepts, logs
    the failure, and raises nothing: mail must not stop because it cannot be counted.
    """

    def take(self, kind: str, key: str, amount: int, limit: int, interval: float) -> bool:
        """Add `amount` unless that makes more than `limit` in the last `interval` seconds. Return whether it did."""

    def level(self, kind: str, key: str, interval: float) -> float:
        """Return an estimate of what was taken in the last `interval` seconds."""

    def hold(self, kind: str, key: str, limit: int) -> bool:
        """Hold one unless `limit` are held. Return whether it did. `release` ends it, or the end of this process."""

    def release(self, kind: str, key: str) -> None:
        """End one `hold`."""


# So many addresses' keys are kept, because making one takes longer than counting it.
_REMEMBERED = 4096


class Limits:
    """Makes the view of each connection. Raises ValueError if `settings.limit_exempt` has a text that is no network."""

    def __init__(self, store: LimitStore, settings: RateLimits) -> None:
        self.store = store
        self.settings = settings
        self._exempt = Networks(settings.limit_exempt)
        self._keys: dict[str, str] = {}

    def client(self, peer: Address) -> ClientLimits:
        """Return the limits of a connection whose client has the socket address `peer`. Call `close` at its end."""
        return ClientLimits(self.store, self.settings, self.key(peer))

    def key(self, peer: Address) -> str:
        """Return what `peer` is counted as: "192.0.2.1", "2001:db8::/64", or "" when it is not limited."""
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
    """One connection's limits. Each method but `close` returns None, or the reply of a refusal.

    Call `open` before the banner, and `close` at the end whatever `open` returned. When the client's address changes
    (XCLIENT), close this object and open another.
    """

    __slots__ = ("_held", "_key", "_limits", "_store")

    def __init__(self, store: LimitStore, limits: RateLimits, key: str) -> None:
        self._store = store
        self._limits = limits
        self._key = key
        self._held = False

    def open(self) -> Reply | None:
        """Count a connection. One that is refused is counted neither as a session nor in the interval."""
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
        """Count a message, when MAIL is about to be accepted."""
        limits = self._limits
        if not self._key or not limits.limit_messages:
            return None
        granted = self._store.take("messages", self._key, 1, limits.limit_messages, limits.limit_interval)
        return None if granted else TOO_MANY_MESSAGES

    def recipient(self) -> Reply | None:
        """Count a recipient, when RCPT is about to be accepted."""
        limits = self._limits
        if not self._key or not limits.limit_recipients:
            return None
        granted = self._store.take("recipients", self._key, 1, limits.limit_recipients, limits.limit_interval)
        return None if granted else TOO_MANY_RECIPIENTS

    def auth(self) -> Reply | None:
        """Decide whether AUTH may begin. It may not once `limit_auth_failures` of this address have failed.

        A right password is refused too. Mail without AUTH is not, because others may send it from the same address.
        """
        limits = self._limits
        if not self._key or not limits.limit_auth_failures:
            return None
        # The estimate fades continuously; another attempt is free once it is below the limit by a whole one.
        level = self._store.level("auth_failures", self._key, limits.limit_auth_interval)
        return None if level <= limits.limit_auth_failures - 1 else TOO_MANY_FAILURES

    def auth_failed(self) -> Reply | None:
        """Count a failed AUTH. Return the refusal that another attempt would get, or None."""
        limits = self._limits
        if not self._key or not limits.limit_auth_failures:
            return None
        # An attempt that was under way when the limit was reached is counted, too.
        self._store.take("auth_failures", self._key, 1, 1 << 62, limits.limit_auth_interval)
        return self.auth()

    def close(self) -> None:
        """End the connection's session. Idempotent."""
        if self._held:
            self._held = False
            self._store.release("sessions", self._key)
