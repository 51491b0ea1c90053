"""A worker process as the master sees it: start it by fork and exec, know its phase, end it in time.

Promises: a child is given nothing but the descriptors named here, and is reaped by its own pid only. Must
not know: how many children there should be, or when one should end.
"""

from __future__ import annotations

import grp
import json
import logging
import math
import os
import pwd
import signal
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path

from gsmtp_workers.plan import Plan, PlanError
from gsmtp_workers.scoreboard import anonymous_file

log = logging.getLogger("workers")

# Blocked while a child is started, so that it is not killed before it can say what they mean to it.
_HELD_BACK = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_HOME = Path(__file__).resolve().parents[1]

Identity = tuple[int, int, list[int]]


class Phase(Enum):
    """What the master knows of a child, or has asked of it."""

    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"


class Crew:
    """What all children of a run have in common: the plan in a file, and the descriptors they inherit."""

    def __init__(
        self,
        plan: Plan,
        identity: Identity | None,
        listeners: list[tuple[int, str]],
        board_fd: int,
        death_fd: int,
        status_fd: int,
        shared_fd: int,
        checking: bool = False,
    ) -> None:
        self.plan = plan
        self._files = [(path, _in_memory(path)) for path in plan.files]
        content = {
            "plan": plan.to_json(),
            "files": self._files,
            "listeners": listeners,
            "board_fd": board_fd,
            "death_fd": death_fd,
            "status_fd": status_fd,
            "shared_fd": shared_fd,
            "identity": identity,
            "checking": checking,
        }
        self._file = anonymous_file("plan")
        with open(self._file, "wb", closefd=False) as file:
            file.write(json.dumps(content).encode())
        self._fds = [self._file, board_fd, death_fd, status_fd, shared_fd, *(fd for fd, _ in listeners)]
        self._fds += [fd for _, fd in self._files]
        self._environment = {
            "MALLOC_ARENA_MAX": "2",  # else each native thread has an arena, and fragments, of its own
            "GEVENT_TRACK_GREENLET_TREE": "0",  # else every greenlet holds the stack that spawned it
            **os.environ,
        }
        if _HOME.name not in ("site-packages", "dist-packages"):  # a checkout
            paths = [str(_HOME), str(_HOME.parent), os.environ.get("PYTHONPATH", "")]
            self._environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)

    def start(self, slot: int, generation: int) -> Child:
        """Start a worker. OSError: the system will not."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gsmtp_workers", str(self._file), str(slot), str(generation)],
                stdin=subprocess.DEVNULL,
                pass_fds=[fd for fd in self._fds if fd >= 0],
                cwd=self.plan.chdir or None,
                env=self._environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return Child(process, slot, generation, self.plan)

    def close(self) -> None:
        """Give up the plan's file and what the plan names."""
        for fd in (self._file, *(fd for _, fd in self._files)):
            os.close(fd)


class Child:
    """One worker process. `deadline` is when the master loses patience with it, on the monotonic clock."""

    def __init__(self, process: subprocess.Popen[bytes], slot: int, generation: int, plan: Plan) -> None:
        self.process = process
        self.slot = slot
        self.generation = generation
        self.phase = Phase.BOOTING
        self.started = time.monotonic()
        self.ready_at: float | None = None
        self.deadline = self.started + plan.boot_timeout
        self._plan = plan
        self._aborted = False

    def __str__(self) -> str:
        return f"worker {self.slot} (pid {self.process.pid})"

    def is_ready(self, now: float) -> None:
        """It has said so."""
        self.phase = Phase.READY
        self.ready_at = now
        self.deadline = math.inf

    def leaves(self, phase: Phase, now: float) -> None:
        """It is ending, by order or by itself; from now on it has the time that the plan gives it."""
        self.phase = phase
        limit = self._plan.drain_timeout if phase is Phase.DRAINING else self._plan.stop_timeout
        self.deadline = now + limit + self._plan.kill_after

    def order(self, phase: Phase, now: float) -> None:
        """Tell it to drain or to stop. One that boots has nothing to lose and ends at once."""
        quick = phase is Phase.STOPPING and self.phase is not Phase.BOOTING
        self.process.send_signal(signal.SIGQUIT if quick else signal.SIGTERM)
        self.leaves(phase, now)

    def lose_patience(self, now: float) -> None:
        """Its deadline is over. A boot gets ABRT first, whose stack dump names the line; then KILL."""
        if self.phase is Phase.BOOTING and not self._aborted:
            log.error("%s not ready after %.3g s", self, self._plan.boot_timeout)
            self.process.send_signal(signal.SIGABRT)
            self._aborted = True
        else:
            log.error("%s does not end, killing it", self)
            self.process.kill()
        self.deadline = now + self._plan.kill_after


def how_ended(status: int) -> str:
    """A Popen returncode in words: "status 3", "SIGKILL"."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def exit_status(status: int) -> int:
    """A Popen returncode as a shell would tell it: 128 + the number of the signal."""
    return status if status >= 0 else 128 - status


def resolve_identity(plan: Plan) -> Identity | None:
    """(uid, gid, supplementary groups) for the workers, or None. PlanError: unknown, or not permitted."""
    if not plan.user and not plan.group:
        return None
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        if plan.user:
            entry = pwd.getpwnam(plan.user)
            uid, gid = entry.pw_uid, entry.pw_gid
            groups = os.getgrouplist(plan.user, gid)
    except KeyError:
        raise PlanError(f"user: there is no user {plan.user!r}") from None
    try:
        if plan.group:
            gid = grp.getgrnam(plan.group).gr_gid
            groups = sorted({gid, *groups}) if plan.user else [gid]
    except KeyError:
        raise PlanError(f"group: there is no group {plan.group!r}") from None
    if os.geteuid() != 0:
        if uid == os.geteuid() and gid in (os.getegid(), *os.getgroups()):
            return None
        raise PlanError("user, group: only root can change them")
    return uid, gid, groups


def _in_memory(path: str) -> int:
    """A descriptor of a copy of this file, which a worker can read whoever it has become. Raises PlanError."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}") from None
    fd = anonymous_file("file")
    os.pwrite(fd, content, 0)
    return fd
