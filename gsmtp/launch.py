"""From settings to a running master: the plan that the settings mean, and the log.

This runs in the master process, so it must import neither gevent nor the user's code.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os

from gsmtp_workers import master
from gsmtp_workers.identity import resolve_identity
from gsmtp_workers.plan import Listener, Plan, Role
from gsmtp_workers.sharedtable import table_size

from gsmtp import counters, logs
from gsmtp.binds import parse_bind
from gsmtp.declare import SettingsError
from gsmtp.settings import ListenerSettings, ProcessSettings, Settings, to_json

_FACTORY = "gsmtp.server.service:create"


def run(settings: Settings) -> int:
    """Serve until a signal ends the master, and return its exit status.

    Raises SettingsError, PlanError, or BindError for an address that cannot be bound.
    """
    plan = make_plan(settings)
    logs.configure(settings.log_format, "master", settings.log_level, _log_handler(settings, plan))
    return master.run(plan)


def check(settings: Settings) -> bool:
    """Return whether a worker accepts the settings and the handler. Nothing is bound, and no file is made.

    Raises SettingsError or PlanError for what is seen without a worker.
    """
    plan = make_plan(settings)
    if settings.log_file != "-":
        _check_log(settings.log_file)
    return master.check(plan) == 0


def make_plan(settings: Settings) -> Plan:
    """Return what the master is to do. Raises PlanError, SettingsError."""
    processes = dict(vars(ProcessSettings.pick(settings)))
    workers = processes.pop("workers")
    role = Role(_FACTORY, to_json(settings), tuple(_listener(each) for each in settings.listen))
    if workers:  # the role's default is one for each core
        role = dataclasses.replace(role, processes=workers)
    return Plan(
        roles=(role,),
        counters=counters.COLUMNS,
        shared_memory=table_size(role.size, settings.limit_entries),
        files=tuple(dict.fromkeys(path for each in settings.listen for path in each.tls_files)),
        title="gsmtp",
        **processes,
    )


def _listener(settings: ListenerSettings) -> Listener:
    bind = parse_bind(settings.bind)
    return Listener(
        name=settings.bind,
        host="" if bind.unix else bind.host,
        port=bind.port,
        path=bind.host if bind.unix else "",
        mode=int(settings.mode, 8),
        backlog=settings.backlog,
        farewell=f"421 4.3.2 {settings.hostname} Service shutting down, try again\r\n".encode(),
        busy=f"421 4.3.2 {settings.hostname} Too many connections, try again later\r\n".encode(),
    )


def _log_handler(settings: Settings, plan: Plan) -> logging.Handler | None:
    if settings.log_file == "-":
        return None
    identity = resolve_identity(plan)
    try:
        handler = logging.FileHandler(settings.log_file)
        if identity is not None:  # the workers open it as who they become
            os.chown(settings.log_file, identity.uid, identity.gid)
        return handler
    except OSError as error:
        raise SettingsError(f"log_file {settings.log_file}: {error.strerror}") from None


def _check_log(path: str) -> None:
    """Raise SettingsError if the file cannot be opened for writing. It is not made."""
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        found = path if os.path.lexists(path) else os.path.join(os.path.dirname(path), "")
        os.stat(found)
        if not os.access(found, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError(f"log_file {path}: {error.strerror}") from None
