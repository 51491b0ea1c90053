"""Who the workers become: the user and the group of a plan, looked up once by the master.

Promises: `resolve_identity` asks the system and changes nothing; `become` gives up all rights that the identity does
not have. Must not know: how processes are started.
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import NamedTuple

from gsmtp_workers.plan import Plan, PlanError


class Identity(NamedTuple):
    """A user id, a group id and the supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def resolve_identity(plan: Plan) -> Identity | None:
    """Return who the workers become; None when that is who the master is.

    Raises PlanError when the user or group does not exist, or when this process has no right to become it.
    """
    if not plan.user and not plan.group:
        return None
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    try:
        if plan.user:
            entry = pwd.getpwnam(plan.user)
            uid, gid = entry.pw_uid, entry.pw_gid
            groups = os.getgrouplist(plan.user, gid)
    except KeyError:
        raise PlanError(f"user: there is no user {plan.user!r}") from None
    try:
        if plan.group:
            gid = grp.getgrnam(plan.group).gr_gid
            groups = sorted({gid, *groups}) if plan.user else [gid]
    except KeyError:
        raise PlanError(f"group: there is no group {plan.group!r}") from None
    if os.geteuid() != 0:
        if uid == os.geteuid() and gid in (os.getegid(), *os.getgroups()):
            return None
        raise PlanError("user, group: only root can change them")
    return Identity(uid, gid, tuple(groups))


def become(identity: Identity) -> None:
    """Make this process belong to the user and the groups, for good. Raises OSError without the right to do so."""
    os.setgroups(identity.groups)
    os.setgid(identity.gid)
    os.setuid(identity.uid)
