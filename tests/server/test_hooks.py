"""What handlers do, and do wrong: each becomes a reply, a log line, and never the end of another session."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.client import Client
from harness.master import Master, run
from harness.waiting import TIMEOUT, wait_for

REFERENCE = re.compile(r"\[(\w+)\]$")
SECRET = "the password is swordfish"

# The hook that the HELO name says does what the HELO name says: "on_rcpt.defer".
EVIL = f"""\
import errno, sys
import gevent
from gsmtp import Defer, Disconnect, Handler, Reject

def act(what):
    if what == "exception": raise ZeroDivisionError({SECRET!r})
    if what == "base": raise BaseException({SECRET!r})
    if what == "exit": sys.exit({SECRET!r})
    if what == "interrupt": raise KeyboardInterrupt
    if what == "full": raise OSError(errno.ENOSPC, {SECRET!r})
    if what == "quota": raise OSError(errno.EDQUOT, {SECRET!r})
    if what == "memory": raise MemoryError({SECRET!r})
    if what == "io": raise OSError(errno.EIO, {SECRET!r})
    if what == "timeout": raise gevent.Timeout(1)
    if what == "reject": raise Reject(550, "5.7.9", "no,\\r\\nnever")
    if what == "defer": raise Defer(450, "4.7.9", "not now")
    if what == "disconnect": raise Disconnect(554, "5.7.8", "go away")
    if what == "421": raise Defer(421, "4.7.8", "go away for now")
    if what == "text": return "as you like\\r\\nit"
    if what == "number": return 250
    if what == "true": return True
    if what == "sleep": gevent.sleep(60)
    if what == "mule":
        while True:
            try: gevent.sleep(60)
            except BaseException: pass

class Inbox(Handler):
    def asked(self, session, hook):
        which, _, what = session.helo.partition(".")
        return act(what) if which == hook else None
    def on_ehlo(self, session, domain, extensions):
        which, _, what = domain.partition(".")
        return act(what) if which == "on_ehlo" else None
    def on_helo(self, session, domain):
        which, _, what = domain.partition(".")
        return act(what) if which == "on_helo" else None
    def on_mail(self, envelope): return self.asked(envelope.session, "on_mail")
    def on_rcpt(self, envelope, recipient): return self.asked(envelope.session, "on_rcpt")
    def on_message(self, envelope, message): return self.asked(envelope.session, "on_message")
    def on_reset(self, envelope): return self.asked(envelope.session, "on_reset")
    def on_vrfy(self, session, verb, argument): return self.asked(session, "on_vrfy")
    def on_command(self, session, verb, argument): return self.asked(session, "on_command")
    def on_error(self, session, error): return self.asked(session, "on_error")
    def on_disconnect(self, session, reason): return self.asked(session, "on_disconnect")
