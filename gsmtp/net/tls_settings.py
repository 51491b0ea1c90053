"""The settings of TLS. gsmtp.net.tls reads them; they stand here because the master must not load `ssl`."""

from __future__ import annotations

from typing import Literal

from gsmtp.declare import Table, setting


class TlsSettings(Table):
    """A listener's certificates and what its TLS accepts. Files are paths of PEM files.

    `certificates` has [certfile, keyfile] for the names that clients may ask for (SNI), or [certfile] if the key is in
    the same file.
    """

    certfile: str = setting("", "certificate chain in PEM; smtps:// and STARTTLS need it")
    keyfile: str = setting("", "private key in PEM, unless it is in certfile; only root need be able to read it")
    certificates: dict[str, list[str]] = setting(
        {}, 'other certificates by the name that a client asks for (SNI): "mx.example.org" = ["cert.pem", "key.pem"]'
    )
    client_ca: str = setting("", "authorities (PEM) of client certificates; clients are asked for one, but need none")
    tls_minimum: Literal["1.2", "1.3"] = setting("1.2", "the lowest version of TLS; older ones are broken")
    tls_ciphers: str = setting("", "ciphers for TLS 1.2 in OpenSSL's notation; default: OpenSSL's own choice")

    @property
    def tls_files(self) -> list[str]:
        """The paths of all files that these settings name."""
        named = [path for pair in self.certificates.values() for path in pair]
        return [path for path in (self.certfile, self.keyfile, self.client_ca, *named) if path]
