"""Whether each message is there once and as it was sent: what clients were told against what handlers acknowledged.

At rest both sides have said all they will of a window, so it is balanced then and forgotten: nothing piles up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gsmtp.soak.mail import Entry
from gsmtp.soak.traffic import STORED, UNSURE

_NAMED = 10


@dataclass
class Balance:
    """Counts of messages. `lost`: answered 250 and not acknowledged; `doubled`: acknowledged more than once;
    `damaged`: other content, or an id that nobody sent; `unasked`: acknowledged although refused or broken off.
    """

    sent: int = 0
    stored: int = 0
    refused: int = 0
    unsure: int = 0
    lost: int = 0
    doubled: int = 0
    damaged: int = 0
    unasked: int = 0
    named: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Nothing lost, doubled, damaged or unasked."""
        return not (self.lost or self.doubled or self.damaged or self.unasked)

    def add(self, entries: Sequence[Entry], ledgers: Iterable[Path], journals: Iterable[Path]) -> int:
        """Balance a window and empty its files. Returns how many messages were stored in it."""
        found: dict[str, str] = {}
        twice: Counter[str] = Counter()
        for journal in journals:
            with journal.open(encoding="ascii", errors="replace") as file:
                for line in file:
                    id, _, digest = line.rstrip("\n").partition(" ")
                    if id in found:
                        twice[id] += 1
                    found[id] = digest
            os.truncate(journal, 0)
        stored = 0
        for ledger in ledgers:
            with ledger.open(encoding="ascii") as file:
                for line in file:
                    id, mail, state = line.split()
                    stored += self._weigh(id, entries[int(mail)].digest, state, found.pop(id, None))
            ledger.unlink()
        self._note("doubled", twice)
        self._note("damaged", found)  # their ids are none that was sent
        return stored

    def _weigh(self, id: str, digest: str, state: str, found: str | None) -> bool:
        self.sent += 1
        if state == STORED:
            self.stored += 1
            if found is None:
                self._note("lost", [id])
        elif state == UNSURE:
            self.unsure += 1
        else:
            self.refused += 1
            if found is not None:
                self._note("unasked", [id])
        if found not in (None, digest):
            self._note("damaged", [id])
        return state == STORED

    def _note(self, what: str, ids: Iterable[str]) -> None:
        for id in ids:
            setattr(self, what, getattr(self, what) + 1)
            if len(self.named) < _NAMED:
                self.named.append(f"{id} {what}")
