"""Limits by client: the shared table with real processes, and what a connection is told."""

import mmap
import os
import signal
import struct
import time

import pytest
from gsmtp_workers.sharedtable import SharedTable, table_size
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.server import limits
from gsmtp.server.limits import Limits
from gsmtp.server.settings import RateLimits

PATIENCE = 30.0


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


def tables(number=1, entries=64, clock=None, live=None):
    """Tables of workers that all live, in one process: they share nothing but the memory."""
    memory = mmap.mmap(-1, table_size(number, entries))
    clock = clock or Clock()
    live = live or (lambda: range(number))
    return [SharedTable(memory, slot, number, entries, live, clock) for slot in range(number)]


def fresh(clock):
    """Let every table look again at which others there are."""
    clock.now += 0.3


# Intervals


def test_a_limit_is_exact_within_one_worker():
    [table] = tables()
    assert [table.take("messages", "a", 1, 3, 60.0) for _ in range(5)] == [True, True, True, False, False]
    assert table.take("messages", "b", 1, 3, 60.0)
    assert table.take("recipients", "a", 1, 3, 60.0)
    assert table.level("messages", "a", 60.0) == 3


def test_amounts_are_granted_whole_or_not():
    [table] = tables()
    assert table.take("recipients", "a", 7, 10, 60.0)
    assert not table.take("recipients", "a", 4, 10, 60.0)
    assert table.take("recipients", "a", 3, 10, 60.0)
    assert not table.take("recipients", "b", 11, 10, 60.0)
    assert table.take("recipients", "a", 0, 10, 60.0)


def test_the_window_slides():
    clock = Clock(6000.0)
    [table] = tables(clock=clock)
    assert table.take("messages", "a", 10, 10, 60.0)
    clock.now = 6059.9
    assert not table.take("messages", "a", 1, 10, 60.0)
    clock.now = 6060.0  # the next interval begins with all of the last one
    assert not table.take("messages", "a", 1, 10, 60.0)
    clock.now = 6066.0
    assert table.level("messages", "a", 60.0) == pytest.approx(9.0)
    assert table.take("messages", "a", 1, 10, 60.0)
    assert not table.take("messages", "a", 1, 10, 60.0)
    clock.now = 6090.0
    assert table.level("messages", "a", 60.0) == pytest.approx(6.0)
    clock.now = 6120.0
    assert table.level("messages", "a", 60.0) == pytest.approx(1.0)
    clock.now = 6180.0
    assert table.level("messages", "a", 60.0) == 0
    assert table.take("messages", "a", 10, 10, 60.0)


def test_what_is_long_past_counts_no_more():
    clock = Clock()
    [table] = tables(clock=clock)
    assert table.take("messages", "a", 10, 10, 60.0)
    clock.now += 3600
    assert table.take("messages", "a", 10, 10, 60.0)


@given(st.lists(st.floats(0.0, 0.4), min_size=20, max_size=60), st.integers(1, 6))
def test_the_estimate_is_never_far_off(steps, limit):
    """No more than two limits' worth in any interval, and never stuck: the bound of this approximation."""
    clock = Clock()
    [table] = tables(clock=clock)
    granted = []
    for step in steps:
        clock.now += step
        if table.take("messages", "a", 1, limit, 1.0):
            granted.append(clock.now)
    assert granted
    for at in granted:
        assert sum(at <= other < at + 1.0 for other in granted) <= 2 * limit
    clock.now += 2.0
    assert table.take("messages", "a", limit, limit, 1.0)


def test_workers_count_together():
    one, two, three = tables(3)
    for table in (one, two, three):
        assert table.take("messages", "a", 2, 6, 60.0)
    for table in (one, two, three):
        assert not table.take("messages", "a", 1, 6, 60.0)
        assert table.level("messages", "a", 60.0) == 6


# Holding


def test_holds():
    one, two = tables(2)
    assert one.hold("sessions", "a", 3) and two.hold("sessions", "a", 3) and two.hold("sessions", "a", 3)
    assert not one.hold("sessions", "a", 3) and not two.hold("sessions", "a", 3)
    assert one.hold("sessions", "b", 3)
    two.release("sessions", "a")
    assert one.hold("sessions", "a", 3)
    for table, times in ((one, 2), (two, 1)):
        for _ in range(times):
            table.release("sessions", "a")
    assert [one.hold("sessions", "a", 3) for _ in range(4)] == [True, True, True, False]


def test_releasing_what_is_not_held_is_harmless():
    [table] = tables()
    table.release("sessions", "a")
    assert table.hold("sessions", "a", 1)
    table.release("sessions", "a")
    table.release("sessions", "a")
    assert table.hold("sessions", "a", 1)
    assert not table.hold("sessions", "a", 1)


