"""One SASL exchange (RFC 4422) as a generator: what goes in and out of it on either side, base64, and the limits.

The server's side of a mechanism yields a `Challenge` and is sent the client's decoded response, or yields a question
(`CheckPassword`, `GetPassword`, `CheckToken`, `CheckCertificate`) and is sent the handler's answer. It returns
`Success` or `Failure`. Nothing that a client sends makes it raise; an answer of the wrong type does (TypeError), so
that a handler's mistake never lets anyone in.

The client's side yields a `Response` and is sent the server's decoded challenge, or None once the server has said
235. It returns when it is content with that, and raises `SaslError` when the server has not kept to the mechanism.

Both are driven by `advance`. Giving up an exchange is closing the generator. There is no clock, no socket and no
state outside the generator. Secrets (passwords, tokens, keys, responses) stand in no repr; they do stand in the
generator's locals for as long as it lives, as Python cannot wipe a str.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from gsmtp.reply import Reply

# RFC 4954 4: the maximum line of an exchange, in base64 without CRLF, is 12288 octets.
MAX_LINE = 12_288
# RFC 4616 2: authzid and authcid of up to 255 octets must be accepted, and an address has at most 254.
MAX_NAME = 255
# RFC 4616 2 asks for 255 octets; application passwords and tokens given as a password are longer.
MAX_PASSWORD = 4096
# Signed tokens with many claims reach some 4 KiB; HTTP servers stop at 8 KiB of header. Fits MAX_LINE with its frame.
MAX_TOKEN = 8192

# RFC 4954 4 and 6. The first counts as an attempt that failed, the second is an error of the client.
BAD_CREDENTIALS = Reply(535, "5.7.8", "Authentication credentials invalid")
MALFORMED = Reply(501, "5.5.2", "Malformed authentication data")


class SaslError(ValueError):
    """The client's side cannot go on: credentials that the mechanism cannot carry, or a server that broke its rules."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """To the client: `334` and `data` in base64 (RFC 4954 4).

    With `refused` the credentials were found wrong and this only tells the client more: whatever follows, be it a
    cancel or a closed connection, is a failed attempt and is to be counted.
    """

    data: bytes
    refused: bool = False


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """May `user` log in by `password`, and act as `authzid` ("": as itself)? Answer True, or False or None.

    Both are prepared by SASLprep, and neither is empty. Who knows nothing of authzid answers False where there is one.
    """

    user: str
    password: str = field(repr=False)
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class GetPassword:
    """What proves `user` in `mechanism`? Answer the password, or for SCRAM its `ScramCredentials`; None: unknown."""

    user: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class CheckToken:
    """Is the bearer `token` good for `user`, the name that the client gave ("": it gave none)?

    Answer True, or the name of the user to be logged in, which then takes the place of the client's; False or None
    refuse. True where `user` is "" refuses too: there is nobody to log in.
    """

    user: str
    token: str = field(repr=False)
    mechanism: str


@dataclass(frozen=True, slots=True)
class CheckCertificate:
    """Whose is the client certificate of this TLS session, if it may act as `authzid` ("": as itself)? None refuses."""

    authzid: str


Question = CheckPassword | GetPassword | CheckToken | CheckCertificate


@dataclass(frozen=True, slots=True)
class Success:
    """`user` is logged in; `authzid` is whom it asked, and was allowed, to act as, "" for itself."""

    user: str
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """`reply` is for the client and tells nothing more than it must; `why` is for the log and holds no secret."""

    reply: Reply
    why: str


ServerExchange = Generator[Challenge | Question, Any, Success | Failure]


class Refusal(Exception):
    """Ends a server's exchange from within."""

    def __init__(self, reply: Reply, why: str) -> None:
        super().__init__(why)
        self.failure = Failure(reply, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """What the mechanisms of one session need to know. All octets are raw, not base64.

    - `hostname` stands in the challenge of CRAM-MD5.
    - `secret`, 16 octets or more, makes the salts of SCRAM for users who have none of their own. All workers must
      have the same one, and keep it over restarts: else a salt that changes tells that a user does not exist.
    - `offered`: the mechanisms announced to this client, for SCRAM's detection of a downgrade.
    - `channel_bindings`: type (tls-exporter, tls-unique, tls-server-end-point) to data, for SCRAM's -PLUS.
    - `iterations` for SCRAM with a plain password or an unknown user. Where credentials are stored, it should be
      theirs, or unknown users show by it.
    - `stored_keys`: the handler answers `ScramCredentials`, not passwords, so that an unknown user must not cost the
      time of a key derivation either.
    - `oauth_scope`, `openid_configuration`: told to a client whose token was refused, "" to leave out.

    ValueError for a short secret or fewer iterations than 4096.
    """

    hostname: str
    secret: bytes = field(repr=False)
    offered: tuple[str, ...] = ()
    channel_bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    iterations: int = 4096
    stored_keys: bool = False
    oauth_scope: str = ""
    openid_configuration: str = ""

    def __post_init__(self) -> None:
        if len(self.secret) < 16:
            raise ValueError("the secret needs 16 octets or more")
        if self.iterations < 4096:
            raise ValueError("RFC 7677 4 asks for 4096 iterations or more")


@dataclass(frozen=True, slots=True)
class Response:
    """To the server: `data` in base64; None, as the first, for AUTH without an initial response (RFC 4954 4)."""

    data: bytes | None = field(repr=False)


ClientExchange = Generator[Response, bytes | None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientContext:
    """What a client has to log in with, and what it knows of the server.

    `password`, `token` and `certificate` (TLS was set up with one) say what there is; `authzid` is whom to act as,
    "" for oneself. `host` and `port` are the server's, for OAUTHBEARER. `offered` and `channel_bindings` as in
    `ServerContext`. SaslError for a text that cannot be UTF-8.
    """

    user: str = ""
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    certificate: bool = False
    authzid: str = ""
    host: str = ""
    port: int = 0
    offered: tuple[str, ...] = ()
    channel_bindings: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for value in (self.user, self.password, self.token, self.authzid, self.host):
            try:
                (value or "").encode()
            except UnicodeEncodeError:
                # Not chained: the error holds the whole text.
                raise SaslError("credentials that cannot be written in UTF-8") from None


_Yields = TypeVar("_Yields")
_Returns = TypeVar("_Returns")


def advance(exchange: Generator[_Yields, Any, _Returns], value: object = None) -> _Yields | _Returns:
    """Send `value` (None to begin) and return what the exchange yields next, or what it returned at its end."""
    try:
        return exchange.send(value)
    except StopIteration as end:
        result: _Returns = end.value
        return result


def encode(data: bytes) -> str:
    """Base64 for the wire; for an initial response use `encode_initial`."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def encode_initial(data: bytes) -> str:
    """An initial response for the AUTH command: "=" stands for the empty one (RFC 4954 4)."""
    return encode(data) or "="


def decode(text: str | bytes) -> bytes:
    """The octets of one response or challenge; ValueError unless it is base64 to the letter (RFC 4648 3.3, 4)."""
    if len(text) > MAX_LINE:
        raise ValueError("longer than a line of an exchange may be")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ValueError("not base64") from None
    # RFC 4648 3.5: bits that are left over are zero, so that no two texts mean the same. And Python 3.11 lets surplus
    # padding pass after a whole group, strict or not.
    if binascii.b2a_base64(data, newline=False) != (text.encode() if isinstance(text, str) else text):
        raise ValueError("not canonical base64")
    return data


def decode_initial(text: str | bytes) -> bytes:
    """The octets of an initial response, where "=" is the empty one (RFC 4954 4). ValueError as `decode`."""
    return b"" if text in ("=", b"=") else decode(text)


# For the mechanisms


_Start = Callable[..., ServerExchange]


def server_side(function: _Start) -> _Start:
    """A server's mechanism: a `Refusal` raised in it is the `Failure` it returns."""

    @wraps(function)
    def exchange(*args: Any, **kwargs: Any) -> ServerExchange:
        try:
            return (yield from function(*args, **kwargs))
        except Refusal as refusal:
            return refusal.failure

    return exchange


def text(data: bytes, what: str, limit: int) -> str:
    """`data` as UTF-8. Raises Refusal if it is not, or is longer than `limit` octets."""
    if len(data) > limit:
        raise Refusal(MALFORMED, f"{what} longer than {limit} octets")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal(MALFORMED, f"{what} is not UTF-8") from None


def name(data: bytes, what: str = "name") -> str:
    """A user or authzid as `text`, without control characters: it will stand in logs and headers."""
    result = text(data, what, MAX_NAME)
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in result):
        raise Refusal(MALFORMED, f"{what} with control characters")
    return result


def yes(answer: object) -> bool:
    """A decision must be a bool: what merely counts as true, such as a coroutine never awaited, must let nobody in."""
    if answer is None or isinstance(answer, bool):
        return bool(answer)
    raise TypeError(f"a check answers True, False or None, not {type(answer).__name__}")
