"""One worker process: make the service, accept for it, tell the scoreboard, drain, end.

Promises: nothing of the service is imported before the patch and the change of user; no session begins once
a drain has; the process ends within `drain_timeout` (or `stop_timeout`) even if sessions do not. Signal
handlers and hub callbacks only set what the main greenlet then looks at. Must not know: what the sessions
speak. Weak: while the factory blocks without giving way to the event loop, the master's death goes unseen.

Signals: TERM drains this worker, INT and QUIT stop it quickly, USR2 writes the stack to stderr (it also
works while the event loop is stuck), HUP and USR1 do nothing. Before READY, TERM and INT end the process at
once: nothing can be lost.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import mmap
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from gsmtp_workers.accept import Acceptor, Gate, Handle
from gsmtp_workers.load import load
from gsmtp_workers.mission import Mission
from gsmtp_workers.plan import BootError, one_line
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
    STARTED,
    STATE,
    Scoreboard,
    State,
)

log = logging.getLogger("workers")

_PAGE = resource.getpagesize()
_QUIET = 60.0  # seconds between two log lines on failing accepts
_ENDS = {State.DRAINING, State.STOPPING}


@dataclass(frozen=True)
class Endpoint:
    """A listener as a worker sees it: the user's `name`, and its `address` ("host:port" or a path)."""

    name: str
    address: str


