"""What Debian has of clients that can do more than swaks, smtplib and Postfix: each extension and each mechanism of
AUTH by at least one program that is not ours.

    openssl s_client  every command, typed: all extensions, all mechanisms, XCLIENT and XFORWARD; smtps, STARTTLS, LMTP
    swaks             MAIL's and RCPT's parameters (smuggled in with the address), XCLIENT, PROXY v1 and v2, client
                      certificates; not BDAT, XFORWARD, SCRAM, XOAUTH2, OAUTHBEARER and EXTERNAL, which it does not know
    msmtp             AUTH but -PLUS, DSN, LMTP, by GnuTLS
    curl              AUTH but SCRAM, by OpenSSL
    gsasl             SCRAM-SHA-256-PLUS
    dovecot           LMTP as a proxy; CHUNKING, XCLIENT, STARTTLS and AUTH as a relay of submissions
    Postfix           in test_postfix.py; haproxy in test_admission.py

Nothing of these can send a PROXY header before TLS of its own but haproxy and swaks. A program that is missing is a
skip that names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import select
import smtplib
import socket
import subprocess
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from certificates import MAIN, Certificates, tool
from harness.dovecot import Dovecot
from harness.master import Master
from harness.messages import taken

from gsmtp.protocol import sasl

USER, PASSWORD, TOKEN = "alice@example.org", "a secret of 50%", "ya29.token"
CODE = f"""
import json
from gsmtp import Handler

def shown(parameters):
    return {{key: " ".join(sorted(value)) if key == "NOTIFY" else str(value) for key, value in parameters.items()}}

class Inbox(Handler):
    extensions = ("DSN", "REQUIRETLS", "MT-PRIORITY", "DELIVERBY")

    def check_password(self, session, user, password):
        return (user, password) == ({USER!r}, {PASSWORD!r})

    def get_password(self, session, user, mechanism):
        return {PASSWORD!r} if user == {USER!r} else None

    def check_token(self, session, user, token):
        return token == {TOKEN!r} and (user or {USER!r})

    def check_certificate(self, session, authzid):
        (((_, name),),) = session.tls.peer["subject"]
        return name if authzid in ("", name) else None

    def on_message(self, envelope, message):
        for recipient in envelope.recipients:
            if recipient.local.startswith("defer"):
                recipient.defer(452, "4.2.2", "Mailbox full")
        session = envelope.session
        forwarded = session.forwarded
        row = {{
            "from": envelope.sender,
            "mail": shown(envelope.parameters),
            "to": {{each.address: shown(each.parameters) for each in envelope.recipients}},
            "user": session.user,
            "protocol": session.protocol,
            "peer": session.peer,
            "helo": session.helo,
            "proxy": session.proxy and session.proxy.version,
            "forwarded": forwarded and [forwarded.name, forwarded.address, forwarded.helo],
            "certificate": bool(session.tls and session.tls.peer),
            "content": message.content.decode("latin-1"),
        }}
        with open("taken", "a") as file:
            file.write(json.dumps(row) + "\\n")
        return "taken"
