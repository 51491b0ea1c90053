"""What takes the mail in a worker while it is soaked.

`Inbox` is the soak's own handler; `Soaked` makes the class that the server runs: that handler or a user's, with the
instruments around it. The instruments see what the handler has acknowledged and answer questions about the process;
they keep nothing in memory.
"""

from __future__ import annotations

from typing import Any

import gevent
from gsmtp_workers.load import load

from gsmtp.handler import Answer, Handler, Message
from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.reply import Reject
from gsmtp.soak import agreed
from gsmtp.soak.instruments import Instruments, instrumented


class Inbox(Handler):
    """Takes mail, decodes it as a program would, and throws it away; addresses say how else it may go."""

    def __init__(self, parse: bool = True) -> None:
        self._parse = parse

    def check_password(self, session: Session, user: str, password: str) -> bool:
        """One user is known."""
        return user == agreed.USER and password == agreed.PASSWORD

    def on_mail(self, envelope: Envelope) -> None:
        """`raises@` fails."""
        if envelope.sender_local == agreed.RAISES:
            raise Planted("at MAIL")

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> None:
        """`unknown@` is refused, `raises@` fails, `sleeps@` does not come back."""
        local = recipient.local
        if local == agreed.UNKNOWN:
            raise Reject(550, "5.1.1", "No such user here")
        if local == agreed.RAISES:
            raise Planted("at RCPT")
        if local == agreed.SLEEPS:
            gevent.sleep(3600)

    def on_message(self, envelope: Envelope, message: Message) -> Answer:
        """Read it as a program would that wants to know all of it. `raises.later@` fails."""
        if self._parse:
            read(message)
        if envelope.recipients[0].local == agreed.RAISES_LATER:
            raise Planted("with the message there")
        return None


class Planted(Exception):
    """An error that the soak has caused on purpose: it is in the log, and no fault."""


def read(message: Message) -> int:
    """Decode all of a mail: subject, addresses, each part, its text, its attachments' content. Octets decoded."""
    mail = message.mime
    octets = len(mail.subject) + len(mail.text or "") + len(mail.html or "")
    for name in ("From", "To", "Cc", "Reply-To"):
        octets += len(mail.addresses(name))
    for part in mail.walk():
        octets += len(part.content_type)
    for attachment in mail.attachments:
        octets += len(attachment.safe_filename) + len(attachment.content)
    return octets


class Soaked:
    """What the server is told to load: an object of the class `soak_class`, "module:Class", with instruments around it.

    `soak_directory` is where the instruments keep journal and socket; other options go to the class.
    """

    def __new__(cls, soak_class: str, soak_directory: str, **options: Any) -> Any:
        """No Soaked comes of it, but an object of a subclass of `soak_class`."""
        return instrumented(load(soak_class), Instruments(soak_directory))(**options)

    def on_message(self, envelope: Envelope, message: Message) -> None:
        """Never called: it says that this is a handler."""