class Worker:
    """This process, as the factory and the service see it.

    slot, generation  its place on the scoreboard, and which reload of the code it is.
    sessions          open connections, counted here from accept until the handle returns.
    state, draining   once `draining` is true, no further session begins; one may have begun just before.
    counters          the service's own cells on the scoreboard, in plan order: `worker.counters[0] += 1`.
    listeners         names and real addresses, in plan order.
    scoreboard        the whole board, to read.
    shared            the memory that all workers of the run have in common (`Plan.shared_memory`), or None. What a
                      slot's earlier workers wrote is still there.
    checking          whether this is only a check: nothing will be served after the factory.
    """

    def __init__(self, mission: Mission, slot: int, generation: int) -> None:
        self.plan = mission.plan
        self.slot = slot
        self.generation = generation
        self.sessions = 0
        self.draining = False
        self.checking = mission.checking
        self.listeners = tuple(
            Endpoint(listener.name, address)
            for listener, (_, address) in zip(mission.plan.listeners, mission.listeners, strict=True)
        )
        self.scoreboard = Scoreboard(mission.board_fd, mission.plan.slots, mission.plan.counters)
        self.shared: mmap.mmap | None = None
        if mission.shared_fd >= 0:
            self.shared = mmap.mmap(mission.shared_fd, mission.plan.shared_memory)
            os.close(mission.shared_fd)  # the mapping has a descriptor of its own
        self._row = self.scoreboard.row(slot)
        self.counters = self._row[COUNTERS : COUNTERS + len(mission.plan.counters)]
        self._mission = mission
        self._gate = Gate(self.scoreboard, slot, self.plan)
        self._acceptors: list[Acceptor] = []
        self._is_full = False
        self._wake = Event()
        self._drain_asked = self._stop_asked = self._orphaned = False
        self._calls: dict[State, list[Callable[[], object]]] = {State.DRAINING: [], State.STOPPING: []}
        self._exit_calls: list[Callable[[], object]] = []
        self._logged = (0, 0), -math.inf
        self._row[PID] = os.getpid()
        self._row[GENERATION] = generation
        self._row[STARTED] = time.monotonic()
        self._set_state(State.BOOTING)

    @property
    def state(self) -> State:
        return State(int(self._row[STATE]))

    def located(self, path: str) -> str:
        """Where this process can read a file that the plan names, whoever it has become; other paths as they are."""
        fd = dict(self._mission.files).get(path)
        return path if fd is None else f"/dev/fd/{fd}"

    def on_drain(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a greenlet when a drain starts; at once if it has."""
        self._register(State.DRAINING, callback)

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a greenlet when a quick stop starts, even amid a drain; at once if it has."""
        self._register(State.STOPPING, callback)

    def on_exit(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a greenlet as the last thing, sessions having ended or their time being over."""
        self._exit_calls.append(callback)

    def boot(self) -> None:
        """Become the user, run the factory, take up the listeners. BootError, or what the factory raises."""
        plan, mission = self.plan, self._mission
        if mission.identity is not None:
            uid, gid, groups = mission.identity
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        sys.path.insert(0, os.getcwd())
        self._death = gevent.get_hub().loop.io(mission.death_fd, 1)
        self._death.start(os._exit, 0)
        factory = load(plan.factory)
        if not callable(factory):
            raise BootError(f"{plan.factory} is not callable")
        handles: Sequence[Handle] = factory(self, plan.argument)
        if len(handles) != len(plan.listeners):
            raise BootError(f"{plan.factory} made {len(handles)} handles for {len(plan.listeners)} listeners")
        self._death.stop()
        self._death.start(self._master_died)
        if self.checking:
            self._set_state(State.READY)
            return
        for listener, (fd, _), handle in zip(plan.listeners, mission.listeners, handles, strict=True):
            sock = get_original("socket", "socket")(fileno=fd)
            sock.setblocking(False)
            self._acceptors.append(Acceptor(self, sock, handle, listener, self._gate))

    def serve(self) -> None:
        """Accept until a signal or the master's death, then drain or stop. The process may then end."""
        gevent.signal_handler(signal.SIGTERM, self._ask_drain)
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            gevent.signal_handler(signal.SIGINT, self._ask_stop)
        gevent.signal_handler(signal.SIGQUIT, self._ask_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGQUIT})
        self._beat(0.0)
        self._set_state(State.READY)
        gevent.spawn(self._beats)
        for acceptor in self._acceptors:
            acceptor.serve()
        while not (self._drain_asked or self._stop_asked):
            self._wake.clear()
            self._wake.wait()
        if not self._stop_asked:
            self._end(State.DRAINING, self.plan.drain_timeout, lambda: self._stop_asked)
        if self._stop_asked:
            self._end(State.STOPPING, self.plan.stop_timeout, lambda: False)
        self._leave()

    def session_begins(self) -> None:
        """Count a connection; for the acceptors."""
        row = self._row
        self.sessions = sessions = self.sessions + 1
        row[SESSIONS] = row[SCORE] = sessions
        row[ACCEPTED] += 1

    def session(self, handle: Handle, sock: socket.socket, address: Any) -> None:
        """The greenlet of one connection, already counted."""
        try:
            handle(sock, address)
        except Exception:
            log.exception("a session failed")
            sock.close()
        finally:
            self.sessions = sessions = self.sessions - 1
            self._row[SESSIONS] = sessions
            if self.draining:
                if not sessions:
                    self._wake.set()
            else:
                self._row[SCORE] = sessions
                if self._is_full:
                    self._is_full = False
                    for acceptor in self._acceptors:
                        acceptor.serve()

    def full(self) -> None:
        """Accept no more until a session ends; for the acceptors."""
        self._is_full = True
        for acceptor in self._acceptors:
            acceptor.pause()

    def _end(self, state: State, seconds: float, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        self.draining = True
        self._set_state(state)
        for acceptor in self._acceptors:
            acceptor.pause()
        dismissing = False
        calls = [gevent.spawn(call) for call in self._calls[state]]
        for call in calls:
            call.rawlink(lambda _: self._wake.set())
        while not enough() and (left := deadline - time.monotonic()) > 0:
            self._wake.clear()
            if self._orphaned:
                self._close_listeners()
            elif self.scoreboard.stopping and not dismissing:
                # Nobody else will serve them. As long as only this worker ends, others or its successor will.
                dismissing = True
                for acceptor in self._acceptors:
                    acceptor.dismiss()
            if not self.sessions and all(call.dead for call in calls):
                return
            self._wake.wait(min(left, self.plan.heartbeat))
        if self.sessions and not enough():
            log.warning("worker %d: %d sessions cut off", self.slot, self.sessions)

    def _leave(self) -> None:
        """Say the last farewells, close, call back. What then still holds the process, such as a thread that
        does not end, is cut off by SIGALRM: without a master nobody else would."""
        limit = self.plan.linger + self.plan.stop_timeout + self.plan.kill_after
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit)
        for acceptor in self._acceptors:
            acceptor.pause()
        deadline = time.monotonic() + self.plan.linger
        while any(acceptor.goodbyes for acceptor in self._acceptors) and time.monotonic() < deadline:
            gevent.sleep(0.01)
        self._close_listeners()
        gevent.joinall([gevent.spawn(call) for call in self._exit_calls], timeout=self.plan.stop_timeout)

    def _close_listeners(self) -> None:
        acceptors, self._acceptors = self._acceptors, []
        if acceptors:
            # The poller must drop the descriptors first, for the sockets stay open in other processes.
            for acceptor in acceptors:
                acceptor.pause()
            gevent.sleep(0.001)
            for acceptor in acceptors:
                acceptor.close()

    def _register(self, state: State, callback: Callable[[], object]) -> None:
        self._calls[state].append(callback)
        if self.state is state:
            gevent.spawn(callback)

    def _set_state(self, state: State) -> None:
        self._row[SCORE] = self.sessions if state is State.READY else float("inf")
        self._row[STATE] = state
        if self._mission.status_fd >= 0:
            with contextlib.suppress(OSError):  # full: the master has enough to wake up for; gone: nobody to tell
                os.write(self._mission.status_fd, b".")

    def _ask_drain(self) -> None:
        self._drain_asked = True
        self._wake.set()

    def _ask_stop(self) -> None:
        self._stop_asked = True
        self._wake.set()

    def _master_died(self) -> None:
        self._death.stop()
        self._orphaned = True
        self._ask_drain()

    def _beats(self) -> None:
        interval = self.plan.heartbeat
        while True:
            due = time.monotonic() + interval
            gevent.sleep(interval)
            self._beat(max(0.0, time.monotonic() - due))
            self._report_failures()

    def _beat(self, lag: float) -> None:
        row = self._row
        row[BEAT] = time.monotonic()
        row[LAG] = lag
        row[RSS] = _resident()
        self._gate.refresh()

    def _report_failures(self) -> None:
        (failures, away), when = self._logged
        now = (sum(a.failures for a in self._acceptors), sum(a.turned_away for a in self._acceptors))
        if now == (failures, away) or time.monotonic() - when < _QUIET:
            return
        self._logged = now, time.monotonic()
        if now[0] > failures:
            error = next(a.last_failure for a in self._acceptors if a.last_failure is not None)
            log.error("worker %d cannot accept: %s (%d times)", self.slot, error, now[0] - failures)
        if now[1] > away:
            log.error("worker %d has no descriptors left: %d turned away", self.slot, now[1] - away)


def main(arguments: list[str]) -> int:
    """Run one worker; `arguments`: the mission's descriptor, slot, generation. Returns the exit status."""
    _prepare_process()
    try:
        fd, slot, generation = map(int, arguments)
        mission = Mission.read(fd)
    except (ValueError, OSError):
        print("python -m gsmtp_workers is started by the master, not by hand", file=sys.stderr)
        return 2
    files = [*dict(mission.listeners), *dict(mission.files).values()]
    for inherited in (fd, mission.board_fd, mission.death_fd, mission.status_fd, *files):
        if inherited >= 0:
            os.set_inheritable(inherited, False)  # the service's own children must not hold them open
    worker = Worker(mission, slot, generation)
    try:
        worker.boot()
    except BootError as error:
        print(one_line(str(error)), file=sys.stderr)
        return error.status
    except Exception:
        traceback.print_exc()
        return 3
    if not worker.checking:
        worker.serve()
    return 0


def _prepare_process() -> None:
    """Signals were blocked by the master until here, lest one kills a process that is only starting."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as under nohup: then it stays so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for ignored in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(ignored, lambda *_: None)  # not SIG_IGN, which the service's own children would inherit
    if sys.stderr is not None:
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR2, all_threads=True)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _resident() -> float:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
