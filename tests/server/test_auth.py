"""AUTH over real TLS sockets: swaks, smtplib, and the client side of gsmtp's own mechanisms; and what goes wrong."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import smtplib
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from certificates import MAIN, Certificates, tool
from harness.client import Client
from harness.master import Master
from peerhandlers import PASSWORD, TOKEN, source

from gsmtp.protocol import sasl
from gsmtp.protocol.sasl import scram

Serve = Callable[..., Master]
USER = "alice@example.org"
WELCOME = "235 2.7.0 Authentication successful"
WRONG = "535 5.7.8 Authentication credentials invalid"
MALFORMED = "501 5.5.2 Malformed authentication data"
SETTINGS = {"hostname": MAIN, "auth_failure_delay": 0, "max_auth_failures": 0, "max_errors": 0}


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(user: str, password: str, authzid: str = "") -> str:
    return encoded(f"{authzid}\0{user}\0{password}")


@pytest.fixture
def serve_auth(serve: Serve, certificates: Certificates) -> Serve:
    """serve_auth("Login", max_errors=3, ...): smtp:// and smtps:// with that handler."""

    def serving(kind: str = "Login", **settings: object) -> Master:
        pair = certificates.main
        files = {"certfile": pair.certfile, "keyfile": pair.keyfile, "client_ca": certificates.ca}
        rows = [f"{key} = {json.dumps(value)}" for key, value in {**SETTINGS, **files, **settings}.items()]
        rows += ["[[listen]]", 'bind = "smtp://127.0.0.1:0"', "[[listen]]", 'bind = "smtps://127.0.0.1:0"']
        return serve(toml="\n".join(rows), code=source(kind))

    return serving


@pytest.fixture
def login(serve_auth: Serve) -> Master:
    return serve_auth()


def secure(live: Master, context: ssl.SSLContext, ehlo: bool = True) -> Client:
    """A client of the smtps listener."""
    return live.connect(live.addresses["smtps://127.0.0.1:0"], tls=context, ehlo=ehlo)


def user(talk: Client) -> object:
    """Who the handler takes the client for."""
    return json.loads(talk.ask("VRFY me").partition(" 2.0.0 ")[2])["user"]


def offered(talk: Client) -> tuple[str, ...]:
    (words,) = re.findall(r"(?m)^250[- ]AUTH (.*)$", talk.ask("EHLO client.example")) or [""]
    return tuple(words.split())


def drive(talk: Client, name: str, initial: bool = True, **known: object) -> str:
    """Log in by gsmtp's client side of that mechanism; the last reply. SaslError when the server does it wrong."""
    assert isinstance(talk.socket, ssl.SSLSocket)
    bindings: dict[str, bytes] = {}
    if talk.socket.version() == "TLSv1.2":
        unique = talk.socket.get_channel_binding("tls-unique")
        assert unique is not None
        bindings["tls-unique"] = unique
    certificate = talk.socket.getpeercert(binary_form=True)
    assert certificate is not None
    bindings["tls-server-end-point"] = hashlib.sha256(certificate).digest()
    wanted = {"user": USER, "password": PASSWORD, "token": TOKEN, **known}
    context = sasl.ClientContext(host=MAIN, port=465, offered=offered(talk), channel_bindings=bindings, **wanted)  # type: ignore[arg-type]
    exchange = sasl.MECHANISMS[name].client(context)
    first = sasl.advance(exchange)
    assert isinstance(first, sasl.Response)
    if first.data is not None and initial:
        reply = talk.ask(f"AUTH {name} {sasl.encode_initial(first.data)}")
    else:
        reply = talk.ask(f"AUTH {name}")
        if first.data is not None and reply.startswith("334"):
            assert reply == "334 "
            reply = talk.ask(sasl.encode(first.data))
    while reply.startswith("334"):
        step = sasl.advance(exchange, sasl.decode(reply[4:]))
        assert isinstance(step, sasl.Response) and step.data is not None
        reply = talk.ask(sasl.encode(step.data))
    if reply.startswith("235"):
        assert sasl.advance(exchange) is None
    return reply


# Settings of SCRAM


SCRAM = """\
from gsmtp import Handler
from gsmtp.protocol.sasl import ScramCredentials
class Inbox(Handler):
    def get_password(self, session, user, mechanism):
        if user == "stored": return ScramCredentials(b"its own salt", 5000, b"k" * 32, b"s" * 32)
        return "secret" if user == "known" else None
    def on_message(self, envelope, message): pass
"""


