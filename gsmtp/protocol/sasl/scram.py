"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677): both sides prove that they know the password.

Neither side shows the password, and the server need not have it. -PLUS ties the exchange to its TLS connection, which
keeps a man in the middle out. It uses the channel binding that the session has data for: tls-exporter (RFC 9266),
tls-unique or tls-server-end-point (RFC 5929).

An unknown user is carried through to the end with a salt of its own that never changes, and fails like a wrong
password. Where the handler has plain passwords, known users get their salt the same way. Weak: the time that the
handler takes to answer may tell the two apart, and so may stored credentials with other iterations than the context's.

SMTP has no place for data beside 235, so the server's signature is one more challenge, to which the client's response
is empty (RFC 4422 5, RFC 4954 4). The client is not told which error it was (`e=`), because 535 says enough.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from gsmtp.protocol.sasl.credentials import (
    ITERATIONS,
    SALT_LENGTH,
    ScramCredentials,
    derive_keys,
    known_password,
)
from gsmtp.protocol.sasl.exchange import (
    BAD_CREDENTIALS,
    MALFORMED,
    MAX_LINE,
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
    decode,
    encode,
    name,
    server_side,
    text,
)
from gsmtp.protocol.sasl.plain import last
from gsmtp.protocol.sasl.prepare import saslprep

SCRAM, SCRAM_PLUS = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"

# RFC 5802 5.1 sets no length. Peers send 18 to 64 octets. The server repeats a nonce, so a long one would make it send
# much for little.
MAX_NONCE = 256
# A server may ask for any number and the client has to compute it: 600,000 is what is advised for stored passwords
# today; ten times that is some 3 s of processor, and more is an attack on the client.
MAX_ITERATIONS = 6_000_000
# 24 octets of randomness; RFC 5802 5.1 wants it fresh for each exchange.
_NONCE_LENGTH = 24

# For the client, best first. RFC 9266 3: tls-exporter is the default from TLS 1.3 on, RFC 5802 6: tls-unique before.
CHANNEL_BINDINGS = ("tls-exporter", "tls-unique", "tls-server-end-point")

