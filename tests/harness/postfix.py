"""A Postfix of its own: configuration, queue and data in a directory of the test, on free ports of the loopback.

Postfix checks who owns its directories and drops root for most of its parts, so it needs root to start, the user and
the group that its package makes, and a path that everyone may walk: pytest's own directories are closed to others.
Its programs and the list of its files stay where the package put them. Mail comes in by its own smtpd.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from certificates import tool

from harness.waiting import wait_for

DAEMONS = Path("/usr/lib/postfix/sbin")
_MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
meta_directory = /etc/postfix
shlib_directory = no
mail_owner = postfix
setgid_group = postdrop
maillog_file = {home}/log/mail.log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = client.example
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
disable_dns_lookups = yes
smtp_host_lookup = native
smtputf8_enable = yes
biff = no
local_header_rewrite_clients =
default_transport = error:nowhere to go
transport_maps = inline:{{ {transports} }}
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
minimal_backoff_time = 3600s
queue_run_delay = 3600s
smtp_connect_timeout = 10s
{more}
"""
_SERVICES = """
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A context. `transports`: domain -> where its mail goes, like smtp:[127.0.0.1]:2525; `more`: rows of main.cf."""

    def __init__(self, transports: Mapping[str, str], more: str = "") -> None:
        self._postfix = tool("postfix")
        if os.getuid() != 0:
            pytest.skip("Postfix can only be started by root")
        for service in ("master", "smtpd", "smtp", "lmtp", "postlogd"):
            if not (DAEMONS / service).exists():
                pytest.skip(f"{DAEMONS / service} is not there (Debian: postfix)")
        try:
            self._uid = pwd.getpwnam("postfix").pw_uid
            grp.getgrnam("postdrop")
        except KeyError as error:
            pytest.skip(f"Postfix's own user or group is missing: {error}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._home = Path(tempfile.mkdtemp(prefix="postfix-"))
        self._home.chmod(0o755)
        for name in ("config", "queue", "data", "log"):
            (self._home / name).mkdir(mode=0o755)
        os.chown(self._home / "data", self._uid, -1)
        pairs = ", ".join(f"{{{domain} = {where}}}" for domain, where in transports.items())
        main = _MAIN.format(home=self._home, daemons=DAEMONS, transports=pairs, more=more)
        (self._home / "config" / "main.cf").write_text(main)
        (self._home / "config" / "master.cf").write_text(_SERVICES.format(port=f"127.0.0.1:{self.port}"))

    def _command(self, what: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MAIL_CONFIG": str(self._home / "config")}
        arguments = [self._postfix, "-c", str(self._home / "config"), what]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        path = self._home / "log" / "mail.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Postfix:
        try:
            done = self._command("start")
            assert done.returncode == 0, done.stdout + done.stderr + self.log
            wait_for(self._answers, what="Postfix to answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                return sock.recv(100).startswith(b"220")
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        pids = self._processes()
        self._command("stop")
        end = time.monotonic() + 20
        while (left := self._processes() & pids or self._processes()) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, 9)
        shutil.rmtree(self._home)
        assert not left, "Postfix did not stop in order"

    def _processes(self) -> set[int]:
        """Of this Postfix: all of them work in its queue directory."""
        found = set()
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                try:
                    if os.readlink(place / "cwd") == str(self._home / "queue"):
                        found.add(int(place.name))
                except OSError:
                    pass
        return found

    def send(self, content: bytes, *recipients: str, sender: str = "a@client.example", **options: list[str]) -> None:
        """Give it a message; `mail` and `rcpt` are further parameters."""
        with smtplib.SMTP("127.0.0.1", self.port, "inject.example", timeout=30) as client:
            mail, rcpt = options.get("mail", []), options.get("rcpt", [])
            assert client.sendmail(sender, recipients, content, mail, rcpt) == {}

    def delivered(self, recipient: str) -> str:
        """What it says of its delivery to `recipient`, as soon as that is over: status=sent (...), or the like."""

        def said() -> str:
            rows = [row for row in self.log.splitlines() if f"to=<{recipient}>" in row and " status=" in row]
            return rows[0].partition(" status=")[2] if rows else ""

        try:
            return wait_for(said, what=f"the delivery to {recipient}")
        except AssertionError:
            raise AssertionError(self.log) from None
