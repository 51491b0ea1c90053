"""What README.rst prints works as it is printed."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path

from certificates import Certificates
from harness.master import ROOT, Master, run
from harness.messages import stored

README = (ROOT / "README.rst").read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", README)]


def block(start: str) -> str:
    """The only literal block that begins so."""
    (found,) = [block for block in BLOCKS if block.startswith(start)]
    return found


def arguments(start: str) -> list[str]:
    """A command line, without the program's name and with any free port for a fixed one."""
    return shlex.split(block(start).replace(":25 ", ":0 "))[1:]


def test_the_handler(serve: Callable[..., Master]) -> None:
    given = arguments("gsmtp-master inbox:Inbox")
    assert given.pop(0) == "inbox:Inbox"
    assert given[-2:] == ["-w", "4"]
    code = block("# inbox.py")
    assert "class Inbox" in code
    live = serve(*given[:-2], code=code, workers=2, binds=[])  # four take long to start on a busy machine
    assert list(live.addresses) == ["smtp://[::]:0"]
    port = live.address.rpartition(":")[2]
    with live.connect(f"127.0.0.1:{port}") as talk:
        assert talk.deliver(b"x\r\n", "anna@example.net", "tickets@example.net").startswith("250 2.0.0")
        assert talk.deliver(b"x\r\n", "nobody@example.net") == "550 5.1.1 No such user here"


def test_a_box_for_each_address(serve: Callable[..., Master], tmp_path: Path) -> None:
    given = [each.replace("/var/mail", str(tmp_path / "mail")) for each in arguments("gsmtp-master -o")]
    live = serve(*given)
    with live.connect() as talk:
        assert talk.deliver(b"x\r\n", "anna@example.net").startswith("250")
        assert talk.begin("anna@elsewhere.example")[-1].startswith("550")
    assert len(stored(tmp_path / "mail" / "example.net" / "anna")) == 1


def test_the_file_of_settings(tmp_path: Path, certificates: Certificates) -> None:
    toml = block("# gsmtp.toml")
    assert "gsmtp-master -c gsmtp.toml" in toml
    toml = toml.replace("/etc/ssl/mx.pem", certificates.main.certfile)
    toml = toml.replace("/etc/ssl/mx.key", certificates.main.keyfile)
    for number in (25, 465):  # not for everybody
        toml = toml.replace(f'[::]:{number}"', '[::]:0"')
    (tmp_path / "gsmtp.toml").write_text(toml.replace("/run/", f"{tmp_path}/"))
    has_a_hook = "    def check_password(self, session, user, password): return False\n"
    (tmp_path / "inbox.py").write_text(block("# inbox.py").rstrip() + "\n\n" + has_a_hook)
    done = run("-c", "gsmtp.toml", "--check", directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_mail_as_an_object() -> None:
    lines = block("from gsmtp import mime").split("\n\n")
    names = {"raw": b"From: a@example.com\r\nSubject: Hello\r\n\r\ntext\r\n"}
    exec("\n".join(lines[:2]), names)
    mail = names["mail"]
    assert (mail.subject, mail.text) == ("Hello", "text\r\n")  # type: ignore[attr-defined]
