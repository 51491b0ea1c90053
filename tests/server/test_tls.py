"""smtps and STARTTLS with openssl s_client, swaks, smtplib and Python's ssl, against a real server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from certificates import MAIN, OTHER, Certificates, Pair, tool
from harness.client import Client, connect, dot_stuff
from harness.master import PYTHONPATH, Master, run
from harness.waiting import wait_for
from peerhandlers import source

CONTENT = b"Subject: secure\r\n\r\n.dot\r\nHello.\r\n"
Serve = Callable[..., Master]


def toml(certificates: Certificates, starttls: str = "", **settings: object) -> str:
    """Two listeners: STARTTLS, and implicit TLS."""
    rows = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    rows += [
        f"certfile = {json.dumps(certificates.main.certfile)}",
        f"keyfile = {json.dumps(certificates.main.keyfile)}",
    ]
    rows += [f"certificates = {{{json.dumps(OTHER)} = {json.dumps(list(vars(certificates.other).values()))}}}"]
    rows += ["[[listen]]", 'bind = "smtp://127.0.0.1:0"', starttls]
    rows += ["[[listen]]", 'bind = "smtps://127.0.0.1:0"']
    return "\n".join(rows)


@pytest.fixture
def serve_tls(serve: Serve, certificates: Certificates) -> Serve:
    """serve_tls(starttls="row of the first listener", max_errors=3, ...)."""

    def serving(starttls: str = "", workers: int = 1, **settings: object) -> Master:
        settings.setdefault("hostname", MAIN)
        return serve(toml=toml(certificates, starttls, **settings), code=source(), workers=workers)

    return serving


def ports(live: Master) -> tuple[str, str]:
    """The addresses of STARTTLS and of smtps."""
    return live.addresses["smtp://127.0.0.1:0"], live.addresses["smtps://127.0.0.1:0"]


def facts(talk: Client) -> dict[str, object]:
    """What the handler sees of the session."""
    found: dict[str, object] = json.loads(talk.ask("VRFY me").partition(" 2.0.0 ")[2])
    return found


def taken(content: bytes, protocol: str = "ESMTPS") -> str:
    """The reply of the handler to this content."""
    return f"250 2.0.0 {len(content)} {hashlib.sha256(content).hexdigest()} {protocol}"


def descriptors(live: Master) -> int:
    (pid,) = live.workers().values()
    return len(os.listdir(f"/proc/{pid}/fd"))


def s_client(address: str, certificates: Certificates, *options: str, said: bytes = b"") -> str:
    """What openssl's client prints; `said` is what it sends."""
    base = [tool("openssl"), "s_client", "-connect", address, "-CAfile", certificates.ca, "-verify_return_error"]
    done = subprocess.run([*base, *options], input=said, capture_output=True, timeout=10, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


# Peers


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "smtps"])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl(serve_tls: Serve, certificates: Certificates, implicit: bool, version: str) -> None:
    address = ports(serve_tls())[implicit]
    options = [] if implicit else ["-starttls", "smtp"]
    # -ign_eof: it waits for the server to close, as it does after QUIT.
    said = b"EHLO c.example\nVRFY me\nQUIT\n"
    text = s_client(address, certificates, *options, version, "-ign_eof", "-crlf", "-verify_hostname", MAIN, said=said)
    assert "Verification: OK" in text, text
    assert f"TLSv1.{version[-1]}" in text
    assert f'"tls": ["TLSv1.{version[-1]}"' in text
    assert "221 2.0.0 Bye" in text
    assert "STARTTLS" not in text.partition("Verification: OK")[2].replace("-starttls", "")
    # closed with close_notify, not cut off
    assert "unexpected eof" not in text


