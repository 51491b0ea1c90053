"""Compares what clients were told with what workers acknowledged: whether each message arrived once and unchanged.

When no session is left, both sides have written all there is of a window. The window is counted then and its files
are emptied, so that nothing accumulates.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gsmtp.soak.mail import MailEntry
from gsmtp.soak.mailer import STORED, UNSURE

_NAMED = 10  # messages that are named


@dataclass
class DeliveryCounts:
    """Counts of messages.

    `stored` were answered 250, `refused` were refused or broken off, `unsure` had no reply. Faults: `lost` were
    answered 250 and not acknowledged, `doubled` were acknowledged more than once, `damaged` have another content or
    an id that nobody sent, `unasked` were acknowledged although refused or broken off. `named` has the first of them.
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
    def ok(self) -> bool:
        """Whether no message is lost, doubled, damaged or unasked."""
        return not (self.lost or self.doubled or self.damaged or self.unasked)

    def add_window(
        self, entries: Sequence[MailEntry], result_files: Iterable[Path], accepted_logs: Iterable[Path]
    ) -> int:
        """Count the messages of a window, and return how many were stored.

        `result_files` are written by clients and removed here; `accepted_logs` are written by workers and emptied
        here. Raises OSError.
        """
        accepted: dict[str, str] = {}
        twice: Counter[str] = Counter()
        for path in accepted_logs:
            with path.open(encoding="ascii", errors="replace") as file:
                for line in file:
                    id, _, digest = line.rstrip("\n").partition(" ")
                    if id in accepted:
                        twice[id] += 1
                    accepted[id] = digest
            os.truncate(path, 0)
        stored = 0
        for path in result_files:
            with path.open(encoding="ascii") as file:
                for line in file:
                    id, mail, state = line.split()
                    stored += self._count(id, entries[int(mail)].digest, state, accepted.pop(id, None))
            path.unlink()
        self._record("doubled", twice)
        self._record("damaged", accepted)  # nobody sent a message with one of these ids
        return stored

    def _count(self, id: str, digest: str, state: str, accepted: str | None) -> bool:
        self.sent += 1
        if state == STORED:
            self.stored += 1
            if accepted is None:
                self._record("lost", [id])
        elif state == UNSURE:
            self.unsure += 1
        else:
            self.refused += 1
            if accepted is not None:
                self._record("unasked", [id])
        if accepted not in (None, digest):
            self._record("damaged", [id])
        return state == STORED

    def _record(self, fault: str, ids: Iterable[str]) -> None:
        for id in ids:
            setattr(self, fault, getattr(self, fault) + 1)
            if len(self.named) < _NAMED:
                self.named.append(f"{id} {fault}")