def challenge(talk: Client, user: str) -> dict[str, str]:
    """The server's first message, by letters; the exchange is given up then."""
    reply = talk.ask(f"AUTH SCRAM-SHA-256 {encoded(f'n,,n={user},r=abc')}")
    assert reply.startswith("334 ")
    assert talk.ask("*").startswith("501 ")
    return dict(part.split("=", 1) for part in sasl.decode(reply[4:]).decode().split(","))


def test_strangers_look_like_users_of_the_same_secret(serve: Serve) -> None:
    """By auth_secret and scram_iterations, after a restart and on another host too."""
    said: list[list[tuple[str, str]]] = []
    for secret in ("one", "one", "two"):
        quick = ("-s", "auth_failure_delay=0.0", "-s", "max_auth_failures=0", "-s", "scram_iterations=5000")
        live = serve(*quick, "-s", "auth_without_tls=true", "-s", f"auth_secret={secret}", code=SCRAM)
        with live.connect() as talk:
            found = [challenge(talk, name) for name in ("known", "stranger", "stored")]
            said.append([(each["s"], each["i"]) for each in found])
        assert live.stop() == 0
    assert said[0] == said[1]
    assert [one == two for one, two in zip(said[0], said[2], strict=True)] == [False, False, True]
    assert {iterations for each in said for _, iterations in each} == {"5000"}


def test_a_stranger_costs_no_more_than_stored_keys(serve: Serve) -> None:
    took = []
    for stored in ("true", "false"):
        clear = ("-s", "auth_without_tls=true", "-s", "auth_failure_delay=0.0", "-s", "scram_iterations=300000")
        live = serve(*clear, "-s", f"scram_stored_keys={stored}", code=SCRAM)
        with live.connect() as talk:
            began = time.monotonic()
            assert challenge(talk, "stranger")["i"] == "300000"
            took.append(time.monotonic() - began)
    assert took[0] < took[1] / 2


# Peers


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("option", ["--tls", "--tls-on-connect"])
def test_swaks(login: Master, mechanism: str, option: str) -> None:
    swaks = tool("swaks")
    modules = {"Net::SSLeay": "libnet-ssleay-perl", "Authen::SASL": "libauthen-sasl-perl"}
    modules["Digest::HMAC_MD5"] = "libdigest-hmac-perl"
    for module, package in modules.items():
        if subprocess.run(["perl", f"-M{module}", "-e1"], capture_output=True, check=False).returncode:
            pytest.skip(f"swaks cannot do this: {module} is not installed (Debian: {package})")
    name = f"smtp{'s' if option == '--tls-on-connect' else ''}://127.0.0.1:0"
    host, _, port = login.addresses[name].partition(":")
    base = [
        swaks,
        "--server",
        host,
        "--port",
        port,
        option,
        "--auth",
        mechanism,
        "--auth-user",
        USER,
        "--to",
        "b@h.example",
    ]
    for password, status in ((PASSWORD, 0), ("wrong", 28)):
        done = subprocess.run([*base, "--auth-password", password], capture_output=True, timeout=30, check=False)
        text = done.stdout.decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
        assert done.returncode == status, text
        assert (WELCOME if not status else WRONG) in text
        assert bool(re.search(r"250 2\.0\.0 \d+ \w{64} ESMTPSA", text)) is not bool(status)


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login", "auth_cram_md5"])
def test_smtplib(login: Master, certificates: Certificates, mechanism: str, initial: bool) -> None:
    host, _, port = login.addresses["smtps://127.0.0.1:0"].partition(":")
    context = certificates.context()
    context.check_hostname = False
    with smtplib.SMTP_SSL(host, int(port), timeout=30, context=context) as client:
        # smtplib sends passwords in ASCII alone.
        client.ehlo("c.example")
        client.user, client.password = USER, "wrong"
        name = mechanism.removeprefix("auth_").upper().replace("_", "-")
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.auth(name, getattr(client, mechanism), initial_response_ok=initial)
        assert refused.value.smtp_code == 535
        assert client.noop()[0] == 250


