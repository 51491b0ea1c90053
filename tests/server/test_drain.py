"""TERM, INT and QUIT: nobody is cut off without a word, and nothing acknowledged is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from harness.client import Client, connect
from harness.master import Master
from harness.messages import stored
from harness.waiting import wait_for
from load import Load

FAREWELL = "421 4.3.2 "
SLOW = """\
import gevent
from gsmtp import Handler

class Inbox(Handler):
    def on_message(self, envelope, message):
        open("begun", "w").close()
        gevent.sleep(1.5)
        with open("done", "ab") as file:
            file.write(message.content)
        return "stored at last"
"""


def until_begun(live: Master) -> None:
    """Wait until the hook is at work."""
    wait_for((live.directory / "begun").exists, what="the hook")


def closed(talk: Client) -> bool:
    """Whether the server has closed in order: an end, not a reset."""
    return talk.reply() == ""


@pytest.mark.parametrize("clients", [12, 40])
def test_under_load(serve: Callable[..., Master], clients: int) -> None:
    live = serve(workers=2)
    with Load(live.address, clients, ["a@here.example"], large=400_000) as load:
        load.stop_at_refusal = True
        wait_for(lambda: len(load.promised) > 100, what="messages")
        assert live.stop() == 0
    assert load.cut == []
    assert load.odd == []
    assert load.farewells
    assert all(reply.startswith(FAREWELL) for reply in load.farewells)
    load.check_box(live.directory / "maildir")
    assert len(stored(live.directory / "maildir")) == len(load.promised)
    assert "Traceback" not in live.log


@pytest.mark.parametrize("kind", ["TCP", "unix"])
def test_connections_that_come_during_the_drain(serve: Callable[..., Master], kind: str) -> None:
    live = serve(binds=["smtp://127.0.0.1:0" if kind == "TCP" else "smtp+unix:{directory}/socket"])
    with live.connect() as busy:
        busy.begin()
        live.send_signal(signal.SIGTERM)
        live.wait_for_log("draining")
        time.sleep(0.2)
        for _ in range(5):
            with Client(live.address) as late:
                assert late.banner.startswith(FAREWELL)
                assert closed(late)
        assert busy.content(b"x\r\n").startswith("250")
        assert busy.reply().startswith(FAREWELL)
    assert live.wait() == 0


def test_each_session_by_what_it_is_at(serve: Callable[..., Master]) -> None:
    live = serve(workers=2)
    with (
        live.connect() as idle,
        live.connect(ehlo=False) as silent,
        live.connect() as opened,
        live.connect() as addressed,
        live.connect() as sending,
    ):
        opened.ask("MAIL FROM:<a@c.example>")
        addressed.begin()
        sending.begin()
        sending.ask("DATA")
        sending.send(b"the first half\r\n")
        live.send_signal(signal.SIGTERM)
        for talk in (idle, silent):
            assert talk.reply().startswith(FAREWELL)
            assert closed(talk)
            talk.close()
        assert opened.ask("RCPT TO:<b@here.example>").startswith("250")
        assert opened.ask("RSET").startswith("250")
        assert opened.reply().startswith(FAREWELL)
        opened.close()
        assert addressed.content(b"addressed\r\n").startswith("250")
        assert addressed.reply().startswith(FAREWELL)
        addressed.close()
        sending.send(b"the second half\r\n.\r\n")
        assert sending.reply().startswith("250")
        assert sending.reply().startswith(FAREWELL)
        sending.close()
        assert live.wait() == 0
    assert len(stored(live.directory / "maildir")) == 2


def test_a_pipelined_transaction_may_finish(serve: Callable[..., Master]) -> None:
    live = serve(code=SLOW)
    with live.connect() as talk:
        one = "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@c.example>\r\nDATA\r\n{}\r\n.\r\n"
        talk.send(one.format("first") + one.format("second"))
        assert [talk.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        live.send_signal(signal.SIGTERM)
        assert talk.reply().startswith("250")
        # What was not begun is not begun any more: the client sees no reply but the farewell, and sends it again.
        assert talk.reply().startswith(FAREWELL)
        assert closed(talk)
    assert live.wait() == 0
    assert (live.directory / "done").read_bytes() == b"first\r\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_handler_at_work_is_waited_for(serve: Callable[..., Master], number: int) -> None:
    live = serve(code=SLOW, binds=["smtp://127.0.0.1:0", "smtp+unix:{directory}/socket"])
    with live.connect() as talk:
        talk.begin()
        talk.ask("DATA")
        talk.send(b"precious\r\n.\r\n")
        until_begun(live)
        live.send_signal(number)
        assert talk.reply() == "250 2.0.0 stored at last"
        assert talk.reply().startswith(FAREWELL)
        assert closed(talk)
    assert live.wait() == 0
    assert (live.directory / "done").read_bytes() == b"precious\r\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop(serve: Callable[..., Master], number: int) -> None:
    live = serve(workers=2)
    with live.connect() as idle, live.connect() as opened, live.connect() as sending:
        opened.begin()
        sending.begin()
        sending.ask("DATA")
        sending.send(b"half\r\n")
        began = time.monotonic()
        live.send_signal(number)
        for talk in (idle, opened, sending):
            assert talk.reply().startswith(FAREWELL)
            assert closed(talk)
            talk.close()
        assert live.wait() == 0
        assert time.monotonic() - began < 10
    assert stored(live.directory / "maildir") == []


SLOW_RCPT = """\
import gevent
from gsmtp import Handler
class Inbox(Handler):
    def on_rcpt(self, envelope, recipient):
        open("begun", "w").close()
        gevent.sleep(1)
    def on_message(self, envelope, message): pass
