"""Keys and certificates for tests, made with the openssl command: no secret lies in the repository.

All keys are P-256, so that a set takes a fraction of a second. Valid for two days from now, but for `expired`.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MAIN, OTHER = "mx.example.org", "mail.example.net"
# Python 3.13 verifies as RFC 5280 demands (ssl.VERIFY_X509_STRICT), and refuses a chain that lacks one of these.
_OF_AUTHORITY = ["keyUsage = critical,keyCertSign,cRLSign"]  # openssl's own file gives it the rest
_OF_SIGNED = [
    "basicConstraints = critical,CA:FALSE",
    "keyUsage = critical,digitalSignature",
    "subjectKeyIdentifier = hash",
    "authorityKeyIdentifier = keyid",
]
_CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]


@dataclass(frozen=True)
class Pair:
    """Paths of a certificate and its key, both PEM."""

    certfile: str
    keyfile: str


def tool(name: str, package: str = "") -> str:
    """The path of a program; without it the test is skipped by name."""
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin:/sbin:/bin")
    if path is None:
        pytest.skip(f"{name} is not installed" + (f" (Debian: {package})" if package else ""))
    return path


class Certificates:
    """One authority, `ca`, and what it has signed.

    `main` is for mx.example.org, `other` for mail.example.net, `client` for a user named alice@example.org, `expired`
    a server's that is no longer valid, `ed25519` one whose signature has no hash (RFC 5929 4.1). `stranger` is a
    client's that another authority has signed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._openssl = tool("openssl")
        authority = self._authority("authority")
        self.ca = authority.certfile
        self.main = self._signed(authority, MAIN)
        self.other = self._signed(authority, OTHER)
        self.client = self._signed(authority, "alice@example.org")
        self.expired = self._signed(authority, f"expired.{MAIN}", days=-1)
        self.stranger = self._signed(self._authority("stranger"), "mallory@example.org")
        ed25519 = self._authority("authority of ed25519", ["-newkey", "ed25519", "-noenc"])
        self.ed25519 = self._signed(ed25519, f"ed25519.{MAIN}")

    def _run(self, *arguments: str) -> None:
        run = subprocess.run([self._openssl, *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert run.returncode == 0, run.stderr

    def _authority(self, name: str, key: list[str] = _CURVE) -> Pair:
        pair = self._pair(name)
        # No comma can come from a name, and a slash would begin another attribute.
        extensions = [argument for extension in _OF_AUTHORITY for argument in ("-addext", extension)]
        self._run("req", "-x509", *key, "-subj", f"/CN={name}", "-days", "2", *extensions, *_files(pair))
        return pair

    def _signed(self, authority: Pair, name: str, days: int = 2) -> Pair:
        pair = self._pair(name)
        request, extensions = f"{pair.certfile}.csr", f"{pair.certfile}.ext"
        name_itself = f"subjectAltName = {'email' if '@' in name else 'DNS'}:{name}"
        Path(extensions).write_text("\n".join([name_itself, *_OF_SIGNED, ""]))
        self._run("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", pair.keyfile, "-out", request)
        signer = ["-CA", authority.certfile, "-CAkey", authority.keyfile, "-extfile", extensions]
        self._run("x509", "-req", "-in", request, *signer, "-days", str(days), "-out", pair.certfile)
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(str(self._directory / f"{name}.pem"), str(self._directory / f"{name}.key"))

    def context(self, client: Pair | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client's context that trusts `ca` alone, shows `client`, and speaks only `version`."""
        context = ssl.create_default_context(cafile=self.ca)
        if client is not None:
            context.load_cert_chain(client.certfile, client.keyfile)
        if version is not None:
            context.maximum_version = context.minimum_version = version
        return context


def _files(pair: Pair) -> list[str]:
    return ["-keyout", pair.keyfile, "-out", pair.certfile]