"""
FAILED = r"451 4\.3\.0 Internal error, try again later \[\w+\]"
FULL = r"452 4\.3\.1 Insufficient system storage \[\w+\]"
OUTCOMES = {
    "exception": FAILED,
    "base": FAILED,
    "exit": FAILED,
    "interrupt": FAILED,
    "io": FAILED,
    "timeout": FAILED,
    "number": FAILED,
    "true": FAILED,
    "full": FULL,
    "quota": FULL,
    "memory": FULL,
    "reject": r"550-5\.7\.9 no,\?\n550 5\.7\.9 never",
    "defer": r"450 4\.7\.9 not now",
    "disconnect": r"554 5\.7\.8 go away",
    "421": r"421 4\.7\.8 go away for now",
    "text": r"250[- ].*as you like\?.*",
}
HOOKS = ["on_ehlo", "on_helo", "on_mail", "on_rcpt", "on_message", "on_vrfy", "on_command"]


def reply_of(talk: Client, hook: str, what: str) -> str:
    """The reply to the command that the hook answers."""
    name = f"{hook}.{what}"
    if hook in ("on_ehlo", "on_helo"):
        return talk.ask(f"{hook[3:]} {name}")
    assert talk.ask(f"EHLO {name}").startswith("250")
    if hook == "on_vrfy":
        return talk.ask("VRFY someone")
    if hook == "on_command":
        return talk.ask("XYZZY plugh")
    sender = talk.ask("MAIL FROM:<a@c.example>")
    if hook == "on_mail":
        return sender
    recipient = talk.ask("RCPT TO:<b@c.example>")
    return recipient if hook == "on_rcpt" else talk.content(b"x\r\n")


def test_every_outcome_of_every_hook(serve: Callable[..., Master]) -> None:
    live = serve(code=EVIL)
    references = []
    for hook in HOOKS:
        for what, wanted in OUTCOMES.items():
            with live.connect(ehlo=False) as talk:
                reply = reply_of(talk, hook, what)
                assert re.fullmatch(wanted, reply, re.S), (hook, what, reply)
                if match := REFERENCE.search(reply):
                    references.append((match[1], hook))
                if what in ("disconnect", "421"):
                    assert talk.reply() == ""
                else:  # the session goes on
                    talk.ask("RSET")
                    assert talk.ask("EHLO client.example").startswith("250")
                    assert talk.deliver(b"x\r\n").startswith("250")
                    assert talk.ask("QUIT").startswith("221")
                assert SECRET not in reply
    assert len(set(references)) == len(references) > 60
    wait_for(lambda: references[-1][0] in live.log, what="the last reference")
    lines = live.lines
    for reference, hook in references:
        (at,) = [at for at, line in enumerate(lines) if f"reference={reference} " in line]
        assert f"hook={hook}" in lines[at]
        assert "Traceback" in lines[at + 1]
    assert live.workers()
    assert live.stop() == 0


def test_hooks_that_decide_nothing(serve: Callable[..., Master]) -> None:
    live = serve(code=EVIL)
    outcomes = ("exception", "exit", "reject", "number", "421")
    for name in (f"{hook}.{what}" for hook in ("on_reset", "on_error", "on_disconnect") for what in outcomes):
        with live.connect(ehlo=False) as talk:
            assert talk.ask(f"EHLO {name}").startswith("250")
            talk.begin()
            assert talk.ask("RSET").startswith("250")
            assert talk.deliver(b"x\r\n").startswith("250")
            assert talk.ask("QUIT").startswith("221")
    for hook in ("on_reset", "on_disconnect"):
        live.wait_for_log(f"hook={hook} ")
    assert live.workers()


LATE = """\
import gevent
from gsmtp import Handler
class Inbox(Handler):
    def on_reset(self, envelope): gevent.sleep(60 if envelope.sender.startswith("on_reset") else 0)
    def on_error(self, session, error): gevent.sleep(60 if session.helo == "on_error" else 0)
    def on_disconnect(self, session, reason): gevent.sleep(60 if session.helo == "on_disconnect" else 0)
    def on_message(self, envelope, message): pass
"""


def test_deadlines_at_the_end(serve: Callable[..., Master]) -> None:
    live = serve(code=LATE, hook_timeout=0.5)
    for hook in ("on_reset", "on_error", "on_disconnect"):
        with live.connect(ehlo=False) as talk:
            talk.ask(f"EHLO {hook}")
            talk.begin(sender=f"{hook}@c.example")
    for hook in ("on_reset", "on_error", "on_disconnect"):
        live.wait_for_log(f"hook={hook} .*hook failed")
    wait_for(lambda: live.log.count(" disconnect ") == 3, what="the sessions to end")


CONNECT = """\
import gevent
from gsmtp import Defer, Disconnect, Handler, Reject
class Inbox(Handler):
    def on_connect(self, session):
        exec(open("what").read())
    def on_message(self, envelope, message): pass
