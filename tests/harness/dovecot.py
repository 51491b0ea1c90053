"""A Dovecot of its own, as a client of others: an LMTP proxy and a relay of submissions, on free ports of the loopback.

It needs root to start, and the users that its package makes. Its programs stay where the package put them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from certificates import tool

from harness.waiting import wait_for

LIBRARY = Path("/usr/lib/dovecot")
_CONFIG = """
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
listen = 127.0.0.1
protocols = lmtp submission
hostname = dovecot.example
ssl = no
ssl_client_ca_file = {ca}
disable_plaintext_auth = no
auth_mechanisms = plain
mail_location = maildir:{home}/home/mail
first_valid_uid = 1
first_valid_gid = 1
lmtp_proxy = yes
default_vsz_limit = 0
passdb {{
  driver = passwd-file
  args = username_format=%u {home}/%s.users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={home}/home
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {submission}
  }}
}}
{more}
"""


class Dovecot:
    """A context. `lmtp` and `submission` are its ports; mail for a user in `proxied` goes on by LMTP to `to`.

    USER may log in with any password; `more`: rows of its configuration.
    """

    USER = "relay@dovecot.example"

    def __init__(self, proxied: dict[str, str], more: str, ca: str) -> None:
        self._program = tool("dovecot", "dovecot-core")
        for name, package in {"lmtp": "dovecot-lmtpd", "submission": "dovecot-submissiond"}.items():
            if not (LIBRARY / name).exists():
                pytest.skip(f"{LIBRARY / name} is not there (Debian: {package})")
        if os.getuid() != 0:
            pytest.skip("Dovecot can only be started by root")
        for user in ("dovecot", "dovenull"):
            try:
                pwd.getpwnam(user)
            except KeyError:
                pytest.skip(f"Dovecot's own user is missing: {user}")
        self.lmtp, self.submission = _free_ports(2)
        self._home = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self._home.chmod(0o755)
        for name in ("run", "state", "home"):
            (self._home / name).mkdir(mode=0o755)
        nobody = pwd.getpwnam("nobody")  # Dovecot will not read mail as root
        os.chown(self._home / "home", nobody.pw_uid, nobody.pw_gid)
        shutil.copy(ca, self._home / "ca.pem")
        (self._home / "ca.pem").chmod(0o644)
        rows = [f"{user}:::::::{fields}" for user, fields in proxied.items()]
        (self._home / "lmtp.users").write_text("".join(f"{row}\n" for row in rows))
        (self._home / "submission.users").write_text(f"{self.USER}:::::::nopassword=y\n")
        config = _CONFIG.format(
            home=self._home,
            ca=self._home / "ca.pem",
            lmtp=self.lmtp,
            submission=self.submission,
            uid=nobody.pw_uid,
            gid=nobody.pw_gid,
            more=more,
        )
        (self._home / "dovecot.conf").write_text(config)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        path = self._home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Dovecot:
        command = [self._program, "-F", "-c", str(self._home / "dovecot.conf")]
        with (self._home / "output").open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            wait_for(lambda: self._process.poll() is not None or self._answers(), what="Dovecot to answer")
            assert self._process.poll() is None, (self._home / "output").read_text() + self.log
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        try:
            for port in (self.lmtp, self.submission):
                with socket.create_connection(("127.0.0.1", port), 5) as sock:
                    if not sock.recv(100).startswith(b"220"):
                        return False
            return True
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end = time.monotonic() + 10
        while (left := self._left()) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, 9)
        shutil.rmtree(self._home, ignore_errors=True)
        assert not left, "Dovecot did not stop in order"

    def _left(self) -> list[int]:
        """Processes of this Dovecot: all share the session of the first."""
        found = []
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                try:
                    if os.getsid(int(place.name)) == self._process.pid:
                        found.append(int(place.name))
                except OSError:
                    pass
        return found


def _free_ports(number: int) -> list[int]:
    socks = [socket.socket() for _ in range(number)]
    try:
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
    finally:
        for sock in socks:
            sock.close()
