"""The SMTP service of one worker: made from the settings once, it gives the worker a handle for each listener.

The worker calls `create`. What the user got wrong becomes a BootError of one line.
"""

from __future__ import annotations

import base64
import itertools
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gsmtp_workers.columns import publish
from gsmtp_workers.config import SocketAddress
from gsmtp_workers.plan import BootError
from gsmtp_workers.sharedtable import table_of
from gsmtp_workers.worker import Worker

from gsmtp.counters import COLUMNS, Counters
from gsmtp.dns.nameservers import NameServers
from gsmtp.dns.resolver import Resolver
from gsmtp.net.gevent_transport import PlainTransport
from gsmtp.net.timer import DeadlineTimer
from gsmtp.protocol.envelope import Address, Session
from gsmtp.server.connection import Connection
from gsmtp.server.eventlog import EventLog
from gsmtp.server.listener import ListenerContext, WorkerContext, make_context
from gsmtp.server.loader import load_hooks, start
from gsmtp.server.reverse_dns import ReverseDns
from gsmtp.server.runner import HookRunner
from gsmtp.settings import Settings, from_json

Handle = Callable[[socket.socket, Any], None]

_PUBLISH_INTERVAL = 0.5
_ANY = ("0.0.0.0", "::", "")


def create(worker: Worker, argument: Any) -> Sequence[Handle]:
    """Return the worker's handles, one for each listener, in the order of the listeners.

    This is the factory of gsmtp_workers.plan.Plan; `argument` is what gsmtp.settings.to_json made. Raises BootError.
    """
    return Service(worker, from_json(argument)).handles


class Service:
    """One worker's SMTP server. Raises BootError for settings or a handler that cannot be used.

    `handles` are in the order of the listeners.
    """

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self._worker = worker
        # Ids are unique among workers and restarts by 40 random bits, within a worker by a count.
        self._prefix = base64.b32encode(os.urandom(5)).decode()
        self._numbers = itertools.count(1)
        self._counters = Counters()
        self._log = _open_log(worker, settings)
        _check_spool(settings.spool_directory)
        self._timer: DeadlineTimer[Connection] = DeadlineTimer()
        self._hook_timer: DeadlineTimer[HookRunner] = DeadlineTimer()
        limit_store = table_of(worker, settings.limit_entries)
        reverse_dns = _reverse_dns(settings)
        self._hooks = load_hooks(settings.handler, self.new_id)
        context = WorkerContext(
            settings=settings,
            hooks=self._hooks,
            log=self._log,
            counters=self._counters,
            new_id=self.new_id,
            located=worker.located,
            limit_store=limit_store,
            reverse_dns=reverse_dns,
            hook_timer=self._hook_timer,
        )
        self.handles = [
            self._handle(make_context(context, listener), endpoint.address)
            for listener, endpoint in zip(settings.listen, worker.listeners, strict=True)
        ]
        if worker.checking:
            return
        start(self._hooks, worker)
        worker.on_drain(lambda: self._tell_all(Connection.drain))
        worker.on_stop(lambda: self._tell_all(Connection.stop))
        worker.on_exit(self._exit)
        self._publisher = gevent.get_hub().loop.timer(_PUBLISH_INTERVAL, _PUBLISH_INTERVAL)
        self._publisher.start(self._publish)

    def new_id(self) -> str:
        """Return an id that nothing else has, of letters and digits."""
        return f"{self._prefix}{next(self._numbers):x}"

    def _handle(self, context: ListenerContext, bound: SocketAddress) -> Handle:
        watched = self._timer.watched
        # Asking a connection for its own address is a system call, needed only if the bound address is a wildcard.
        local: Address = bound if isinstance(bound, str) else bound[:2]
        ask = not isinstance(bound, str) and bound[0] in _ANY

        def handle(sock: socket.socket, address: Any) -> None:
            here = sock.getsockname() if ask else local
            session = Session(self.new_id(), address, here, context.bind)
            connection = Connection(context, PlainTransport(sock), session)
            watched.add(connection)
            try:
                connection.run()
            finally:
                watched.discard(connection)

        return handle

    def _tell_all(self, what: Callable[[Connection], None]) -> None:
        # In the hub no session runs, so that none is between two states.
        for connection in list(self._timer.watched):
            gevent.get_hub().loop.run_callback(what, connection)

    def _publish(self) -> None:
        self._counters.transactions = sum(connection.in_transaction for connection in self._timer.watched)
        publish(self._counters, COLUMNS, self._worker.counters)

    def _exit(self) -> None:
        if self._hooks.on_stop is not None:
            self._hooks.notify(self._hooks.on_stop, "")
        self._publisher.stop()
        self._publish()
        self._timer.close()
        self._hook_timer.close()
        self._log.flush()


def _open_log(worker: Worker, settings: Settings) -> EventLog:
    """Return the worker's log. Raises BootError if its file cannot be opened."""
    # A check makes no file, and the master has not given it to the workers' user then.
    path = "-" if worker.checking else settings.log_file
    try:
        return EventLog(settings.log_format, f"worker-{worker.slot}", settings.log_level, path)
    except OSError as error:
        raise BootError(f"cannot open the log {settings.log_file}: {error.strerror}") from None


def _reverse_dns(settings: Settings) -> ReverseDns:
    """Return what looks clients' names up. Raises BootError for name servers without a usable address."""
    try:
        return ReverseDns(Resolver(NameServers(settings.nameservers)))
    except ValueError as error:
        raise BootError(f"nameservers: {error}") from None


def _check_spool(directory: str) -> None:
    """Raise BootError if large messages cannot be written there. Otherwise each of them would be deferred."""
    try:
        tempfile.TemporaryFile(dir=directory or None).close()
    except OSError as error:
        text = f"cannot write to the spool_directory {directory or tempfile.gettempdir()}: {error.strerror}"
        raise BootError(text) from None
