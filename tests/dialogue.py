"""Conversations as plain text files, and two ways to hold one: in memory, and with a server on the network.

A file in tests/dialogues reads from top to bottom:

    # Words about it, and:
    # option: max_message_size = 1000       a setting of the listener, as in TOML; bind too, for LMTP
    # handler: Plain                        a class of scripted.py; Scripted when none is named
    C: NOOP                                 the client sends this and CRLF
    R: NOOP\\nQUIT\\r\\n                       the client sends these very octets; \\r \\n \\t \\0 \\xhh \\\\
    --                                      what follows goes in another packet
    S: 250 2.0.0 Ok                         the server says this line; "..." at its end stands for any rest
    S: (closed)                             the server closes the connection
    = <a@example.com> <b@example.com>: Hi\\r\\n    the next message that the handler took, with its content

Client lines that follow each other go in one packet. `{x*80}` stands for 80 times x. `C x3:` and `S x3:` stand for
three such lines, `{n}` in them for 1, 2, 3. The server must say the lines listed before the client goes on, and
nothing else.
"""

from __future__ import annotations

import json
import re
import socket
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import dialogues.scripted as scripted

from gsmtp import settings
from gsmtp.protocol import events
from gsmtp.protocol.envelope import Envelope, Session
from gsmtp.protocol.extensions import ExtensionSet
from gsmtp.protocol.options import Options
from gsmtp.server.dialogue import Dialogue
from gsmtp.server.hooks import Hooks
from gsmtp.server.service import claimed_extensions
from gsmtp.server.terms import Tally, Terms, Timing
from gsmtp.server.transport import ConnectionLost

DIRECTORY = Path(__file__).parent / "dialogues"
HOSTNAME = "mx.example.org"
_LINE = re.compile(r"(?P<who>[CSR])(?: x(?P<times>\d+))?:(?: (?P<text>.*))?")
_MESSAGE = re.compile(r"= <(?P<sender>.*?)> (?P<to><.*?>): ?(?P<content>.*)")
_REPEAT = re.compile(r"\{([^{}]+)\*(\d+)\}")
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}

Message = tuple[str, str, bytes]


@dataclass
class Exchange:
    """What the client sends, packet by packet, what the server then says, and the messages it has taken by then."""

    packets: list[bytes] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    closed: bool = False


@dataclass
class Script:
    """One file."""

    name: str
    options: dict[str, Any]
    handler: str
    exchanges: list[Exchange]


def scripts() -> list[Script]:
    """All of them."""
    return [parse(path.stem, path.read_text()) for path in sorted(DIRECTORY.glob("*.txt"))]


def parse(name: str, text: str) -> Script:
    """ValueError, with the line, for what is no dialogue."""
    script = Script(name, {}, "Scripted", [Exchange()])
    fresh = False
    for line in text.splitlines():
        here = script.exchanges[-1]
        if line.startswith("# option: "):
            script.options.update(tomllib.loads(line.removeprefix("# option: ")))
        elif line.startswith("# handler: "):
            script.handler = line.removeprefix("# handler: ")
        elif not line or line.startswith("#"):
            continue
        elif line == "--":
            fresh = True
        elif line == "S: (closed)":
            here.closed = True
        elif match := _MESSAGE.fullmatch(line):
            to = match["to"].replace(" ", "").replace("><", ",").strip("<>")
            here.messages.append((match["sender"], to, _octets(match["content"])))
        elif match := _LINE.fullmatch(line):
            each = [(match["text"] or "").replace("{n}", str(n + 1)) for n in range(int(match["times"] or 1))]
            if match["who"] == "S":
                here.replies += [_repeated(text) for text in each]
                continue
            if here.replies or here.closed or here.messages:
                here = Exchange()
                script.exchanges.append(here)
                fresh = True
            if match["who"] == "C":
                data = b"".join(_repeated(text).encode() + b"\r\n" for text in each)
            else:
                data = b"".join(map(_octets, each))
            if fresh or not here.packets:
                here.packets.append(b"")
                fresh = False
            here.packets[-1] += data
        else:
            raise ValueError(f"{name}: {line}")
    return script


def _repeated(text: str) -> str:
    return _REPEAT.sub(lambda match: match[1] * int(match[2]), text)


def _octets(text: str) -> bytes:
    def escaped(match: re.Match[str]) -> str:
        return chr(int(match[1][1:], 16)) if match[1][0] == "x" else _ESCAPES[match[1]]

    return _ESCAPE.sub(escaped, _repeated(text)).encode("latin-1")


def agree(wanted: list[str], said: list[str]) -> bool:
    """Whether the server said what was wanted of it."""
    return len(wanted) == len(said) and all(
        line.startswith(want[:-3]) if want.endswith("...") else line == want
        for want, line in zip(wanted, said, strict=True)
    )


class _NoLog:
    enabled = False

    def event(self, name: str, /, **fields: Any) -> None:
        """Nobody reads it."""


def options_of(script: Script, auth_hooks: frozenset[str] = frozenset()) -> Options:
    """The listener's settings as the protocol names them, with the defaults that settings have."""
    listen = settings.Listen(**{"bind": "smtp://127.0.0.1:0", "hostname": HOSTNAME, **script.options})
    return settings.protocol_options(listen, auth_hooks)


