"""gsmtp-master as a user starts it: what is wrong is said in one line, and what is right is done."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from certificates import Certificates
from harness.master import Master, command, environment, run
from harness.messages import stored

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
    "async": (
        "class Inbox:\n    async def on_message(self, envelope, message): pass\n",
        "Inbox.on_message is async or yields; hooks are plain functions",
        "",
    ),
    "a generator": (
        "class Inbox:\n    def on_message(self, envelope, message): yield\n",
        "Inbox.on_message is async or yields",
        "",
    ),
    "no hook but a number": ("class Inbox:\n    on_message = 3\n", "Inbox.on_message must take (self, envelope", ""),
    "both": (
        "class Inbox:\n    def on_message(self, envelope, message): pass\n    on_data = on_message\n",
        "both on_message and on_data",
        "",
    ),
    "an unknown argument": (
        "class Inbox:\n    def on_message(self, envelope, message): pass\nInbox = Inbox(3)\n",
        "cannot load inbox:Inbox: TypeError",
        "",
    ),
    "an import error of two lines": (
        "raise ImportError('one\\ntwo')\n",
        "cannot load inbox:Inbox: one two (",
        "line 1",
    ),
    "an exception without a text": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E\n",
        "cannot load inbox:Inbox: E: its text cannot be had",
        "line 3",
    ),
    "a NUL": ("x = '\0'\n", "cannot load inbox:Inbox: ", "null bytes"),
    "Latin-1": ("x = '\udcff'\n", "inbox.py, line 1: (unicode error)", ""),
    "tabs": ("class Inbox:\n\tx = 1\n        y = 2\n", "inbox.py, line 3: inconsistent use of tabs", ""),
    "recursion": ("def f(): f()\nf()\n", "cannot load inbox:Inbox: RecursionError: ", "inbox.py, line 1"),
    "abstract": (
        "import abc\nclass Inbox(abc.ABC):\n    @abc.abstractmethod\n    def on_message(self, e, m): pass\n",
        "cannot make a inbox:Inbox: TypeError: ",
        "on_message",
    ),
    "ends": ("import os\nos._exit(0)\n", "worker 0 (pid ", "died: status 0, never ready"),
    "killed": ("import os\nos.kill(os.getpid(), 9)\n", "worker 0 (pid ", "died: SIGKILL, never ready"),
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
    (tmp_path / "inbox.py").write_bytes(code.encode("utf-8", "surrogateescape"))
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
        (("-b", "smtp+unix:/etc/passwd/socket"), "cannot bind smtp+unix:/etc/passwd/socket: Not a directory"),
        (("-b", f"smtp+unix:/tmp/{'x' * 103}"), "the path of a unix socket has at most 107 octets"),
        (("-b", "smtp://nonesuch.invalid:2525"), "cannot bind smtp://nonesuch.invalid:2525: "),
        (("-b", ""), "bind '': HOST:PORT is wanted"),
        (("-b", "smtp://"), "bind 'smtp://': HOST:PORT is wanted"),
        (("-b", "smtp://127.0.0.1:2525/x"), "bind smtp://127.0.0.1:2525/x: '2525/x' is no port"),
        (("-b", "lmtp://127.0.0.1:25"), "LMTP is not for port 25"),
        (("-b", "smtp://127.0.0.1:2525", "-b", "lmtp://127.0.0.1:2525"), "bind lmtp://127.0.0.1:2525 is given twice"),
        (("-b", "smtp+unix:/tmp/x", "-b", "lmtp+unix:/tmp/./x"), "bind lmtp+unix:/tmp/./x is given twice"),
        (("-b", "smtps://127.0.0.1:0"), "smtps needs a certfile"),
        ((*FREE, "--tls", "required"), "tls = 'required' needs a certfile"),
        ((*FREE, "--keyfile", "x"), "keyfile without certfile"),
        ((*FREE, "--certfile", "/nonesuch.pem"), "cannot read /nonesuch.pem: No such file or directory"),
        ((*FREE, "--certfile", "/tmp"), "cannot read /tmp: Is a directory"),
        ((*FREE, "--hostname", "a..b"), "hostname is no domain name: 'a..b'"),
        ((*FREE, "--hostname", "a." * 130 + "b"), "hostname is no domain name: 'a.a."),
        ((*FREE, "--hostname", "[999.1.1.1]"), "hostname is no domain name: '[999.1.1.1]'"),
        ((*FREE, "--hostname", "exämple.org"), "hostname is no domain name: 'exämple.org'"),
        ((*FREE, "--set", "bind=127.0.0.1:25"), "--set bind=127.0.0.1:25: --bind URL says that"),
        ((*FREE, "--set", "listen=3"), "--set listen=3: --bind URL says that"),
        ((*FREE, "--set", "handler=a:B"), "--set handler=a:B: MODULE:CLASS says that"),
        ((*FREE, "--set", "backlog=1" + "0" * 20), "backlog must be at most 2147483647, not 1000"),
        ((*FREE, "--set", "max_sessions=1" + "0" * 20), "max_sessions must be at most "),
        ((*FREE, "-w", "1" + "0" * 8), "workers must be at most 1000, not 100000000"),
        ((*FREE, "--set", "limit_entries=1" + "0" * 12), "limit_entries must be at most 1048576"),
        ((*FREE, "--set", "command_timeout=1e300"), "command_timeout must be at most 31536000.0, not 1e+300"),
        ((*FREE, "--set", "linger=1" + "0" * 400), "linger must be at most 31536000.0, not 1000"),
        ((*FREE, "--set", "linger=1" + "0" * 5000), "linger must be a number, not '1000"),
        ((*FREE, "--set", "linger=0x1" + "0" * 5000), "linger must be at most 31536000.0, not a number of too many"),
        ((*FREE, "--set", "x\ny=1"), "unknown setting x y"),
        ((*FREE, "--set", "mode=999"), "mode must be octal digits such as 0660, not '999'"),
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
        ((*FREE, "inbox"), "handler class must be module:Class, not 'inbox'"),
        ((*FREE, "..inbox:Inbox"), "handler class must be module:Class, not '..inbox:Inbox'"),
        ((*FREE, "--user", "nonesuch-user"), "there is no user 'nonesuch-user'"),
        ((*FREE, "--group", "nonesuch-group"), "there is no group 'nonesuch-group'"),
        ((*FREE, "--log-file", "/nonesuch/log"), "log_file /nonesuch/log: No such file or directory"),
        ((*FREE, "--log-file", "/tmp"), "log_file /tmp: Is a directory"),
        ((*FREE, "--log-file", "/etc/passwd/log"), "log_file /etc/passwd/log: Not a directory"),
        ((*FREE, "--set", "chdir=/nonesuch"), "/nonesuch"),
        (("-c", "nonesuch.toml"), "nonesuch.toml: No such file or directory"),
        (("-c", "."), ".: Is a directory"),
    ],
)
def test_wrong_settings(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str) -> None:
    assert line in said(capsys, *arguments)
    assert line in said(capsys, *arguments, "--check")


def test_a_file_where_a_unix_socket_shall_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    line = f"cannot bind smtp+unix:{path}: {path} exists and is not a socket"
    assert line in said(capsys, "-b", f"smtp+unix:{path}")
    assert line in said(capsys, "-b", f"smtp+unix:{path}", "--check")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-o", "nonesuch=1"), "cannot make a gsmtp.handlers.maildir:Maildir"),
        (("-o", "path=/{nonesuch}"), "placeholder"),
        (("-o", "path=/dev/null/x"), "the Maildir cannot be written: Not a directory"),
        (("-o", "path=/etc/passwd"), "the Maildir cannot be written: Not a directory"),
        (("-o", "fsync=maybe"), "fsync of a Maildir is true or false, not 'maybe'"),
        (("--set", "auth=required"), "auth is required, but Maildir has no check_ or get_ hook"),
        (("--set", 'hide=["PIPELINNING"]'), "there is no extension PIPELINNING to hide"),
        (("--set", 'offer=["DNS"]'), "there is no extension DNS"),
        (("--set", 'limit_exempt=["300.1.1.1/8"]'), "'300.1.1.1/8' does not appear to be an IPv4 or IPv6 network"),
        (("--set", 'nameservers=["x"]'), "no name server's address, with a port or without: 'x'"),
        (("--set", "spool_directory=/nonesuch"), "cannot write to the spool_directory /nonesuch: No such"),
        (("--set", "spool_memory=many"), "spool_memory must be a whole number, not 'many'"),
    ],
)
def test_what_only_a_worker_finds(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    done = run(*FREE, *arguments, "--check", directory=tmp_path)
    assert line in complaint(done)
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_maildir_that_cannot_be_written_ends_the_server(tmp_path: Path) -> None:
    done = run(*FREE, "-o", "path=/proc/self", directory=tmp_path)
    assert "the Maildir cannot be written: " in complaint(done)


def test_unusable_certificates(tmp_path: Path, certificates: Certificates) -> None:
    (tmp_path / "garbage").write_text("garbage")
    one, other = certificates.main, certificates.other
    for arguments, line in (
        (["--certfile", "garbage"], "the certificate cannot be used: garbage: "),
        (["--certfile", one.certfile, "--keyfile", other.keyfile], "key values mismatch"),
        (["--certfile", one.certfile, "--keyfile", one.keyfile, "-s", "tls_ciphers=NO"], "tls_ciphers NO: "),
    ):
        assert line in complaint(run(*FREE, *arguments, "--check", directory=tmp_path))


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("workers = 1\nworkers = 2", "gsmtp.toml: Cannot overwrite a value"),
        ("a = " + "[" * 100_000, "gsmtp.toml: too many brackets within one another"),
        ("workers = 1" + "0" * 5000, "gsmtp.toml: Exceeds the limit"),
        ("workers = 0x1" + "0" * 5000, "gsmtp.toml: workers must be at most 1000, not a number of too many digits"),
        ("[handler]\nx = 0x1" + "0" * 5000, "gsmtp.toml: handler: x has a number of too many digits"),
        ("bind = '127.0.0.1:0'", "gsmtp.toml: bind belongs into a [[listen]] table"),
        ("[listen]\nbind = '127.0.0.1:0'", "gsmtp.toml: listen must be tables: [[listen]]"),
        ("[[listen]]\nbind = 2020-01-01", "gsmtp.toml: listen 1: bind must be a text, not datetime.date(2020, 1, 1)"),
        ("[[listen]]\nbind = '127.0.0.1:0'\nworkers = 3", "gsmtp.toml: listen 1: unknown setting workers"),
        ("certificates = 3", "gsmtp.toml: certificates must be a table of lists of texts, not 3"),
        ("[certificates]\n'a b' = ['x']", "certificates: 'a b' must be a name with [certfile, keyfile]"),
        ("[certificates]\n'a.b' = ['/nonesuch.pem']", "cannot read /nonesuch.pem: No such file or directory"),
        ("'a\tb' = 1", "gsmtp.toml: unknown setting a b"),
        ('"a\\u001bb" = 1', "gsmtp.toml: unknown setting a?b"),
        ("hide = ['a\0']", "(at line 1, column 11)"),
        ('hide = ["a\\u0000"]', "gsmtp.toml: hide must be a list of texts"),
        ("\xef\xbb\xbfworkers = 1", "gsmtp.toml: Invalid statement"),
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


def test_a_socket_in_use(serve: Callable[..., Master], tmp_path: Path) -> None:
    live = serve(binds=["smtp+unix:{directory}/socket"])
    bind = f"smtp+unix:{live.address}"
    assert complaint(run("-b", bind, directory=tmp_path)).endswith(f"cannot bind {bind}: Address already in use")
    with live.connect() as talk:
        assert talk.deliver(b"x\r\n").startswith("250")


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ("--wrokers", "3"),
        ("-w", "two"),
        ("a:B", "c:D"),
        ("--tls", "maybe"),
        ("--log-level", "loud"),
        ("-b",),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments, "--check"])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("gsmtp-master: ") and line.endswith("; see gsmtp-master --help")


def test_texts_need_no_quotes(serve: Callable[..., Master]) -> None:
    live = serve("--set", "banner=42", "--set", "mode=600", "--set", "tls_minimum=1.3")
    with live.connect(ehlo=False) as talk:
        assert talk.banner.endswith(" 42")


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
        done = run("--check", "-b", bind, "-o", "path=mail", "--log-file", "new.log", directory=tmp_path)
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


OPTIONS = """\
from gsmtp import Handler
class Inbox(Handler):
    def __init__(self, **options): self.options = options
    def on_message(self, envelope, message): return repr(sorted(self.options.items()))