"""
NUMBERS = count(1)


class Peers:
    """One server with a listener of each kind, by name."""

    def __init__(self, live: Master, certificates: Certificates, binds: dict[str, str]) -> None:
        self.live, self.certificates = live, certificates
        # Port 0 is asked for more than once: the log has them in the order of the listeners.
        self.addresses = dict(zip(binds, live.all_addresses, strict=True))

    def port(self, name: str) -> str:
        return self.addresses[name].rpartition(":")[2]

    def taken(self, recipient: str) -> dict[str, Any]:
        """What the handler was given for `recipient`."""
        return taken(self.live, recipient)


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Peers]:
    directory = tmp_path_factory.mktemp("server")
    (directory / "inbox.py").write_text(CODE)
    binds = {"smtp": "smtp://127.0.0.1:0", "smtps": "smtps://127.0.0.1:0", "lmtp": "lmtp://127.0.0.1:0"}
    binds |= {"unix": f"lmtp+unix:{directory}/lmtp", "proxied": "smtp://127.0.0.1:0"}
    shared: dict[str, Any] = {
        "hostname": MAIN,
        "certfile": certificates.main.certfile,
        "keyfile": certificates.main.keyfile,
    }
    shared |= {"client_ca": certificates.ca, "max_errors": 0, "max_auth_failures": 0, "auth_failure_delay": 0.0}
    shared |= {"xclient": ["127.0.0.1", "unix"]}
    rows = [f"{key} = {json.dumps(value)}" for key, value in shared.items()]
    for name, bind in binds.items():
        rows += ["[[listen]]", f'bind = "{bind}"', 'proxy_protocol = ["127.0.0.1"]' if name == "proxied" else ""]
    (directory / "gsmtp.toml").write_text("\n".join(rows))
    live = Master(directory, ["inbox:Inbox", "-c", "gsmtp.toml"], 1)
    try:
        live.until_ready()
        yield Peers(live, certificates, binds)
        assert live.stop() == 0
        assert "Traceback" not in live.log, live.log
    finally:
        live.clean_up()


def box() -> str:
    """A recipient that nobody else has."""
    return f"box{next(NUMBERS)}@here.example"


def ran(*command: str, said: str = "", status: int = 0) -> str:
    """What a program prints, which must end with that status."""
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=30, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == status, text
    return text


# openssl s_client


class Typed:
    """A session by s_client, line by line. A context. `greet` is what stands in it for EHLO."""

    def __init__(self, peers: Peers, name: str, *options: str, greet: str = "EHLO c.example") -> None:
        command = [tool("openssl"), "s_client", "-connect", peers.addresses[name], "-quiet", "-verify_return_error"]
        command += ["-CAfile", peers.certificates.ca, "-verify_hostname", MAIN, "-servername", MAIN, *options]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        # With -starttls it shows some of what it has read itself.
        self.send(b"NOOP\r\n")
        while (line := self._line()) != "250 2.0.0 Ok":
            assert line
        self.extensions = self.ask(greet)

    def __enter__(self) -> Typed:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().removesuffix("\r\n")

    def reply(self) -> str:
        """The next reply, its lines joined by LF."""
        lines = [self._line()]
        while lines[-1][3:4] == "-":
            lines.append(self._line())
        return "\n".join(lines)

    def ask(self, line: str) -> str:
        self.send(f"{line}\r\n".encode())
        return self.reply()


KINDS = {
    "smtps": ("smtps", [], "EHLO c.example"),
    "STARTTLS": ("smtp", ["-starttls", "smtp"], "EHLO c.example"),
    "LMTP": ("lmtp", ["-starttls", "lmtp"], "LHLO c.example"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_types_every_extension(peers: Peers, kind: str) -> None:
    name, options, greet = KINDS[kind]
    to = box()
    whole = "MAIL FROM:<a@c.example> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb "
    whole += "REQUIRETLS MT-PRIORITY=-3 BY=120;RT"
    with Typed(peers, name, *options, greet=greet) as typed:
        lines = typed.extensions.split("\n")[1:]
        announced = {line[4:].partition(" ")[0] for line in lines}
        usual = {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "XCLIENT", "XFORWARD", "AUTH"}
        binary = {"CHUNKING", "BINARYMIME"} if kind != "LMTP" else set()
        assert announced == usual | binary | {"LIMITS", "DSN", "REQUIRETLS", "MT-PRIORITY", "DELIVERBY"}
        assert any("LIMITS RCPTMAX=1000 MAILMAX=10000" in line for line in lines)
        assert typed.ask("MAIL FROM:<a@c.example> SIZE=99999999999").startswith("552 5.3.4")
        assert typed.ask("MAIL FROM:<a@c.example> XYZ=1").startswith("555 5.5.4")
        assert typed.ask("XFORWARD NAME=client.example ADDR=192.0.2.7 HELO=h.example") == "250 2.0.0 Ok"
        rcpt = f"RCPT TO:<{to}> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+2Bname@old.example"
        typed.send(f"{whole}\r\n{rcpt}\r\nDATA\r\n".encode())
        assert [typed.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
        assert typed.ask("Subject: typed\r\n\r\n..dot\r\n.") == "250 2.0.0 taken"
        row = peers.taken(to)
        assert row["content"] == "Subject: typed\r\n\r\n.dot\r\n"
        assert row["forwarded"] == ["client.example", "192.0.2.7", "h.example"]
        assert row["mail"] == {
            "SIZE": "100",
            "BODY": "8BITMIME",
            "SMTPUTF8": "True",
            "RET": "HDRS",
            "ENVID": "a+b",
            "REQUIRETLS": "True",
            "MT-PRIORITY": "-3",
            "BY": "DeliverBy(seconds=120, mode=<ByMode.RETURN: 'R'>, trace=True)",
        }
        assert row["to"][to]["NOTIFY"] == "DELAY SUCCESS"
        assert "old+name@old.example" in row["to"][to]["ORCPT"]
        assert row["protocol"] == ("LMTPS" if kind == "LMTP" else "ESMTPS")
        if binary:
            to = box()
            typed.send(f"MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<{to}>\r\n".encode())
            typed.send(b"BDAT 7\r\n\0\n\r\n.\r\nBDAT 4 LAST\r\nQUIT")
            assert [typed.reply()[:3] for _ in range(4)] == ["250"] * 4
            assert peers.taken(to)["content"] == "\0\n\r\n.\r\nQUIT"
        assert typed.ask("XCLIENT ADDR=192.0.2.9 PORT=99 LOGIN=bob HELO=x.example PROTO=ESMTP").startswith("220 ")
        assert typed.ask(greet).startswith("250")
        to = box()
        for line in ("MAIL FROM:<>", f"RCPT TO:<{to}>", "DATA"):
            typed.ask(line)
        assert typed.ask(".") == "250 2.0.0 taken"
        row = peers.taken(to)
        assert (row["peer"], row["user"], row["forwarded"]) == (["192.0.2.9", 99], "bob", None)
        assert typed.ask("QUIT") == "221 2.0.0 Bye"


@pytest.mark.parametrize("mechanism", sasl.MECHANISMS)
@pytest.mark.parametrize("kind", KINDS)
def test_openssl_types_every_mechanism(peers: Peers, kind: str, mechanism: str) -> None:
    name, options, greet = KINDS[kind]
    pair = peers.certificates.client
    der = subprocess.run(
        [tool("openssl"), "x509", "-in", peers.certificates.main.certfile, "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    with Typed(peers, name, *options, "-cert", pair.certfile, "-key", pair.keyfile, greet=greet) as typed:
        (offered,) = re.findall(r"(?m)^250-AUTH (.*)$", typed.extensions)
        assert set(offered.split()) == set(sasl.MECHANISMS)
        context = sasl.ClientContext(
            user=USER,
            password=PASSWORD,
            token=TOKEN,
            host=MAIN,
            port=25,
            offered=tuple(offered.split()),
            channel_bindings={"tls-server-end-point": hashlib.sha256(der).digest()},
        )
        exchange = sasl.MECHANISMS[mechanism].client(context)
        step = sasl.advance(exchange)
        assert isinstance(step, sasl.Response)
        initial = "" if step.data is None else f" {sasl.encode_initial(step.data)}"
        reply = typed.ask(f"AUTH {mechanism}{initial}")
        while reply.startswith("334"):
            step = sasl.advance(exchange, sasl.decode(reply[4:]))
            assert isinstance(step, sasl.Response) and step.data is not None
            reply = typed.ask(sasl.encode(step.data))
        assert reply == "235 2.7.0 Authentication successful"
        assert sasl.advance(exchange) is None


# swaks


def swaks(peers: Peers, name: str, *options: str) -> str:
    perl = tool("perl")
    for module, package in {"Net::SSLeay": "libnet-ssleay-perl", "Authen::SASL": "libauthen-sasl-perl"}.items():
        if subprocess.run([perl, f"-M{module}", "-e1"], capture_output=True, check=False).returncode:
            pytest.skip(f"swaks cannot do this: {module} is not installed (Debian: {package})")
    where = ["--server", "127.0.0.1", "--port", peers.port(name)]
    if peers.addresses[name].startswith("/"):
        where = ["--socket", peers.addresses[name]]
    return ran(tool("swaks"), *where, "--helo", "c.example", "--data", "Subject: swaks\\n\\nbody\\n", *options)


@pytest.mark.parametrize("name", ["smtp", "smtps", "lmtp"])
def test_swaks_with_parameters(peers: Peers, name: str) -> None:
    """It puts what it is given between the brackets, and ">" may stand at the end of xtext."""
    to = box()
    parameters = "REQUIRETLS MT-PRIORITY=4 BY=99;N RET=FULL SIZE=99 BODY=8BITMIME ENVID=1"
    options = ["--tls-on-connect" if name == "smtps" else "--tls", "--pipeline"]
    options += ["--protocol", "LMTP"] if name == "lmtp" else []
    text = swaks(
        peers, name, *options, "--from", f"a@c.example> {parameters}", "--to", f"{to}> NOTIFY=NEVER ORCPT=rfc822;b@c.d"
    )
    assert "250 2.0.0 taken" in text
    row = peers.taken(to)
    assert (row["mail"]["ENVID"], row["mail"]["MT-PRIORITY"], row["mail"]["RET"]) == ("1>", "4", "FULL")
    assert row["to"][to]["NOTIFY"] == "NEVER"


def test_swaks_with_a_client_certificate(peers: Peers) -> None:
    to, pair = box(), peers.certificates.client
    swaks(peers, "smtp", "--tls", "--tls-cert", pair.certfile, "--tls-key", pair.keyfile, "--to", to, "--from", "a@c.d")
    assert peers.taken(to)["certificate"]


@pytest.mark.parametrize("name", ["smtp", "smtps", "lmtp", "unix"])
def test_swaks_with_xclient(peers: Peers, name: str) -> None:
    to = box()
    options = {"smtps": ["--tls-on-connect"], "smtp": ["--xclient-before-starttls", "--tls"]}
    xclient = ["--xclient", "ADDR=192.0.2.9 PORT=99 NAME=client.example LOGIN=bob"]
    protocol = ["--protocol", "LMTP"] if name in ("lmtp", "unix") else []
    swaks(peers, name, *options.get(name, []), *protocol, *xclient, "--to", to, "--from", "a@c.example")
    row = peers.taken(to)
    # Who was logged in is forgotten with STARTTLS; whose connection it is is not.
    assert (row["peer"], row["user"]) == (["192.0.2.9", 99], None if name == "smtp" else "bob")


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("tls", [[], ["--tls"]], ids=["plain", "STARTTLS"])
def test_swaks_with_a_proxy_header(peers: Peers, version: str, tls: list[str]) -> None:
    to = box()
    proxy = ["--proxy-version", version, "--proxy-family", "TCP4" if version == "1" else "AF_INET"]
    proxy += ["--proxy-source", "192.0.2.7", "--proxy-source-port", "4711"]
    proxy += ["--proxy-dest", "192.0.2.1", "--proxy-dest-port", "25"]
    proxy += ["--proxy-protocol", "STREAM"] if version == "2" else []
    swaks(peers, "proxied", *proxy, *tls, "--to", to, "--from", "a@c.example")
    row = peers.taken(to)
    assert (row["peer"], row["proxy"]) == (["192.0.2.7", 4711], int(version))


# msmtp, curl, gsasl


@pytest.mark.parametrize(
    "mechanism", ["plain", "login", "cram-md5", "scram-sha-256", "external", "oauthbearer", "xoauth2"]
)
@pytest.mark.parametrize("name", ["smtp", "smtps"])
def test_msmtp(peers: Peers, mechanism: str, name: str) -> None:
    to, pair = box(), peers.certificates.client
    secret = TOKEN if mechanism in ("oauthbearer", "xoauth2") else PASSWORD
    options = [tool("msmtp"), "--host=127.0.0.1", f"--port={peers.port(name)}", "--tls=on", "--from=a@c.example"]
    options += [f"--tls-trust-file={peers.certificates.ca}", f"--tls-host-override={MAIN}", "--file=/dev/null"]
    options += [f"--tls-starttls={'on' if name == 'smtp' else 'off'}", f"--user={USER}", f"--auth={mechanism}"]
    options += [f"--passwordeval=printf %s '{secret}'", "--dsn-notify=failure,delay", "--dsn-return=headers"]
    if mechanism == "external":
        options += [f"--tls-cert-file={pair.certfile}", f"--tls-key-file={pair.keyfile}"]
    ran(*options, "--", to, said="Subject: msmtp\n\n.dot\n")
    row = peers.taken(to)
    assert (row["user"], row["protocol"], row["mail"]["RET"]) == (USER, "ESMTPSA", "HDRS")
    assert row["to"][to]["NOTIFY"] == "DELAY FAILURE"
    assert row["content"].endswith("Subject: msmtp\r\n\r\n.dot\r\n")


def test_msmtp_as_an_lmtp_client(peers: Peers) -> None:
    to = box()
    options = [tool("msmtp"), "--host=127.0.0.1", f"--port={peers.port('lmtp')}", "--protocol=lmtp", "--file=/dev/null"]
    ran(*options, "--from=a@c.example", "--", to, said="Subject: msmtp\n\nbody\n")
    assert peers.taken(to)["protocol"] == "LMTP"
    text = ran(*options, "--from=a@c.example", "--", box(), "defer@here.example", said="x: y\n\nbody\n", status=69)
    assert "452 4.2.2 Mailbox full" in text


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "EXTERNAL", "OAUTHBEARER", "XOAUTH2"])
@pytest.mark.parametrize("name", ["smtp", "smtps"])
def test_curl(peers: Peers, tmp_path: Path, mechanism: str, name: str) -> None:
    to, pair, mail = box(), peers.certificates.client, tmp_path / "mail"
    mail.write_bytes(b"Subject: curl\r\n\r\n.dot\r\n")
    options = [tool("curl"), "--silent", "--show-error", "--connect-to", f"::127.0.0.1:{peers.port(name)}"]
    options += [f"{name}://{MAIN}/c.example", "--cacert", peers.certificates.ca, "--ssl-reqd"]
    options += ["--mail-from", "a@c.example", "--mail-rcpt", to, "--upload-file", str(mail)]
    options += ["--login-options", f"AUTH={mechanism}"]
    if mechanism == "EXTERNAL":
        options += ["--user", f"{USER}:", "--cert", pair.certfile, "--key", pair.keyfile]
    elif mechanism in ("OAUTHBEARER", "XOAUTH2"):
        options += ["--user", f"{USER}:", "--oauth2-bearer", TOKEN]
    else:
        options += ["--user", f"{USER}:{PASSWORD}"]
    ran(*options)
    row = peers.taken(to)
    assert (row["user"], row["protocol"], row["content"]) == (USER, "ESMTPSA", "Subject: curl\r\n\r\n.dot\r\n")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])
def test_gsasl(peers: Peers, mechanism: str) -> None:
    options = [tool("gsasl"), "--smtp", f"--connect=127.0.0.1:{peers.port('smtp')}", f"--mechanism={mechanism}"]
    options += [f"--authentication-id={USER}", f"--password={PASSWORD}", "--x509-ca-file="]
    # It checks the certificate for the address that it connects to, unless told to take any.
    # tls-unique, which it binds to, is not for TLS 1.3, and tls-exporter is beyond Python's ssl.
    options += [
        "--priority=NORMAL:-VERS-TLS1.3",
        f"--hostname={MAIN}",
        f"--authorization-id={USER}",
        "--no-cb",
    ]
    if mechanism.endswith("-PLUS"):
        options.remove("--no-cb")
    text = ran(*options)
    assert "235 2.7.0 Authentication successful" in text


# dovecot


@pytest.fixture(scope="module")
def dovecot(peers: Peers) -> Iterator[Dovecot]:
    to = f"proxy=y host=127.0.0.1 port={peers.port('lmtp')} protocol=lmtp nopassword=y"
    users = {f"{each}@here.example": to for each in ("proxied", "defer", "other")}
    users["secure@here.example"] = f"{to} starttls=any-cert"
    with Dovecot(users, "", peers.certificates.ca) as dovecot:
        yield dovecot


def test_dovecot_as_an_lmtp_proxy(peers: Peers, dovecot: Dovecot) -> None:
    with smtplib.LMTP("127.0.0.1", dovecot.lmtp, "c.example") as client:
        client.ehlo_or_helo_if_needed()
        client.mail("a@c.example")
        for who in ("proxied", "defer", "other"):
            assert client.rcpt(f"{who}@here.example")[0] == 250
        first = client.data("Subject: by Dovecot\r\n\r\n.dot\r\n")
        assert [first[0], client.getreply()[0], client.getreply()[0]] == [250, 452, 250], dovecot.log
    row = peers.taken("proxied@here.example")
    assert row["protocol"] == "LMTP", dovecot.log
    assert row["content"].endswith("Subject: by Dovecot\r\n\r\n.dot\r\n")


def test_dovecot_as_an_lmtp_proxy_under_tls(peers: Peers, dovecot: Dovecot) -> None:
    with smtplib.LMTP("127.0.0.1", dovecot.lmtp, "c.example") as client:
        client.sendmail("a@c.example", ["secure@here.example"], "Subject: by Dovecot\r\n\r\nbody\r\n")
    assert peers.taken("secure@here.example")["protocol"] == "LMTPS", dovecot.log


class Tap:
    """Hands one connection on to `port` at a time, and keeps what the client has sent. A context."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.said = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Tap:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(20)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(("127.0.0.1", self._to), timeout=20) as server:
                    self._hand_on(client, server)

    def _hand_on(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for sock in select.select([client, server], [], [], 20)[0]:
                data = sock.recv(65536)
                if not data:
                    return
                if sock is client:
                    self.said += data
                (server if sock is client else client).sendall(data)


@pytest.mark.parametrize("trusted", [False, True], ids=["STARTTLS and AUTH", "XCLIENT and BDAT"])
def test_dovecot_as_a_relay(peers: Peers, trusted: bool) -> None:
    """It sends BDAT wherever that is offered, and XCLIENT, with the user it knows, to whom it is told to trust."""
    content = "Subject: by Dovecot\r\n\r\n.dot\r\n" + f"{'x' * 70}\r\n" * 3000
    to = box()
    with Tap(int(peers.port("smtp"))) as tap:
        relay = ["submission_relay_host = 127.0.0.1", f"submission_relay_port = {tap.port}"]
        if trusted:
            relay += ["submission_relay_ssl = no", "submission_relay_trusted = yes"]
        else:
            relay += ["submission_relay_ssl = starttls", "submission_relay_ssl_verify = no"]
            relay += [f"submission_relay_user = {USER}", f"submission_relay_password = {PASSWORD}"]
        with Dovecot({}, "\n".join(relay), peers.certificates.ca) as dovecot:
            with smtplib.SMTP("127.0.0.1", dovecot.submission, "c.example") as client:
                client.login(dovecot.USER, "anything")
                client.sendmail("a@c.example", [to], content, ["RET=HDRS", "ENVID=1"], ["NOTIFY=FAILURE"])
            row = peers.taken(to)
    assert row["content"].endswith(content)
    assert (row["mail"]["RET"], row["to"][to]["NOTIFY"]) == ("HDRS", "FAILURE")
    if trusted:
        assert (row["user"], row["protocol"]) == (dovecot.USER, "ESMTPA")
        assert re.search(rb"\r\nXCLIENT [^\r\n]*LOGIN=relay", tap.said), tap.said[:1000]
        assert re.search(rb"\r\nBDAT \d+( LAST)?\r\n", tap.said) and b"\r\nDATA" not in tap.said
    else:
        assert (row["user"], row["protocol"], row["mail"]["AUTH"]) == (USER, "ESMTPSA", dovecot.USER)
        assert b"\r\nSTARTTLS\r\n" in tap.said and b"AUTH" not in tap.said