PASSWORD_MECHANISMS = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def test_every_mechanism(login: Master, certificates: Certificates, version: ssl.TLSVersion) -> None:
    """-PLUS binds to tls-unique under TLS 1.2, and to tls-server-end-point under 1.3."""
    context = certificates.context(certificates.client, version)
    for name, initial in itertools.product(sasl.MECHANISMS, (True, False)):
        with secure(login, context) as talk:
            assert set(offered(talk)) == set(sasl.MECHANISMS)
            assert drive(talk, name, initial) == WELCOME, name
            assert user(talk) == USER
            assert talk.ask("AUTH PLAIN").startswith("503 5.5.1"), name
            assert talk.deliver(b"x\r\n").endswith(" ESMTPSA")


def test_what_is_wrong_lets_nobody_in(login: Master, certificates: Certificates) -> None:
    with secure(login, certificates.context(certificates.client)) as talk:
        for name in PASSWORD_MECHANISMS:
            assert drive(talk, name, password=PASSWORD + "x") == WRONG
        for name in ("SCRAM-SHA-256", "CRAM-MD5"):
            assert drive(talk, name, user="unknown") == WRONG
        for name in ("XOAUTH2", "OAUTHBEARER"):
            assert drive_token(talk, name) == WRONG
        assert drive(talk, "EXTERNAL", authzid="bob@example.org") == WRONG
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD, 'bob@example.org')}") == WRONG
        assert user(talk) is None
        assert drive(talk, "SCRAM-SHA-256", user="stored") == WELCOME
        assert user(talk) == "stored"


def drive_token(talk: Client, name: str) -> str:
    """A refused token: the error is a challenge first, which is answered, and then the verdict comes."""
    context = sasl.ClientContext(user=USER, token="expired", host=MAIN, port=465)
    first = sasl.advance(sasl.MECHANISMS[name].client(context))
    assert isinstance(first, sasl.Response) and first.data is not None
    challenge = talk.ask(f"AUTH {name} {sasl.encode(first.data)}")
    assert challenge.startswith("334 ")
    assert json.loads(base64.b64decode(challenge[4:]))["status"] in ("401", "invalid_token")
    return talk.ask(encoded("\x01"))


def test_another_channel_cannot_be_bound_to(login: Master, certificates: Certificates) -> None:
    """Who stands in the middle has another TLS session on each side."""
    for version in VERSIONS:
        with secure(login, certificates.context(version=version)) as talk:
            for kind in ("tls-unique", "tls-server-end-point"):
                context = sasl.ClientContext(user=USER, password=PASSWORD, channel_bindings={kind: b"x" * 32})
                exchange = scram.scram_client(context, plus=True)
                first = sasl.advance(exchange)
                assert isinstance(first, sasl.Response) and first.data is not None
                reply = talk.ask(f"AUTH SCRAM-SHA-256-PLUS {sasl.encode(first.data)}")
                if reply.startswith("334"):
                    final = sasl.advance(exchange, sasl.decode(reply[4:]))
                    assert isinstance(final, sasl.Response) and final.data is not None
                    reply = talk.ask(sasl.encode(final.data))
                assert reply == WRONG
            assert user(talk) is None


# When it is offered


def test_never_in_clear(login: Master, certificates: Certificates) -> None:
    with login.connect() as talk:
        assert offered(talk) == ()
        for name in ("PLAIN", "LOGIN", "SCRAM-SHA-256", "XOAUTH2", "plain"):
            assert talk.ask(f"AUTH {name}").startswith("538 5.7.11"), name
            assert talk.ask(f"AUTH {name} {plain(USER, PASSWORD)}").startswith("538 5.7.11")
        for name in ("EXTERNAL", "NONE"):
            assert talk.ask(f"AUTH {name}")[0] == "5"
        # What a client sends nevertheless is not logged.
        assert talk.ask(plain(USER, PASSWORD)).startswith("500")
        assert talk.ask(f"AUTH\tPLAIN\t{plain(USER, PASSWORD)}").startswith("500")
        talk.secure(certificates.context())
        assert set(offered(talk)) == set(sasl.MECHANISMS) - {"EXTERNAL"}
        assert talk.ask("AUTH EXTERNAL =") == "504 5.5.4 Mechanism not offered"
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME
    login.wait_for_log(" disconnect ")
    assert plain(USER, PASSWORD).upper() not in login.log.upper()


