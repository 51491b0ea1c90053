"""Servers under TLS: gsmtp's listeners, and gevent's own SSLSocket to compare them with.

All have the same certificate (ECDSA P-256, self-signed), made by the openssl command when it is first needed. This file
does not know what clients do.

Weakness: gevent's server answers each piece that it reads with a fixed reply, and closes without close_notify, so it
does less per connection than a server must; a ratio to it errs on the safe side.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Literal

from .processes import Failure
from .servers import BACKLOG, Gsmtp, Server

_NO_OPENSSL = "openssl is not on PATH (Debian: openssl)"


def certificate(directory: Path) -> tuple[str, str]:
    """Return paths of a certificate and its key in `directory`; they are made if missing. Raises `Failure`."""
    certfile, keyfile = directory / "certificate.pem", directory / "key.pem"
    if not certfile.exists():
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command = ["openssl", "req", "-x509", *curve, "-days", "2", "-subj", "/CN=localhost"]
        done = subprocess.run(
            [*command, "-keyout", keyfile, "-out", certfile], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise Failure(f"no certificate: {done.stderr.strip()}")
    return str(certfile), str(keyfile)


class GeventSsl(Server):
    """Handshake, banner, and fixed replies to EHLO and QUIT, on gevent's StreamServer and SSLSocket.

    It has one context for all connections. With `files` it gets the certificate's files instead, as in gevent's
    documentation, and makes a context of them for each connection.
    """

    SCRIPT = f"""\
import socket, ssl, sys
from gevent.server import StreamServer
from gevent.ssl import SSLContext

port, certfile, keyfile, tls = sys.argv[1:]
context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certfile, keyfile)

def serve(sock, address):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the banner waits 40 ms behind the tickets
    sock.sendall(b"220 localhost ESMTP\\r\\n")
    while line := sock.recv(4096):
        verb = line[:4].upper()
        if verb == b"EHLO":
            sock.sendall(b"250-localhost\\r\\n250 STARTTLS\\r\\n")
        elif verb == b"STAR":
            sock.sendall(b"220 2.0.0 Ready\\r\\n")
            sock = context.wrap_socket(sock, server_side=True)
        elif verb == b"QUIT":
            sock.sendall(b"221 2.0.0 Bye\\r\\n")
            break
    sock.close()

implicit = {{
    "implicit": {{"ssl_context": context}},
    "files": {{"certfile": certfile, "keyfile": keyfile}},
    "starttls": {{}},
}}[tls]
StreamServer(("127.0.0.1", int(port)), serve, backlog={BACKLOG}, **implicit).serve_forever()
"""

    def __init__(self, tls: Literal["implicit", "starttls"], files: bool = False) -> None:
        self.name = "gevent-ssl-files" if files else "gevent-ssl" if tls == "implicit" else "gevent-ssl-starttls"
        self.kinds = ("tls",) if tls == "implicit" else ("starttls",)
        self.tls = tls
        self._files = files

    def available(self) -> str | None:
        if self._files and not hasattr(ssl, "wrap_socket"):
            return "this Python has no ssl.wrap_socket, which it needs (3.12 removed it)"
        if importlib.util.find_spec("gevent") is None:
            return f"not installed in {sys.executable}: gevent"
        return None if shutil.which("openssl") else _NO_OPENSSL

    def version(self) -> str:
        return f"gevent {importlib.metadata.version('gevent')}, {ssl.OPENSSL_VERSION}"

    def command(self, port: int, workdir: Path) -> list[str]:
        script = workdir / "gevent_ssl_server.py"
        script.write_text(self.SCRIPT)
        return [
            sys.executable,
            str(script),
            str(port),
            *certificate(workdir.parent),
            "files" if self._files else self.tls,
        ]


class GsmtpTls(Gsmtp):
    """gsmtp with an smtps:// listener, or with STARTTLS; it throws messages away."""

    def __init__(self, checkout: Path | None, tls: Literal["implicit", "starttls"]) -> None:
        super().__init__(checkout)
        self.name = f"{self._row(checkout)}-{'tls' if tls == 'implicit' else tls}"
        self.kinds = ("tls", "tls-kept") if tls == "implicit" else ("starttls",)
        self.tls = tls

    @functools.cached_property
    def _knows_tls(self) -> bool:
        return "--certfile" in self._ask("import gsmtp.cli; gsmtp.cli.main(['--help'])").stdout

    def available(self) -> str | None:
        missing = super().available()
        if missing is None and not self._knows_tls:
            return "this tree has no TLS yet"
        return missing or (None if shutil.which("openssl") else _NO_OPENSSL)

    def command(self, port: int, workdir: Path) -> list[str]:
        certfile, keyfile = certificate(workdir.parent)
        scheme = "smtps" if self.tls == "implicit" else "smtp"
        files = ["--certfile", certfile, "--keyfile", keyfile]
        return [*self._master(port, scheme), *files, self._handler(workdir)]
