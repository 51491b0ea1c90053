"""Limits by client: what a connection is told."""

from __future__ import annotations

import time
from typing import Any

import pytest
from harness.tables import Clock, tables

from gsmtp.server import limits
from gsmtp.server.limits import Limits
from gsmtp.server.settings import RateLimits


def view(table: Any, peer: Any = ("192.0.2.1", 1234), exempt: Any = (), ipv6_prefix: int = 64, **rates: Any) -> Any:
    rates = {"auth_failures": 0, "exempt": list(exempt), "ipv6_prefix": ipv6_prefix, **rates}
    return Limits(table, RateLimits(**{f"limit_{name}": value for name, value in rates.items()})).client(peer)


def test_no_limits_by_default() -> None:
    [table] = tables()
    client = view(table)
    assert not RateLimits(limit_auth_failures=0).limited
    assert RateLimits().limited  # by failed logins
    for ask in (client.open, client.message, client.recipient, client.auth, client.auth_failed):
        assert [ask() for _ in range(1000)] == [None] * 1000
    client.close()


def test_sessions() -> None:
    [table] = tables()
    rates = {"sessions": 2}
    first, second, third = (view(table, **rates) for _ in range(3))
    assert (first.open(), second.open(), third.open()) == (None, None, limits.TOO_MANY_SESSIONS)
    third.close()  # held nothing, so gives nothing back
    assert third.open() is limits.TOO_MANY_SESSIONS
    first.close()
    first.close()
    assert third.open() is None
    assert view(table, **rates).open() is limits.TOO_MANY_SESSIONS


def test_connections_by_interval() -> None:
    [table] = tables()
    rates = {"connections": 2, "sessions": 1}
    for _ in range(2):
        client = view(table, **rates)
        assert client.open() is None
        client.close()
    for _ in range(3):
        assert view(table, **rates).open() is limits.TOO_MANY_CONNECTIONS  # and each has let its session go


def test_messages_and_recipients() -> None:
    one, two = tables(2)
    here, there = view(one, messages=2, recipients=3), view(two, messages=2, recipients=3)
    assert (here.message(), there.message(), here.message()) == (None, None, limits.TOO_MANY_MESSAGES)
    assert [each.recipient() for each in (here, there, here, there)] == [None, None, None, limits.TOO_MANY_RECIPIENTS]
    assert view(one, ("192.0.2.2", 1), messages=2).message() is None


def test_failed_logins() -> None:
    clock = Clock(6000.0)
    one, two = tables(2, clock=clock)
    rates: dict[str, Any] = {"auth_failures": 3, "auth_interval": 600.0}
    here, there = view(one, **rates), view(two, **rates)
    assert (here.auth(), here.auth_failed(), there.auth_failed()) == (None, None, None)
    assert here.auth() is None
    assert there.auth_failed() is limits.TOO_MANY_FAILURES
    assert here.auth() is limits.TOO_MANY_FAILURES
    assert here.open() is None
    assert here.message() is None
    clock.now += 1300
    assert here.auth() is None


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::9%eth0", 1, 0, 2), "2001:db8:1:2::/64"),
        (("127.0.0.1", 1), ""),
        (("::1", 1, 0, 0), ""),
        ("/run/a", ""),
        ("", ""),
        (None, ""),
        (("mx.example", 1), ""),
    ],
)
def test_keys(peer: Any, key: str) -> None:
    [table] = tables()
    made = Limits(table, RateLimits(limit_messages=1))
    assert made.key(peer) == made.key(peer) == key
    client = made.client(peer)
    assert client.message() is None
    assert (client.message() is None) is (key == "")


def test_ipv6_prefixes() -> None:
    [table] = tables()
    peer = ("2001:db8:1:2:3:4:5:6", 1, 0, 0)
    for bits, key in ((128, "2001:db8:1:2:3:4:5:6"), (48, "2001:db8:1::/48"), (1, "::/1")):
        assert Limits(table, RateLimits(limit_ipv6_prefix=bits)).key(peer) == key


def test_one_connection_costs_microseconds() -> None:
    """All questions of a connection with one message: measured some 15; with room for a busy machine."""
    table = tables(4, entries=4096)[0]
    made = Limits(
        table,
        RateLimits(
            limit_sessions=100,
            limit_connections=1 << 40,
            limit_messages=1 << 40,
            limit_recipients=1 << 40,
            limit_auth_failures=20,
        ),
    )
    before = time.process_time()
    for number in range(2000):
        client = made.client((f"192.0.2.{number % 200}", 1))
        assert client.open() is client.message() is client.recipient() is None
        client.close()
    assert (time.process_time() - before) / 2000 < 500e-6
