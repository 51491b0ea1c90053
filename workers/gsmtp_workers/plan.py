"""What a run is: values that the command line or a test makes, the master follows and each worker reads.

Promises: a `Plan` that could be made can be written as JSON and read back equal (`argument` comes back as
JSON gives it: tuples as lists). Must not know: sockets, processes, gevent. Importing it must stay light
(see `workers`). Weak: it cannot tell whether the factory can be imported; only a worker may import the
user's code.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import asdict, dataclass, field, fields

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_WORDS = ("farewell", "busy")
# Room for TTIN and for replacements that run beside those they replace.
_SPARE_SLOTS = 64


class PlanError(ValueError):
    """The plan cannot be followed; the message is one line for the user."""


class BindError(Exception):
    """A listener cannot be bound: its `name` as the user wrote it, and the system's `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot bind {name}: {reason}")
        self.name = name
        self.reason = reason


class BootError(Exception):
    """Raised by a factory: the worker cannot start. `message` goes to stderr; it exits with `status`."""

    def __init__(self, message: str, status: int = 4) -> None:
        super().__init__(message)
        self.status = status


def one_line(text: str) -> str:
    """`text` for a message of one line: white space made single, what cannot be printed a "?"."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))


def usable_cores() -> int:
    """The processors that this process may use: its affinity, and its control group's quota (version 2)."""
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
    """One socket to bind: `host` and `port`, or else `path`.

    name      as the user wrote it, for logs and errors: "smtp://[::]:25".
    host      an address or a name (its first address is taken). "::" or "" serves IPv4 too, its clients
              then have addresses like ::ffff:192.0.2.1; but where the plan also has an IPv4 listener on
              that port, it serves IPv6 only, so that [::]:25 beside 0.0.0.0:25 works.
    port      0 = any that is free.
    path      a unix socket. A socket file on which nobody accepts is replaced; a live one and any other
              file is an error. The master that made it removes it at its end.
    mode      permissions of the unix socket: 0o666; the directory guards it.
    backlog   connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn. 2048, as
              gunicorn.
    farewell  what a connection gets that nobody will serve any more, since the server ends. b"" closes in
              silence.
    busy      the same for a connection that this process has no descriptors for: some are kept for what the
              sessions need themselves.
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
class Plan:
    """A run: which service, on which listeners, in how many workers, within which limits. Times are seconds.

    factory        "package.module:callable", called in each worker as `factory(worker, argument)`.
    argument       handed to the factory; anything JSON can carry.
    listeners      the handles that the factory returns are in this order.
    workers        worker processes to keep. Default: one for each usable core, since the work is processor
                   time.
    counters       names of the service's own scoreboard columns (numbers).
    shared_memory  octets of memory that all workers of the run share, zero at its start: `worker.shared`. It is
                   the service's to lay out, outlives workers, and is gone with the master. 0 = none.
    max_sessions   open connections per worker; a full worker accepts no more until one ends, newcomers wait
                   in the backlog. 1000: with 64 KiB of buffers each that is 64 MiB, and fits the usual 1024
                   descriptors.
    heartbeat      a worker's sign of life, from its event loop. 0.5: short enough for the gate to be fair.
    stale_after    a worker whose last beat is older is not counted by the gate. Four beats.
    boot_timeout   from start to READY. 60: a service may load models or open pools; beyond that it hangs.
    drain_timeout  from the start of a drain until a worker exits in any case. 660: a last resort, since the
                   service ends its sessions by limits of its own; ten minutes of work, and one more.
    stop_timeout   the same for a quick stop, and for the exit callbacks. 5: someone waits at the keyboard.
    kill_after     beyond those limits, until the master kills a worker. 5: enough for an exit under load.
    linger         how long a farewell waits for the client to close. 1: else a reset can eat the farewell.
    young          a worker that lives shorter is a failure, and its slot waits before the next. 60.
    healthy        a worker that lives longer clears its slot's failures. 300.
    backoff_first  wait after the first failure, doubled by each further one. 0.5.
    backoff_limit  but never longer. 60: a repaired database is found within a minute.
    gate_step      a worker waits this long for each session it has more than the least busy one. 0.0005
    gate_limit     at most so long, then it accepts anyway: a stuck neighbour must not become an outage.
                   0.010; 0 switches the gate off.
    files          files that workers need and their user may not read, such as private keys: the master reads
                   them, `Worker.located` names the copies.
    user, group    what workers become before any code of the service is imported; needs root. "" = no change.
    chdir          the workers' directory, put first on their sys.path. "" = the master's.
    """

    factory: str
    argument: object = None
    listeners: tuple[Listener, ...] = ()
    workers: int = field(default_factory=usable_cores)
    counters: tuple[str, ...] = ()
    shared_memory: int = 0
    max_sessions: int = 1000
    heartbeat: float = 0.5
    stale_after: float = 2.0
    boot_timeout: float = 60.0
    drain_timeout: float = 660.0
    stop_timeout: float = 5.0
    kill_after: float = 5.0
    linger: float = 1.0
    young: float = 60.0
    healthy: float = 300.0
    backoff_first: float = 0.5
    backoff_limit: float = 60.0
    gate_step: float = 0.0005
    gate_limit: float = 0.010
    files: tuple[str, ...] = ()
    user: str = ""
    group: str = ""
    chdir: str = ""

    def __post_init__(self) -> None:
        if not _FACTORY.fullmatch(self.factory):
            raise PlanError(f"not of the form module:callable: {self.factory!r}")
        for name in ("workers", "max_sessions"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1")
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
        try:
            json.dumps(self.argument)
        except (TypeError, ValueError) as error:
            raise PlanError(f"argument cannot be written as JSON: {error}") from None

    @property
    def slots(self) -> int:
        """Places on the scoreboard: the most workers that can run at a time."""
        return self.workers + _SPARE_SLOTS

    def to_json(self) -> str:
        """This plan as JSON text."""
        content = asdict(self)
        for listener in content["listeners"]:
            for words in _WORDS:
                listener[words] = listener[words].decode("latin-1")
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote."""
        content = json.loads(text)
        content["counters"] = tuple(content["counters"])
        content["files"] = tuple(content["files"])
        content["listeners"] = tuple(
            Listener(**{**listener, **{words: listener[words].encode("latin-1") for words in _WORDS}})
            for listener in content["listeners"]
        )
        return cls(**content)