def test_plus_is_offered_only_where_there_is_something_to_bind_to(
    serve_auth: Serve, certificates: Certificates
) -> None:
    """RFC 5929 4.1: of an Ed25519 certificate there is no tls-server-end-point, and TLS 1.3 has no tls-unique."""
    pair = certificates.ed25519
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with secure(serve_auth(certfile=pair.certfile, keyfile=pair.keyfile), context) as talk:
        assert set(offered(talk)) == set(sasl.MECHANISMS) - {"EXTERNAL", "SCRAM-SHA-256-PLUS"}
        assert talk.ask("AUTH SCRAM-SHA-256-PLUS") == "504 5.5.4 Mechanism not offered"
        # Bindings are what a client has who knows no better: "y", if it sees no -PLUS (RFC 5802 6).
        assert drive(talk, "SCRAM-SHA-256") == WELCOME


def test_in_clear_when_that_is_set(serve_auth: Serve) -> None:
    with serve_auth(auth_without_tls=True).connect() as talk:
        assert set(offered(talk)) == set(sasl.MECHANISMS) - {"EXTERNAL", "SCRAM-SHA-256-PLUS"}
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME
        assert talk.deliver(b"x\r\n").endswith(" ESMTPA")


def test_tls_forgets_who_logged_in_before(serve_auth: Serve, certificates: Certificates) -> None:
    with serve_auth(auth_without_tls=True, auth="required").connect() as talk:
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME
        assert user(talk) == USER
        talk.secure(certificates.context())
        assert talk.ask("MAIL FROM:<a@c.example>") == "530 5.7.0 Authentication required"
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME
        assert talk.deliver(b"x\r\n").endswith(" ESMTPSA")


def test_without_a_hook_there_is_no_auth(serve_auth: Serve, certificates: Certificates) -> None:
    with secure(serve_auth("Inbox"), certificates.context()) as talk:
        assert offered(talk) == ()
        assert talk.ask("AUTH PLAIN").startswith("500 5.5.1")


def test_required(serve_auth: Serve, certificates: Certificates) -> None:
    live = serve_auth(auth="required")
    with secure(live, certificates.context()) as talk:
        for command in ("MAIL FROM:<a@c.example>", "RCPT TO:<b@c.example>", "DATA", "VRFY me"):
            assert talk.ask(command) == "530 5.7.0 Authentication required"
        assert talk.ask(f"AUTH PLAIN {plain(USER, 'wrong')}") == WRONG
        assert talk.ask("MAIL FROM:<a@c.example>") == "530 5.7.0 Authentication required"
        assert talk.ask(f"auth plain {plain(USER, PASSWORD)}") == WELCOME
        assert talk.deliver(b"x\r\n").endswith(" ESMTPSA")
    with live.connect() as talk:
        assert talk.ask("MAIL FROM:<a@c.example>").startswith("530 5.7.0")


# What goes wrong


def refusals() -> Iterator[tuple[list[str], str]]:
    """What a client says, and the last reply."""
    for name in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"):
        yield [f"AUTH {name}", "*"], "501 5.7.0 Authentication cancelled"
        yield [f"AUTH {name}", "not base64!"], MALFORMED
        yield [f"AUTH {name}", "QUJD="], MALFORMED
        yield [f"AUTH {name}", "QUJD===="], MALFORMED
        yield [f"AUTH {name}", "\x80\xff"], MALFORMED
        yield [f"AUTH {name} !"], MALFORMED
    yield ["AUTH LOGIN", encoded(USER), "*"], "501 5.7.0 Authentication cancelled"
    for fields in ("", "\0", f"{USER}\0{PASSWORD}", f"\0{USER}\0{PASSWORD}\0", "\0" * 5, "\0\udcff"):
        yield [f"AUTH PLAIN {encoded(fields.encode('utf-8', 'surrogateescape')) or '='}"], MALFORMED
    for wrong in (f"\0{USER}\0", f"\0\0{PASSWORD}"):
        yield [f"AUTH PLAIN {encoded(wrong)}"], WRONG
    yield ["AUTH CRAM-MD5 QUJD"], MALFORMED
    yield ["AUTH CRAM-MD5", encoded("no digest")], MALFORMED
    yield ["AUTH SCRAM-SHA-256", encoded("n,,n=alice")], MALFORMED
    yield ["AUTH SCRAM-SHA-256", encoded("n,,n=alice,r=abc"), encoded("c=biws,r=other,p=" + "A" * 43 + "=")], WRONG
    yield ["AUTH"], "501 5.5.4 Syntax: AUTH mechanism [initial-response]"
    for name in ("GSSAPI", "DIGEST-MD5", "ſCRAM-SHA-256", "-", "PLAINX"):
        yield [f"AUTH {name}"], "504 5.5.4 Mechanism not offered"


