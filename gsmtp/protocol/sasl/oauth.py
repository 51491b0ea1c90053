"""XOAUTH2 (Google's and Microsoft's form) and OAUTHBEARER (RFC 7628): a bearer token in place of a password.

The server answers a refused token by a challenge, a JSON object that tells why. The client sends any response, and
then the server says 535. The handler checks the token; this file must not know what is in it.
"""

from __future__ import annotations

import json
import re

from gsmtp.protocol.sasl.exchange import (
    BAD_CREDENTIALS,
    MALFORMED,
    MAX_LINE,
    MAX_TOKEN,
    Challenge,
    CheckToken,
    ClientContext,
    ClientExchange,
    Failure,
    Refusal,
    Response,
    SaslError,
    ServerContext,
    ServerExchange,
    Success,
    name,
    server_side,
    text,
)

# RFC 6750 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# RFC 7235 2.1: credentials = auth-scheme 1*SP token68; the scheme in any case
_BEARER = re.compile(rf"bearer +(?P<token>{_TOKEN.pattern}) *", re.I)
# "user=" userName "^A" "auth=Bearer " token "^A^A"
_XOAUTH2 = re.compile(r"user=(?P<user>[^\x01]+)\x01auth=(?P<auth>[^\x01]*)\x01\x01")
# RFC 7628 3.1: client-resp = (gs2-header kvsep *kvpair kvsep) / kvsep; kvpair = key "=" value kvsep; key = 1*ALPHA
# value = *(VCHAR / SP / HTAB / CR / LF); the gs2-header of RFC 5801 4, where no channel can be bound to.
_OAUTHBEARER = re.compile(
    r"[ny],(?:a=(?P<authzid>(?:[^\0,=\x01]|=2C|=3D)+))?,\x01"
    r"(?P<pairs>(?:[A-Za-z]+=[\x20-\x7e\t\r\n]*\x01)*)\x01"
)


@server_side
def xoauth2_server(context: ServerContext, initial: bytes | None) -> ServerExchange:
    """XOAUTH2."""
    message = text((yield Challenge(b"")) if initial is None else initial, "XOAUTH2", MAX_LINE)
    match = _XOAUTH2.fullmatch(message)
    if match is None:
        raise Refusal(MALFORMED, "not a response of XOAUTH2")
    error = {"status": "401", "schemes": "bearer", "scope": context.oauth_scope}
    return (yield from _check("XOAUTH2", name(match["user"].encode(), "user"), match["auth"], error))


@server_side
def oauthbearer_server(context: ServerContext, initial: bytes | None) -> ServerExchange:
    """OAUTHBEARER. The authzid is the user's name, which the token has to confirm; host and port are ignored."""
    message = text((yield Challenge(b"")) if initial is None else initial, "OAUTHBEARER", MAX_LINE)
    match = _OAUTHBEARER.fullmatch(message)
    if match is None:
        raise Refusal(MALFORMED, "not a response of OAUTHBEARER")
    pairs = [pair.split("=", 1) for pair in match["pairs"].split("\x01")[:-1]]
    auths = [value for key, value in pairs if key == "auth"]
    if len(auths) > 1:
        raise Refusal(MALFORMED, "OAUTHBEARER with more than one auth")
    user = name((match["authzid"] or "").replace("=2C", ",").replace("=3D", "=").encode(), "authzid")
    error = {
        "status": "invalid_token",
        "scope": context.oauth_scope,
        "openid-configuration": context.openid_configuration,
    }
    # RFC 7628 3.2.2, 4.3: a client without a token asks what it would need, and gets the same error.
    return (yield from _check("OAUTHBEARER", user, "".join(auths), error))


def _check(mechanism: str, user: str, auth: str, error: dict[str, str]) -> ServerExchange:
    bearer = _BEARER.fullmatch(auth)
    why = "no bearer token"
    if bearer is not None:
        if len(bearer["token"]) > MAX_TOKEN:
            raise Refusal(MALFORMED, f"token longer than {MAX_TOKEN} octets")
        answer = yield CheckToken(user, bearer["token"], mechanism)
        if not (answer is None or isinstance(answer, bool | str)):
            raise TypeError(f"check_token answers a user, True, False or None, not {type(answer).__name__}")
        owner = user if answer is True else answer
        if owner:
            return Success(owner)
        why = "token refused"
    told = json.dumps({key: value for key, value in error.items() if value}, separators=(",", ":"))
    # The response is ignored: RFC 7628 3.2.3 has %x01, clients of XOAUTH2 send nothing.
    yield Challenge(told.encode(), refused=True)
    return Failure(BAD_CREDENTIALS, why)


def xoauth2_client(context: ClientContext) -> ClientExchange:
    """XOAUTH2. Raises SaslError without a user and a token, and when the token is refused."""
    if not context.user or "\x01" in context.user:
        raise SaslError("XOAUTH2 needs a user, without %x01")
    yield from _told(f"user={context.user}\x01auth=Bearer {_token(context)}\x01\x01", b"")


def oauthbearer_client(context: ClientContext) -> ClientExchange:
    """OAUTHBEARER. Raises SaslError without a token, and when it is refused."""
    user = context.authzid or context.user
    if "\x01" in user + context.host or "\0" in user + context.host:
        raise SaslError("OAUTHBEARER takes a user and a host without %x01 and NUL")
    authzid = "a=" + user.replace("=", "=3D").replace(",", "=2C") if user else ""
    host = f"host={context.host}\x01" if context.host else ""
    port = f"port={context.port}\x01" if context.port else ""
    yield from _told(f"n,{authzid},\x01{host}{port}auth=Bearer {_token(context)}\x01\x01", b"\x01")


def _token(context: ClientContext) -> str:
    if not context.token or not _TOKEN.fullmatch(context.token):
        raise SaslError("a bearer token is needed, of letters, digits and -._~+/ (RFC 6750 2.1)")
    return context.token


def _told(message: str, dummy: bytes) -> ClientExchange:
    """Send the token. A challenge is an error: it gets the response `dummy`, so that the server can say 535."""
    if (yield Response(message.encode())) is not None:
        yield Response(dummy)
        raise SaslError("the server went on after it had refused the token")
