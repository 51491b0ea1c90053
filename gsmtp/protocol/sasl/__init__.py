"""SASL without I/O: the mechanisms of AUTH (RFC 4954), server and client side, in one table.

exchange.py says how a mechanism is driven. This file has the table of mechanisms, and the rules by which a server
offers them and a client chooses one. A new mechanism is a row.

    initial = None or decode_initial(argument)
    exchange = MECHANISMS[name].server(context, initial)
    step = advance(exchange)
    while not isinstance(step, Success | Failure):
        step = advance(exchange, the client's decoded response, or the handler's answer)
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial

from gsmtp.protocol.sasl.cram import cram_md5_client, cram_md5_server
from gsmtp.protocol.sasl.credentials import ScramCredentials
from gsmtp.protocol.sasl.exchange import (
    BAD_CREDENTIALS,
    MALFORMED,
    MAX_LINE,
    Challenge,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    ClientContext,
    ClientExchange,
    Failure,
    GetPassword,
    Question,
    Response,
    SaslError,
    ServerContext,
    ServerExchange,
    Success,
    advance,
    decode,
    decode_initial,
    encode,
    encode_initial,
)
from gsmtp.protocol.sasl.oauth import oauthbearer_client, oauthbearer_server, xoauth2_client, xoauth2_server
from gsmtp.protocol.sasl.plain import (
    external_client,
    external_server,
    login_client,
    login_server,
    plain_client,
    plain_server,
)
from gsmtp.protocol.sasl.prepare import saslprep
from gsmtp.protocol.sasl.scram import scram_client, scram_server

__all__ = [
    "BAD_CREDENTIALS",
    "MALFORMED",
    "MAX_LINE",
    "MECHANISMS",
    "Challenge",
    "CheckCertificate",
    "CheckPassword",
    "CheckToken",
    "ClientContext",
    "ClientExchange",
    "Failure",
    "GetPassword",
    "Mechanism",
    "Question",
    "Response",
    "SaslError",
    "ScramCredentials",
    "ServerContext",
    "ServerExchange",
    "Success",
    "advance",
    "choose",
    "decode",
    "decode_initial",
    "encode",
    "encode_initial",
    "offered",
    "saslprep",
]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One row of the table.

    `hook` is the hook that the handler must have. `secret` is the field of `ClientContext` that a client needs.
    `plaintext` says that whoever reads the connection can log in afterwards. `binding` and `certificate` say that TLS
    must provide channel binding, or a verified certificate of the client.
    """

    name: str
    server: Callable[[ServerContext, bytes | None], ServerExchange]
    client: Callable[[ClientContext], ClientExchange]
    hook: str
    secret: str
    plaintext: bool = False
    binding: bool = False
    certificate: bool = False


# Strongest first: a key that never leaves the client, proofs on both sides, tokens that run out, a proof on one side,
# the password itself.
MECHANISMS = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism("EXTERNAL", external_server, external_client, "check_certificate", "certificate", certificate=True),
        Mechanism(
            "SCRAM-SHA-256-PLUS",
            partial(scram_server, plus=True),
            partial(scram_client, plus=True),
            "get_password",
            "password",
            binding=True,
        ),
        Mechanism("SCRAM-SHA-256", scram_server, scram_client, "get_password", "password"),
        Mechanism("OAUTHBEARER", oauthbearer_server, oauthbearer_client, "check_token", "token", plaintext=True),
        Mechanism("XOAUTH2", xoauth2_server, xoauth2_client, "check_token", "token", plaintext=True),
        Mechanism("CRAM-MD5", cram_md5_server, cram_md5_client, "get_password", "password"),
        Mechanism("PLAIN", plain_server, plain_client, "check_password", "password", plaintext=True),
        Mechanism("LOGIN", login_server, login_client, "check_password", "password", plaintext=True),
    )
}


def offered(
    hooks: Set[str],
    *,
    tls: bool,
    channel_binding: bool = False,
    client_certificate: bool = False,
    without_tls: bool = False,
) -> tuple[str, ...]:
    """Return the mechanisms that a server with these hooks offers on this connection, strongest first.

    Without TLS there are none unless `without_tls`. That includes the mechanisms that hide the password, because it
    can be guessed from what they send. Names are in upper case; RFC 4954 4 lets clients write them in any case.
    """
    if not (tls or without_tls):
        return ()
    return tuple(
        mechanism.name
        for mechanism in MECHANISMS.values()
        if mechanism.hook in hooks
        and (not mechanism.binding or (tls and channel_binding))
        and (not mechanism.certificate or (tls and client_certificate))
    )


def choose(context: ClientContext, *, tls: bool, without_tls: bool = False) -> Mechanism | None:
    """Return the strongest mechanism that the server offers and the client can use, or None.

    A mechanism that shows a password or a token is used over TLS only, unless `without_tls`.
    """
    names = {name.upper() for name in context.offered}
    for mechanism in MECHANISMS.values():
        if (
            mechanism.name in names
            and getattr(context, mechanism.secret)
            and (tls or without_tls or not mechanism.plaintext)
            and (not mechanism.binding or context.channel_bindings)
        ):
            return mechanism
    return None
