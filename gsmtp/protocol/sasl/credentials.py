"""What a server may keep instead of a password for SCRAM-SHA-256 (RFC 5802 3, RFC 7677).

Whoever steals it can pose as the server and try passwords, but cannot log in. The text form is that of RFC 5803 and
of PostgreSQL's pg_authid: `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`, with the last three in base64.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field

from gsmtp.protocol.sasl.prepare import saslprep

# RFC 7677 4 asks for 4096 at least. One derivation of that is about 2 ms of processor on a server of 2020, which the
# server spends inside its loop when it has the plain password, and a small client at each login. Credentials that
# are stored may have more (`derive`): then only the clients pay.
ITERATIONS = 4096
# RFC 5802 leaves the length open; 16 octets never meet by chance. Invented salts have it too, so keep to it.
SALT_LENGTH = 16

_TEXT = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/]{43}=):([A-Za-z0-9+/]{43}=)")


@dataclass(frozen=True, slots=True)
class ScramCredentials:
    """Salt (octets), iterations, and the two keys of 32 octets. ValueError for an empty salt or keys that are none."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.salt or self.iterations < 1 or len(self.stored_key) != 32 or len(self.server_key) != 32:
            raise ValueError("not the credentials of SCRAM-SHA-256")

    @classmethod
    def derive(cls, password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> ScramCredentials:
        """From a password, with a random salt unless given. Takes its time. ValueError where SASLprep refuses it."""
        salt = salt or secrets.token_bytes(SALT_LENGTH)
        client_key, server_key = derive_keys(saslprep(password, stored=True), salt, iterations)
        return cls(salt, iterations, hashlib.sha256(client_key).digest(), server_key)

    @classmethod
    def parse(cls, text: str) -> ScramCredentials:
        """From the text form. ValueError, without the text, if it is none."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not the text of SCRAM-SHA-256 credentials")
        salt, stored_key, server_key = (b64decode(part, validate=True) for part in match.groups()[1:])
        return cls(salt, int(match[1]), stored_key, server_key)

    def text(self) -> str:
        """The text form, to be stored."""
        salt, stored_key, server_key = (
            b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored_key}:{server_key}"


def derive_keys(prepared: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """ClientKey and ServerKey (RFC 5802 3) of a password that is already prepared."""
    salted = hashlib.pbkdf2_hmac("sha256", prepared.encode(), salt, iterations)
    return hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256")


def known_password(answer: object) -> str | ScramCredentials | None:
    """The answer to `GetPassword`; TypeError unless it is of a type that it may have."""
    if answer is None or isinstance(answer, str | ScramCredentials):
        return answer
    raise TypeError(f"get_password answers str, ScramCredentials or None, not {type(answer).__name__}")
