"""The configuration of one worker: what the master tells it at its start, through an inherited file.

Promises: what `write` wrote, `read` returns equal. The file also has `path`, the master's sys.path, which __main__
reads before anything of this package can be imported. Must not know: how the file reaches the worker, or what the
worker does with it.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from gsmtp_workers.identity import Identity
from gsmtp_workers.plan import Plan, Role
from gsmtp_workers.scoreboard import anonymous_file

SocketAddress = tuple[str | int, ...] | str
"""The address of a socket as `getsockname` gives it: (host, port) and more for IPv6, or a unix socket's path."""


class RunDescriptors(NamedTuple):
    """The descriptors that all workers of a run inherit, whatever their generation. -1: there is none.

    board   the scoreboard.
    master  the read end of a pipe: its end of file means that the master is gone.
    status  the write end of a pipe: a byte wakes up the master, which then reads the scoreboard.
    shared  the memory that workers share.
    """

    board: int
    master: int = -1
    status: int = -1
    shared: int = -1


class WorkerConfig(NamedTuple):
    """What one worker is to do.

    plan        the plan of its generation; `role` is the name of its role there.
    slot        its row on the scoreboard.
    generation  which load of the settings and the code it runs.
    listeners   descriptor and address of each of the role's listeners. In a check nothing is bound: the descriptor is
                -1 and the address is the planned one.
    files       path and descriptor of each file that the plan names.
    run         the descriptors of the run.
    identity    who the worker becomes, or None.
    checking    whether it ends after the factory.
    path        the master's sys.path, absolute: the worker imports what the master would.
    """

    plan: Plan
    role_name: str
    slot: int
    generation: int
    listeners: tuple[tuple[int, SocketAddress], ...]
    files: tuple[tuple[str, int], ...]
    run: RunDescriptors
    identity: Identity | None
    checking: bool
    path: tuple[str, ...]

    @property
    def role(self) -> Role:
        """The worker's role in its plan."""
        return next(role for role in self.plan.roles if role.name == self.role_name)

    @property
    def inherited(self) -> list[int]:
        """The descriptors that the worker inherits."""
        run = self.run
        found = [run.board, run.master, run.status, run.shared, *dict(self.listeners), *dict(self.files).values()]
        return [fd for fd in found if fd >= 0]

    def write(self) -> int:
        """Write this to a new file in memory and return its descriptor. Raises OSError."""
        content = {**self._asdict(), "plan": self.plan.to_json()}
        fd = anonymous_file("config")
        os.write(fd, json.dumps(content).encode())
        return fd

    @classmethod
    def read(cls, fd: int) -> WorkerConfig:
        """Return what `write` wrote. Raises OSError, and ValueError or KeyError when the file has something else."""
        content = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        identity = content["identity"]
        read = {
            "plan": Plan.from_json(content["plan"]),
            "listeners": tuple((fd, _address(address)) for fd, address in content["listeners"]),
            "files": tuple((path, fd) for path, fd in content["files"]),
            "run": RunDescriptors(*content["run"]),
            "identity": identity and Identity(identity[0], identity[1], tuple(identity[2])),
            "path": tuple(content["path"]),
        }
        return cls(**{**content, **read})


def _address(value: list[str | int] | str) -> SocketAddress:
    return value if isinstance(value, str) else tuple(value)
