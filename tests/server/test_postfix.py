"""A real Postfix delivers through us: SMTP with TLS, DSN, SMTPUTF8, 8BITMIME and XFORWARD, and LMTP, also on a socket.

Its smtp client never sends BDAT (CHUNKING is for its smtpd only); Dovecot's does, in test_peers.py. Exim's would too,
but its package cannot be installed beside Postfix, and its program alone wants the user that only the package makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from harness.master import Master
from harness.messages import taken
from harness.postfix import Postfix

CODE = """
import json, os
from gsmtp import Handler

def shown(parameters):
    return {key: " ".join(sorted(value)) if key == "NOTIFY" else str(value) for key, value in parameters.items()}

class Inbox(Handler):
    extensions = ("DSN",)

    def on_rcpt(self, envelope, recipient):
        recipient.state.kind = recipient.local.partition("+")[0]

    def on_message(self, envelope, message):
        for recipient in envelope.recipients:
            if recipient.state.kind == "reject":
                recipient.reject(550, "5.7.1", "Not for me")
            if recipient.state.kind == "defer":
                recipient.defer(452, "4.2.2", "Mailbox full")
        tls, forwarded = envelope.session.tls, envelope.session.forwarded
        row = {
            "from": envelope.sender,
            "to": {each.address: shown(each.parameters) for each in envelope.recipients},
            "mail": shown(envelope.parameters),
            "protocol": envelope.session.protocol,
            "forwarded": forwarded and [forwarded.name, forwarded.address, forwarded.helo, forwarded.source],
            "tls": tls and [tls.version, tls.server_name],
            "content": message.content.decode("utf-8", "surrogateescape"),
        }
        with open("taken", "a") as file:
            file.write(json.dumps(row) + "\\n")
        return "taken"
