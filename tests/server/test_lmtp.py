"""LMTP listeners, on TCP and a unix socket, with swaks and smtplib: each recipient has a reply of its own."""

from __future__ import annotations

import hashlib
import json
import re
import smtplib
import subprocess
from collections.abc import Callable

import pytest
from certificates import Certificates, tool
from harness.client import Client
from harness.master import Master, run
from peerhandlers import source

Serve = Callable[..., Master]
BINDS = ["lmtp://127.0.0.1:0", "lmtp+unix:{directory}/lmtp"]
CONTENT = b"Subject: lmtp\r\n\r\n.\r\n.dot\r\n"
TAKEN = f"250 2.0.0 {len(CONTENT)} {hashlib.sha256(CONTENT).hexdigest()} LMTP"
MIXED = ("a@h.example", "late-reject@h.example", "late-defer@h.example", "b@h.example")


@pytest.fixture
def server(serve: Serve) -> Master:
    return serve(binds=BINDS, code=source())


@pytest.fixture(params=["TCP", "unix"])
def address(request: pytest.FixtureRequest, server: Master) -> str:
    """The server's address of each kind."""
    found = {"/" if each.startswith("/") else "TCP": each for each in server.addresses.values()}
    return found["TCP" if request.param == "TCP" else "/"]


def connected(address: str) -> Client:
    talk = Client(address)
    assert talk.ask("LHLO client.example").startswith("250")
    return talk


def test_swaks(server: Master, address: str) -> None:
    where = ["--socket", address]
    if not address.startswith("/"):
        host, _, port = address.partition(":")
        where = ["--server", host, "--port", port]
    to = ["--protocol", "LMTP", "--from", "a@c.example", "--to", ",".join(MIXED), "--data", "Subject: s\\n\\n.x\\n"]
    done = subprocess.run([tool("swaks"), *where, *to], capture_output=True, text=True, timeout=30, check=False)
    # swaks exits with 0 when a recipient was accepted; it reads one reply for each.
    after = done.stdout.partition(" -> .\n")[2]
    codes = re.findall(r"(?m)^<[-*~* ]*\s+(\d{3}) ", after)
    assert codes[:4] == ["250", "550", "452", "250"], done.stdout + done.stderr
    assert codes[4:] == ["221"], done.stdout


def test_smtplib(address: str) -> None:
    if address.startswith("/"):
        client = smtplib.LMTP(address)
    else:
        host, _, port = address.partition(":")
        client = smtplib.LMTP(host, int(port))
    with client:
        # smtplib reads one reply, that of the first recipient: so one recipient a message.
        assert client.sendmail("a@c.example", ["b@h.example"], CONTENT) == {}
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@c.example", ["late-reject@h.example"], CONTENT)
        assert refused.value.smtp_code == 550
        assert client.sendmail("", ["b@h.example"], CONTENT) == {}


def test_a_reply_for_each_recipient(server: Master, address: str) -> None:
    with connected(address) as talk:
        assert [reply[:3] for reply in talk.begin(*MIXED, "nobody@h.example")] == ["250"] * 5 + ["550"]
        replies = [talk.content(CONTENT), *(talk.reply() for _ in MIXED[1:])]
        assert replies == [TAKEN, "550 5.7.1 Not for me", "452 4.2.2 Mailbox full", TAKEN]
        assert talk.ask("NOOP") == "250 2.0.0 Ok"
        talk.begin("late-reject@h.example")
        assert talk.content(CONTENT) == "550 5.7.1 Not for me"
        assert talk.ask("QUIT").startswith("221")
    assert server.wait_for_log(r" disconnect .*messages=1 ")
    assert re.search(r" message .*refused=.*late-reject@h.example.*late-defer@h.example", server.log)


def test_recipients_may_differ_whatever_mixed_results_says(serve: Serve) -> None:
    live = serve(binds=BINDS[:1], code=source(), mixed_results="single")
    with connected(live.address) as talk:
        assert [reply[:3] for reply in talk.begin(*MIXED)] == ["250"] * 5
        assert [talk.content(CONTENT)[:3], *(talk.reply()[:3] for _ in MIXED[1:])] == ["250", "550", "452", "250"]


def test_refusals_of_the_content_are_said_for_each(serve: Serve) -> None:
    live = serve(binds=BINDS[:1], code=source(), max_message_size=100)
    with connected(live.address) as talk:
        for content, reply in ((b"x" * 200 + b"\r\n", "552 5.3.4"), (b"bare\n\r\n", "554 5.6.0")):
            talk.begin(*MIXED)
            assert talk.content(content).startswith(reply)
            for _ in MIXED[1:]:
                assert talk.reply().startswith(reply)
            assert talk.ask("NOOP") == "250 2.0.0 Ok"


def test_order(address: str) -> None:
    with Client(address) as talk:
        assert talk.ask("EHLO c.example") == "500 5.5.1 This is LMTP: say LHLO"
        assert talk.ask("HELO c.example") == "500 5.5.1 This is LMTP: say LHLO"
        assert talk.ask("MAIL FROM:<a@c.example>").startswith("503 5.5.1")
        assert talk.ask("LHLO c.example").startswith("250-")
        assert talk.ask("DATA").startswith("503")
        assert talk.begin("nobody@h.example")[1].startswith("550")
        # RFC 2033 4.2: not 354, for there would be no reply at the end.
        assert talk.ask("DATA") == "503 5.5.1 No valid recipients"
        assert talk.ask("RSET").startswith("250")


def test_a_message_pipelined(address: str) -> None:
    session = "LHLO c.example\r\nMAIL FROM:<a@c.example>\r\n" + "".join(f"RCPT TO:<{each}>\r\n" for each in MIXED)
    with Client(address) as talk:
        talk.send(session + "DATA\r\nx\r\n.\r\nMAIL FROM:<a@c.example>\r\nQUIT\r\n")
        codes = [talk.reply()[:3] for _ in range(13)]
        assert codes == ["250", "250", "250", "250", "250", "250", "354", "250", "550", "452", "250", "250", "221"]
        assert talk.reply() == ""


def test_tls(serve: Serve, certificates: Certificates) -> None:
    pair = certificates.main
    live = serve("--certfile", pair.certfile, "--keyfile", pair.keyfile, binds=BINDS, code=source())
    for address in live.addresses.values():
        with connected(address) as talk:
            talk.secure(certificates.context(), ehlo=False)
            assert talk.ask("LHLO c.example").startswith("250")
            assert talk.deliver(CONTENT) == f"{TAKEN}S"


@pytest.mark.parametrize("bind", ["lmtp://127.0.0.1:25", "lmtp://[::1]:25", "lmtp://0.0.0.0:25"])
def test_not_on_port_25(serve: Serve, tmp_path: object, bind: str) -> None:
    done = run("-b", bind, "--check", directory=tmp_path)  # type: ignore[arg-type]
    assert done.returncode == 1
    assert done.stderr == f"gsmtp-master: bind {bind}: LMTP is not for port 25 (RFC 2033 5)\n"


def test_the_trace_says_lmtp(serve: Serve) -> None:
    live = serve(binds=BINDS[:1])
    with connected(live.address) as talk:
        assert talk.deliver(CONTENT).startswith("250")
    (message,) = (live.directory / "maildir" / "new").iterdir()
    assert b" with LMTP id " in message.read_bytes(), json.dumps(message.read_text())
