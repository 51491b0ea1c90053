"""The mails that are replayed, and the file in which client processes share them.

Each mail is written once, in the form in which it goes over the wire, and all clients map the same pages. This file
does not know where mails come from or how they are sent.
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

from gsmtp.protocol.framing import DotWriter

# This field is put in front of each message, and tells messages with the same mail in them apart.
ID_FIELD = b"X-Soak-Id: "


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to replay.

    `content` ends in CRLF and has no bare CR or LF. `weight` says how often it is sent, relative to the others.
    """

    kind: str
    content: bytes
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class MailEntry:
    """The index entry of a mail in the mail file.

    `offset` and `length` locate its wire form, which includes the end of data; `size` is that of the content.
    `digest` is of the content, without the id field. `eight_bit` and `smtputf8` say which parameters MAIL needs;
    `stuffed` says whether the wire form differs from the content by dots.
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
    """Return the digest by which contents are compared."""
    return hashlib.sha256(content).hexdigest()


def write_mails(path: Path, mails: Iterable[Mail]) -> list[MailEntry]:
    """Write a mail file and, beside it, its index; return the index.

    `mails` is consumed one at a time. Raises OSError, and ValueError for a mail with a bare CR or LF.
    """
    entries = []
    with path.open("wb") as file:
        for mail in mails:
            content = mail.content
            writer = DotWriter()
            wire_form = writer.write(content) + writer.finish()
            header = content.partition(b"\r\n\r\n")[0]
            entries.append(
                MailEntry(
                    kind=mail.kind,
                    offset=file.tell(),
                    length=len(wire_form),
                    size=len(content),
                    digest=digest(content),
                    eight_bit=not content.isascii(),
                    smtputf8=not header.isascii(),
                    stuffed=len(wire_form) > len(content) + 3,
                    weight=mail.weight,
                )
            )
            file.write(wire_form)
    _index(path).write_text(json.dumps([asdict(entry) for entry in entries]))
    return entries


class MailFile:
    """A mail file, mapped for reading.

    `entries` is its index; `largest` has the indexes of the largest hundredth of the mails, at least one.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.entries = [MailEntry(**each) for each in json.loads(_index(path).read_text())]
        with path.open("rb") as file:
            self._view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._weights = list(itertools.accumulate(entry.weight for entry in self.entries))
        self._all = range(len(self.entries))
        by_size = sorted(self._all, key=lambda index: self.entries[index].size)
        self.largest = by_size[-max(1, len(by_size) // 100) :]

    def wire_form(self, index: int) -> memoryview:
        """Return a mail's content with dots stuffed, and the end of data."""
        entry = self.entries[index]
        return self._view[entry.offset : entry.offset + entry.length]

    def choose(self, rng: random.Random, count: int) -> list[int]:
        """Return the indexes of `count` mails, chosen at random by their weights."""
        return rng.choices(self._all, cum_weights=self._weights, k=count)


def _index(path: Path) -> Path:
    return path.with_suffix(".json")