"""


def test_a_quick_stop_amid_a_hook(serve: Callable[..., Master]) -> None:
    live = serve(code=SLOW_RCPT)
    with live.connect() as talk:
        talk.send("MAIL FROM:<a@c.example>\r\nRCPT TO:<b@c.example>\r\n")
        until_begun(live)
        live.send_signal(signal.SIGINT)
        assert [talk.reply()[:3] for _ in range(2)] == ["250", "250"]
        assert talk.reply().startswith(FAREWELL)
        assert closed(talk)
    assert live.wait() == 0


def test_a_second_term_is_a_quick_stop(serve: Callable[..., Master]) -> None:
    live = serve()
    with live.connect() as opened:
        opened.begin()
        live.send_signal(signal.SIGTERM)
        live.wait_for_log("draining")
        live.send_signal(signal.SIGTERM)
        assert opened.reply().startswith(FAREWELL)
    assert live.wait() == 0


LIMITS = {
    "transaction": {"drain_transaction": 1},
    "silence": {"drain_silence": 1},
    "content": {"drain_content": 2, "drain_silence": 1},
}


@pytest.mark.parametrize("limit", LIMITS)
def test_limits(serve: Callable[..., Master], limit: str) -> None:
    live = serve(**LIMITS[limit])
    with live.connect() as talk:
        talk.begin()
        if limit != "transaction":
            assert talk.ask("DATA").startswith("354")
            talk.send(b"half a ")
        began = time.monotonic()
        live.send_signal(signal.SIGTERM)
        if limit == "content":
            talk.socket.settimeout(0.2)
            said = b""
            while not said:
                try:
                    said = talk.socket.recv(1000)
                except TimeoutError:
                    talk.send(b"x")
                assert time.monotonic() - began < 15
            assert time.monotonic() - began > 1.5
            assert said.startswith(FAREWELL.encode())
        else:
            assert talk.reply().startswith(FAREWELL)
            assert closed(talk)
        talk.close()
        assert live.wait() == 0
    assert stored(live.directory / "maildir") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_client_that_takes_no_replies_holds_nobody_up(serve: Callable[..., Master], number: int) -> None:
    live = serve(drain_silence=1, max_errors=0, max_idle_commands=0)
    with live.connect() as talk:
        talk.socket.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while True:
                talk.send(b"HELP\r\n" * 10_000)
        began = time.monotonic()
        assert live.stop(number) == 0
        assert time.monotonic() - began < 10
    assert "cut off" not in live.log
    assert 'reason="client takes no replies"' in live.log or number == signal.SIGINT


def test_a_login_has_its_time(serve: Callable[..., Master]) -> None:
    live = serve(code=LOGIN, auth_without_tls="true", drain_login=2, drain_transaction=60)
    with live.connect() as talk, live.connect() as slow:
        for each in (talk, slow):
            assert each.ask("AUTH LOGIN").startswith("334")
        live.send_signal(signal.SIGTERM)
        live.wait_for_log("draining")
        time.sleep(0.3)
        assert talk.ask("YQ==").startswith("334")
        assert talk.ask("YQ==").startswith("235")
        assert talk.reply().startswith(FAREWELL)
        talk.close()
        assert slow.reply().startswith(FAREWELL)
        slow.close()
        assert live.wait() == 0


LOGIN = """\
from gsmtp import Handler
class Inbox(Handler):
    def check_password(self, session, user, password): return True
    def on_message(self, envelope, message): pass