"""
CONTENT = b"Subject: by Postfix\r\n\r\n.dot\r\n" + b"x" * 900 + b"\r\n"


class Route:
    """One server, and one Postfix that brings it mail for smtp.example, lmtp.example and unix.example."""

    def __init__(self, live: Master, postfix: Postfix) -> None:
        self.live, self.postfix = live, postfix

    def taken(self, recipient: str) -> dict[str, Any]:
        """What the handler was given for `recipient`."""
        return taken(self.live, recipient)


@pytest.fixture(scope="module")
def route(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Route]:
    directory = tmp_path_factory.mktemp("server")
    (directory / "inbox.py").write_text(CODE)
    pair = certificates.main
    # A path that Postfix's own user may walk, and short enough for a socket.
    with Public() as public:
        certificate = [f"--certfile={pair.certfile}", f"--keyfile={pair.keyfile}", "--hostname=mx.example.org"]
        certificate += ["--set", 'xclient=["127.0.0.1", "unix"]']
        binds = ["smtp://127.0.0.1:0", "lmtp://127.0.0.1:0", f"lmtp+unix:{public}/lmtp"]
        live = Master(directory, ["inbox:Inbox", *certificate, *(f"-b={bind}" for bind in binds)], 2)
        try:
            live.until_ready()
            smtp, lmtp, _ = [live.addresses[bind].replace("127.0.0.1", "[127.0.0.1]") for bind in binds]
            where = {"smtp.example": f"smtp:{smtp}", "lmtp.example": f"lmtp:inet:{lmtp}"}
            where["unix.example"] = f"lmtp:unix:{public}/lmtp"
            copy = Path(public, "ca.pem")
            copy.write_bytes(Path(certificates.ca).read_bytes())
            tls = ["smtp_tls_security_level = secure", f"smtp_tls_CAfile = {copy}", "smtp_tls_loglevel = 1"]
            tls += ["smtp_send_xforward_command = yes", "lmtp_send_xforward_command = yes"]
            tls += ["smtp_tls_secure_cert_match = mx.example.org", "smtp_tls_servername = mx.example.org"]
            with Postfix(where, "\n".join(tls)) as postfix:
                yield Route(live, postfix)
            assert live.stop() == 0
            assert "Traceback" not in live.log
        finally:
            live.clean_up()


class Public:
    """A directory that everyone may walk. A context."""

    def __enter__(self) -> str:
        import tempfile

        self._directory = tempfile.TemporaryDirectory(prefix="gsmtp-")
        Path(self._directory.name).chmod(0o755)
        return self._directory.name

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()


def test_smtp_under_tls(route: Route) -> None:
    route.postfix.send(CONTENT, "b@smtp.example")
    assert route.postfix.delivered("b@smtp.example") == "sent (250 2.0.0 taken)"
    row = route.taken("b@smtp.example")
    assert row["protocol"] == "ESMTPS"
    assert row["tls"] == ["TLSv1.3", "mx.example.org"]
    assert row["from"] == "a@client.example"
    assert row["content"].endswith(CONTENT.decode())
    assert "Verified TLS connection established to 127.0.0.1" in route.postfix.log
    # Its pipelining, and what it knows of us:
    assert int(row["mail"]["SIZE"]) >= len(CONTENT)


@pytest.mark.parametrize("domain", ["smtp.example", "lmtp.example", "unix.example"])
def test_xforward(route: Route, domain: str) -> None:
    route.postfix.send(CONTENT, f"forward@{domain}")
    row = route.taken(f"forward@{domain}")
    # Postfix was told to look up no names.
    assert row["forwarded"] == [None, "127.0.0.1", "inject.example", "REMOTE"]


def test_the_null_reverse_path(route: Route) -> None:
    route.postfix.send(CONTENT, "null@smtp.example", sender="")
    assert route.taken("null@smtp.example")["from"] == ""


def test_many_recipients(route: Route) -> None:
    names = [f"user{number}@smtp.example" for number in range(50)]
    route.postfix.send(CONTENT, *names)
    for name in names:
        assert route.postfix.delivered(name).startswith("sent (250")
    assert sorted(route.taken(names[0])["to"]) == sorted(names)


def test_dsn(route: Route) -> None:
    parameters = ["RET=HDRS", "ENVID=QQ+2B1"]
    rcpt = ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Old+2BName@old.example"]
    route.postfix.send(CONTENT, "dsn@smtp.example", mail=parameters, rcpt=rcpt)
    assert route.postfix.delivered("dsn@smtp.example").startswith("sent (250")
    row = route.taken("dsn@smtp.example")
    assert row["mail"]["RET"] == "HDRS"
    assert row["mail"]["ENVID"] == "QQ+1"
    assert row["to"]["dsn@smtp.example"]["NOTIFY"] == "DELAY SUCCESS"
    assert "Old+Name@old.example" in row["to"]["dsn@smtp.example"]["ORCPT"]


def test_smtputf8_and_eight_bits(route: Route) -> None:
    content = "Subject: Grüße\r\n\r\n東京\r\n".encode()
    route.postfix.send(content, "ünï@smtp.example", sender="jürgen@client.example", mail=["SMTPUTF8", "BODY=8BITMIME"])
    assert route.postfix.delivered("ünï@smtp.example").startswith("sent (250"), route.postfix.log
    row = route.taken("ünï@smtp.example")
    assert row["from"] == "jürgen@client.example"
    assert row["mail"]["SMTPUTF8"] == "True" and row["mail"]["BODY"] == "8BITMIME"
    assert row["content"].endswith(content.decode())


def test_a_big_message(route: Route) -> None:
    content = b"Subject: big\r\n\r\n" + (b"." * 70 + b"\r\n") * 70_000
    route.postfix.send(content, "big@smtp.example")
    assert route.postfix.delivered("big@smtp.example").startswith("sent (250")
    assert route.taken("big@smtp.example")["content"].endswith(content.decode())


@pytest.mark.parametrize("domain", ["lmtp.example", "unix.example"])
def test_lmtp(route: Route, domain: str) -> None:
    """Each recipient has its own fate."""
    people = [f"{name}@{domain}" for name in ("b", "reject", "defer", "c")]
    route.postfix.send(CONTENT, *people)
    said = [route.postfix.delivered(each) for each in people]
    assert said[0] == said[3] == "sent (250 2.0.0 taken)"
    assert said[1].startswith("bounced (host ") and "550 5.7.1 Not for me" in said[1]
    assert said[2].startswith("deferred (host ") and "452 4.2.2 Mailbox full" in said[2]
    row = route.taken(people[0])
    assert row["protocol"].startswith("LMTP")
    assert sorted(row["to"]) == sorted(people)