"""


def test_on_connect_refuses(serve: Callable[..., Master]) -> None:
    live = serve(code=CONNECT, hook_timeout=0.5)
    for code, banner in (
        (f"raise ZeroDivisionError({SECRET!r})", r"421 4\.3\.0 Service not available \[\w+\]"),
        ("raise MemoryError", r"421 4\.3\.0 Service not available \[\w+\]"),
        ("import sys; sys.exit(1)", r"421 4\.3\.0 Service not available \[\w+\]"),
        ("gevent.sleep(60)", r"421 4\.3\.0 Service not available \[\w+\]"),
        ("raise Reject(554, '5.7.1', 'not you')", r"554 5\.7\.1 not you"),
        ("raise Defer(450, '4.7.1', 'not now')", r"450 4\.7\.1 not now"),
        ("raise Disconnect()", r"421 4\.7\.0 Closing connection"),
    ):
        (live.directory / "what").write_text(code)
        with live.connect(ehlo=False) as talk:
            assert re.fullmatch(banner, talk.banner)
            assert talk.reply() == ""
    assert live.workers()


def test_on_connect_gives_the_banner(serve: Callable[..., Master]) -> None:
    code = CONNECT.replace('exec(open("what").read())', "return 'ESMTP at your service'")
    live = serve("--hostname", "mx.example", code=code)
    with live.connect(ehlo=False) as talk:
        assert talk.banner == "220 mx.example ESMTP at your service"


def test_deadlines(serve: Callable[..., Master]) -> None:
    live = serve(code=EVIL, hook_timeout=0.5, message_timeout=0.5)
    for hook in HOOKS:
        with live.connect(ehlo=False) as talk:
            began = time.monotonic()
            reply = reply_of(talk, hook, "sleep")
            assert time.monotonic() - began < 10
            assert re.fullmatch(r"451 4\.3\.0 Timed out, try again later \[\w+\]", reply)
            assert talk.ask("EHLO client.example").startswith("250")
            assert talk.deliver(b"x\r\n").startswith("250")
        live.wait_for_log(f"hook={hook}.*at its deadline")


def test_a_hook_that_ignores_its_deadline(serve: Callable[..., Master]) -> None:
    live = serve(code=EVIL, hook_timeout=0.5, drain_timeout=2)
    with live.connect(ehlo=False) as talk, live.connect() as other:
        assert talk.ask("EHLO on_mail.mule").startswith("250")
        talk.send("MAIL FROM:<a@c.example>\r\n")
        talk.socket.settimeout(0.2)
        deadline = time.monotonic() + TIMEOUT
        said = b""
        while not said:  # others are served meanwhile
            assert time.monotonic() < deadline
            assert other.deliver(b"x\r\n").startswith("250")
            try:
                said = talk.socket.recv(1000)
            except TimeoutError:
                pass
        assert said == b"421 4.3.0 Service not available\r\n"
        assert talk.socket.recv(1000) == b""
        assert other.deliver(b"x\r\n").startswith("250")
    live.wait_for_log("hook ignores its deadline")
    assert live.stop() == 0


RESULTS = """\
from gsmtp import Handler
class Inbox(Handler):
    def on_message(self, envelope, message):
        for recipient in envelope.recipients:
            if recipient.local == "no": recipient.reject(550, "5.2.1", "box is shut")
            if recipient.local == "later": recipient.defer(452, "4.2.2", "box is full")
        return "stored"
"""


def test_mixed_results(serve: Callable[..., Master]) -> None:
    toml = (
        '[[listen]]\nbind = "smtp://127.0.0.1:0"\n[[listen]]\nbind = "smtp://localhost:0"\nmixed_results = "single"\n'
    )
    live = serve(code=RESULTS, toml=toml)
    tempfail, single = live.addresses.values()
    with live.connect(tempfail) as talk:
        assert talk.deliver(b"x\r\n", "a@here.example", "b@here.example") == "250 2.0.0 stored"
        assert talk.deliver(b"x\r\n", "a@here.example", "no@here.example").startswith("451 4.3.0 Some")
        assert talk.deliver(b"x\r\n", "no@here.example", "later@here.example") == "452 4.2.2 box is full"
        assert talk.deliver(b"x\r\n", "no@here.example", "no@there.example") == "550 5.2.1 box is shut"
    with live.connect(single) as talk:
        assert talk.begin("a@here.example", "no@here.example")[2].startswith("452 4.5.3")
        assert talk.content(b"x\r\n") == "250 2.0.0 stored"
        assert talk.deliver(b"x\r\n", "no@here.example") == "550 5.2.1 box is shut"


RESULTS_AT_ONCE = """\
from gsmtp import Handler
class Inbox(Handler):
    def on_rcpt(self, envelope, recipient):
        if recipient.local == "no": recipient.reject(550, "5.2.1", "box is shut")
        if recipient.local == "later": recipient.defer(452, "4.2.2", "box is full")
        return "welcome"
    def on_message(self, envelope, message):
        return ",".join(recipient.local for recipient in envelope.recipients)
