"""on_data: what a handler reads of the stream, or does not, never loses the session's place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dialogue import InMemory, scripts
from harness.client import dot_stuff
from harness.master import Master
from harness.waiting import wait_for

from gsmtp.net.errors import ConnectionLost

DATA = """\
import gevent
from gsmtp import Handler, Reject
class Inbox(Handler):
    def on_data(self, envelope, stream):
        what = envelope.sender.partition("@")[0]
        if what == "all":
            body = stream.read()
            assert stream.read() == b"" and len(body) == stream.size
            return "%d" % len(body)
        if what == "pieces":
            count = 0
            while piece := stream.read(7):
                assert len(piece) <= 7
                count += len(piece)
            return "%d" % count
        if what == "iterate":
            return "%d" % sum(map(len, stream))
        if what == "part":
            return stream.read(5).decode()
        if what == "nothing":
            return "not read"
        if what == "raise":
            raise ZeroDivisionError
        if what == "partraise":
            stream.read(5)
            raise ZeroDivisionError
        if what == "reject":
            raise Reject(554, "5.6.0", "not this")
        if what == "sleep":
            gevent.sleep(60)
        if what == "swallow":
            try: stream.read()
            except Exception as error: print("swallowed", type(error).__name__, flush=True)
            return "I say it is stored"
    def on_reset(self, envelope):
        print("reset", envelope.sender, flush=True)
"""
BODY = b".first\r\nQUIT\r\n.\r\n" + b"0123456789" * 30_000 + b"\r\n"


STREAMS = {
    "all": f"250 2.0.0 {len(BODY)}",
    "pieces": f"250 2.0.0 {len(BODY)}",
    "iterate": f"250 2.0.0 {len(BODY)}",
    "part": "250 2.0.0 .firs",
    "nothing": "250 2.0.0 not read",
    "raise": "451 4.3.0 Internal",
    "partraise": "451 4.3.0 Internal",
    "swallow": "250 2.0.0 I say",
    "reject": "554 5.6.0 not this",
    "sleep": "451 4.3.0 Timed out",
}


def test_streams(serve: Callable[..., Master]) -> None:
    live = serve(code=DATA, message_timeout=1)
    with live.connect() as talk:
        for how, reply in STREAMS.items():
            for _ in range(2):
                assert talk.deliver(BODY, sender=f"{how}@c.example").startswith(reply), how
            assert talk.deliver(b"", sender="all@c.example") == "250 2.0.0 0"
        assert talk.ask("QUIT").startswith("221")


def test_streams_that_grow_too_large(serve: Callable[..., Master]) -> None:
    live = serve(code=DATA, max_message_size=100_000)
    with live.connect() as talk:
        for how in ("all", "pieces", "part", "nothing", "raise", "partraise", "swallow"):
            assert talk.deliver(BODY, sender=f"{how}@c.example").startswith("552 5.3.4"), how
            assert talk.ask("NOOP").startswith("250")
        assert talk.deliver(b"x\r\n", sender="all@c.example") == "250 2.0.0 3"
    live.wait_for_log("swallowed Reject")


def test_streams_whose_client_vanishes(serve: Callable[..., Master]) -> None:
    live = serve(code=DATA)
    ways = ("all", "pieces", "part", "nothing", "raise", "swallow")
    for how in ways:
        with live.connect() as talk:
            talk.begin(sender=f"{how}@c.example")
            talk.ask("DATA")
            talk.send(dot_stuff(BODY)[:5000])
    for how in ways:
        live.wait_for_log(f"reset {how}@")
    wait_for(lambda: live.log.count('reason="closed by client" messages=0') == len(ways), what="the ends")
    assert " message " not in live.log


def test_a_stream_that_a_handler_has_kept_says_that_the_session_is_over() -> None:
    memory = InMemory(next(script for script in scripts() if script.name == "message"))
    memory.converse([b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@here.example>\r\nDATA\r\nhalf"])
    envelope = memory.dialogue.protocol.envelope
    assert envelope is not None
    memory.end()
    with pytest.raises(ConnectionLost, match="the session has ended"):
        memory.dialogue.next_content(envelope)
