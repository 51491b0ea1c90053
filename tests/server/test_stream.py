"""on_data: what a handler reads of the stream, or does not, never loses the session's place."""

from __future__ import annotations

import errno
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import pytest
from dialogue import InMemory, Script, Setup, scripts
from harness.client import Client, dot_stuff
from harness.master import Master
from harness.waiting import wait_for

from gsmtp.handler import Stream
from gsmtp.net.errors import ConnectionLost
from gsmtp.protocol.envelope import Envelope
from gsmtp.protocol.server.states import State

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


AT_WORK = """\
import gevent
from gsmtp import Handler
class Inbox(Handler):
    def on_data(self, envelope, stream):
        what = envelope.sender.partition("@")[0]
        try:
            for piece in stream:
                print("piece", what, flush=True)
                if what == "late": gevent.sleep(60)
                while what == "mule":
                    try: gevent.sleep(60)
                    except BaseException: pass
        except BaseException as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            print("ended", what, "ConnectionError" if "ConnectionError" in kinds else kinds[0], flush=True)
            raise
        return "stored"
    def on_vrfy(self, session, verb, argument): return "meanwhile"
"""


def begun(client: Client, live: Master, what: str) -> None:
    """Send half of a message, and wait until the hook has it."""
    client.begin(sender=f"{what}@c.example")
    client.ask("DATA")
    client.send(b"half\r\n")
    live.wait_for_log(f"piece {what}")


def test_the_deadline_counts_while_the_hook_is_at_work(serve: Callable[..., Master]) -> None:
    live = serve(code=AT_WORK, message_timeout=0.5, hook_timeout=0.5)
    with live.connect() as slow, live.connect() as chunks, live.connect() as late:
        begun(slow, live, "slow")
        chunks.begin(sender="chunks@c.example")
        assert chunks.ask("BDAT 5\r\nabc").startswith("250")
        time.sleep(1.5)
        assert chunks.ask("VRFY someone") == "250 2.0.0 meanwhile"
        time.sleep(1)
        assert chunks.ask("BDAT 5 LAST\r\nabc") == "250 2.0.0 stored"
        slow.send(b"half\r\n.\r\n")
        assert slow.reply() == "250 2.0.0 stored"
        begun(late, live, "late")
        live.wait_for_log("hook=on_data.*at its deadline")
        late.send(b"QUIT\r\n.\r\n")
        assert late.reply().startswith("451 4.3.0 Timed out")
        assert late.ask("NOOP").startswith("250")


def test_a_stream_hook_that_ignores_its_deadline(serve: Callable[..., Master]) -> None:
    live = serve(code=AT_WORK, message_timeout=0.5, drain_timeout=2)
    with live.connect() as client, live.connect() as other:
        begun(client, live, "mule")
        assert client.reply() == "421 4.3.0 Service not available"
        assert client.reply() == ""
        assert other.ask("NOOP").startswith("250")
    live.wait_for_log("hook ignores its deadline")
    assert live.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_streams_when_the_worker_ends(serve: Callable[..., Master], number: int) -> None:
    live = serve(code=AT_WORK, drain_silence=2)
    with live.connect() as client, live.connect() as silent:
        begun(client, live, "client")
        begun(silent, live, "silent")
        live.send_signal(number)
        if number == signal.SIGTERM:
            live.wait_for_log("draining")
            client.send(b"half\r\n.\r\n")
            assert client.reply() == "250 2.0.0 stored"
        assert client.reply().startswith("421 4.3.2")
        assert silent.reply().startswith("421 4.3.2")
        assert silent.reply() == ""
    assert live.wait() == 0
    live.wait_for_log("ended silent ConnectionError")
    assert ("ended client" in live.log) == (number == signal.SIGINT)
    assert "cut off" not in live.log


OPENED = b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@here.example>\r\nDATA\r\n"


def in_memory(on_data: Callable[[Envelope, Stream], str | None] | None, taps: tuple[Any, ...] = ()) -> InMemory:
    """A session with a handler that has this hook, or on_message, in the content of a message."""
    setup = Setup(next(script for script in scripts() if script.name == "message"))
    if on_data is not None:
        setup.hooks.on_data, setup.hooks.on_message = on_data, None
    setup.context = replace(setup.context, taps=taps)
    memory = InMemory(Script("", {}, "Plain", []), setup)
    memory.converse([OPENED])
    return memory


ENDS_BY_ITSELF = """\
import gevent
from greenlet import GreenletExit
from gsmtp import Handler
class Inbox(Handler):
    def on_data(self, envelope, stream):
        what = envelope.sender.partition("@")[0]
        if what == "exit":
            raise GreenletExit
        try:
            with gevent.Timeout(0.2):
                stream.read()
        except gevent.Timeout:
            print("timed out", flush=True)
            if what == "returns":
                return "part of it"
            raise
    def on_disconnect(self, session, reason):
        print("gone:", reason, flush=True)
"""


@pytest.mark.parametrize(("how", "reply"), [("raises", "451 4.3.0 Internal"), ("returns", "250 2.0.0 part of it")])
@pytest.mark.parametrize("then", ["the rest comes", "the client goes", "the worker stops"])
def test_a_hook_that_ends_while_its_client_is_waited_for(
    serve: Callable[..., Master], how: str, reply: str, then: str
) -> None:
    """An exception of the hook's own, thrown while its stream waits, ends neither the session nor hangs it."""
    live = serve(code=ENDS_BY_ITSELF)
    with live.connect() as talk:
        talk.begin(sender=f"{how}@c.example")
        talk.ask("DATA")
        talk.send("one\r\n")
        live.wait_for_log("timed out")
        if then == "the rest comes":
            talk.send("two\r\n.\r\n")
            assert talk.reply().startswith(reply)
            assert talk.ask("NOOP").startswith("250")
        elif then == "the worker stops":
            assert live.stop(signal.SIGINT) == 0
    live.wait_for_log("gone:")
    wait_for(lambda: "disconnect session=" in live.log, what="the end of the session")