"""


def test_the_worker_ends_in_any_case(serve: Callable[..., Master]) -> None:
    live = serve(code=SLOW.replace("gevent.sleep(1.5)", "gevent.sleep(60)"), drain_timeout=2)
    with live.connect() as talk:
        talk.begin()
        talk.ask("DATA")
        talk.send(b"x\r\n.\r\n")
        until_begun(live)
        assert live.stop() == 0
        live.wait_for_log("1 sessions cut off")


def test_the_port_is_free_at_once(serve: Callable[..., Master]) -> None:
    live = serve()
    host, _, port = live.address.rpartition(":")
    with live.connect():
        assert live.stop() == 0
    again = serve(binds=[f"smtp://{host}:{port}"])
    with connect(again.address) as sock:
        assert sock.recv(100).startswith(b"220")


PASSWORD = """
from gsmtp import Handler

class Inbox(Handler):
    def check_password(self, session, user, password):
        return password == "right"

    def on_message(self, envelope, message):
        return f"{message.size} {envelope.session.user}"
"""


def test_logins_and_chunks(serve: Callable[..., Master]) -> None:
    """An exchange of AUTH comes to its end, a delayed refusal is said, and a message goes on from chunk to chunk."""
    settings = ("auth_without_tls=true", "auth_failure_delay=1.5", "drain_login=4.0", "linger=0.1")
    live = serve(*[part for each in settings for part in ("-s", each)], code=PASSWORD)
    with (
        live.connect() as coming,
        live.connect() as failing,
        live.connect() as silent,
        live.connect() as between,
        live.connect() as within,
        live.connect() as refused,
    ):
        for talk in (coming, silent):
            assert talk.ask("AUTH LOGIN").startswith("334")
        for talk in (between, within):
            talk.begin()
            assert talk.ask("BDAT 5\r\none").startswith("250")
        within.send("BDAT 6 LAST\r\ntwo")
        refused.send("BDAT 6 LAST\r\nQUI")
        failing.send("AUTH PLAIN AGEAd3Jvbmc=\r\n")
        live.wait_for_log("what=AUTH")
        live.wait_for_log("what=BDAT")
        began = time.monotonic()
        live.send_signal(signal.SIGTERM)
        live.wait_for_log("draining")
        assert refused.reply().startswith(FAREWELL) and closed(refused)
        assert coming.ask("YQ==").startswith("334")
        assert coming.ask("cmlnaHQ=").startswith("235 ")
        assert coming.reply().startswith(FAREWELL) and closed(coming)
        assert between.ask("BDAT 5\r\ntwo").startswith("250")
        assert between.ask("BDAT 0 LAST") == "250 2.0.0 10 None"
        assert between.reply().startswith(FAREWELL) and closed(between)
        within.send("six")
        assert within.reply() == "250 2.0.0 11 None"
        assert within.reply().startswith(FAREWELL) and closed(within)
        assert failing.reply().startswith("535 ")
        assert failing.reply().startswith(FAREWELL) and closed(failing)
        assert silent.reply().startswith(FAREWELL) and closed(silent)
        assert 3 < time.monotonic() - began < 15
    assert live.wait() == 0


def test_a_quick_stop_does_not_wait_for_a_delayed_refusal(serve: Callable[..., Master]) -> None:
    live = serve("-s", "auth_without_tls=true", "-s", "auth_failure_delay=30.0", code=PASSWORD)
    with live.connect() as failing:
        failing.send("AUTH PLAIN AGEAd3Jvbmc=\r\n")
        live.wait_for_log("what=AUTH")
        live.send_signal(signal.SIGINT)
        assert failing.reply().startswith("535 ")
        assert failing.reply().startswith(FAREWELL) and closed(failing)
    assert live.wait(10) == 0
    assert "cut off" not in live.log


@pytest.mark.parametrize("before", ["greet_delay=30.0", 'proxy_protocol=["127.0.0.1"]'])
def test_before_the_banner(serve: Callable[..., Master], before: str) -> None:
    live = serve("-s", before, "-s", "proxy_timeout=30.0")
    with connect(live.address) as sock:
        live.wait_for_log(" connect ")
        live.send_signal(signal.SIGTERM)
        assert sock.recv(1000).startswith(FAREWELL.encode())
    assert live.wait() == 0