def test_every_refusal_leaves_the_session_in_order(login: Master, certificates: Certificates) -> None:
    with secure(login, certificates.context()) as talk:
        for lines, reply in refusals():
            for line in lines[:-1]:
                assert talk.ask(line).startswith("334"), lines
            assert talk.ask(lines[-1]) == reply, lines
            assert talk.ask("NOOP") == "250 2.0.0 Ok", lines
        assert user(talk) is None
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME


def test_order(login: Master, certificates: Certificates) -> None:
    with secure(login, certificates.context(), ehlo=False) as talk:
        assert talk.ask("AUTH PLAIN").startswith("503 5.5.1")
        assert talk.ask("HELO c.example").startswith("250")
        assert talk.ask("AUTH PLAIN").startswith("503 5.5.1")
        assert talk.ask("EHLO c.example").startswith("250")
        talk.begin()
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == "503 5.5.1 Not within a transaction"
        assert talk.content(b"x\r\n").endswith(" ESMTPS")
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == "503 5.5.1 Authenticated already"
        assert user(talk) == USER
        assert talk.ask("EHLO c.example").startswith("250")
        assert user(talk) == USER


def test_lines_of_an_exchange(serve_auth: Serve, certificates: Certificates) -> None:
    """RFC 4954 4: 12288 octets, whatever commands may have; one more is refused, and the session goes on."""
    live = serve_auth(max_line_length=512)
    long = "x" * (sasl.MAX_LINE // 4 * 3 - len(USER) - 3)
    with secure(live, certificates.context()) as talk:
        assert talk.ask("AUTH XOAUTH2").startswith("334")
        token = f"user={USER}\x01auth=Bearer {'a' * 8000}\x01\x01"
        assert talk.ask(encoded(token)).startswith("334 ")
        assert talk.ask("") == WRONG
        for octets in (sasl.MAX_LINE, sasl.MAX_LINE + 4, 100_000):
            assert talk.ask("AUTH PLAIN").startswith("334")
            line = plain(USER, long + "x" * (octets - sasl.MAX_LINE))
            reply = talk.ask(line)
            assert reply == (
                MALFORMED if octets == sasl.MAX_LINE else "500 5.5.6 Authentication exchange line too long"
            )
            assert talk.ask("NOOP").startswith("250")
        # Afterwards commands have their own limit again.
        assert talk.ask("NOOP " + "x" * 600) == "500 5.5.2 Line too long"
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME
        assert talk.ask("NOOP " + "x" * 600) == "500 5.5.2 Line too long"


def test_pipelined(login: Master, certificates: Certificates) -> None:
    with secure(login, certificates.context()) as talk:
        lines = ["AUTH LOGIN", encoded(USER), encoded("wrong"), "AUTH LOGIN", "*", f"AUTH LOGIN {encoded(USER)}"]
        talk.send("\r\n".join([*lines, encoded(PASSWORD), "MAIL FROM:<a@c.example>", "QUIT", ""]))
        codes = [talk.reply()[:3] for _ in range(9)]
        assert codes == ["334", "334", "535", "334", "501", "334", "235", "250", "221"]
        assert talk.reply() == ""


def test_too_many_failures(serve_auth: Serve, certificates: Certificates) -> None:
    live = serve_auth(max_auth_failures=3)
    for bad in (f"AUTH PLAIN {plain(USER, 'wrong')}", "AUTH PLAIN\r\n*"):
        with secure(live, certificates.context()) as talk:
            replies = []
            for _ in range(3):
                talk.send(f"{bad}\r\n")
                replies += [talk.reply() for _ in bad.split("\n")]
            assert replies[-1] == "421 4.7.0 Too many failed attempts"
            assert talk.reply() == ""
    # A session of its own begins anew.
    with secure(live, certificates.context()) as talk:
        assert talk.ask(f"AUTH PLAIN {plain(USER, 'wrong')}") == WRONG
        assert talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME


def test_the_delay_is_that_of_one_session(serve_auth: Serve, certificates: Certificates) -> None:
    live = serve_auth(auth_failure_delay=2)
    with secure(live, certificates.context()) as slow, secure(live, certificates.context()) as quick:
        began = time.monotonic()
        slow.send(f"AUTH PLAIN {plain(USER, 'wrong')}\r\n")
        assert quick.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}") == WELCOME
        for _ in range(50):
            assert quick.ask("VRFY me").startswith("250")
        slow.socket.setblocking(False)
        with pytest.raises((BlockingIOError, ssl.SSLWantReadError)):
            slow.socket.recv(1)
        between = time.monotonic() - began
        slow.socket.settimeout(30)
        assert slow.reply() == WRONG
        assert between < 2 <= time.monotonic() - began + 0.05