def test_a_worker_that_is_not_alive_holds_nothing_but_has_counted():
    clock, alive = Clock(), [0, 1]
    one, two = tables(2, clock=clock, live=lambda: alive)
    assert two.hold("sessions", "a", 1) and two.take("messages", "a", 1, 1, 3600.0)
    assert not one.hold("sessions", "a", 1)
    alive.remove(1)
    fresh(clock)
    assert one.hold("sessions", "a", 1)
    assert not one.take("messages", "a", 1, 1, 3600.0)


def test_a_new_worker_in_an_old_slot_begins_with_nothing():
    clock = Clock()
    memory = mmap.mmap(-1, table_size(2, 64))
    one, old = (SharedTable(memory, slot, 2, 64, lambda: (0, 1), clock) for slot in (0, 1))
    assert old.hold("sessions", "a", 1) and old.take("messages", "a", 1, 1, 60.0)
    assert one.take("messages", "b", 1, 1, 60.0)
    new = SharedTable(memory, 1, 2, 64, lambda: (0, 1), clock)
    assert one.hold("sessions", "a", 1) and one.take("messages", "a", 1, 1, 60.0)
    assert not new.take("messages", "b", 1, 1, 60.0)


# Bounds


def test_a_full_table_refuses_nobody_and_loses_the_oldest():
    clock = Clock(6000.0)
    [table] = tables(entries=64, clock=clock)
    for number in range(1000):
        clock.now += 0.001
        assert table.take("messages", f"old{number}", 1, 1, 60.0)
    clock.now += 60.0
    for number in range(1000):
        assert table.take("messages", f"new{number}", 1, 1, 60.0)
    known = [table.level("messages", f"new{number}", 60.0) for number in range(1000)]
    assert 0 < sum(known) <= 64
    assert known[-1] == 1
    assert not any(table.level("messages", f"old{number}", 60.0) for number in range(1000))


def test_what_is_held_gives_way_last():
    [table] = tables(entries=8)
    assert table.hold("sessions", "a", 1)
    for number in range(100):
        assert table.take("messages", f"{number}", 1, 1, 60.0)
    assert not table.hold("sessions", "a", 1)
    for number in range(8):  # but it does: the table stays as small as it is
        assert table.hold("sessions", f"{number}", 1)
    assert table.hold("sessions", "a", 1)


def test_memory_too_small_is_refused():
    memory = mmap.mmap(-1, table_size(2, 64))
    for slot, slots in ((2, 2), (-1, 2), (0, 3)):
        with pytest.raises(ValueError, match="no room"):
            SharedTable(memory, slot, slots, 64, lambda: ())


def test_a_part_made_for_another_size_is_not_read():
    memory = mmap.mmap(-1, table_size(2, 128))
    small = SharedTable(memory, 0, 2, 64, lambda: (0, 1), Clock())
    large = SharedTable(memory, 1, 2, 128, lambda: (0, 1), Clock())
    assert small.take("messages", "a", 1, 1, 60.0)
    assert large.take("messages", "a", 1, 1, 60.0)


def test_a_call_costs_microseconds():
    """Measured 2 to 3 with four workers; the bound is for a machine that has much else to do."""
    table = tables(4, entries=4096)[0]
    keys = [f"192.0.2.{number}" for number in range(200)]
    before = time.process_time()
    for _ in range(10):
        for key in keys:
            table.take("messages", key, 1, 1 << 40, 60.0)
    assert (time.process_time() - before) / 2000 < 100e-6


# Processes


