"""Handlers that write down each call of the hooks of a mail transaction, one JSON list a line, in the file `path`."""

from __future__ import annotations

import json
import os
from typing import Any

from gsmtp import Envelope, Handler, Message, Recipient, Session, Stream


class Streamed(Handler):
    """Takes the content by on_data."""

    def __init__(self, path: str) -> None:
        self._path = path

    def note(self, *words: Any) -> None:
        """Write it down at once: the test reads while the server runs."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, json.dumps(words).encode() + b"\n")
        os.close(descriptor)

    def on_start(self, worker: Any) -> None:
        self.note("on_start", worker.slot)

    def on_stop(self) -> None:
        self.note("on_stop")

    def on_connect(self, session: Session) -> str | None:
        self.note("on_connect", session.listener)
        return None

    def on_helo(self, session: Session, domain: str) -> str | None:
        self.note("on_helo", domain)
        return None

    def on_ehlo(self, session: Session, domain: str, extensions: list[str]) -> str | None:
        self.note("on_ehlo", domain, len(extensions))
        return None

    def on_mail(self, envelope: Envelope) -> str | None:
        self.note("on_mail", envelope.sender, dict(envelope.parameters))
        return None

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> str | None:
        self.note("on_rcpt", recipient.address, len(envelope.recipients))
        if recipient.local == "raise":
            raise RuntimeError("as asked")
        return None

    def on_data(self, envelope: Envelope, stream: Stream) -> str | None:
        self.note("on_data", stream.read().decode())
        return None

    def on_reset(self, envelope: Envelope) -> None:
        self.note("on_reset", envelope.sender)

    def on_vrfy(self, session: Session, verb: str, argument: str) -> str | None:
        self.note("on_vrfy", verb, argument)
        return None

    def on_command(self, session: Session, verb: str, argument: str) -> str | None:
        self.note("on_command", verb, argument)
        return None

    def on_error(self, session: Session, error: BaseException) -> None:
        self.note("on_error", str(error))

    def on_disconnect(self, session: Session, reason: str) -> None:
        self.note("on_disconnect", reason)


class Whole(Streamed):
    """Takes the content by on_message."""

    on_data = Handler.on_data

    def on_message(self, envelope: Envelope, message: Message) -> str | None:
        content = message.content.decode()
        self.note("on_message", content)
        if content.startswith("raise"):
            raise RuntimeError("as asked")
        return None


class Hanging(Streamed):
    """When the protocol refuses what it reads, it does not know when to stop."""

    def on_data(self, envelope: Envelope, stream: Stream) -> str | None:
        import time

        try:
            stream.read()
        except Exception:
            time.sleep(30)
        return None
