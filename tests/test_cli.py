"""gsmtp-master as a user starts it: what is wrong is said in one line, and what is right is done."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from live import Live, command, environment, run, stored, wait_for

from gsmtp import cli

FREE = ("-b", "smtp://127.0.0.1:0")
HANDLERS = {
    "syntax": ("class Inbox(:\n", "cannot load inbox:Inbox: ", "inbox.py, line 1: invalid syntax"),
    "import": ("import nonesuch\n", "cannot load inbox:Inbox", "nonesuch"),
    "raises": ("1 / 0\n", "cannot load inbox:Inbox: ZeroDivisionError", "inbox.py, line 1"),
    "exits": ("import sys\nsys.exit('bye')\n", "cannot load inbox:Inbox: SystemExit", "bye"),
    "many lines": ("raise ValueError('one\\ntwo\\x1b')\n", "cannot load inbox:Inbox: ValueError", "one two"),
    "no class": ("Outbox = 1\n", "cannot load inbox:Inbox", "Inbox"),
    "a function": ("def Inbox(): pass\n", "cannot load inbox:Inbox", "not a class"),
    "a number": ("Inbox = 3\n", "cannot load inbox:Inbox", "not a class"),
    "arguments": (
        "class Inbox:\n    def __init__(self, path): pass\n    def on_message(self, envelope, message): pass\n",
        "cannot make a inbox:Inbox: TypeError",
        "path",
    ),
    "constructor": (
        "class Inbox:\n    def __init__(self): {}['x']\n    def on_message(self, envelope, message): pass\n",
        "cannot make a inbox:Inbox: KeyError",
        "inbox.py, line 2",
    ),
    "no hook": ("class Inbox:\n    pass\n", "neither on_message nor on_data", ""),
    "misspelt": (
        "class Inbox:\n    def on_mesage(self, envelope, message): pass\n",
        "on_mesage is no hook; did you mean on_message?",
        "",
    ),
}


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that tells what is wrong; log lines of the master may stand around it."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("20")]
    assert len(lines) == 1, done.stderr
    assert lines[0].isprintable()
    return lines[0]


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line about settings that are wrong. No worker is started for them, so no process is here either."""
    assert cli.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    return line


@pytest.mark.parametrize(("fault", "mode"), [*((fault, "check") for fault in HANDLERS), ("raises", "run")])
def test_handlers(tmp_path: Path, fault: str, mode: str) -> None:
    code, *wanted = HANDLERS[fault]
    (tmp_path / "inbox.py").write_text(code)
    more = ["--check"] if mode == "check" else []
    done = run("inbox:Inbox", *FREE, *more, directory=tmp_path)
    line = complaint(done)
    for part in wanted:
        assert part in line
    if mode == "check":
        assert done.returncode == 1
        assert done.stderr.splitlines() == [line]


