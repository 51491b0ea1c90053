"""A worker process as the master sees it: spawned by fork and exec, asked to end, killed when it does not.

Promises: a worker inherits nothing but the descriptors of its config; it runs the interpreter of the master and imports
from the master's sys.path. A worker is reaped by its own pid only. Must not know: how many workers there should be, or
when one should end.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from gsmtp_workers.config import RunDescriptors, WorkerConfig
from gsmtp_workers.generation import Generation
from gsmtp_workers.plan import Plan, Role
from gsmtp_workers.scoreboard import WorkerState

log = logging.getLogger("workers")

# Blocked while a worker starts: until it has set what they do, they would kill it.
_BLOCKED = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
# Run as a file and not with -m, since the worker's own sys.path may lack what the master's has.
_PROGRAM = str(Path(__file__).resolve().with_name("__main__.py"))


class WorkerProcess:
    """One worker process.

    name      its name in logs: "worker 0".
    state     what the master knows that the worker does, or has asked it to do.
    ready_at  when it became READY on the monotonic clock, or None.
    deadline  when the master sends it the next signal if it has not gone on by then, on the monotonic clock.
    """

    def __init__(self, process: subprocess.Popen[bytes], role: Role, slot: int, generation: int, plan: Plan) -> None:
        self.process = process
        self.name = plan.process_name(role, slot)
        self.role = role
        self.slot = slot
        self.generation = generation
        self.state = WorkerState.BOOTING
        self.started = time.monotonic()
        self.ready_at: float | None = None
        self.deadline = self.started + plan.boot_timeout
        self._plan = plan
        self._aborted = False

    def __str__(self) -> str:
        return f"{self.name} (pid {self.process.pid})"

    def set_ready(self, now: float) -> None:
        """Note that the worker has become READY. If it was asked to end before that, ask it again."""
        asked = self.state
        self.state = WorkerState.READY
        self.ready_at = now
        self.deadline = math.inf
        if asked is not WorkerState.BOOTING:  # it could not react then
            self.end(asked, now)

    def set_ending(self, state: WorkerState, now: float) -> None:
        """Note that the worker is DRAINING or STOPPING, and give it the time that the plan allows for that."""
        self.state = state
        limit = self._plan.drain_timeout if state is WorkerState.DRAINING else self._plan.stop_timeout
        self.deadline = now + limit + self._plan.kill_after

    def end(self, state: WorkerState, now: float) -> None:
        """Ask the worker to drain (DRAINING) or to stop quickly (STOPPING). One that boots ends at once."""
        quick = state is WorkerState.STOPPING and self.state is not WorkerState.BOOTING
        self.process.send_signal(signal.SIGQUIT if quick else signal.SIGTERM)
        self.set_ending(state, now)

    def enforce_deadline(self, now: float) -> None:
        """Kill the worker if its deadline has passed. A boot gets SIGABRT first, to show where it hangs."""
        if self.deadline > now:
            return
        if self.state is WorkerState.BOOTING and not self._aborted:
            log.error("%s not ready after %.3g s", self, self._plan.boot_timeout)
            self.process.send_signal(signal.SIGABRT)
            self._aborted = True
        else:
            log.error("%s does not end, killing it", self)
            self.process.kill()
        self.deadline = now + self._plan.kill_after


def spawn(generation: Generation, run: RunDescriptors, role: Role, slot: int) -> WorkerProcess:
    """Start a worker. Raises OSError when the system cannot."""
    plan = generation.plan
    config = WorkerConfig(
        plan=plan,
        role_name=role.name,
        slot=slot,
        generation=generation.number,
        listeners=generation.listeners(role),
        files=generation.files,
        run=run,
        identity=generation.identity,
        checking=generation.checking,
        path=generation.path,
    )
    fd = config.write()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", _PROGRAM, str(fd)],
            stdin=subprocess.DEVNULL,
            pass_fds=[fd, *config.inherited],
            cwd=plan.chdir or None,
            env=generation.environment,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(fd)
    return WorkerProcess(process, role, slot, generation.number, plan)


def describe_exit(returncode: int) -> str:
    """Return a Popen returncode in words: "status 3", "SIGKILL"."""
    if returncode >= 0:
        return f"status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


def exit_status(returncode: int) -> int:
    """Return a Popen returncode as a shell's exit status: 128 + the number of the signal."""
    return returncode if returncode >= 0 else 128 - returncode
