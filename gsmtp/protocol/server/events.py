"""What the protocol hands out: something to decide, some content, or a word that it needs more.

An event in `Decision` waits for `ServerSession.answer`; until then the session reads no further.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gsmtp.protocol.envelope import Envelope, Recipient
from gsmtp.protocol.sasl import Question
from gsmtp.reply import Reply


class Signal(Enum):
    """NEED_DATA: call `receive`. CLOSED: write what is left and close the connection."""

    NEED_DATA = "need data"
    CLOSED = "closed"


NEED_DATA, CLOSED = Signal.NEED_DATA, Signal.CLOSED


@dataclass(slots=True)
class Connected:
    """Shall this connection be served? The reply is the banner."""


@dataclass(slots=True)
class Helo:
    """HELO, or EHLO with the extension lines about to be announced; the list may be edited."""

    domain: str
    esmtp: bool
    extensions: list[str]


@dataclass(slots=True)
class Mail:
    """MAIL: shall this envelope be opened?"""

    envelope: Envelope


@dataclass(slots=True)
class Rcpt:
    """RCPT: shall this recipient be accepted?"""

    envelope: Envelope
    recipient: Recipient


@dataclass(slots=True)
class Content:
    """A piece of the content. When `last`, the message is whole and its reply is to be answered."""

    envelope: Envelope
    data: bytes
    last: bool


@dataclass(slots=True)
class ContentRefused:
    """The content has ended and was refused by the protocol; nothing is to be answered."""

    envelope: Envelope
    reply: Reply


@dataclass(slots=True)
class Vrfy:
    """VRFY or EXPN with its argument."""

    verb: str
    argument: str


@dataclass(slots=True)
class UnknownCommand:
    """A verb that the protocol does not know."""

    verb: str
    argument: str


@dataclass(slots=True)
class StartTls:
    """STARTTLS. Answer it, send the reply, do the handshake, and call `tls_started`; if that fails, close."""


@dataclass(slots=True)
class AuthQuestion:
    """A mechanism wants to know something: `answer_question`, with the value that the question asks for."""

    question: Question
    mechanism: str


@dataclass(slots=True)
class Authenticated:
    """AUTH has succeeded; nothing is to be answered."""

    user: str
    mechanism: str


@dataclass(slots=True)
class AuthFailed:
    """AUTH has failed; nothing is to be answered. `why` is for the log and holds no secret."""

    mechanism: str
    why: str
    reply: Reply


@dataclass(slots=True)
class ClientChanged:
    """XCLIENT has changed the session's `peer`: judge it anew. Nothing is to be answered; the banner comes next."""


@dataclass(slots=True)
class Reset:
    """A transaction was given up by the client; nothing is to be answered."""

    envelope: Envelope


@dataclass(slots=True)
class Refused:
    """The protocol itself refused a command; nothing is to be answered."""

    verb: str
    reply: Reply


Decision = Connected | Helo | Mail | Rcpt | Content | Vrfy | UnknownCommand | StartTls
Notice = ClientChanged | Authenticated | AuthFailed | ContentRefused | Reset | Refused
Event = Decision | AuthQuestion | Notice | Signal
# What a verb returns: a reply to be said (a refusal when its code is 400 or more), an event to be decided with its
# default reply, or None when the verb has done all itself.
Outcome = Reply | tuple[Decision, Reply] | None
