"""The plan of a run: its roles, listeners and limits, as values.

A command line or a test makes it, the master follows it, each worker reads it.

Promises: a `Plan` can be written as JSON and is equal when it is read back (a role's `argument` comes back as JSON
gives it: tuples as lists). Must not know: sockets, processes, gevent. Importing it must stay light (see the package's
docstring). Weak: it cannot tell whether a factory can be imported, since only a worker may import the user's code.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gsmtp_workers.columns import Column, Kind

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_OCTETS = ("farewell", "busy")  # fields of a Listener that JSON carries as Latin-1
# Room for TTIN and for replacements that run beside the workers they replace.
_SPARE_SLOTS = 64


class PlanError(ValueError):
    """A plan cannot be followed. The message is one line for the user."""


class BindError(Exception):
    """A listener cannot be bound: its `name` as the user wrote it, and the system's `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot bind {name}: {reason}")
        self.name = name
        self.reason = reason


class BootError(Exception):
    """Raised by a factory when its worker cannot start. The message goes to stderr; the worker exits with `status`."""

    def __init__(self, message: str, status: int = 4) -> None:
        super().__init__(message)
        self.status = status


def one_line(text: str) -> str:
    """Return `text` as one line: runs of white space become one space, unprintable characters become "?"."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def usable_cores() -> int:
    """Return the number of processors that this process may use, by its affinity and its control group's quota (v2)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such group, or "max"
        pass
    return max(1, cores)


@dataclass(frozen=True)
class Listener:
    """A socket to bind: `host` and `port`, or else `path`. Raises PlanError for a port or backlog out of range.

    name      the listener as the user wrote it, for logs and errors: "smtp://[::]:25".
    host      an address, or a name, of which the first address is taken. "::" and "" serve IPv4 too; its clients then
              have addresses like ::ffff:192.0.2.1. Where the plan also has an IPv4 listener on the same port, they
              serve IPv6 only, so that [::]:25 beside 0.0.0.0:25 works.
    port      0 means any that is free.
    path      a unix socket. A socket file on which nobody accepts is replaced; a live one and any other file is an
              error. The master that made the file removes it at its end.
    mode      permissions of the unix socket. 0o666: the directory guards it.
    backlog   connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn. 2048, as gunicorn.
    farewell  what is sent to a connection that nobody will serve because the server ends. b"" closes silently.
    busy      what is sent to a connection that the process has too few descriptors for. It keeps some in reserve for
              the sessions that are open.
    """

    name: str
    host: str = ""
    port: int = 0
    path: str = ""
    mode: int = 0o666
    backlog: int = 2048
    farewell: bytes = b""
    busy: bytes = b""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise PlanError(f"{self.name}: port {self.port} is not between 0 and 65535")
        if self.backlog < 1:
            raise PlanError(f"{self.name}: backlog must be at least 1")


@dataclass(frozen=True)
class Role:
    """A kind of process: what its processes run, and how many there are. Raises PlanError for impossible values.

    factory    "package.module:callable"; each process calls it as `factory(worker, argument)`.
    argument   is handed to the factory: anything that JSON can carry.
    listeners  what its processes accept on. The factory returns one handle for each, in this order.
    processes  how many to keep. Default: one for each usable core, since the work is processor time.
    name       for logs and process titles.
    """

    factory: str
    argument: object = None
    listeners: tuple[Listener, ...] = ()
    processes: int = field(default_factory=usable_cores)
    name: str = "worker"

    def __post_init__(self) -> None:
        if not _FACTORY.fullmatch(self.factory):
            raise PlanError(f"not of the form module:callable: {self.factory!r}")
        if self.processes < 1:
            raise PlanError("workers must be at least 1")
        try:
            json.dumps(self.argument)
        except (TypeError, ValueError) as error:
            raise PlanError(f"argument cannot be written as JSON: {error}") from None

    @property
    def size(self) -> int:
        """The number of its slots on the scoreboard: the most of its processes that can run at a time."""
        return self.processes + _SPARE_SLOTS


