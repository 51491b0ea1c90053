"""Counts by client, shared by the workers of one master, in memory of a fixed size and without locks.

Each worker has a part of the memory of its own, where it alone writes; a count is the sum over all parts. So no
update can be lost and none waits. A part is a hash table of buckets with eight entries each; where a bucket is full
the entry that ends first gives way, held ones last. Counts by interval are kept for the present interval and the one
before; the estimate takes of the latter what a window sliding back from now would still see, as if that had come
evenly spread.

The errors that follow, all but the last two to the client's favour:
- workers that decide in the same instant do not see each other: a limit is passed by up to one for each worker;
- entries that gave way count no more: with more clients at a time than entries, a limit is passed up to as often as
  an entry is lost. Nothing is ever refused because the table is full;
- a worker that starts in the place of an ended one begins with nothing, and what that had counted is gone;
- the estimate is off where a client's traffic comes in bursts: at most by the last interval's count;
- two clients whose 64-bit fingerprints are equal are counted as one.

Must not know: what is counted, or who a client is. Weak: a reader that meets an entry in the very moment in which
its owner replaces it may take a neighbour's numbers for one decision; so a refusal is looked at twice.

A worker's part, in 8-byte cells: [magic][7 unused], then buckets of [8 fingerprints][8 x (end, count, before)].
An entry's `end` is a time in milliseconds of the system's monotonic clock: that from which it means nothing.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterable
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING

from gsmtp_workers.scoreboard import STATE, WorkerState

if TYPE_CHECKING:
    from gsmtp_workers.worker import Worker

_WAYS = 8
_HEADER = 8
_BUCKET = _WAYS + 3 * _WAYS
_CELL = 8
# Native, so that each number is read by one load. Never written by pack_into, which zeroes all of it first.
_FINGERPRINTS = struct.Struct(f"{_WAYS}Q")
_NUMBERS = struct.Struct("3Q")
# Name and version of the layout, followed by the number of buckets: a part that was made otherwise is not read.
_MAGIC = int.from_bytes(b"gslt\1", "big") << 24
# What is held has no end of its own, only an age: later than the end of anything counted by interval.
_HELD = 1 << 60
# How long a new worker's counts may go unseen by others, in seconds, and a dead one's holds be counted.
_REFRESH = 0.25
_REMEMBERED = 4096


def table_size(slots: int, entries: int) -> int:
    """Octets for `slots` workers with `entries` entries each. Parts of slots without a worker take no memory."""
    return slots * _part(_buckets(entries)) * _CELL


def _buckets(entries: int) -> int:
    return max(1, -(-entries // _WAYS))


def _part(buckets: int) -> int:
    return _HEADER + buckets * _BUCKET


def table_of(worker: Worker, entries: int) -> SharedTable:
    """The table in a worker's shared memory, for which the plan must have `table_size(plan.size, entries)` octets.

    ValueError when it has not.
    """
    if worker.shared is None:
        raise ValueError("the plan has no shared memory")
    board = worker.scoreboard

    def serving() -> list[int]:
        # Before it is READY a worker has no sessions, but perhaps not yet cleared what its slot's last one held.
        return [number for number in range(board.slots) if board.row(number)[STATE] >= WorkerState.READY]

    return SharedTable(worker.shared, worker.slot, board.slots, entries, serving)


class SharedTable:
    """This worker's end of the table; a `LimitStore`.

    memory  `table_size(slots, entries)` octets that all workers map.
    slot    this worker's part, which no other live worker has. It is cleared here.
    live    gives the slots of the workers that have sessions: what others hold is not counted.
    clock   seconds, the same for all processes and never going back.

    Cost: some microseconds a call, growing with the number of slots that were ever used.
    """

    def __init__(
        self,
        memory: mmap.mmap,
        slot: int,
        slots: int,
        entries: int,
        live: Callable[[], Iterable[int]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if len(memory) < table_size(slots, entries) or not 0 <= slot < slots:
            raise ValueError(f"{len(memory)} octets have no room for slot {slot} of {slots} with {entries} entries")
        self._memory = memory
        self._cells = memoryview(memory).cast("Q")
        self._buckets = buckets = _buckets(entries)
        self._parts = [number * _part(buckets) for number in range(slots)]
        self._own = self._parts[slot]
        self._live = live
        self._clock = clock
        self._fingerprints: dict[tuple[str, str], int] = {}
        self._magic = _MAGIC | buckets & 0xFFFFFF
        self._refreshed = float("-inf")
        self._used: list[int] = []
        self._holding: list[int] = []
        start, end = self._own * _CELL, (self._own + _part(buckets)) * _CELL
        self._cells[self._own] = 0
        memory[start:end] = bytes(end - start)
        self._cells[self._own] = self._magic

    def take(self, kind: str, key: str, amount: int, limit: int, interval: float) -> bool:
        """See LimitStore."""
        fingerprint = self._fingerprint(kind, key)
        now = int(self._clock() * 1000)
        window = max(1, int(interval * 1000))
        room = limit - amount
        if self._sum(fingerprint, now, window) > room and self._sum(fingerprint, now, window) > room:
            return False
        end = (now // window + 2) * window
        at = self._find(fingerprint)
        if at < 0:
            self._replace(fingerprint, end, amount)
            return True
        cells = self._cells
        ended = cells[at]
        if ended == end:
            cells[at + 1] += amount
        else:
            # In this order a reader in between sees too little, never one interval's count twice.
            cells[at + 2] = cells[at + 1] if ended == end - window else 0
            cells[at + 1] = amount
            cells[at] = end
        return True

    def level(self, kind: str, key: str, interval: float) -> float:
        """See LimitStore."""
        return self._sum(self._fingerprint(kind, key), int(self._clock() * 1000), max(1, int(interval * 1000)))

    def hold(self, kind: str, key: str, limit: int) -> bool:
        """See LimitStore."""
        fingerprint = self._fingerprint(kind, key)
        if self._held(fingerprint) >= limit and self._held(fingerprint) >= limit:
            return False
        now = int(self._clock() * 1000)
        at = self._find(fingerprint)
        if at < 0:
            self._replace(fingerprint, _HELD + now, 1)
        else:
            self._cells[at + 1] += 1
            self._cells[at] = _HELD + now
        return True

    def release(self, kind: str, key: str) -> None:
        """See LimitStore."""
        fingerprint = self._fingerprint(kind, key)
        at = self._find(fingerprint)
        if at < 0:
            return  # it gave way to another
        count = self._cells[at + 1]
        if count > 1:
            self._cells[at + 1] = count - 1
        else:
            bucket = self._own + _HEADER + fingerprint % self._buckets * _BUCKET
            self._cells[bucket + (at - bucket - _WAYS) // 3] = 0

    # Reading all parts

    def _sum(self, fingerprint: int, now: int, window: int) -> float:
        if now / 1000 - self._refreshed >= _REFRESH:
            self._refresh(now / 1000)
        memory = self._memory
        offset = (_HEADER + fingerprint % self._buckets * _BUCKET) * _CELL
        end = (now // window + 2) * window
        current = before = 0
        for start in self._used:
            at = start + offset
            fingerprints = _FINGERPRINTS.unpack_from(memory, at)
            if fingerprint in fingerprints:
                ended, count, previous = _NUMBERS.unpack_from(
                    memory, at + _CELL * (_WAYS + 3 * fingerprints.index(fingerprint))
                )
                if ended == end:
                    current += count
                    before += previous
                elif ended == end - window:
                    before += count
        return current + before * (window - now % window) / window

    def _held(self, fingerprint: int) -> int:
        now = self._clock()
        if now - self._refreshed >= _REFRESH:
            self._refresh(now)
        memory = self._memory
        offset = (_HEADER + fingerprint % self._buckets * _BUCKET) * _CELL
        total = 0
        for start in self._holding:
            at = start + offset
            fingerprints = _FINGERPRINTS.unpack_from(memory, at)
            if fingerprint in fingerprints:
                numbers = _NUMBERS.unpack_from(memory, at + _CELL * (_WAYS + 3 * fingerprints.index(fingerprint)))
                total += numbers[1]
        return total

    def _refresh(self, now: float) -> None:
        self._refreshed = now
        used = [start for start in self._parts if start == self._own or self._cells[start] == self._magic]
        live = {self._parts[slot] for slot in self._live()} | {self._own}
        self._used = [start * _CELL for start in used]
        self._holding = [start * _CELL for start in used if start in live]

    # Writing our own

    def _find(self, fingerprint: int) -> int:
        """The first of the three cells of our entry, -1 when there is none."""
        bucket = self._own + _HEADER + fingerprint % self._buckets * _BUCKET
        fingerprints = _FINGERPRINTS.unpack_from(self._memory, bucket * _CELL)
        if fingerprint not in fingerprints:
            return -1
        return bucket + _WAYS + 3 * fingerprints.index(fingerprint)

    def _replace(self, fingerprint: int, end: int, count: int) -> None:
        """Make an entry in the place of a free one or of that which ends first."""
        cells = self._cells
        bucket = self._own + _HEADER + fingerprint % self._buckets * _BUCKET
        ways = range(_WAYS)
        way = min(ways, key=lambda each: cells[bucket + _WAYS + 3 * each] if cells[bucket + each] else 0)
        at = bucket + _WAYS + 3 * way
        cells[bucket + way] = 0  # until all of it is new, no reader may find it
        cells[at] = end
        cells[at + 1] = count
        cells[at + 2] = 0
        cells[bucket + way] = fingerprint

    def _fingerprint(self, kind: str, key: str) -> int:
        known = self._fingerprints
        fingerprint = known.get((kind, key))
        if fingerprint is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            digest = blake2b(f"{kind}\0{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
            fingerprint = known[kind, key] = int.from_bytes(digest, "big") or 1
        return fingerprint
