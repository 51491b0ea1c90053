"""What hooks are given has types: a handler that uses all of it passes mypy --strict."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from harness.master import PYTHONPATH

from gsmtp.handler import Handler, Listener, Message, Stream, Worker
from gsmtp.protocol.envelope import Envelope, HostName, NameLookup, Recipient, Session, TlsFacts

CODE = """\
from collections.abc import Iterator

from gsmtp import Envelope, Handler, Message, Recipient, Reject, Session, Stream, Worker
from gsmtp.protocol.server.extensions import Extension
from gsmtp.protocol.sasl import ScramCredentials


def about(session: Session) -> Iterator[str | int | bool | None]:
    yield from (session.id, session.listener, session.helo, session.protocol, session.user)
    yield from (session.esmtp, session.lmtp, session.trusted)
    peer = session.peer
    yield peer if isinstance(peer, str) else peer[0] if peer else None
    local = session.local
    yield local if isinstance(local, str) else local[1] if local else None
    if session.tls is not None:
        tls = session.tls
        yield from (tls.version, tls.cipher, tls.bits, tls.server_name, tls.peer_fingerprint)
        yield len(tls.peer) + len(tls.peer_der or b"") + len(tls.channel_bindings)
        yield tls.version.startswith("TLSv1.")
    if session.name is not None:
        yield session.name.name.lower()
        yield session.name.verified
    if session.lookup is not None and session.lookup.ready:
        name = session.lookup.wait(0.5)
        yield name.name if name is not None else None
    if session.proxy is not None:
        proxy = session.proxy
        yield from (proxy.version, proxy.command.name, proxy.authority)
        yield proxy.tls.common_name if proxy.tls is not None else None
    if session.forwarded is not None:
        yield session.forwarded.source if isinstance(session.forwarded.source, str) else None
    session.state.anything = 1


class Inbox(Handler):
    extensions = ("DSN", Extension("XOWN"))

    def on_start(self, worker: Worker) -> None:
        self.slot: int = worker.slot
        self.names = [(listener.name, listener.address) for listener in worker.listeners]
        self.numbers: tuple[int, int, bool] = (worker.generation, worker.sessions, worker.draining)
        worker.on_drain(self.on_stop)

    def on_stop(self) -> None:
        self.names.clear()

    def on_connect(self, session: Session) -> str | None:
        return ", ".join(map(str, about(session)))

    def on_tls(self, session: Session) -> None:
        if session.tls is None or session.tls.version != "TLSv1.3":
            raise Reject(554, "5.7.0", "TLS 1.3 is needed")

    def on_helo(self, session: Session, domain: str) -> str | None:
        return domain.upper()

    def on_ehlo(self, session: Session, domain: str, extensions: list[str]) -> str | None:
        extensions.append("XOWN")
        return None

    def check_password(self, session: Session, user: str, password: str) -> bool:
        return user == password

    def get_password(self, session: Session, user: str, mechanism: str) -> str | ScramCredentials | None:
        return None

    def check_token(self, session: Session, user: str, token: str) -> bool | str:
        return user or token

    def check_certificate(self, session: Session, authzid: str) -> str | None:
        return session.tls.peer_fingerprint if session.tls is not None else None

    def on_mail(self, envelope: Envelope) -> str | None:
        words = (envelope.id, envelope.sender, envelope.sender_local, envelope.sender_domain)
        envelope.state.size = envelope.parameters.get("SIZE")
        return " ".join(words)

    def on_rcpt(self, envelope: Envelope, recipient: Recipient) -> str | None:
        recipient.state.seen = recipient.parameters.get("NOTIFY")
        if recipient.domain:
            recipient.reject(550, "5.1.1", recipient.address)
            recipient.defer(450, "4.2.1", recipient.local)
        return str(recipient.result) if recipient.result is not None else None

    def on_data(self, envelope: Envelope, stream: Stream) -> str | None:
        octets = stream.read(10) + b"".join(stream) + stream.read()
        return f"{stream.size} {len(octets)}"

    def on_message(self, envelope: Envelope, message: Message) -> str | None:
        message.prepend("X-Id", message.id)
        with message.open() as file:
            head = file.readline()
        message.save("copy")
        subject: str = message.mime.subject
        field = message.headers["Subject"]
        octets = len(head) + len(message.trace) + len(message.content) + len(message.bytes())
        return f"{message.size + octets} {subject} {field} {message.email['Subject']} {envelope.recipients[0].address}"

    def on_reset(self, envelope: Envelope) -> None:
        print(envelope.session.id)

    def on_vrfy(self, session: Session, verb: str, argument: str) -> str | None:
        return verb + argument

    def on_command(self, session: Session, verb: str, argument: str) -> str | None:
        return verb + argument

    def on_error(self, session: Session, error: BaseException) -> None:
        print(session.id, error)

    def on_disconnect(self, session: Session, reason: str) -> None:
        print(session.id, reason)
"""


def checked(directory: Path, code: str) -> str:
    """What mypy says of a user's module."""
    (directory / "inbox.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-incremental", "inbox.py"]
    environment = {**os.environ, "MYPYPATH": PYTHONPATH}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("inbox.py"))


def test_a_handler_passes_strict_mypy(tmp_path: Path) -> None:
    assert checked(tmp_path, CODE) == ""


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    code = CODE
    for right, wrong in (("tls.cipher", "tls.cypher"), ("worker.slot", "worker.slots"), ("proxy.version", "proxy.v")):
        assert right in code
        code = code.replace(right, wrong)
    errors = checked(tmp_path, code)
    assert all(f'has no attribute "{name}"' in errors for name in ("cypher", "slots", "v")), errors


def test_the_handler_uses_every_attribute_and_hook() -> None:
    for kind in (Session, Envelope, Recipient, TlsFacts, HostName, NameLookup, Worker, Listener, Stream, Message):
        slots = getattr(kind, "__slots__", ())
        names = {*slots, *vars(kind), *vars(kind).get("__annotations__", ())}
        for name in names:
            if not name.startswith("_"):
                assert re.search(rf"\.{name}\b", CODE), f"{kind.__name__}.{name}"
    for name, hook in vars(Handler).items():
        if inspect.isfunction(hook):
            parameters = ", ".join(inspect.signature(hook).parameters)
            found = re.search(rf"def {name}\((.*)\)", CODE)
            assert found is not None and re.sub(r": [^,()]+", "", found[1]) == parameters, name
