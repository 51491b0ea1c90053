"""What a worker runs: made from the settings once, it gives the worker a handle for each listener.

The worker calls `create`; whatever the user got wrong becomes a BootError of one line there.
"""

from __future__ import annotations

import base64
import dataclasses
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

from gsmtp import settings as settings_module
from gsmtp.counters import COLUMNS, Counters
from gsmtp.net.networks import Networks
from gsmtp.net.timer import DeadlineTimer
from gsmtp.net.tls import TlsContext, TlsSettings
from gsmtp.net.transport import PlainTransport
from gsmtp.protocol.envelope import Address, Session
from gsmtp.protocol.parameters import ParameterError, Parser
from gsmtp.protocol.server.extensions import Extension, ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.server.admission import Admission
from gsmtp.server.connection import Connection
from gsmtp.server.eventlog import EventLog
from gsmtp.server.hooks import Hooks
from gsmtp.server.limits import Limits, Rates
from gsmtp.server.listener import ListenerContext, Timeouts
from gsmtp.server.loader import load_hooks, start
from gsmtp.server.reverse_dns import ReverseDns
from gsmtp.settings import Listen, Settings

Handle = Callable[[socket.socket, Any], None]

_PUBLISH_INTERVAL = 0.5
_ANY = ("0.0.0.0", "::", "")


def create(worker: Worker, argument: Any) -> Sequence[Handle]:
    """The factory for gsmtp_workers.plan.Plan: `argument` is what settings.to_json made. Raises BootError."""
    return Service(worker, settings_module.from_json(argument)).handles