"""


def test_options_go_to_the_constructor(serve: Callable[..., Master]) -> None:
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


def test_each_listener_has_its_own_settings(serve: Callable[..., Master], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    live = serve(toml=TWO.replace("SOCKET", str(path)), workers=2)
    assert path.stat().st_mode & 0o777 == 0o600
    with live.connect(ehlo=False) as one, live.connect(str(path), ehlo=False) as two:
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


def test_the_command_line_wins(serve: Callable[..., Master], tmp_path: Path) -> None:
    toml = TWO.replace("SOCKET", str(tmp_path / "socket"))
    live = serve("--hostname", "three.example", max_message_size=2000, toml=toml, workers=3)
    assert len(live.workers()) == 3
    for address in live.addresses.values():
        with live.connect(address, ehlo=False) as talk:
            assert talk.banner.startswith("220 three.example ")
            if not address.startswith("/"):
                assert "SIZE 2000" in talk.ask("EHLO c.example")
    assert len(live.addresses) == 2
    other = serve("-b", "smtp://127.0.0.1:0", toml=toml)
    assert list(other.addresses) == ["smtp://127.0.0.1:0"]


def test_workers(serve: Callable[..., Master]) -> None:
    live = serve(workers=4)
    assert sorted(live.workers()) == [0, 1, 2, 3]
    workers = psutil.Process(live.process.pid).children()
    assert len(workers) == 4
    assert [len(worker.children()) for worker in workers] == [1, 1, 1, 1]  # what writes for the Maildir


PLAIN = "from gsmtp import Handler\nclass Inbox(Handler):\n    def on_message(self, envelope, message): pass\n"


def test_a_user_s_module_takes_no_place_of_the_worker_s_own(tmp_path: Path) -> None:
    """The worker has imported its own modules before it looks into the handler's folder, or the current one."""
    (tmp_path / "inbox.py").write_text(PLAIN)
    # One that the worker imports and the master does not, which with -m has the current folder first itself.
    (tmp_path / "resource.py").write_text("raise RuntimeError('not the one')\n")
    for more in ([], ["-s", f"chdir={tmp_path}"]):
        done = run("inbox:Inbox", "--check", "-b", "smtp://127.0.0.1:0", *more, directory=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_with_chdir_the_handler_is_sought_there_alone(tmp_path: Path) -> None:
    (tmp_path / "inbox.py").write_text(PLAIN)
    (tmp_path / "elsewhere").mkdir()
    arguments = ["inbox:Inbox", "--check", "-b", "smtp://127.0.0.1:0"]
    assert run(*arguments, directory=tmp_path).returncode == 0
    done = run(*arguments, "-s", f"chdir={tmp_path}/elsewhere", directory=tmp_path)
    assert (done.returncode, done.stderr) == (1, "cannot load inbox:Inbox: No module named 'inbox'\n")
