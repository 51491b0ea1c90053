"""The context of a listener: what all its connections share. It is made once in a worker and never changed.

`make_context` makes it from the settings, and is the place where a room's part of them becomes the objects that the
connections use: options, extensions, networks, limits, certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gsmtp_workers.plan import BootError

from gsmtp.binds import parse_bind
from gsmtp.counters import Counters
from gsmtp.net.networks import Networks
from gsmtp.net.timer import DeadlineTimer
from gsmtp.net.tls import TlsContext
from gsmtp.net.tls_settings import TlsSettings
from gsmtp.protocol.envelope import Envelope
from gsmtp.protocol.server.extensions import ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.server.admission import Admission
from gsmtp.server.eventlog import EventLog
from gsmtp.server.hooks import Hooks
from gsmtp.server.limits import Limits, LimitStore
from gsmtp.server.loader import claimed_extensions
from gsmtp.server.reverse_dns import ReverseDns
from gsmtp.server.settings import AdmissionSettings, RateLimits, SpoolSettings, Timeouts
from gsmtp.settings import ListenerSettings, Settings, protocol_options


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """What all listeners of a worker share.

    `new_id` returns ids that nothing else has. `located` returns the path under which a worker can read a file that its
    user may not.
    """

    settings: Settings
    hooks: Hooks
    log: EventLog
    counters: Counters
    new_id: Callable[[], str]
    located: Callable[[str], str]
    limit_store: LimitStore
    reverse_dns: ReverseDns
    hook_timer: DeadlineTimer[Any]


class Tap(Protocol):
    """Sees the content of one message on its way to the spool or the stream. It must not block."""

    def write(self, data: bytes) -> None:
        """Take a piece. An OSError refuses the message, as that of a full spool does."""

    def finish(self) -> None:
        """The content is whole. Raises as `write` does."""

    def close(self) -> None:
        """Free what is held. Without `finish` before it, the content was refused or given up. Idempotent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerContext:
    """What all connections of one listener share.

    bind          the listener's URL, as the settings have it.
    asks          the commands that the protocol has to ask about (see ServerSession), for the hooks and the limits.
    admission     what happens before the banner; None if nothing does.
    tls           the certificates; None if there is no TLS.
    implicit_tls  whether TLS begins with the connection.
    hook_timer    watches the deadlines of hooks.
    taps          make the taps that see the content of an envelope.
    """

    bind: str
    options: Options
    asks: frozenset[str]
    extensions: ExtensionSet
    timeouts: Timeouts
    spool: SpoolSettings
    hooks: Hooks
    log: EventLog
    counters: Counters
    new_id: Callable[[], str]
    admission: Admission | None
    tls: TlsContext | None
    implicit_tls: bool
    hook_timer: DeadlineTimer[Any]
    taps: tuple[Callable[[Envelope], Tap], ...] = ()


def make_context(worker: WorkerContext, settings: ListenerSettings) -> ListenerContext:
    """Return the context of a listener.

    Raises BootError if the settings do not fit the handler, or name networks or certificates that cannot be used.
    """
    hooks = worker.hooks
    options = protocol_options(settings, hooks.auth, worker.settings.auth_secret)
    if options.auth == "required" and not options.auth_hooks:
        kind = type(hooks.handler).__name__
        raise BootError(f"{settings.bind}: auth is required, but {kind} has no check_ or get_ hook")
    try:
        extensions = ExtensionSet(options, claimed=claimed_extensions(hooks))
        admission = _admission(worker, settings, options)
    except ValueError as error:
        raise BootError(f"{settings.bind}: {error}") from None
    asks = hooks.asks
    if admission.limits is not None:
        limits = admission.limits.settings
        asks |= {name for name, most in (("mail", limits.limit_messages), ("rcpt", limits.limit_recipients)) if most}
    implicit_tls = parse_bind(settings.bind).implicit_tls
    return ListenerContext(
        bind=settings.bind,
        options=options,
        asks=asks,
        extensions=extensions,
        timeouts=Timeouts.pick(settings),
        spool=SpoolSettings.pick(worker.settings),
        hooks=hooks,
        log=worker.log,
        counters=worker.counters,
        new_id=worker.new_id,
        admission=admission if admission.wanted else None,
        tls=_tls(worker, settings) if implicit_tls or options.tls != "never" else None,
        implicit_tls=implicit_tls,
        hook_timer=worker.hook_timer,
    )


def _admission(worker: WorkerContext, settings: ListenerSettings, options: Options) -> Admission:
    """Raises ValueError for a text that is no network."""
    declared = RateLimits.pick(settings)
    if options.auth == "never":
        # Where nobody can log in, nobody's failures have to be counted.
        declared = declared.replace(limit_auth_failures=0)
    limits = Limits(worker.limit_store, declared)
    return Admission(
        settings=AdmissionSettings.pick(settings),
        proxies=Networks(settings.proxy_protocol),
        xclients=Networks(settings.xclient),
        limits=limits if declared.limited else None,
        names=worker.reverse_dns if settings.reverse_lookup else None,
    )


def _tls(worker: WorkerContext, settings: ListenerSettings) -> TlsContext:
    """Raises BootError."""
    try:
        return TlsContext(TlsSettings.pick(settings), worker.located)
    except ValueError as error:
        raise BootError(f"{settings.bind}: the certificate cannot be used: {error}") from None
