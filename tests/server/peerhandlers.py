"""Handlers for the tests with real peers; `source` gives the text of this file, for a server's own directory."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gsmtp import Defer, Disconnect, Envelope, Handler, Message, Recipient, Reject, Session
from gsmtp.protocol.sasl import ScramCredentials

PASSWORD = 'it\'s "sëcret" of 東京 & 50%'
TOKEN = "ya29.a-token_of/many+parts=="


class Inbox(Handler):
    """Tells a client what is known of it (VRFY), and the size and digest of each message."""

    extensions = ("DSN", "REQUIRETLS")

    def on_vrfy(self, session: Session, verb: str, argument: str) -> str | None:
        tls: Any = session.tls
        facts: dict[str, Any] = {"helo": session.helo, "user": session.user, "protocol": session.protocol, "tls": None}
        facts["seen"] = getattr(session.state, "seen", None)
        if tls is not None:
            subject = dict(pair for group in tls.peer.get("subject", ()) for pair in group)
            facts["tls"] = [tls.version, tls.server_name, subject.get("commonName")]
        return json.dumps(facts)

    def on_tls(self, session: Session) -> None:
        tls: Any = session.tls
        session.state.seen = getattr(session.state, "seen", 0) + 1
        if tls.server_name == "refused.example.org":
            raise Reject(554, "5.7.1", "Not that name")

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> str | None:
        if recipient.local == "nobody":
            raise Reject(550, "5.1.1", "No such user")
        return None

    def on_message(self, envelope: Envelope, message: Message) -> str | None:
        for recipient in envelope.recipients:
            if recipient.local.startswith("late-reject"):
                recipient.reject(550, "5.7.1", "Not for me")
            elif recipient.local.startswith("late-defer"):
                recipient.defer(452, "4.2.2", "Mailbox full")
        content = message.content
        return f"{len(content)} {hashlib.sha256(content).hexdigest()} {envelope.session.protocol}"


class Login(Inbox):
    """Users that anyone may be who knows the password, and some whose names say how the hook fails."""

    def check_password(self, session: Session, user: str, password: str) -> bool:
        fail(user, password)
        return password == PASSWORD

    def get_password(self, session: Session, user: str, mechanism: str) -> str | ScramCredentials | None:
        fail(user, "")
        if user == "stored" and mechanism.startswith("SCRAM"):
            return ScramCredentials.derive(PASSWORD)
        return None if user == "unknown" else PASSWORD

    def check_token(self, session: Session, user: str, token: str) -> bool | str:
        fail(user, token)
        return token == TOKEN and (user or "owner@example.org")

    def check_certificate(self, session: Session, authzid: str) -> str | None:
        tls: Any = session.tls
        fail(authzid, "")
        ((name,),) = (pair for pair in tls.peer["subject"])
        return name[1] if authzid in ("", name[1]) else None


def fail(user: str, secret: str) -> None:
    """As the user's name says."""
    if user == "value-error":
        raise ValueError(f"no such password: {secret} {secret!r} {secret.encode()!r} {json.dumps(secret)}")
    if user == "encode":
        secret.encode("ascii")
    if user == "reject":
        raise Reject(535, "5.7.8", "In words of its own")
    if user == "defer":
        raise Defer(454, "4.7.0", "Come again")
    if user == "disconnect":
        raise Disconnect(421, "4.7.0", "Go away")


class WrongTypes(Handler):
    """A coroutine, a text and numbers are no decisions, though all of them count as true."""

    def check_password(self, session: Session, user: str, password: str) -> bool:
        async def later() -> bool:
            return True

        answer = later()
        answer.close()
        return {"coroutine": answer, "text": "yes", "one": 1, "list": [password]}[user]  # type: ignore[return-value]

    def get_password(self, session: Session, user: str, mechanism: str) -> str | None:
        return b"secret of the handler"  # type: ignore[return-value]

    def check_token(self, session: Session, user: str, token: str) -> bool | str:
        return 1  # type: ignore[return-value]

    def check_certificate(self, session: Session, authzid: str) -> str | None:
        return True  # type: ignore[return-value]

    def on_message(self, envelope: Envelope, message: Message) -> str | None:
        return None


def source(kind: str = "Inbox") -> str:
    """The text of a module whose Inbox is that class."""
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    return text if kind == "Inbox" else f"{text}\n\nInbox = {kind}  # type: ignore\n"
