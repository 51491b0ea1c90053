"""One worker: makes the service, accepts for it, writes its row of the scoreboard, drains, ends.

Promises: no session begins once a drain has; `serve` returns within `drain_timeout` (or `stop_timeout`) even if
sessions do not end. Signal handlers and callbacks in the hub only set what the main greenlet then reads. Must not know:
what the sessions speak. Weak: while the factory blocks without giving way to the event loop, the master's death goes
unnoticed.

Signals: TERM drains this worker, INT and QUIT stop it quickly, USR2 writes the stack to stderr (even while the event
loop is stuck), HUP and USR1 do nothing. Before READY, TERM and INT end the process at once: nothing can be lost.
"""

from __future__ import annotations

import contextlib
import logging
import math
import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from gsmtp_workers.accept import AcceptDelay, Acceptor, Handle
from gsmtp_workers.config import SocketAddress, WorkerConfig
from gsmtp_workers.load import load
from gsmtp_workers.plan import BootError
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
    WorkerState,
)

log = logging.getLogger("workers")

_PAGE = resource.getpagesize()
_LOG_INTERVAL = 60.0  # seconds between two log lines on failing accepts


@dataclass(frozen=True)
class Endpoint:
    """A listener as a worker sees it: the user's `name`, and the socket's `address`.

    The address is what `getsockname` gives: (host, port), with two more items for IPv6, or a unix socket's path.
    """

    name: str
    address: SocketAddress


