"""One SASL exchange (RFC 4422) as a generator: its steps on either side, base64, and the limits.

The server's side of a mechanism yields a `Challenge` and is sent the client's decoded response, or yields a question
(`CheckPassword`, `GetPassword`, `CheckToken`, `CheckCertificate`) and is sent the handler's answer. It returns
`Success` or `Failure`. Nothing that a client sends makes it raise an exception. An answer of the wrong type raises
TypeError, so that a handler's mistake never lets anyone in.

The client's side yields a `Response` and is sent the server's decoded challenge, or None once the server has said
235. It returns when the exchange is complete, and raises `SaslError` when the server has not followed the mechanism.

Both are driven by `advance`. To give up an exchange, close the generator. There is no clock, no socket and no state
outside the generator. No repr shows a secret (password, token, key, response). Weak: the generator's locals hold
secrets for as long as it lives, because Python cannot wipe a str.
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
    """The client's side cannot go on: the mechanism cannot carry the credentials, or the server broke its rules."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """The server sends 334 with `data` in base64 (RFC 4954 4).

    With `refused` the credentials are wrong already, and the challenge only tells the client more. Whatever follows,
    a cancel or a closed connection too, counts as a failed attempt.
    """

    data: bytes
    refused: bool = False


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """May `user` log in by `password`, and act as `authzid` ("": as itself)? Answer True, or False or None.

    Both are prepared by SASLprep, and neither is empty. A handler without support for authzid answers False when there
    is one.
    """

    user: str
    password: str = field(repr=False)
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class GetPassword:
    """What is the password of `user`? For SCRAM its `ScramCredentials` will do. None means that the user is unknown."""

    user: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class CheckToken:
    """Is the bearer `token` good for `user`, the name that the client gave ("": it gave none)?

    Answer True, or the name of the user to be logged in, which replaces the client's. False and None refuse. True
    refuses too when `user` is "", because there is nobody to log in.
    """

    user: str
    token: str = field(repr=False)
    mechanism: str


@dataclass(frozen=True, slots=True)
class CheckCertificate:
    """Which user owns the client certificate of this TLS session, and may act as `authzid` ("": as itself)?

    Answer the user's name; None refuses.
    """

    authzid: str


Question = CheckPassword | GetPassword | CheckToken | CheckCertificate


@dataclass(frozen=True, slots=True)
class Success:
    """`user` is logged in, and may act as `authzid` ("": as itself)."""

    user: str
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The exchange failed. `reply` is for the client and tells little; `why` is for the log and holds no secret."""

    reply: Reply
    why: str


ServerExchange = Generator[Challenge | Question, Any, Success | Failure]


class Refusal(Exception):
    """Raised within a server's exchange to end it; `failure` is what the exchange returns."""

    def __init__(self, reply: Reply, why: str) -> None:
        super().__init__(why)
        self.failure = Failure(reply, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """What the mechanisms of one session need to know. All octets are raw, not base64.

    - `hostname` is used in the challenge of CRAM-MD5.
    - `secret`, 16 octets or more, makes the salts of SCRAM for users who have none of their own. All workers must
      have the same one and keep it over restarts, because a salt that changes tells that a user does not exist.
    - `offered` has the mechanisms announced to this client, by which SCRAM detects a downgrade.
    - `channel_bindings` maps a type (tls-exporter, tls-unique, tls-server-end-point) to its data, for SCRAM's -PLUS.
    - `iterations` is SCRAM's number for a plain password or an unknown user. Where credentials are stored it should
      be theirs, because another number would tell which users are unknown.
    - `stored_keys` says that the handler answers `ScramCredentials` and not passwords. An unknown user then costs no
      key derivation either.
    - `oauth_scope` and `openid_configuration` are told to a client whose token was refused; "" leaves them out.

    Raises ValueError for a short secret or fewer iterations than 4096.
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
    """The client sends `data` in base64. None comes first only: AUTH has no initial response then (RFC 4954 4)."""

    data: bytes | None = field(repr=False)


ClientExchange = Generator[Response, bytes | None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientContext:
    """A client's credentials, and what it knows of the server.

    `password`, `token` and `certificate` (whether TLS was set up with one) are what the client has. `authzid` is the
    user to act as, "" for oneself. `host` and `port` are the server's, for OAUTHBEARER. `offered` and
    `channel_bindings` are as in `ServerContext`. Raises SaslError for a text that cannot be written in UTF-8.
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
    """Send `value` (None to begin). Return what the exchange yields next, or what it returned at its end.

    Raises what the exchange raises: TypeError for an answer of the wrong type, SaslError on the client's side.
    """
    try:
        return exchange.send(value)
    except StopIteration as end:
        result: _Returns = end.value
        return result


def encode(data: bytes) -> str:
    """Return `data` in base64, for a challenge or a response; `encode_initial` is for an initial response."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def encode_initial(data: bytes) -> str:
    """Return an initial response as the AUTH command has it; "=" stands for an empty one (RFC 4954 4)."""
    return encode(data) or "="


def decode(text: str | bytes) -> bytes:
    """Return the octets of a response or challenge. Raises ValueError unless it is strict base64 (RFC 4648 3.3, 4)."""
    if len(text) > MAX_LINE:
        raise ValueError("longer than a line of an exchange may be")
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ValueError("not base64") from None
    # RFC 4648 3.5: bits that are left over are zero, so that no two texts mean the same. Python 3.11 also takes surplus
    # padding after a whole group, strict or not.
    if binascii.b2a_base64(data, newline=False) != (text.encode() if isinstance(text, str) else text):
        raise ValueError("not canonical base64")
    return data


def decode_initial(text: str | bytes) -> bytes:
    """Return the octets of an initial response; "=" is the empty one (RFC 4954 4). Raises ValueError as `decode`."""
    return b"" if text in ("=", b"=") else decode(text)


# For the mechanisms


_Start = Callable[..., ServerExchange]


def server_side(function: _Start) -> _Start:
    """Decorate a server's mechanism so that it returns the `Failure` of a `Refusal` that is raised in it."""

    @wraps(function)
    def exchange(*args: Any, **kwargs: Any) -> ServerExchange:
        try:
            return (yield from function(*args, **kwargs))
        except Refusal as refusal:
            return refusal.failure

    return exchange


def text(data: bytes, what: str, limit: int) -> str:
    """Return `data` decoded from UTF-8. Raises Refusal if it is not UTF-8 or is longer than `limit` octets."""
    if len(data) > limit:
        raise Refusal(MALFORMED, f"{what} longer than {limit} octets")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refusal(MALFORMED, f"{what} is not UTF-8") from None


def name(data: bytes, what: str = "name") -> str:
    """Return a user or authzid decoded as by `text`.

    Raises Refusal for control characters too, because names are written to logs and headers.
    """
    result = text(data, what, MAX_NAME)
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in result):
        raise Refusal(MALFORMED, f"{what} with control characters")
    return result


def yes(answer: object) -> bool:
    """Return a decision as a bool; None is False.

    Raises TypeError for anything else: an object that merely counts as true, such as a coroutine, must let nobody in.
    """
    if answer is None or isinstance(answer, bool):
        return bool(answer)
    raise TypeError(f"a check answers True, False or None, not {type(answer).__name__}")
