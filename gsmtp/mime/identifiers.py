"""Identifiers that must be unique: Message-ID (RFC 5322 3.6.4) and boundaries (RFC 2046 5.1.1)."""

from __future__ import annotations

import secrets
import socket
import time


def make_message_id(domain: str | None = None) -> str:
    """Return `"<time.random@domain>"` with 128 random bits. Without `domain` it has the host's name."""
    if domain is None:
        domain = socket.gethostname()
        if not domain or not domain.isascii() or not domain.replace("-", "").replace(".", "").isalnum():
            domain = "localhost"
    return f"<{int(time.time()):x}.{secrets.token_hex(16)}@{domain}>"


def make_boundary() -> str:
    """Return a boundary with 128 random bits. No base64 and no quoted-printable contains "=_" (RFC 2045 6.7)."""
    return f"=_{secrets.token_hex(16)}"
