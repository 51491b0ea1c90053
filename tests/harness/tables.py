"""Tables of limits in one process, for tests of the table and of what stands on it."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable

from gsmtp_workers.sharedtable import SharedTable, table_size


class Clock:
    """A clock that stands still until `now` is set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def tables(
    number: int = 1,
    entries: int = 64,
    clock: Clock | None = None,
    live: Callable[[], Iterable[int]] | None = None,
) -> list[SharedTable]:
    """Return the tables of workers that all live, in one process: they share nothing but the memory."""
    memory = mmap.mmap(-1, table_size(number, entries))
    clock = clock or Clock()
    live = live or (lambda: range(number))
    return [SharedTable(memory, slot, number, entries, live, clock) for slot in range(number)]
