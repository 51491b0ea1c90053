"""What the master tells a worker at its start, as the worker reads it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from gsmtp_workers.plan import Plan


@dataclass(frozen=True)
class Mission:
    """What the master tells every worker, through an inherited file: the plan, descriptors, whom to become.

    listeners  (descriptor, address) of each listener in the plan; descriptor -1 in a check, where nothing
               is bound.
    files      (path, descriptor) of each file that the plan names.
    shared_fd  the memory that workers share, -1 for none.
    identity   (uid, gid, groups) or None.
    checking   end after the factory.
    """

    plan: Plan
    listeners: tuple[tuple[int, str], ...]
    files: tuple[tuple[str, int], ...]
    board_fd: int
    death_fd: int
    status_fd: int
    shared_fd: int
    identity: tuple[int, int, tuple[int, ...]] | None
    checking: bool

    @classmethod
    def read(cls, fd: int) -> Mission:
        """The mission in the file `fd`, which other workers read too: its offset is left alone."""
        text = os.pread(fd, os.fstat(fd).st_size, 0).decode()
        content = json.loads(text)
        identity = content["identity"]
        return cls(
            plan=Plan.from_json(content["plan"]),
            listeners=tuple((fd, address) for fd, address in content["listeners"]),
            files=tuple((path, fd) for path, fd in content["files"]),
            board_fd=content["board_fd"],
            death_fd=content["death_fd"],
            status_fd=content["status_fd"],
            shared_fd=content["shared_fd"],
            identity=identity and (identity[0], identity[1], tuple(identity[2])),
            checking=content["checking"],
        )
