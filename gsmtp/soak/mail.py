"""What is replayed: mails, and the file in which client processes share them.

Promises: a mail is written once, as it goes over the wire, and all clients map the same pages. Must not know: where
the mails came from, how they are sent.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

# Each message gets this field in front, so that it can be told from others with the same mail in it.
ID_FIELD = b"X-Soak-Id: "


@dataclass(frozen=True, slots=True)
class Mail:
    """`content` ends in CRLF and has no bare newline; `weight`: how often it is sent, against the others."""

    kind: str
    content: bytes
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A mail in the bag: where its wire form stands, end of data included, and what MAIL must say of it.

    `digest` is of the content as it should arrive behind the id field; `stuffed` tells whether dots were added.
    """

    kind: str
    offset: int
    length: int
    size: int
    digest: str
    eight_bit: bool
    smtputf8: bool
    stuffed: bool
    weight: float


def digest(content: bytes | memoryview) -> str:
    """By which content is compared."""
    return hashlib.sha256(content).hexdigest()


def write_bag(path: Path, mails: Iterable[Mail]) -> list[Entry]:
    """Put the mails in a file, and beside it their index. Mails are taken one at a time."""
    entries = []
    with path.open("wb") as file:
        for mail in mails:
            content = mail.content
            wire = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
            head = content.partition(b"\r\n\r\n")[0]
            entries.append(
                Entry(
                    kind=mail.kind,
                    offset=file.tell(),
                    length=len(wire),
                    size=len(content),
                    digest=digest(content),
                    eight_bit=not content.isascii(),
                    smtputf8=not head.isascii(),
                    stuffed=len(wire) > len(content) + 3,
                    weight=mail.weight,
                )
            )
            file.write(wire)
    _index(path).write_text(json.dumps([asdict(entry) for entry in entries]))
    return entries


class Bag:
    """The file again, in a client."""

    def __init__(self, path: Path) -> None:
        self.entries = [Entry(**each) for each in json.loads(_index(path).read_text())]
        with path.open("rb") as file:
            self._view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._weights = list(itertools.accumulate(entry.weight for entry in self.entries))
        self._all = range(len(self.entries))
        by_size = sorted(self._all, key=lambda at: self.entries[at].size)
        self.largest = by_size[-max(1, len(by_size) // 100) :]

    def wire(self, at: int) -> memoryview:
        """The mail's content and end of data."""
        entry = self.entries[at]
        return self._view[entry.offset : entry.offset + entry.length]

    def draw(self, dice: random.Random, count: int) -> list[int]:
        """Some mails, by their weights."""
        return dice.choices(self._all, cum_weights=self._weights, k=count)


def _index(path: Path) -> Path:
    return path.with_suffix(".json")
