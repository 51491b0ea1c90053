from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gsmtp_workers import scoreboard
from gsmtp_workers.columns import Column, Kind
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
    WORKER_COLUMNS,
    Scoreboard,
    WorkerState,
)

COLUMNS = (
    Column("messages", Kind.COUNTER, "messages accepted"),
    Column("bytes", Kind.COUNTER, "their size"),
    Column("open", Kind.GAUGE, "transactions"),
)


@pytest.fixture
def board() -> Iterator[Any]:
    created, fd = Scoreboard.create(5, COLUMNS)
    board: Any = created
    board.fd = fd
    yield board
    os.close(fd)


def enter(board: Any, slot: Any, sessions: int = 0, beat: float = 100.0, state: Any = WorkerState.READY) -> Any:
    row = board.row(slot)
    row[PID], row[STATE], row[BEAT], row[SESSIONS] = 1000 + slot, state, beat, sessions
    row[SCORE] = sessions if state is WorkerState.READY else math.inf
    return row


def test_a_row_is_read_back_by_another_mapping(board: Any) -> None:
    row = enter(board, 3, sessions=7)
    row[GENERATION], row[LAG], row[ACCEPTED], row[RSS], row[COUNTERS + 1] = 2, 0.25, 9, 4096, 2.0**53
    [slot] = Scoreboard.open(board.fd).read()
    assert (slot.slot, slot.pid, slot.state, slot.generation) == (3, 1003, WorkerState.READY, 2)
    assert (slot.beat, slot.lag, slot.sessions, slot.accepted, slot.rss) == (100.0, 0.25, 7, 9, 4096)
    assert slot.counters == {"messages": 0, "bytes": 2.0**53, "open": 0}


def test_rows_do_not_touch(board: Any) -> None:
    for slot in range(5):
        for at in range(COUNTERS + 2):
            board.row(slot)[at] = slot + 1
    assert [list(board.row(slot)[: COUNTERS + 2]) for slot in range(5)] == [
        [slot + 1] * (COUNTERS + 2) for slot in range(5)
    ]
    assert not board.stopping


def test_counters_do_not_fall_when_a_worker_is_retired_and_gauges_end_with_it(board: Any) -> None:
    for slot in (0, 1):
        row = enter(board, slot)
        row[ACCEPTED], row[COUNTERS], row[COUNTERS + 2] = 10, 5, 3
    assert board.totals() == {"accepted": 20, "messages": 10, "bytes": 0, "open": 6}
    board.retire(0)
    assert [slot.slot for slot in board.read()] == [1]
    enter(board, 0)[ACCEPTED] = 1
    assert board.totals() == {"accepted": 21, "messages": 10, "bytes": 0, "open": 3}
    board.retire(0)
    board.retire(1)
    assert board.totals() == {"accepted": 21, "messages": 10, "bytes": 0, "open": 0}


def test_the_indices_are_those_of_the_columns(board: Any) -> None:
    for at, column in enumerate(WORKER_COLUMNS):
        assert getattr(scoreboard, column.name.upper()) == at
    assert len(WORKER_COLUMNS) == COUNTERS
    assert board.columns == (*WORKER_COLUMNS, *COLUMNS)
    assert all(column.help for column in board.columns)


READER = """
import json, struct, sys
data = open(sys.argv[1], "rb").read()
magic, version, slots, width, start, length = struct.unpack_from("=8s5I", data)
description = json.loads(data[28 : 28 + length])
rows = [struct.unpack_from(f"={width}d", data, start + 8 * width * at) for at in range(slots + 2)]
names = [column["name"] for column in description["columns"]]
server = dict(zip((column["name"] for column in description["server"]), rows[0]))
kinds = {column["name"]: column["kind"] for column in description["columns"]}
print(json.dumps([magic.decode(), version, server, kinds, [dict(zip(names, row)) for row in rows[2:] if row[0]]]))
"""


def test_a_stranger_can_read_the_file_by_its_documentation(board: Any) -> None:
    enter(board, 3, sessions=7)[COUNTERS + 2] = 4
    board.stopping = True
    path = f"/proc/{os.getpid()}/fd/{board.fd}"
    done = subprocess.run([sys.executable, "-c", READER, path], capture_output=True, text=True, check=True)
    magic, version, server, kinds, [row] = json.loads(done.stdout)
    assert (magic, version, server) == ("gsmtp-sb", 1, {"stopping": 1})
    assert (kinds["accepted"], kinds["messages"], kinds["open"]) == ("counter", "counter", "gauge")
    assert (row["pid"], row["state"], row["sessions"], row["open"]) == (1003, WorkerState.READY, 7, 4)


def test_a_path_is_opened_to_read_only(board: Any) -> None:
    enter(board, 3, sessions=7)
    found = Scoreboard.open(f"/proc/self/fd/{board.fd}")
    assert found.read() == board.read()
    with pytest.raises(TypeError):
        found.row(3)[SESSIONS] = 8


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100, b"gsmtp-sb" + b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError):
        Scoreboard.open(tmp_path / "file")


def test_stopping_is_seen_by_all(board: Any) -> None:
    board.stopping = True
    assert Scoreboard.open(board.fd).stopping


def test_scores_are_those_of_ready_fresh_others(board: Any) -> None:
    enter(board, 0, 9)
    enter(board, 1, 5)
    enter(board, 2, 0, beat=97.0)
    enter(board, 3, 0, state=WorkerState.DRAINING)
    assert board.scores([0, 2, 3, 4], 99.0, 2.0)() == (9,)
    scores = board.scores([0, 1, 2, 3], 99.0, 2.0)
    assert scores() == (9, 5)
    board.row(0)[SCORE] = 10
    assert scores() == (10, 5)
    board.retire(1)
    assert scores() == (10, math.inf)


def test_no_others_no_scores(board: Any) -> None:
    enter(board, 0)
    assert board.scores([1, 2, 3, 4], 100.0, 2.0) is None
    assert board.scores([0, 2, 3, 4], 200.0, 2.0) is None
