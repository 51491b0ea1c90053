"""The handler of the server under test.

`Inbox` is the soak's own handler. `InstrumentedHandler` makes the object that the server runs: of that class or of a
user's, with instruments that record accepted messages and answer questions about the process.
"""

from __future__ import annotations

from typing import Any

import gevent
from gsmtp_workers.load import load

from gsmtp.handler import Answer, Handler, Message
from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.reply import Reject
from gsmtp.soak import accounts
from gsmtp.soak.instruments import Instruments, instrumented


class Inbox(Handler):
    """Accepts mail, decodes it and throws it away. Some addresses make a hook fail, see `accounts.py`."""

    def __init__(self, parse: bool = True) -> None:
        self._parse = parse

    def check_password(self, session: Session, user: str, password: str) -> bool:
        """Accept the one user."""
        return user == accounts.USER and password == accounts.PASSWORD

    def on_mail(self, envelope: Envelope) -> None:
        """Raise PlantedError for `raises@`."""
        if envelope.sender_local == accounts.RAISES:
            raise PlantedError("at MAIL")

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> None:
        """Refuse `unknown@` by Reject, raise PlantedError for `raises@`, do not return for `sleeps@`."""
        local = recipient.local
        if local == accounts.UNKNOWN:
            raise Reject(550, "5.1.1", "No such user here")
        if local == accounts.RAISES:
            raise PlantedError("at RCPT")
        if local == accounts.SLEEPS:
            gevent.sleep(3600)

    def on_message(self, envelope: Envelope, message: Message) -> Answer:
        """Decode the message, if told so. Raise PlantedError for `raises.later@`."""
        if self._parse:
            read(message)
        if envelope.recipients[0].local == accounts.RAISES_LATER:
            raise PlantedError("with the message there")
        return None


class PlantedError(Exception):
    """An error that the soak causes on purpose: it is logged, and does not count against the server."""


def read(message: Message) -> int:
    """Decode all of a mail: subject, addresses, parts, texts and attachments. Return how much was decoded."""
    mail = message.mime
    length = len(mail.subject) + len(mail.text or "") + len(mail.html or "")
    for name in ("From", "To", "Cc", "Reply-To"):
        length += len(mail.addresses(name))
    for part in mail.walk():
        length += len(part.content_type)
    for attachment in mail.attachments:
        length += len(attachment.safe_filename) + len(attachment.content)
    return length


class InstrumentedHandler:
    """The class that the server is told to load. Calling it makes an object of a subclass of the class under test."""

    def __new__(cls, soak_class: str, soak_directory: str, **options: Any) -> Any:
        """Return an object of an instrumented subclass of `soak_class`, which is "module:Class".

        The instruments keep their files in `soak_directory`. Other options go to the class. Raises what loading and
        calling it raise.
        """
        return instrumented(load(soak_class), Instruments(soak_directory))(**options)

    def on_message(self, envelope: Envelope, message: Message) -> None:
        """Never called. It makes this class a handler for the server, which looks before it makes the object."""