class Service:
    """One worker's SMTP server. `handles` are in the order of the listeners."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self._worker = worker
        # A check makes no file, and the master has not given it to the workers' user then.
        path = "-" if worker.checking else settings.log_file
        try:
            self._log = EventLog(settings.log_format, f"worker-{worker.slot}", settings.log_level, path)
        except OSError as error:
            raise BootError(f"cannot open the log {settings.log_file}: {error.strerror}") from None
        _check_spool(settings.spool_directory)
        # Ids are unique among workers and restarts by 40 random bits, within a worker by a count.
        self._prefix = base64.b32encode(os.urandom(5)).decode()
        self._numbers = itertools.count(1)
        self._tally = Counters()
        self._sweep: DeadlineTimer[Connection] = DeadlineTimer()
        self._limit_store = table_of(worker, settings.limit_entries)
        try:
            self._names = ReverseDns(settings.nameservers)
        except ValueError as error:
            raise BootError(f"nameservers: {error}") from None
        self._hooks = load_hooks(settings.handler, self.new_id)
        self.handles = [
            self._handle(self._terms(settings, listen), endpoint.address)
            for listen, endpoint in zip(settings.listen, worker.listeners, strict=True)
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
        """An id that nothing else has, of letters and digits."""
        return f"{self._prefix}{next(self._numbers):x}"

    def _terms(self, settings: Settings, listen: Listen) -> ListenerContext:
        options = settings_module.protocol_options(listen, self._hooks.auth, settings.auth_secret)
        if options.auth == "required" and not options.auth_hooks:
            kind = type(self._hooks.handler).__name__
            raise BootError(f"{listen.bind}: auth is required, but {kind} has no check_ or get_ hook")
        implicit_tls = settings_module.parse_bind(listen.bind)[0] == "smtps"
        try:
            extensions = ExtensionSet(options, claimed=claimed_extensions(self._hooks))
        except ValueError as error:
            raise BootError(f"{listen.bind}: {error}") from None
        timing = Timeouts(
            command=listen.command_timeout,
            content=listen.content_timeout,
            write=listen.write_timeout,
            hook=listen.hook_timeout,
            message=listen.message_timeout,
            handshake=listen.handshake_timeout,
            linger=listen.linger,
            drain_login=listen.drain_login,
            drain_transaction=listen.drain_transaction,
            drain_content=listen.drain_content,
            drain_silence=listen.drain_silence,
        )
        entrance = self._entrance(settings, listen, options)
        asks = self._hooks.asks
        if entrance.limits is not None:
            rates = entrance.limits.rates
            asks |= {name for name, rate in (("mail", rates.messages), ("rcpt", rates.recipients)) if rate}
        return ListenerContext(
            listener=listen.bind,
            options=options,
            asks=asks,
            entrance=entrance if entrance.wanted else None,
            extensions=extensions,
            timing=timing,
            hooks=self._hooks,
            log=self._log,
            tally=self._tally,
            new_id=self.new_id,
            auth_failure_delay=listen.auth_failure_delay,
            spool_directory=settings.spool_directory or None,
            spool_memory=settings.spool_memory,
            tls=self._tls(listen) if implicit_tls or options.tls != "never" else None,
            implicit_tls=implicit_tls,
        )

    def _entrance(self, settings: Settings, listen: Listen, options: Options) -> Admission:
        rates = Rates(
            sessions=listen.limit_sessions,
            connections=listen.limit_connections,
            messages=listen.limit_messages,
            recipients=listen.limit_recipients,
            interval=listen.limit_interval,
            # Where nobody can log in, nobody's failures have to be counted.
            auth_failures=0 if options.auth == "never" else listen.limit_auth_failures,
            auth_interval=listen.limit_auth_interval,
        )
        try:
            exempt = Networks(listen.limit_exempt)
            limits = Limits(self._limit_store, rates, exempt, listen.limit_ipv6_prefix) if rates else None
            return Admission(
                proxies=Networks(listen.proxy_protocol),
                proxy_timeout=listen.proxy_timeout,
                xclients=Networks(listen.xclient),
                limits=limits,
                names=self._names if listen.reverse_lookup else None,
                greet_delay=listen.greet_delay,
            )
        except ValueError as error:
            raise BootError(f"{listen.bind}: {error}") from None

    def _tls(self, listen: Listen) -> TlsContext:
        certificates = {name: (pair[0], pair[-1]) for name, pair in listen.certificates.items()}
        try:
            return TlsContext(
                TlsSettings(
                    certfile=listen.certfile,
                    keyfile=listen.keyfile,
                    certificates=certificates,
                    client_ca=listen.client_ca,
                    minimum=listen.tls_minimum,
                    ciphers=listen.tls_ciphers,
                ),
                self._worker.located,
            )
        except ValueError as error:
            raise BootError(f"{listen.bind}: the certificate cannot be used: {error}") from None

    def _handle(self, terms: ListenerContext, bound: SocketAddress) -> Handle:
        watched = self._sweep.watched
        # Asking each connection for its own address is a system call, needed only where the bound one is none.
        local: Address = bound if isinstance(bound, str) else bound[:2]
        ask = not isinstance(bound, str) and bound[0] in _ANY

        def handle(sock: socket.socket, address: Any) -> None:
            here = sock.getsockname() if ask else local
            session = Session(self.new_id(), address, here, terms.listener)
            connection = Connection(terms, PlainTransport(sock), session)
            watched.add(connection)
            try:
                connection.run()
            finally:
                watched.discard(connection)

        return handle

    def _tell_all(self, what: Callable[[Connection], None]) -> None:
        # In the hub, where no session runs, so that none is between two states.
        for connection in list(self._sweep.watched):
            gevent.get_hub().loop.run_callback(what, connection)

    def _publish(self) -> None:
        self._tally.transactions = sum(connection.in_transaction for connection in self._sweep.watched)
        publish(self._tally, COLUMNS, self._worker.counters)

    def _exit(self) -> None:
        if self._hooks.on_stop is not None:
            self._hooks.tell(self._hooks.on_stop, "")
        self._publisher.stop()
        self._publish()
        self._sweep.close()
        self._log.flush()


def claimed_extensions(hooks: Hooks) -> list[Extension | str]:
    """What the handler's `extensions` say, with its parsers made safe. ValueError when they say something else."""
    claimed = getattr(hooks.handler, "extensions", ())
    if not isinstance(claimed, tuple | list) or not all(isinstance(each, Extension | str) for each in claimed):
        raise ValueError(f"{type(hooks.handler).__name__}.extensions must be a tuple of Extension and keywords")
    return [each if isinstance(each, str) else _guarded(each, hooks) for each in claimed]


def _guarded(extension: Extension, hooks: Hooks) -> Extension:
    """As everywhere, a failure in the handler's code is 451 with a reference, not the end of the session."""

    def guard(name: str, parser: Parser) -> Parser:
        def parse(value: str | None, options: Options) -> Any:
            try:
                return parser(value, options)
            except ParameterError:
                raise
            except Exception as error:
                reply = hooks.failure(f"parameter {name}", "", error)
                raise ParameterError(reply.code, reply.enhanced, reply.text) from None

        return parse

    mail = {name: guard(name, parser) for name, parser in extension.mail.items()}
    rcpt = {name: guard(name, parser) for name, parser in extension.rcpt.items()}
    return dataclasses.replace(extension, mail=mail, rcpt=rcpt)


def _check_spool(directory: str) -> None:
    """Raise BootError when large messages could not wait there: else each of them would be deferred, for ever."""
    try:
        tempfile.TemporaryFile(dir=directory or None).close()
    except OSError as error:
        text = f"cannot write to the spool_directory {directory or tempfile.gettempdir()}: {error.strerror}"
        raise BootError(text) from None
