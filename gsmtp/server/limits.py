"""Limits for each client address: how many sessions at a time, how many connections, messages, recipients and failed
logins in an interval.

`Limits` holds the settings, `ClientLimits` is one connection's view: it asks before something is done and answers
with the reply of a refusal, or None for yes. The numbers are kept by a `LimitStore`: `SharedTable` for the workers of
one master, or one that several machines share. Must not know: sockets, the session's state. Weak: behind a proxy that
does not tell its clients' addresses all clients are one; exempt it.

An IPv6 client is its network of `ipv6_prefix` bits, since one customer has at least that much to choose from; an
IPv4-mapped address is the IPv4 one. Clients of unix sockets and those whose address is not known are not limited.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Protocol

from gsmtp.net.networks import Networks
from gsmtp.protocol.envelope import Address
from gsmtp.reply import Reply
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Limits for one client address; 0 is none. All but `sessions` are per interval, given in seconds."""

    sessions: int = 0
    connections: int = 0
    messages: int = 0
    recipients: int = 0
    interval: float = 60.0
    auth_failures: int = 0
    auth_interval: float = 600.0

    def __bool__(self) -> bool:
        return any((self.sessions, self.connections, self.messages, self.recipients, self.auth_failures))


# Keys kept for addresses seen lately, because making one takes longer than counting it.
_REMEMBERED = 4096


class Limits:
    """Makes the view of each connection. `ipv6_prefix`: bits of an IPv6 address that tell clients apart.

    ValueError when that is not between 1 and 128.
    """

    def __init__(self, store: LimitStore, rates: Rates, exempt: Networks, ipv6_prefix: int = 64) -> None:
        if not 1 <= ipv6_prefix <= 128:
            raise ValueError(f"an IPv6 prefix has 1 to 128 bits, not {ipv6_prefix}")
        self.store = store
        self.rates = rates
        self._exempt = exempt
        self._ipv6_prefix = ipv6_prefix
        self._keys: dict[str, str] = {}

    def client(self, peer: Address) -> ClientLimits:
        """For a connection whose client, after a PROXY header, has the socket address `peer`. Ends by `close`."""
        return ClientLimits(self.store, self.rates, self.key(peer))

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
        if address.version == 4 or self._ipv6_prefix == 128:
            return str(address)
        return str(ip_network((int(address), self._ipv6_prefix), strict=False))


class ClientLimits:
    """One connection's limits. Every question answers None, which is yes, or the reply to refuse with.

    Ask `open` before the greeting, and end with `close` whatever it said. When the client's address changes (XCLIENT),
    close this one and open another.
    """

    __slots__ = ("_held", "_key", "_rates", "_store")

    def __init__(self, store: LimitStore, rates: Rates, key: str) -> None:
        self._store = store
        self._rates = rates
        self._key = key
        self._held = False

    def open(self) -> Reply | None:
        """A connection begins. One that was refused is counted neither as a session nor for the interval."""
        rates, key = self._rates, self._key
        if not key:
            return None
        if rates.sessions and not self._held:
            self._held = self._store.hold("sessions", key, rates.sessions)
            if not self._held:
                return TOO_MANY_SESSIONS
        if rates.connections and not self._store.take("connections", key, 1, rates.connections, rates.interval):
            self.close()
            return TOO_MANY_CONNECTIONS
        return None

    def message(self) -> Reply | None:
        """MAIL would be accepted."""
        rates = self._rates
        if not self._key or not rates.messages:
            return None
        granted = self._store.take("messages", self._key, 1, rates.messages, rates.interval)
        return None if granted else TOO_MANY_MESSAGES

    def recipient(self) -> Reply | None:
        """RCPT would be accepted."""
        rates = self._rates
        if not self._key or not rates.recipients:
            return None
        granted = self._store.take("recipients", self._key, 1, rates.recipients, rates.interval)
        return None if granted else TOO_MANY_RECIPIENTS

    def auth(self) -> Reply | None:
        """AUTH begins: refused once `auth_failures` of this address have failed, even with the right password.

        Only AUTH is: behind the same address there may be those who send without.
        """
        rates = self._rates
        if not self._key or not rates.auth_failures:
            return None
        # The estimate fades continuously, so that one more try is free as soon as it is below by a whole one.
        level = self._store.level("auth_failures", self._key, rates.auth_interval)
        return None if level <= rates.auth_failures - 1 else TOO_MANY_FAILURES

    def auth_failed(self) -> Reply | None:
        """AUTH has failed. The answer: whether another try would be refused."""
        rates = self._rates
        if not self._key or not rates.auth_failures:
            return None
        # Those under way when the limit was reached are counted all the same.
        self._store.take("auth_failures", self._key, 1, 1 << 62, rates.auth_interval)
        return self.auth()

    def close(self) -> None:
        """The connection has ended. Idempotent."""
        if self._held:
            self._held = False
            self._store.release("sessions", self._key)
