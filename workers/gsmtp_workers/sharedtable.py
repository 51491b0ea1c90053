"""Counts by client, shared by the workers of one master, in memory of a fixed size and without locks.

Each worker writes only its own part of the memory; a count is the sum over all parts. So no update is lost and none
waits. A part is a hash table; its buckets have eight entries each. In a full bucket a new entry replaces the one that
ends first, and a held one only when all are held. A count by interval is kept for the present interval and for the one
before it. The estimate adds to the present count the share of the previous one that a window ending now still covers,
as if that count had come evenly spread.

Errors that follow from this; all but the last two favour the client:
- Workers that decide in the same instant do not see each other's decisions: a limit can be exceeded by one for each
  worker.
- Replaced entries count no more: with more clients at a time than entries, a limit can be exceeded as often as an entry
  is replaced. Nothing is refused because the table is full.
- A worker that starts in the slot of an ended one starts with no counts; those of the ended one are lost.
- Where a client's traffic comes in bursts the estimate is off, by the previous interval's count at most.
- Two clients whose 64-bit fingerprints are equal are counted as one.

Must not know: what is counted, or who a client is. Weak: a reader that meets an entry at the moment when its owner
replaces it may take a neighbour's numbers for one decision. So each refusal is computed twice.

A worker's part, in cells of 8 octets: [magic][7 unused], then buckets of [8 fingerprints][8 x (end, count, before)].
`end` is a time in milliseconds of the system's monotonic clock, from which on the entry has no meaning.
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
# Native, so that each number is read by one load. Not to be written by pack_into, which first zeroes all of it.
_FINGERPRINTS = struct.Struct(f"{_WAYS}Q")
_NUMBERS = struct.Struct("3Q")
# Name and version of the layout, then the number of buckets: a part with another layout is not read.
_MAGIC = int.from_bytes(b"gslt\1", "big") << 24
# A held entry does not end by time. Its "end" is this plus its age, which is later than the end of any other entry.
_HELD = 1 << 60
# Seconds for which others may not see the counts of a new worker, and still see what a dead one held.
_REFRESH = 0.25
_REMEMBERED = 4096


def table_size(slots: int, entries: int) -> int:
    """Return the octets needed for `slots` workers with `entries` entries each.

    The parts of slots that have had no worker take no memory.
    """
    return slots * _part(_buckets(entries)) * _CELL


def _buckets(entries: int) -> int:
    return max(1, -(-entries // _WAYS))


def _part(buckets: int) -> int:
    return _HEADER + buckets * _BUCKET


def table_of(worker: Worker, entries: int) -> SharedTable:
    """Return the table in a worker's shared memory.

    Raises ValueError unless the plan's `shared_memory` is at least `table_size(plan.size, entries)`.
    """
    if worker.shared is None:
        raise ValueError("the plan has no shared memory")
    board = worker.scoreboard

    def serving() -> list[int]:
        # A worker that is not yet READY has no sessions, but may not yet have cleared what its slot's last worker held.
        return [number for number in range(board.slots) if board.row(number)[STATE] >= WorkerState.READY]

    return SharedTable(worker.shared, worker.slot, board.slots, entries, serving)


class SharedTable:
    """The table as one worker uses it.

    Numbers have a kind and a key, such as "messages" and "192.0.2.1". A kind is either taken or held, not both.

    memory  `table_size(slots, entries)` octets that all workers map.
    slot    this worker's part, which no other live worker has. It is cleared here.
    live    returns the slots of the workers that have sessions: what the others held is not counted.
    clock   returns seconds, the same for all processes and never less than before.

    A call takes some microseconds, more with the number of slots that were ever used. Raises ValueError when the memory
    is too small or has no such slot.
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
        """Add `amount` if the sum of the last `interval` seconds stays within `limit`. Returns whether it was added."""
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
            # In this order a reader in between sees too little, but never one interval's count twice.
            cells[at + 2] = cells[at + 1] if ended == end - window else 0
            cells[at + 1] = amount
            cells[at] = end
        return True

    def level(self, kind: str, key: str, interval: float) -> float:
        """Return an estimate of what was taken within the last `interval` seconds."""
        return self._sum(self._fingerprint(kind, key), int(self._clock() * 1000), max(1, int(interval * 1000)))

    def hold(self, kind: str, key: str, limit: int) -> bool:
        """Hold one if fewer than `limit` are held. Returns whether it is held: until `release` or this worker's end."""
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
        """Give back what one `hold` got."""
        fingerprint = self._fingerprint(kind, key)
        at = self._find(fingerprint)
        if at < 0:
            return  # it was replaced by another
        count = self._cells[at + 1]
        if count > 1:
            self._cells[at + 1] = count - 1
        else:
            bucket = self._own + _HEADER + fingerprint % self._buckets * _BUCKET
            self._cells[bucket + (at - bucket - _WAYS) // 3] = 0

    # Reading all parts:

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

    # Writing the own part:

    def _find(self, fingerprint: int) -> int:
        """Return the index of the first of the three cells of our entry, -1 when there is no entry."""
        bucket = self._own + _HEADER + fingerprint % self._buckets * _BUCKET
        fingerprints = _FINGERPRINTS.unpack_from(self._memory, bucket * _CELL)
        if fingerprint not in fingerprints:
            return -1
        return bucket + _WAYS + 3 * fingerprints.index(fingerprint)

    def _replace(self, fingerprint: int, end: int, count: int) -> None:
        """Make an entry in place of a free one, or else of the one that ends first."""
        cells = self._cells
        bucket = self._own + _HEADER + fingerprint % self._buckets * _BUCKET
        ways = range(_WAYS)
        way = min(ways, key=lambda each: cells[bucket + _WAYS + 3 * each] if cells[bucket + each] else 0)
        at = bucket + _WAYS + 3 * way
        cells[bucket + way] = 0  # no reader may find the entry until all of it is new
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