# Hooks that fail


def test_what_a_hook_raises(login: Master, certificates: Certificates) -> None:
    context = certificates.context(certificates.client)
    with secure(login, context) as talk:
        for name in ("PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"):
            assert drive(talk, name, user="reject") == "535 5.7.8 In words of its own"
            assert drive(talk, name, user="defer") == "454 4.7.0 Come again"
            reply = drive(talk, name, user="value-error")
            reference = re.fullmatch(r"454 4\.7\.0 Temporary authentication failure \[(\w+)\]", reply)
            assert reference is not None, reply
            login.wait_for_log(reference[1])
        assert drive(talk, "EXTERNAL", authzid="reject") == "535 5.7.8 In words of its own"
        assert user(talk) is None
        assert drive(talk, "PLAIN", user="disconnect") == "421 4.7.0 Go away"
        assert talk.reply() == ""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_passwords_are_nowhere(serve_auth: Serve, certificates: Certificates, log_format: str) -> None:
    """Not in the log, not in a traceback that holds them, not in a reply."""
    live = serve_auth(log_format=log_format, log_level="debug")
    said = []
    passwords = {PASSWORD: PASSWORD, "long": "sixteen letters " * 250, "token": "a-token-that-is-long"}
    with secure(live, certificates.context()) as talk:
        for password in (PASSWORD, passwords["long"]):
            for who, name in itertools.product((USER, "value-error", "encode", "reject", "defer"), ("PLAIN", "LOGIN")):
                if who != USER:
                    said.append(drive(talk, name, password=password, user=who, initial=False))
            said.append(talk.ask(f"AUTH PLAIN {plain('bob', password)}"[:4000]))
            said.append(talk.ask(f"AUTH NONE {plain('bob', password)}"[:4000]))
            said.append(talk.ask(plain("bob", password)[:4000]))
            if talk.ask("RSET").startswith("250") and user(talk):
                talk.close()
                talk = secure(live, certificates.context())
        for name in ("XOAUTH2", "OAUTHBEARER"):
            said.append(drive(talk, name, user="value-error", token=passwords["token"]))
        talk.ask("QUIT")
    live.wait_for_log("reason.*quit")
    whole = live.log + "\n".join(said)
    assert whole.count("[secret]") > 10
    for word in (
        "sëcret",
        "s\\xebcret",
        "s\\u00ebcret",
        "s\\xc3\\xabcret",
        "東京",
        "\\u6771",
        "sixteen",
        *passwords.values(),
    ):
        assert word not in whole, word
    for password in passwords.values():
        assert encoded(password) not in whole
        assert plain("bob", password)[8:40].upper() not in whole.upper()
    assert not any("value-error" in reply or "Error" in reply for reply in said)


def test_an_answer_of_the_wrong_type_lets_nobody_in(serve_auth: Serve, certificates: Certificates) -> None:
    live = serve_auth("WrongTypes")
    with secure(live, certificates.context(certificates.client)) as talk:
        for who in ("coroutine", "text", "one", "list"):
            assert drive(talk, "PLAIN", user=who).startswith("454 4.7.0 Temporary authentication failure [")
        for name in ("LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"):
            assert drive(talk, name, user="text").startswith("454 4.7.0 Temporary authentication failure ["), name
        assert talk.ask("VRFY me").startswith("252")
        assert talk.deliver(b"x\r\n").startswith("250")
    live.wait_for_log(" disconnect ")
    assert live.log.count("hook failed") == 11
    assert "secret of the handler" not in live.log and "sëcret" not in live.log


