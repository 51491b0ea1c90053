"""The master: binds the listeners, keeps the workers running, acts on signals, ends everything.

Promises: one thread; it imports the standard library, and setproctitle where that is installed, but never gevent, ssl,
asyncio or the service's code. A signal handler only queues a byte. The loop reads it, compares what is wanted with what
runs, and starts or ends processes. The listeners stay open here until all workers have ended, so the death of a worker
refuses no client. Must not know: what is served. Weak: while it starts a worker it does nothing else.

Signals: TERM drains and ends (a second one stops quickly), INT and QUIT stop quickly, TTIN and TTOU want one worker
more or fewer; HUP, USR1 and USR2 are only logged. SIGINT stays ignored if it was so at the start (as under nohup).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from gsmtp_workers.config import RunDescriptors
from gsmtp_workers.generation import Generation
from gsmtp_workers.plan import Plan, PlanError
from gsmtp_workers.pool import Pool
from gsmtp_workers.process import WorkerProcess, describe_exit, exit_status, spawn
from gsmtp_workers.proctitle import set_title
from gsmtp_workers.scoreboard import Scoreboard, WorkerState, shared_file
from gsmtp_workers.sockets import close_all

log = logging.getLogger("workers")

_SIGNALS = [
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
]


def run(plan: Plan, ready: Callable[[list[str]], None] | None = None) -> int:
    """Serve `plan` until a signal ends it, and return the exit status.

    The status is 0 after a drain or a quick stop. When no worker ever became ready it is that of the first one (128 + n
    for signal n). `ready` is called once, when each role has a worker that is ready, with the real addresses of the
    listeners in the plan's order: "192.0.2.1:25", "[::]:25", or a unix socket's path.

    Raises BindError or PlanError, before any worker is started.
    """
    if not plan.listeners:
        raise PlanError("no listeners")
    _open_standard_descriptors()
    generation = Generation(0, plan)
    try:
        return Master(generation, ready).run()
    finally:
        generation.close()
        close_all(generation.bound, plan.linger)


def check(plan: Plan) -> int:
    """Run the factory of each role in a worker of its own, and look at what is to be bound without listening there.

    Returns 0, or the exit status of the first worker that failed; stderr or the log says why. Raises BindError,
    PlanError.
    """
    _open_standard_descriptors()
    generation = Generation(0, plan, checking=True)
    board, board_fd = Scoreboard.create(plan.size, plan.counters)
    master, alive = os.pipe()
    run = RunDescriptors(board_fd, master, shared=shared_file(plan.shared_memory))
    try:
        for role in plan.roles:
            worker = spawn(generation, run, role, plan.slots(role)[0])
            returncode = _wait(worker, plan)
            finished = board.slot(worker.slot).state is WorkerState.READY
            if returncode < 0 or (returncode == 0 and not finished):  # then it has said nothing itself
                log.error("%s died: %s, never ready", worker, describe_exit(returncode))
            if returncode or not finished:
                return exit_status(returncode) or 1
        return 0
    except OSError as error:
        raise PlanError(f"cannot start a worker: {error.strerror}: {error.filename}") from None
    finally:
        generation.close()
        for fd in (master, alive, board_fd, run.shared):
            if fd >= 0:
                os.close(fd)


def _wait(worker: WorkerProcess, plan: Plan) -> int:
    """Wait for a worker that only checks, and end it when that takes too long. Returns its Popen returncode."""
    for timeout in (plan.boot_timeout, plan.kill_after):
        try:
            return worker.process.wait(timeout)
        except subprocess.TimeoutExpired:
            worker.enforce_deadline(math.inf)
    return worker.process.wait()


class Master:
    """One run.

    generation  what new workers are made of. Replace it, and workers started from then on are of the new one.
    stopping    None, or the state that all workers were asked to go to: DRAINING or STOPPING.
    """

    def __init__(self, generation: Generation, ready: Callable[[list[str]], None] | None) -> None:
        plan = generation.plan
        self.generation = generation
        self.stopping: WorkerState | None = None
        self._ready = ready
        self._stopping_since = 0.0
        self._board, board_fd = Scoreboard.create(plan.size, plan.counters)
        # Workers hold the read end of the master pipe and see its end of file when the master is gone.
        master_fd, alive_fd = os.pipe()
        self._status_fd, workers_status_fd = os.pipe()
        self._signal_fd, self._wakeup_fd = os.pipe()
        for fd in (self._status_fd, workers_status_fd, self._signal_fd, self._wakeup_fd):
            os.set_blocking(fd, False)
        run = RunDescriptors(board_fd, master_fd, workers_status_fd, shared_file(plan.shared_memory))
        self._descriptors = [board_fd, master_fd, alive_fd, workers_status_fd, run.shared]
        self._descriptors += [self._status_fd, self._signal_fd, self._wakeup_fd]
        self._pools = [Pool(plan, role, self._board, run) for role in plan.roles]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signal_fd, selectors.EVENT_READ, self._handle_signals)
        self._selector.register(self._status_fd, selectors.EVENT_READ, lambda: _drain(self._status_fd))

    @property
    def workers(self) -> list[WorkerProcess]:
        """The processes of all roles."""
        return [worker for pool in self._pools for worker in pool.workers]

    def run(self) -> int:
        """Loop until all workers have ended, and return the exit status. The listeners are left to the caller."""
        plan = self.generation.plan
        if plan.title:
            set_title(f"{plan.title}-master")
        for item in self.generation.bound:
            log.info("listening on %s (%s)", item.listener.name, item.address)
        try:
            with self._signal_handlers():
                while (status := self._manage_workers()) is None:
                    for key, _ in self._selector.select(self._timeout()):
                        key.data()
            if self.stopping:
                log.info("all workers ended after %.1f s", time.monotonic() - self._stopping_since)
            return status
        finally:
            self._selector.close()
            for fd in self._descriptors:
                if fd >= 0:
                    os.close(fd)

    def _manage_workers(self) -> int | None:
        """Bring the workers closer to what is wanted. Returns the exit status when the run has ended, or else None."""
        for pool in self._pools:
            pool.update()
        if self._ready is not None and all(pool.ever_ready for pool in self._pools):
            ready, self._ready = self._ready, None
            ready([item.address for item in self.generation.bound])
        for pool in self._pools:
            pool.reap(stopping=self.stopping is not None)
        self._reap_others()
        for pool in self._pools:
            if not self.stopping and pool.exit_status is None:
                pool.manage(self.generation)
            if pool.exit_status is not None:
                return pool.exit_status
            pool.enforce_deadlines()
        return 0 if self.stopping and not self.workers else None

    def _timeout(self) -> float | None:
        """Return the seconds until something is to be done without a signal; None for never."""
        first = min(pool.deadline for pool in self._pools)
        return None if first == math.inf else max(0.0, first - time.monotonic())

    def _reap_others(self) -> None:
        """Reap processes that are not workers: the master inherits orphans when it is process 1 of a container."""
        if os.getpid() != 1:
            return
        known = {worker.process.pid for worker in self.workers}
        with contextlib.suppress(ChildProcessError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in known:  # a worker: the next round reaps it and looks again
                    return
                os.waitpid(found.si_pid, 0)

    def _handle_signals(self) -> None:
        for number in _drain(self._signal_fd):
            name = signal.Signals(number).name
            if number == signal.SIGTERM:
                self._stop(WorkerState.STOPPING if self.stopping else WorkerState.DRAINING, name)
            elif number in (signal.SIGINT, signal.SIGQUIT):
                self._stop(WorkerState.STOPPING, name)
            elif number in (signal.SIGTTIN, signal.SIGTTOU):
                wanted = self._pools[0].resize(1 if number == signal.SIGTTIN else -1)
                log.info("%s: %d workers wanted", name, wanted)
            elif number != signal.SIGCHLD:
                log.info("%s ignored", name)

    def _stop(self, state: WorkerState, signal_name: str) -> None:
        if self.stopping is state:
            return
        log.info("%s: %s %d workers", signal_name, state.name.lower(), len(self.workers))
        self._stopping_since = self._stopping_since or time.monotonic()
        self.stopping = state
        self._board.stopping = True
        for pool in self._pools:
            pool.end(state)

    @contextlib.contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        """Let the C handler write each signal's number into our pipe; the Python handlers do nothing."""
        before: dict[signal.Signals, Any] = {}
        wakeup = signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        try:
            for number in _SIGNALS:
                if number == signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                before[number] = signal.signal(number, lambda *_: None)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)


def _drain(fd: int) -> bytes:
    """Return what can be read without waiting."""
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 65536)
    return b""


def _open_standard_descriptors() -> None:
    """Point closed standard descriptors to /dev/null, so that no listener becomes "stderr"."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)
