"""What is kept, and for how long."""

from __future__ import annotations

from typing import Any

import pytest

from gsmtp.dns.answers import Answer, DnsError, LookupTimedOut, Mx, NoData, NoSuchName, TemporaryFailure, Tlsa
from gsmtp.dns.cache import Cache, CacheSettings, _octets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(ttl: int = 300, records: tuple[Any, ...] = (b"x",)) -> Answer[Any]:
    return Answer("a.example", "TXT", records, ttl, "a.example")


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        (answer(0), 30),
        (answer(300), 300),
        (answer(86400), 3600),
        (NoSuchName("a.example", "TXT"), 60),
        (NoSuchName("a.example", "TXT", ttl=0), 60),
        (NoData("a.example", "TXT", ttl=120), 120),
        (NoData("a.example", "TXT", ttl=86400), 300),
        (TemporaryFailure("a.example", "TXT"), 10),
        (LookupTimedOut("a.example", "TXT"), 10),
    ],
    ids=str,
)
def test_how_long(result: Answer[Any] | DnsError, seconds: float) -> None:
    clock = Clock()
    cache = Cache(clock=clock)
    cache.put("a.example", "TXT", result)
    clock.now += seconds - 0.1
    assert cache.get("a.example", "TXT") is result
    assert cache.get("a.example", "A") is cache.get("b.example", "TXT") is None
    clock.now += 0.2
    assert cache.get("a.example", "TXT") is None


def test_entries_are_bounded() -> None:
    cache = Cache(CacheSettings(entries=3))
    for number in range(10):
        cache.put(f"{number}.example", "TXT", answer())
    assert len(cache) == 3
    cache.put("8.example", "TXT", answer(400))  # now the youngest
    cache.put("10.example", "TXT", answer())
    assert [cache.get(f"{number}.example", "TXT") is not None for number in (7, 8, 9, 10)] == [False, True, True, True]
    empty = Cache(CacheSettings(entries=0))
    empty.put("a.example", "TXT", answer())
    assert len(empty) == 0


@pytest.mark.parametrize(
    "records",
    [
        (b"x" * 5000,),
        (b"x" * 2100, b"y" * 2100),
        (Tlsa(3, 0, 0, b"x" * 5000),),
        ("n" * 5000,),
        (b"",) * 100,
        (Mx(10, "n" * 200),) * 20,
    ],
)
def test_octets_are_bounded(records: tuple[Any, ...]) -> None:
    """A large answer has room among small ones, and makes others go. One that alone is too large is not kept."""
    cache = Cache(CacheSettings(entries=10))
    for number in range(9):
        cache.put(f"{number}.example", "TXT", answer())
    cache.put("a.example", "TXT", large := answer(records=records))
    assert cache.get("a.example", "TXT") is large
    assert len(cache) == 10
    for number in range(3):
        cache.put(f"large{number}.example", "TXT", answer(records=records))
    fit = 10 * 1024 // _octets(large)
    assert len(cache) == fit <= 2
    assert cache.get("large2.example", "TXT") is not None
    cache.put("large2.example", "TXT", answer())
    cache.put("b.example", "TXT", answer(records=(b"x" * 10_200,)))
    assert cache.get("b.example", "TXT") is None
    assert len(cache) == fit
