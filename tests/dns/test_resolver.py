"""The cache, the sharing of queries and the budget, on records from a table and with threads."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

import pytest

from gsmtp.dns.answers import (
    Answer,
    DnsError,
    InvalidName,
    Kind,
    LookupTimedOut,
    NoData,
    NoSuchName,
    TemporaryFailure,
    TooManyQueries,
)
from gsmtp.dns.resolver import Budget, Resolver
from gsmtp.dns.static import StaticRecords

RECORDS: dict[tuple[str, str], Any] = {
    ("example.org", "MX"): [(10, "MX.example.org")],
    ("mx.example.org", "A"): ["192.0.2.1"],
    ("down.example.org", "MX"): TemporaryFailure("down.example.org", "MX"),
}


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("none.example.org", "A", NoSuchName),
        ("example.org", "A", NoData),
        ("down.example.org", "MX", TemporaryFailure),
    ],
)
def test_errors_are_kept_apart_and_remembered(name: str, kind: Any, error: type[DnsError]) -> None:
    backend = StaticRecords(RECORDS)
    resolver = Resolver(backend)
    raised = []
    for _ in range(3):
        with pytest.raises(error) as caught:
            resolver.query(name, kind)
        assert type(caught.value) is error
        raised.append(caught.value)
    assert backend.asked == [(name, kind)]
    # Each caller has one of its own, and what is kept holds on to no caller's frames.
    assert len(set(map(id, raised))) == 3
    kept = resolver.cache.get(name, kind)
    assert isinstance(kept, DnsError) and kept.__traceback__ is None


def test_names_that_are_none() -> None:
    resolver = Resolver(StaticRecords({}))
    with pytest.raises(InvalidName):
        resolver.query("\u2603.example", "A")
    with pytest.raises(InvalidName):
        resolver.cached("\u2603.example", "A")


def test_cached() -> None:
    backend = StaticRecords(RECORDS)
    resolver = Resolver(backend)
    assert resolver.cached("mx.example.org", "A") is None
    found = resolver.query("mx.example.org", "A")
    assert resolver.cached("MX.example.org.", "A") is found
    with pytest.raises(NoSuchName):
        resolver.query("none.example.org", "A")
    with pytest.raises(NoSuchName):
        resolver.cached("none.example.org", "A")
    assert len(backend.asked) == 2


def test_a_budget_of_queries_counts_what_is_known_too() -> None:
    backend = StaticRecords(RECORDS)
    resolver = Resolver(backend)
    budget = Budget(60, queries=3)
    for _ in range(3):
        resolver.query("mx.example.org", "A", budget)
    with pytest.raises(TooManyQueries, match=r"^mx\.example\.org A: too many queries$"):
        resolver.query("mx.example.org", "A", budget)
    assert len(backend.asked) == 1
    resolver.query("mx.example.org", "A")


def test_a_budget_of_seconds() -> None:
    backend = StaticRecords(RECORDS)
    resolver = Resolver(backend)
    with pytest.raises(LookupTimedOut):
        resolver.query("mx.example.org", "A", Budget(0))
    # That nobody was asked is not remembered, and what is known takes no time.
    assert backend.asked == []
    resolver.query("mx.example.org", "A", Budget(60))
    resolver.query("mx.example.org", "A", Budget(0))


class Slow:
    """A backend that answers when it is told to. `lifetimes` are those it was given."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.lifetimes: list[float] = []
        self.error: BaseException | None = None

    def query(self, name: str, kind: Kind, lifetime: float) -> Answer[Any]:
        self.lifetimes.append(lifetime)
        self.asked.release()
        if not self.go.acquire(timeout=lifetime):
            raise LookupTimedOut(name, kind)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return Answer(name, kind, (b"x",), 300, name)


class Caller(threading.Thread):
    """Asks for the same as all others; what came of it is in `result`."""

    def __init__(self, resolver: Resolver, budget: Budget | None = None) -> None:
        super().__init__()
        self._resolver, self._budget = resolver, budget
        self.result: Answer[bytes] | BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._resolver.query("a.example", "TXT", self._budget)
        except BaseException as error:
            self.result = error


def finish(*callers: Caller) -> list[Any]:
    for caller in callers:
        caller.join(20)
        assert not caller.is_alive()
    return [caller.result for caller in callers]


def test_those_who_ask_the_same_share_one_query() -> None:
    backend = Slow()
    resolver = Resolver(backend, timeout=20)
    first = Caller(resolver)
    assert backend.asked.acquire(timeout=20)
    others = [Caller(resolver) for _ in range(20)]
    backend.go.release()
    results = finish(first, *others)
    assert isinstance(results[0], Answer)
    assert all(each is results[0] for each in results)
    assert len(backend.lifetimes) == 1


def test_a_failure_is_shared_too() -> None:
    backend = Slow()
    backend.error = TemporaryFailure("a.example", "TXT", "SERVFAIL")
    resolver = Resolver(backend, timeout=20)
    first = Caller(resolver)
    assert backend.asked.acquire(timeout=20)
    others = [Caller(resolver) for _ in range(5)]
    backend.go.release()
    assert all(type(each) is TemporaryFailure for each in finish(first, *others))
    assert len(backend.lifetimes) == 1
    assert resolver._queries == {}


@pytest.mark.parametrize("how", ["short of time", "killed"])
def test_who_gives_up_does_so_for_himself(how: str) -> None:
    """The first caller has little time, or is killed; the next one asks again, and has its own time."""
    backend = Slow()
    resolver = Resolver(backend, timeout=20)
    first = Caller(resolver, Budget(0.3) if how == "short of time" else None)
    assert backend.asked.acquire(timeout=20)
    second = Caller(resolver)
    if how == "killed":
        backend.error = SystemExit()
        backend.go.release()
    assert backend.asked.acquire(timeout=20)
    backend.go.release()
    results = finish(first, second)
    assert isinstance(results[0], LookupTimedOut if how == "short of time" else SystemExit)
    assert isinstance(results[1], Answer)
    assert len(backend.lifetimes) == 2 and backend.lifetimes[1] > 1
    assert resolver.cached("a.example", "TXT") is results[1]


def test_who_waits_for_another_waits_no_longer_than_his_budget() -> None:
    backend = Slow()
    resolver = Resolver(backend, timeout=20)
    first = Caller(resolver)
    assert backend.asked.acquire(timeout=20)
    began = monotonic()
    with pytest.raises(LookupTimedOut):
        resolver.query("a.example", "TXT", Budget(0.1))
    assert monotonic() - began < 15
    backend.go.release()
    assert isinstance(finish(first)[0], Answer)


def test_a_timeout_of_the_backend_is_remembered() -> None:
    backend = Slow()
    resolver = Resolver(backend, timeout=0.1)
    for _ in range(3):
        with pytest.raises(LookupTimedOut):
            resolver.query("a.example", "TXT")
    assert len(backend.lifetimes) == 1
