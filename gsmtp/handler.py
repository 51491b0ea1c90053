"""The callback API. Subclass `Handler` and override the hooks that you need; a hook that is not there accepts.

A hook accepts by returning None, or a text for the reply. It refuses by raising `Reject` (5xx, permanent), `Defer`
(4xx, temporary) or `Disconnect`. Any other exception is logged with its traceback and a reference, and the client gets
`451 4.3.0` with that reference, never the exception's text; no failure accepts anything.

One handler object lives in each worker process and serves all its sessions, each in a greenlet: blocking code is fine,
other sessions go on meanwhile. Keep what belongs to a connection, a transaction or a recipient on `session.state`,
`envelope.state` and `recipient.state`. A hook that is not overridden is never called and costs nothing. Every hook has
a deadline (settings `hook_timeout` and `message_timeout`); past it the client gets `451 4.3.0`.

A handler that honours an optional extension names it in `extensions`, and may bring its own with parameters of MAIL
and RCPT: `extensions = ("DSN", Extension("XTICKET", mail={"XTICKET": parse}))` (gsmtp.protocol.server.extensions says
how; the values are in `envelope.parameters` and `recipient.parameters`).

    hook              called                                               a refusal means
    on_start          once per worker, before the first connection         the worker does not start
    on_stop           once per worker, after the last                      -
    on_connect        accepted, before the banner; text: the banner        421 and closed
    on_tls            the TLS handshake is over                            closed
    on_helo, on_ehlo  HELO and EHLO                                        not greeted, the client may try again
    check_password    AUTH PLAIN and LOGIN: is it right?                   (see below)
    get_password      AUTH CRAM-MD5 and SCRAM: what is it?
    check_token       AUTH XOAUTH2 and OAUTHBEARER: is it good?
    check_certificate AUTH EXTERNAL: whose is session.tls.peer?
    on_mail           MAIL                                                 no transaction
    on_rcpt           RCPT                                                 not a recipient
    on_data           the content begins: read it as a stream              the message is refused
    on_message        the content is whole (instead of on_data)            the message is refused
    on_reset          a transaction has ended without a message            -
    on_vrfy           VRFY and EXPN                                        that reply
    on_command        a verb that the server does not know                 that reply; None is 500
    on_error          a hook failed, or the connection broke               -
    on_disconnect     the session has ended                                -

AUTH is offered only when a check_ or get_ hook exists for it, and over TLS only, unless `auth_without_tls` is set.
These hooks answer a question, and None refuses: True or a user accepts, False or None refuses. What they raise is sent
to the client as elsewhere, but an exception that is no Reject, Defer or Disconnect is `454 4.7.0`; passwords stay out
of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Protocol

from gsmtp.protocol.envelope import Address, Envelope, Recipient, Session
from gsmtp.protocol.sasl import ScramCredentials
from gsmtp.protocol.server.extensions import Extension

if TYPE_CHECKING:
    import os
    from email.message import EmailMessage

    from gsmtp.mime import Headers
    from gsmtp.mime import Message as Mail

Answer = str | None


class Listener(Protocol):
    """A listener of a worker."""

    @property
    def name(self) -> str:
        """Its bind URL, as the settings have it."""

    @property
    def address(self) -> Address:
        """The address that it is bound to."""


class Worker(Protocol):
    """The worker process, for `on_start`."""

    @property
    def slot(self) -> int:
        """Its number, from 0; a worker that replaces another has the same."""

    @property
    def generation(self) -> int:
        """The number of the reload that it was started by, from 0."""

    @property
    def listeners(self) -> Sequence[Listener]:
        """Those that it accepts from, in the order of the settings."""

    @property
    def sessions(self) -> int:
        """The connections that are open now."""

    @property
    def draining(self) -> bool:
        """Whether it accepts no more connections, because it is to end."""

    def on_drain(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a greenlet of its own when the worker begins to drain; at once if it has begun."""