class InMemory:
    """The protocol, the dialogue with the handler, and no network: what is not sent yet is a list of pieces."""

    def __init__(self, script: Script) -> None:
        kind = getattr(scripted, script.handler)
        messages: list[Message] = []
        self.messages = messages

        def store(self: Any, envelope: Envelope, content: bytes) -> None:
            to = ",".join(recipient.address for recipient in envelope.recipients)
            messages.append((envelope.sender, to, content))

        handler = type(script.handler, (kind,), {"store": store})()
        ids = count(1)

        def new_id() -> str:
            return f"ID{next(ids)}"

        hooks = Hooks(handler, new_id)
        options = options_of(script, hooks.auth)
        terms = Terms(
            listener="smtp://127.0.0.1:0",
            options=options,
            asks=hooks.asks,
            entrance=None,
            extensions=ExtensionSet(options, claimed=claimed_extensions(hooks)),
            timing=Timing(),
            hooks=hooks,
            log=_NoLog(),  # type: ignore[arg-type]
            tally=Tally(),
            new_id=new_id,
            spool_directory=None,
            spool_memory=1000,
            auth_failure_delay=0.0,
            tls=None,
            implicit_tls=False,
        )
        self.dialogue = Dialogue(self, terms, Session("S1", ("192.0.2.1", 49152), ("192.0.2.2", 25), "smtp"))
        self._hooks = terms.hooks
        self._pieces: Iterator[bytes] = iter(())
        self._said = b""
        self.closed = False

    def run_hook(self, hook: Any, timeout: float, *arguments: Any) -> Any:
        """See gsmtp.server.dialogue.Line."""
        return self._hooks.call(hook, "S1", *arguments)

    def run_check(self, hook: Any, timeout: float, *arguments: Any, secret: str = "") -> Any:
        """See gsmtp.server.dialogue.Line."""
        return self._hooks.check(hook, "S1", *arguments, secret=secret)

    def tell(self, hook: Any, *arguments: Any) -> None:
        """See gsmtp.server.dialogue.Line."""
        self._hooks.tell(hook, "S1", *arguments)

    def flush(self) -> None:
        """What is said waits until the pieces are used up."""

    def pause(self, seconds: float) -> None:
        """Nobody waits here."""

    def start_tls(self) -> None:
        """There is no TLS without a network."""
        raise ConnectionLost("no TLS")

    def client_changed(self) -> None:
        """Everybody may come in."""

    def fill(self) -> None:
        """See gsmtp.server.dialogue.Line."""
        piece = next(self._pieces, None)
        if piece is None:
            raise ConnectionLost("nothing more")
        self.dialogue.protocol.receive(piece)

    def converse(self, pieces: list[bytes]) -> bytes:
        """Send these, and get all that the server says. An `on_data` that wants more then is broken off."""
        self._pieces = iter(pieces)
        protocol = self.dialogue.protocol
        try:
            while not self.closed:
                event = protocol.next_event()
                if event is events.CLOSED:
                    self.closed = True
                elif event is events.NEED_DATA:
                    self.fill()
                else:
                    self.dialogue.react(event)
        except ConnectionLost:
            pass
        return protocol.data_to_send()

    def end(self) -> None:
        """Free what is held."""
        self.dialogue.end("end of the test")


def converse_in_memory(script: Script, bytewise: bool) -> None:
    """Hold the conversation with each packet whole, or octet by octet. AssertionError where the server differs."""
    memory = InMemory(script)
    try:
        for exchange in script.exchanges:
            pieces = exchange.packets
            if bytewise:
                pieces = [packet[at : at + 1] for packet in pieces for at in range(len(packet))]
            said = memory.converse(pieces).decode("ascii").split("\r\n")
            assert said.pop() == ""
            assert agree(exchange.replies, said), f"wanted {exchange.replies}, got {said}"
            assert memory.messages == exchange.messages
            assert memory.closed == exchange.closed
            memory.messages.clear()
    finally:
        memory.end()


def converse_live(script: Script, port: int, store: Path) -> None:
    """Hold the conversation with a server whose handler stores in `store`."""
    number = count(1)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock, sock.makefile("rb") as file:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own = sock.getsockname()[1]
        for exchange in script.exchanges:
            for at, packet in enumerate(exchange.packets):
                if at:
                    time.sleep(0.02)
                sock.sendall(packet)
            said = [file.readline().decode("ascii").removesuffix("\r\n") for _ in exchange.replies]
            assert agree(exchange.replies, said), f"wanted {exchange.replies}, got {said}"
            for message in exchange.messages:
                place = store / f"{own}-{next(number)}"
                found = json.loads(place.read_text())
                assert (found["from"], found["to"], found["content"].encode("latin-1")) == message
                place.unlink()
            if exchange.closed:
                assert file.read() == b""
        if not script.exchanges[-1].closed:
            sock.shutdown(socket.SHUT_WR)
            assert file.read() == b""
        assert not list(store.glob(f"{own}-*"))
