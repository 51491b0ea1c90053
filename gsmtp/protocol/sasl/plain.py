"""PLAIN (RFC 4616), LOGIN and EXTERNAL (RFC 4422 A), in which the client says a name and at most a password.

LOGIN never got beyond a draft (draft-murchison-sasl-login). It is PLAIN in two steps and treated as that, SASLprep
included, so that a password is good in both or in neither. Weak: PLAIN and LOGIN show the password to whoever reads
the connection. `gsmtp.protocol.sasl.offered` decides that they are not offered without TLS.
"""

from __future__ import annotations

from gsmtp.protocol.sasl.exchange import (
    BAD_CREDENTIALS,
    MALFORMED,
    MAX_PASSWORD,
    Challenge,
    CheckCertificate,
    CheckPassword,
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
    yes,
)
from gsmtp.protocol.sasl.prepare import saslprep


@server_side
def plain_server(context: ServerContext, initial: bytes | None) -> ServerExchange:
    """PLAIN: one response has authzid, user and password."""
    # RFC 4616 2: message = [authzid] UTF8NUL authcid UTF8NUL passwd
    fields = ((yield Challenge(b"")) if initial is None else initial).split(b"\0")
    if len(fields) != 3:
        raise Refusal(MALFORMED, f"PLAIN has {len(fields)} fields, not 3")
    return (yield from _check(fields[1], fields[2], name(fields[0], "authzid")))


@server_side
def login_server(context: ServerContext, initial: bytes | None) -> ServerExchange:
    """LOGIN: one response has the user, which may be the initial response, and the next the password."""
    user = (yield Challenge(b"Username:")) if initial is None else initial
    name(user, "user")  # before the password is asked for
    return (yield from _check(user, (yield Challenge(b"Password:")), ""))


def _check(user: bytes, password: bytes, authzid: str) -> ServerExchange:
    given_user, given_password = name(user, "user"), text(password, "password", MAX_PASSWORD)
    try:
        # RFC 4616 2: what cannot be prepared, or is empty then, fails the verification.
        question = CheckPassword(saslprep(given_user), saslprep(given_password), authzid)
    except ValueError as error:
        return Failure(BAD_CREDENTIALS, f"user or password {error}")
    if yes((yield question)):
        return Success(question.user, authzid)
    return Failure(BAD_CREDENTIALS, "user or password refused")


@server_side
def external_server(context: ServerContext, initial: bytes | None) -> ServerExchange:
    """EXTERNAL: the client certificate decides; the response has an authzid or is empty."""
    authzid = name((yield Challenge(b"")) if initial is None else initial, "authzid")
    user = yield CheckCertificate(authzid)
    if user is None:
        return Failure(BAD_CREDENTIALS, "certificate refused")
    if not isinstance(user, str):
        raise TypeError(f"check_certificate answers a user or None, not {type(user).__name__}")
    return Success(user, authzid) if user else Failure(BAD_CREDENTIALS, "certificate without a user")


def plain_client(context: ClientContext) -> ClientExchange:
    """PLAIN. The server prepares the strings, so they are sent as they are (RFC 4616 2).

    Raises SaslError without a user and a password, and for NUL in one of them.
    """
    fields = (context.authzid, context.user, context.password or "")
    if any("\0" in field for field in fields) or not (fields[1] and fields[2]):
        raise SaslError("PLAIN needs a user and a password, without NUL")
    yield from last(Response("\0".join(fields).encode()))


def login_client(context: ClientContext) -> ClientExchange:
    """LOGIN. The prompts are ignored, because servers word them as they like.

    Raises SaslError without a user and a password.
    """
    if not (context.user and context.password):
        raise SaslError("LOGIN needs a user and a password")
    yield from challenged(Response(None))
    yield from challenged(Response(context.user.encode()))
    yield from last(Response(context.password.encode()))


def external_client(context: ClientContext) -> ClientExchange:
    """EXTERNAL. The server derives an empty authzid (RFC 4422 A.1). Raises SaslError for an authzid with NUL."""
    if "\0" in context.authzid:
        raise SaslError("an authzid has no NUL")
    yield from last(Response(context.authzid.encode()))


def challenged(response: Response) -> ClientExchange:
    """Send a response that a challenge must follow. Raises SaslError when the server accepts instead."""
    if (yield response) is None:
        raise SaslError("the server accepted before the exchange was over")


def last(response: Response) -> ClientExchange:
    """Send the last response. Raises SaslError when another challenge follows."""
    if (yield response) is not None:
        raise SaslError("the server went on after the exchange was over")