def test_a_hook_that_ends_its_greenlet_ends_the_session(serve: Callable[..., Master]) -> None:
    live = serve(code=ENDS_BY_ITSELF)
    with live.connect() as talk:
        talk.begin(sender="exit@c.example")
        talk.ask("DATA")
        talk.send("one\r\n")
        live.wait_for_log("gone: killed")


TWO_AT_WORK = """\
import gevent
from gsmtp import Handler
class Inbox(Handler):
    def on_data(self, envelope, stream):
        try:
            with gevent.Timeout(0.2):
                stream.read()
        except gevent.Timeout:
            gevent.sleep(0.6)
            return "part of it"
    def on_command(self, session, verb, argument):
        gevent.sleep(30)
"""


def test_each_hook_has_a_deadline_of_its_own(serve: Callable[..., Master]) -> None:
    """on_data ends while on_command, between two chunks, is at work: that one's deadline still passes."""
    live = serve(code=TWO_AT_WORK, hook_timeout=1)
    with live.connect() as talk:
        talk.begin()
        assert talk.ask("BDAT 5\r\none").startswith("250")
        assert talk.ask("FOO").startswith("451 4.3.0 Timed out")


GREENLETS = """\
import gevent
from gsmtp import Handler
class Inbox(Handler):
    def on_mail(self, envelope):
        self.greenlet = gevent.getcurrent()
    def on_data(self, envelope, stream):
        stream.read()
        return "the same" if gevent.getcurrent() is self.greenlet else "its own"
"""


@pytest.mark.parametrize("packets", [["one\r\n.\r\n"], ["one\r\n", "two\r\n.\r\n"]])
def test_on_data_runs_in_a_greenlet_of_its_own_however_the_content_comes(
    serve: Callable[..., Master], packets: list[str]
) -> None:
    live = serve(code=GREENLETS)
    with live.connect() as talk:
        talk.begin()
        talk.ask("DATA")
        for packet in packets:
            talk.send(packet)
            time.sleep(0.1)
        assert talk.reply() == "250 2.0.0 its own"


def test_a_stream_ends_with_its_session() -> None:
    streams: list[Stream] = []

    def on_data(envelope: Envelope, stream: Stream) -> None:
        streams.append(stream)
        stream.read()

    memory = in_memory(on_data)
    assert memory.converse([b"half"]) == b""
    memory.end()
    with pytest.raises(ConnectionLost, match="the session has ended"):
        streams[0].read()


def test_a_stream_that_a_handler_has_kept() -> None:
    streams: list[Stream] = []

    def on_data(envelope: Envelope, stream: Stream) -> None:
        streams.append(stream)

    memory = in_memory(on_data)
    assert memory.converse([b"half"]) == b""
    with pytest.raises(ValueError, match="on_data has returned"):
        streams[0].read()
    assert memory.converse([b" and half\r\n.\r\n"]).startswith(b"250 ")
    memory.end()


def test_another_greenlet_may_read_the_stream() -> None:
    read: list[bytes] = []

    def on_data(envelope: Envelope, stream: Stream) -> None:
        read.append(gevent.spawn(stream.read).get())

    memory = in_memory(on_data)
    assert memory.converse([b"one\r\n", b"two\r\n.\r\n"]).startswith(b"250 ")
    assert read == [b"one\r\ntwo\r\n"]
    memory.end()


def test_a_hook_is_killed_with_its_session() -> None:
    ends: list[str] = []

    def on_data(envelope: Envelope, stream: Stream) -> None:
        try:
            stream.read()
        except BaseException as error:
            ends.append(type(error).__name__)
            raise

    memory = in_memory(on_data)
    assert memory.converse([b"half"]) == b""
    memory.dispatcher.end("killed")  # as when its greenlet was killed: nobody waits for the hook
    gevent.sleep(0)
    assert ends and memory.dispatcher.protocol.state is State.CONTENT


class Noting:
    """A tap that notes what it sees, and fails at the octets "full"."""

    def __init__(self, notes: list[Any]) -> None:
        self._notes = notes

    def write(self, data: bytes) -> None:
        if b"full" in data:
            raise OSError(errno.ENOSPC, "no space")
        self._notes.append(data)

    def finish(self) -> None:
        self._notes.append("finish")

    def close(self) -> None:
        self._notes.append("close")


@pytest.mark.parametrize("streamed", [False, True])
def test_taps_see_the_content(streamed: bool) -> None:
    notes: list[Any] = []
    on_data = (lambda envelope, stream: str(len(stream.read()))) if streamed else None
    memory = in_memory(on_data, taps=(lambda envelope: Noting(notes),))
    assert memory.converse([b"one\r\n", b"..two\r\n.\r\n"]).startswith(b"250 ")
    pieces = [note for note in notes if isinstance(note, bytes)]
    assert b"".join(pieces) == b"one\r\n.two\r\n"
    assert notes[len(pieces) :] == ["finish", "close"]
    # A tap that fails refuses the message, as a full spool does; what follows is no command.
    notes.clear()
    memory.converse([OPENED])
    assert memory.converse([b"one\r\n", b"full\r\n", b"RSET\r\n"]) == b""
    assert re.fullmatch(rb"452 4\.3\.1 Insufficient system storage \[\w+\]\r\n", memory.converse([b".\r\n"]))
    assert "finish" not in notes and notes[-1] == "close"
    memory.end()
