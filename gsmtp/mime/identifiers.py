"""ReverseDns that must be unique: Message-ID (RFC 5322 3.6.4) and boundaries (RFC 2046 5.1.1)."""

from __future__ import annotations

import secrets
import socket
import time


def make_message_id(domain: str | None = None) -> str:
    """`"<time.random@domain>"`: 128 random bits. Without `domain` the host's name is used."""
    if domain is None:
        domain = socket.gethostname()
        if not domain or not domain.isascii() or not domain.replace("-", "").replace(".", "").isalnum():
            domain = "localhost"
    return f"<{int(time.time()):x}.{secrets.token_hex(16)}@{domain}>"


def make_boundary() -> str:
    """A boundary with 128 random bits. "=_" can stand in no base64 and no quoted-printable (RFC 2045 6.7)."""
    return f"=_{secrets.token_hex(16)}"
