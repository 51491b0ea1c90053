"""Clients for tests that kill and drain: each keeps a list of what it was promised, and of what went wrong."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from harness.client import Client, dot_stuff
from harness.messages import without_trace

_UNIQUE = re.compile(rb"X-Unique: (\S+)\r\n")


class Gone(Exception):
    """The server has gone away; `why` is the system's word for it, `at` the last thing that was sent."""


class Load:
    """Clients in threads, a context manager. `kept`: many messages on a connection, or one.

    promised   id -> SHA-256 of the content, for each message that was answered 250.
    refused    connections refused by the system.
    cut        connections that ended without 421 or 221, as text.
    farewells  421 replies, 421 banners among them.
    """

    def __init__(self, address: str, clients: int, recipients: list[str], large: int = 0) -> None:
        self.promised: dict[str, str] = {}
        self.refused = 0
        self.cut: list[str] = []
        self.farewells: list[str] = []
        self.odd: list[str] = []
        self.stop_at_refusal = False
        self._address = address
        self._recipients = recipients
        self._large = large
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(number, number % 2 == 0), daemon=True)
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Let the clients finish what they are at, and wait for them."""
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"

    def _client(self, number: int, kept: bool) -> None:
        rng = random.Random(number)
        ids = (f"{number}.{count}.{os.urandom(4).hex()}" for count in itertools.count())
        while not self._ending.is_set():
            try:
                self._session(ids, 1000 if kept else 1, rng)
            except ConnectionRefusedError:
                self.refused += 1
                if self.stop_at_refusal:
                    return
                time.sleep(0.02)
            except FileNotFoundError:
                return
            except (OSError, Gone) as error:
                self.cut.append(f"{type(error).__name__}: {error}")

    def _session(self, ids: Iterator[str], messages: int, rng: random.Random) -> None:
        talk = Client(self._address)
        with talk:
            if not self._yes(talk.banner, "banner"):
                return
            if not self._yes(talk.ask("EHLO client.example"), "EHLO"):
                return
            for _ in range(messages):
                if self._ending.is_set():
                    break
                if not self._message(talk, next(ids), rng):
                    return
            self._yes(talk.ask("QUIT"), "QUIT")

    def _message(self, talk: Client, unique: str, rng: random.Random) -> bool:
        size = self._large if self._large and rng.random() < 0.1 else rng.randrange(2000)
        content = f"X-Unique: {unique}\r\n\r\n".encode() + b".x\r\n" * (size // 4)
        for line in ("MAIL FROM:<a@c.example>", *(f"RCPT TO:<{each}>" for each in self._recipients), "DATA"):
            if not self._yes(talk.ask(line), line):
                return False
        data = dot_stuff(content)
        middle = len(data) // 2
        talk.send(data[:middle])
        if rng.random() < 0.2:
            time.sleep(0.02)
        talk.send(data[middle:])
        if not self._yes(talk.reply(), "content"):
            return False
        self.promised[unique] = hashlib.sha256(content).hexdigest()
        return True

    def _yes(self, reply: str, to: str) -> bool:
        if not reply:
            raise Gone(f"end of the connection instead of a reply to {to}")
        if reply.startswith("421"):
            self.farewells.append(reply)
            return False
        if reply[0] not in "23":
            self.odd.append(f"{to}: {reply}")
            return False
        return True

    def check_box(self, box: Path) -> None:
        """What was promised is in the Maildir, whole and once. Nothing there is broken or twice."""
        digests: dict[str, list[str]] = {}
        for path in (box / "new").iterdir():
            content = without_trace(path.read_bytes())
            match = _UNIQUE.match(content)
            assert match is not None, content[:100]
            digests.setdefault(match[1].decode(), []).append(hashlib.sha256(content).hexdigest())
        counts = Counter({unique: len(found) for unique, found in digests.items()})
        lost = [unique for unique in self.promised if unique not in digests]
        assert not lost, f"{len(lost)} of {len(self.promised)} acknowledged messages lost"
        wrong = [unique for unique, digest in self.promised.items() if digests[unique] != [digest]]
        assert not wrong, [(unique, counts[unique]) for unique in wrong]