def test_names_of_mechanisms_in_any_case(login: Master, certificates: Certificates) -> None:
    for name in ("plain", "Plain", "pLAIN"):
        with secure(login, certificates.context()) as talk:
            assert talk.ask(f"aUTH {name} {plain(USER, PASSWORD)}") == WELCOME


LEAKING = f"""
from gsmtp import Handler, Reject

PASSWORD = {PASSWORD[::-1]!r}[::-1]

class Inbox(Handler):
    def check_password(self, session, user, password):
        if user == "refused":
            raise Reject(535, "5.7.8", f"Wrong: {{password}}, {{password!r}}")
        raise ValueError(f"no {{password}}")

    def get_password(self, session, user, mechanism):
        if user == "nested":
            try:
                int(PASSWORD)
            except ValueError as error:
                raise RuntimeError(f"of a row: {{PASSWORD[:4]}}") from error
        raise LookupError(PASSWORD)

    def check_token(self, session, user, token):
        raise ExceptionGroup(token, [ValueError(token)])

    def on_error(self, session, error):
        raise RuntimeError(f"cannot report {{error!r}}")

    def on_message(self, envelope, message):
        return None
"""


GOES_ON = """
from gsmtp import Handler

class Inbox(Handler):
    def on_command(self, session, verb, argument):
        raise ValueError(f"what is {verb!r}")

    def check_password(self, session, user, password):
        return False

    def on_message(self, envelope, message):
        return None
"""


def test_what_follows_a_refused_auth_is_in_no_log(serve: Serve) -> None:
    """A client that does not wait for the answers of LOGIN sends the password as if it were a command."""
    live = serve("-s", "auth_without_tls=true", "-s", "auth_failure_delay=0.0", code=GOES_ON)
    failed = r"451 4\.3\.0 Internal error, try again later \[\w+\]"
    with live.connect() as talk:
        assert re.fullmatch(failed, talk.ask("XBEFORE"))
        for name in ("NONE", f"PLAIN {plain('bob', 'wrong')}"):
            assert talk.ask(f"AUTH {name}").startswith("5")
            assert re.fullmatch(failed, talk.ask(encoded(PASSWORD)))
        talk.ask("QUIT")
    live.wait_for_log("reason.*quit")
    assert live.log.count("hook failed") == 3 and "what is 'XBEFORE'" in live.log
    assert live.log.count("what is '[secret]'") == 2
    assert encoded(PASSWORD).upper() not in live.log.upper()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_reports_that_fail_tell_no_password_either(serve: Serve, log_format: str) -> None:
    """What on_error raises has the first exception behind it, and what get_password fetched is nowhere known."""
    live = serve(
        "-s", "auth_without_tls=true", "-s", "auth_failure_delay=0.0", "-s", "max_auth_failures=0",
        "--log-level", "debug", "-s", f"log_format={log_format}",
        code=LEAKING,
    )  # fmt: skip
    with live.connect() as talk:
        said = [talk.ask(f"AUTH PLAIN {plain(USER, PASSWORD)}")]
        for name in (USER, "nested"):
            talk.ask("AUTH CRAM-MD5")
            said.append(talk.ask(encoded(f"{name} {'0' * 32}")))
            said.append(talk.ask(f"AUTH SCRAM-SHA-256 {encoded(f'n,,n={name},r=abc')}"))
        said.append(talk.ask(f"AUTH XOAUTH2 {encoded(f'user=x{chr(1)}auth=Bearer {TOKEN}{chr(1) * 2}')}"))
        assert talk.ask(f"AUTH PLAIN {plain('refused', PASSWORD)}") == "535 5.7.8 Wrong: [secret], '[secret]'"
        talk.ask("QUIT")
    assert all(reply.startswith("454 4.7.0 Temporary authentication failure [") for reply in said), said
    live.wait_for_log("reason.*quit")
    log = live.log
    assert log.count("hook failed") == 12
    # Where it was, and of what kind, is told.
    for word in ("LookupError: [text withheld", "RuntimeError: [text withheld", "inbox.py", "[secret]"):
        assert word in log, word
    for word in (PASSWORD, PASSWORD[:4], "sëcret", "s\\xebcret", "s\\u00ebcret", TOKEN, encoded(PASSWORD)):
        assert word not in log, word
