"""A client process: threads that converse with the server.

The soak writes orders to its standard input and reads results from its standard output, both as lines of JSON. The
order `run` is answered when all its conversations have ended and the result file that it names has a line for each
delivery. Blocking sockets and threads cost a client the least.
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

from gsmtp.soak.conversations import CONVERSATIONS
from gsmtp.soak.mail import MailFile
from gsmtp.soak.mailer import Delivery, Mailer, Target
from gsmtp.soak.smtp import ConnectionLost, SMTPConnection, UnexpectedReply

_REPORTED = 20  # different problems that one answer names


class _Run:
    """One order `run`: a number of messages or sessions that the threads share."""

    def __init__(self, mails: MailFile, prefix: str, order: Mapping[str, Any], rng: random.Random) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._messages_left: int | None = order["messages"]
        self._max_sessions: int | None = order["sessions"]
        self._numbers = itertools.count()
        self._mails = mails.choose(rng, order["messages"] or 1000)
        self.deliveries: list[Delivery] = []
        self.sessions = 0
        self.problems: Counter[str] = Counter()

    def start_session(self) -> bool:
        """Return whether another session is wanted, and count it."""
        with self._lock:
            if (self._messages_left is not None and self._messages_left <= 0) or self._max_sessions == self.sessions:
                return False
            self.sessions += 1
            return True

    def take(self, count: int, among: Sequence[int] | None) -> list[Delivery]:
        """See Mailer."""
        with self._lock:
            if self._messages_left is not None:
                count = min(count, self._messages_left)
                self._messages_left -= count
            numbers = list(itertools.islice(self._numbers, count))
            indexes = self._mails if among is None else among
            deliveries = [Delivery(f"{self._prefix}.{number}", indexes[number % len(indexes)]) for number in numbers]
            self.deliveries += deliveries
        return deliveries

    def record_problem(self, kind: str, error: Exception) -> None:
        """Count a conversation that ended with an error."""
        with self._lock:
            self.problems[f"{kind}: {error}"] += 1


class Client:
    """The process's side: each method carries out one order and returns its result."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._mails = MailFile(Path(config["mails"]))
        self._number = config["number"]
        self._threads = config["threads"]
        target = config["target"]
        addresses = {name: target[name] and (target[name][0], target[name][1]) for name in ("plain", "implicit")}
        self._target = Target(**{**target, **addresses})
        self._seed = config["seed"]
        self._held: list[SMTPConnection] = []

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Hold conversations, chosen by their weights, until the number of messages or sessions is reached."""
        window = order["window"]
        rng = random.Random(f"{self._seed} {window} {self._number}")
        run = _Run(self._mails, f"{window}.{self._number}", order, rng)
        kinds, weights = list(order["kinds"]), list(order["kinds"].values())

        def work(number: int) -> None:
            own_rng = random.Random(f"{self._seed} {window} {self._number} {number}")
            mailer = Mailer(self._target, self._mails, own_rng, run.take)
            while run.start_session():
                (kind,) = own_rng.choices(kinds, weights)
                try:
                    CONVERSATIONS[kind](mailer)
                except (ConnectionLost, UnexpectedReply) as error:
                    run.record_problem(kind, error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with open(order["result_file"], "w", encoding="ascii") as file:
            file.writelines(f"{delivery.id} {delivery.mail} {delivery.state}\n" for delivery in run.deliveries)
        return {"sessions": run.sessions, "problems": dict(run.problems.most_common(_REPORTED))}

    def hold(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Open sessions and keep them open; every other one is under TLS where the server has TLS."""
        mailer = Mailer(self._target, self._mails, random.Random(0), lambda count, among: [])
        problems = Counter[str]()
        for number in range(order["sessions"]):
            try:
                self._held.append(mailer.open("starttls" if number % 2 else "plain"))
            except (ConnectionLost, UnexpectedReply) as error:
                problems[f"burst: {error}"] += 1
        return {"held": len(self._held), "problems": dict(problems.most_common(_REPORTED))}

    def release(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Close the sessions that `hold` opened."""
        for connection in self._held:
            connection.close()
        self._held.clear()
        return {}


class ClientProcess:
    """The soak's side of a client process. Sending and waiting are apart, so that all clients work at a time."""

    def __init__(self, number: int, target: Target, mails: Path, threads: int, seed: int) -> None:
        """Start the process. Raises OSError, ClientDied."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gsmtp.soak.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt from the terminal goes to the soak, which ends its clients
        )
        self._write({"number": number, "target": asdict(target), "mails": str(mails), "threads": threads, "seed": seed})

    def send(self, name: str, **order: Any) -> None:
        """Give an order. Raises ClientDied."""
        self._write({"name": name, **order})

    def wait(self) -> dict[str, Any]:
        """Wait until the order is carried out, and return its result. Raises ClientDied."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ClientDied(f"a client process ended with status {self.process.wait()}")
        result: dict[str, Any] = json.loads(line)
        return result

    def close(self) -> None:
        """Kill the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _write(self, data: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(data) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise ClientDied(f"a client process is gone: {error}") from None


class ClientDied(Exception):
    """A client process is gone. This is a fault of the soak, not of the server."""


def main() -> int:
    """Carry out orders until standard input ends."""
    config = sys.stdin.readline()
    if not config:
        return 2
    client = Client(json.loads(config))
    orders = {"run": client.run, "hold": client.hold, "release": client.release}
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(orders[order["name"]](order)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
