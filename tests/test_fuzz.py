"""The dialogues, spoilt in thousands of ways: no exception, only well-formed replies, and a content is never obeyed."""

from __future__ import annotations

import logging
import random
import re
import secrets
from dataclasses import replace

import pytest
from dialogue import InMemory, Script, scripts

from gsmtp.protocol.session import State

_ANSWERS = re.compile(rb"(?:(?:([2-5][0-5][0-9])-[\t\x20-\x7e]*\r\n(?=\1))*[2-5][0-5][0-9] [\t\x20-\x7e]*\r\n)*")
_TOKENS = [
    b"\r", b"\n", b"\r\n", b".", b"\r\n.\r\n", b"\n.\n", b"\r\n.\n", b"\0", b"\xff", b"\xc3", b" ", b"<", b">", b'"',
    b"=", b"DATA\r\n", b"RSET\r\n", b"QUIT\r\n", b"MAIL FROM:<x@y>\r\n", b"RCPT TO:<x@y>\r\n", b"EHLO x\r\n",
    b"x" * 600,
]  # fmt: skip
ALL = scripts()


@pytest.fixture(autouse=True)
def no_chance_in_challenges(monkeypatch: pytest.MonkeyPatch) -> None:
    """CRAM-MD5 and SCRAM draw their challenges: two conversations are compared here, which must draw the same."""
    monkeypatch.setattr(secrets, "randbits", lambda bits: bits)
    monkeypatch.setattr(secrets, "token_urlsafe", lambda octets: "x" * octets)


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to six mutations."""
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice([1, 1, 2, 5, 30]))
        kind = chance.randrange(5)
        if kind == 0:
            data = data[:at] + chance.choice(_TOKENS) + data[at:]
        elif kind == 1:
            data = data[:at] + data[to:]
        elif kind == 2:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        elif kind == 3:
            data = data[:to] + data[at:]
        else:
            data = data[:at] + chance.choice(_TOKENS) + data[to:]
    return data


def held_by_lines(script: Script, data: bytes) -> tuple[bytes, list[tuple[str, str, bytes]]]:
    """Feed `data` line by line, and each content in two pieces, to see that nothing is said before its true end."""
    memory = InMemory(script)
    try:
        said = memory.converse([])
        at = 0
        while at < len(data) and not memory.closed:
            if memory.dialogue.protocol.state is State.CONTENT:
                # Counted from here, so that this stays right whichever newline ended the DATA line.
                end = (b"\r\n" + data[at:]).find(b"\r\n.\r\n")
                end = at + end + 3 if end >= 0 else len(data) + 1
                assert memory.converse([data[at : end - 1]]) == b""
                assert memory.dialogue.protocol.state is State.CONTENT
                at = end - 1
                ended = memory.converse([data[at:end]])
                assert (ended == b"") == (end > len(data))
                assert end > len(data) or memory.dialogue.protocol.state is not State.CONTENT
                said += ended
                at = end
            else:
                to = data.find(b"\n", at) + 1 or len(data)
                said += memory.converse([data[at:to]])
                at = to
        return said, memory.messages
    finally:
        memory.end()


@pytest.mark.parametrize("seed", range(10))
def test_spoilt_dialogues(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gsmtp.handler")
    chance = random.Random(seed)
    stored = 0
    for _ in range(500):
        script = chance.choice(ALL)
        if script.handler == "Streaming":
            script = replace(script, handler="Plain")
        data = spoilt(b"".join(packet for exchange in script.exchanges for packet in exchange.packets), chance)
        memory = InMemory(script)
        said = memory.converse([data])
        memory.end()
        assert _ANSWERS.fullmatch(said), (script.name, data, said)
        assert b"secret" not in said
        assert held_by_lines(script, data) == (said, memory.messages), (script.name, data)
        stored += len(memory.messages)
    # Mutations that leave nothing of a dialogue would show nothing.
    assert stored > 200


@pytest.mark.parametrize("seed", range(4))
def test_spoilt_streams(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gsmtp.handler")
    chance = random.Random(seed)
    for _ in range(100):
        script = replace(chance.choice(ALL), handler="Streaming")
        data = spoilt(b"".join(packet for exchange in script.exchanges for packet in exchange.packets), chance)
        memory = InMemory(script)
        said = memory.converse([data])
        memory.end()
        assert _ANSWERS.fullmatch(said), (script.name, data, said)
