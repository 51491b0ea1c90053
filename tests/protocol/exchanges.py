"""Drives exchanges of SASL in memory: a handler's answers, and the two sides against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gsmtp.protocol.sasl import (
    MECHANISMS,
    Challenge,
    CheckCertificate,
    CheckPassword,
    CheckToken,
    ClientContext,
    Failure,
    GetPassword,
    Response,
    ServerContext,
    ServerExchange,
    Success,
    advance,
    decode,
    decode_initial,
    encode,
    encode_initial,
)

SECRET = b"a secret of the test: 32 octets.."
CONTEXT = ServerContext(hostname="mx.example.net", secret=SECRET)


@dataclass
class Directory:
    """Answers questions as a handler would, and keeps them."""

    passwords: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    certificate: Any = None
    delegates: frozenset[tuple[str, str]] = frozenset()
    asked: list[Any] = field(default_factory=list)

    def answer(self, question: Any) -> Any:
        self.asked.append(question)
        match question:
            case CheckPassword(user, password, authzid):
                if authzid not in ("", user) and (user, authzid) not in self.delegates:
                    return False
                return self.passwords.get(user) == password
            case GetPassword(user, _):
                return self.passwords.get(user)
            case CheckToken(_, token, _):
                return self.tokens.get(token)
            case CheckCertificate(_):
                return self.certificate
        raise AssertionError(question)


def run(exchange: ServerExchange, directory: Directory, *responses: bytes) -> tuple[Success | Failure, list[Challenge]]:
    """Send the responses one after the other; the end of the exchange, and the challenges on the way."""
    left, challenges = list(responses), []
    step = advance(exchange)
    while not isinstance(step, Success | Failure):
        if isinstance(step, Challenge):
            challenges.append(step)
            step = advance(exchange, left.pop(0))
        else:
            step = advance(exchange, directory.answer(step))
    assert not left, "the exchange ended before the last response"
    return step, challenges


def serve(name: str, directory: Directory, initial: bytes | None, *responses: bytes) -> Success | Failure:
    """The end of an exchange with a server of CONTEXT."""
    return run(MECHANISMS[name].server(CONTEXT, initial), directory, *responses)[0]


def converse(
    name: str, server: ServerContext, client: ClientContext, directory: Directory
) -> tuple[Success | Failure, list[bytes]]:
    """A server and a client against each other, in base64 as on the wire; the end, and the client's responses."""
    speaker = MECHANISMS[name].client(client)
    spoken = advance(speaker)
    assert isinstance(spoken, Response)
    said = [] if spoken.data is None else [spoken.data]
    initial = None if spoken.data is None else decode_initial(encode_initial(spoken.data))
    listener = MECHANISMS[name].server(server, initial)
    step = advance(listener)
    while not isinstance(step, Success | Failure):
        if isinstance(step, Challenge):
            spoken = advance(speaker, decode(encode(step.data)))
            assert isinstance(spoken, Response) and spoken.data is not None
            said.append(spoken.data)
            step = advance(listener, decode(encode(spoken.data)))
        else:
            step = advance(listener, directory.answer(step))
    if isinstance(step, Success):
        assert advance(speaker, None) is None, "the client is not content"
    else:
        speaker.close()
    return step, said
