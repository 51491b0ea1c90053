"""Credentials of SCRAM-SHA-256, which a server may keep instead of a password (RFC 5802 3, RFC 7677).

Whoever steals them can pose as the server and try passwords, but cannot log in. The text form is that of RFC 5803 and
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

# RFC 7677 4 asks for 4096 at least. One derivation takes about 2 ms of processor on a server of 2020. The server spends
# them inside its loop when it has the plain password, and the client at each login. Stored credentials may have more
# iterations (`derive`), which cost the clients only.
ITERATIONS = 4096
# RFC 5802 leaves the length open; 16 octets are never the same by chance. Salts of unknown users have this length too,
# so that they do not stand out.
SALT_LENGTH = 16

_TEXT = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/]{43}=):([A-Za-z0-9+/]{43}=)")


@dataclass(frozen=True, slots=True)
class ScramCredentials:
    """A salt, a number of iterations, and two keys of 32 octets.

    Raises ValueError for an empty salt, less than one iteration and keys of another length.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.salt or self.iterations < 1 or len(self.stored_key) != 32 or len(self.server_key) != 32:
            raise ValueError("not the credentials of SCRAM-SHA-256")

    @classmethod
    def derive(cls, password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> ScramCredentials:
        """Return the credentials of a password, with a random salt unless given. This is slow on purpose.

        Raises ValueError if SASLprep refuses the password.
        """
        salt = salt or secrets.token_bytes(SALT_LENGTH)
        client_key, server_key = derive_keys(saslprep(password, stored=True), salt, iterations)
        return cls(salt, iterations, hashlib.sha256(client_key).digest(), server_key)

    @classmethod
    def parse(cls, text: str) -> ScramCredentials:
        """Return the credentials in a text form. Raises ValueError, without the text, if it is none."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError("not the text of SCRAM-SHA-256 credentials")
        salt, stored_key, server_key = (b64decode(part, validate=True) for part in match.groups()[1:])
        return cls(salt, int(match[1]), stored_key, server_key)

    def text(self) -> str:
        """Return the text form, which may be stored."""
        salt, stored_key, server_key = (
            b64encode(part).decode() for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored_key}:{server_key}"


def derive_keys(prepared: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """Return ClientKey and ServerKey (RFC 5802 3) of a password that is already prepared."""
    salted = hashlib.pbkdf2_hmac("sha256", prepared.encode(), salt, iterations)
    return hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256")


def known_password(answer: object) -> str | ScramCredentials | None:
    """Return the answer to `GetPassword`. Raises TypeError when its type is wrong."""
    if answer is None or isinstance(answer, str | ScramCredentials):
        return answer
    raise TypeError(f"get_password answers str, ScramCredentials or None, not {type(answer).__name__}")
