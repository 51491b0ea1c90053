"""The shared table: what it counts and holds, in one process and in several."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from typing import Any

import pytest
from gsmtp_workers.sharedtable import SharedTable, table_size
from harness.tables import Clock, tables
from harness.waiting import TIMEOUT
from hypothesis import given
from hypothesis import strategies as st


def fresh(clock: Any) -> None:
    """Let every table look again at which others there are."""
    clock.now += 0.3


# Intervals


def test_a_limit_is_exact_within_one_worker() -> None:
    [table] = tables()
    assert [table.take("messages", "a", 1, 3, 60.0) for _ in range(5)] == [True, True, True, False, False]
    assert table.take("messages", "b", 1, 3, 60.0)
    assert table.take("recipients", "a", 1, 3, 60.0)
    assert table.level("messages", "a", 60.0) == 3


def test_amounts_are_granted_whole_or_not() -> None:
    [table] = tables()
    assert table.take("recipients", "a", 7, 10, 60.0)
    assert not table.take("recipients", "a", 4, 10, 60.0)
    assert table.take("recipients", "a", 3, 10, 60.0)
    assert not table.take("recipients", "b", 11, 10, 60.0)
    assert table.take("recipients", "a", 0, 10, 60.0)


def test_the_window_slides() -> None:
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


def test_what_is_long_past_counts_no_more() -> None:
    clock = Clock()
    [table] = tables(clock=clock)
    assert table.take("messages", "a", 10, 10, 60.0)
    clock.now += 3600
    assert table.take("messages", "a", 10, 10, 60.0)


@given(st.lists(st.floats(0.0, 0.4), min_size=20, max_size=60), st.integers(1, 6))
def test_the_estimate_is_never_far_off(steps: Any, limit: Any) -> None:
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


def test_workers_count_together() -> None:
    one, two, three = tables(3)
    for table in (one, two, three):
        assert table.take("messages", "a", 2, 6, 60.0)
    for table in (one, two, three):
        assert not table.take("messages", "a", 1, 6, 60.0)
        assert table.level("messages", "a", 60.0) == 6


# Holding


def test_holds() -> None:
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


def test_releasing_what_is_not_held_is_harmless() -> None:
    [table] = tables()
    table.release("sessions", "a")
    assert table.hold("sessions", "a", 1)
    table.release("sessions", "a")
    table.release("sessions", "a")
    assert table.hold("sessions", "a", 1)
    assert not table.hold("sessions", "a", 1)


def test_a_worker_that_is_not_alive_holds_nothing_but_has_counted() -> None:
    clock, alive = Clock(), [0, 1]
    one, two = tables(2, clock=clock, live=lambda: alive)
    assert two.hold("sessions", "a", 1) and two.take("messages", "a", 1, 1, 3600.0)
    assert not one.hold("sessions", "a", 1)
    alive.remove(1)
    fresh(clock)
    assert one.hold("sessions", "a", 1)
    assert not one.take("messages", "a", 1, 1, 3600.0)


def test_a_new_worker_in_an_old_slot_begins_with_nothing() -> None:
    clock = Clock()
    memory = mmap.mmap(-1, table_size(2, 64))
    one, old = (SharedTable(memory, slot, 2, 64, lambda: (0, 1), clock) for slot in (0, 1))
    assert old.hold("sessions", "a", 1) and old.take("messages", "a", 1, 1, 60.0)
    assert one.take("messages", "b", 1, 1, 60.0)
    new = SharedTable(memory, 1, 2, 64, lambda: (0, 1), clock)
    assert one.hold("sessions", "a", 1) and one.take("messages", "a", 1, 1, 60.0)
    assert not new.take("messages", "b", 1, 1, 60.0)


# Bounds


def test_a_full_table_refuses_nobody_and_loses_the_oldest() -> None:
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


def test_what_is_held_gives_way_last() -> None:
    [table] = tables(entries=8)
    assert table.hold("sessions", "a", 1)
    for number in range(100):
        assert table.take("messages", f"{number}", 1, 1, 60.0)
    assert not table.hold("sessions", "a", 1)
    for number in range(8):  # but it does: the table stays as small as it is
        assert table.hold("sessions", f"{number}", 1)
    assert table.hold("sessions", "a", 1)


def test_memory_too_small_is_refused() -> None:
    memory = mmap.mmap(-1, table_size(2, 64))
    for slot, slots in ((2, 2), (-1, 2), (0, 3)):
        with pytest.raises(ValueError, match="no room"):
            SharedTable(memory, slot, slots, 64, lambda: ())


def test_a_part_made_for_another_size_is_not_read() -> None:
    memory = mmap.mmap(-1, table_size(2, 128))
    small = SharedTable(memory, 0, 2, 64, lambda: (0, 1), Clock())
    large = SharedTable(memory, 1, 2, 128, lambda: (0, 1), Clock())
    assert small.take("messages", "a", 1, 1, 60.0)
    assert large.take("messages", "a", 1, 1, 60.0)


def test_a_call_costs_microseconds() -> None:
    """Measured 2 to 3 with four workers; the bound is for a machine that has much else to do."""
    table = tables(4, entries=4096)[0]
    keys = [f"192.0.2.{number}" for number in range(200)]
    before = time.process_time()
    for _ in range(10):
        for key in keys:
            table.take("messages", key, 1, 1 << 40, 60.0)
    assert (time.process_time() - before) / 2000 < 100e-6


# Processes


def fork(work: Any) -> Any:
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


def reap(pids: Any) -> Any:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_processes_share_one_limit() -> None:
    """Four processes take as fast as they can; together they get the limit, and at most one more for each."""
    workers, limit = 4, 500
    memory, results = mmap.mmap(-1, table_size(workers, 256)), mmap.mmap(-1, 8 * (workers + 1))

    def work(slot: Any) -> None:
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


def test_concurrent_updates_lose_nothing() -> None:
    """Processes count up and down on the same keys, evicting each other's from nothing; at the end all is back."""
    workers = 3
    memory = mmap.mmap(-1, table_size(workers + 1, 64))

    def work(slot: Any) -> None:
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


def test_a_killed_worker_does_not_hold_for_ever() -> None:
    memory, alive = mmap.mmap(-1, table_size(2, 64)), mmap.mmap(-1, 2)
    alive[0] = 1

    def live() -> Any:
        return [slot for slot in range(2) if alive[slot]]

    def work() -> None:
        table = SharedTable(memory, 1, 2, 64, live)
        for _ in range(5):
            table.hold("sessions", "192.0.2.1", 5)
        alive[1] = 1
        signal.pause()

    pid = fork(work)
    deadline = time.monotonic() + TIMEOUT
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