@pytest.mark.parametrize("option", ["--tls", "--tls-on-connect"])
def test_swaks(serve_tls: Serve, certificates: Certificates, option: str) -> None:
    swaks = tool("swaks")
    if subprocess.run(["perl", "-MNet::SSLeay", "-e1"], capture_output=True, check=False).returncode:
        pytest.skip("swaks has no TLS: Net::SSLeay is not installed (Debian: libnet-ssleay-perl)")
    host, _, port = ports(serve_tls())[option == "--tls-on-connect"].partition(":")
    to = ["--server", host, "--port", port, option, "--tls-verify", "--tls-ca-path", certificates.ca]
    to += ["--tls-sni", MAIN, "--from", "a@c.example", "--to", "b@here.example", "--data", "Subject: s\\n\\nbody\\n"]
    done = subprocess.run([swaks, *to], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TLS started" in done.stdout
    assert re.search(r"<~  250 2\.0\.0 \d+ \w{64} ESMTPS", done.stdout), done.stdout


def test_smtplib(serve_tls: Serve, certificates: Certificates) -> None:
    starttls, implicit = ports(serve_tls())
    host, _, port = starttls.partition(":")
    context = certificates.context()
    context.check_hostname = False
    with smtplib.SMTP(host, int(port), timeout=30) as client:
        assert client.starttls(context=context)[0] == 220
        assert client.sendmail("a@c.example", ["b@here.example"], CONTENT) == {}
        assert not client.has_extn("starttls")
    port = implicit.partition(":")[2]
    with smtplib.SMTP_SSL(host, int(port), timeout=30, context=context) as secure:
        assert secure.sendmail("a@c.example", ["b@here.example"], CONTENT) == {}


# What STARTTLS does to a session


def test_required_tls_comes_before_mail(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls('tls = "required"')
    with live.connect() as talk:
        for command in ("MAIL FROM:<a@c.example>", "RCPT TO:<b@c.example>", "DATA", "VRFY me", "AUTH PLAIN"):
            assert talk.ask(command) == "530 5.7.0 Must issue a STARTTLS command first"
        assert talk.ask("NOOP").startswith("250")
        talk.secure(certificates.context())
        assert talk.deliver(CONTENT) == taken(CONTENT)


def test_starttls_forgets_what_was_before(serve_tls: Serve, certificates: Certificates) -> None:
    with serve_tls().connect() as talk:
        assert facts(talk)["helo"] == "client.example"
        talk.begin()
        talk.secure(certificates.context(), ehlo=False)
        found = facts(talk)
        assert (found["helo"], found["protocol"], found["seen"]) == ("", "SMTP", 1)
        assert talk.ask("RCPT TO:<b@here.example>").startswith("503 5.5.1 Say EHLO")
        assert "STARTTLS" not in talk.ask("EHLO other.example")
        assert talk.ask("RCPT TO:<b@here.example>").startswith("503 5.5.1 MAIL first")
        assert facts(talk)["helo"] == "other.example"
        assert talk.deliver(CONTENT) == taken(CONTENT)


@pytest.mark.parametrize("within", ["no transaction", "a transaction"])
def test_nothing_said_in_clear_is_done_under_tls(serve_tls: Serve, certificates: Certificates, within: str) -> None:
    """CVE-2011-0411: what an attacker puts behind STARTTLS must not be taken for the client's."""
    live = serve_tls()
    with live.connect() as talk:
        if within == "a transaction":
            talk.begin()
        injected = (
            "EHLO evil.example\r\nMAIL FROM:<evil@c.example>\r\nRCPT TO:<b@here.example>\r\nDATA\r\nevil\r\n.\r\n"
        )
        talk.send(f"STARTTLS\r\n{injected}VRFY me\r\nQUIT\r\nEHLO half a li")
        assert talk.reply() == "220 2.0.0 Ready to start TLS"
        # They were read already, or lie in the socket and spoil the handshake; either way they are not commands.
        try:
            talk.handshake(certificates.context(), ehlo=False)
        except (ssl.SSLError, ConnectionError):
            pass
        else:
            assert facts(talk)["helo"] == ""
            assert talk.ask("NOOP") == "250 2.0.0 Ok"
            assert talk.ask("RCPT TO:<b@here.example>").startswith("503")
            assert talk.ask("QUIT").startswith("221")
            assert talk.reply() == ""
    live.wait_for_log(" disconnect ")
    assert "evil" not in live.log


def test_starttls_that_cannot_be(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls()
    starttls, implicit = ports(live)
    with live.connect(starttls) as talk:
        assert talk.ask("STARTTLS now") == "501 5.5.4 This command takes no argument"
        talk.secure(certificates.context())
        assert talk.ask("STARTTLS") == "503 5.5.1 TLS is active already"
        assert talk.ask("STARTTLS again") == "503 5.5.1 TLS is active already"
        assert talk.deliver(CONTENT) == taken(CONTENT)
    with live.connect(implicit, tls=certificates.context()) as talk:
        assert "STARTTLS" not in talk.ask("EHLO c.example")
        assert talk.ask("STARTTLS") == "503 5.5.1 TLS is active already"
        assert talk.deliver(CONTENT) == taken(CONTENT)


@pytest.mark.parametrize("setting", ['tls = "never"'])
def test_starttls_where_it_is_not_offered(serve_tls: Serve, setting: str) -> None:
    with serve_tls(setting).connect() as talk:
        assert "STARTTLS" not in talk.ask("EHLO c.example")
        assert talk.ask("STARTTLS").startswith("500 5.5.1")
        assert talk.deliver(CONTENT) == taken(CONTENT, "ESMTP")


# Certificates


def test_the_name_picks_the_certificate(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls()
    context = certificates.context()
    context.check_hostname = False
    shown = []
    for name in (MAIN, OTHER, OTHER.upper(), "unknown.example.org", None):
        for address, implicit in zip(ports(live), (False, True), strict=True):
            with Client(address, tls=context if implicit else None, name=name or "") as talk:
                if not implicit:
                    talk.ask("EHLO c.example")
                    talk.secure(context, name or "")
                assert isinstance(talk.socket, ssl.SSLSocket)
                certificate = talk.socket.getpeercert()
                assert certificate is not None
                subject: Any = certificate["subject"]
                shown.append(dict(pair for group in subject for pair in group)["commonName"])
                seen = facts(talk)["tls"]
                assert isinstance(seen, list) and (seen[1] or "").lower() == (name or "").lower()
    assert shown == [MAIN] * 2 + [OTHER] * 4 + [MAIN] * 4


def test_the_client_sees_an_expired_certificate(serve: Serve, certificates: Certificates) -> None:
    pair = certificates.expired
    live = serve("--certfile", pair.certfile, "--keyfile", pair.keyfile)
    with live.connect() as talk, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        talk.secure(certificates.context(), f"expired.{MAIN}")
    live.wait_for_log("TLS handshake failed")
    with live.connect() as talk:
        assert talk.ask("NOOP").startswith("250")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificates(serve_tls: Serve, certificates: Certificates, version: ssl.TLSVersion) -> None:
    live = serve_tls(client_ca=certificates.ca)
    _, implicit = ports(live)
    shown: dict[str, Pair | None] = {"alice@example.org": certificates.client, "": None}
    for name, pair in shown.items():
        with live.connect(implicit, tls=certificates.context(pair, version)) as talk:
            seen = facts(talk)["tls"]
            assert isinstance(seen, list) and seen[2] == (name or None)
    # One that the authority has not signed is refused; with TLS 1.3 a client hears of it after its own handshake.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        live.connect(implicit, tls=certificates.context(certificates.stranger, version))
    live.wait_for_log("TLS handshake failed: CERTIFICATE_VERIFY_FAILED")


def test_on_tls_may_refuse(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls()
    context = certificates.context()
    context.check_hostname = False
    for address, implicit in zip(ports(live), (False, True), strict=True):
        with Client(address, tls=context if implicit else None, name="refused.example.org") as talk:
            if not implicit:
                assert talk.ask("STARTTLS").startswith("220")
                talk.handshake(context, "refused.example.org", ehlo=False)
                assert talk.reply() == "554 5.7.1 Not that name"
            else:
                assert talk.banner == "554 5.7.1 Not that name"
            assert talk.reply() == ""


# Versions


def test_versions(serve_tls: Serve, certificates: Certificates) -> None:
    _, implicit = ports(serve_tls())
    for option in ("-tls1", "-tls1_1"):
        text = s_client(implicit, certificates, option, "-cipher", "ALL:@SECLEVEL=0")
        assert "alert protocol version" in text, text
    for version in ("-tls1_2", "-tls1_3"):
        assert "Verification: OK" in s_client(implicit, certificates, version)


def test_the_least_version_is_a_setting(serve_tls: Serve, certificates: Certificates) -> None:
    _, implicit = ports(serve_tls(tls_minimum="1.3"))
    assert "alert protocol version" in s_client(implicit, certificates, "-tls1_2")
    assert "Verification: OK" in s_client(implicit, certificates, "-tls1_3")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("name", [MAIN, OTHER])
def test_sessions_are_resumed(
    serve_tls: Serve, certificates: Certificates, tmp_path: Path, version: str, name: str
) -> None:
    """Within a worker: each has ticket keys of its own, which Python's ssl cannot share."""
    _, implicit = ports(serve_tls(client_ca=certificates.ca))
    own = ["-cert", certificates.client.certfile, "-key", certificates.client.keyfile, "-crlf", "-ign_eof"]
    said = b"EHLO c.example\nVRFY me\nQUIT\n"
    ticket = str(tmp_path / "session")
    base = [*own, version, "-servername", name]
    first = s_client(implicit, certificates, *base, "-sess_out", ticket, said=said)
    assert "\nNew, TLSv1" in first
    # One ticket: no client of mail uses a second.
    assert first.count("New Session Ticket arrived") == (version == "-tls1_3")
    again = s_client(implicit, certificates, *base, "-sess_in", ticket, said=said)
    assert "\nReused, TLSv1" in again, again
    # The certificates of both sides hold on.
    assert f'"TLSv1.{version[-1]}", "{name}", "alice@example.org"' in again


def test_the_ticket_of_another_worker_means_a_full_handshake(
    serve_tls: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    live = serve_tls()
    _, implicit = ports(live)
    ticket, said = str(tmp_path / "session"), b"EHLO c.example\nQUIT\n"
    assert "\nNew, TLSv1" in s_client(implicit, certificates, "-sess_out", ticket, "-crlf", "-ign_eof", said=said)
    ((_, before),) = live.workers().items()
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: set(live.workers().values()) - {before}, what="another worker")
    again = s_client(implicit, certificates, "-sess_in", ticket, "-crlf", "-ign_eof", said=said)
    assert "\nNew, TLSv1" in again and "221 2.0.0 Bye" in again, again


# Handshakes that fail


def test_a_handshake_that_stalls_is_ended(serve_tls: Serve) -> None:
    live = serve_tls(handshake_timeout=0.3)
    starttls, implicit = ports(live)
    began = time.monotonic()
    with connect(implicit) as silent, connect(implicit) as half, Client(starttls) as talk:
        half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01")
        assert talk.ask("STARTTLS").startswith("220")
        assert silent.recv(100) == b""
        assert half.recv(100) == b""
        assert talk.file.read() == b""
    assert time.monotonic() - began < 15
    wait_for(lambda: live.log.count("TLS handshake timed out") == 3)


def test_drops_do_not_prolong_a_handshake(serve_tls: Serve) -> None:
    """The time is that of the whole: a client that sends an octet now and then gets no more."""
    live = serve_tls(handshake_timeout=0.5)
    with connect(ports(live)[1]) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00")
        with contextlib.suppress(OSError):
            for _ in range(400):
                sock.sendall(b"\x01")
                if "timed out" in live.log:
                    break
                time.sleep(0.05)
    live.wait_for_log("TLS handshake timed out")


def test_failed_handshakes_leave_nothing(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls()
    starttls, implicit = ports(live)
    live.connect(implicit, tls=certificates.context()).close()
    wait_for(lambda: live.log.count(" disconnect ") == 1)
    before = descriptors(live)
    garbage = [b"", b"\x16\x03\x01", b"EHLO c.example\r\nQUIT\r\n", bytes(range(256)) * 4, b"\x16\x03\x01\x00\x05abcde"]
    for octets in garbage:
        for address in (starttls, implicit):
            sock = connect(address)
            if address == starttls:
                sock.recv(1000)
                sock.sendall(b"STARTTLS\r\n")
                sock.recv(1000)
            with contextlib.suppress(OSError):
                sock.sendall(octets)
            if octets.startswith(b"EHLO"):
                with contextlib.suppress(ConnectionError):
                    # An alert record at most; nothing in clear, and no reply to what was no TLS.
                    assert sock.recv(1000)[:1] in (b"", b"\x15")
            if len(octets) > 100:  # gone with a reset
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()
    wait_for(lambda: live.log.count(" disconnect ") == 1 + 2 * len(garbage), what="all sessions to end")
    wait_for(lambda: descriptors(live) == before, what="all descriptors to be freed")
    assert "Traceback" not in live.log
    with live.connect(implicit, tls=certificates.context()) as talk:
        assert talk.deliver(CONTENT) == taken(CONTENT)


# Octets


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_big_message_to_the_byte(serve_tls: Serve, certificates: Certificates, version: ssl.TLSVersion) -> None:
    block = os.urandom(1_000_000).replace(b"\r", b"x").replace(b"\n", b".\r\n")
    content = block * 30 + b"\r\n"
    live = serve_tls()
    with live.connect(ports(live)[1], tls=certificates.context(version=version)) as talk:
        talk.begin()
        assert talk.ask("DATA").startswith("354")
        talk.send(dot_stuff(content))
        assert talk.reply() == taken(content)
        assert talk.deliver(CONTENT) == taken(CONTENT)


def test_records_of_any_size_and_pipelining(serve_tls: Serve, certificates: Certificates) -> None:
    commands = b"EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@here.example>\r\nDATA\r\n"
    session = commands + dot_stuff(CONTENT) + commands[16:] + dot_stuff(b"") + b"QUIT\r\n"
    live = serve_tls()
    for step in (1, 7, len(session)):
        with live.connect(ports(live)[1], tls=certificates.context(), ehlo=False) as talk:
            for at in range(0, len(session), step):
                talk.send(session[at : at + step])
            said = [talk.reply()[:3] for _ in range(10)]
            assert said == ["250", "250", "250", "354", "250", "250", "250", "354", "250", "221"]
            assert talk.file.read() == b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("end", ["QUIT", "sent away"])
def test_the_end_is_announced(serve_tls: Serve, certificates: Certificates, version: ssl.TLSVersion, end: str) -> None:
    """close_notify comes before the end of the connection, so that nobody can cut a session short unseen."""
    live = serve_tls(max_errors=1)
    context = certificates.context(version=version)
    sock = connect(ports(live)[1])
    # Else Python takes an end without close_notify for a proper one.
    with context.wrap_socket(sock, server_hostname=MAIN, suppress_ragged_eofs=False) as secure:
        # The second is unread when the server sends its client away.
        secure.sendall(b"QUIT\r\n" if end == "QUIT" else b"NONSENSE\r\nNONSENSE\r\n" + b"NOOP\r\n" * 2000)
        said = b""
        while piece := secure.recv(1000):
            said += piece
    assert said.endswith(b"221 2.0.0 Bye\r\n" if end == "QUIT" else b"421 4.7.0 Too many errors\r\n")


def test_a_client_that_closes_without_a_word(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls()
    for how in ("word", "cut", "reset"):
        talk = live.connect(ports(live)[1], tls=certificates.context())
        talk.begin()
        talk.ask("DATA")
        talk.send("half a message\r\n")
        if how == "word":
            assert isinstance(talk.socket, ssl.SSLSocket)
            talk.file.close()
            with contextlib.suppress(OSError):
                talk.socket.unwrap()
        if how == "reset":
            talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        talk.close()
    wait_for(lambda: live.log.count(" disconnect ") == 3)
    assert live.log.count(" message ") == 0
    assert "Traceback" not in live.log


# Signals


def test_drain(serve_tls: Serve, certificates: Certificates) -> None:
    """The idle one is sent away, the transaction goes on, and the handshake comes to its end (and no 421 into it)."""
    live = serve_tls()
    starttls, implicit = ports(live)
    context = certificates.context()
    with (
        live.connect(implicit, tls=context) as idle,
        live.connect(implicit, tls=context) as busy,
        live.connect(starttls) as shaking,
        connect(implicit) as waiting,
    ):
        busy.begin()
        assert shaking.ask("STARTTLS").startswith("220")
        # It has been accepted when the worker counts it.
        wait_for(lambda: live.log.count(" connect ") == 4)
        live.send_signal(signal.SIGTERM)
        assert idle.reply() == "421 4.3.2 Service shutting down, try again"
        assert idle.reply() == ""
        shaking.handshake(context, ehlo=False)
        assert shaking.reply() == "421 4.3.2 Service shutting down, try again"
        secure = context.wrap_socket(waiting, server_hostname=MAIN)
        assert secure.recv(1000) == b"421 4.3.2 Service shutting down, try again\r\n"
        secure.close()
        assert busy.content(CONTENT) == taken(CONTENT)
        assert busy.reply() == "421 4.3.2 Service shutting down, try again"
        assert busy.reply() == ""
    assert live.wait() == 0


def test_quick_stop(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls()
    starttls, implicit = ports(live)
    with (
        live.connect(implicit, tls=certificates.context()) as idle,
        connect(implicit) as shaking,
        Client(starttls) as plain,
    ):
        assert plain.ask("STARTTLS").startswith("220")
        wait_for(lambda: live.log.count(" connect ") == 3)
        live.send_signal(signal.SIGQUIT)
        assert idle.reply() == "421 4.3.2 Service shutting down, try again"
        # In the midst of a handshake no word can be said.
        assert shaking.recv(1000) == b""
        assert plain.reply() == ""
    live.wait(10)


def test_kill(serve_tls: Serve, certificates: Certificates) -> None:
    live = serve_tls()
    (pid,) = live.workers().values()
    with live.connect(ports(live)[1], tls=certificates.context()) as talk:
        psutil.Process(pid).kill()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert talk.reply() == ""
    wait_for(lambda: pid not in live.pids() and live.workers(), what="a new worker")
    with live.connect(ports(live)[1], tls=certificates.context()) as talk:
        assert talk.deliver(CONTENT) == taken(CONTENT)


# Starting


@pytest.mark.parametrize("wrong", ["no such file", "no certificate", "another key", "empty key", "encrypted key", "ca"])
@pytest.mark.parametrize("check", [False, True], ids=["start", "--check"])
def test_what_is_wrong_is_said_in_one_line(certificates: Certificates, tmp_path: Path, wrong: str, check: bool) -> None:
    pair, extra = certificates.main, []
    nothing = tmp_path / "nothing.pem"
    if wrong != "no such file":
        nothing.write_text("nothing\n")
    certfile = str(nothing) if wrong in ("no such file", "no certificate") else pair.certfile
    keyfile = {"another key": certificates.other.keyfile, "empty key": str(nothing)}.get(wrong, pair.keyfile)
    if wrong == "encrypted key":
        keyfile = str(tmp_path / "encrypted.key")
        encrypt = [tool("openssl"), "ec", "-in", pair.keyfile, "-aes256", "-passout", "pass:x", "-out", keyfile]
        subprocess.run(encrypt, check=True, capture_output=True)
    if wrong == "ca":
        extra = ["--set", f"client_ca={nothing}"]
    arguments = ["-b", "smtps://127.0.0.1:0", "-w", "2", "--certfile", certfile, "--keyfile", keyfile, *extra]
    done = run(*arguments, *(["--check"] if check else []), directory=tmp_path)
    assert done.returncode != 0
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "certificate" in line or "cannot" in line]
    said = {line.partition("gsmtp-master: ")[2] or line for line in lines}
    assert lines and "Traceback" not in done.stderr, done.stderr
    assert "smtps://127.0.0.1:0" in lines[-1] or str(nothing) in lines[-1], done.stderr
    # whichever file is at fault is named
    at_fault = keyfile if "key" in wrong else str(nothing)
    assert any(at_fault in line for line in said), done.stderr


def test_keys_that_only_root_can_read(certificates: Certificates, tmp_path: Path) -> None:
    """The workers run as nobody, who could not read the key; it takes an interpreter that nobody can run."""
    if os.getuid() != 0:
        pytest.skip("only root can start workers as another user")
    user = pwd.getpwnam("nobody")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    places = os.pathsep.join([PYTHONPATH, packages])
    probe = "import gevent, psutil, dns, gsmtp"

    def become() -> None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            environment = {"PATH": "/usr/bin", "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}
            asked = subprocess.run(
                [python, "-c", probe], env=environment, cwd="/", preexec_fn=become, capture_output=True, check=False
            )
            if asked.returncode == 0:
                break
    else:
        pytest.skip("no Python with gevent, psutil and dnspython that the user nobody can run")
    key = Path(certificates.main.keyfile)
    secret = tmp_path / "secret.key"
    secret.write_bytes(key.read_bytes())
    secret.chmod(0o600)
    log = tmp_path / "log"
    options = ["-b", "smtps://127.0.0.1:0", "-w", "1", "--user", "nobody", "--hostname", MAIN]
    options += ["--certfile", certificates.main.certfile, "--keyfile", str(secret)]
    # Not below tmp_path, whose parents nobody may enter.
    box = Path(tempfile.mkdtemp())
    os.chown(box, user.pw_uid, user.pw_gid)
    options += ["--set", "chdir=/", "-o", f"path={box}/mail"]
    with log.open("wb") as output:
        master = subprocess.Popen(
            [python, "-m", "gsmtp.cli", *options], env=environment, cwd="/", stdout=output, stderr=output
        )
    try:
        found = wait_for(
            lambda: master.poll() is not None or re.search(r"\((127[^)]+)\)(?s:.*)\) ready", log.read_text())
        )
        assert isinstance(found, re.Match), log.read_text()
        (worker,) = psutil.Process(master.pid).children()
        assert worker.uids().real == user.pw_uid
        with Client(found[1], tls=certificates.context()) as talk:
            assert talk.ask("EHLO c.example").startswith("250")
            assert talk.deliver(CONTENT).startswith("250")
    finally:
        master.terminate()
        master.wait(20)
        shutil.rmtree(box)
