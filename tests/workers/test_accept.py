from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from gsmtp_workers.accept import AcceptDelay
from gsmtp_workers.scoreboard import BEAT, SCORE, STATE, Scoreboard, WorkerState
from harness.waiting import wait_for
from running import Client, Start, plan


@pytest.fixture
def board() -> Iterator[Any]:
    board, fd = Scoreboard.create(8, ())
    yield board
    os.close(fd)


def accept_delay(board: Any, *others: Any, **options: Any) -> Any:
    """The delay of worker 0 beside READY others with these scores."""
    for slot, score in enumerate(others, 1):
        row = board.row(slot)
        row[STATE], row[BEAT], row[SCORE] = WorkerState.READY, time.monotonic(), score
    made = AcceptDelay(board, range(1, 8), plan(**options))
    made.refresh()
    return made


@pytest.mark.parametrize(
    ("own", "others", "delay"),
    [
        (50, (), 0.0),  # alone
        (0, (5, 9), 0.0),  # the least
        (6, (5, 9), 0.0),  # one more is no excess
        (7, (5, 9), 0.001),
        (9, (5, 9), 0.002),
        (103, (100, 100), 0.0),  # within 1 + 5 % of the mean
        (108, (100, 100), 0.004),
        (500, (0, 500), 0.010),  # at most so long
    ],
)
def test_delay(board: Any, own: int, others: Any, delay: float) -> None:
    assert accept_delay(board, *others).seconds(own) == pytest.approx(delay)


def test_workers_that_ceased_to_be_ready_do_not_count(board: Any) -> None:
    made = accept_delay(board, 0, 90)
    assert made.seconds(100) == 0.010
    board.row(1)[SCORE] = math.inf
    assert made.seconds(100) == pytest.approx(0.005)
    board.row(2)[SCORE] = math.inf
    assert made.seconds(100) == 0.0


def test_no_delay_when_the_limit_is_0(board: Any) -> None:
    assert accept_delay(board, 0, accept_delay_limit=0.0).seconds(100) == 0.0


@pytest.mark.parametrize("rate", [None, 200])
def test_held_connections_are_shared_out_evenly(start: Start, rate: int | None) -> None:
    """In a burst, and in a steady trickle, the busiest of four workers has hardly more than the mean."""
    server = start(plan(workers=4)).settled()
    clients = []
    lock = threading.Lock()

    def connect(number: Any) -> None:
        for _ in range(number):
            client = Client(server.address)
            with lock:
                clients.append(client)
            if rate:
                time.sleep(1 / rate)

    threads = [threading.Thread(target=connect, args=(160 if rate else 25,)) for _ in range(1 if rate else 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shares = Counter(client.slot for client in clients)
    assert max(shares.values()) / (len(clients) / 4) < 1.3, shares
    assert {slot["slot"]: slot["sessions"] for slot in server.board()}.keys() == shares.keys()
    for client in clients:
        client.close()
    wait_for(lambda: sum(slot["sessions"] for slot in server.board()) == 1)


def test_a_stuck_worker_is_no_outage(start: Start) -> None:
    """One worker blocks its loop with a count that is low: the other goes on, delayed by little."""
    server = start(plan(workers=2)).settled()
    held = [server.connect() for _ in range(6)]
    blocker = next(client for client in held if client.slot == 0)
    for client in held:
        if client.slot == 0 and client is not blocker:
            client.close()
    time.sleep(1.2 * server.plan.heartbeat)
    blocker.socket.sendall(b"block 2\n")
    time.sleep(0.1)
    began = time.monotonic()
    for _ in range(20):
        with server.connect() as client:
            assert client.slot == 1
    assert time.monotonic() - began < 1.5
    for client in held:
        client.close()
