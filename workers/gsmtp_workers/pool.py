"""The processes of one role: as many as wanted are kept, those that fail are started again after a wait.

Promises: `manage` starts or ends processes until as many run as wanted, and starts only one until the first has become
ready: a service that cannot start fails once. Nothing here waits. Must not know: signals, listeners, how the run ends.
Weak: a worker's state comes from the scoreboard, so a worker that writes something false there is believed.
"""

from __future__ import annotations

import logging
import math
import time

from gsmtp_workers.config import RunDescriptors
from gsmtp_workers.generation import Generation
from gsmtp_workers.plan import Plan, Role
from gsmtp_workers.process import WorkerProcess, describe_exit, exit_status, spawn
from gsmtp_workers.scoreboard import Scoreboard, Slot, WorkerState

log = logging.getLogger("workers")


class Backoff:
    """The failures of a slot in a row, and when the next start may be tried on the monotonic clock."""

    def __init__(self) -> None:
        self.failures = 0
        self.retry_at = 0.0

    def fail(self, plan: Plan, now: float) -> float:
        """Count a failure and return the seconds to wait."""
        wait = min(plan.backoff_limit, plan.backoff_first * 2.0 ** min(self.failures, 64))
        self.failures += 1
        self.retry_at = now + wait
        return wait


class Pool:
    """The processes of one role.

    wanted       how many to keep.
    workers      those that run, the ending ones too.
    ever_ready   whether one of them has ever become ready.
    exit_status  None, or the status with which the run must end because none ever became ready.
    next_start   when `manage` must be called again to start one, on the monotonic clock; infinite for never.
    """

    def __init__(self, plan: Plan, role: Role, board: Scoreboard, run: RunDescriptors) -> None:
        self.role = role
        self.wanted = role.processes
        self.workers: list[WorkerProcess] = []
        self.ever_ready = False
        self.exit_status: int | None = None
        self.next_start = math.inf
        self._plan = plan
        self._slots = plan.slots(role)
        self._board = board
        self._run = run
        self._backoffs = {slot: Backoff() for slot in self._slots}

    def update(self) -> None:
        """Read on the scoreboard which workers have become ready and which drain by themselves."""
        now = time.monotonic()
        for worker in self.workers:
            slot = self._slot(worker)
            if slot is None or slot.state <= WorkerState.BOOTING:
                continue
            if worker.ready_at is None:
                log.info("%s ready after %.2f s", worker, now - worker.started)
                worker.set_ready(now)
                self.ever_ready = True
            if slot.state is not WorkerState.READY and worker.state is WorkerState.READY:
                log.info("%s drains", worker)
                worker.set_ending(WorkerState.DRAINING, now)

    def reap(self, stopping: bool) -> None:
        """Take away the workers that have ended, and log how. stopping: the run ends, so no end is a failure."""
        now = time.monotonic()
        for worker in list(self.workers):
            returncode = worker.process.poll()
            if returncode is None:
                continue
            slot = self._slot(worker)
            orderly = returncode == 0 and slot is not None and slot.state >= WorkerState.DRAINING
            self.workers.remove(worker)
            self._board.retire(worker.slot)
            verb = "ended" if orderly or worker.state >= WorkerState.DRAINING else "died"
            text = f"{worker} {verb}: {describe_exit(returncode)}, after {now - worker.started:.1f} s"
            if verb == "ended" or stopping:
                log.info("%s", text)
            elif not self.ever_ready:
                self.exit_status = exit_status(returncode) or 1
                log.error("%s, never ready", text)
                return
            else:
                wait = self._delay_next(worker, now)
                log.error("%s; next one %s", text, f"in {wait:.1f} s" if wait else "now")

    def manage(self, generation: Generation) -> None:
        """Start or end workers until as many run as wanted; only one until the first is ready."""
        self.next_start = math.inf
        active = [worker for worker in self.workers if worker.state <= WorkerState.READY]
        missing = (self.wanted if self.ever_ready else 1) - len(active)
        now = time.monotonic()
        for slot in self._free_slots(missing):
            self._start(generation, slot, now)
        # Those that do not serve yet end first, then those in the highest slots.
        active.sort(key=lambda worker: (worker.state is WorkerState.READY, -worker.slot))
        for worker in active[: max(0, -missing)]:
            worker.end(WorkerState.DRAINING, now)

    def end(self, state: WorkerState) -> None:
        """Ask all workers to drain (DRAINING) or to stop quickly (STOPPING)."""
        now = time.monotonic()
        self.next_start = math.inf
        for worker in self.workers:
            worker.end(state, now)

    def resize(self, by: int) -> int:
        """Want `by` more workers and return how many are wanted: at least 1, and room is left for replacements."""
        self.wanted = min(max(1, self.wanted + by), self.role.size // 2 + self.role.processes // 2)
        return self.wanted

    def enforce_deadlines(self) -> None:
        """Kill the workers whose deadlines have passed."""
        now = time.monotonic()
        for worker in self.workers:
            worker.enforce_deadline(now)

    @property
    def deadline(self) -> float:
        """When something is to be done next without a signal, on the monotonic clock; infinite for never."""
        return min([self.next_start, *(worker.deadline for worker in self.workers)])

    def _start(self, generation: Generation, slot: int, now: float) -> None:
        backoff = self._backoffs[slot]
        if backoff.retry_at <= now:
            try:
                self.workers.append(spawn(generation, self._run, self.role, slot))
                return
            except OSError as error:
                wait = backoff.fail(self._plan, now)
                name = self._plan.process_name(self.role, slot)
                log.error("cannot start %s: %s; again in %.1f s", name, error, wait)
                if not self.ever_ready:
                    self.exit_status = 1
        self.next_start = min(self.next_start, backoff.retry_at)

    def _delay_next(self, worker: WorkerProcess, now: float) -> float:
        """Return how long the slot of a worker that died must stay empty."""
        backoff = self._backoffs[worker.slot]
        if worker.ready_at is not None:
            if now - worker.ready_at >= self._plan.backoff_reset:
                backoff.failures = 0
            if now - worker.started >= self._plan.min_lifetime:
                return 0.0
        return backoff.fail(self._plan, now)

    def _free_slots(self, number: int) -> list[int]:
        taken = {worker.slot for worker in self.workers}
        return [slot for slot in self._slots if slot not in taken][: max(0, number)]

    def _slot(self, worker: WorkerProcess) -> Slot | None:
        """Return the worker's row on the scoreboard, None before the worker has written there."""
        slot = self._board.slot(worker.slot)
        return slot if slot.pid == worker.process.pid else None
