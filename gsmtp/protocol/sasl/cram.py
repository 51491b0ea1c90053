"""CRAM-MD5 (RFC 2195): an HMAC of the server's challenge, keyed with the password.

The password does not cross the wire. Weak: the server must have it in plain, nothing proves the server to the client,
and whoever has read an exchange can try passwords offline. It is kept for clients that have nothing better. RFC 2195
has no SASLprep, so the user and the password are taken as they are, in UTF-8.
"""

from __future__ import annotations

import hmac
import re
import secrets

from gsmtp.protocol.sasl.credentials import known_password
from gsmtp.protocol.sasl.exchange import (
    BAD_CREDENTIALS,
    MALFORMED,
    Challenge,
    ClientContext,
    ClientExchange,
    Failure,
    GetPassword,
    Refusal,
    Response,
    SaslError,
    ServerContext,
    ServerExchange,
    Success,
    name,
    server_side,
)
from gsmtp.protocol.sasl.plain import last

# RFC 2195 2: the user name, a space, and the digest in hexadecimal (in lower case; upper case is let pass).
_RESPONSE = re.compile(rb"(?P<user>.+) (?P<digest>[0-9A-Fa-f]{32})", re.S)


@server_side
def cram_md5_server(context: ServerContext, initial: bytes | None, *, challenge: bytes | None = None) -> ServerExchange:
    """CRAM-MD5. `challenge` is random unless given."""
    if initial is not None:
        # RFC 4954 4: the reply is 501 when the mechanism has no initial response.
        raise Refusal(MALFORMED, "CRAM-MD5 takes no initial response")
    if challenge is None:
        # RFC 2195 2 asks for random digits and a timestamp, so that no challenge comes twice.
        challenge = f"<{secrets.randbits(64)}.{secrets.randbits(64)}@{context.hostname}>".encode()
    match = _RESPONSE.fullmatch((yield Challenge(challenge)))
    if match is None:
        raise Refusal(MALFORMED, "CRAM-MD5 takes a user and a digest")
    user = name(match["user"], "user")
    password = known_password((yield GetPassword(user, "CRAM-MD5")))
    usable = isinstance(password, str) and password != ""
    # An unknown user costs the same work and fails at the same place.
    key = str(password).encode("utf-8", "surrogatepass") if usable else b"unknown"
    digest = hmac.digest(key, challenge, "md5").hex()
    if hmac.compare_digest(digest.encode(), match["digest"].lower()) and usable:
        return Success(user)
    return Failure(BAD_CREDENTIALS, "CRAM-MD5 digest does not match, or no password to match it with")


def cram_md5_client(context: ClientContext) -> ClientExchange:
    """CRAM-MD5. Raises SaslError without a user and a password."""
    if not (context.user and context.password):
        raise SaslError("CRAM-MD5 needs a user and a password")
    challenge = yield Response(None)
    if challenge is None:
        raise SaslError("the server accepted before the exchange was over")
    digest = hmac.digest(context.password.encode(), challenge, "md5").hex()
    yield from last(Response(f"{context.user} {digest}".encode()))