class Stream(Protocol):
    """The content as it arrives, for `on_data`: octets with dots unstuffed. It can be read once.

    After DATA it ends with CRLF. What came by BDAT ends as it was sent, and under BODY=BINARYMIME is any octets.
    Reading raises Reject with the reply to come when the server refuses the content (too large, bare newlines) or the
    client gives the message up, gsmtp.net.errors.ConnectionLost when the client is gone, and ValueError once `on_data`
    has returned.
    """

    @property
    def size(self) -> int:
        """The octets so far."""

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` octets, all that is left when negative, b"" at the end. Waits for the client."""

    def __iter__(self) -> Iterator[bytes]:
        """Return an iterator over the pieces as they arrive."""


class Message(Protocol):
    """A whole message, for `on_message`. It stays readable until the hook returns.

    `id` is the envelope's, `size` the octets of the content.
    """

    id: str
    size: int

    @property
    def trace(self) -> bytes:
        """The trace header lines (RFC 5321 4.4) that stand before the content."""

    def open(self) -> IO[bytes]:
        """Return a new reader of the trace, the prepended fields and the content. Raises ValueError when closed."""

    @property
    def content(self) -> bytes:
        """The content alone, as the client sent it."""

    @property
    def headers(self) -> Headers:
        """The header fields, decoded when asked for; the body is not read."""

    @property
    def mime(self) -> Mail:
        """The whole message, decoded by gsmtp.mime as it is asked for: `.subject`, `.from_`, `.text`, `.attachments`"""

    @property
    def email(self) -> EmailMessage:
        """The whole message as the standard library's EmailMessage, parsed when first asked for."""

    def prepend(self, name: str, value: str) -> None:
        """Put a header field before all others. Raises ValueError for a wrong name, or CR, LF or NUL in the value."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the message to a new file, and sync the file and its directory. Raises FileExistsError, OSError."""

    def bytes(self) -> bytes:
        """Return the trace, the prepended fields and the content in one."""


class Handler:
    """What a program does with mail. The table above says when each hook is called, and what it may raise."""

    extensions: Sequence[Extension | str] = ()

    def on_start(self, worker: Worker) -> None:
        """The worker is about to accept its first connection: open pools and files here."""

    def on_stop(self) -> None:
        """The worker ends: close what on_start has opened."""

    def on_connect(self, session: Session) -> Answer:
        """A client has connected."""

    def on_tls(self, session: Session) -> None:
        """The handshake is over: `session.tls` has version, cipher, server_name and peer, the client's certificate."""

    def on_helo(self, session: Session, domain: str) -> Answer:
        """HELO. A returned text takes the place of the host name in the reply."""

    def on_ehlo(self, session: Session, domain: str, extensions: list[str]) -> Answer:
        """EHLO. `extensions` are the lines about to be announced; edit the list in place."""

    def check_password(self, session: Session, user: str, password: str) -> bool:
        """Return whether `user` may log in by `password`. The name is then `session.user`."""
        return False

    def get_password(self, session: Session, user: str, mechanism: str) -> str | ScramCredentials | None:
        """Return the password of `user`, or what is stored in its place for SCRAM; None when there is no such user."""
        return None

    def check_token(self, session: Session, user: str, token: str) -> bool | str:
        """Return whether the bearer token is good for `user`; if `user` is "", whose it is. False or "" refuses."""
        return False

    def check_certificate(self, session: Session, authzid: str) -> str | None:
        """Return whose certificate `session.tls.peer` is, if that user may act as `authzid` ("": as himself)."""
        return None

    def on_mail(self, envelope: Envelope) -> Answer:
        """MAIL: `envelope.sender`, `envelope.parameters`."""

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> Answer:
        """RCPT: decide whether `recipient` is added to `envelope.recipients`."""

    def on_data(self, envelope: Envelope, stream: Stream) -> Answer:
        """Take the content as a stream, in a greenlet of its own. Returning says that it is safely stored."""

    def on_message(self, envelope: Envelope, message: Message) -> Answer:
        """Take the whole message. Returning says that it is safely stored: only then is the client told 250."""

    def on_reset(self, envelope: Envelope) -> None:
        """The transaction has ended without a message: RSET, a new EHLO, a refused content, the session's end."""

    def on_vrfy(self, session: Session, verb: str, argument: str) -> Answer:
        """VRFY or EXPN. None answers 252 (VRFY) or 502 (EXPN)."""

    def on_command(self, session: Session, verb: str, argument: str) -> Answer:
        """A verb of your own. A text answers `250 2.0.0 text`, None `500 5.5.1`."""

    def on_error(self, session: Session, error: BaseException) -> None:
        """For reports only: `error` was raised by a hook, or ended the connection."""

    def on_disconnect(self, session: Session, reason: str) -> None:
        """The session has ended: "quit", "closed by client", "timeout", ..."""
