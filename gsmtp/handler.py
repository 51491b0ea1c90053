"""The callback API. Subclass `Handler`, override what you care about; silence is yes.

A hook says yes by returning None, or a text for the reply. It says no by raising `Reject` (5xx, for good), `Defer`
(4xx, for now) or `Disconnect`. Any other exception is logged with its traceback and a reference, and the client gets
`451 4.3.0` with that reference, never the exception's text; nothing fails open.

One handler object lives in each worker process and serves all its sessions, each in a greenlet: blocking code is fine,
other sessions go on meanwhile. Keep what belongs to a connection, a transaction or a recipient on `session.state`,
`envelope.state` and `recipient.state`. A hook that is not overridden is never called and costs nothing. Every hook has
a deadline (settings `hook_timeout` and `message_timeout`); past it the client gets `451 4.3.0`.

A handler that honours an extension which binds it names it in `extensions`, and may bring its own with parameters of
MAIL and RCPT: `extensions = ("DSN", Extension("XTICKET", mail={"XTICKET": parse}))`
(gsmtp.protocol.server.extensions says how; the values are in `envelope.parameters` and `recipient.parameters`).

    hook              when                                                 no by default means
    on_start          once per worker, before the first connection         the worker does not start
    on_stop           once per worker, after the last                      -
    on_connect        accepted, before the banner; text: the banner        421 and closed
    on_tls            the TLS handshake is over                            closed
    on_helo, on_ehlo  HELO and EHLO                                        no greeting, the client may try again
    check_password    AUTH PLAIN and LOGIN: is it right?                    (see below)
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
These hooks answer a question, so silence is no: True or a user lets in, False or None refuses. What they raise is said
to the client as elsewhere, but `454 4.7.0` for what is no Reject, Defer or Disconnect; passwords stay out of the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, Protocol

from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.protocol.sasl import ScramCredentials
from gsmtp.protocol.server.extensions import Extension

if TYPE_CHECKING:
    from email.message import EmailMessage

    from gsmtp.mime import Headers
    from gsmtp.mime import Message as Mail

Answer = str | None


class Stream(Protocol):
    """The content as it arrives, for `on_data`: octets with dots unstuffed. Read once.

    After DATA it ends with CRLF; what came by BDAT ends as it was sent, and under BODY=BINARYMIME is any octets.
    """

    size: int

    def read(self, size: int = -1) -> bytes:
        """At most `size` octets, all that is left when negative; b"" at the end. Waits for the client."""

    def __iter__(self) -> Iterator[bytes]:
        """Pieces as they come."""


class Message(Protocol):
    """A whole message, for `on_message`. It stays readable until the hook returns."""

    id: str
    size: int

    @property
    def trace(self) -> bytes:
        """The trace header lines (RFC 5321 4.4) that stand before the content."""

    def open(self) -> IO[bytes]:
        """A new reader over trace, prepended headers and content."""

    @property
    def content(self) -> bytes:
        """The content alone, as the client sent it."""

    @property
    def headers(self) -> Headers:
        """The header fields, decoded when asked for; the body is not read."""

    @property
    def mime(self) -> Mail:
        """The whole, decoded by gsmtp.mime as it is asked for: `.subject`, `.from_`, `.text`, `.attachments`"""

    @property
    def email(self) -> EmailMessage:
        """The whole as the standard library's EmailMessage, parsed when first asked for."""

    def prepend(self, name: str, value: str) -> None:
        """Put a header field before all others. ValueError for a name or value that is none (CR, LF, NUL)."""

    def save(self, path: str) -> None:
        """Write it to a new file and sync that and its directory. FileExistsError, OSError."""

    def bytes(self) -> bytes:
        """Trace, prepended headers and content in one."""


class Handler:
    """What a program does with mail. See the table above for when each hook is called."""

    extensions: Sequence[Extension | str] = ()

    def on_start(self, worker: Any) -> None:
        """Open pools and files here. `worker` has `.slot`, the number of this worker."""

    def on_stop(self) -> None:
        """Close what on_start opened."""

    def on_connect(self, session: Session) -> Answer:
        """A client has connected."""

    def on_tls(self, session: Session) -> None:
        """The handshake is over: `session.tls` has version, cipher, server_name and peer, the client's certificate."""

    def on_helo(self, session: Session, domain: str) -> Answer:
        """HELO. A returned text takes the place of the host name in the reply."""

    def on_ehlo(self, session: Session, domain: str, extensions: list[str]) -> Answer:
        """EHLO. `extensions` are the lines about to be announced; edit the list in place."""

    def check_password(self, session: Session, user: str, password: str) -> bool:
        """Whether `user` may log in by `password`. The name is then `session.user`."""
        return False

    def get_password(self, session: Session, user: str, mechanism: str) -> str | ScramCredentials | None:
        """The password of `user`, or what is stored in its place for SCRAM; None when there is no such user."""
        return None

    def check_token(self, session: Session, user: str, token: str) -> bool | str:
        """Whether the bearer token is good for `user`, or, if that is "", whose it is; False or "" refuses."""
        return False

    def check_certificate(self, session: Session, authzid: str) -> str | None:
        """Whose certificate `session.tls.peer` is, if that may act as `authzid` ("": as itself); None refuses."""
        return None

    def on_mail(self, envelope: Envelope) -> Answer:
        """MAIL: `envelope.sender`, `envelope.parameters`."""

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> Answer:
        """RCPT: shall `recipient` be added to `envelope.recipients`?"""

    def on_data(self, envelope: Envelope, stream: Stream) -> Answer:
        """Take the content as a stream. Returning says that it is safely stored."""

    def on_message(self, envelope: Envelope, message: Message) -> Answer:
        """Take the whole message. Returning says that it is safely stored: only then is the client told 250."""

    def on_reset(self, envelope: Envelope) -> None:
        """RSET, a new EHLO, a refused content or the end of the session: `envelope` brings no message."""

    def on_vrfy(self, session: Session, verb: str, argument: str) -> Answer:
        """VRFY or EXPN. None answers 252 (VRFY) or 502 (EXPN)."""

    def on_command(self, session: Session, verb: str, argument: str) -> Answer:
        """A verb of your own. A text answers `250 2.0.0 text`, None `500 5.5.1`."""

    def on_error(self, session: Session, error: BaseException) -> None:
        """For reports only: `error` was raised by a hook, or ended the connection."""

    def on_disconnect(self, session: Session, reason: str) -> None:
        """The session has ended: "quit", "closed by client", "timeout", ..."""
