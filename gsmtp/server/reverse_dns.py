"""The name of a client, looked up by its address: PTR, and confirmed by the name's own addresses.

Anyone may let his address point to any name, so a name is `verified` only when it points back. `ReverseDns.start`
begins a lookup in a greenlet of its own and returns at once: no banner waits for it, and whoever needs the name waits
then.
Promises: an answer, be it None, within `timeout`; no exception, whatever the network does; bounded memory and
sockets. dnspython waits on sockets, so this needs gevent's patch, as workers have it; else lookups block the process.
Must not know: what a name is good for. Weak: a None does not tell "has none" from "could not be found out", and
holds for a while.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from time import monotonic
from typing import Any

import dns.exception
import dns.nameserver
import dns.resolver
import dns.reversename
import gevent

from gsmtp.protocol.envelope import Address
from gsmtp.socket_address import parse_host

logger = logging.getLogger("gsmtp.server")

# RFC 1123 2.1, and the underscore that some have
_HOSTNAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NAMESERVER = re.compile(r"\[([0-9a-fA-F:.]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})")
# An address with more names than this is a web server's; each name costs one lookup.
_MOST_NAMES = 4
# Seconds for which an answer is kept: what its TTL says between these, no name a minute, a failure shorter.
_LEAST, _MOST, _NONE, _FAILED = 30.0, 3600.0, 60.0, 10.0


@dataclass(frozen=True, slots=True)
class Name:
    """A host name in lower case without a final dot, and whether one of its addresses is that of the client."""

    name: str
    verified: bool


class Lookup:
    """A lookup under way or done."""

    __slots__ = ("_job", "_result")

    def __init__(self, result: Name | None, job: Any = None) -> None:
        self._result = result
        self._job = job

    @property
    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        return self._job is None or bool(self._job.dead)

    def wait(self, timeout: float | None = None) -> Name | None:
        """The name, or None when there is none, it could not be found out, or `timeout` seconds were not enough.

        Only this greenlet waits; what is thrown into it here goes through, and harms the lookup not.
        """
        if self._job is not None:
            self._job.join(timeout)
            value = self._job.value if self._job.dead else None
            return value if isinstance(value, Name) else None
        return self._result


class ReverseDns:
    """Looks names up, and remembers them.

    nameservers  "192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353"; ValueError for anything else.
                 None: those of /etc/resolv.conf.
    timeout      seconds for one client, all questions together. 5: most answers take less than one.
    entries      names remembered. 4096 take about a megabyte.
    max_lookups  under way at a time, each with a descriptor; beyond that the answer is None at once. 256: a quarter
                 of the usual 1024 descriptors.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        timeout: float = 5.0,
        entries: int = 4096,
        max_lookups: int = 256,
    ) -> None:
        self._resolver = dns.resolver.Resolver(configure=False)
        if nameservers:
            self._resolver.nameservers = [_nameserver(text) for text in nameservers]
        else:
            try:
                self._resolver.read_resolv_conf("/etc/resolv.conf")
            except (dns.exception.DNSException, OSError, ValueError) as error:
                logger.warning("no names of clients: /etc/resolv.conf: %s", error)
        self._resolver.timeout = timeout / 2  # so that a second server, or a second try, has its turn
        self._resolver.use_search_by_default = False
        self._timeout = timeout
        self._entries = entries
        self._max_lookups = max_lookups
        # host -> (until when on the monotonic clock, what)
        self._known: dict[str, tuple[float, Name | None]] = {}
        self._jobs: dict[str, Any] = {}

    def start(self, peer: Address) -> Lookup:
        """Begin to look up the name of a socket address. Clients with the same address share one lookup."""
        address = parse_host(str(peer[0])) if isinstance(peer, tuple) and peer else None
        if address is None:
            return Lookup(None)
        host = str(address)
        until, name = self._known.get(host, (0.0, None))
        if monotonic() < until:
            return Lookup(name)
        job = self._jobs.get(host)
        if job is None:
            if not self._resolver.nameservers or len(self._jobs) >= self._max_lookups:
                return Lookup(None)
            job = self._jobs[host] = gevent.spawn(self._run, host, address)
        return Lookup(None, job)

    def lookup(self, peer: Address) -> Name | None:
        """Look up, and wait for it."""
        return self.start(peer).wait()

    def _run(self, host: str, address: IPv4Address | IPv6Address) -> Name | None:
        name, keep = None, _FAILED
        try:
            name, keep = self._find(address, monotonic() + self._timeout)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            keep = _NONE
        except Exception as error:
            logger.debug("no name for %s: %s", host, error)
        finally:
            del self._jobs[host]
        known = self._known
        known.pop(host, None)
        while len(known) >= self._entries:
            del known[next(iter(known))]
        known[host] = monotonic() + keep, name
        return name

    def _find(self, address: IPv4Address | IPv6Address, deadline: float) -> tuple[Name | None, float]:
        """The name and for how many seconds it holds. Raises what dnspython raises."""
        answer = self._ask(dns.reversename.from_address(str(address)), "PTR", deadline)
        keep = answer.chaining_result.minimum_ttl
        names = [record.target.to_text(omit_final_dot=True).lower() for record in answer]
        names = [name for name in names if _HOSTNAME.fullmatch(name) and parse_host(name) is None][:_MOST_NAMES]
        for name in names:
            try:
                forward = self._ask(f"{name}.", "A" if address.version == 4 else "AAAA", deadline)
            except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
                continue
            except dns.exception.DNSException:
                keep = min(keep, int(_FAILED))  # it may well be right: ask again soon
                continue
            if any(parse_host(record.address) == address for record in forward):
                keep = min(keep, forward.chaining_result.minimum_ttl)
                return Name(name, True), min(max(_LEAST, keep), _MOST)
        if not names:
            return None, _NONE
        return Name(names[0], False), min(max(_FAILED, keep), _MOST)

    def _ask(self, name: Any, kind: str, deadline: float) -> dns.resolver.Answer:
        left = deadline - monotonic()
        if left <= 0:
            raise dns.exception.Timeout
        return self._resolver.resolve(name, kind, lifetime=left, search=False)


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    match = _NAMESERVER.fullmatch(text)
    host, port = (match[1] or match[3], int(match[2] or match[4])) if match else (text, 53)
    address = parse_host(host)
    if address is None or not 0 < port <= 65535:
        raise ValueError(f"no name server's address, with a port or without: {text!r}")
    return dns.nameserver.Do53Nameserver(str(address), port)