"""


def test_a_result_at_rcpt_is_its_reply(serve: Callable[..., Master]) -> None:
    live = serve(code=RESULTS_AT_ONCE)
    with live.connect() as talk:
        talk.ask("MAIL FROM:<a@c.example>")
        assert talk.ask("RCPT TO:<no@c.example>") == "550 5.2.1 box is shut"
        assert talk.ask("RCPT TO:<yes@c.example>") == "250 2.1.5 welcome"
        assert talk.ask("RCPT TO:<later@c.example>") == "452 4.2.2 box is full"
        assert talk.content(b"x\r\n") == "250 2.0.0 yes"


API = """\
import io, os
from gsmtp import Handler
class Inbox(Handler):
    def on_connect(self, session): session.state.seen = ["connect"]
    def on_mail(self, envelope):
        assert not hasattr(envelope.state, "rcpts")
        envelope.state.rcpts = 0
        envelope.session.state.seen.append("mail")
    def on_rcpt(self, envelope, recipient):
        envelope.state.rcpts += 1
        recipient.state.number = envelope.state.rcpts
    def on_message(self, envelope, message):
        session = envelope.session
        assert session.helo == "client.example" and session.protocol == "ESMTP", session.protocol
        assert session.peer[0] == "127.0.0.1" and session.local[0] == "127.0.0.1"
        assert [r.state.number for r in envelope.recipients] == [1, 2]
        assert [(r.address, r.local, r.domain) for r in envelope.recipients] == [
            ("a@Here.example", "a", "here.example"), ("postmaster", "postmaster", "")], envelope.recipients
        assert session.state.seen.count("mail") in (1, 2)
        assert message.size == len(message.content), (message.size, len(message.content))
        first = message.bytes()
        assert first == message.trace + message.content
        assert message.headers["subject"] == "hello" == message.mime.subject
        message.prepend("X-One", "1")
        message.prepend("X-Two", "2")
        assert message.bytes() == b"X-Two: 2\\r\\nX-One: 1\\r\\n" + first
        for name, value in (("X Y", "1"), ("X", "a\\r\\nb"), ("", "1"), ("X", "a\\0")):
            try: message.prepend(name, value)
            except ValueError: pass
            else: raise AssertionError((name, value))
        assert message.headers["x-two"] == "2" and message.email["X-One"] == "1"
        assert message.email.get_content().startswith("body")
        assert message.mime is message.mime and message.mime.headers["X-Two"] == "2"
        assert message.mime.text.startswith("body") and message.mime.raw == message.bytes()
        with message.open() as one, message.open() as two:
            assert one.read(10) == message.bytes()[:10]
            assert two.read() == message.bytes() == one.read(0) + message.bytes()[:10] + one.read()
        message.save("saved%d" % session.state.seen.count("mail"))
        assert open("saved1", "rb").read().startswith(b"X-Two: 2\\r\\n")
        try: message.save("saved1")
        except FileExistsError: pass
        else: raise AssertionError("saved over a file")
        return envelope.id + " " + message.id
"""


def test_the_message(serve: Callable[..., Master]) -> None:
    live = serve(code=API, spool_memory=1000)
    with live.connect() as talk:
        for number, body in ((1, b"body\r\n"), (2, b"body\r\n" * 1000)):
            content = b"Subject: hello\r\n\r\n" + body
            reply = talk.deliver(content, "a@Here.example", "postmaster")
            assert reply.startswith("250 2.0.0 "), live.log
            one, two = reply.split()[2:]
            assert one == two
            assert (live.directory / f"saved{number}").read_bytes().endswith(content)


SPOILS = """\
from gsmtp import Handler
class Inbox(Handler):
    def on_ehlo(self, session, domain, extensions):
        if domain == "number": extensions.append(3)
        if domain == "none": extensions[:] = [None]
        if domain == "lines": extensions.append("X\\r\\n250 Y")
        if domain == "no.keyword": extensions.append("-X")
        if domain == "good": extensions[:] = ["XOWN a=b c", "SIZE"]
    def on_rcpt(self, envelope, recipient):
        if recipient.local == "stranger": envelope.recipients.append("a text")
        if recipient.local == "result": recipient.result = "a text"
    def on_message(self, envelope, message):
        if envelope.recipients[-1].local == "late": envelope.recipients[-1].result = "a text"
