"""`Session` is one connection, `Envelope` one mail transaction, `Recipient` one of its recipients. Hooks get them.

The protocol makes these and a hook reads them. A hook may keep data of its own on `.state`, a namespace that lives as
long as the connection, the transaction or the recipient. A reset drops an envelope; the next MAIL makes another.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from gsmtp.protocol.address import Mailbox
from gsmtp.reply import Reply

if TYPE_CHECKING:  # they import Address from here
    from gsmtp.protocol.proxy import ProxyHeader
    from gsmtp.protocol.xclient import ClientAttributes

Address = tuple[Any, ...] | str | None


class TlsFacts(Protocol):
    """What the handshake has settled: `session.tls` (made by gsmtp.net.tls)."""

    @property
    def version(self) -> str:
        """The protocol version, such as "TLSv1.3"."""

    @property
    def cipher(self) -> str:
        """The cipher suite, by OpenSSL's name."""

    @property
    def bits(self) -> int:
        """The bits of the cipher's secret."""

    @property
    def server_name(self) -> str | None:
        """The name that the client asked for (RFC 6066 3), None for none."""

    @property
    def peer(self) -> Mapping[str, Any]:
        """The verified certificate of the client as ssl.SSLSocket.getpeercert returns it, {} for none."""

    @property
    def peer_der(self) -> bytes | None:
        """The same certificate in DER."""

    @property
    def peer_fingerprint(self) -> str | None:
        """The SHA-256 of that certificate in hexadecimal digits."""

    @property
    def channel_bindings(self) -> Mapping[str, bytes]:
        """The data of each type of channel binding (RFC 5929)."""


class HostName(Protocol):
    """A client's name by DNS: `session.name`."""

    @property
    def name(self) -> str:
        """The host name in lower case, without a final dot."""

    @property
    def verified(self) -> bool:
        """Whether the name has the client's address; anyone may let his address point to any name."""


class NameLookup(Protocol):
    """The lookup of a client's name, under way or done: `session.lookup`."""

    @property
    def ready(self) -> bool:
        """Whether `wait` returns at once."""

    def wait(self, timeout: float | None = None) -> HostName | None:
        """Return the name, or None when there is none or it was not found out within `timeout` seconds."""


class _Stateful:
    """Has `.state`, a namespace that is made when it is first used, because most sessions never use it."""

    __slots__ = ("_state",)
    _state: Any  # None at first; each subclass sets it, because a call to a common constructor costs time

    @property
    def state(self) -> Any:
        """The handler's own namespace, on which it may set any attribute."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state


class Session(_Stateful):
    """One connection, from accept to close.

    `id` is unique. `peer` and `local` are socket addresses, (host, port, ...) or a path. `listener` is the name of the
    bound address. `helo` is the name that the client gave itself, "" before that. `esmtp` is true after EHLO and LHLO,
    and `lmtp` on listeners of LMTP. `tls`, `user` and `proxy` are None until TLS, AUTH or a proxy set them.
    `forwarded` is what a trusted peer said by XFORWARD of the client behind it, for records only. `trusted` says
    whether XCLIENT and XFORWARD are taken from this peer.
    """

    __slots__ = (
        "esmtp", "forwarded", "helo", "id", "listener", "lmtp", "local", "lookup", "peer", "proxy", "tls", "trusted",
        "user",
    )  # fmt: skip

    def __init__(self, id: str, peer: Address = None, local: Address = None, listener: str = "") -> None:
        self._state = None
        self.id = id
        self.peer = peer
        self.local = local
        self.listener = listener
        self.helo = ""
        self.esmtp = False
        self.lmtp = False
        self.tls: TlsFacts | None = None
        self.user: str | None = None
        self.proxy: ProxyHeader | None = None
        self.forwarded: ClientAttributes | None = None
        self.trusted = False
        self.lookup: NameLookup | None = None

    @property
    def name(self) -> HostName | None:
        """The client's name by DNS, None for none; waits for the lookup, if the listener has `reverse_lookup`."""
        return self.lookup.wait() if self.lookup is not None else None

    @property
    def protocol(self) -> str:
        """The transmission type for trace headers (RFC 3848): SMTP, or ESMTP or LMTP with S for TLS, A for AUTH."""
        if not self.esmtp:
            return "SMTP"
        kind = "LMTP" if self.lmtp else "ESMTP"
        return f"{kind}{'S' if self.tls is not None else ''}{'A' if self.user is not None else ''}"


class Recipient(_Stateful):
    """One forward-path that was accepted, or is being decided.

    `address` is as the client gave it, `local` is unquoted, `domain` is in lower case and "" for a bare postmaster.
    `parameters` are RCPT's, typed as gsmtp.protocol.parameters does. `result` is the reply by which the handler has
    refused this recipient, or None.
    """

    __slots__ = ("address", "domain", "local", "parameters", "result")

    def __init__(self, mailbox: Mailbox, parameters: Mapping[str, Any]) -> None:
        self._state = None
        self.address = mailbox.address
        self.local = mailbox.local
        self.domain = mailbox.domain
        self.parameters = parameters
        self.result: Reply | None = None

    def reject(self, code: int = 550, enhanced: str = "5.0.0", text: str = "Refused") -> None:
        """Refuse this recipient for good, in `on_message` or `on_rcpt`. Raises ValueError unless the code is 5xx."""
        self.result = _refusal(5, code, enhanced, text)

    def defer(self, code: int = 451, enhanced: str = "4.3.0", text: str = "Try again later") -> None:
        """Refuse this recipient for now, in `on_message` or `on_rcpt`. Raises ValueError unless the code is 4xx."""
        self.result = _refusal(4, code, enhanced, text)

    def __repr__(self) -> str:
        return f"Recipient({self.address!r})"


def _refusal(kind: int, code: int, enhanced: str, text: str) -> Reply:
    if code // 100 != kind:
        raise ValueError(f"a code of {kind}xx is needed here, not {code}")
    return Reply(code, enhanced, text)


class Envelope(_Stateful):
    """One mail transaction, from MAIL to the end of its content.

    `id` is unique and names the message in logs and trace headers. `sender` is the reverse-path, "" for the null one.
    `parameters` are MAIL's, typed as gsmtp.protocol.parameters does: SIZE is an int, BODY one of "7BIT", "8BITMIME" and
    "BINARYMIME", SMTPUTF8 is True.
    """

    __slots__ = ("id", "parameters", "recipients", "sender", "sender_domain", "sender_local", "session")

    def __init__(self, id: str, session: Session, mailbox: Mailbox, parameters: Mapping[str, Any]) -> None:
        self._state = None
        self.id = id
        self.session = session
        self.sender = mailbox.address
        self.sender_local = mailbox.local
        self.sender_domain = mailbox.domain
        self.parameters = parameters
        self.recipients: list[Recipient] = []

    def __repr__(self) -> str:
        return f"Envelope({self.id!r}, {self.sender!r}, {self.recipients!r})"
