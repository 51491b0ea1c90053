"""What comes before the banner, on real servers: PROXY headers, limits per address, early talkers; and XCLIENT."""

from __future__ import annotations

import shutil
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import Certificates
from harness.client import Client, connect
from harness.master import Master, run
from harness.waiting import wait_for

from gsmtp.protocol.proxy import ProxyCommand, ProxyFamily, ProxyHeader, encode

HANDLER = """
from gsmtp import Handler

class Inbox(Handler):
    def on_message(self, envelope, message):
        session = envelope.session
        forwarded = session.forwarded.name if session.forwarded is not None else None
        return f"peer={session.peer} helo={session.helo} user={session.user} forwarded={forwarded}"
"""
LOGIN = f"""{HANDLER}
    def check_password(self, session, user, password):
        return password == "right"
"""
HEADER = ProxyHeader(family=ProxyFamily.TCP4, source=("192.0.2.7", 4711), destination=("192.0.2.1", 25))


@pytest.fixture
def server(serve: Callable[..., Master]) -> Callable[..., Master]:
    def start(*arguments: str, code: str = HANDLER) -> Master:
        return serve(*arguments, code=code)

    return start


def deliver(client: Client) -> str:
    """Send a whole message from EHLO on, and return the handler's reply."""
    assert client.ask("EHLO c.example").startswith("250")
    assert all(reply.startswith("250") for reply in client.begin())
    return client.content(b"x\r\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("sliced", [False, True])
def test_proxy_header_gives_the_peer(server: Callable[..., Master], version: int, sliced: bool) -> None:
    live = server("-s", 'proxy_protocol=["127.0.0.1"]')
    header = encode(ProxyHeader(version, HEADER.command, HEADER.family, HEADER.source, HEADER.destination))
    pieces = [header[at : at + 1] for at in range(len(header))] if sliced else [header]
    with Client(live.address, header=pieces) as client:
        assert client.banner.startswith("220 ")
        assert "peer=('192.0.2.7', 4711)" in deliver(client)
    live.wait_for_log(r"proxy session=\w+ peer=\[192\.0\.2\.7\]:4711")


def test_proxy_local_keeps_the_real_peer(server: Callable[..., Master]) -> None:
    live = server("-s", 'proxy_protocol=["127.0.0.1"]')
    with Client(live.address, header=[encode(ProxyHeader(2, ProxyCommand.LOCAL))]) as client:
        assert client.banner.startswith("220 ")
        assert "peer=('127.0.0.1'," in deliver(client)


def test_proxy_header_is_required_of_a_proxy_and_has_a_deadline(server: Callable[..., Master]) -> None:
    live = server("-s", 'proxy_protocol=["127.0.0.1"]', "-s", "proxy_timeout=0.3")
    with connect(live.address) as sock:
        assert sock.recv(100) == b""
    with connect(live.address) as sock:
        sock.sendall(b"EHLO c.example\r\n")
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            pass
    live.wait_for_log("no PROXY header")
    live.wait_for_log("bad PROXY header")


def test_others_are_not_believed(server: Callable[..., Master]) -> None:
    live = server("-s", 'proxy_protocol=["192.0.2.0/24"]')
    with Client(live.address) as client:
        assert client.banner.startswith("220 ")
        assert client.code(encode(HEADER)) == 500


def test_proxy_facts_are_kept_after_starttls(server: Callable[..., Master], tmp_path: Path) -> None:
    """Defect of others: what the PROXY header said was lost with STARTTLS."""
    key = tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=mx",
    ]
    subprocess.run([*command, "-keyout", key, "-out", tmp_path / "cert.pem"], check=True, capture_output=True)
    live = server("-s", 'proxy_protocol=["127.0.0.1"]', "--certfile", str(tmp_path / "cert.pem"), "--keyfile", str(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Client(live.address, header=[encode(HEADER)]) as client:
        assert client.banner.startswith("220 ")
        client.secure(context, ehlo=False)
        assert "peer=('192.0.2.7', 4711)" in deliver(client)


def test_xclient_changes_the_client_and_begins_anew(server: Callable[..., Master]) -> None:
    live = server("-s", 'xclient=["127.0.0.1"]')
    client = live.connect()
    assert "XCLIENT NAME" in client.ask("EHLO c.example")
    assert client.ask("XCLIENT ADDR=IPV6:2001:db8::7 PORT=99 LOGIN=anna").startswith("220 ")
    assert client.ask("MAIL FROM:<a@example.com>").startswith("503 ")
    assert client.ask("EHLO d.example").startswith("250")
    assert client.ask("MAIL FROM:<a@example.com>").startswith("250 ")
    assert client.ask("XCLIENT ADDR=192.0.2.1").startswith("503 ")
    assert client.ask("RCPT TO:<b@example.com>").startswith("250 ")
    assert client.ask("DATA").startswith("354 ")
    assert "peer=('2001:db8::7', 99) helo=d.example user=anna" in client.ask("x\r\n.")
    assert client.ask("XCLIENT NOSUCH=1").startswith("501 ")
    client.close()


def test_xforward_is_for_one_message(server: Callable[..., Master]) -> None:
    live = server("-s", 'xclient=["127.0.0.1"]')
    client = live.connect()
    assert client.ask("XFORWARD NAME=far.example").startswith("250 ")
    for forwarded in ("far.example", "None"):
        assert client.ask("MAIL FROM:<a@example.com>").startswith("250 ")
        assert client.ask("RCPT TO:<b@example.com>").startswith("250 ")
        assert client.ask("DATA").startswith("354 ")
        assert f"forwarded={forwarded}" in client.ask("x\r\n.")
    client.close()


def test_xclient_of_strangers_is_refused(server: Callable[..., Master]) -> None:
    client = server("-s", 'xclient=["192.0.2.0/24"]').connect()
    assert "XCLIENT" not in client.ask("EHLO c.example")
    assert client.ask("XCLIENT ADDR=192.0.2.1").startswith("550 5.7.0")
    assert client.ask("XFORWARD ADDR=192.0.2.1").startswith("550 5.7.0")
    client.close()


def test_early_talkers_are_sent_away(server: Callable[..., Master]) -> None:
    live = server("-s", "greet_delay=0.5")
    with Client(live.address, header=[b"EHLO c.example\r\n"]) as client:
        assert client.banner == "554 5.5.0 You talk before the greeting"
        assert client.rest() == b""
    with Client(live.address) as client:
        assert client.banner.startswith("220 ")


def test_under_tls_the_client_talks_first(server: Callable[..., Master], certificates: Certificates) -> None:
    """Its hello, which may come in one packet with the PROXY header, is no early talk."""
    files = ("--certfile", certificates.main.certfile, "--keyfile", certificates.main.keyfile)
    early = ("-s", "greet_delay=30.0", "-s", 'proxy_protocol=["127.0.0.1"]')
    live = server("-b", "smtps://127.0.0.1:0", *files, *early)
    outgoing = ssl.MemoryBIO()
    client = certificates.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="mx.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with connect(live.addresses["smtps://127.0.0.1:0"]) as sock:
        sock.sendall(encode(HEADER) + outgoing.read())
        assert sock.recv(1) == b"\x16"


def test_sessions_per_address(server: Callable[..., Master]) -> None:
    live = server("-s", "limit_sessions=2", "-s", "limit_exempt=[]")
    clients = [live.connect() for _ in range(2)]
    with Client(live.address) as client:
        assert client.banner == "421 4.7.0 Too many connections from your address at a time"
    clients.pop().close()
    deadline = time.monotonic() + 10
    while True:
        with Client(live.address) as client:
            if client.banner.startswith("220 "):
                break
        assert time.monotonic() < deadline
    clients.pop().close()


def test_no_word_in_clear_to_a_client_that_waits_for_tls(
    server: Callable[..., Master], certificates: Certificates
) -> None:
    """It would take "421 " for a broken record of TLS."""
    files = ("--certfile", certificates.main.certfile, "--keyfile", certificates.main.keyfile)
    live = server("-b", "smtps://127.0.0.1:0", *files, "-s", "limit_sessions=1", "-s", "limit_exempt=[]")
    address = live.addresses["smtps://127.0.0.1:0"]
    with live.connect(address, tls=certificates.context()), connect(address) as sock:
        assert sock.recv(100) == b""
    live.wait_for_log("reason=limited")


def test_connections_in_an_interval(server: Callable[..., Master]) -> None:
    live = server("-s", "limit_connections=3", "-s", "limit_interval=5", "-s", "limit_exempt=[]")

    def banner() -> str:
        with Client(live.address) as client:
            return client.banner

    began = time.monotonic()
    banners = [banner() for _ in range(6)]
    assert banners[3:] == ["421 4.7.0 Too many connections from your address, try again later"] * 3
    assert all(each.startswith("220 ") for each in banners[:3])
    wait_for(lambda: banner().startswith("220 "), what="the end of the interval")
    assert time.monotonic() - began > 1


def test_messages_and_recipients_per_address(server: Callable[..., Master]) -> None:
    live = server("-s", "limit_messages=2", "-s", "limit_recipients=3", "-s", "limit_exempt=[]")
    client = live.connect()
    words = []
    for _ in range(3):
        words.append(client.ask("MAIL FROM:<a@example.com>"))
        words.extend(client.ask("RCPT TO:<b@example.com>") for _ in range(2))
        client.ask("RSET")
    assert words[5] == "450 4.7.1 Too many recipients from your address, try again later"
    assert words[6] == "450 4.7.1 Too many messages from your address, try again later"
    said = [each[:3] for each in words]
    assert said == ["250", "250", "250", "250", "250", "450", "450", "503", "503"]
    client.close()


def test_failed_logins_per_address(server: Callable[..., Master]) -> None:
    settings = ("auth_without_tls=true", "auth_failure_delay=0.0", "limit_auth_failures=2", "limit_exempt=[]")
    live = server(*[text for each in settings for text in ("-s", each)], code=LOGIN)
    wrong, right = "AUTH PLAIN AHUAd3Jvbmc=", "AUTH PLAIN AHUAcmlnaHQ="
    first = live.connect()
    assert first.ask(right).startswith("235 ")
    first.close()
    second = live.connect()
    assert second.ask(wrong).startswith("535 ")
    assert second.ask(wrong).startswith("535 ")
    enough = "421 4.7.0 Too many failed logins from your address, try again later"
    assert (second.reply(), second.reply()) == (enough, "")
    second.close()
    # Even with the right password, and from whichever session.
    for _ in range(3):
        with live.connect() as third:
            assert (third.ask(right), third.reply()) == (enough, "")


def test_who_is_refused_login_for_a_while_has_not_failed_again(server: Callable[..., Master]) -> None:
    """Else the limit would hold for as long as somebody asks."""
    settings = ["auth_without_tls=true", "auth_failure_delay=0.0", "limit_auth_failures=2", "limit_exempt=[]"]
    settings += ["limit_auth_interval=2.0"]
    live = server(*[text for each in settings for text in ("-s", each)], code=LOGIN)
    with live.connect() as talk:
        for _ in range(2):
            talk.ask("AUTH PLAIN AHUAd3Jvbmc=")

    def let_in() -> bool:
        with live.connect() as talk:
            return talk.ask("AUTH PLAIN AHUAcmlnaHQ=").startswith("235 ")

    assert not let_in()
    wait_for(let_in, 10)


@pytest.mark.parametrize("setting", ['proxy_protocol=["x"]', 'xclient=["1.2.3.4/99"]', 'limit_exempt=["300.1.1.1"]'])
def test_bad_networks_are_one_line(tmp_path: Path, setting: str) -> None:

    ended = run("-b", "smtp://127.0.0.1:0", "-s", setting, "--check", directory=tmp_path)
    assert ended.returncode != 0
    assert ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_haproxy_delivers_through_us(server: Callable[..., Master], tmp_path: Path, option: str) -> None:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    live = server("-s", 'proxy_protocol=["127.0.0.1"]')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"
        f"listen mail\n  bind 127.0.0.1:{port}\n  server one {live.address} {option}\n"
    )
    haproxy = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(port), what="haproxy")
        with smtplib.SMTP("127.0.0.1", port, local_hostname="c.example", timeout=20) as client:
            assert client.sock is not None
            own = client.sock.getsockname()
            client.ehlo()
            client.mail("a@example.com")
            client.rcpt("b@example.com")
            code, text = client.data("x\r\n")
        assert (code, text.decode()) == (250, f"2.0.0 peer={own!r} helo=c.example user=None forwarded=None")
    finally:
        haproxy.terminate()
        haproxy.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True
