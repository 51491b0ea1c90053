"""The processes of one role, without a master's loop: what it does with its board, pipes and generations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gsmtp_workers import Listener, PlanError
from gsmtp_workers.config import RunDescriptors, WorkerConfig
from gsmtp_workers.generation import Generation
from gsmtp_workers.identity import Identity
from gsmtp_workers.pool import Pool
from gsmtp_workers.process import WorkerProcess
from gsmtp_workers.scoreboard import Scoreboard, WorkerState
from harness.waiting import wait_for
from running import plan


@contextlib.contextmanager
def pooled(made: Any, generation: Generation) -> Iterator[Pool]:
    """A pool for the first role of a plan; its processes are gone afterwards."""
    board, board_fd = Scoreboard.create(made.size, made.counters)
    read, write = os.pipe()
    pool = Pool(made, made.roles[0], board, RunDescriptors(board_fd, read))
    try:
        yield pool
    finally:
        for worker in pool.workers:
            worker.process.kill()
            worker.process.wait()
        for item in generation.bound:
            item.socket.close()
        for fd in (board_fd, read, write):
            os.close(fd)


def ready(pool: Pool) -> WorkerProcess | None:
    pool.update()
    [worker] = pool.workers
    return worker if worker.ready_at is not None else None


def test_workers_are_started_from_the_generation_given() -> None:
    """A generation may be closed and replaced while its worker runs."""
    made = plan(workers=1)
    first = Generation(0, made)
    with pooled(made, first) as pool:
        pool.manage(first)
        old = wait_for(lambda: ready(pool))
        first.close()
        second = Generation(1, made)
        pool.manage(second)
        assert pool.workers == [old]
        old.process.kill()
        old.process.wait()
        pool.reap(stopping=False)
        assert (pool.workers, pool.exit_status) == ([], None)

        def managed() -> list[WorkerProcess]:
            pool.manage(second)
            return pool.workers

        wait_for(managed)
        new = wait_for(lambda: ready(pool))
        assert (new.slot, new.generation) == (0, 1)
        assert pool._board.slot(0).generation == 1
        second.close()
        for item in second.bound:
            item.socket.close()


def test_resize_leaves_room_for_replacements() -> None:
    made = plan(workers=2)
    generation = Generation(0, made)
    with pooled(made, generation) as pool:
        assert [pool.resize(-1), pool.resize(-1), pool.resize(1), pool.resize(1000)] == [1, 1, 2, 34]


def test_a_file_that_cannot_be_read_leaves_nothing_open(tmp_path: Path) -> None:
    present = tmp_path / "present"
    present.write_text("x")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PlanError, match=r"cannot read .*/absent: No such file"):
        Generation(0, plan(files=(str(present), str(tmp_path / "absent"))))
    assert os.listdir("/proc/self/fd") == before


def test_a_generation_gives_each_role_its_listeners(tmp_path: Path) -> None:
    listeners = (Listener("a", "127.0.0.1"), Listener("b", path=str(tmp_path / "socket")))
    generation = Generation(0, plan(listeners=listeners))
    [role] = generation.plan.roles
    (_, address), (_, path) = generation.listeners(role)
    assert path == str(tmp_path / "socket")
    assert isinstance(address, tuple) and address[0] == "127.0.0.1" and int(address[1]) > 0
    generation.close()
    for item in generation.bound:
        item.socket.close()


def test_a_config_is_read_back_equal() -> None:
    made = plan(roles=())
    config = WorkerConfig(
        plan=made,
        role_name="worker",
        slot=3,
        generation=2,
        listeners=((7, ("::1", 25, 0, 0)), (8, "/run/socket")),
        files=(("/etc/key", 9),),
        run=RunDescriptors(3, 4, 5),
        identity=Identity(1, 2, (3, 4)),
        checking=False,
        path=("/a", "/b"),
    )
    fd = config.write()
    try:
        assert WorkerConfig.read(fd) == config
    finally:
        os.close(fd)
    assert config.role == made.roles[0]
    assert config.inherited == [3, 4, 5, 7, 8, 9]


def test_states_are_in_the_order_of_a_life() -> None:
    """The code compares them: what is at least DRAINING ends, what is at least READY serves."""
    assert sorted(WorkerState) == list(WorkerState)