"""


def test_a_handler_that_spoils_what_it_is_given(serve: Callable[..., Master]) -> None:
    live = serve(code=SPOILS)
    with live.connect(ehlo=False) as talk:
        for domain in ("number", "none", "lines", "no.keyword"):
            assert re.fullmatch(FAILED, talk.ask(f"EHLO {domain}"))
        assert talk.ask("EHLO good").split("\n")[1:] == ["250-XOWN a=b c", "250 SIZE"]
    with live.connect() as talk:
        assert re.fullmatch(FAILED, talk.begin("result@here.example")[1])
        talk.ask("RSET")
        assert talk.deliver(b"x\r\n").startswith("250")
    for local in ("stranger", "late"):
        with live.connect() as talk:
            talk.begin(f"{local}@here.example")
            reply = talk.content(b"x\r\n")
            assert re.fullmatch(r"421 4\.3\.0 Service not available \[\w+\]", reply)
            assert talk.reply() == ""
            reference = REFERENCE.search(reply)
            assert reference is not None
            live.wait_for_log(f"reference={reference[1]} .*session failed")
    assert live.workers()


SAVES = """\
import os
from gevent.monkey import get_original
from gsmtp import Handler

sleep, fsync = get_original("time", "sleep"), os.fsync

def slow_disk(file):
    sleep(1.5)
    fsync(file)

os.fsync = slow_disk

class Inbox(Handler):
    def on_message(self, envelope, message):
        message.save(f"saved by {envelope.sender}")
"""


@pytest.mark.parametrize("size", [10, 5000])
def test_a_slow_disk_holds_up_nobody_else(serve: Callable[..., Master], size: int) -> None:
    live = serve(code=SAVES, spool_memory=1000)
    with live.connect() as talk, live.connect() as other:
        talk.begin(sender="a@c.example")
        talk.ask("DATA")
        talk.send(b"x" * size + b"\r\n.\r\n")
        time.sleep(0.2)
        began = time.monotonic()
        for _ in range(5):
            assert other.ask("NOOP").startswith("250")
        assert time.monotonic() - began < 0.9
        assert talk.reply().startswith("250")
    assert (live.directory / "saved by a@c.example").read_bytes().endswith(b"x" * size + b"\r\n")


@pytest.mark.parametrize("size", [10, 5000])
def test_what_is_saved_too_late_is_taken_back(serve: Callable[..., Master], size: int) -> None:
    live = serve(code=SAVES, spool_memory=1000, message_timeout=0.5)
    with live.connect() as talk:
        assert talk.deliver(b"x" * size + b"\r\n", sender="a@c.example").startswith("451 4.3.0 Timed out")
        path = live.directory / "saved by a@c.example"
        wait_for(lambda: not path.exists(), what="the end of the file")
        time.sleep(2)
        assert not path.exists()
        assert talk.ask("NOOP").startswith("250")
    assert "Traceback" not in re.sub(r"(?m)^    .*\n", "", live.log)


START = """\
from gsmtp import Handler
class Inbox(Handler):
    def on_start(self, worker):
        print("starts in", worker.slot, flush=True)
        {}
    def on_stop(self): print("stops", flush=True)
    def on_message(self, envelope, message): pass
"""


def test_start_and_stop(serve: Callable[..., Master]) -> None:
    live = serve(code=START.format("pass"), workers=2)
    assert live.stop() == 0
    assert sorted(line for line in live.lines if line.startswith("starts")) == ["starts in 0", "starts in 1"]
    assert live.log.count("stops") == 2  # print may let another worker come between the word and its newline


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (START.format("raise RuntimeError('no database')"), "on_start of Inbox failed: RuntimeError: no database"),
        (START.replace("on_stop", "on_stopp"), "cannot use inbox:Inbox: Inbox.on_stopp is no hook; did you mean on_st"),
        (START.replace("on_message(self, envelope, message)", "on_message(self, envelope)"), "must take (self, envelo"),
        (START.replace("on_message", "_message"), "neither on_message nor on_data"),
    ],
)
def test_a_handler_that_cannot_start(tmp_path: Path, code: str, line: str) -> None:
    (tmp_path / "inbox.py").write_text(code.replace("{}", "pass"))
    done = run("inbox:Inbox", "-b", "smtp://127.0.0.1:0", directory=tmp_path)
    assert done.returncode != 0
    said = [each for each in done.stderr.splitlines() if not each.startswith("20")]
    assert len(said) == 1, done.stderr
    assert line in said[0]
    assert "Traceback" not in done.stderr
