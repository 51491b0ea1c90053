"""What all conversations share: how a client connects, and how it sends one message.

Each message is a `Delivery`, which records how far it came: a message that was answered 250 must have been accepted
once, one that was refused or broken off must not, and one without a reply may have been accepted.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gsmtp.soak.accounts import RECIPIENT
from gsmtp.soak.mail import ID_FIELD, MailFile
from gsmtp.soak.smtp import SMTPConnection, UnexpectedReply

# The states of a delivery, as the result file has them.
ABSENT, UNSURE, STORED = "-", "?", "+"
_SEND_WHOLE = 65536  # octets that are joined for one write; above, copying costs more than a second write
Security = Literal["plain", "starttls", "implicit"]


class Delivery:
    """One message to be sent: its id, the index of its mail in the mail file, and its state."""

    __slots__ = ("id", "mail", "state")

    def __init__(self, id: str, mail: int) -> None:
        self.id = id
        self.mail = mail
        self.state = ABSENT


@dataclass(frozen=True)
class Target:
    """The server's addresses, and what clients use there.

    `plain` is the address for SMTP; `implicit` the one for implicit TLS, or None. `tls` is "never", "mixed" or
    "always". `timeout` is the limit in seconds of each read and write.
    """

    plain: tuple[str, int]
    implicit: tuple[str, int] | None
    tls: str
    sender: str
    recipient: str
    timeout: float


class Mailer:
    """What a conversation is given to work with: one for each thread of a client process.

    Methods that use a connection raise ConnectionLost and UnexpectedReply.
    """

    def __init__(
        self,
        target: Target,
        mails: MailFile,
        rng: random.Random,
        take: Callable[[int, Sequence[int] | None], list[Delivery]],
    ) -> None:
        """`take(count, among)` returns the next deliveries: at most `count`, none when all were taken.

        `among` has the indexes of the mails to choose from; None means all.
        """
        self.target = target
        self.mails = mails
        self.rng = rng
        self.take = take
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        self._sender, self._recipient = target.sender.encode(), target.recipient.encode()

    def open(self, security: Security = "plain", source: str = "") -> SMTPConnection:
        """Connect, send EHLO and return the connection.

        `security` is a wish: with `tls` "never" the connection is plain, and with "always" a plain one is replaced by
        STARTTLS or implicit TLS.
        """
        target = self.target
        if target.tls == "never":
            security = "plain"
        elif target.tls == "always" and security == "plain":
            security = self.rng.choice(("starttls", "implicit"))
        if security == "implicit" and target.implicit is not None:
            connection = SMTPConnection(target.implicit, target.timeout, source)
            connection.start_tls(self._context)
        else:
            connection = SMTPConnection(target.plain, target.timeout, source)
        connection.expect(b"220")
        connection.command(b"EHLO client.example", b"250")
        if security == "starttls":
            connection.command(b"STARTTLS", b"220")
            connection.start_tls(self._context)
            connection.command(b"EHLO client.example", b"250")
        return connection

    def mail_command(self, delivery: Delivery) -> bytes:
        """Return the MAIL command for a delivery, with the parameters that its mail needs."""
        entry = self.mails.entries[delivery.mail]
        size = entry.size + len(self.id_field(delivery))
        parameters = b" BODY=8BITMIME" if entry.eight_bit else b""
        if entry.smtputf8:
            parameters += b" SMTPUTF8"
        return b"MAIL FROM:<%b> SIZE=%d%b\r\n" % (self._sender, size, parameters)

    def rcpt_command(self, delivery: Delivery) -> bytes:
        """Return the RCPT command for a delivery: to an internationalized address if its mail needs SMTPUTF8."""
        if self.mails.entries[delivery.mail].smtputf8 and self.target.recipient == RECIPIENT:
            return "RCPT TO:<jürgen@bücher.example>\r\n".encode()
        return b"RCPT TO:<%b>\r\n" % self._recipient

    def id_field(self, delivery: Delivery) -> bytes:
        """Return the header field that is put in front of the mail."""
        return b"%b%b\r\n" % (ID_FIELD, delivery.id.encode())

    def send_content(self, connection: SMTPConnection, delivery: Delivery, following: bytes = b"") -> None:
        """Send the content with its end of data, and the commands `following` it. The delivery becomes UNSURE."""
        field, body = self.id_field(delivery), self.mails.wire_form(delivery.mail)
        delivery.state = UNSURE
        if len(body) <= _SEND_WHOLE:
            connection.send(b"".join((field, body, following)))
            return
        connection.send(field)
        connection.send(body)
        if following:
            connection.send(following)

    def deliver(self, connection: SMTPConnection, delivery: Delivery) -> None:
        """Do one mail transaction, waiting for the reply to each command."""
        connection.send(self.mail_command(delivery))
        connection.expect(b"250")
        connection.send(self.rcpt_command(delivery))
        connection.expect(b"250")
        connection.command(b"DATA", b"354")
        self.send_content(connection, delivery)
        self.read_result(connection, delivery)

    def read_result(self, connection: SMTPConnection, delivery: Delivery, code: bytes = b"250") -> None:
        """Read the reply to the content: the delivery becomes STORED at 250, and ABSENT at any other."""
        reply = connection.read_reply()
        delivery.state = STORED if reply.startswith(b"250") else ABSENT
        if not reply.startswith(code):
            raise UnexpectedReply.of(reply, code)
