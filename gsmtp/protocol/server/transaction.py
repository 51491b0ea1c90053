"""A mail transaction: MAIL, RCPT, DATA and its content, RSET (RFC 5321 3.3).

`Transaction` exists from an accepted MAIL to the reply to the content, or to a reset. It holds all that is known of
one message, so nothing of it can reach the next. Content by BDAT is read in chunking.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gsmtp.protocol.address import AddressError, parse_path
from gsmtp.protocol.envelope import Envelope, Recipient
from gsmtp.protocol.framing import DotReader
from gsmtp.protocol.parameters import ParameterError
from gsmtp.protocol.server import replies
from gsmtp.protocol.server.events import Content, ContentRefused, Mail, Outcome, Rcpt, Reset
from gsmtp.protocol.server.transitions import CONTENT_ENDED, DATA_ACCEPTED, MAIL_ACCEPTED, RCPT_ACCEPTED, RESET, move
from gsmtp.reply import Reply

if TYPE_CHECKING:
    from gsmtp.protocol.server.session import ServerSession


class Transaction:
    """One transaction. `content` reads what follows DATA; `overshoot` counts recipients beyond the limit."""

    __slots__ = ("content", "envelope", "overshoot")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.content: DotReader | None = None
        self.overshoot = 0


def mail(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """MAIL: open a transaction."""
    options = smtp.options
    if argument[:5].upper() != "FROM:":
        return replies.MAIL_SYNTAX
    try:
        mailbox, rest = parse_path(argument[5:], null=True, lenient=options.lenient_addresses)
        parameters = smtp.offer.mail_parameters(rest) if rest else {}
    except AddressError as error:
        return Reply(501, "5.1.7", f"Bad sender address: {error}")
    except ParameterError as refusal:
        return refusal.reply
    if not argument.isascii() and "SMTPUTF8" not in parameters:
        return replies.NEEDS_SMTPUTF8
    smtp.transactions += 1
    if 0 < options.max_transactions < smtp.transactions:
        return replies.TOO_MANY_TRANSACTIONS
    envelope = Envelope(smtp.new_id(), smtp.session, mailbox, parameters)
    if "mail" in smtp.asks:
        return Mail(envelope), replies.SENDER_OK, mail_decided
    _open(smtp, envelope)
    return replies.SENDER_OK


def mail_decided(smtp: ServerSession, event: Mail, reply: Reply) -> None:
    """Say the reply; open the transaction when it accepts."""
    smtp.say(reply)
    if reply.accepted:
        _open(smtp, event.envelope)


def _open(smtp: ServerSession, envelope: Envelope) -> None:
    smtp.transaction = Transaction(envelope)
    smtp.chunks = None
    move(smtp, MAIL_ACCEPTED)


def rcpt(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """RCPT: add a recipient."""
    transaction = smtp.transaction
    assert transaction is not None
    envelope, options = transaction.envelope, smtp.options
    if argument[:3].upper() != "TO:":
        return replies.RCPT_SYNTAX
    try:
        mailbox, rest = parse_path(argument[3:], lenient=options.lenient_addresses)
        parameters = smtp.offer.rcpt_parameters(rest) if rest else {}
    except AddressError as error:
        return Reply(501, "5.1.3", f"Bad recipient address: {error}")
    except ParameterError as refusal:
        return refusal.reply
    if not argument.isascii() and "SMTPUTF8" not in envelope.parameters:
        return replies.NEEDS_SMTPUTF8
    if len(envelope.recipients) >= options.max_recipients:
        # RFC 5321 4.5.3.1.10: 452, and the client sends the rest in another transaction. A pipelining client may have
        # sent as many again before it could know; one that goes on after that does not read its replies.
        transaction.overshoot += 1
        unheeded = transaction.overshoot > options.max_recipient_overshoot
        return replies.TOO_MANY_COMMANDS if unheeded else replies.TOO_MANY_RECIPIENTS
    recipient = Recipient(mailbox, parameters)
    if "rcpt" in smtp.asks:
        return Rcpt(envelope, recipient), replies.RECIPIENT_OK, rcpt_decided
    envelope.recipients.append(recipient)
    move(smtp, RCPT_ACCEPTED)
    return replies.RECIPIENT_OK


def rcpt_decided(smtp: ServerSession, event: Rcpt, reply: Reply) -> None:
    """Say the reply; add the recipient when it accepts."""
    smtp.say(reply)
    if reply.accepted:
        event.envelope.recipients.append(event.recipient)
        move(smtp, RCPT_ACCEPTED)


def data(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """DATA: let the content come."""
    if argument:
        return replies.NO_ARGUMENT
    options, transaction = smtp.options, smtp.transaction
    assert transaction is not None
    envelope = transaction.envelope
    if envelope.parameters.get("BODY") == "BINARYMIME":
        return replies.BINARY_NEEDS_BDAT
    if not envelope.recipients:
        return replies.LMTP_NO_RECIPIENTS if options.lmtp else replies.NO_RECIPIENTS
    transaction.content = DotReader(
        options.allow_bare_newlines, options.max_message_size, options.max_content_line_length
    )
    move(smtp, DATA_ACCEPTED)
    return replies.GO_AHEAD


def read_content(smtp: ServerSession) -> bool:
    """Read what has come of the content; return whether that gave an event."""
    transaction = smtp.transaction
    assert transaction is not None
    envelope, reader = transaction.envelope, transaction.content
    assert reader is not None
    octets = smtp.lines.take()
    if not octets:
        return False
    content, rest = reader.read(octets)
    if rest is None:
        if content:
            smtp.queue.append(Content(envelope, content, False))
        return bool(content)
    if rest:
        smtp.lines.feed(rest)
    if reader.fault is None:
        # As `ask` does, without the call.
        event = Content(envelope, content, True)
        smtp.pending = (event, replies.ACCEPTED, content_decided)
        smtp.queue.append(event)
    else:
        reply = replies.CONTENT_FAULTS[reader.fault]
        smtp.queue.append(ContentRefused(envelope, reply))
        smtp.errors += 1
        content_decided(smtp, None, reply)
    return True


def content_decided(smtp: ServerSession, event: Content | None, reply: Reply) -> None:
    """Say the reply to the content, in LMTP one for each recipient; the transaction has ended."""
    if smtp.options.lmtp:
        transaction = smtp.transaction
        assert transaction is not None
        each, smtp.recipient_replies = smtp.recipient_replies, ()
        for one in each or [reply] * len(transaction.envelope.recipients):
            smtp.say(one)
    else:
        smtp.say(reply)
    smtp.transaction = None
    smtp.session.forwarded = None
    move(smtp, CONTENT_ENDED)
    if reply.accepted:
        smtp.errors = smtp.idle = 0


def rset(smtp: ServerSession, verb: str, argument: str) -> Outcome:
    """RSET: drop the transaction."""
    if argument:
        return replies.NO_ARGUMENT
    if smtp.idles():
        return replies.TOO_MANY_COMMANDS
    drop_transaction(smtp)
    return replies.OK


def drop_transaction(smtp: ServerSession) -> None:
    """Drop the transaction, if one is open, and all that is known of chunks."""
    smtp.chunks = None
    transaction = smtp.transaction
    if transaction is not None:
        smtp.queue.append(Reset(transaction.envelope))
        smtp.transaction = None
        smtp.session.forwarded = None
        move(smtp, RESET)
