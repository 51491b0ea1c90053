"""What all connections of one listener share: made once in a worker, changed by none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gsmtp.counters import Counters
from gsmtp.net.tls import TlsContext
from gsmtp.protocol.server.extensions import ExtensionSet
from gsmtp.protocol.server.options import Options
from gsmtp.server.admission import Admission
from gsmtp.server.eventlog import EventLog
from gsmtp.server.hooks import Hooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. The client's side follows RFC 5321 4.5.3.2; while data flows there is no total.

    `command` until a command, `content` until the next octets of a message, `write` until a client takes its replies,
    `hook` and `message` until a hook returns (the client waits ten minutes for the reply to its message, RFC 5321
    4.5.3.2.6), `handshake` until TLS is agreed, `linger` until a client that was sent away has closed. While draining:
    `drain_login` until a handshake or an AUTH exchange is over, `drain_transaction` until DATA, `drain_content` for the
    rest of a content, `drain_silence` between its octets.
    """

    command: float = 300.0
    content: float = 180.0
    write: float = 300.0
    hook: float = 60.0
    message: float = 300.0
    linger: float = 1.0
    handshake: float = 30.0
    drain_login: float = 10.0
    drain_transaction: float = 30.0
    drain_content: float = 300.0
    drain_silence: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerContext:
    """`new_id` gives ids that nothing else has. `asks`: what the protocol has to ask about (see ServerSession), for the
    hooks and the limits. `entrance`: None where nothing comes before the banner. `implicit_tls`: TLS begins with the
    connection."""

    listener: str
    options: Options
    asks: frozenset[str]
    extensions: ExtensionSet
    timing: Timeouts
    hooks: Hooks
    log: EventLog
    tally: Counters
    new_id: Callable[[], str]
    auth_failure_delay: float
    spool_directory: str | None
    spool_memory: int
    entrance: Admission | None
    tls: TlsContext | None
    implicit_tls: bool