@dataclass(frozen=True)
class Plan:
    """A run: which roles, within which limits. Times are in seconds. Raises PlanError for impossible values.

    roles               the kinds of processes; TTIN and TTOU change the number of the first.
    counters            the service's own columns of the scoreboard.
    shared_memory       octets of memory that all workers of the run share as `worker.shared`, zero at its start. The
                        service lays it out. It outlives workers and ends with the master. 0 means none.
    max_sessions        open connections per worker. A full worker accepts no more until one ends; further clients
                        wait in the backlog. 1000: with 64 KiB of buffers each that is 64 MiB, and it fits the usual
                        1024 descriptors.
    heartbeat           interval of a worker's sign of life, which its event loop gives. 0.5: short enough for a fair
                        distribution of connections.
    stale_after         age of the last heartbeat from which a worker is not counted in that distribution. 2, which is
                        four heartbeats.
    boot_timeout        from a worker's start until READY. 60: a service may load models or open pools; a longer boot
                        hangs.
    drain_timeout       from the start of a drain until the worker exits in any case. 660: a last resort, since the
                        service ends its sessions by limits of its own; ten minutes of work, and one more.
    stop_timeout        the same for a quick stop, and for the exit callbacks. 5: someone waits at the keyboard.
    kill_after          from the end of those times until the master kills the worker. 5: enough for an exit under load.
    linger              how long a farewell waits for the client to close. 1: otherwise a reset can discard it.
    min_lifetime        a worker that lives shorter has failed, and its slot waits before the next start. 60.
    backoff_first       wait after the first failure; each further failure doubles it. 0.5.
    backoff_limit       the longest such wait. 60: a repaired database is found within a minute.
    backoff_reset       a worker that is ready for so long clears its slot's failures. 300.
    accept_delay        a worker waits this long before it accepts, for each session that it has more than the least
                        busy worker. 0.0005.
    accept_delay_limit  the longest such wait: a stuck worker must not become an outage. 0.010; 0 means no delays.
    files               files that workers need and that their user may not be able to read, such as private keys. The
                        master reads them; `Worker.located` names the copies.
    user, group         who the workers become before any code of the service is imported; needs root. "" means no
                        change.
    chdir               the workers' directory, which also comes first on their sys.path. "" means the master's.
    title               the program's name in process titles: "gsmtp" gives "gsmtp-master" and "gsmtp: worker 0". ""
                        leaves the titles alone. Needs the library setproctitle.
    """

    roles: tuple[Role, ...]
    counters: tuple[Column, ...] = ()
    shared_memory: int = 0
    max_sessions: int = 1000
    heartbeat: float = 0.5
    stale_after: float = 2.0
    boot_timeout: float = 60.0
    drain_timeout: float = 660.0
    stop_timeout: float = 5.0
    kill_after: float = 5.0
    linger: float = 1.0
    min_lifetime: float = 60.0
    backoff_first: float = 0.5
    backoff_limit: float = 60.0
    backoff_reset: float = 300.0
    accept_delay: float = 0.0005
    accept_delay_limit: float = 0.010
    files: tuple[str, ...] = ()
    user: str = ""
    group: str = ""
    chdir: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        names = [role.name for role in self.roles]
        if not names or len(set(names)) < len(names):
            raise PlanError("a plan needs roles, each with a name of its own")
        if self.max_sessions < 1:
            raise PlanError("max_sessions must be at least 1")
        if self.shared_memory < 0:
            raise PlanError("shared_memory must not be negative")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not (0 <= value < math.inf):
                raise PlanError(f"{item.name} must be a number of seconds, not {value}")
        for name in ("heartbeat", "boot_timeout"):
            if getattr(self, name) <= 0:
                raise PlanError(f"{name} must be more than 0")
        if self.chdir and not os.path.isdir(self.chdir):
            raise PlanError(f"chdir: not a directory: {self.chdir}")

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The listeners of all roles, in the roles' order."""
        return tuple(listener for role in self.roles for listener in role.listeners)

    @property
    def size(self) -> int:
        """The number of slots on the scoreboard, for all roles."""
        return sum(role.size for role in self.roles)

    def slots(self, role: Role) -> range:
        """Return the slots of a role, which follow those of the roles before it."""
        at = self.roles.index(role)
        start = sum(each.size for each in self.roles[:at])
        return range(start, start + role.size)

    def process_name(self, role: Role, slot: int) -> str:
        """Return the name of a process for logs and titles, which counts from 0 in each role: "worker 0"."""
        return f"{role.name} {slot - self.slots(role).start}"

    def to_json(self) -> str:
        """Return this plan as JSON text."""
        content = asdict(self)
        for role in content["roles"]:
            for listener in role["listeners"]:
                for name in _OCTETS:
                    listener[name] = listener[name].decode("latin-1")
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that `to_json` wrote."""
        content = json.loads(text)
        content["roles"] = tuple(_role(each) for each in content["roles"])
        content["counters"] = tuple(Column(name, Kind(kind), help) for name, kind, help in content["counters"])
        content["files"] = tuple(content["files"])
        return cls(**content)


def _role(content: dict[str, Any]) -> Role:
    listeners = tuple(
        Listener(**{**each, **{name: each[name].encode("latin-1") for name in _OCTETS}})
        for each in content["listeners"]
    )
    return Role(**{**content, "listeners": listeners})
