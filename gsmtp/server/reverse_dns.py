"""The host name of a client, looked up by its address: PTR, confirmed by the addresses of the name.

Anyone may let the PTR record of an address name any host, so a name is `verified` only when it has that address.
`ReverseDns.start` begins a lookup in a greenlet of its own and returns at once: no banner waits for it, and whoever
needs the name waits then.

Promises: an answer, possibly None, within `timeout`; no exception, whatever the network does; bounded memory and
sockets. It must not know what a name is good for. Weak: None does not tell "has none" from "could not be found out".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent

from gsmtp.dns.answers import Answer, DnsError, Kind
from gsmtp.dns.resolver import Budget, Resolver
from gsmtp.protocol.envelope import Address
from gsmtp.socket_address import IPAddress, parse_host, unmap

logger = logging.getLogger("gsmtp.server")

# RFC 1123 2.1, and the underscore that some names have
_HOSTNAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
# An address with more names than this is a web server's; each name costs one query.
_MOST_NAMES = 4


@dataclass(frozen=True, slots=True)
class ClientName:
    """A host name in lower case without a final dot, and whether one of its addresses is that of the client."""

    name: str
    verified: bool


class Lookup:
    """A lookup under way or done."""

    __slots__ = ("_job", "_result")

    def __init__(self, result: ClientName | None, job: Any = None) -> None:
        self._result = result
        self._job = job

    @property
    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        return self._job is None or bool(self._job.dead)

    def wait(self, timeout: float | None = None) -> ClientName | None:
        """Return the name, or None when there is none, it could not be found out, or `timeout` seconds have passed.

        Only the calling greenlet waits. An exception thrown into it is raised here and does not end the lookup.
        """
        if self._job is not None:
            self._job.join(timeout)
            value = self._job.value if self._job.dead else None
            return value if isinstance(value, ClientName) else None
        return self._result


class _NotCached(Exception):
    """The resolver has to be asked."""


class ReverseDns:
    """Looks clients' names up. The resolver's cache remembers them.

    timeout      seconds for one client, all queries together. 5: most answers take less than one.
    max_lookups  lookups at a time, each with a descriptor; beyond that the result is None at once. 256: a quarter of
                 the usual 1024 descriptors.
    """

    def __init__(self, resolver: Resolver, timeout: float = 5.0, max_lookups: int = 256) -> None:
        self._resolver = resolver
        self._timeout = timeout
        self._max_lookups = max_lookups
        self._jobs: dict[IPAddress, Any] = {}

    def start(self, peer: Address) -> Lookup:
        """Begin to look up the name of a socket address. Clients with the same address share one lookup."""
        address = parse_host(str(peer[0])) if isinstance(peer, tuple) and peer else None
        if address is None:
            return Lookup(None)
        job = self._jobs.get(address)
        if job is None:
            try:
                return Lookup(_find(address, self._cached))
            except DnsError:
                return Lookup(None)
            except _NotCached:
                pass
            if len(self._jobs) >= self._max_lookups:
                return Lookup(None)
            job = self._jobs[address] = gevent.spawn(self._run, address)
        return Lookup(None, job)

    def lookup(self, peer: Address) -> ClientName | None:
        """Look up, and wait for the result."""
        return self.start(peer).wait()

    def _cached(self, name: str, kind: Any) -> Answer[Any]:
        found = self._resolver.cached(name, kind)
        if found is None:
            raise _NotCached
        return found

    def _run(self, address: IPAddress) -> ClientName | None:
        budget = Budget(self._timeout)
        try:
            return _find(address, lambda name, kind: self._resolver.query(name, kind, budget))
        except Exception as error:
            logger.debug("no name for %s: %s", address, error)
        finally:
            del self._jobs[address]
        return None


def _find(address: IPAddress, query: Callable[[str, Any], Answer[Any]]) -> ClientName | None:
    """Return the name that points back, or else the first. Raises DnsError when the address has none, and what
    `query` raises."""
    pointers = query(address.reverse_pointer, "PTR").records
    names = [name for name in pointers if _HOSTNAME.fullmatch(name) and parse_host(name) is None][:_MOST_NAMES]
    kind: Kind = "A" if address.version == 4 else "AAAA"
    for name in names:
        try:
            addresses = query(name, kind).records
        except DnsError:
            continue  # the name does not exist, or that could not be found out
        if any(unmap(each) == address for each in addresses):
            return ClientName(name, True)
    return ClientName(names[0], False) if names else None
