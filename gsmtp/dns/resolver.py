"""The one way to look something up in the DNS.

A Resolver asks its cache, then its backend. Callers that ask the same at the same time share one query. A Budget bounds
what one caller spends, in seconds and in queries, on all its lookups together.

It waits by the threading module only, so it works with threads, and with gevent where that has patched the module
before the Resolver was made. One Resolver may serve a whole process. It must not know what an answer is good for.
"""

from __future__ import annotations

import copy
import threading
from time import monotonic
from typing import Any, Literal, overload

from gsmtp.dns.answers import Answer, Backend, DnsError, InvalidName, Kind, LookupTimedOut, Mx, Tlsa, TooManyQueries
from gsmtp.dns.cache import Cache, Result
from gsmtp.dns.names import ascii_name
from gsmtp.socket_address import IPAddress


class Budget:
    """What lookups for one purpose may cost together.

    `seconds` begin now. `queries` counts each call of `Resolver.query`, whether the cache has the answer or not, so
    that the result of a check does not depend on who asked before (RFC 7208 4.6.4). None: any number.
    """

    __slots__ = ("deadline", "queries_left")

    def __init__(self, seconds: float, queries: int | None = None) -> None:
        self.deadline = monotonic() + seconds
        self.queries_left = queries

    def take(self, name: str, kind: str) -> None:
        """Count one query. Raises TooManyQueries when none is left."""
        if self.queries_left is not None:
            if self.queries_left <= 0:
                raise TooManyQueries(name, kind)
            self.queries_left -= 1


class _Query:
    """A query under way: one caller makes it, the others wait for `done`. `result` stays None if they must ask again,
    because that caller gave up before the backend could answer."""

    __slots__ = ("done", "result")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Result | None = None


class Resolver:
    """Looks names up.

    backend  a gsmtp.dns.nameservers.NameServers, or a gsmtp.dns.static.StaticRecords.
    timeout  seconds for one query. 5: most answers take less than one.
    cache    None: one of the usual size.
    """

    def __init__(self, backend: Backend, timeout: float = 5.0, cache: Cache | None = None) -> None:
        self.cache = cache if cache is not None else Cache()
        self._backend = backend
        self._timeout = timeout
        self._lock = threading.Lock()
        self._queries: dict[tuple[str, Kind], _Query] = {}

    @overload
    def query(self, name: str, kind: Literal["A", "AAAA"], budget: Budget | None = None) -> Answer[IPAddress]: ...
    @overload
    def query(self, name: str, kind: Literal["MX"], budget: Budget | None = None) -> Answer[Mx]: ...
    @overload
    def query(self, name: str, kind: Literal["PTR"], budget: Budget | None = None) -> Answer[str]: ...
    @overload
    def query(self, name: str, kind: Literal["TLSA"], budget: Budget | None = None) -> Answer[Tlsa]: ...
    @overload
    def query(self, name: str, kind: Literal["TXT"], budget: Budget | None = None) -> Answer[bytes]: ...
    def query(self, name: str, kind: Kind, budget: Budget | None = None) -> Answer[Any]:
        """Return the records of a domain name, which may be internationalized.

        Raises InvalidName; NoSuchName, NoData; TemporaryFailure, of which LookupTimedOut and Bogus are kinds;
        TooManyQueries.
        """
        name = _checked(name, kind)
        deadline = monotonic() + self._timeout
        if budget is not None:
            budget.take(name, kind)
            deadline = min(deadline, budget.deadline)
        found = self.cache.get(name, kind)
        return _returned(found if found is not None else self._ask_once(name, kind, deadline))

    def cached(self, name: str, kind: Kind) -> Answer[Any] | None:
        """Return the records if they are known already, or None, without waiting. Raises what is known, as `query`."""
        name = _checked(name, kind)
        found = self.cache.get(name, kind)
        return None if found is None else _returned(found)

    def _ask_once(self, name: str, kind: Kind, deadline: float) -> Result:
        key = name, kind
        while True:
            with self._lock:
                known = self.cache.get(name, kind)
                if known is not None:
                    return known
                query = self._queries.get(key)
                if query is None:
                    mine = self._queries[key] = _Query()
                    break
            if not query.done.wait(max(0.0, deadline - monotonic())):
                return LookupTimedOut(name, kind)
            if query.result is not None:
                return query.result
        try:
            result, final = self._ask(name, kind, deadline)
            if final:
                mine.result = result
            return result
        finally:
            with self._lock:
                del self._queries[key]
                if mine.result is not None:
                    self.cache.put(name, kind, mine.result)
            mine.done.set()

    def _ask(self, name: str, kind: Kind, deadline: float) -> tuple[Result, bool]:
        """Return what the backend says, and whether that holds for others too: a timeout does when the backend had at
        least half of the usual time, which is enough for one name server to show that it does not answer."""
        lifetime = deadline - monotonic()
        if lifetime <= 0:
            return LookupTimedOut(name, kind), False
        try:
            return self._backend.query(name, kind, lifetime), True
        except LookupTimedOut as error:
            return copy.copy(error), lifetime >= self._timeout / 2
        except DnsError as error:
            return copy.copy(error), True  # without its traceback


def _checked(name: str, kind: Kind) -> str:
    try:
        return ascii_name(name)
    except ValueError as error:
        raise InvalidName(name, kind, str(error)) from None


def _returned(result: Result) -> Answer[Any]:
    if isinstance(result, DnsError):
        # A copy: several callers may raise it at the same time, and each adds its traceback.
        raise copy.copy(result)
    return result