def fork(work):
    """Run `work` in a child; returns its pid. It leaves by _exit, so that nothing of the test run runs twice."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def reap(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_processes_share_one_limit():
    """Four processes take as fast as they can; together they get the limit, and at most one more for each."""
    workers, limit = 4, 500
    memory, results = mmap.mmap(-1, table_size(workers, 256)), mmap.mmap(-1, 8 * (workers + 1))

    def work(slot):
        table = SharedTable(memory, slot, workers, 256, lambda: range(workers))
        results[8 * workers + slot] = 1
        while sum(results[8 * workers : 8 * workers + workers]) < workers:
            time.sleep(0.001)
        time.sleep(0.3)  # then all know of each other
        granted = sum(table.take("messages", "192.0.2.1", 1, limit, 3600.0) for _ in range(1000))
        struct.pack_into("Q", results, 8 * slot, granted)

    pids = [fork(lambda slot=slot: work(slot)) for slot in range(workers)]
    assert reap(pids) == [0] * workers
    granted = struct.unpack_from(f"{workers}Q", results)
    assert limit <= sum(granted) <= limit + workers - 1
    # An interval that ended in between could only have let more through.


def test_concurrent_updates_lose_nothing():
    """Processes count up and down on the same keys, evicting each other's from nothing; at the end all is back."""
    workers = 3
    memory = mmap.mmap(-1, table_size(workers + 1, 64))

    def work(slot):
        table = SharedTable(memory, slot, workers + 1, 64, lambda: range(workers + 1))
        for number in range(2000):
            key = f"{number % 5}"
            assert table.hold("sessions", key, 1000)
            assert table.take("messages", key, 1, 1 << 40, 3600.0)
            table.release("sessions", key)

    assert reap([fork(lambda slot=slot: work(slot)) for slot in range(workers)]) == [0] * workers
    table = SharedTable(memory, workers, workers + 1, 64, lambda: range(workers + 1))
    counted = sum(table.level("messages", f"{number}", 3600.0) for number in range(5))
    assert 0.99 * 6000 < counted <= 6000
    for number in range(5):
        assert table.hold("sessions", f"{number}", 1)


def test_a_killed_worker_does_not_hold_for_ever():
    memory, alive = mmap.mmap(-1, table_size(2, 64)), mmap.mmap(-1, 2)
    alive[0] = 1

    def live():
        return [slot for slot in range(2) if alive[slot]]

    def work():
        table = SharedTable(memory, 1, 2, 64, live)
        for _ in range(5):
            table.hold("sessions", "192.0.2.1", 5)
        alive[1] = 1
        signal.pause()

    pid = fork(work)
    deadline = time.monotonic() + PATIENCE
    while not alive[1]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    table = SharedTable(memory, 0, 2, 64, live)
    assert not table.hold("sessions", "192.0.2.1", 5)
    os.kill(pid, signal.SIGKILL)
    assert reap([pid]) == [-signal.SIGKILL]
    assert not table.hold("sessions", "192.0.2.1", 5)  # nobody has been told
    alive[1] = 0
    while not table.hold("sessions", "192.0.2.1", 5):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    alive[1] = 1
    successor = SharedTable(memory, 1, 2, 64, live)
    assert successor.hold("sessions", "192.0.2.1", 5)


# What a connection is told


def view(table, peer=("192.0.2.1", 1234), exempt=(), ipv6_prefix=64, **rates):
    rates = {"auth_failures": 0, "exempt": list(exempt), "ipv6_prefix": ipv6_prefix, **rates}
    return Limits(table, RateLimits(**{f"limit_{name}": value for name, value in rates.items()})).client(peer)


def test_no_limits_by_default():
    [table] = tables()
    client = view(table)
    assert not RateLimits(limit_auth_failures=0).limited
    assert RateLimits().limited  # by failed logins
    for ask in (client.open, client.message, client.recipient, client.auth, client.auth_failed):
        assert [ask() for _ in range(1000)] == [None] * 1000
    client.close()


def test_sessions():
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


def test_connections_by_interval():
    [table] = tables()
    rates = {"connections": 2, "sessions": 1}
    for _ in range(2):
        client = view(table, **rates)
        assert client.open() is None
        client.close()
    for _ in range(3):
        assert view(table, **rates).open() is limits.TOO_MANY_CONNECTIONS  # and each has let its session go


def test_messages_and_recipients():
    one, two = tables(2)
    here, there = view(one, messages=2, recipients=3), view(two, messages=2, recipients=3)
    assert (here.message(), there.message(), here.message()) == (None, None, limits.TOO_MANY_MESSAGES)
    assert [each.recipient() for each in (here, there, here, there)] == [None, None, None, limits.TOO_MANY_RECIPIENTS]
    assert view(one, ("192.0.2.2", 1), messages=2).message() is None


def test_failed_logins():
    clock = Clock(6000.0)
    one, two = tables(2, clock=clock)
    rates = {"auth_failures": 3, "auth_interval": 600.0}
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
def test_keys(peer, key):
    [table] = tables()
    made = Limits(table, RateLimits(limit_messages=1))
    assert made.key(peer) == made.key(peer) == key
    client = made.client(peer)
    assert client.message() is None
    assert (client.message() is None) is (key == "")


def test_ipv6_prefixes():
    [table] = tables()
    peer = ("2001:db8:1:2:3:4:5:6", 1, 0, 0)
    for bits, key in ((128, "2001:db8:1:2:3:4:5:6"), (48, "2001:db8:1::/48"), (1, "::/1")):
        assert Limits(table, RateLimits(limit_ipv6_prefix=bits)).key(peer) == key


def test_one_connection_costs_microseconds():
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
