"""A generation: all that a run is made of and that can be made again while it runs.

Promises: everything that may fail is done before a `Generation` exists; a failure leaves nothing open. A worker that
was started keeps what it has inherited, so a generation may be closed while its workers still run. Must not know:
which workers run. Weak: the environment and sys.path are the master's own, so a new generation has the old ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gsmtp_workers.config import SocketAddress
from gsmtp_workers.identity import resolve_identity
from gsmtp_workers.plan import Plan, PlanError, Role
from gsmtp_workers.scoreboard import anonymous_file
from gsmtp_workers.sockets import BoundListener, bind_all, check_all, unbind


class Generation:
    """A plan with its sockets bound, its files read and its user looked up.

    number       counts the generations of a run, from 0.
    bound        the listeners of all roles, in the plan's order; empty in a check. They stay the caller's to close.
    environment  what the workers get as theirs.
    path         the master's sys.path, absolute, without the folder of its script or its current one.
    """

    def __init__(self, number: int, plan: Plan, checking: bool = False) -> None:
        """Make it. With `checking`, look at what is to be bound without listening there.

        Raises PlanError for a user, a group or a file that cannot be had, and BindError.
        """
        self.number = number
        self.plan = plan
        self.checking = checking
        self.identity = resolve_identity(plan)
        self.path = tuple(_path(plan))
        self.environment = {
            "MALLOC_ARENA_MAX": "2",  # otherwise each native thread has an arena of its own, and fragments there
            "GEVENT_TRACK_GREENLET_TREE": "0",  # otherwise every greenlet holds the stack that spawned it
            **os.environ,
        }
        self.bound: list[BoundListener] = []
        if checking:
            check_all(plan.listeners)
        else:
            self.bound = bind_all(plan.listeners)
        try:
            self.files = _read_files(plan)
        except BaseException:
            unbind(self.bound)
            raise

    def listeners(self, role: Role) -> tuple[tuple[int, SocketAddress], ...]:
        """Return the descriptor and the address of each listener of a role, as in WorkerConfig."""
        if self.checking:
            return tuple((-1, each.path or (each.host, each.port)) for each in role.listeners)
        at = sum(len(each.listeners) for each in self.plan.roles[: self.plan.roles.index(role)])
        bound = self.bound[at : at + len(role.listeners)]
        return tuple((each.socket.fileno(), each.socket.getsockname()) for each in bound)

    def close(self) -> None:
        """Close the files, not the listeners. No worker can be started any more."""
        files, self.files = self.files, ()
        for _, fd in files:
            os.close(fd)


def _path(plan: Plan) -> list[str]:
    """Return the workers' sys.path.

    The interpreter puts the script's folder first, or the current one with -m. It stays only if a service is imported
    from there, as in a checkout: a module of the user's there must not take the place of another's.
    """
    path = [os.path.abspath(entry) for entry in sys.path]
    if not sys.flags.safe_path and path:
        packages = {"gsmtp_workers", *(role.factory.partition(":")[0].partition(".")[0] for role in plan.roles)}
        if not any(os.path.exists(os.path.join(path[0], package + end)) for package in packages for end in ("", ".py")):
            del path[0]
    return path


def _read_files(plan: Plan) -> tuple[tuple[str, int], ...]:
    """Return (path, descriptor of a copy in memory) for each file of the plan: a worker can read it whoever it is."""
    files: list[tuple[str, int]] = []
    try:
        for path in plan.files:
            content = Path(path).read_bytes()
            fd = anonymous_file("file")
            files.append((path, fd))
            os.pwrite(fd, content, 0)
    except OSError as error:
        for _, fd in files:
            os.close(fd)
        raise PlanError(f"cannot read {path}: {error.strerror}") from None
    return tuple(files)
