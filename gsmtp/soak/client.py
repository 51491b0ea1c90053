"""One client process: threads that converse with the server, told what to do by lines of JSON on standard input.

Blocking sockets and threads are what costs a client least. Each order is answered by a line of JSON when it is done;
before `run` is answered, a line for each letter stands in the ledger that the order names.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gsmtp.soak.mail import Bag
from gsmtp.soak.traffic import CONVERSATIONS, Letter, Post, Route
from gsmtp.soak.wire import Gone, Surprise, Wire

_TELL = 20  # surprises that are told in full


class _Run:
    """One order `run`: so many letters or sessions, shared by the threads."""

    def __init__(self, bag: Bag, prefix: str, order: Mapping[str, Any], dice: random.Random) -> None:
        self._bag = bag
        self._prefix = prefix
        self._lock = threading.Lock()
        self._left: int | None = order["messages"]
        self._sessions: int | None = order["sessions"]
        self._numbers = itertools.count()
        self._mails = bag.draw(dice, order["messages"] or 1000)
        self.letters: list[Letter] = []
        self.sessions = 0
        self.cut = 0
        self.surprises: Counter[str] = Counter()

    def begins(self) -> bool:
        """Whether there is to be another session."""
        with self._lock:
            if (self._left is not None and self._left <= 0) or self._sessions == self.sessions:
                return False
            self.sessions += 1
            return True

    def take(self, count: int, among: Sequence[int] | None) -> list[Letter]:
        """See Post."""
        with self._lock:
            if self._left is not None:
                count = min(count, self._left)
                self._left -= count
            numbers = list(itertools.islice(self._numbers, count))
            choice = self._mails if among is None else among
            letters = [Letter(f"{self._prefix}.{number}", choice[number % len(choice)]) for number in numbers]
            self.letters += letters
        return letters

    def failed(self, kind: str, error: Exception) -> None:
        """Note a conversation that did not go as it should; `error` says how."""
        with self._lock:
            if isinstance(error, Gone) or str(error).startswith("421 4.3.2"):
                self.cut += 1
            self.surprises[f"{kind}: {error}"] += 1


class Client:
    """The process: `orders` come one at a time."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._bag = Bag(Path(setup["bag"]))
        self._number = setup["number"]
        self._threads = setup["threads"]
        route = setup["route"]
        addresses = {name: route[name] and (route[name][0], route[name][1]) for name in ("plain", "implicit")}
        self._route = Route(**{**route, **addresses})
        self._seed = setup["seed"]
        self._held: list[Wire] = []

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Converse until so many letters or sessions were had, by kinds and their weights."""
        window = order["window"]
        dice = random.Random(f"{self._seed} {window} {self._number}")
        run = _Run(self._bag, f"{window}.{self._number}", order, dice)
        kinds, weights = list(order["kinds"]), list(order["kinds"].values())

        def work(number: int) -> None:
            own = random.Random(f"{self._seed} {window} {self._number} {number}")
            post = Post(self._route, self._bag, own, run.take)
            while run.begins():
                (kind,) = own.choices(kinds, weights)
                try:
                    CONVERSATIONS[kind](post)
                except (Gone, Surprise) as error:
                    run.failed(kind, error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with open(order["ledger"], "w", encoding="ascii") as file:
            file.writelines(f"{letter.id} {letter.mail} {letter.state}\n" for letter in run.letters)
        return {
            "sessions": run.sessions,
            "cut": run.cut,
            "surprises": dict(run.surprises.most_common(_TELL)),
            "surprised": run.surprises.total(),
        }

    def hold(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Open sessions, every other one under TLS where there is TLS, and keep them."""
        post = Post(self._route, self._bag, random.Random(0), lambda count, among: [])
        failed = Counter[str]()
        for number in range(order["sessions"]):
            try:
                self._held.append(post.open("starttls" if number % 2 else "plain"))
            except (Gone, Surprise) as error:
                failed[f"burst: {error}"] += 1
        return {"held": len(self._held), "surprises": dict(failed.most_common(_TELL)), "surprised": failed.total()}

    def release(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Close what was held."""
        for wire in self._held:
            wire.close()
        self._held.clear()
        return {}


class ClientProcess:
    """The same, seen from the soak. `tell` and `answer` apart, so that all clients work at a time."""

    def __init__(self, number: int, route: Route, bag: Path, threads: int, seed: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gsmtp.soak.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # ctrl-C is for the soak, which ends its clients
        )
        self._send({"number": number, "route": asdict(route), "bag": str(bag), "threads": threads, "seed": seed})

    def tell(self, do: str, **order: Any) -> None:
        """Give an order."""
        self._send({"do": do, **order})

    def answer(self) -> dict[str, Any]:
        """Wait until it is done. ClientDied."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ClientDied(f"a client process ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, what: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise ClientDied(f"a client process is gone: {error}") from None


class ClientDied(Exception):
    """A client process is gone: a fault of the soak, not of the server."""


def main() -> int:
    """Work until standard input ends."""
    setup = sys.stdin.readline()
    if not setup:
        return 2
    client = Client(json.loads(setup))
    does = {"run": client.run, "hold": client.hold, "release": client.release}
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(does[order["do"]](order)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
