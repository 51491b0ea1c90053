"""Handlers for the dialogues: what an address, a host name or a verb says is what the hook does.

"reject-550" refuses with that code, "defer-451" too, "raise" fails with an exception, "disconnect" ends the session,
"text" accepts in its own words. In a host name it is the first label; in a sender "data-reject-550" waits for the
message, and in a recipient "late-reject-550" refuses this one recipient then.

Each accepted message is written to a file under `path`, named by the client's port and the message's number in its
session, before the client is told; so a client that has its reply can read the file.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsmtp import Defer, Disconnect, Envelope, Handler, Message, Recipient, Reject, Session, Stream

_REFUSAL = re.compile(r"(reject|defer|disconnect)(?:-(\d{3}))?")


def play(script: str) -> str | None:
    """Do what `script` says; anything that it does not know is a yes."""
    match = _REFUSAL.fullmatch(script)
    if match:
        kind = {"reject": Reject, "defer": Defer, "disconnect": Disconnect}[match[1]]
        raise kind(int(match[2]), None, "As the script says") if match[2] else kind()
    if script == "raise":
        raise RuntimeError("secret of the handler")
    if script == "full":
        raise OSError(errno.ENOSPC, "secret of the disk")
    if script == "number":
        return 42  # type: ignore[return-value]
    return "In words of its own" if script == "text" else None


def judge(envelope: Envelope) -> None:
    """Refuse the recipients whose names say so."""
    for recipient in envelope.recipients:
        kind, _, code = recipient.local.removeprefix("late-").partition("-")
        if recipient.local.startswith("late-"):
            (recipient.reject if kind == "reject" else recipient.defer)(int(code))


class Plain(Handler):
    """Takes messages and decides nothing, so that the protocol answers all by itself."""

    def __init__(self, path: str = "") -> None:
        self._path = path

    def store(self, envelope: Envelope, content: bytes) -> None:
        """Write it where the test looks."""
        state, peer = envelope.session.state, envelope.session.peer
        state.stored = getattr(state, "stored", 0) + 1
        assert isinstance(peer, tuple)
        to = ",".join(recipient.address for recipient in envelope.recipients)
        whole = json.dumps({"from": envelope.sender, "to": to, "content": content.decode("latin-1")})
        place = Path(self._path, f"{peer[1]}-{state.stored}")
        place.with_suffix(".new").write_text(whole)
        os.rename(place.with_suffix(".new"), place)

    def on_message(self, envelope: Envelope, message: Message) -> str | None:
        self.store(envelope, message.content)
        return None


class Scripted(Plain):
    """Overrides every hook that decides."""

    def on_helo(self, session: Session, domain: str) -> str | None:
        return play(domain.partition(".")[0])

    def on_ehlo(self, session: Session, domain: str, extensions: list[str]) -> str | None:
        if domain.startswith("edit."):
            extensions[:] = ["SIZE 5", "XPING"]
        return play(domain.partition(".")[0])

    def on_mail(self, envelope: Envelope) -> str | None:
        return play(envelope.sender_local)

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> str | None:
        return play(recipient.local)

    def on_vrfy(self, session: Session, verb: str, argument: str) -> str | None:
        return play(argument)

    def on_command(self, session: Session, verb: str, argument: str) -> str | None:
        return play(verb[1:].lower()) if verb[0] == "X" else None

    def on_message(self, envelope: Envelope, message: Message) -> str | None:
        said = play(envelope.sender_local.removeprefix("data-"))
        judge(envelope)
        self.store(envelope, message.content)
        return said


class Streaming(Plain):
    """Takes the content as a stream, in small pieces; a sender "data-..." is played when it has been read half."""

    on_message = Handler.on_message

    def on_data(self, envelope: Envelope, stream: Stream) -> str | None:
        content = stream.read(7)
        said = play(envelope.sender_local.removeprefix("data-"))
        while piece := stream.read(7):
            content += piece
        judge(envelope)
        self.store(envelope, content)
        return said


class Refusing(Plain):
    """Serves nobody."""

    def on_connect(self, session: Session) -> str | None:
        raise Reject(554, "5.7.1", "No service for you")


class Failing(Plain):
    """Fails at once."""

    def on_connect(self, session: Session) -> str | None:
        raise RuntimeError("secret of the handler")


class Welcoming(Plain):
    """Greets in its own words."""

    def on_connect(self, session: Session) -> str | None:
        return "well met"


class Login(Plain):
    """Lets anyone in whose password is "secret"; what a user's name says is what the hook does."""

    def check_password(self, session: Session, user: str, password: str) -> bool:
        said: Any = play(user)  # "number" is an answer of the wrong type
        return said if said is not None else password == "secret"

    def get_password(self, session: Session, user: str, mechanism: str) -> str | None:
        play(user)
        return "secret"

    def check_token(self, session: Session, user: str, token: str) -> bool | str:
        play(user)
        return token == "good" and (user or "owner")

    def check_certificate(self, session: Session, authzid: str) -> str | None:
        said: Any = play(authzid)
        if authzid == "nobody":
            return ""
        return said if said is not None else "alice" if authzid in ("", "alice") else None


class Notifying(Scripted):
    """Honours DSN, and writes what it was asked for before the content."""

    extensions = ("DSN", "DELIVERBY", "MT-PRIORITY")

    def on_message(self, envelope: Envelope, message: Message) -> str | None:
        rows = [_row(envelope.parameters), *(_row(recipient.parameters) for recipient in envelope.recipients)]
        self.store(envelope, "\r\n".join([*rows, ""]).encode())
        return None


def _row(parameters: Mapping[str, Any]) -> str:
    shown = {key: "+".join(sorted(value)) if key == "NOTIFY" else value for key, value in parameters.items()}
    return " ".join(f"{key}={value}" for key, value in sorted(shown.items()))
