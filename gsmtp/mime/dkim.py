"""DKIM signatures (RFC 6376, RFC 8463): rsa-sha256 and ed25519-sha256 over the bytes that are sent.

Keys are handled by `cryptography` (the extra `dkim`), which is imported when a key is loaded. From is signed once more
than it occurs, so that none can be added. There is no `l=`, with which the body could be extended. Verifying is not
done here.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gsmtp.mime.domains import to_ascii

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    PrivateKey = Ed25519PrivateKey | RSAPrivateKey

# RFC 6376 5.4.1, without what lists and relays change on the way
_SIGNED_NAMES = """
From Sender Reply-To Subject Date Message-ID To Cc MIME-Version Content-Type Content-Transfer-Encoding
Content-ID Content-Description Resent-Date Resent-From Resent-Sender Resent-To Resent-Cc
Resent-Message-ID In-Reply-To References List-Id List-Help List-Unsubscribe List-Unsubscribe-Post
List-Subscribe List-Post List-Owner List-Archive
"""
SIGNED = _SIGNED_NAMES.split()
_FIELD = re.compile(rb"([^\x00-\x20:]+)[ \t]*:([^\n]*+(?:\n[ \t][^\n]*+)*+)\n")
_LINE_END = re.compile(rb"\r\n(?=[ \t])")
_SPACE = re.compile(rb"[ \t]+")
_SPACE_AT_END = re.compile(rb"(?<![ \t])[ \t]++(?=\r\n|\Z)")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*")


class DKIM:
    """Signs for `domain` with the key published at `selector._domainkey.domain`.

    `key` is a PEM, or a private key of `cryptography`; `password` decrypts a PEM. RSA keys of 1024 bits and more sign
    rsa-sha256, Ed25519 keys ed25519-sha256. The fields named in `headers` are signed if the mail has them, and those in
    `oversign` once more. `expires` is in seconds.
    """

    def __init__(
        self,
        selector: str,
        domain: str,
        key: bytes | str | PrivateKey,
        *,
        password: bytes | None = None,
        canonicalization: tuple[str, str] = ("relaxed", "relaxed"),
        headers: Sequence[str] = SIGNED,
        oversign: Sequence[str] = ("From",),
        identity: str | None = None,
        expires: int | None = None,
    ) -> None:
        """Load the key. Raises ValueError for a key, a name or an algorithm that cannot be used."""
        self.domain = to_ascii(domain).rstrip(".")
        if not _LABEL.fullmatch(selector) or not _LABEL.fullmatch(self.domain):
            raise ValueError(f"not a selector and a domain: {selector!r}, {domain!r}")
        if not set(canonicalization) <= {"simple", "relaxed"} or len(canonicalization) != 2:
            raise ValueError(f"canonicalization is two of simple and relaxed: {canonicalization!r}")
        if not any(name.lower() == "from" for name in headers):
            raise ValueError("From must be signed (RFC 6376 5.4)")
        if identity is not None and not re.fullmatch(
            rf"[!-:<-~]*@(?:[A-Za-z0-9.-]+\.)?{re.escape(self.domain)}", identity
        ):
            raise ValueError(f"an identity stands in the domain or below: {identity!r}")
        self.selector = selector
        self.canonicalization = canonicalization
        self.headers = tuple(name.lower() for name in headers)
        self.oversign = frozenset(name.lower() for name in oversign)
        self.identity = identity
        self.expires = expires
        self._key = _load(key, password)
        self.algorithm = "rsa-sha256" if hasattr(self._key, "key_size") else "ed25519-sha256"

    def sign(self, raw: bytes) -> bytes:
        """Return the DKIM-Signature field for a mail, with its CRLF, to be put in front of it.

        The mail has CRLF line ends. Raises ValueError for a mail without From or with a bare LF, which no verifier
        would see as it is.
        """
        head, _, body = raw.partition(b"\r\n\r\n")
        if raw.count(b"\n") != raw.count(b"\r\n"):
            raise ValueError("a mail to be signed has CRLF line ends")
        fields: dict[str, list[bytes]] = {}
        for found in _FIELD.finditer(head + b"\r\n"):
            fields.setdefault(found[1].decode("ascii", "replace").lower(), []).append(found[0])
        if "from" not in fields:
            raise ValueError("a mail without From cannot be signed")
        names: list[str] = []
        signed: list[bytes] = []
        for name in self.headers:
            found_fields = fields.get(name, [])
            names += [name] * (len(found_fields) + (name in self.oversign))
            signed += reversed(found_fields)  # RFC 6376 5.4.2: from the bottom up
        now = int(time.time())
        digest = base64.b64encode(hashlib.sha256(self._body(body)).digest()).decode("ascii")
        tags = [
            "v=1",
            f"a={self.algorithm}",
            f"c={'/'.join(self.canonicalization)}",
            f"d={self.domain}",
            f"s={self.selector}",
            f"t={now}",
            *([f"x={now + self.expires}"] if self.expires is not None else []),
            *([f"i={self.identity}"] if self.identity is not None else []),
            f"bh={digest}",
        ]
        value = _wrapped([tag + ";" for tag in tags], _names(names))
        unsigned = f"DKIM-Signature: {value}\r\n b=".encode("ascii")
        covered = b"".join(map(self._header, signed)) + self._header(unsigned + b"\r\n")[:-2]
        signature = base64.b64encode(self._sign(covered)).decode("ascii")
        pieces = [signature[at : at + 72] for at in range(0, len(signature), 72)]
        return unsigned + "\r\n ".join(pieces).encode("ascii") + b"\r\n"

    def _header(self, field: bytes) -> bytes:
        """RFC 6376 3.4.1 and 3.4.2."""
        if self.canonicalization[0] == "simple":
            return field
        name, _, value = field.partition(b":")
        value = _SPACE.sub(b" ", _LINE_END.sub(b"", value.rstrip(b"\r\n"))).strip(b" ")
        return name.rstrip(b" \t").lower() + b":" + value + b"\r\n"

    def _body(self, body: bytes) -> bytes:
        """RFC 6376 3.4.3 and 3.4.4."""
        if self.canonicalization[1] == "relaxed":
            body = _SPACE.sub(b" ", _SPACE_AT_END.sub(b"", body)) if b" " in body or b"\t" in body else body
        end = len(body)
        while body.endswith(b"\r\n", 0, end):
            end -= 2
        if not end and self.canonicalization[1] == "relaxed":
            return b""
        return body[:end] + b"\r\n"

    def _sign(self, data: bytes) -> bytes:
        if self.algorithm == "ed25519-sha256":
            return self._key.sign(hashlib.sha256(data).digest())  # type: ignore[call-arg]
        from cryptography.hazmat.primitives.asymmetric import padding
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key.sign(data, padding.PKCS1v15(), SHA256())  # type: ignore[call-arg]


def _load(key: bytes | str | PrivateKey, password: bytes | None) -> PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ImportError("DKIM signing needs cryptography: pip install 'gsmtp[dkim]'") from None
    loaded: object = key
    if isinstance(key, bytes | str):
        try:
            loaded = load_pem_private_key(key.encode("ascii") if isinstance(key, str) else key, password)
        except TypeError as error:  # a password is missing, or given without need
            raise ValueError(str(error)) from None
    if isinstance(loaded, Ed25519PrivateKey):
        return loaded
    if isinstance(loaded, RSAPrivateKey):
        if loaded.key_size < 1024:
            raise ValueError("verifiers ignore RSA keys below 1024 bits (RFC 8301)")
        return loaded
    raise ValueError("DKIM signs with RSA and Ed25519 keys")


def _names(names: list[str]) -> list[str]:
    return [("h=" if at == 0 else "") + name + (":" if at < len(names) - 1 else ";") for at, name in enumerate(names)]


def _wrapped(tags: list[str], names: list[str]) -> str:
    """Return tags and names on lines of at most 78; names are joined without white space while they fit."""
    out, used = "", len("DKIM-Signature: ")
    for number, (piece, space) in enumerate([*((tag, " ") for tag in tags), *((name, "") for name in names)]):
        space = " " if piece.startswith("h=") else space if number else ""
        if used + len(space) + len(piece) > 78:
            out, used = out + "\r\n " + piece, 1 + len(piece)
        else:
            out, used = out + space + piece, used + len(space) + len(piece)
    return out