class Worker:
    """This process, as the factory and the service see it.

    name              its name in logs: "worker 0".
    slot, generation  its row on the scoreboard, and which load of the settings and the code it runs.
    sessions          the number of open connections, from accept until the handle returns.
    state, draining   once `draining` is true no further session begins; one may have begun just before.
    counters          the service's own cells of its row, in the order of `Plan.counters`.
    listeners         name and address of each listener of its role, in the role's order.
    scoreboard        the whole scoreboard, to read.
    shared            the memory that all workers of the run share (`Plan.shared_memory`), or None. It still has what
                      earlier workers of this slot wrote.
    checking          whether this is only a check: after the factory nothing is served.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.plan = config.plan
        self.role = config.role
        self.slot = config.slot
        self.name = config.plan.process_name(config.role, config.slot)
        self.generation = config.generation
        self.sessions = 0
        self.draining = False
        self.checking = config.checking
        self.listeners = tuple(
            Endpoint(listener.name, address)
            for listener, (_, address) in zip(self.role.listeners, config.listeners, strict=True)
        )
        # The mappings have descriptors of their own.
        self.scoreboard = Scoreboard.open(config.run.board)
        os.close(config.run.board)
        self.shared: mmap.mmap | None = None
        if config.run.shared >= 0:
            self.shared = mmap.mmap(config.run.shared, self.plan.shared_memory)
            os.close(config.run.shared)
        self._row = self.scoreboard.row(self.slot)
        self.counters = self._row[COUNTERS : COUNTERS + len(self.plan.counters)]
        self._config = config
        others = [slot for slot in self.plan.slots(self.role) if slot != self.slot]
        self._accept_delay = AcceptDelay(self.scoreboard, others, self.plan)
        self._acceptors: list[Acceptor] = []
        self._is_full = False
        self._wake = Event()
        self._drain_asked = self._stop_asked = self._orphaned = False
        self._callbacks: dict[WorkerState, list[Callable[[], object]]] = {
            WorkerState.DRAINING: [],
            WorkerState.STOPPING: [],
        }
        self._exit_callbacks: list[Callable[[], object]] = []
        self._logged = (0, 0), -math.inf
        self._row[PID] = os.getpid()
        self._row[GENERATION] = self.generation
        self._row[STARTED] = time.monotonic()
        self._set_state(WorkerState.BOOTING)

    @property
    def state(self) -> WorkerState:
        """What this worker does, as its row says."""
        return WorkerState(int(self._row[STATE]))

    def located(self, path: str) -> str:
        """Return where this process can read `path`: a copy if the plan names that file, otherwise `path` itself."""
        fd = dict(self._config.files).get(path)
        return path if fd is None else f"/dev/fd/{fd}"

    def on_drain(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a greenlet when a drain starts; at once if one has started."""
        self._register(WorkerState.DRAINING, callback)

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a greenlet when a quick stop starts, also during a drain; at once if one has started."""
        self._register(WorkerState.STOPPING, callback)

    def on_exit(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a greenlet at the very end, after the sessions have ended or have been given up."""
        self._exit_callbacks.append(callback)

    def boot(self) -> None:
        """Run the factory and take over the listeners.

        Raises BootError when the factory cannot be loaded or returns a wrong number of handles, and whatever the
        factory raises.
        """
        role, config = self.role, self._config
        self._master = gevent.get_hub().loop.io(config.run.master, 1)
        self._master.start(os._exit, 0)
        factory = load(role.factory)
        if not callable(factory):
            raise BootError(f"{role.factory} is not callable")
        handles: Sequence[Handle] = factory(self, role.argument)
        if len(handles) != len(role.listeners):
            raise BootError(f"{role.factory} made {len(handles)} handles for {len(role.listeners)} listeners")
        self._master.stop()
        self._master.start(self._master_died)
        if self.checking:
            self._set_state(WorkerState.READY)
            return
        for listener, (fd, _), handle in zip(role.listeners, config.listeners, handles, strict=True):
            sock = get_original("socket", "socket")(fileno=fd)
            sock.setblocking(False)
            self._acceptors.append(Acceptor(self, sock, handle, listener, self._accept_delay))

    def serve(self) -> None:
        """Accept until a signal or the master's death, then drain or stop. The process may end when this returns."""
        gevent.signal_handler(signal.SIGTERM, self._ask_drain)
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            gevent.signal_handler(signal.SIGINT, self._ask_stop)
        gevent.signal_handler(signal.SIGQUIT, self._ask_stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGQUIT})
        self._beat(0.0)
        self._set_state(WorkerState.READY)
        gevent.spawn(self._beat_regularly)
        for acceptor in self._acceptors:
            acceptor.serve()
        while not (self._drain_asked or self._stop_asked):
            self._wake.clear()
            self._wake.wait()
        if not self._stop_asked:
            self._end_sessions(WorkerState.DRAINING, self.plan.drain_timeout, lambda: self._stop_asked)
        if self._stop_asked:
            self._end_sessions(WorkerState.STOPPING, self.plan.stop_timeout, lambda: False)
        self._exit()

    def begin_session(self) -> None:
        """Count a connection. For the acceptors."""
        row = self._row
        self.sessions = sessions = self.sessions + 1
        row[SESSIONS] = row[SCORE] = sessions
        row[ACCEPTED] += 1

    def run_session(self, handle: Handle, sock: socket.socket, address: Any) -> None:
        """Run the handle of a connection that has been counted. It is the connection's greenlet."""
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

    def pause_accepting(self) -> None:
        """Accept no more until a session ends. For the acceptors, when the worker is full."""
        self._is_full = True
        for acceptor in self._acceptors:
            acceptor.pause()

    def _end_sessions(self, state: WorkerState, seconds: float, interrupted: Callable[[], bool]) -> None:
        """Accept no more, run the callbacks of `state`, and wait until sessions and callbacks have ended.

        The wait ends after `seconds`, or when `interrupted` returns true.
        """
        deadline = time.monotonic() + seconds
        self.draining = True
        self._set_state(state)
        for acceptor in self._acceptors:
            acceptor.pause()
        refusing = False
        callbacks = [gevent.spawn(callback) for callback in self._callbacks[state]]
        for callback in callbacks:
            callback.rawlink(lambda _: self._wake.set())
        while not interrupted() and (left := deadline - time.monotonic()) > 0:
            self._wake.clear()
            if self._orphaned:
                self._close_listeners()
            elif self.scoreboard.stopping and not refusing:
                # Nobody else will serve further clients. When only this worker ends, others or its successor will.
                refusing = True
                for acceptor in self._acceptors:
                    acceptor.refuse()
            if not self.sessions and all(callback.dead for callback in callbacks):
                return
            self._wake.wait(min(left, self.plan.heartbeat))
        if self.sessions and not interrupted():
            log.warning("%s: %d sessions cut off", self.name, self.sessions)

    def _exit(self) -> None:
        """Wait for farewells, close the listeners, run the exit callbacks.

        SIGALRM then ends what still holds the process, such as a thread that does not end: without a master nobody
        else would.
        """
        limit = self.plan.linger + self.plan.stop_timeout + self.plan.kill_after
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit)
        for acceptor in self._acceptors:
            acceptor.pause()
        deadline = time.monotonic() + self.plan.linger
        while any(acceptor.closing for acceptor in self._acceptors) and time.monotonic() < deadline:
            gevent.sleep(0.01)
        self._close_listeners()
        gevent.joinall([gevent.spawn(call) for call in self._exit_callbacks], timeout=self.plan.stop_timeout)

    def _close_listeners(self) -> None:
        acceptors, self._acceptors = self._acceptors, []
        if acceptors:
            # The poller must drop the descriptors first, because the sockets stay open in other processes.
            for acceptor in acceptors:
                acceptor.pause()
            gevent.sleep(0.001)
            for acceptor in acceptors:
                acceptor.close()

    def _register(self, state: WorkerState, callback: Callable[[], object]) -> None:
        self._callbacks[state].append(callback)
        if self.state is state:
            gevent.spawn(callback)

    def _set_state(self, state: WorkerState) -> None:
        self._row[SCORE] = self.sessions if state is WorkerState.READY else math.inf
        self._row[STATE] = state
        status = self._config.run.status
        if status >= 0:
            with contextlib.suppress(OSError):  # the pipe is full, so the master wakes up anyway; or the master is gone
                os.write(status, b".")

    def _ask_drain(self) -> None:
        self._drain_asked = True
        self._wake.set()

    def _ask_stop(self) -> None:
        self._stop_asked = True
        self._wake.set()

    def _master_died(self) -> None:
        self._master.stop()
        self._orphaned = True
        self._ask_drain()

    def _beat_regularly(self) -> None:
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
        self._accept_delay.refresh()

    def _report_failures(self) -> None:
        (failures, refused), when = self._logged
        now = (sum(a.failures for a in self._acceptors), sum(a.refused for a in self._acceptors))
        if now == (failures, refused) or time.monotonic() - when < _LOG_INTERVAL:
            return
        self._logged = now, time.monotonic()
        if now[0] > failures:
            error = next(a.last_failure for a in self._acceptors if a.last_failure is not None)
            log.error("%s cannot accept: %s (%d times)", self.name, error, now[0] - failures)
        if now[1] > refused:
            log.error("%s has no descriptors left: %d turned away", self.name, now[1] - refused)


def _resident() -> float:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
