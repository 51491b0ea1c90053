"""The master: bind, keep as many workers as wanted, pass signals on, close up.

Promises: standard library and psutil only, one thread; never imports gevent, ssl, asyncio or the service's
code. A signal handler only queues a byte; the loop reads it, compares what is wanted with what runs, and
starts or ends one. The listeners stay open here until the last act, so a worker's death refuses nobody.
Must not know: what is served. Weak: a worker's state comes from the scoreboard, so a worker that lies there
is believed.

Signals: TERM drains and ends (a second one stops quickly), INT and QUIT stop quickly, TTIN and TTOU one
worker more or fewer; HUP, USR1 and USR2 are only logged. SIGINT stays ignored if it was so at the start (as
under nohup).
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
from dataclasses import dataclass
from typing import Any

from gsmtp_workers.child import Child, Crew, Identity, Phase, exit_status, how_ended, resolve_identity
from gsmtp_workers.plan import Plan, PlanError
from gsmtp_workers.scoreboard import Scoreboard, Slot, State, shared_file
from gsmtp_workers.sockets import BoundListener, bind_all, check_all, close_all

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
    """Serve `plan` until a signal ends it; returns the exit status.

    0 after a drain or a quick stop; when no worker ever became ready, the first one's exit status (128 + n
    for signal n). `ready` is called once, when the first worker is ready, with the listeners' real
    addresses in plan order: "192.0.2.1:25", "[::]:25", or a unix socket's path. Raises BindError or
    PlanError, before any worker is started.
    """
    if not plan.listeners:
        raise PlanError("no listeners")
    _open_standard_descriptors()
    identity = resolve_identity(plan)
    bound = bind_all(plan.listeners)
    try:
        return Master(plan, identity, bound, ready).run()
    finally:
        close_all(bound, plan.linger)


def check(plan: Plan) -> int:
    """Start one worker far enough to run the factory, and look at what is to be bound without listening there.

    Returns 0, or the worker's exit status; what is wrong is on stderr or in the log. Raises BindError, PlanError.
    """
    _open_standard_descriptors()
    identity = resolve_identity(plan)
    check_all(plan.listeners)
    board = Scoreboard.create(plan.slots, plan.counters)
    death, alive = os.pipe()
    listeners = [(-1, listener.path or f"{listener.host}:{listener.port}") for listener in plan.listeners]
    shared = shared_file(plan.shared_memory)
    crew = Crew(plan, identity, listeners, board.fd, death, -1, shared, checking=True)
    try:
        child = crew.start(0, 0)
        status = _patient(child, plan)
        finished = board.slot(0).state is State.READY
        if status < 0 or (status == 0 and not finished):  # it could not, or did not, say anything itself
            log.error("%s died: %s, never ready", child, how_ended(status))
        return exit_status(status) or (0 if finished else 1)
    except OSError as error:
        raise PlanError(f"cannot start a worker: {error.strerror}: {error.filename}") from None
    finally:
        crew.close()
        for fd in (death, alive, board.fd, shared):
            if fd >= 0:
                os.close(fd)


def _patient(child: Child, plan: Plan) -> int:
    """Wait for a worker that only checks, and end it when it takes too long; its Popen returncode."""
    for limit in (plan.boot_timeout, plan.kill_after):
        try:
            return child.process.wait(limit)
        except subprocess.TimeoutExpired:
            child.lose_patience(time.monotonic())
    return child.process.wait()


@dataclass
class Seat:
    """What the master remembers of a slot: failures in a row, and when to try again."""

    failures: int = 0
    retry_at: float = 0.0

    def failed(self, plan: Plan, now: float) -> float:
        """Count a failure; returns the seconds to wait."""
        wait = min(plan.backoff_limit, plan.backoff_first * 2.0 ** min(self.failures, 64))
        self.failures += 1
        self.retry_at = now + wait
        return wait


class Master:
    """One run. `wanted` is the number of workers to keep; `stopping` is None, or how everything ends."""

    def __init__(
        self,
        plan: Plan,
        identity: Identity | None,
        bound: list[BoundListener],
        ready: Callable[[list[str]], None] | None,
    ) -> None:
        self.plan = plan
        self.wanted = plan.workers
        self.stopping: Phase | None = None
        self.children: list[Child] = []
        self.board = Scoreboard.create(plan.slots, plan.counters)
        self._bound = bound
        self._ready = ready
        self._ever_ready = False
        self._status: int | None = None
        self._next_start = math.inf
        self._stopping_since = 0.0
        self._seats = [Seat() for _ in range(plan.slots)]
        # Workers hold the read end of the death pipe and see its end when the master is gone.
        self._death, self._alive = os.pipe()
        self._news, status_fd = os.pipe()
        self._signals, self._wakeup = os.pipe()
        for fd in (self._news, status_fd, self._signals, self._wakeup):
            os.set_blocking(fd, False)
        self._pipes = [self._death, self._alive, self._news, status_fd, self._signals, self._wakeup]
        listeners = [(item.socket.fileno(), item.address) for item in bound]
        self._shared = shared_file(plan.shared_memory)
        self._crew = Crew(plan, identity, listeners, self.board.fd, self._death, status_fd, self._shared)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
        self._selector.register(self._news, selectors.EVENT_READ, lambda: self._drop(self._news))

    def run(self) -> int:
        """Loop until all has ended; returns the exit status. Leaves the listeners to the caller."""
        for item in self._bound:
            log.info("listening on %s (%s)", item.listener.name, item.address)
        try:
            with self._signal_handlers():
                while True:
                    self._hear()
                    self._reap()
                    self._converge()
                    if self._status is not None or (self.stopping and not self.children):
                        break
                    self._hurry()
                    for key, _ in self._selector.select(self._patience()):
                        key.data()
            if self.stopping:
                log.info("all workers ended after %.1f s", time.monotonic() - self._stopping_since)
            return self._status or 0
        finally:
            self._selector.close()
            self._crew.close()
            for fd in (*self._pipes, self.board.fd, self._shared):
                if fd >= 0:
                    os.close(fd)

    def _hear(self) -> None:
        """Learn from the scoreboard what the workers have come to."""
        now = time.monotonic()
        for child in self.children:
            slot = self._slot(child)
            if slot is None or slot.state <= State.BOOTING:
                continue
            if child.ready_at is None:
                self._greet(child, now)
            if slot.state is not State.READY and child.phase is Phase.READY:
                log.info("%s drains", child)
                child.leaves(Phase.DRAINING, now)

    def _greet(self, child: Child, now: float) -> None:
        log.info("%s ready after %.2f s", child, now - child.started)
        asked = child.phase
        child.is_ready(now)
        if asked is not Phase.BOOTING:  # the order came while it could not yet follow it
            child.order(asked, now)
        if not self._ever_ready:
            self._ever_ready = True
            if self._ready is not None:
                self._ready([item.address for item in self._bound])

    def _reap(self) -> None:
        now = time.monotonic()
        for child in list(self.children):
            status = child.process.poll()
            if status is None:
                continue
            slot = self._slot(child)
            orderly = status == 0 and slot is not None and slot.state >= State.DRAINING
            self.children.remove(child)
            self.board.retire(child.slot)
            verb = "ended" if orderly or child.phase in (Phase.DRAINING, Phase.STOPPING) else "died"
            text = f"{child} {verb}: {how_ended(status)}, after {now - child.started:.1f} s"
            if verb == "died" and not self.stopping:
                if not self._ever_ready:
                    self._status = exit_status(status) or 1
                    log.error("%s, never ready", text)
                    return
                wait = self._judge(child, now)
                log.error("%s; next one %s", text, f"in {wait:.1f} s" if wait else "now")
            else:
                log.info("%s", text)
        self._reap_strangers()

    def _reap_strangers(self) -> None:
        """As PID 1 of a container the master inherits what others leave: without this they would stay as zombies."""
        if os.getpid() != 1:
            return
        known = {child.process.pid for child in self.children}
        with contextlib.suppress(ChildProcessError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in known:  # one of ours: the next round has it, and looks again
                    return
                os.waitpid(found.si_pid, 0)

    def _judge(self, child: Child, now: float) -> float:
        """How long the slot of a worker that died must stay empty."""
        seat = self._seats[child.slot]
        if child.ready_at is not None:
            if now - child.ready_at >= self.plan.healthy:
                seat.failures = 0
            if now - child.started >= self.plan.young:
                return 0.0
        return seat.failed(self.plan, now)

    def _converge(self) -> None:
        """Start or end workers until there are as many as wanted; only one until the first is ready."""
        self._next_start = math.inf
        if self.stopping or self._status is not None:
            return
        active = [child for child in self.children if child.phase in (Phase.BOOTING, Phase.READY)]
        missing = (self.wanted if self._ever_ready else 1) - len(active)
        now = time.monotonic()
        for slot in self._free_slots(missing):
            seat = self._seats[slot]
            if seat.retry_at <= now:
                try:
                    self.children.append(self._crew.start(slot, generation=0))
                    continue
                except OSError as error:
                    wait = seat.failed(self.plan, now)
                    log.error("cannot start worker %d: %s; again in %.1f s", slot, error, wait)
                    if not self._ever_ready:
                        self._status = 1
            self._next_start = min(self._next_start, seat.retry_at)
        # Those go first that do not serve yet, then the youngest slots.
        active.sort(key=lambda child: (child.phase is Phase.READY, -child.slot))
        for child in active[: max(0, -missing)]:
            child.order(Phase.DRAINING, now)

    def _free_slots(self, number: int) -> list[int]:
        taken = {child.slot for child in self.children}
        return [slot for slot in range(self.plan.slots) if slot not in taken][: max(0, number)]

    def _hurry(self) -> None:
        now = time.monotonic()
        for child in self.children:
            if child.deadline <= now:
                child.lose_patience(now)

    def _patience(self) -> float | None:
        """Seconds until something must be done unasked."""
        first = min([self._next_start, *(child.deadline for child in self.children)])
        return None if first == math.inf else max(0.0, first - time.monotonic())

    def _slot(self, child: Child) -> Slot | None:
        slot = self.board.slot(child.slot)
        return slot if slot.pid == child.process.pid else None

    def _take_signals(self) -> None:
        for number in self._drop(self._signals):
            name = signal.Signals(number).name
            if number == signal.SIGTERM:
                self._stop(Phase.STOPPING if self.stopping else Phase.DRAINING, name)
            elif number in (signal.SIGINT, signal.SIGQUIT):
                self._stop(Phase.STOPPING, name)
            elif number in (signal.SIGTTIN, signal.SIGTTOU):
                self._resize(1 if number == signal.SIGTTIN else -1, name)
            elif number != signal.SIGCHLD:
                log.info("%s ignored", name)

    def _stop(self, how: Phase, why: str) -> None:
        if self.stopping is how:
            return
        now = time.monotonic()
        log.info("%s: %s %d workers", why, how.value, len(self.children))
        self._stopping_since = self._stopping_since or now
        self.stopping = how
        self.board.stopping = True
        for child in self.children:
            child.order(how, now)

    def _resize(self, by: int, why: str) -> None:
        # A slot for each, and as many again for those that still drain, is what the scoreboard has.
        self.wanted = min(max(1, self.wanted + by), self.plan.slots // 2 + self.plan.workers // 2)
        log.info("%s: %d workers wanted", why, self.wanted)

    @staticmethod
    def _drop(fd: int) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(fd, 65536)
        return b""

    @contextlib.contextmanager
    def _signal_handlers(self) -> Iterator[None]:
        """Let the C handler write each signal's number into our pipe, and nothing else happen."""
        before: dict[signal.Signals, Any] = {}
        wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
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


def _open_standard_descriptors() -> None:
    """Point closed standard descriptors to /dev/null, lest a listener becomes "stderr"."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)
