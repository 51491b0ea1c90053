"""A mail transaction: MAIL, RCPT, DATA and its content, RSET (RFC 5321 3.3)."""

from __future__ import annotations

from gsmtp.protocol.address import AddressError, parse_path
from gsmtp.protocol.envelope import Envelope, Recipient
from gsmtp.protocol.extensions import ParameterError
from gsmtp.protocol.framing import ChunkReader, DotReader
from gsmtp.protocol.server import replies, states
from gsmtp.protocol.server.events import Content, ContentRefused, Mail, Rcpt
from gsmtp.protocol.server.opening import Opening
from gsmtp.reply import Reply


class Transaction(Opening):
    """From READY to READY."""

    _body: DotReader | None = None
    # Of content by BDAT, see Chunking.
    _chunks: ChunkReader | None = None
    _chunks_refused: Reply | None = None
    _transactions: int = 0
    _overshoot: int = 0

    def _mail(self, verb: str, argument: str) -> None:
        options = self._options
        if argument[:5].upper() != "FROM:":
            self._refuse(verb, replies.MAIL_SYNTAX)
            return
        try:
            mailbox, rest = parse_path(argument[5:], null=True, lenient=options.lenient_addresses)
            parameters = self._offer.mail_parameters(rest) if rest else {}
        except AddressError as error:
            self._refuse(verb, Reply(501, "5.1.7", f"Bad sender address: {error}"))
            return
        except ParameterError as refusal:
            self._refuse(verb, refusal.reply)
            return
        if not argument.isascii() and "SMTPUTF8" not in parameters:
            self._refuse(verb, replies.NEEDS_SMTPUTF8)
            return
        self._transactions += 1
        if 0 < options.max_transactions < self._transactions:
            self._refuse(verb, replies.TOO_MANY_TRANSACTIONS)
            return
        envelope = Envelope(self._new_id(), self.session, mailbox, parameters)
        if "mail" in self._asks:
            self._ask(Mail(envelope), replies.SENDER_OK, self._mail_decided)
        else:
            self._say(replies.SENDER_OK)
            self._open_envelope(envelope)

    def _mail_decided(self, event: Mail, reply: Reply) -> None:
        self._say(reply)
        if reply.accepted:
            self._open_envelope(event.envelope)

    def _open_envelope(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self._chunks = self._chunks_refused = None
        self._overshoot = 0
        self.state = states.MAIL

    def _rcpt(self, verb: str, argument: str) -> None:
        envelope = self.envelope
        assert envelope is not None
        options = self._options
        if argument[:3].upper() != "TO:":
            self._refuse(verb, replies.RCPT_SYNTAX)
            return
        try:
            mailbox, rest = parse_path(argument[3:], lenient=options.lenient_addresses)
            parameters = self._offer.rcpt_parameters(rest) if rest else {}
        except AddressError as error:
            self._refuse(verb, Reply(501, "5.1.3", f"Bad recipient address: {error}"))
            return
        except ParameterError as refusal:
            self._refuse(verb, refusal.reply)
            return
        if not argument.isascii() and "SMTPUTF8" not in envelope.parameters:
            self._refuse(verb, replies.NEEDS_SMTPUTF8)
            return
        if len(envelope.recipients) >= options.max_recipients:
            # RFC 5321 4.5.3.1.10: 452, and the client sends the rest in another transaction. A pipelining client may
            # have sent as many again before it could know; one that goes on after that does not listen.
            self._overshoot += 1
            deaf = self._overshoot > options.max_recipient_overshoot
            self._refuse(verb, replies.TOO_MANY_COMMANDS if deaf else replies.TOO_MANY_RECIPIENTS)
            return
        recipient = Recipient(mailbox, parameters)
        if "rcpt" in self._asks:
            self._ask(Rcpt(envelope, recipient), replies.RECIPIENT_OK, self._rcpt_decided)
        else:
            self._say(replies.RECIPIENT_OK)
            envelope.recipients.append(recipient)
            self.state = states.RCPT

    def _rcpt_decided(self, event: Rcpt, reply: Reply) -> None:
        self._say(reply)
        if reply.accepted:
            event.envelope.recipients.append(event.recipient)
            self.state = states.RCPT

    def _data(self, verb: str, argument: str) -> None:
        if argument:
            self._refuse(verb, replies.NO_ARGUMENT)
            return
        options = self._options
        assert self.envelope is not None
        if self.envelope.parameters.get("BODY") == "BINARYMIME":
            self._refuse(verb, replies.BINARY_NEEDS_BDAT)
            return
        if not self.envelope.recipients:
            self._refuse(verb, replies.LMTP_NO_RECIPIENTS if options.lmtp else replies.NO_RECIPIENTS)
            return
        self._body = DotReader(options.allow_bare_newlines, options.max_message_size, options.max_content_line_length)
        self._say(replies.GO_AHEAD)
        self.state = states.CONTENT

    def _read_content(self) -> bool:
        """Read what has come of the content; whether that gave an event."""
        body, envelope = self._body, self.envelope
        assert body is not None and envelope is not None
        data = self._lines.take()
        if not data:
            return False
        content, rest = body.read(data)
        if rest is None:
            if content:
                self._queue.append(Content(envelope, content, False))
            return bool(content)
        self._body = None
        if rest:
            self._lines.feed(rest)
        if body.fault is None:
            event = Content(envelope, content, True)
            self._pending = (event, replies.ACCEPTED, self._content_decided)
            self._queue.append(event)
        else:
            reply = replies.CONTENT_FAULTS[body.fault]
            self._queue.append(ContentRefused(envelope, reply))
            self._errors += 1
            self._content_decided(None, reply)
        return True

    def _content_decided(self, event: Content | None, reply: Reply) -> None:
        if self._options.lmtp:
            assert self.envelope is not None
            each, self._each = self._each, ()
            for one in each or [reply] * len(self.envelope.recipients):
                self._say(one)
        else:
            self._say(reply)
        self.envelope = None
        self.session.forwarded = None
        self.state = states.READY
        if reply.accepted:
            self._errors = self._idle = 0

    def _rset(self, verb: str, argument: str) -> None:
        if argument:
            self._refuse(verb, replies.NO_ARGUMENT)
        elif not self._idles(verb):
            self._drop_envelope()
            self._say(replies.OK)
