"""Answers and errors, kept for as long as they hold.

Bounded in entries and in octets: whoever chooses a domain chooses its records. It is not safe for threads by itself;
Resolver has a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gsmtp.dns.answers import Answer, DnsError, Mx, NegativeAnswer, Tlsa

Result = Answer[Any] | DnsError
# Octets that an entry may have on average; one alone may have more.
_AVERAGE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How many answers are kept, and for how many seconds at least and at most, whatever their TTL says.

    entries           4096 take 2 MB with one short record each, and 4 MB of records more at most.
    min_ttl           a name with a TTL of 0 would be looked up for each connection of a burst.
    max_ttl           a mistake that was mended is seen within an hour.
    min_negative_ttl  a client without a name is looked up once a minute at most.
    max_negative_ttl  what an administrator has just added is seen within five minutes (RFC 2308 5 suggests up to three
                      hours).
    failure_ttl       a name server that does not answer is not asked the same again by all who wait (RFC 2308 7 allows
                      five minutes).
    """

    entries: int = 4096
    min_ttl: float = 30.0
    max_ttl: float = 3600.0
    min_negative_ttl: float = 60.0
    max_negative_ttl: float = 300.0
    failure_ttl: float = 10.0


class Cache:
    """By name and kind. When it is full, the entries that were put in first make room."""

    def __init__(self, settings: CacheSettings | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings or CacheSettings()
        self._clock = clock
        # (name, kind) -> (until when on the clock, what, octets)
        self._entries: dict[tuple[str, str], tuple[float, Result, int]] = {}
        self._octets = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str, kind: str) -> Result | None:
        """Return what is known, or None."""
        found = self._entries.get((name, kind))
        return found[1] if found is not None and self._clock() < found[0] else None

    def put(self, name: str, kind: str, result: Result) -> None:
        """Keep an answer or an error, unless it alone is too large."""
        entries, key, octets = self._entries, (name, kind), _octets(result)
        most = self._settings.entries
        self._remove(key)
        if octets > most * _AVERAGE or most < 1:
            return
        while entries and (len(entries) >= most or self._octets + octets > most * _AVERAGE):
            self._remove(next(iter(entries)))
        entries[key] = self._clock() + self._lifetime(result), result, octets
        self._octets += octets

    def _remove(self, key: tuple[str, str]) -> None:
        removed = self._entries.pop(key, None)
        if removed is not None:
            self._octets -= removed[2]

    def _lifetime(self, result: Result) -> float:
        settings = self._settings
        if isinstance(result, Answer):
            return min(max(settings.min_ttl, result.ttl), settings.max_ttl)
        if isinstance(result, NegativeAnswer):
            return min(max(settings.min_negative_ttl, result.ttl or 0.0), settings.max_negative_ttl)
        return settings.failure_ttl


def _octets(result: Result) -> int:
    """Return about how many octets an answer takes: each record is an object, however short it is."""
    if not isinstance(result, Answer):
        return 0
    total = 0
    for record in result.records:
        total += 64
        if isinstance(record, str | bytes):
            total += len(record)
        elif isinstance(record, Mx):
            total += len(record.exchange)
        elif isinstance(record, Tlsa):
            total += len(record.data)
    return total
