"""The way from the socket to a hook is short, and what a session has made is freed when it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Certificates
from harness.client import dot_stuff
from harness.master import Master
from harness.waiting import wait_for

FRAMES = """\
import json, traceback
from gsmtp import Handler
class Inbox(Handler):
    def note(self, name):
        with open("frames", "a") as file:
            frames = [[frame.filename, frame.name] for frame in traceback.extract_stack()[:-2]]
            file.write(json.dumps([name, frames]) + "\\n")
    def on_connect(self, session): self.note("on_connect")
    def on_tls(self, session): self.note("on_tls")
    def on_ehlo(self, session, domain, extensions): self.note("on_ehlo")
    def on_mail(self, envelope): self.note("on_mail")
    def on_rcpt(self, envelope, recipient): self.note("on_rcpt")
    def on_message(self, envelope, message): self.note("on_message")
    def on_vrfy(self, session, verb, argument): self.note("on_vrfy")
"""
STREAMS = FRAMES.replace(
    "def on_message(self, envelope, message): ", "def on_data(self, envelope, stream): stream.read(); "
)


def ours(live: Master) -> dict[str, list[str]]:
    """hook -> the functions of gsmtp and gsmtp_workers below it, the lowest first, as "module.function"."""
    found = {}
    for line in (live.directory / "frames").read_text().splitlines():
        name, frames = json.loads(line)
        found[name] = [
            f"{Path(file).stem}.{what}" for file, what in frames if "/gsmtp/" in file or "/gsmtp_workers/" in file
        ]
    return found


@pytest.mark.parametrize("code", [FRAMES, STREAMS], ids=["on_message", "on_data"])
def test_few_frames_lie_below_a_hook(serve: Callable[..., Master], certificates: Certificates, code: str) -> None:
    live = serve(code=code, certfile=certificates.main.certfile, keyfile=certificates.main.keyfile)
    with live.connect(ehlo=False) as talk:
        talk.secure(certificates.context())
        assert talk.ask("VRFY someone").startswith("252")
        assert talk.deliver(b"x\r\n").startswith("250")
    below = ours(live)
    assert 0 < len(below["on_rcpt"]) <= 7, below["on_rcpt"]
    assert all(len(functions) <= 8 for functions in below.values()), below
    # There is one loop: no function is there twice, whatever the hook.
    assert all(len(set(functions)) == len(functions) for functions in below.values()), below


FREED = """\
import collections, gc
from gsmtp import Handler, Reject
KINDS = {
    "Connection", "Dispatcher", "HookRunner", "ServerSession", "Session", "Envelope", "PlainTransport", "TlsTransport",
    "SpooledContent", "StreamedContent", "ContentStream", "HookTask", "Spool", "SpooledMessage", "Deadlines",
    "ConnectionLost", "SessionEnded", "StreamLost", "Reject",
}
class Inbox(Handler):
    def on_start(self, worker):
        gc.collect()
        gc.disable()
    def on_rcpt(self, envelope, recipient):
        if recipient.local == "raise": raise ZeroDivisionError
        if recipient.local == "reject": raise Reject
    def on_message(self, envelope, message):
        pass
    def on_error(self, session, error): pass
    def on_command(self, session, verb, argument):
        kinds = collections.Counter(type(each).__name__ for each in gc.get_objects())
        return " ".join(f"{kind}={kinds[kind]}" for kind in sorted(KINDS) if kinds[kind])
"""
FREED_STREAMS = FREED.replace(
    "on_message(self, envelope, message):\n        pass", "on_data(self, envelope, stream): stream.read()"
)


@pytest.mark.parametrize("code", [FREED, FREED_STREAMS], ids=["on_message", "on_data"])
def test_a_session_leaves_nothing_to_the_garbage_collector(
    serve: Callable[..., Master], certificates: Certificates, code: str
) -> None:
    live = serve(
        code=code,
        certfile=certificates.main.certfile,
        keyfile=certificates.main.keyfile,
        command_timeout=1,
        content_timeout=1,
        max_message_size=1000,
    )

    def left() -> str:
        with live.connect() as talk:
            return talk.ask("XCOUNT")

    alone = left()
    assert "Connection=1" in alone and "Session=1" in alone
    talks = [live.connect() for _ in range(8)]
    quits, vanishes, refused, secure, silent, large, resets, odd = talks
    assert quits.deliver(b"x\r\n").startswith("250")
    assert quits.ask("QUIT").startswith("221")
    for talk in (vanishes, silent):
        talk.begin()
        talk.ask("DATA")
        talk.send(b"half")
    vanishes.socket.close()
    assert refused.begin("raise@here.example", "reject@here.example")[1].startswith("451")
    secure.secure(certificates.context())
    assert secure.deliver(b"x\r\n").startswith("250")
    assert large.deliver(b"x" * 5000 + b"\r\n").startswith("552")
    resets.begin()
    assert resets.ask("BDAT 3\r\nabc").startswith("250")
    assert resets.ask("RSET").startswith("250")
    odd.send(b"STARTTLS\r\nnonsense" + dot_stuff(b""))
    assert silent.reply().startswith("421 4.4.2")
    for talk in talks:
        talk.close()
    wait_for(lambda: left() == alone, what="the end of the sessions")
