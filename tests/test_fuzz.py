"""The dialogues, spoilt in some 100,000 ways, in memory: what holds whatever a client sends.

No exception and no hang; only well-formed replies, and no secret in one; the same however the octets are sliced; and
nothing of a content is obeyed as a command, be it after DATA or in a BDAT.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import random
import re
import secrets
import signal
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

import pytest
from dialogue import InMemory, Script, Setup, scripts

from gsmtp.protocol.proxy import ProxyCommand, ProxyError, ProxyFamily, ProxyHeader, ProxyReader, ProxyTls, encode
from gsmtp.protocol.server.states import State

_ANSWERS = re.compile(rb"(?:(?:([2-5][0-5][0-9])-[\t\x20-\x7e]*\r\n(?=\1))*[2-5][0-5][0-9] [\t\x20-\x7e]*\r\n)*")
_CHUNK = re.compile(rb"bdat +([0-9]+)", re.I)
_TOKENS = [
    b"\r", b"\n", b"\r\n", b".", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"\0", b"\xff", b"\xc3", b" ", b"<", b">", b'"',
    b"=", b"DATA\r\n", b"RSET\r\n", b"QUIT\r\n", b"MAIL FROM:<x@y>\r\n", b"RCPT TO:<x@y>\r\n", b"EHLO x\r\n",
    b"x" * 600, b"STARTTLS\r\n", b"AUTH PLAIN AGEAc2VjcmV0\r\n", b"AUTH LOGIN\r\n", b"*\r\n", b"BDAT 3\r\nabc",
    b"BDAT 9 LAST\r\nRSET\r\n.\r\n", b"BDAT 0 LAST\r\n", b"BDAT ", b"LHLO x\r\n", b"XCLIENT ADDR=192.0.2.5\r\n",
    b"XFORWARD NAME=x\r\n", b" LAST", b"9999999999", b"+0A", b"=\r\n",
]  # fmt: skip
_RICH = ("auth", "bdat", "starttls", "smtps", "lmtp", "xclient", "dsn", "deliver")
ALL = scripts()
Input = tuple[Script, Setup, bytes, bytes]


def sent(script: Script) -> tuple[bytes, bytes]:
    """What its client sends in clear, and under TLS where STARTTLS comes in it."""
    parts = [b""]
    for exchange in script.exchanges:
        parts[-1] += b"".join(exchange.packets)
        parts += [b""] * exchange.tls
    return parts[0], b"".join(parts[1:])


@pytest.fixture(scope="module", autouse=True)
def quick_and_without_chance() -> Iterator[None]:
    """CRAM-MD5 and SCRAM draw their challenges: conversations are compared here, which must draw the same. Keys of
    SCRAM are derived once, and failing hooks not logged. The whole may not take ten minutes."""
    logging.disable(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "randbits", lambda bits: bits)
        patch.setattr(secrets, "token_urlsafe", lambda octets: "x" * octets)
        patch.setattr(hashlib, "pbkdf2_hmac", functools.cache(hashlib.pbkdf2_hmac))
        signal.alarm(600)
        yield
        signal.alarm(0)
    logging.disable(logging.NOTSET)


class Chance(random.Random):
    """Draws inputs. What all dialogues send is cut into lines once, so that any line may come into any dialogue."""

    lines = [line for script in ALL for part in sent(script) for line in part.splitlines(True) if len(line) < 1000]

    def __init__(self, seed: int, handler: str = "") -> None:
        super().__init__(seed)
        # on_data draws on the connection, which is broken off here, so it has a test of its own.
        kinds = [handler or ("Plain" if each.handler == "Streaming" else each.handler) for each in ALL]
        self._all = [replace(script, handler=kind) for script, kind in zip(ALL, kinds, strict=True)]
        self._setups = [Setup(script) for script in self._all]
        self._sent = [sent(script) for script in self._all]
        # The long ones take long and have little in them that the others have not; in some there is more to spoil.
        self._weights = list(
            accumulate(
                (4 if script.name.startswith(_RICH) else 1) / (200 + len(clear) + len(secured))
                for script, (clear, secured) in zip(ALL, self._sent, strict=True)
            )
        )

    def input(self) -> Input:
        """A dialogue, spoilt once or more."""
        at = bisect(self._weights, self.random() * self._weights[-1])
        clear, secured = self._sent[at]
        if not secured or self.random() < 0.3:
            clear = self.spoilt(clear)
        if secured:
            secured = self.spoilt(secured)
        return self._all[at], self._setups[at], clear, secured

    def spoilt(self, data: bytes) -> bytes:
        """`data` with one to six mutations, mostly few, and sometimes broken off."""
        number = self.random
        if number() < 0.2:
            data = data[: int(number() * len(data))]
        for _ in range(1 + int(number() * number() * 6)):
            at = int(number() * (len(data) + 1))
            to = min(len(data), at + (1, 1, 2, 5, 30)[int(number() * 5)])
            kind = int(number() * 6)
            if kind == 0:
                data = data[:at] + _TOKENS[int(number() * len(_TOKENS))] + data[at:]
            elif kind == 1:
                data = data[:at] + data[to:]
            elif kind == 2:
                data = data[:at] + bytes([int(number() * 256)]) + data[at + 1 :]
            elif kind == 3:
                data = data[:to] + data[at:]
            elif kind == 4:
                data = data[:at] + _TOKENS[int(number() * len(_TOKENS))] + data[to:]
            else:
                start = data.rfind(b"\n", 0, at) + 1
                data = data[:start] + self.lines[int(number() * len(self.lines))] + data[start:]
        return data

    def sliced(self, data: bytes) -> list[bytes]:
        """In one to four pieces."""
        cuts = sorted(int(self.random() * (len(data) + 1)) for _ in range(int(self.random() * 4)))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def held(given: Input, clear: list[bytes], secured: list[bytes]) -> tuple[bytes, list[tuple[str, str, bytes]], str]:
    """What the server says to this, what its handler takes, and where the session then is."""
    memory = InMemory(*given[:2])
    said = memory.converse(clear, secured)
    state = memory.dispatcher.protocol.state
    where = f"{state.name}{' TLS' * memory.secure}{' AUTH' * (memory.dispatcher.session.user is not None)}"
    memory.end()
    return said, memory.messages, where


def held_by_lines(given: Input) -> tuple[bytes, list[tuple[str, str, bytes]]]:
    """Send line by line, and each content in two pieces, to see that nothing is said before its true end.

    Where that is, is found out here by a count or a search of its own.
    """
    script, setup, data, secured = given
    memory = InMemory(script, setup)
    protocol = memory.dispatcher.protocol

    def ends_at(end: int) -> bytes:
        """Send what is left of a content that ends there; beyond the data: it does not."""
        state = protocol.state
        assert memory.converse([data[at : end - 1]]) == b""
        assert protocol.state is state
        ended = memory.converse([data[end - 1 : end]])
        assert (ended == b"") == (end > len(data))
        assert end > len(data) or protocol.state is not state
        return ended

    try:
        said = memory.converse([])
        at, line, secure = 0, b"", memory.secure
        while not memory.closed:
            if memory.secure is not secure:  # what is left was in clear
                data, at, secure = secured, 0, True
            if at >= len(data):
                break
            state = protocol.state
            if state is State.CONTENT:
                # Counted from here, so that this stays right whichever newline ended the DATA line.
                found = (b"\r\n" + data[at:]).find(b"\r\n.\r\n")
                end = at + found + 3 if found >= 0 else len(data) + 1
                said += ends_at(end)
                at = end
            elif state is State.CHUNK:
                size = _CHUNK.match(line)
                assert size is not None, line
                end = min(at + int(size[1]), len(data) + 1)
                said += ends_at(end)
                at = end
            else:
                to = data.find(b"\n", at) + 1 or len(data)
                line = data[at:to]
                said += memory.converse([line])
                at = to
        return said, memory.messages
    finally:
        memory.end()


@pytest.mark.parametrize("seed", range(10))
def test_spoilt_dialogues(seed: int) -> None:
    chance = Chance(seed)
    stored, places = 0, Counter[str]()
    for number in range(8000):
        given = chance.input()
        script, setup, clear, secured = given
        said, messages, where = held(given, [clear], [secured])
        assert _ANSWERS.fullmatch(said), (script.name, clear, secured, said)
        assert b"secret" not in said, (script.name, clear, secured, said)
        if number % 2:
            again = held(given, chance.sliced(clear), chance.sliced(secured))
            assert again == (said, messages, where), (script.name, clear, secured)
        if number % 8 == 0:
            assert held_by_lines(given) == (said, messages), (script.name, clear, secured)
        assert not any("secret" in reason for reason in setup.log.reasons)
        stored += len(messages)
        places[where] += 1
    # Mutations that leave nothing of a dialogue would show nothing.
    assert stored > 1500
    for state in State:
        assert state is State.CONNECTED or any(where.startswith(state.name) for where in places), (state, places)
    for place in ("FRESH TLS", "CONTENT TLS", "READY TLS AUTH", "CLOSED TLS AUTH", "READY AUTH", "AUTH", "CHUNK"):
        assert places[place], (place, places)


@pytest.mark.parametrize("seed", range(4))
def test_spoilt_streams(seed: int) -> None:
    chance = Chance(seed, "Streaming")
    for _ in range(2000):
        given = chance.input()
        said, _, _ = held(given, chance.sliced(given[2]), chance.sliced(given[3]))
        assert _ANSWERS.fullmatch(said), (given[0].name, given[2:], said)


HEADERS = [
    ProxyHeader(1, ProxyCommand.PROXY, ProxyFamily.TCP4, ("192.0.2.7", 4711), ("192.0.2.1", 25)),
    ProxyHeader(1, ProxyCommand.PROXY, ProxyFamily.TCP6, ("2001:db8::7", 4711, 0, 0), ("2001:db8::1", 25, 0, 0)),
    ProxyHeader(1),
    ProxyHeader(2, ProxyCommand.LOCAL),
    ProxyHeader(2, ProxyCommand.PROXY, ProxyFamily.UNIX, "/run/a", "\0abstract"),
    ProxyHeader(
        2,
        ProxyCommand.PROXY,
        ProxyFamily.TCP6,
        ("2001:db8::7", 4711, 0, 0),
        ("2001:db8::1", 25, 0, 0),
        alpn=b"smtp",
        authority="mx.example.org",
        unique_id=b"1234",
        tls=ProxyTls(True, True, version="TLSv1.3", common_name="alice", cipher="AES"),
        netns="blue",
        checksum=True,
        other=((0xE0, b"x"),),
    ),
]


def read(pieces: list[bytes]) -> tuple[object, bytes]:
    """The header or None, or what is wrong with it, and the octets that are left for the session."""
    reader, header, rest = ProxyReader(), None, b""
    try:
        for piece in pieces:
            if header is None:
                header = reader.feed(piece)
                rest = reader.rest
            else:
                rest += piece
    except ProxyError:
        return "refused", b""
    return header, rest


@pytest.mark.parametrize("seed", range(2))
def test_spoilt_proxy_headers(seed: int) -> None:
    """Before a session: a header, or the end; and what follows it comes to the session whole."""
    chance = Chance(seed)
    outcomes = Counter[str]()
    for _ in range(6000):
        data = chance.spoilt(encode(chance.choice(HEADERS))) + b"EHLO c.example\r\n"
        header, rest = read([data])
        assert read(chance.sliced(data)) == (header, rest)
        assert read([data[at : at + 1] for at in range(len(data))]) == (header, rest)
        assert data.endswith(rest)
        if isinstance(header, ProxyHeader):
            again = InMemory(ALL[0])
            assert _ANSWERS.fullmatch(again.converse([rest]))
            again.end()
        outcomes[type(header).__name__] += 1
    assert min(outcomes["ProxyHeader"], outcomes["str"]) > 300, outcomes
