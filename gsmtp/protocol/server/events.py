"""What `ServerSession.next_event` returns: a decision, a piece of content, a notice, or a signal to its driver.

An event in `Decision` waits for `ServerSession.answer`; until then the session reads no further. Content waits for an
answer when it is the last piece. A notice wants no answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gsmtp.protocol.envelope import Envelope, Recipient
from gsmtp.protocol.sasl import Question
from gsmtp.reply import Reply


class Signal(Enum):
    """NEED_DATA: call `receive`. CLOSED: send what is left and close the connection."""

    NEED_DATA = "need data"
    CLOSED = "closed"


NEED_DATA, CLOSED = Signal.NEED_DATA, Signal.CLOSED


@dataclass(slots=True)
class Connected:
    """A connection has begun. The reply is the banner, or refuses the client."""


@dataclass(slots=True)
class Helo:
    """HELO, or EHLO with the lines of the extensions that are to be announced; the list may be edited."""

    domain: str
    esmtp: bool
    extensions: list[str]


@dataclass(slots=True)
class Mail:
    """MAIL. An accepting reply opens the transaction of this envelope."""

    envelope: Envelope


@dataclass(slots=True)
class Rcpt:
    """RCPT. An accepting reply adds the recipient to the envelope."""

    envelope: Envelope
    recipient: Recipient


@dataclass(slots=True)
class Content:
    """A piece of the content. With `last` the message is complete, and the event waits for its reply."""

    envelope: Envelope
    data: bytes
    last: bool


@dataclass(slots=True)
class ContentRefused:
    """A notice: the content has ended, and the protocol has refused it."""

    envelope: Envelope
    reply: Reply


@dataclass(slots=True)
class Vrfy:
    """VRFY or EXPN with its argument."""

    verb: str
    argument: str


@dataclass(slots=True)
class UnknownCommand:
    """A verb that the listener does not have."""

    verb: str
    argument: str


@dataclass(slots=True)
class StartTls:
    """STARTTLS. Answer it, send the reply, do the handshake and call `tls_started`; close when the handshake fails."""


@dataclass(slots=True)
class AuthQuestion:
    """A question of an AUTH mechanism, which waits for `ServerSession.answer_question`."""

    question: Question
    mechanism: str


@dataclass(slots=True)
class Authenticated:
    """A notice: AUTH has succeeded."""

    user: str
    mechanism: str


@dataclass(slots=True)
class AuthFailed:
    """A notice: an AUTH exchange has failed. `why` is for the log and holds no secret.

    AUTH that is refused before an exchange begins is `Refused`.
    """

    mechanism: str
    why: str
    reply: Reply


@dataclass(slots=True)
class ClientChanged:
    """A notice: XCLIENT has changed the session's `peer`, whose limits apply from now on. The banner comes next."""


@dataclass(slots=True)
class Reset:
    """A notice: the transaction has ended without a message."""

    envelope: Envelope


@dataclass(slots=True)
class Refused:
    """A notice: the protocol itself has refused a command."""

    verb: str
    reply: Reply


Decision = Connected | Helo | Mail | Rcpt | Content | Vrfy | UnknownCommand | StartTls
Notice = ClientChanged | Authenticated | AuthFailed | ContentRefused | Reset | Refused
Event = Decision | AuthQuestion | Notice | Signal
# An event to be decided, its default reply, and what takes the session, the event and the reply that was decided.
Pending = tuple[Decision | AuthQuestion, Reply, Callable[[Any, Any, Reply], None]]
# What a verb returns: a reply to be said (a refusal when its code is 400 or more), an event to be decided, or None when
# the verb has done all itself.
Outcome = Reply | Pending | None
