import math
import os

import pytest
from gsmtp_workers.scoreboard import (
    ACCEPTED,
    BEAT,
    COUNTERS,
    GENERATION,
    LAG,
    PID,
    RSS,
    SCORE,
    SESSIONS,
    STATE,
    Scoreboard,
    State,
)


@pytest.fixture
def board():
    board = Scoreboard.create(5, ("messages", "bytes"))
    yield board
    os.close(board.fd)


def enter(board, slot, sessions=0, beat=100.0, state=State.READY):
    row = board.row(slot)
    row[PID], row[STATE], row[BEAT], row[SESSIONS] = 1000 + slot, state, beat, sessions
    row[SCORE] = sessions if state is State.READY else math.inf
    return row


def test_a_row_is_read_back_by_another_mapping(board):
    row = enter(board, 3, sessions=7)
    row[GENERATION], row[LAG], row[ACCEPTED], row[RSS], row[COUNTERS + 1] = 2, 0.25, 9, 4096, 2.0**53
    [slot] = Scoreboard(board.fd, 5, ("messages", "bytes")).read()
    assert (slot.slot, slot.pid, slot.state, slot.generation) == (3, 1003, State.READY, 2)
    assert (slot.beat, slot.lag, slot.sessions, slot.accepted, slot.rss) == (100.0, 0.25, 7, 9, 4096)
    assert slot.counters == {"messages": 0, "bytes": 2.0**53}


def test_rows_do_not_touch(board):
    for slot in range(5):
        for at in range(COUNTERS + 2):
            board.row(slot)[at] = slot + 1
    assert [list(board.row(slot)[: COUNTERS + 2]) for slot in range(5)] == [
        [slot + 1] * (COUNTERS + 2) for slot in range(5)
    ]
    assert not board.stopping


def test_totals_do_not_fall_when_a_worker_is_retired(board):
    for slot in (0, 1):
        row = enter(board, slot)
        row[ACCEPTED], row[COUNTERS] = 10, 5
    board.retire(0)
    assert [slot.slot for slot in board.read()] == [1]
    enter(board, 0)[ACCEPTED] = 1
    assert board.totals() == {"accepted": 21, "messages": 10, "bytes": 0}
    board.retire(0)
    board.retire(1)
    assert board.totals() == {"accepted": 21, "messages": 10, "bytes": 0}


def test_stopping_is_seen_by_all(board):
    board.stopping = True
    assert Scoreboard(board.fd, 5, ()).stopping


def test_scores_are_those_of_ready_fresh_others(board):
    enter(board, 0, 9)
    enter(board, 1, 5)
    enter(board, 2, 0, beat=97.0)
    enter(board, 3, 0, state=State.DRAINING)
    assert board.scores(1, 99.0, 2.0)() == (9,)
    scores = board.scores(4, 99.0, 2.0)
    assert scores() == (9, 5)
    board.row(0)[SCORE] = 10
    assert scores() == (10, 5)
    board.retire(1)
    assert scores() == (10, math.inf)


def test_no_others_no_scores(board):
    enter(board, 0)
    assert board.scores(0, 100.0, 2.0) is None
    assert board.scores(1, 200.0, 2.0) is None