def test_a_missing_module(tmp_path: Path) -> None:
    done = run("nonesuch:Inbox", *FREE, directory=tmp_path)
    assert complaint(done) == "cannot load nonesuch:Inbox: No module named 'nonesuch'"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-b", "smtp://127.0.0.1:99999"), "bind smtp://127.0.0.1:99999: '99999' is no port"),
        (("-b", "http://127.0.0.1:25"), "unknown scheme 'http'"),
        (("-b", "smtp://::1:25"), "brackets around an IPv6 address"),
        (("-b", "smtp+unix://relative/socket"), "needs an absolute path"),
        (("-b", "smtp://127.0.0.1:2525", "-b", "127.0.0.1:2525"), "is given twice"),
        (("-b", "smtp://192.0.2.1:0"), "cannot bind smtp://192.0.2.1:0: Cannot assign requested address"),
        (("-b", "smtp+unix:/nonesuch/socket"), "cannot bind smtp+unix:/nonesuch/socket: No such file"),
        ((*FREE, "--hostname", "not a name"), "hostname is no domain name: 'not a name'"),
        ((*FREE, "--hostname", "x\r\ny"), "hostname is no domain name"),
        ((*FREE, "--set", "comand_timeout=3"), "unknown setting comand_timeout; did you mean command_timeout?"),
        ((*FREE, "--set", "command_timeout=soon"), "command_timeout must be a number, not 'soon'"),
        ((*FREE, "--set", "command_timeout=-1"), "command_timeout must be at least 0.1, not -1"),
        ((*FREE, "--set", "hide=PIPELINING"), "hide must be a list of texts"),
        ((*FREE, "--set", "novalue"), "--set novalue: KEY=VALUE is wanted"),
        ((*FREE, "-o", "3=4"), "cannot be an argument's name"),
        ((*FREE, "-w", "-1"), "workers must be at least 0, not -1"),
        ((*FREE, "not/a/class"), "handler class must be module:Class, not 'not/a/class'"),
        ((*FREE, "--user", "nonesuch-user"), "there is no user 'nonesuch-user'"),
        ((*FREE, "--group", "nonesuch-group"), "there is no group 'nonesuch-group'"),
        ((*FREE, "--log-file", "/nonesuch/log"), "log_file /nonesuch/log: No such file or directory"),
        ((*FREE, "--set", "chdir=/nonesuch"), "/nonesuch"),
        (("-c", "nonesuch.toml"), "nonesuch.toml: No such file or directory"),
        (("-c", "."), ".: Is a directory"),
    ],
)
def test_wrong_settings(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str) -> None:
    assert line in said(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-o", "nonesuch=1"), "cannot make a gsmtp.handlers.maildir:Maildir"),
        (("-o", "path=/{nonesuch}"), "placeholder"),
        (("-o", "path=/dev/null/x"), "the Maildir cannot be written: Not a directory"),
        (("--set", "spool_directory=/nonesuch"), "cannot write to the spool_directory /nonesuch: No such"),
        (("--set", "spool_memory=many"), "spool_memory must be a whole number, not 'many'"),
    ],
)
def test_what_only_a_worker_finds(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    assert line in complaint(run(*FREE, *arguments, directory=tmp_path))


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("workers = ", "gsmtp.toml: Invalid value (at end of document)"),
        ("worker = 2", "gsmtp.toml: unknown setting worker; did you mean workers?"),
        ("workers = 'two'", "gsmtp.toml: workers must be a whole number, not 'two'"),
        ("workers = true", "gsmtp.toml: workers must be a whole number, not True"),
        ("handler = 3", "gsmtp.toml: handler must be a table: [handler]"),
        ("listen = 3", "gsmtp.toml: listen must be tables: [[listen]]"),
        ("[[listen]]\nhostname = 'x'", "gsmtp.toml: listen 1: bind is missing"),
        ("[[listen]]\nbind = 'x:1'\nbnd = 2", "gsmtp.toml: listen 1: unknown setting bnd; did you mean bind?"),
        ("\xff", "gsmtp.toml: 'utf-8' codec can't decode"),
        ("drain_timeout = nan", "gsmtp.toml: drain_timeout must be"),
        ("drain_timeout = inf", "gsmtp.toml: drain_timeout must be"),
        ("[handler]\nclass = 3", "handler class must be module:Class, not 3"),
        (
            "[handler]\nclass = 'gsmtp.handlers.maildir:Maildir'\nsince = 2020-01-01",
            "gsmtp.toml: handler: since must not have",
        ),
    ],
)
def test_wrong_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], toml: str, line: str
) -> None:
    (tmp_path / "gsmtp.toml").write_bytes(toml.encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--check",)):
        assert line in said(capsys, "-c", "gsmtp.toml", *more)


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"smtp://127.0.0.1:{taken.getsockname()[1]}"
        done = run(*FREE, "-b", bind, directory=tmp_path)
    assert complaint(done) == f"gsmtp-master: cannot bind {bind}: Address already in use"


def test_a_socket_in_use(serve: Callable[..., Live], tmp_path: Path) -> None:
    live = serve(binds=["smtp+unix:{directory}/socket"])
    bind = f"smtp+unix:{live.address}"
    assert complaint(run("-b", bind, directory=tmp_path)).endswith(f"cannot bind {bind}: Address already in use")
    with live.connect() as talk:
        assert talk.deliver(b"x\r\n").startswith("250")


def test_no_right_to_bind(tmp_path: Path) -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
        if int(file.read()) <= 25:
            pytest.skip("everybody may bind port 25 here: net.ipv4.ip_unprivileged_port_start")
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
        may_import = subprocess.run(
            [*prefix, *command("--version")], env=environment(), cwd="/", capture_output=True, check=False
        )
        if may_import.returncode:
            pytest.skip("this checkout or interpreter cannot be read by nobody")
    done = subprocess.run(
        [*prefix, *command("-b", "smtp://127.0.0.1:25")],
        cwd="/",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert complaint(done) == "gsmtp-master: cannot bind smtp://127.0.0.1:25: Permission denied"


def test_check_is_content(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # nothing is bound in a check
        bind = f"smtp://127.0.0.1:{taken.getsockname()[1]}"
        done = run("--check", "-b", bind, "-o", "path=mail", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == "the settings and the handler are in order\n"
    assert list(tmp_path.iterdir()) == []


def test_help(tmp_path: Path) -> None:
    done = run("--help", directory=tmp_path, env={**environment(), "COLUMNS": "100"})
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 60
    for option in ("--bind", "--workers", "--config", "--option", "--set", "--check", "--settings", "TERM"):
        assert option in done.stdout


@pytest.mark.parametrize("arguments", [("--nonesuch",), ("-w", "two"), ("a:B", "c:D"), ("--log-level", "loud")])
def test_a_wrong_command_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, directory=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gsmtp-master: error: ")


OPTIONS = """\
from gsmtp import Handler
class Inbox(Handler):
    def __init__(self, **options): self.options = options
    def on_message(self, envelope, message): return repr(sorted(self.options.items()))
"""


def test_options_go_to_the_constructor(serve: Callable[..., Live]) -> None:
    toml = '[handler]\nclass = "inbox:Inbox"\nkind = "file"\nsize = 3\n[handler.deep]\nx = [1]\n'
    live = serve("-o", "kind=line", "-o", "path=/a=b", toml=toml, code=OPTIONS)
    with live.connect() as talk:
        wanted = [("deep", {"x": [1]}), ("kind", "line"), ("path", "/a=b"), ("size", 3)]
        assert talk.deliver(b"x\r\n") == f"250 2.0.0 {wanted!r}"


TWO = """\
workers = 1
max_message_size = 3000
[[listen]]
bind = "smtp://127.0.0.1:0"
hostname = "one.example"
max_message_size = 1000
max_recipients = 100
[[listen]]
bind = "smtp+unix:SOCKET"
hostname = "two.example"
hide = ["SIZE", "PIPELINING"]
mode = "0600"
command_timeout = 0.5
"""


def test_each_listener_has_its_own_settings(serve: Callable[..., Live], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    live = serve(toml=TWO.replace("SOCKET", str(path)), workers=2)
    assert path.stat().st_mode & 0o777 == 0o600
    with live.connect(greet=False) as one, live.connect(str(path), greet=False) as two:
        assert one.banner.startswith("220 one.example ")
        assert two.banner.startswith("220 two.example ")
        assert "SIZE 1000" in one.ask("EHLO c.example")
        assert "SIZE" not in (said := two.ask("EHLO c.example"))
        assert "PIPELINING" not in said
        content = b"x" * 2000 + b"\r\n"
        assert one.deliver(content).startswith("552 5.3.4")
        assert two.deliver(content).startswith("250")
        assert two.deliver(content * 2).startswith("552 5.3.4")
        recipients = [f"{number}@here.example" for number in range(101)]
        assert one.begin(*recipients)[-1].startswith("452")
        assert all(reply.startswith("250") for reply in two.begin(*recipients))
        assert two.reply().startswith("421 4.4.2")
        assert one.ask("NOOP").startswith("250")
    assert len(stored(live.directory / "maildir")) == 1


def test_the_command_line_wins(serve: Callable[..., Live], tmp_path: Path) -> None:
    toml = TWO.replace("SOCKET", str(tmp_path / "socket"))
    live = serve("--hostname", "three.example", max_message_size=2000, toml=toml, workers=3)
    assert len(live.workers()) == 3
    for address in live.addresses.values():
        with live.connect(address, greet=False) as talk:
            assert talk.banner.startswith("220 three.example ")
            if not address.startswith("/"):
                assert "SIZE 2000" in talk.ask("EHLO c.example")
    assert len(live.addresses) == 2
    other = serve("-b", "smtp://127.0.0.1:0", toml=toml)
    assert list(other.addresses) == ["smtp://127.0.0.1:0"]


def test_workers(serve: Callable[..., Live]) -> None:
    live = serve(workers=4)
    assert sorted(live.workers()) == [0, 1, 2, 3]
    wait_for(lambda: len(live.pids()) == 4, what="four processes")