# RFC 5802 7. printable = %x21-2B / %x2D-7E; saslname = 1*(value-safe-char / "=2C" / "=3D")
_NONCE = rf"[\x21-\x2b\x2d-\x7e]{{1,{MAX_NONCE}}}"
_SASLNAME = r"(?:[^\0,=]|=2C|=3D)+"
# extensions = attr-val *("," attr-val); attr-val = ALPHA "=" value. They are optional, and are passed over.
_EXTENSIONS = r"(?:,[A-Za-z]=[^\0,]+)*"
# gs2-header = gs2-cbind-flag "," [ authzid ] ","; gs2-cbind-flag = ("p=" cb-name) / "n" / "y"; authzid = "a=" saslname
# client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]; what is reserved must fail
_CLIENT_FIRST = re.compile(
    rf"(?P<gs2>(?:(?P<flag>[ny])|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=(?P<authzid>{_SASLNAME}))?,)"
    rf"(?P<bare>n=(?P<user>{_SASLNAME}),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
# server-first-message = [reserved-mext ","] nonce "," salt "," iteration-count ["," extensions]
_SERVER_FIRST = re.compile(
    rf"r=(?P<nonce>[\x21-\x2b\x2d-\x7e]{{1,{2 * MAX_NONCE}}}),s=(?P<salt>[A-Za-z0-9+/]+=*),"
    rf"i=(?P<iterations>[1-9][0-9]{{0,9}}){_EXTENSIONS}"
)
# client-final-message = channel-binding "," nonce ["," extensions] "," proof
_CLIENT_FINAL = re.compile(
    rf"(?P<unproven>c=(?P<binding>[A-Za-z0-9+/]+=*),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+){_EXTENSIONS})"
    r",p=(?P<proof>[A-Za-z0-9+/]{43}=)"
)


@dataclass(frozen=True, slots=True)
class _Opening:
    """The parts of the client's first message."""

    gs2: str
    bare: str
    user: str
    nonce: str
    binding: bytes


@server_side
def scram_server(
    context: ServerContext, initial: bytes | None, *, plus: bool = False, nonce: str | None = None
) -> ServerExchange:
    """SCRAM-SHA-256, with channel binding if `plus`. `nonce` is the server's part, random unless given."""
    opening = _open(context, (yield Challenge(b"")) if initial is None else initial, plus)
    answer = known_password((yield GetPassword(opening.user, SCRAM_PLUS if plus else SCRAM)))
    credentials, known = _credentials(context, opening.user, answer)
    nonce = opening.nonce + (nonce or secrets.token_urlsafe(_NONCE_LENGTH))
    server_first = f"r={nonce},s={encode(credentials.salt)},i={credentials.iterations}"

    message = text((yield Challenge(server_first.encode())), "SCRAM message", MAX_LINE)
    final = _CLIENT_FINAL.fullmatch(message)
    if final is None:
        raise Refusal(MALFORMED, "not a final message of SCRAM")
    if final["nonce"] != nonce:
        raise Refusal(BAD_CREDENTIALS, "SCRAM nonce is not that of this exchange")
    if not hmac.compare_digest(_decoded(final["binding"]), opening.gs2.encode() + opening.binding):
        raise Refusal(BAD_CREDENTIALS, "SCRAM channel binding does not match")
    signed = f"{opening.bare},{server_first},{final['unproven']}".encode()
    # RFC 5802 3: ClientKey := ClientProof XOR ClientSignature, and its hash must be the StoredKey.
    client_key = _xor(_decoded(final["proof"]), hmac.digest(credentials.stored_key, signed, "sha256"))
    proven = hmac.compare_digest(hashlib.sha256(client_key).digest(), credentials.stored_key)
    if not (proven and known):
        return Failure(BAD_CREDENTIALS, "SCRAM proof does not match, or the user is not known")
    signature = hmac.digest(credentials.server_key, signed, "sha256")
    if (yield Challenge(b"v=" + encode(signature).encode())):
        raise Refusal(MALFORMED, "SCRAM ends with an empty response")
    return Success(opening.user)


def _open(context: ServerContext, message: bytes, plus: bool) -> _Opening:
    first = _CLIENT_FIRST.fullmatch(text(message, "SCRAM message", MAX_LINE))
    if first is None:
        raise Refusal(MALFORMED, "not a first message of SCRAM")
    binding = b""
    if plus != (first["binding"] is not None):
        raise Refusal(MALFORMED, "SCRAM's channel binding flag does not fit the mechanism")
    if plus:
        found = context.channel_bindings.get(first["binding"])
        if not found:
            raise Refusal(BAD_CREDENTIALS, f"SCRAM with {first['binding']}, which this connection has no data for")
        binding = found
    elif first["flag"] == "y" and SCRAM_PLUS in context.offered:
        # RFC 5802 6: the client could bind but was not told that we can. Someone has edited the list on its way.
        raise Refusal(BAD_CREDENTIALS, "SCRAM was downgraded: the client did not see that -PLUS is offered")
    given = name(_unescape(first["user"]).encode(), "user")
    try:
        user = saslprep(given)
    except ValueError as error:
        raise Refusal(BAD_CREDENTIALS, f"user {error}") from None
    if first["authzid"] is not None and _unescape(first["authzid"]) not in (given, user):
        # Only CheckPassword and CheckCertificate ask whether one user may act as another; nobody is asked here.
        raise Refusal(BAD_CREDENTIALS, "SCRAM with an authzid that is not the user")
    return _Opening(first["gs2"], first["bare"], user, first["nonce"], binding)


def _credentials(
    context: ServerContext, user: str, answer: str | ScramCredentials | None
) -> tuple[ScramCredentials, bool]:
    """Return the credentials that the proof is checked against, and whether a proof counts."""
    # The decoy is made for known users too, so that its few microseconds do not tell who is known.
    salt = hmac.digest(context.secret, b"SCRAM salt\0" + user.encode(), "sha256")[:SALT_LENGTH]
    decoy = ScramCredentials(salt, context.iterations, secrets.token_bytes(32), secrets.token_bytes(32))
    if isinstance(answer, ScramCredentials):
        return answer, True
    password = None
    if answer is not None:
        try:
            password = saslprep(answer, stored=True)
        except ValueError:
            pass  # nobody can prove to know such a password
    if password is None and context.stored_keys:
        return decoy, False
    client_key, server_key = derive_keys(password or "unknown", salt, context.iterations)
    credentials = ScramCredentials(salt, context.iterations, hashlib.sha256(client_key).digest(), server_key)
    return credentials, password is not None


def scram_client(context: ClientContext, *, plus: bool = False, nonce: str | None = None) -> ClientExchange:
    """SCRAM-SHA-256, with channel binding if `plus`. `nonce` is random unless given.

    Raises SaslError without a user and a password, or if SASLprep refuses them; if the server does not prove that it
    knows the password; and if it asks for fewer iterations than 4096 (RFC 7677 4: cheap to guess from) or for more
    than MAX_ITERATIONS.
    """
    try:
        user, password = saslprep(context.user), saslprep(context.password or "", stored=True)
    except ValueError as error:
        raise SaslError(f"SCRAM needs a user and a password: {error}") from None
    flag, binding = _flag(context, plus)
    gs2 = f"{flag},{'a=' + _escape(context.authzid) if context.authzid else ''},"
    nonce = nonce or secrets.token_urlsafe(_NONCE_LENGTH)
    bare = f"n={_escape(user)},r={nonce}"

    server_first = _server_text((yield Response((gs2 + bare).encode())))
    first = _SERVER_FIRST.fullmatch(server_first)
    if first is None:
        raise SaslError("the server's first message is not SCRAM")
    if not first["nonce"].startswith(nonce) or first["nonce"] == nonce:
        raise SaslError("the server's nonce does not go on from ours")
    iterations = int(first["iterations"])
    if not ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise SaslError(f"the server asks for {iterations} iterations")
    try:
        salt = decode(first["salt"])
    except ValueError:
        raise SaslError("the server's salt is not base64") from None
    client_key, server_key = derive_keys(password, salt, iterations)
    unproven = f"c={encode(gs2.encode() + binding)},r={first['nonce']}"
    signed = f"{bare},{server_first},{unproven}".encode()
    stored_key = hashlib.sha256(client_key).digest()
    proof = _xor(client_key, hmac.digest(stored_key, signed, "sha256"))

    verdict = _server_text((yield Response(f"{unproven},p={encode(proof)}".encode())))
    signature = hmac.digest(server_key, signed, "sha256")
    if not hmac.compare_digest(verdict.partition(",")[0].encode(), f"v={encode(signature)}".encode()):
        raise SaslError("the server has not proved that it knows the password")
    yield from last(Response(b""))


def _flag(context: ClientContext, plus: bool) -> tuple[str, bytes]:
    """Return the channel binding flag (RFC 5802 6) and its data. Raises SaslError if `plus` and there is none."""
    for kind in CHANNEL_BINDINGS:
        data = context.channel_bindings.get(kind)
        if data and plus:
            return f"p={kind}", data
        if data and SCRAM_PLUS not in context.offered:
            return "y", b""
    if plus:
        raise SaslError("there is nothing to bind to")
    return "n", b""


def _server_text(challenge: bytes | None) -> str:
    if challenge is None:
        raise SaslError("the server accepted without a proof of its own")
    try:
        return challenge.decode()
    except UnicodeDecodeError:
        raise SaslError("the server's message is not UTF-8") from None


def _decoded(value: str) -> bytes:
    try:
        return decode(value)
    except ValueError:
        raise Refusal(MALFORMED, "SCRAM attribute is not base64") from None


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(left ^ right for left, right in zip(one, other, strict=True))


def _escape(value: str) -> str:
    return value.replace("=", "=3D").replace(",", "=2C")


def _unescape(value: str) -> str:
    return value.replace("=2C", ",").replace("=3D", "=")
